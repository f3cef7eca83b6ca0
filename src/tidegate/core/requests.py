"""What people may ask of an environment, decided on its committed state.

Each function takes a state and returns the new one with its events, or raises RefusedError: then nothing
changed. The engine commits the result; only then does anything happen in the world.
Neighbours: `web.api` calls these through the engine; `advance` carries the rollout on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tidegate import errors
from tidegate.core import advance, home, model, placements, strategy
from tidegate.core.model import EnvironmentState, Event, Phase, Reason, Refusal, RolloutRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An accepted request."""

    state: EnvironmentState
    events: tuple[Event, ...] = ()
    no_op: bool = False
    """The world is as asked already."""
    rollout: int | None = None
    """Id of the rollout that was started or acted upon; None if it waits for another to go home."""


def start(state: EnvironmentState, request: RolloutRequest, *, supersede: bool = False) -> Decision:
    """Begin a rollout.

    The release that is live with the same configuration is a no-op. A rollout in progress is a refusal, or,
    with `supersede`, is aborted first: the newest request wins.
    """
    _refuse_if_halted(state)
    repeated = _same_key(state, request)
    if repeated is not None:
        return Decision(state=state, no_op=True, rollout=repeated)
    if request.key and state.pending is not None and state.pending.key == request.key:
        return Decision(state=state, no_op=True)
    current = state.rollout
    if current is None:
        return _begin(state, request)
    same = current.request.release == request.release and placements.same_configuration(
        current.request, request
    )
    if same and current.phase is not Phase.ABORTING:
        return Decision(state=state, no_op=True, rollout=current.id)
    if not supersede:
        raise _refused(
            Refusal.BUSY,
            f"Rollout #{current.id} of r{current.request.release} by {current.request.by or 'somebody'} "
            f"is in progress in {state.key} ({current.phase}).",
            "Wait for it, `tide abort` it, or deploy with --supersede.",
        )
    return _supersede(state, current, request)


def _supersede(state: EnvironmentState, current: model.Rollout, request: RolloutRequest) -> Decision:
    waiting = replace(state, pending=request)
    waited = f", as is r{state.pending.release}, which waited" if state.pending else ""
    detail = f"superseded by r{request.release}, asked for by {request.by or 'somebody'}{waited}"
    if current.phase is Phase.ABORTING:
        return Decision(state=waiting, events=(_event(current, Reason.SUPERSEDED, detail),))
    aborted = home.abort(waiting, current, Reason.SUPERSEDED, detail)
    return Decision(state=aborted.state, events=aborted.events)


def _begin(state: EnvironmentState, request: RolloutRequest) -> Decision:
    if placements.is_live(state, request):
        return Decision(state=state, no_op=True)
    begun = advance.begin(state, request)
    rollout = begun.state.rollout
    return Decision(state=begun.state, events=begun.events, rollout=rollout.id if rollout else None)


def abort(state: EnvironmentState, *, by: str, rollout: int | None = None) -> Decision:
    """Send everybody back to the release that was live. Aborting an abort is a no-op.

    Without `rollout`, whatever goes on is meant: a request that waits for the abort is withdrawn.
    """
    _refuse_if_halted(state)
    current = _current(state, rollout)
    if current.phase is not Phase.ABORTING:
        outcome = home.abort(state, current, Reason.USER_ABORT, f"by {by or 'somebody'}")
        return Decision(state=outcome.state, events=outcome.events, rollout=current.id)
    if state.pending is None or rollout is not None:
        return Decision(state=state, no_op=True, rollout=current.id)
    detail = f"r{state.pending.release}, which waited, was withdrawn by {by or 'somebody'}"
    withdrawn = _event(current, Reason.USER_ABORT, detail)
    return Decision(state=replace(state, pending=None), events=(withdrawn,), rollout=current.id)


def pause(state: EnvironmentState, *, by: str, rollout: int | None = None) -> Decision:
    """Stay at this exposure: neither hold times nor deadlines count."""
    current = _steerable(state, rollout)
    if state.route.hold_s:
        raise _refused(
            Refusal.STALE,
            f"Rollout #{current.id} holds the users' requests while the schema changes: it cannot stay so.",
            "`tide abort` sends them back; it goes on by itself in a moment.",
        )
    if current.paused:
        return Decision(state=state, no_op=True, rollout=current.id)
    return _steered(state, replace(current, paused=True), Reason.PAUSED, by)


def resume(state: EnvironmentState, *, by: str, rollout: int | None = None) -> Decision:
    """Go on after a pause."""
    current = _steerable(state, rollout)
    if not current.paused:
        return Decision(state=state, no_op=True, rollout=current.id)
    return _steered(state, replace(current, paused=False), Reason.RESUMED, by)


def promote(state: EnvironmentState, *, by: str, full: bool = False, rollout: int | None = None) -> Decision:
    """Skip the rest of this stage's hold time; with `full`, all stages up to full exposure.

    When full exposure is committed already, there is nothing to skip: a pause ends, else it is a no-op.
    """
    current = _steerable(state, rollout)
    last = len(current.strategy.stages) - 1
    if current.phase is Phase.FINISHING or (current.phase is Phase.SHIFTING and current.stage == last):
        return resume(state, by=by, rollout=rollout)
    if current.phase in (Phase.QUEUED, Phase.MIGRATING, Phase.STARTING, Phase.VERIFYING):
        raise _refused(
            Refusal.STALE,
            f"Rollout #{current.id} is still {current.phase}: nobody is exposed, so no stage can end.",
            "Promote when its first stage has begun.",
        )
    target = last if full else min(current.stage + 1, last)
    outcome = advance.go_to_stage(state, current, target, Reason.PROMOTED, f"by {by or 'somebody'}")
    return Decision(state=outcome.state, events=outcome.events, rollout=current.id)


def look_at_schema(state: EnvironmentState) -> Decision:
    """Somebody has said something of the database: the live release looks at it again."""
    live = state.live
    if live is None or not live.settled:
        return Decision(state=state, no_op=True)
    return Decision(state=state.with_placement(replace(live, settled=False)))


def rollback_target(
    state: EnvironmentState, history: tuple[model.Rollout, ...], to: int | None
) -> RolloutRequest:
    """The request that made live what is asked for: that release, else the one before this one.

    Its release, spec, secrets and strategy are what to go back to; kind, key, salt, links, admission and
    asker are of then.
    `history`: rollouts of this environment, newest first. Raises RefusedError when there is none.
    """
    live = state.live
    for rollout in history:
        past = rollout.request
        if rollout.phase is not Phase.SUCCEEDED:
            continue
        if past.release == to or (to is None and (live is None or past.release != live.release)):
            return past
    if to is not None:
        raise _refused(
            Refusal.NOT_KEPT,
            f"r{to} was never live in {state.key}, so there is nothing to go back to.",
            f"`tide history` shows what was; `tide deploy --release r{to}` goes there as a new rollout.",
        )
    raise _refused(
        Refusal.NOTHING_TO_GO_BACK_TO,
        f"No other release was ever live in {state.key}.",
        "`tide history` shows what was; `tide deploy` brings a new release.",
    )


def _steered(state: EnvironmentState, rollout: model.Rollout, reason: Reason, by: str) -> Decision:
    event = _event(rollout, reason, f"by {by or 'somebody'}")
    return Decision(state=replace(state, rollout=rollout), events=(event,), rollout=rollout.id)


def _current(state: EnvironmentState, rollout: int | None) -> model.Rollout:
    current, ended = state.rollout, state.last
    if current is not None and rollout in (None, current.id):
        return current
    if current is not None:
        raise _refused(
            Refusal.ENDED,
            f"Rollout #{rollout} is not in progress in {state.key}; #{current.id} of "
            f"r{current.request.release} is ({current.phase}).",
            "`tide status` shows it, `tide history` shows what was.",
        )
    if ended is not None and rollout in (None, ended.id):
        raise _refused(
            Refusal.ENDED if rollout is not None else Refusal.NO_ROLLOUT,
            f"No rollout is in progress in {state.key}; the last, #{ended.id} of "
            f"r{ended.request.release}, {ended.phase} ({ended.reason}).",
            "`tide rollback` goes back from a rollout that has succeeded.",
        )
    raise _refused(
        Refusal.NO_ROLLOUT, f"No rollout is in progress in {state.key}.", "`tide history` shows what was."
    )


def _steerable(state: EnvironmentState, rollout: int | None) -> model.Rollout:
    _refuse_if_halted(state)
    current = _current(state, rollout)
    if current.phase is Phase.ABORTING:
        raise _refused(
            Refusal.ENDED,
            f"Rollout #{current.id} is being aborted ({current.reason}); it cannot be steered any more.",
            "Deploy again when it has gone home.",
        )
    return current


def _same_key(state: EnvironmentState, request: RolloutRequest) -> int | None:
    known = (rollout for rollout in (state.rollout, state.last) if rollout is not None)
    return next((rollout.id for rollout in known if request.key and rollout.request.key == request.key), None)


def _refuse_if_halted(state: EnvironmentState) -> None:
    if state.halted:
        raise _refused(
            Refusal.HALTED,
            f"{state.key} is observed only: {state.halted}.",
            "Put the newer state back, or move what runs away by hand; Tidegate touches nothing until then.",
        )


def _refused(reason: Refusal, message: str, hint: str) -> errors.RefusedError:
    return errors.RefusedError(message, reason=reason.value, hint=hint)


def _event(rollout: model.Rollout, reason: Reason, detail: str) -> Event:
    return Event(
        reason=reason, rollout=rollout.id, release=rollout.request.release, phase=rollout.phase, detail=detail
    )


def with_strategy(request: RolloutRequest, chosen: model.Strategy) -> RolloutRequest:
    """The same request by another strategy."""
    return replace(request, strategy=chosen)


def by_switch(request: RolloutRequest) -> RolloutRequest:
    """The same request with everybody at once."""
    return with_strategy(request, strategy.SWITCH)
