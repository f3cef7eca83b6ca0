"""What a package brings is read when it is built, for all environments at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import spec
from tidegate.core.schemas import MigrationsUse
from tidegate.errors import MigrationError
from tidegate.migrators import brought

USE = MigrationsUse(path="db/changes", database="DATABASE_URL")
RUNS, NONE = ("production", spec(migrations=USE)), ("preview", spec())


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """With one migration that is in order."""
    folder = tmp_path / "dist" / "db" / "changes"
    folder.mkdir(parents=True)
    (folder / "0001_a.up.sql").write_text("CREATE TABLE a (n int);\n")
    (folder / "0001_a.down.sql").write_text("DROP TABLE a;\n")
    return tmp_path / "dist"


def refusal(package: Path) -> list[str]:
    with pytest.raises(MigrationError) as refused:
        brought.check(package, (NONE, RUNS))
    return [str(problem) for problem in refused.value.problems]


def test_scripts_that_are_in_order_pass(package: Path) -> None:
    """Nothing is said of them."""
    brought.check(package, (RUNS,))


def test_everything_wrong_is_told_with_its_file(package: Path) -> None:
    """Two files, two problems."""
    (package / "db/changes/0001_a.down.sql").write_text("-- nothing\n")
    (package / "db/changes/2_b.sql").write_text("SELECT 1;\n")
    first, second = refusal(package)
    assert first.startswith("0001_a.down.sql: has no statement")
    assert second.startswith("2_b.sql: is not the name of a migration")


def test_nobody_looks_where_no_migrations_run(tmp_path: Path) -> None:
    """An app without a database needs no folder."""
    brought.check(tmp_path, (NONE,))


def test_missing_folder_is_named(package: Path) -> None:
    """Also when it is a file."""
    (package / "db").rename(package / "other")
    assert refusal(package)[0].startswith("db/changes: is no folder of the package")
    (package / "db").mkdir()
    (package / "db/changes").write_text("")
    assert refusal(package)[0].startswith("db/changes: is no folder of the package")


def test_link_out_of_the_package_is_not_followed(package: Path, tmp_path: Path) -> None:
    """What lies outside of the package is not shipped, and nobody's business here."""
    (package / "db/changes").rename(tmp_path / "outside")
    (package / "db/changes").symlink_to(tmp_path / "outside")
    assert refusal(package)[0].startswith("db/changes: is no folder of the package")


def test_missing_package_is_left_to_who_packs_it(tmp_path: Path) -> None:
    """It says better what is missing."""
    brought.check(tmp_path / "dist", (RUNS,))
