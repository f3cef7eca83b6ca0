"""The migrations that a package brings, checked before anything of it is deployed.

Neighbours: `scripts` reads a folder; whoever builds a package calls this when it is built.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tidegate import errors
from tidegate.core.model import EnvironmentSpec
from tidegate.errors import MigrationError, Problem
from tidegate.migrators import scripts


def check(package: Path, environments: Iterable[tuple[str, EnvironmentSpec]]) -> None:
    """Read all migrations that environments use. `package`: its folder.

    Raises MigrationError: all that is wrong, by file; StorageError: they cannot be read. A package that is
    not there is left to whoever packs it.
    """
    if not package.is_dir():
        return
    folders = {spec.migrations.path for _, spec in environments if spec.migrations is not None}
    for folder in sorted(folders):
        place = (package / folder).resolve()
        if not place.is_relative_to(package.resolve()) or not place.is_dir():
            hint = "`migrations.path` in tidegate.yaml is a folder inside of that of `artifact.package`"
            raise MigrationError((Problem(folder, "is no folder of the package", hint),))
        try:
            scripts.read(place)
        except OSError as error:
            raise errors.StorageError(
                f"The migrations in {folder} cannot be read: {error.strerror}."
            ) from error
