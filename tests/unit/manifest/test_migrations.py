"""Migrations in tidegate.yaml: what may be written, what it means, and every mistake in words."""

from __future__ import annotations

import pytest

from tests.unit.manifest.support import mistakes
from tidegate import manifest
from tidegate.core.schemas import MigrationsUse

APP = """\
app: shop
artifact: {package: dist}
services: {web: {run: ./web}}
"""


def uses(top: str, environments: str) -> dict[str, MigrationsUse | None]:
    """By environment."""
    parsed = manifest.parse(f"{APP}{top}\nenvironments:\n  {environments}\n")
    return {name: spec.migrations for name, spec in parsed.environments}


def only(top: str, written: str) -> MigrationsUse | None:
    return uses(top, f"production: {{{written}}}")["production"]


def test_nothing_written_is_no_database() -> None:
    """No environment asks for one."""
    assert only("", "") is None


@pytest.mark.parametrize("top", ["migrations: db/", "migrations: {path: db/}"])
def test_folder_is_enough(top: str) -> None:
    """Short or long, with the defaults; the address is a secret or configuration."""
    wanted = MigrationsUse(path="db", database="DATABASE_URL", contract_after_s=86_400.0, hold_s=15)
    assert only(top, "secrets: [DATABASE_URL]") == wanted
    assert only(top, "config: {DATABASE_URL: 'sqlite:////data/a.db'}") == wanted


def test_environment_changes_parts_of_it() -> None:
    """Each key that is written wins; `off` takes all of it away, and then nobody needs an address."""
    found = uses(
        "migrations: {path: db, database: MAIN, contract_after: 1h, hold: 30s}",
        "a: {secrets: [MAIN]}\n  b: {migrations: {database: B, contract_after: 0s, hold: 5s}, secrets: [B]}\n"
        "  c: {migrations: off}\n  d: {migrations: {run: false}}",
    )
    assert found == {
        "a": MigrationsUse(path="db", database="MAIN", contract_after_s=3600.0, hold_s=30),
        "b": MigrationsUse(path="db", database="B", contract_after_s=0.0, hold_s=5),
        "c": None,
        "d": None,
    }


@pytest.mark.parametrize(
    ("top", "environment", "wanted"),
    [
        ("migrations: db", "", "production does not say where its database is: it has no DATABASE_URL"),
        ("migrations: db", "secrets: [DATABASE_URL: file]", "as a file; migrations need it as a variable"),
        ("migrations: {path: db, tool: alembic}", "", "only SQL files are run yet"),
        ("migrations: {path: db, command: ./migrate}", "", "only SQL files are run yet, and no command"),
        ("migrations: off", "", "should be a folder such as migrations/, not 'off'"),
        ("migrations: true", "", "an environment without a database says migrations: off"),
        ("migrations: [db]", "", "migrations: line 4: should be a mapping, not a list"),
        ("migrations: {path: ../db}", "", "migrations.path"),
        ("migrations: {database: X}", "", "migrations.path"),
        ("migrations: {path: db, hold: 61s}", "", "whole seconds, 1s to 60s"),
        ("migrations: {path: db, hold: 500ms}", "", "whole seconds, 1s to 60s"),
        ("migrations: {path: db, hold: 0s}", "", "whole seconds, 1s to 60s"),
        ("migrations: {path: db, hold: 1m}", "", "whole seconds, 1s to 60s, not '1m'"),
        ("", "migrations: db/", "should be off, or keys such as contract_after: below it"),
        ("", "migrations: [db]", "not a list"),
        ("", "migrations: {tool: django}", "only SQL files are run yet"),
        ("migrations: db", "migrations: {path: other}", "all environments are brought the same scripts"),
        ("", "migrations: {hold: 5s}", "changes nothing: there are no migrations at the top of the file"),
        ("services: {web: {run: ./web, migrations: db}}", "", "does not stand here"),
    ],
)
def test_mistakes_are_told(top: str, environment: str, wanted: str) -> None:
    """Each with what would be right."""
    base = APP.replace("services: {web: {run: ./web}}\n", "") if top.startswith("services") else APP
    text = f"{base}{top}\nenvironments:\n  production: {{{environment}}}\n"
    assert any(wanted in one for one in mistakes(text)), mistakes(text)


def test_other_environments_are_named_each() -> None:
    """The one that has an address is not among them."""
    text = f"{APP}migrations: db\nenvironments:\n  a: {{secrets: [DATABASE_URL]}}\n  b: {{}}\n  c: {{}}\n"
    found = [one for one in mistakes(text) if "does not say where its database is" in one]
    assert len(found) == 2


@pytest.mark.parametrize(
    ("top", "environments", "wrong"),
    [
        ("migrations: db", "production: {secrets: [DATABASE-URL]}", "environments.production.secrets"),
        ("migrations: db", "production: {config: {DATABASE_URL: [a]}}", "production.config.DATABASE_URL"),
        ("migrations: db", "production: {migrations: {database: 9x}}", "production.migrations.database"),
        ("migrations: db", "production: {migrations: {run: x}}", "environments.production.migrations.run"),
        ("migrations: db", "production: x", "environments.production"),
        ("migrations: db", "Prod: {secrets: [DATABASE_URL]}", "environments.Prod"),
        ("migrations: {path: db, database: 9x}", "production: {secrets: [X]}", "migrations.database"),
        ("migrations: off", "production: {migrations: {hold: 5s}}", "migrations"),
    ],
)
def test_what_cannot_be_read_is_no_second_mistake(top: str, environments: str, wrong: str) -> None:
    """The address may be what was written wrong: it is not said to be missing, too."""
    (found,) = mistakes(f"{APP}{top}\nenvironments:\n  {environments}\n")
    assert f"{wrong}: " in found


def test_other_mistakes_hide_no_missing_address() -> None:
    """Of another environment, or of the folder: one run tells all."""
    environments = "a: {secrets: [DATABASE-URL]}\n  b: {}"
    found = mistakes(f"{APP}migrations: {{hold: 5s}}\nenvironments:\n  {environments}\n")
    assert [one.partition(": ")[0] for one in found] == [
        "migrations.path",
        "environments.a.secrets",
        "environments.b",
    ]
