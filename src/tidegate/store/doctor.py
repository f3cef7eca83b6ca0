"""What `tide doctor` says of the state store: facts of the machine, judged.

Hides which version, setting, permission or disk is good enough. Reads, changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tidegate import ports
from tidegate.store import files

#: First SQLite in which a checkpoint beside another connection's write cannot damage the file.
FIXED_SQLITE: Final = (3, 51, 3)

#: What each pragma must answer for an acknowledged commit to survive a power cut.
SETTINGS: Final = {"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "trusted_schema": "0"}

_OTHERS: Final = 0o077


def findings(
    path: Path, ballast: files.Ballast, settings: Mapping[str, str], soundness: str
) -> tuple[ports.Finding, ...]:
    """`settings`: answers of the pragmas in `SETTINGS`; `soundness`: that of `quick_check`."""
    return (
        _version(sqlite3.sqlite_version_info),
        _settings(settings),
        _soundness(soundness),
        _privacy(path),
        _room(path, ballast),
    )


def _version(version: tuple[int, int, int]) -> ports.Finding:
    name = ".".join(str(part) for part in version)
    if version >= FIXED_SQLITE:
        return ports.Finding(name="state: SQLite", ok=True, detail=f"version {name}")
    return ports.Finding(
        name="state: SQLite",
        ok=True,
        detail=f"version {name}; safe, because only one connection of one process ever writes",
        hint="Do not let another program (Litestream, an SQLite shell) write or checkpoint the database: "
        "before 3.51.3 that can damage it. Back up with Tidegate.",
    )


def _settings(settings: Mapping[str, str]) -> ports.Finding:
    wrong = [name for name, value in SETTINGS.items() if settings[name] != value]
    detail = (
        f"not as required: {', '.join(wrong)}" if wrong else "every commit is on the disk when acknowledged"
    )
    return ports.Finding(name="state: durability", ok=not wrong, detail=detail)


def _soundness(answer: str) -> ports.Finding:
    hint = "" if answer == "ok" else "Check the disk, and restore the last backup."
    return ports.Finding(name="state: soundness", ok=answer == "ok", detail=answer, hint=hint)


def _privacy(path: Path) -> ports.Finding:
    beside = (path.parent, path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm"))
    open_to_others = [str(file) for file in beside if file.exists() and file.stat().st_mode & _OTHERS]
    if not open_to_others:
        return ports.Finding(name="state: privacy", ok=True, detail="readable by its owner only")
    return ports.Finding(
        name="state: privacy",
        ok=False,
        detail=f"open to other users: {', '.join(open_to_others)}",
        hint=f"Run: chmod -R go= {path.parent}",
    )


def _room(path: Path, ballast: files.Ballast) -> ports.Finding:
    free = f"{files.free_bytes(path.parent) // (1024 * 1024)} MiB free"
    if ballast.exists:
        return ports.Finding(name="state: room", ok=True, detail=f"{free}, and a reserve")
    return ports.Finding(
        name="state: room",
        ok=False,
        detail=f"{free}, and no reserve for a full disk",
        hint=f"Free {2 * ballast.size_bytes // (1024 * 1024)} MiB or more; the reserve comes back by itself.",
    )
