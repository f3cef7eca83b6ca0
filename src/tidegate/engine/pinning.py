"""Which versions of its secrets a rollout runs with: the newest for a deploy, for a rollback those of then.

Pure. Neighbours: `operations` asks when it builds a request; the core keeps versions and never sees a value.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate import errors, ports
from tidegate.core.model import EnvironmentKey, Refusal, SecretUse, SecretVersion


def newest(
    key: EnvironmentKey, uses: tuple[SecretUse, ...], there: tuple[SecretVersion, ...]
) -> tuple[SecretVersion, ...]:
    """What a release is given of what is set now. Raises RefusedError that names all that is missing."""
    known = {version.name: version for version in there}
    missing = [use.name for use in uses if use.name not in known]
    if missing:
        raise errors.RefusedError(
            f"{key} has no value for {_listed(missing)}, which the release needs.",
            reason=Refusal.NOT_SET.value,
            hint=f"Set it first: {_commands(key, missing)}.",
        )
    return tuple(replace(known[use.name], as_file=use.as_file) for use in uses)


def of_then(
    key: EnvironmentKey, release: int, pinned: tuple[SecretVersion, ...], kept: tuple[ports.SecretRecord, ...]
) -> tuple[SecretVersion, ...]:
    """What the release was given then, if it is all still there. Raises RefusedError."""
    there = {(record.name, record.version) for record in kept}
    missing = [version.name for version in pinned if (version.name, version.version) not in there]
    if missing:
        raise errors.RefusedError(
            f"r{release} ran in {key} with versions of {_listed(missing)} that were removed since.",
            reason=Refusal.NOT_SET.value,
            hint=f"`tide deploy {key.environment} --release r{release}` brings it with the values of today.",
        )
    return pinned


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _commands(key: EnvironmentKey, names: list[str]) -> str:
    return ", ".join(f"`tide secret set {key.environment} {name}`" for name in names)
