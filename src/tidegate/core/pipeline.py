"""Policy of the pipeline: which release may enter which environment next, and what it waits for. Pure.

    advance(state, look, dt_s) -> Outcome(state, passes, begins, events)

The rules, each with a test that fails without it:

- A release enters an environment only when what it runs has passed all that stand before it: those of its
  own manifest *and* those of the release that is live there. So a manifest cannot take away a gate that it
  has not passed itself; for the same reason approvals and freeze windows of both count.
- A pass is earned by a deploy that became live after its own checks, and was seen in order for the soak time:
  observed time, not time on the clock. An emergency earns none, nor does a way back.
- A pass counts for what runs (`promotions.identity`), and only while its seal is whole: what this module is
  shown has been proved.
- Of releases that wait at the same gate the newest stays, and none follows a newer one that has passed it;
  approvals are of a release, and not handed on.
- A release enters after what it needs of other apps (`needs`).
- Rollbacks never wait at a gate. Those of a group are promotions of a kind of their own: each waits only for
  those that depend on it.
- Everything is level-triggered: a rollout is found again by its key, so that a control plane that was killed
  between any two steps goes on without doing anything twice.

Neighbours: `promotions` has the values, `engine.pipelines` looks and carries out, `requests` begins rollouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tidegate import errors
from tidegate.core import model
from tidegate.core.model import (
    Approvals,
    EnvironmentState,
    Event,
    Phase,
    Reason,
    Refusal,
    Rollout,
    RolloutKind,
)
from tidegate.core.promotions import Approval, Ended, Pass, PipelineState, Promotion, Soak, Waits, identity
from tidegate.core.roles import Role

#: What keeps a release out for now.
GATES: Final = (Waits.BUSY, Waits.NEEDS, Waits.APPROVAL, Waits.FREEZE)
#: Longest time that one look may add to a soak.
TICK_MAX_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An environment of the app, as it is now."""

    state: EnvironmentState
    sound: bool = False
    """All instances of the live release were seen ready."""
    made_live: Rollout | None = None
    """The rollout that made the live placement live, the last that did; needed until `Soak` has passed."""
    release: model.Release | None = None
    """The live one; needed while it has no pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Travel:
    """What is known of one promotion beside its own record."""

    release: model.Release
    rollout: Rollout | None = None
    """That it began in the environment where it stands; None: none."""
    passed: frozenset[str] = frozenset()
    """Environments that its identity has passed, by proved seals."""
    demanded: tuple[str, ...] = ()
    """Environments that stand before this one by the manifest of the release that is live in it."""
    frozen: str = ""
    """Sentence on the freeze window that is in force there, by both manifests; empty: none is."""
    unmet: str = ""
    """Sentence on what it needs of other apps there, and is not so; empty: nothing."""
    circle: str = ""
    """Sentence on the circle of apps that it would close there; empty: none."""
    behind: tuple[tuple[str, Promotion], ...] = ()
    """Of a way back: who must be home before it begins, each with its app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at everything that the pipeline of an app rests on."""

    now: float
    """Unix seconds: people's time, for approvals."""
    places: Mapping[str, Place] = field(default_factory=dict)
    travels: Mapping[int, Travel] = field(default_factory=dict)
    """By promotion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """A rollout that shall begin now: the gate is open."""

    promotion: int
    environment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The next state, and what follows from it."""

    state: PipelineState
    passes: tuple[Pass, ...] = ()
    """To be sealed and kept."""
    begins: tuple[Begin, ...] = ()
    events: tuple[tuple[str, Event], ...] = ()
    """Each with its environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Why a release may not enter now."""

    waits: Waits
    sentence: str


def advance(state: PipelineState, look: Look, dt_s: float) -> Outcome:
    """One step of everything that is under way. `dt_s`: seconds since the last one, of the same process."""
    dt_s = min(max(dt_s, 0.0), TICK_MAX_S)
    soaked, passes, events = _soaked(state, look, dt_s)
    passed = {(soak.environment, soak.placement) for soak in state.soaks if soak.passed}
    committed = tuple(
        replace(soak, passed=soak.passed and (soak.environment, soak.placement) in passed)
        for soak in soaked.soaks
    )
    begins: list[Begin] = []
    for promotion in soaked.promotions:
        travel = look.travels.get(promotion.id)
        if travel is None:
            continue
        moved, begin = _moved(promotion, travel, look, replace(soaked, soaks=committed))
        soaked = soaked.with_promotion(moved)
        begins += [begin] if begin else []
        events += _told(promotion, moved)
    for promotion in soaked.promotions:
        newest = _newest_at_gate(soaked, promotion)
        if newest is not None:
            does = "waits at" if _waits_at(newest, promotion.environment) else "has passed"
            sentence = f"r{newest.release}, asked for later, {does} the same gate"
            superseded, told = ended(promotion, Ended.SUPERSEDED, sentence)
            soaked = soaked.with_promotion(superseded)
            events += told
    kept = {promotion.id for promotion in soaked.promotions}
    begins = [begin for begin in begins if begin.promotion in kept]
    return Outcome(state=soaked, passes=tuple(passes), begins=tuple(begins), events=tuple(events))


# --- soaks and passes ----------------------------------------------------------------------------


def _soaked(
    state: PipelineState, look: Look, dt_s: float
) -> tuple[PipelineState, list[Pass], list[tuple[str, Event]]]:
    soaks: list[Soak] = []
    passes: list[Pass] = []
    events: list[tuple[str, Event]] = []
    for name, place in look.places.items():
        soak = _soak(state.soak(name), name, place, dt_s)
        live = place.state.live
        if soak is not None and live is not None and place.release is not None and _is_earned(soak, place):
            soak = replace(soak, passed=True)
            earned = Pass(
                environment=name,
                identity=identity(place.release),
                release=live.release,
                digest=live.digest,
                rollout=soak.rollout or 0,
                at=look.now,
            )
            passes.append(earned)
            detail = f"r{live.release} has passed {name}"
            if live.spec.soak_s:
                detail += f": {soak.soaked_s:.0f} s live and in order"
            event = Event(reason=Reason.PASSED, release=live.release, rollout=soak.rollout, detail=detail)
            events.append((name, event))
        soaks += [soak] if soak else []
    return replace(state, soaks=tuple(soaks)), passes, events


def _soak(before: Soak | None, name: str, place: Place, dt_s: float) -> Soak | None:
    live = place.state.live
    if live is None:
        return None
    made = place.made_live
    earns = made is not None and _earns(made) and made.request.release == live.release
    rollout = made.id if made is not None and earns else None
    known = before is not None and before.placement == live.id
    if before is None or not known or (made is not None and rollout != before.rollout):
        return Soak(environment=name, placement=live.id, rollout=rollout)
    if before.passed or not place.sound:
        return before
    return replace(before, soaked_s=before.soaked_s + dt_s)


def _earns(rollout: Rollout) -> bool:
    forward = rollout.request.kind is model.RolloutKind.DEPLOY
    return rollout.phase is Phase.SUCCEEDED and forward and not rollout.request.emergency


def _is_earned(soak: Soak, place: Place) -> bool:
    live = place.state.live
    if live is None or soak.passed or soak.rollout is None or not place.sound:
        return False
    return soak.soaked_s >= live.spec.soak_s


# --- promotions ----------------------------------------------------------------------------------


def _moved(
    promotion: Promotion, travel: Travel, look: Look, state: PipelineState
) -> tuple[Promotion, Begin | None]:
    """One step of one promotion; a pass earned in this very step counts in the next one."""
    place, rollout = look.places.get(promotion.environment), travel.rollout
    if rollout is not None:
        begun = replace(promotion, rollout=rollout.id, queued=False)
        return _after_rollout(begun, rollout, travel, place, state), None
    if promotion.rollout is not None:
        return promotion, None  # it was begun, and its record could not be looked at
    if promotion.queued and place is not None:
        return _queued(promotion, place.state)
    if promotion.kind is RolloutKind.ROLLBACK:
        return _moved_back(promotion, travel, place)
    if promotion.environment != promotion.target and promotion.environment in travel.passed:
        return _onward(promotion, travel), None
    broken = unpassed(promotion.environment, promotion.path, travel) or travel.circle
    if broken:
        return _failed(promotion, broken), None
    held_by = held(promotion, travel, place.state if place else None, look.now)
    if held_by is not None:
        return replace(promotion, waits=held_by.waits, detail=held_by.sentence), None
    begins = replace(promotion, waits=Waits.ROLLOUT, detail=f"enters {promotion.environment}")
    return begins, Begin(promotion=promotion.id, environment=promotion.environment)


def _moved_back(promotion: Promotion, travel: Travel, place: Place | None) -> tuple[Promotion, Begin | None]:
    """One step of a way back that has not begun: no gate, but those who depend on it go first."""
    for app, other in travel.behind:
        if other.ended is not None and other.ended is not Ended.ARRIVED:
            return _failed(promotion, f"{app}, which depends on it, did not go back: {other.detail}"), None
    home = {app for app, other in travel.behind if other.ended is Ended.ARRIVED}
    ahead = [app for app, _ in promotion.after if app not in home]
    if ahead:
        waits = f"goes back to r{promotion.release} after {', '.join(ahead)}"
        return replace(promotion, waits=Waits.NEEDS, detail=waits), None
    closed = busy(promotion, place.state if place else None)
    if closed is not None:
        return replace(promotion, waits=closed.waits, detail=closed.sentence), None
    begins = replace(promotion, waits=Waits.ROLLOUT, detail=f"goes back to r{promotion.release}")
    return begins, Begin(promotion=promotion.id, environment=promotion.environment)


def _queued(promotion: Promotion, there: EnvironmentState) -> tuple[Promotion, Begin | None]:
    """Its rollout was asked for and has not begun: somebody may have taken it back."""
    if there.pending is not None and there.pending.key == promotion.request_key(promotion.environment):
        return promotion, None
    if there.live is not None and there.live.release == promotion.release:
        again = replace(promotion, queued=False)  # the rollout before it went home to just this release
        return again, Begin(promotion=promotion.id, environment=promotion.environment)
    gone = f"its rollout in {promotion.environment} was taken back, or gave way to another, before it began"
    return ended(promotion, Ended.WITHDRAWN, gone)[0], None


def _after_rollout(
    promotion: Promotion, rollout: Rollout, travel: Travel, place: Place | None, state: PipelineState
) -> Promotion:
    name = promotion.environment
    if rollout.phase is Phase.ABORTED:
        return _failed(promotion, f"{name}: {rollout.reason.value}: {rollout.detail}")
    if rollout.phase is not Phase.SUCCEEDED:
        return replace(promotion, waits=Waits.ROLLOUT, detail=f"rollout #{rollout.id} in {name}")
    if name == promotion.target:
        again = " again" if promotion.kind is RolloutKind.ROLLBACK else ""
        return ended(promotion, Ended.ARRIVED, f"r{promotion.release} is live in {name}{again}")[0]
    if name in travel.passed:
        return _onward(promotion, travel)
    live = place.state.live if place else None
    if live is None or live.id != rollout.placement:
        left = f"it is not live in {name} any more, and its time there was not over"
        newer = any(other.id > promotion.id for other in (*state.promotions, *state.ended))
        return ended(promotion, Ended.SUPERSEDED if newer else Ended.FAILED, left)[0]
    soak = state.soak(name)
    never = passes_nothing(promotion, soak) if soak is not None and soak.placement == live.id else ""
    if never:
        return _failed(promotion, never)
    if not live.spec.soak_s:
        return replace(promotion, waits=Waits.ROLLOUT, detail=f"is live in {name}")
    left_s = max(live.spec.soak_s - (soak.soaked_s if soak else 0.0), 0.0)
    sound = "" if place and place.sound else "; not all of its instances are ready, so that it does not count"
    return replace(promotion, waits=Waits.SOAK, detail=f"soaks in {name}, {left_s:.0f} s left{sound}")


def passes_nothing(promotion: Promotion, soak: Soak) -> str:
    """Why a release that is live, and has not passed there, never will; empty: it may yet."""
    name = promotion.environment
    if soak.passed:
        return f"r{promotion.release} is live in {name}, but its pass there does not hold"
    if soak.rollout is not None:
        return ""
    return (
        f"r{promotion.release} is live in {name}, but came there past the gates or on a way back, which "
        "passes nothing; it can enter again when another release is live there"
    )


def _onward(promotion: Promotion, travel: Travel) -> Promotion:
    """To the next environment that it has not passed; the target is entered in any case."""
    index = promotion.path.index(promotion.environment) + 1
    following = next(
        name for name in promotion.path[index:] if name not in travel.passed or name == promotion.target
    )
    return standing(promotion, following)


def _failed(promotion: Promotion, detail: str) -> Promotion:
    return ended(promotion, Ended.FAILED, detail)[0]


def ended(promotion: Promotion, how: Ended, detail: str) -> tuple[Promotion, tuple[tuple[str, Event], ...]]:
    """The promotion at its end, and what the history says of it."""
    after = replace(promotion, ended=how, waits=None, detail=detail)
    return after, tuple(_told(promotion, after))


def _newest_at_gate(state: PipelineState, promotion: Promotion) -> Promotion | None:
    """A later promotion that waits where this one waits, or has gone on from there."""
    if promotion.kind is RolloutKind.ROLLBACK:
        return None
    waits = promotion.waits in GATES
    enters = promotion.waits is Waits.ROLLOUT and promotion.rollout is None and not promotion.queued
    if not waits and not enters:
        return None
    gate = promotion.environment
    known = sorted((*state.promotions, *state.ended), key=lambda one: one.id)
    forward = [one for one in known if one.kind is RolloutKind.DEPLOY]
    later = [one for one in forward if one.id > promotion.id and one.release != promotion.release]
    found = [one for one in later if _has_passed(one, gate) or (waits and _waits_at(one, gate))]
    return found[-1] if found else None


def _waits_at(promotion: Promotion, gate: str) -> bool:
    return promotion.ended is None and promotion.environment == gate and promotion.waits in GATES


def _has_passed(promotion: Promotion, gate: str) -> bool:
    """It has entered there, or was let through; what was stopped on its way has not."""
    if gate not in promotion.path or promotion.ended not in (None, Ended.ARRIVED):
        return False
    beyond = promotion.path.index(promotion.environment) > promotion.path.index(gate)
    entered = promotion.environment == gate and promotion.rollout is not None
    return beyond or entered or promotion.ended is Ended.ARRIVED


def _told(before: Promotion, after: Promotion) -> list[tuple[str, Event]]:
    """What the history says: each new thing that it waits for, and its end."""
    if after.ended is not None and after.ended is not Ended.ARRIVED:
        event = Event(
            reason=Reason.STOPPED, release=after.release, rollout=after.rollout, detail=after.detail
        )
        return [(after.environment, event)]
    same = (before.waits, before.environment) == (after.waits, after.environment)
    if after.waits not in (*GATES, Waits.SOAK) or same:
        return []
    return [
        (after.environment, Event(reason=Reason.WAITING, release=after.release, detail=after.detail)),
    ]


# --- the gate ------------------------------------------------------------------------------------


def unpassed(environment: str, path: tuple[str, ...], travel: Travel) -> str:
    """Which environment before this one was not passed, as a sentence; empty: the way is free."""
    before = path[: path.index(environment)]
    for name in dict.fromkeys((*before, *travel.demanded)):
        if name in travel.passed:
            continue
        if name in before:
            return f"r{travel.release.number} has not passed {name}, which stands before {environment}"
        return (
            f"r{travel.release.number} leaves {name} out of its pipeline, which stands before {environment} "
            "by the release that is live there"
        )
    return ""


def held(promotion: Promotion, travel: Travel, there: EnvironmentState | None, now: float) -> Held | None:
    """What keeps a release, whose passes are in order, from entering now."""
    missing = _approval_missing(promotion, travel, there, now)
    if missing:
        return Held(waits=Waits.APPROVAL, sentence=missing)
    if travel.frozen:
        return Held(waits=Waits.FREEZE, sentence=travel.frozen)
    if travel.unmet:
        return Held(waits=Waits.NEEDS, sentence=travel.unmet)
    return busy(promotion, there)


def busy(promotion: Promotion, there: EnvironmentState | None) -> Held | None:
    """What happens there, so that nothing else can begin."""
    if there is not None and there.halted:
        return Held(waits=Waits.BUSY, sentence=f"{there.key} is observed only: {there.halted}")
    if there is not None and there.rollout is not None and not promotion.supersede:
        current = there.rollout
        sentence = (
            f"rollout #{current.id} of r{current.request.release} is in progress in {there.key.environment}"
        )
        return Held(waits=Waits.BUSY, sentence=sentence)
    return None


def _approval_missing(
    promotion: Promotion, travel: Travel, there: EnvironmentState | None, now: float
) -> str:
    for rule in approval_rules(travel.release, there.live if there else None, promotion.environment):
        given = {approval.by for approval in valid_approvals(promotion, rule, now)}
        if len(given) < rule.count:
            who = f" by {' or '.join(rule.roles)}" if rule.roles else ""
            have = f", {len(given)} given" if rule.count > 1 or given else ""
            return (
                f"waits for {rule.count} approval{'s' if rule.count > 1 else ''}{who}{have}: "
                f"`tide approve {promotion.environment} --release r{promotion.release}`"
            )
    return ""


def approval_rules(
    release: model.Release, live: model.Placement | None, environment: str
) -> tuple[Approvals, ...]:
    """Whose approval the gate wants, by both manifests."""
    specs = (release.environment(environment), live.spec if live else None)
    return tuple(spec.approvals for spec in specs if spec is not None and spec.approvals is not None)


def _has_role(rule: Approvals, role: str) -> bool:
    return not rule.roles or role in rule.roles or role == Role.ADMIN


def valid_approvals(promotion: Promotion, rule: Approvals, now: float) -> tuple[Approval, ...]:
    """Those that count at this Unix time."""
    return tuple(
        approval
        for approval in promotion.approvals
        if approval.environment == promotion.environment
        and 0 <= now - approval.at <= rule.expires_s
        and _has_role(rule, approval.role)
        and not (rule.not_by_requester and approval.by == promotion.requester)
    )


# --- what people ask -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """An accepted request."""

    state: PipelineState
    promotion: Promotion
    no_op: bool = False
    events: tuple[tuple[str, Event], ...] = ()


def promote(state: PipelineState, wanted: Promotion) -> Decision:
    """Let a release go its way; asked again, by key or for the same release and target, it is the same one.

    With `supersede` what was asked for earlier ends, and its rollouts go home.
    """
    for known in (*state.promotions, *state.ended):
        if wanted.key and known.key == wanted.key:
            return Decision(state=state, promotion=known, no_op=True)
    for known in state.promotions:
        if known.kind is not wanted.kind:
            continue
        if (known.identity, known.release, known.target) == (wanted.identity, wanted.release, wanted.target):
            return Decision(state=state, promotion=known, no_op=True)
    added = replace(wanted, id=state.next_id)
    events: list[tuple[str, Event]] = []
    for older in state.promotions if wanted.supersede else ():
        sentence = f"superseded by r{added.release}, asked for by {added.by or 'somebody'}"
        superseded, told = ended(older, Ended.SUPERSEDED, sentence)
        superseded = replace(superseded, homeward=older.waits is Waits.ROLLOUT)
        state = state.with_promotion(superseded)
        events += told
    state = replace(state, next_id=state.next_id + 1, promotions=(*state.promotions, added))
    return Decision(state=state, promotion=added, events=tuple(events))


def approve(
    state: PipelineState,
    environment: str,
    release: int | None,
    approval: Approval,
    rules: tuple[Approvals, ...],
) -> Decision:
    """Let the release that waits enter. `rules`: of both manifests. Raises RefusedError."""
    candidate = waiting(state, environment, release)
    for rule in rules:
        if not _has_role(rule, approval.role):
            raise errors.RefusedError(
                f"{environment} wants the approval of {' or '.join(rule.roles)}, and {approval.by} is "
                f"{approval.role}.",
                reason=Refusal.MAY_NOT_APPROVE.value,
                hint="Ask somebody who has that role.",
            )
        if rule.not_by_requester and approval.by == candidate.requester:
            raise errors.RefusedError(
                f"{approval.by} asked for this promotion, and {environment} wants somebody else's approval.",
                reason=Refusal.MAY_NOT_APPROVE.value,
                hint="Four eyes: ask a colleague.",
            )
    others = tuple(
        known
        for known in candidate.approvals
        if (known.by, known.environment) != (approval.by, approval.environment)
    )
    approved = replace(candidate, approvals=(*others, approval))
    event = Event(
        reason=Reason.APPROVED,
        release=candidate.release,
        detail=f"by {approval.by or 'somebody'} ({approval.role})",
    )
    return Decision(state=state.with_promotion(approved), promotion=approved, events=((environment, event),))


def withdraw(state: PipelineState, environment: str, release: int | None, by: str) -> Decision:
    """Take back a promotion that waits before, or soaks in, the environment. Raises RefusedError."""
    candidate = waiting(state, environment, release, soaking=True)
    withdrawn, told = ended(candidate, Ended.WITHDRAWN, f"withdrawn by {by or 'somebody'}")
    return Decision(state=state.with_promotion(withdrawn), promotion=withdrawn, events=told)


def waiting(
    state: PipelineState, environment: str, release: int | None, *, soaking: bool = False
) -> Promotion:
    """The newest promotion that waits there. Raises RefusedError."""
    gates = (*GATES, *((Waits.SOAK,) if soaking else ()))
    there = [p for p in state.promotions if p.environment == environment]
    asked = [p for p in there if soaking or p.kind is RolloutKind.DEPLOY]
    found = [p for p in asked if p.waits in gates and release in (None, p.release)]
    if found:
        return found[-1]
    before = [p for p in state.ended if release == p.release and environment in p.path]
    said = f"r{release} does not wait" if release is not None else "No release waits"
    more = f": its promotion has {before[-1].ended}, {before[-1].detail}" if before else ""
    raise errors.RefusedError(
        f"{said} at the gate of {state.app}/{environment}{more}.",
        reason=Refusal.NOTHING_WAITS.value,
        hint="`tide pipeline` shows what waits, and where.",
    )


def standing(promotion: Promotion, environment: str) -> Promotion:
    """The promotion as it stands before an environment of its path."""
    return replace(promotion, environment=environment, rollout=None, queued=False, waits=None, detail="")
