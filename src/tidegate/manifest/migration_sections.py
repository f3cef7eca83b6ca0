"""Keys of migrations: where they are, how they reach a database, and what an environment does otherwise.

A part of the definition, with the same rules. Neighbours: `definition` says where these sections stand,
`resolving` brings both together.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, WithJsonSchema

from tidegate.core import schemas
from tidegate.manifest import scalars
from tidegate.manifest.reading import Scalar, shortened
from tidegate.manifest.section import Section, key

HOLD_S_MAX: Final = 60
_HOLD_PATTERN: Final = "^([1-9]|[1-5][0-9]|60)s$"

#: Words of other programs for what runs migrations.
_RUNNERS: Final = {
    "tool": "only SQL files are run yet: Alembic and Django can print theirs as SQL",
    "command": "only SQL files are run yet, and no command: write what it does as SQL",
}
_IN_AN_ENVIRONMENT: Final = {
    **_RUNNERS,
    "path": "it stands at the top of the file: all environments are brought the same scripts",
}


def _hold(value: Any) -> int:
    return int(scalars.matched(value, _HOLD_PATTERN, f"whole seconds, 1s to {HOLD_S_MAX}s")[:-1])


HoldOfRequests = Annotated[int, *scalars.kind(_hold, {"type": "string", "pattern": _HOLD_PATTERN})]


class MigrationsSection(Section):
    """Scripts that change the database, kept with the release so that it can be gone back from.

    Short form: `migrations: migrations/` is `migrations: {path: migrations/}`. Each is a pair of files in the
    package, `0007_add_email.up.sql` and `0007_add_email.down.sql`.
    """

    later = frozenset({"tool"})
    hints = _RUNNERS

    path: scalars.Folder = key("Folder in the package with the SQL files.", "migrations/")
    database: scalars.Variable = key(
        "Variable with the address of the database: a secret, or `config`, of each environment. "
        "`postgresql://user:password@host/name` or `sqlite:////absolute/path.db`.",
        "SHOP_DATABASE",
        default="DATABASE_URL",
    )
    contract_after: scalars.Duration = key(
        "How long a release must be live before migrations run that take away what only older releases need. "
        "Until then going back is a matter of traffic alone.",
        "1h",
        default="24h",
    )
    hold: HoldOfRequests = key(
        "Longest time that a user's request waits while a migration runs on which neither release could "
        "work; then it is answered by 503 and Retry-After.",
        "30s",
        default=f"{schemas.HOLD_S}s",
    )


def _widened(value: Any) -> Any:
    if not isinstance(value, Scalar) or value.empty:
        return value
    if value.plain and value.text in ("on", "off", "true", "false"):
        hint = "leave it out; an environment without a database says migrations: off"
        raise scalars.not_this("a folder such as migrations/", value.text, hint)
    return {"path": value}


Migrations = Annotated[
    MigrationsSection | None,
    BeforeValidator(_widened, json_schema_input_type=scalars.Folder | MigrationsSection),
]


class MigrationsHereSection(Section):
    """What is different about migrations in one environment. Short form: `migrations: off`."""

    later = frozenset({"tool"})
    hints = _IN_AN_ENVIRONMENT

    run: scalars.Flag = key(
        "Whether they run here at all. `false`, in short `migrations: off`: this environment has no "
        "database, or somebody else keeps its schema.",
        "false",
        default=True,
    )
    database: scalars.Variable | None = key(
        "Instead of that at the top of the file.", "STAGING_DATABASE", default=None
    )
    contract_after: scalars.Duration | None = key(
        "Instead of that at the top of the file.", "10m", default=None
    )
    hold: HoldOfRequests | None = key("Instead of that at the top of the file.", "5s", default=None)

    @property
    def changes_something(self) -> bool:
        """Whether it says more than that none run."""
        return bool(self.model_fields_set - {"run"})


def _widened_here(value: Any) -> Any:
    wanted = "off, or keys such as contract_after: below it"
    if isinstance(value, list):
        raise scalars.Mistake(f"should be {wanted}, not a list")
    if isinstance(value, dict) or not isinstance(value, Scalar) or value.empty:
        return value
    if value.text not in ("off", "false"):
        raise scalars.Mistake(
            f"should be {wanted}, not {shortened(value.text)!r}", "the folder stands at the top of the file"
        )
    return {"run": "false"}


_ShortHere = Annotated[str, WithJsonSchema({"enum": ["off", False]})]
MigrationsHere = Annotated[
    MigrationsHereSection,
    BeforeValidator(_widened_here, json_schema_input_type=_ShortHere | MigrationsHereSection),
]


def resolved(
    everywhere: MigrationsSection | None, here: MigrationsHereSection
) -> schemas.MigrationsUse | None:
    """What an environment does; None: nothing."""
    if everywhere is None or not here.run:
        return None
    return schemas.MigrationsUse(
        path=everywhere.path,
        database=here.database or everywhere.database,
        contract_after_s=everywhere.contract_after if here.contract_after is None else here.contract_after,
        hold_s=here.hold or everywhere.hold,
    )
