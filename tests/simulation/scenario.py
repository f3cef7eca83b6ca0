"""What is deployed in a universe: the app's services, its releases with their behaviour, and requests.

Times are short, so that a rollout takes a minute of virtual time and thousands fit into a real one.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Final

from tidegate.core import model, strategy
from tidegate.testing import fakes

PRODUCTION: Final = model.EnvironmentKey(app="shop", environment="production")
STAGING: Final = model.EnvironmentKey(app="shop", environment="staging")
READY_TIMEOUT_S: Final = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Character:
    """How a release is: what its instances do by themselves, and under traffic."""

    name: str
    behaviour: fakes.Behaviour
    crashes_per_s_of_traffic: float = 0.0
    errors: float = 0.0
    """Share of requests that it answers with an error."""
    good: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A release of the universe."""

    number: int
    spec: model.EnvironmentSpec
    character: Character

    @property
    def digest(self) -> str:
        return f"sha256:{self.number:064x}"


#: Of checks; twice what the slowest that pass take.
VERIFY_TIMEOUT_S: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """What stays the same over the releases of a universe."""

    services: tuple[model.ServiceSpec, ...]
    links: tuple[model.Link, ...]


#: How checks of a release end by themselves.
PASSES: Final = fakes.JobEnd(after_s=1.0)
FAILS: Final = fakes.JobEnd(after_s=1.0, passed=False, exit="exit status 1")
HANGS: Final = fakes.JobEnd(after_s=math.inf, exit="never end")
GOOD: Final = Character(name="good", behaviour=fakes.Behaviour(ready_after_s=1.0, stop_after_s=0.5))


def character(rng: random.Random, *, bad: bool) -> Character:
    """A good release, quick or slow, or one of the ways to be bad."""
    if not bad:
        ready_after_s = rng.choice((0.3, 1.0, 1.0, 2.5, 6.0))
        behaviour = fakes.Behaviour(ready_after_s=ready_after_s, stop_after_s=rng.choice((0.2, 0.5, 1.5)))
        return Character(name="good", behaviour=behaviour)
    return rng.choice(
        (
            Character(name="never", behaviour=fakes.Behaviour(ready_after_s=math.inf), good=False),
            Character(name="loops", behaviour=fakes.Behaviour(crash_after_s=1.5), good=False),
            Character(
                name="weak",
                behaviour=fakes.Behaviour(ready_after_s=0.3, restart_after_s=(0.5,)),
                crashes_per_s_of_traffic=0.4,
                good=False,
            ),
            Character(
                name="later",
                behaviour=fakes.Behaviour(
                    ready_after_s=0.3,
                    crash_after_s=rng.uniform(8.0, 30.0),
                    crash_again_after_s=0.4,
                    restart_after_s=(0.5,),
                ),
                good=False,
            ),
        )
    )


def app(rng: random.Random) -> App:
    """One service, two of which one needs the other, or these with a worker."""
    shape = rng.choice(("web", "web", "api+web", "api+web", "api+web+mailer"))
    services = []
    if "api" in shape:
        services.append(_service("api", rng, hosts=(), needs=()))
    services.append(
        _service("web", rng, hosts=("shop.example.com",), needs=("api",) if "api" in shape else ())
    )
    if "mailer" in shape:
        worker = _service("mailer", rng, hosts=(), needs=("api",))
        services.append(
            model.ServiceSpec(
                name="mailer",
                run=worker.run,
                serves=False,
                check=model.Check(kind=model.CheckKind.ALIVE),
                needs=("api",),
                ready_timeout_s=READY_TIMEOUT_S,
                grace_s=1.0,
            )
        )
    links = [
        model.Link(service="api", slot=slot, port=9_000 + slot)
        for slot in range(model.SLOTS if "api" in shape else 0)
    ]
    return App(services=tuple(services), links=tuple(links))


def _service(
    name: str, rng: random.Random, *, hosts: tuple[str, ...], needs: tuple[str, ...]
) -> model.ServiceSpec:
    return model.ServiceSpec(
        name=name,
        run=(f"./{name}",),
        serves=True,
        check=model.Check(kind=model.CheckKind.HTTP),
        instances=rng.choice((1, 1, 2)),
        needs=needs,
        hosts=hosts,
        ready_timeout_s=READY_TIMEOUT_S,
        drain_s=rng.choice((3.0, 8.0)),
        grace_s=2.0,
    )


def _strategy(rng: random.Random) -> model.Strategy:
    steps = rng.choice(((), (500,), (1_000, 5_000), (100, 2_500, 5_000)))
    if not steps:
        return strategy.SWITCH
    holds = [rng.choice((2.0, 4.0, 8.0)) for _ in steps]
    stages = [model.Stage(exposure_bps=share, hold_s=hold) for share, hold in zip(steps, holds, strict=True)]
    if rng.random() < 0.1:
        stages[-1] = model.Stage(exposure_bps=steps[-1], hold_s=None)
    return strategy.canary(tuple(stages))


def release(number: int, of: App, rng: random.Random, *, bad: bool) -> Release:
    """The next release; now and then with another number of instances."""
    spec = model.EnvironmentSpec(
        services=of.services,
        strategy=_strategy(rng),
        config=(("RELEASE", str(number)),),
        keep_warm_s=rng.choice((0.0, 8.0, 25.0)),
    )
    return Release(number=number, spec=spec, character=character(rng, bad=bad))


def failing(one: Release, rng: random.Random) -> Release:
    """The same, but some or all of its answers are errors."""
    share = rng.choice((0.02, 0.3, 1.0))
    worse = replace(one.character, name=f"{one.character.name}, fails {share:.0%}", errors=share, good=False)
    return replace(one, character=worse)


def verified(one: Release, rng: random.Random) -> tuple[Release, fakes.JobEnd]:
    """The same with checks of its own, and how they end: passed, failed, or never."""
    spec = replace(one.spec, verify=model.Verify(run=("./smoke",), timeout_s=VERIFY_TIMEOUT_S))
    end = rng.choice((PASSES, PASSES, PASSES, FAILS, HANGS))
    known = one.character if end is PASSES else replace(one.character, good=False)
    character = replace(known, name=f"{known.name}, checks {'pass' if end is PASSES else end.exit}")
    slow = replace(end, after_s=end.after_s * rng.choice((0.5, 1.0, 4.0)))
    return replace(one, spec=spec, character=character), slow


def request(
    wanted: Release, of: App, *, kind: model.RolloutKind, key: str, immediate: bool
) -> model.RolloutRequest:
    """Ask for this release; `immediate` as a rollback does, without stages."""
    return model.RolloutRequest(
        kind=kind,
        release=wanted.number,
        digest=wanted.digest,
        spec=wanted.spec,
        strategy=strategy.SWITCH if immediate else wanted.spec.strategy,
        links=of.links,
        salt=f"salt-{key}",
        by="sim",
        key=key,
    )
