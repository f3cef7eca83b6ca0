"""Folders of migrations for tests."""

from __future__ import annotations

from pathlib import Path

from tidegate.migrators import scripts
from tidegate.migrators.scripts import SqlMigration

NO_TRANSACTION = "-- transaction: off\n"


def write(folder: Path, *migrations: tuple[str, ...]) -> Path:
    """Each a name, its up, its down (a reason in words: none) and perhaps its verify script, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, up, *rest) in enumerate(migrations, start=1):
        down, *verify = rest or ["no reason"]
        id_ = f"{number:04}_{name}"
        none = "" if ";" in down else f'-- down: none "{down}"\n'
        (folder / f"{id_}.up.sql").write_text(none + up)
        if ";" in down:
            (folder / f"{id_}.down.sql").write_text(down)
        for text in verify:
            (folder / f"{id_}.verify.sql").write_text(text)
    return folder


def made(folder: Path, *migrations: tuple[str, ...]) -> tuple[SqlMigration, ...]:
    """The same, read again."""
    return scripts.read(write(folder, *migrations))
