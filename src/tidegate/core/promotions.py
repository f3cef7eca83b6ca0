"""What is committed about the way of releases through the pipeline of an app: promotions, passes, soaks.

Values only. A *promotion* is a release on its way to a target environment; a *pass* says that what a release
runs came through an environment: its rollout succeeded, its own checks passed, its soak time is over. The
gate before the next environment asks for passes, never for names of releases.
Neighbours: `pipeline` decides on these, `model` has the environments.
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Final, Self

from tidegate.core import model

#: Ended promotions that are kept with the state, newest last.
KEPT = 20


class Waits(enum.StrEnum):
    """What a promotion waits for."""

    ROLLOUT = "rollout"
    """Its own rollout is in progress."""
    BUSY = "busy"
    """Another rollout is in progress there."""
    SOAK = "soak"
    """It is live, and its time there is not over."""
    NEEDS = "needs"
    """What it needs of another app is not live there, or moves; of a way back: who needs it is not home."""
    APPROVAL = "approval"
    FREEZE = "freeze"


class Ended(enum.StrEnum):
    """How a promotion ended."""

    ARRIVED = "arrived"
    """The release is live in the target environment."""
    FAILED = "failed"
    """Stopped on its way: a rollout was aborted, or a gate can no longer be passed."""
    SUPERSEDED = "superseded"
    """A newer release waits at the same gate, or has passed it."""
    WITHDRAWN = "withdrawn"
    """Somebody took it back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Somebody lets a release enter an environment."""

    environment: str
    by: str
    role: str
    at: float
    """Unix seconds."""
    seal: str = ""
    """The same, of this very release, signed; an approval whose seal is broken is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What a release runs came through an environment."""

    environment: str
    identity: str
    """See `identity`."""
    release: int
    digest: str
    rollout: int
    at: float
    """Unix seconds."""
    seal: str = ""
    """The same, signed; a pass whose seal is broken is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Soak:
    """How long the live release of an environment has been seen there in order."""

    environment: str
    placement: int
    rollout: int | None
    """That made it live; None: not by a deploy, so that it earns no pass."""
    soaked_s: float = 0.0
    passed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """A release on its way to a target environment."""

    id: int
    release: int
    digest: str
    identity: str
    path: tuple[str, ...]
    """Environments from the first one of the pipeline to the target."""
    environment: str
    """Where it stands: in this one, or before it."""
    by: str = ""
    requester: str = ""
    """Proved name of who asked; `by` may say more."""
    why: str = ""
    key: str = ""
    """Idempotency key."""
    at: float = 0.0
    """Unix seconds: apps that need each other's updates go in this order."""
    kind: model.RolloutKind = model.RolloutKind.DEPLOY
    """A way back is of one environment alone, and no gate holds it."""
    after: tuple[tuple[str, int], ...] = ()
    """Of a way back: promotions that must arrive before it begins, each with its app."""
    group: tuple[str, ...] = ()
    """Apps that go back together, in order."""
    supersede: bool = False
    """A rollout that is in its way is aborted, not waited for."""
    accepted: tuple[str, ...] = ()
    """See `RolloutRequest`."""
    rollout: int | None = None
    """Of this promotion, in `environment`."""
    queued: bool = False
    """Its rollout was asked for, and begins when the one before it has gone home."""
    homeward: bool = False
    """Ended before its rollout did, which has yet to be sent home."""
    waits: Waits | None = None
    detail: str = ""
    """For people: what it waits for, or how it ended."""
    approvals: tuple[Approval, ...] = ()
    ended: Ended | None = None

    @property
    def target(self) -> str:
        return self.path[-1]

    def request_key(self, environment: str) -> str:
        """Idempotency key of its rollout into an environment: begun twice, it is one."""
        return f"promotion-{self.id}-{environment}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineState:
    """The committed record of the pipeline of one app."""

    app: str
    next_id: int = 1
    promotions: tuple[Promotion, ...] = ()
    """Under way, oldest first."""
    ended: tuple[Promotion, ...] = ()
    """The newest `KEPT` that have ended, newest last."""
    soaks: tuple[Soak, ...] = ()

    def promotion(self, promotion_id: int) -> Promotion | None:
        """Under way or ended lately."""
        known = (*self.promotions, *self.ended)
        return next((promotion for promotion in known if promotion.id == promotion_id), None)

    def soak(self, environment: str) -> Soak | None:
        return next((soak for soak in self.soaks if soak.environment == environment), None)

    def with_promotion(self, promotion: Promotion) -> Self:
        """With the promotion of that id replaced; among the ended ones if it has ended."""
        if promotion.ended is None:
            changed = tuple(promotion if p.id == promotion.id else p for p in self.promotions)
            return replace(self, promotions=changed)
        left = tuple(p for p in self.promotions if p.id != promotion.id)
        ended = tuple(p for p in self.ended if p.id != promotion.id)
        return replace(self, promotions=left, ended=(*ended, promotion)[-KEPT:])


#: Stands for the scripts of a release where its commands are listed: no service can have that name.
MIGRATIONS: Final = "_migrations"


def identity(release: model.Release) -> str:
    """What a release runs, as a hash that is the same for the same: artifact, commands, checks, dependencies.

    Configuration, secrets, number of instances, limits and strategy belong to an environment and are no part
    of it: a release that changes nothing but production's configuration needs not start over.
    """
    ran = [
        [
            name,
            [_ran(service) for service in spec.services],
            asdict(spec.verify) if spec.verify else None,
            *([spec.migrations.path] if spec.migrations else []),
        ]
        for name, spec in release.environments
    ]
    text = json.dumps([release.digest, ran], separators=(",", ":"), sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def admitted(spec: model.EnvironmentSpec) -> tuple[str, ...]:
    """What may run in an environment, a line each: commands of services and checks, and configuration.

    They stand in the admission, so that a command that was edited in the state afterwards is found.
    """
    commands = [command_line(one.name, one.run, one.check.command) for one in spec.services]
    if spec.verify is not None:
        commands.append(command_line(model.VERIFY_SERVICE, spec.verify.run))
    if spec.migrations is not None:
        commands.append(command_line(MIGRATIONS, (spec.migrations.path, spec.migrations.database)))
    return (*commands, *(variable_line(name, value) for name, value in spec.config))


def command_line(service: str, run: tuple[str, ...], check: tuple[str, ...] = ()) -> str:
    """The line of a service's command, and of the command that checks it."""
    return f"run {service} {_hashed(json.dumps([run, check]))}"


def variable_line(name: str, value: str) -> str:
    """The line of a variable of the configuration."""
    return f"config {name} {_hashed(value)}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _ran(service: model.ServiceSpec) -> list[object]:
    ran = [service.name, service.run, service.serves, service.needs, asdict(service.check)]
    return [*ran, service.foreign] if service.foreign else ran
