"""What a request would do, in sentences, without doing it.

The steps are made by the functions that decide for real (`requests.start`, `reconcile.instance_group`), so
that plan and execution cannot differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tidegate.core import model, placements, reconcile, requests, sequential, strategy
from tidegate.core.effects import ApplyGroup
from tidegate.core.model import EnvironmentState, Placement, Role, RolloutKind, RolloutRequest
from tidegate.core.policy import AnalysisPolicy, LittleEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a rollout that is not begun."""

    release: int
    previous_release: int | None
    no_op: bool
    flip: bool
    """A warm placement is taken over: nothing has to start."""
    steps: tuple[str, ...]
    judged: str = ""
    """How the canary will be judged; empty: there is nothing to compare."""


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
        judged="" if decision.no_op else _judged(state, request),
    )


def _steps(state: EnvironmentState, request: RolloutRequest, warm: Placement | None) -> list[str]:
    placement = warm or Placement(
        id=state.next_id,
        release=request.release,
        digest=request.digest,
        slot=placements.free_slot(state) or 0,
        role=Role.INCOMING,
        spec=request.spec,
        secrets=request.secrets,
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
    if request.spec.migrations is not None and warm is None:
        yield_first.append(f"bring the schema of its database to r{request.release}: see tide migrate plan")
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


_AT_HOLD_END: Final = {
    LittleEvidence.GO_ON: "it goes on",
    LittleEvidence.WAIT: "it waits for more",
    LittleEvidence.ASK: "it pauses and asks",
}


def _judged(state: EnvironmentState, request: RolloutRequest) -> str:
    live, policy = state.live, request.spec.analysis
    exposed_bps = request.strategy.stages[0].exposure_bps
    if live is None or request.kind is not RolloutKind.DEPLOY or exposed_bps == model.FULL_EXPOSURE:
        return ""
    name = f"r{request.release}"
    if not policy.enabled:
        return f"{name} is not judged by its traffic: the analysis is off."
    early = f" A stage ends after {policy.soak_s:g} s if it is shown to be no worse."
    return (
        f"{name} is judged against r{live.release}: it goes back when the evidence that it "
        f"{' or '.join(_harm(policy))} reaches {1 / policy.false_abort:.0f} to 1."
        f"{early if policy.promote_early else ''} "
        f"With little evidence at the end of a stage {_AT_HOLD_END[policy.on_little_evidence]}."
    )


def _harm(policy: AnalysisPolicy) -> list[str]:
    slower_pct = 100 * (sequential.BUCKET_RATIO**policy.latency_margin_buckets - 1)
    found = [
        f"fails or leaves unanswered more than {policy.margin:g} times as many requests",
        f"is more than {slower_pct:.4g} % slower",
    ]
    if policy.max_error_share is not None:
        found.append(f"fails more than {100 * policy.max_error_share:g} % of them")
    if policy.max_p99_ms is not None:
        found.append(f"takes longer than {policy.max_p99_ms:g} ms for more than 1 % of them")
    return found
