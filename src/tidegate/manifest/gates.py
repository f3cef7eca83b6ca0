"""From what is written of gates to values of the core, and what is wrong between these values.

Hides which of two `verify` counts, and which service is meant where none is named. Neighbours:
`gate_sections` says what was written, `resolving` asks, `core.spec` has the other rules between values.
"""

from __future__ import annotations

import datetime as dt
import string
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import PurePosixPath

from tidegate.core import spec
from tidegate.core.model import Approvals, Freeze, SecretUse, ServiceSpec, Smoke, Verify
from tidegate.core.spec import DeclaredService, Fault, Where
from tidegate.manifest.definition import EnvironmentSection, ManifestSection
from tidegate.manifest.gate_sections import FreezeSection, SmokeSection, VerifySection
from tidegate.manifest.gate_values import Moment

_SHELLS = frozenset({"sh", "bash", "dash", "ash", "busybox", "zsh", "ksh"})


def faults(
    definition: ManifestSection,
    pipeline: Mapping[str, EnvironmentSection],
    services: tuple[DeclaredService, ...],
    known: frozenset[str],
    *,
    certain: bool,
) -> Iterator[Fault]:
    """What is wrong between values of gates. `known`: names of all services that were written.

    `certain`: nothing is wrong with the services; else nobody can say which of them have a port.
    """
    needed = spec.needed_names(services)
    serving = frozenset(s.name for s in services if spec.serves(s, needed)) if certain else known
    if definition.verify is not None:
        yield from _verify_faults(("verify",), definition.verify, serving, known)
    for name, environment in pipeline.items():
        where: Where = ("environments", name)
        if environment.verify is not None:
            yield from _verify_faults((*where, "verify"), environment.verify, serving, known)
        yield from _secret_faults(name, environment, spec.addressed_names(services))
        for index, freeze in enumerate(environment.freeze):
            yield from _freeze_faults((*where, "freeze", index), freeze)
    yield from _shown_faults(definition, pipeline)


# --- verify ------------------------------------------------------------------------------------------


def _verify_faults(
    where: Where, verify: VerifySection, serving: frozenset[str], known: frozenset[str]
) -> Iterator[Fault]:
    for index, smoke in enumerate(verify.smoke):
        yield from _smoke_faults((*where, "smoke", index), smoke, serving, known)


def _smoke_faults(
    where: Where, smoke: SmokeSection, serving: frozenset[str], known: frozenset[str]
) -> Iterator[Fault]:
    if smoke.service is None:
        if not serving:
            yield Fault(
                where=where,
                message=f"nobody can be asked for {smoke.path}: no service has a port",
                hint="port: true at the service that listens",
            )
    elif smoke.service not in known:
        close = spec.suggestion(smoke.service, known)
        yield Fault(
            where=(*where, "service"),
            message=f"there is no service {smoke.service}",
            hint=f"did you mean {close}?" if close else "name a key of services",
        )
    elif smoke.service not in serving:
        yield Fault(
            where=(*where, "service"),
            message=f"{smoke.service} has no port, so that nobody can ask it",
            hint=f"port: true at {smoke.service}, if it listens on PORT",
        )


def verify(
    definition: ManifestSection, environment: EnvironmentSection, services: tuple[ServiceSpec, ...]
) -> Verify | None:
    """How releases are tried in this environment, which has these services; None: not at all."""
    here = "verify" in environment.model_fields_set
    written = environment.verify if here else definition.verify
    if written is None:
        return None
    serving = [service for service in services if service.serves]
    front = next((service.name for service in serving if service.hosts), None)
    default = front or next((service.name for service in serving), "")
    return Verify(
        run=written.run or (),
        smoke=tuple(
            Smoke(service=smoke.service or default, path=smoke.path, status=smoke.status)
            for smoke in written.smoke
        ),
        timeout_s=written.timeout,
    )


# --- approvals and freezes ---------------------------------------------------------------------------


def approvals(environment: EnvironmentSection) -> Approvals | None:
    """Who must agree; None: nobody is asked."""
    written = environment.approve
    if written is None:
        return None
    return Approvals(
        count=written.count,
        roles=written.roles,
        expires_s=written.expires,
        not_by_requester=written.not_by_requester,
    )


def _freeze_faults(where: Where, freeze: FreezeSection) -> Iterator[Fault]:
    begin, end = freeze.from_, freeze.until
    until = (*where, "until")
    if isinstance(begin, int) and isinstance(end, int):
        if begin == end:
            hint = "over the week's end is from: fri 16:00, until: mon 08:00"
            yield Fault(where=until, message="is when it begins: nothing could ever enter", hint=hint)
    elif isinstance(begin, dt.datetime) and isinstance(end, dt.datetime):
        if end <= begin:
            yield Fault(where=until, message=f"should be later than {begin:%Y-%m-%d %H:%M}, when it begins")
    else:
        kind = "a day of the week" if isinstance(begin, int) else "a date"
        yield Fault(where=until, message=f"should be {kind}, as from is", hint="two windows are two items")


def freezes(environment: EnvironmentSection) -> tuple[Freeze, ...]:
    """The windows, in the order of the file."""
    return tuple(_freeze(written.from_, written) for written in environment.freeze)


def _freeze(begin: Moment, written: FreezeSection) -> Freeze:
    if isinstance(begin, int) and isinstance(written.until, int):
        return Freeze(zone=written.zone, weekly=(begin, written.until), why=written.why)
    dates = (_local(begin), _local(written.until))
    return Freeze(zone=written.zone, dates=dates, why=written.why)


def _local(moment: Moment) -> str:
    if isinstance(moment, int):
        raise TypeError(moment)  # a fault was found before: from and until are of one kind
    return moment.isoformat(timespec="minutes")


# --- secrets -----------------------------------------------------------------------------------------


def _secret_faults(name: str, environment: EnvironmentSection, needed: frozenset[str]) -> Iterator[Fault]:
    where: Where = ("environments", name, "secrets")
    for fault in spec.config_faults(name, environment.secrets, needed):
        yield replace(fault, where=where)
    for secret, as_file in environment.secrets.items():
        if secret in environment.config:
            yield Fault(
                where=where,
                message=f"{secret} stands in config, too",
                hint="remove it there: what is in this file is no secret",
            )
        path = f"{secret}_FILE"
        if as_file and (path in environment.config or path in environment.secrets):
            other = "config" if path in environment.config else "secrets"
            yield Fault(
                where=where,
                message=f"{secret} is a file, so that {path} is its path, and {path} stands in {other}, too",
                hint="use another name",
            )


def _shown_faults(definition: ManifestSection, pipeline: Mapping[str, EnvironmentSection]) -> Iterator[Fault]:
    """Secrets in commands: whoever is on the machine reads the arguments of every process."""
    secret = {
        name for environment in pipeline.values() for name, file in environment.secrets.items() if not file
    }
    for where, command in _commands(definition, pipeline):
        if PurePosixPath(command[0]).name in _SHELLS:
            continue  # it looks the variable up by itself, and is not given its value
        named = {name for word in command for name in string.Template(word).get_identifiers()}
        for name in sorted(named & secret):
            yield Fault(
                where=where,
                message=f"names ${name}, which is a secret: whoever is on the machine could read it there",
                hint="let the program look it up in its environment",
            )


def _commands(
    definition: ManifestSection, pipeline: Mapping[str, EnvironmentSection]
) -> Iterator[tuple[Where, tuple[str, ...]]]:
    for name, service in definition.services.items():
        yield ("services", name, "run"), service.run
        if service.health is not None and service.health.command is not None:
            yield ("services", name, "health", "command"), service.health.command
    places: list[tuple[Where, VerifySection | None]] = [(("verify",), definition.verify)]
    places += [(("environments", name, "verify"), spec.verify) for name, spec in pipeline.items()]
    for where, verify in places:
        if verify is not None and verify.run is not None:
            yield where, verify.run


def secrets(environment: EnvironmentSection) -> tuple[SecretUse, ...]:
    """What the environment's services are given, sorted by name."""
    return tuple(
        SecretUse(name=name, as_file=as_file) for name, as_file in sorted(environment.secrets.items())
    )
