"""The hooks of our repositories: what they say, and that they still say it.

A hook is a few lines of Python that start the very installation whose control plane wrote them, by its
absolute interpreter, isolated from the environment and the folder of whoever pushes (`-I`). Its text holds
no data but that path: which app is meant follows from where it lies. Invariant: what is not as we wrote it
is written again, and said. Neighbours: `repositories` puts them in place, `cli.receive` is what they run.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Final

from tidegate import errors

NAMES: Final = ("pre-receive", "proc-receive")
MODE: Final = 0o755
#: The kernel reads no more of a first line, its mark and arguments included.
_FIRST_LINE_BYTES_MAX: Final = 240
_PLAIN: Final = re.compile(r"/[^\s#]+")

_TEXT: Final = """\
#!{interpreter} -I
# Written by Tidegate, which writes it again when it is changed.
import sys

from tidegate.cli.receive import main

sys.exit(main(sys.argv[0]))
"""


def text(interpreter: Path) -> str:
    """What every hook says. Raises RequestError for an interpreter that no first line can name."""
    name = str(interpreter)
    if not _PLAIN.fullmatch(name) or len(name.encode()) > _FIRST_LINE_BYTES_MAX:
        raise errors.RequestError(
            f"Tidegate is installed where no hook of git can start it: {name}.",
            hint="Install it under a shorter path without spaces.",
        )
    return _TEXT.format(interpreter=name)


def keep(folder: Path, interpreter: Path) -> tuple[str, ...]:
    """Let the hooks be as they should; names of those that were not. Raises StorageError, RequestError."""
    wanted = text(interpreter)
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        strange = [path for path in folder.iterdir() if path.name not in NAMES]
        for path in strange:
            path.unlink()
        wrong = [name for name in NAMES if not _is_right(folder / name, wanted)]
        for name in wrong:
            fresh = folder / f".{name}.new"
            fresh.unlink(missing_ok=True)
            fresh.write_text(wanted, "utf-8")
            fresh.chmod(MODE)
            fresh.replace(folder / name)
    except OSError as error:
        raise errors.StorageError(f"The hooks in {folder} cannot be written: {error.strerror}.") from error
    return (*wrong, *(path.name for path in strange))


def _is_right(path: Path, wanted: str) -> bool:
    try:
        found = path.lstat()
        return (
            stat.S_ISREG(found.st_mode)
            and stat.S_IMODE(found.st_mode) == MODE
            and path.read_bytes() == wanted.encode()
        )
    except FileNotFoundError:
        return False
