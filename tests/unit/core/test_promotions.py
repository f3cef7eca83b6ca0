"""The values of a pipeline: what a release is known by, and what its state keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from tests.support.builders import COMMAND, WEB, digest, spec, worker
from tidegate.core import model, strategy
from tidegate.core.model import Approvals, EnvironmentSpec, Freeze, Limits, SecretUse, Smoke, Verify
from tidegate.core.promotions import KEPT, Ended, PipelineState, Promotion, Soak, identity
from tidegate.core.schemas import MigrationsUse


def release(of: EnvironmentSpec, **changes: Any) -> model.Release:
    fields: dict[str, Any] = {
        "app": "shop",
        "number": 2,
        "digest": digest("r2"),
        "environments": (("test", of), ("production", spec())),
    }
    return model.Release(**(fields | changes))


BASE: Final = spec(WEB, worker())

#: What a release runs, and what tries it.
IS_ANOTHER: Final = {
    "command": spec(replace(WEB, run=("./other",)), worker()),
    "service": spec(WEB),
    "serves": spec(WEB, replace(worker(), serves=True)),
    "needs": spec(replace(WEB, needs=("mailer",)), worker()),
    "needs of another app": spec(replace(WEB, foreign=("accounts/api",)), worker()),
    "check": spec(replace(WEB, check=COMMAND), worker()),
    "verify": spec(WEB, worker(), verify=Verify(run=("./smoke",))),
    "migrations": spec(WEB, worker(), migrations=MigrationsUse(path="db", database="URL")),
}

#: What belongs to an environment.
IS_THE_SAME: Final = {
    "config": spec(WEB, worker(), config=(("LEVEL", "debug"),)),
    "secrets": spec(WEB, worker(), secrets=(SecretUse(name="KEY"),)),
    "instances": spec(replace(WEB, instances=3), worker()),
    "limits": spec(replace(WEB, limits=Limits(cpus=1.0)), worker()),
    "hosts": spec(replace(WEB, hosts=("other.example.com",)), worker()),
    "strategy": spec(WEB, worker(), strategy=strategy.SWITCH),
    "soak": spec(WEB, worker(), soak_s=9.0),
    "approvals": spec(WEB, worker(), approvals=Approvals()),
    "freezes": spec(WEB, worker(), freezes=(Freeze(zone="UTC", weekly=(0, 1)),)),
}


@pytest.mark.parametrize("changed", IS_ANOTHER.values(), ids=IS_ANOTHER.keys())
def test_what_runs_otherwise_is_another(changed: EnvironmentSpec) -> None:
    """It has to pass everything itself."""
    assert identity(release(changed)) != identity(release(BASE))


@pytest.mark.parametrize("changed", IS_THE_SAME.values(), ids=IS_THE_SAME.keys())
def test_what_belongs_to_an_environment_does_not_matter(changed: EnvironmentSpec) -> None:
    """A release that changes nothing else need not start over."""
    assert identity(release(changed)) == identity(release(BASE))


def test_other_scripts_are_another_and_another_database_is_not() -> None:
    """The folder is of the package; which database, and when, belongs to an environment."""
    use = MigrationsUse(path="db", database="URL")
    elsewhere = replace(use, database="OTHER_URL", contract_after_s=1.0, hold_s=1)
    known = identity(release(spec(WEB, migrations=use)))
    assert identity(release(spec(WEB, migrations=elsewhere))) == known
    assert identity(release(spec(WEB, migrations=replace(use, path="other")))) != known


def test_rebuilt_artifact_is_another() -> None:
    """Also from the same commit; its number is no part of it."""
    assert identity(release(BASE, digest=digest("r3"))) != identity(release(BASE))
    assert identity(release(BASE, number=7, created_by="bob", revision="abc")) == identity(release(BASE))


def test_pipeline_with_other_environments_is_another() -> None:
    """In name, number or order."""
    names = [("test", "production"), ("test",), ("production", "test"), ("test", "live")]
    known = {identity(release(BASE, environments=tuple((name, BASE) for name in these))) for these in names}
    assert len(known) == len(names)


def test_change_of_smoke_checks_is_another() -> None:
    """Checks that are weaker prove less."""
    checks = [(), (Smoke(service="web", path="/"),), (Smoke(service="web", path="/", status=200),)]
    known = {identity(release(spec(WEB, verify=Verify(smoke=smoke)))) for smoke in checks}
    assert len(known) == len(checks)


def promotion(known: int, **changes: Any) -> Promotion:
    fields: dict[str, Any] = {
        "id": known,
        "release": known,
        "digest": digest("r1"),
        "identity": "sha256:1",
        "path": ("test", "production"),
        "environment": "test",
    }
    return Promotion(**(fields | changes))


def test_target_is_the_end_of_the_path() -> None:
    """And a key of its own for each environment makes one rollout there."""
    one = promotion(3)
    assert one.target == "production"
    assert one.request_key("test") == "promotion-3-test"
    assert len({promotion(p).request_key(name) for p in (1, 2) for name in one.path}) == 4


def test_state_finds_what_is_under_way_and_what_has_ended() -> None:
    """By number; a soak by its environment."""
    soak = Soak(environment="test", placement=1, rollout=1)
    state = PipelineState(
        app="shop",
        promotions=(promotion(2),),
        ended=(promotion(1, ended=Ended.ARRIVED),),
        soaks=(soak,),
    )
    assert [state.promotion(n) is not None for n in (1, 2, 3)] == [True, True, False]
    assert (state.soak("test"), state.soak("production")) == (soak, None)


def test_promotion_that_ends_leaves_those_under_way() -> None:
    """And is there once, also when more becomes known of it later."""
    state = PipelineState(app="shop", promotions=(promotion(1), promotion(2)))
    moved = state.with_promotion(promotion(2, environment="production"))
    assert [(p.id, p.environment) for p in moved.promotions] == [(1, "test"), (2, "production")]
    ended = moved.with_promotion(promotion(1, ended=Ended.FAILED))
    assert ([p.id for p in ended.promotions], [p.id for p in ended.ended]) == ([2], [1])
    again = ended.with_promotion(promotion(1, ended=Ended.FAILED, detail="later"))
    assert [(p.id, p.detail) for p in again.ended] == [(1, "later")]


def test_newest_ended_promotions_are_kept() -> None:
    """The store has the others."""
    state = PipelineState(app="shop", promotions=tuple(promotion(n) for n in range(1, KEPT + 4)))
    for one in state.promotions:
        state = state.with_promotion(replace(one, ended=Ended.ARRIVED))
    assert [p.id for p in state.ended] == list(range(4, KEPT + 4))


#: What `identity(release(BASE))` was when the first pass was sealed; printed by it, and never changed.
FIRST: Final = "sha256:ef479bcc264854047c0463aab01c664e4c38117d22dd353c53f86bf9a7a811c9"


def test_identity_is_what_it_was() -> None:
    """A pass of last year is found by its identity: a new field of a check must not make it another one."""
    assert identity(release(BASE)) == FIRST
