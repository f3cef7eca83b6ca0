"""Writes the saved states that every later Tidegate must read: one per phase and pipelines, made by hand.

`python -m tests.golden.write` adds those that are missing, in the folder of today's schema. It never
replaces one: what a released version wrote stays as it is. States taken from a simulation join them as
further files of that folder, under names that say where they come from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tidegate.core import model
from tidegate.core.migrations import Direction, Plan, Step, Way
from tidegate.core.model import Phase, Reason, Role
from tidegate.core.promotions import Approval, Ended, PipelineState, Promotion, Soak, Waits
from tidegate.core.schemas import MigrationsUse, Part, SchemaWork
from tidegate.store import codec

FOLDER: Final = Path(__file__).parent
KEY: Final = model.EnvironmentKey(app="shop", environment="production")


def states() -> dict[str, model.EnvironmentState]:
    """By the name of the phase."""
    old = replace(_placement(1, Role.LIVE), live_s=600.0)
    new = _placement(2, Role.INCOMING)
    ready = replace(new, endpoints=_endpoints(new.slot))
    home = model.Route(stable=0, fence=4)
    shifting = replace(home, canary=1, exposure_bps=100, salt="s3", preview="p3", fence=5)
    full = replace(shifting, exposure_bps=model.FULL_EXPOSURE, fence=7)
    base = model.EnvironmentState(
        key=KEY, next_id=4, placements=(old,), route=home, last=_ended(1, 1), seen_runtime=70, seen_router=41
    )
    both = replace(base, placements=(old, ready))
    standby = replace(ready, role=Role.LIVE, live_s=0.0)
    replaced = replace(old, role=Role.STANDBY, idle_s=12.5)
    return {
        Phase.QUEUED: replace(base, rollout=replace(_rollout(Phase.QUEUED), placement=None, phase_s=0.0)),
        Phase.MIGRATING: _migrating(base, old, new),
        Phase.STARTING: replace(base, placements=(old, new), rollout=_rollout(Phase.STARTING)),
        Phase.VERIFYING: _verifying(base, old, ready),
        Phase.SHIFTING: replace(both, route=shifting, rollout=_rollout(Phase.SHIFTING)),
        Phase.HOLDING: replace(
            both,
            route=shifting,
            rollout=replace(_rollout(Phase.HOLDING), held_s=30.25, paused=True, exposure_reached_bps=100),
        ),
        Phase.FINISHING: replace(
            both,
            route=full,
            rollout=replace(_rollout(Phase.FINISHING), stage=1, exposure_reached_bps=model.FULL_EXPOSURE),
        ),
        Phase.ABORTING: replace(
            both,
            route=replace(shifting, exposure_bps=0, fence=6),
            rollout=replace(_rollout(Phase.ABORTING), reason=Reason.SUPERSEDED, detail="r3"),
            pending=_request(3),
        ),
        Phase.SUCCEEDED: replace(
            base,
            placements=(replaced, standby),
            route=model.Route(stable=1, fence=8),
            last=_ended(3, 2),
        ),
        Phase.ABORTED: replace(
            base,
            placements=(old, replace(ready, role=Role.RETIRING, cleared=("api",), idle_s=3.0)),
            last=replace(
                _ended(3, 2), phase=Phase.ABORTED, reason=Reason.CRASH_LOOP, detail="web: exit status 1"
            ),
            halted="The state is older than the world: placement 9 is not in it.",
        ),
    }


def _migrating(
    base: model.EnvironmentState, old: model.Placement, new: model.Placement
) -> model.EnvironmentState:
    """Requests are held, and a job may run."""
    up, down = (Step(id="0007_a", direction=one) for one in (Direction.UP, Direction.DOWN))
    plan = Plan(way=Way.PAUSE, release=2, held=(down, up), ahead=("0006_b",), lossy=("0007_a",))
    use = MigrationsUse(path="migrations", database="DATABASE_URL", contract_after_s=60.5, hold_s=10)
    work = SchemaWork(
        id=4,
        placement=2,
        part=Part.HELD,
        plan=plan,
        ready=True,
        only=(1,),
        failure="no",
        again_s=5.0,
        waited_s=1.5,
    )
    here = replace(new, spec=replace(new.spec, migrations=use), migrations=("0007_a",), starts_ahead=True)
    asked = replace(_request(2), spec=here.spec, accepted=("0007_a",), starts_ahead=True)
    rollout = replace(_rollout(Phase.MIGRATING), request=asked, migration=plan, phase_s=3.5)
    live = replace(old, settled=True, stranded=True)
    route = replace(base.route, hold_s=10)
    return replace(base, next_id=5, placements=(live, here), route=route, rollout=rollout, schema=work)


def pipelines() -> dict[str, PipelineState]:
    """By what they show."""
    given = Approval(environment="production", by="bob", role="approver", at=1_800_000_000.25)
    waits = _promotion(4, "production", waits=Waits.APPROVAL, detail="waits for 2", approvals=(given,))
    under_way = (
        waits,
        _promotion(5, "test", waits=Waits.ROLLOUT, queued=True, supersede=True, key="push-5"),
        _promotion(6, "staging", rollout=9, waits=Waits.SOAK, by="ada via push", requester="ada", why="sale"),
    )
    superseded = _promotion(3, "test", rollout=7, ended=Ended.SUPERSEDED, homeward=True, detail="by r4")
    soaks = (
        Soak(environment="production", placement=3, rollout=None),
        Soak(environment="staging", placement=8, rollout=9, soaked_s=12.5),
        Soak(environment="test", placement=6, rollout=5, soaked_s=60.0, passed=True),
    )
    return {
        "empty": PipelineState(app="shop"),
        "under-way": PipelineState(
            app="shop", next_id=7, promotions=under_way, ended=(superseded,), soaks=soaks
        ),
    }


def _promotion(
    release: int, environment: str, *, waits: Waits | None = None, ended: Ended | None = None, **more: Any
) -> Promotion:
    """`more`: further fields."""
    return Promotion(
        id=release,
        release=release,
        digest=f"sha256:{release:064x}",
        identity=f"sha256:{release + 16:064x}",
        path=("test", "staging", "production"),
        environment=environment,
        at=1_800_000_000.5,
        waits=waits,
        ended=ended,
        **more,
    )


def missing(folder: Path = FOLDER) -> dict[Path, str]:
    """Files that are not there yet, with their text."""
    there = folder / f"schema-{codec.SCHEMA}"
    saved = {there / f"{name}.json": codec.STATE.encode(state) for name, state in states().items()}
    for name, pipeline in pipelines().items():
        saved[there / "pipelines" / f"{name}.json"] = codec.PIPELINE.encode(pipeline)
    return {path: f"{text}\n" for path, text in saved.items() if not path.exists()}


def main() -> None:
    """Write what is missing."""
    for path, text in missing().items():
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)


def _verifying(
    base: model.EnvironmentState, old: model.Placement, ready: model.Placement
) -> model.EnvironmentState:
    """With everything that gates have brought."""
    spec = replace(
        _spec(),
        secrets=(model.SecretUse(name="CERTIFICATE", as_file=True), model.SecretUse(name="DATABASE_URL")),
        verify=model.Verify(
            run=("./bin/smoke",),
            smoke=(
                model.Smoke(service="web", path="/cart", status=200),
                model.Smoke(service="web", path="/"),
            ),
            timeout_s=120.0,
        ),
        soak_s=3600.0,
        approvals=model.Approvals(count=2, roles=("approver",), expires_s=86400.0, not_by_requester=True),
        freezes=(
            model.Freeze(zone="Europe/Berlin", weekly=(6720, 480), why="weekend"),
            model.Freeze(zone="UTC", dates=("2026-12-20T16:00", "2027-01-02T00:00")),
        ),
    )
    versions = (
        model.SecretVersion(name="CERTIFICATE", version=1, as_file=True),
        model.SecretVersion(name="DATABASE_URL", version=3),
    )
    verified = replace(ready, spec=spec, secrets=versions, admission="{}")
    rollout = _rollout(Phase.VERIFYING)
    request = replace(rollout.request, spec=spec, secrets=versions, admission="{}", emergency="shop is down")
    return replace(
        base,
        placements=(old, verified),
        route=model.Route(stable=0, canary=1, salt="s3", preview="p3", fence=5),
        rollout=replace(rollout, request=request),
    )


def _spec() -> model.EnvironmentSpec:
    api = model.ServiceSpec(
        name="api",
        run=("./bin/api", "--port", "$PORT"),
        serves=True,
        check=model.Check(kind=model.CheckKind.HTTP, path="/healthz"),
        instances=2,
        limits=model.Limits(memory_bytes=256 * 1024 * 1024, cpus=0.5),
    )
    web = model.ServiceSpec(
        name="web",
        run=("./bin/web",),
        serves=True,
        check=model.Check(kind=model.CheckKind.TCP),
        needs=("api",),
        hosts=("shop.example.com",),
        identity=model.UserIdentity.ADDRESS,
        drain_s=0.0,
    )
    mailer = model.ServiceSpec(
        name="mailer",
        run=("./bin/mailer",),
        serves=False,
        check=model.Check(kind=model.CheckKind.ALIVE),
        instances=0,
    )
    stages = (
        model.Stage(exposure_bps=100, hold_s=120.0),
        model.Stage(exposure_bps=model.FULL_EXPOSURE, hold_s=None),
    )
    return model.EnvironmentSpec(
        services=(api, web, mailer),
        strategy=model.Strategy(kind=model.StrategyKind.CANARY, stages=stages),
        config=(("EMPTY", ""), ("GREETING", "wohlauf, 潮")),
        keep_warm_s=0.0,
    )


def _placement(release: int, role: Role) -> model.Placement:
    slot = release - 1
    return model.Placement(
        id=release,
        release=release,
        digest=f"sha256:{release:064x}",
        slot=slot,
        role=role,
        spec=_spec(),
        links=tuple(
            model.Link(service=name, slot=slot, port=20_000 + 10 * number + slot)
            for number, name in enumerate(("api", "web"))
        ),
        endpoints=_endpoints(slot) if role is Role.LIVE else (),
    )


def _endpoints(slot: int) -> tuple[model.Endpoint, ...]:
    return tuple(
        model.Endpoint(
            service=service,
            index=index,
            host="127.0.0.1",
            port=30_000 + 100 * slot + number,
            in_rotation=index == 0,
        )
        for number, (service, index) in enumerate((("api", 0), ("api", 1), ("web", 0)))
    )


def _request(release: int) -> model.RolloutRequest:
    return model.RolloutRequest(
        kind=model.RolloutKind.DEPLOY,
        release=release,
        digest=f"sha256:{release:064x}",
        spec=_spec(),
        strategy=_spec().strategy,
        links=(model.Link(service="api", slot=1, port=20_001),),
        salt=f"s{release}",
        preview=f"p{release}",
        by="ada",
        why="a new start page",
        key=f"press-{release}",
        at=1_700_000_000.5,
    )


def _rollout(phase: Phase) -> model.Rollout:
    return model.Rollout(
        id=3,
        request=_request(2),
        phase=phase,
        placement=2,
        created_placement=True,
        previous_release=1,
        phase_s=7.5,
    )


def _ended(rollout_id: int, release: int) -> model.Rollout:
    return model.Rollout(
        id=rollout_id,
        request=_request(release),
        phase=Phase.SUCCEEDED,
        placement=release,
        created_placement=True,
        stage=1,
        reason=Reason.COMPLETE,
        exposure_reached_bps=model.FULL_EXPOSURE,
    )


if __name__ == "__main__":
    main()
