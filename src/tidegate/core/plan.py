"""What a request would do, in sentences, without doing it.

The steps are made by the functions that decide for real (`requests.start`, `reconcile.instance_group`), so
that plan and execution cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.core import model, placements, reconcile, requests, strategy
from tidegate.core.effects import ApplyGroup
from tidegate.core.model import EnvironmentState, Placement, Role, RolloutRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a rollout that is not begun."""

    release: int
    previous_release: int | None
    no_op: bool
    flip: bool
    """A warm placement is taken over: nothing has to start."""
    steps: tuple[str, ...]


def plan(state: EnvironmentState, request: RolloutRequest, *, supersede: bool = False) -> Plan:
    """Raises RefusedError as the request itself would."""
    decision = requests.start(state, request, supersede=supersede)
    live = state.live
    warm = placements.warm(state, request)
    steps: tuple[str, ...] = ()
    if not decision.no_op:
        steps = tuple(_steps(state, request, warm))
    return Plan(
        release=request.release,
        previous_release=live.release if live else None,
        no_op=decision.no_op,
        flip=warm is not None,
        steps=steps,
    )


def _steps(state: EnvironmentState, request: RolloutRequest, warm: Placement | None) -> list[str]:
    placement = warm or Placement(
        id=state.next_id,
        release=request.release,
        digest=request.digest,
        slot=placements.free_slot(state) or 0,
        role=Role.INCOMING,
        spec=request.spec,
    )
    serving = [service for service in request.spec.services if service.serves]
    workers = [service for service in request.spec.services if not service.serves]
    live = state.live
    if state.rollout is not None:
        yield_first = [
            f"abort rollout #{state.rollout.id} of r{state.rollout.request.release} and let it go home"
        ]
    else:
        yield_first = []
    starts = [_start(state, placement, service) for service in serving]
    woken = [f"take over the warm instances of r{request.release}"]
    shifts = [_shift(stage, live) for stage in request.strategy.stages]
    ends = [_start(state, placement, service) for service in workers]
    if live is not None:
        ends.append(f"keep r{live.release} warm for {request.spec.keep_warm_s:g} s, then drain and stop it")
    return [*yield_first, *(woken if warm else starts), *shifts, *ends]


def _start(state: EnvironmentState, placement: Placement, service: model.ServiceSpec) -> str:
    described = ApplyGroup(group=reconcile.instance_group(state, placement, service)).describe()
    after = f" when {', '.join(service.needs)} is ready" if service.needs else ""
    return f"{described}{after}"


def _shift(stage: model.Stage, live: Placement | None) -> str:
    if stage.exposure_bps == model.FULL_EXPOSURE:
        return "send everybody to it" if live else "open the route"
    return f"expose {stage.exposure_bps / 100:g} % of users, hold {strategy.hold(stage)}"
