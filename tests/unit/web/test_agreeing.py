"""What may be agreed to over the API are ids of migrations, as files have them, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tidegate.errors import MigrationError
from tidegate.migrators import scripts
from tidegate.web import api

IDS = ["0007_add_email", "123456789_a", "0001_a-b_c", "0001_" + "a" * 100]
OTHERS = [
    "",
    "7_add",
    "0007",
    "0007_",
    "0007_Add",
    "0007_a.up",
    "0007_a\n",
    "1234567890_a",
    "0001_" + "a" * 101,
]


@pytest.mark.parametrize("id_", IDS)
def test_ids_of_migrations_are_taken(id_: str) -> None:
    """By a deploy and by a rollback, in the order in which they were said."""
    assert api.Deploy(release=1, accepted=(id_, "0001_x")).accepted == (id_, "0001_x")
    assert api.Rollback(accepted=(id_,)).accepted == (id_,)


@pytest.mark.parametrize("id_", OTHERS)
def test_what_is_no_id_is_refused(id_: str) -> None:
    """Before anybody looks for it, or writes it down."""
    with pytest.raises(ValidationError):
        api.Deploy(release=1, accepted=(id_,))
    with pytest.raises(ValidationError):
        api.Rollback(accepted=(id_,))


@pytest.mark.parametrize("id_", [*IDS, *OTHERS])
def test_api_and_files_have_the_same_ids(id_: str, tmp_path: Path) -> None:
    """What one takes the other takes: `web` does not know the files."""
    (tmp_path / f"{id_}.up.sql").write_text('-- down: none "because"\nSELECT 1;\n')
    try:
        read = [one.id for one in scripts.read(tmp_path)]
    except MigrationError:
        read = []
    assert read == ([id_] if id_ in IDS else [])
