"""What must never happen to a pipeline, judged by the truth of the world and by what people have really done.

UNPASSED, UNAPPROVED, FROZEN, TAMPERED, ADMISSION, BEGUN-TWICE, OVERTAKEN, PASS-UNEARNED, PASS-LOST,
HANDED-ON, QUEUE, LOST, NOT-ARRIVED, NOT-SENT-HOME, NO-REST, FORGOTTEN.

The only excuse is an emergency that somebody has asked for as one. Nothing here reads what the pipeline keeps
of passes, soaks or approvals: it keeps its own account, and that of soaks is an upper bound.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.simulation.pipeline.world import APP, KEYS, Violation, World
from tidegate import errors
from tidegate.core import model
from tidegate.core.model import EnvironmentKey, EnvironmentState, Phase, RolloutKind, RolloutRequest
from tidegate.core.promotions import Approval, Ended, Pass, PipelineState, Promotion, Waits, identity

if TYPE_CHECKING:
    from tests.simulation.pipeline.plane import Process

GATES = (Waits.BUSY, Waits.APPROVAL, Waits.FREEZE)
#: Age of a look that still counts, and the longest time that a step may count.
LOOK_MAX_S = 10.0
TICK_MAX_S = 1.0
TOLERANCE_S = 0.01


class Checker:
    """Judges each commit when it has happened."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._states: dict[EnvironmentKey, EnvironmentState] = {}
        self._judged: set[str] = set()
        self._begun: dict[tuple[str, str], int] = {}
        self._entered: dict[tuple[str, int], int] = {}
        self._earned: set[tuple[str, str]] = set()
        self._emergencies: set[str] = set()
        self._accepted: dict[str, EnvironmentKey] = {}
        self._approving: set[tuple[Approval, int]] = set()
        self._given: defaultdict[int, list[Approval]] = defaultdict(list)
        self._ready: dict[tuple[EnvironmentKey, int], bool] = {}
        self._looked_at: dict[EnvironmentKey, float] = {}
        self._stepped: tuple[object, float] | None = None
        self._healthy: dict[EnvironmentKey, tuple[int, float]] = {}

    # --- what people do ---

    def asked(self, why: str, *, emergency: bool) -> None:
        """Somebody wants something, and says why."""
        if emergency:
            self._emergencies.add(why)

    def accepted(self, key: str, where: EnvironmentKey) -> None:
        """They were told that it will be done."""
        self._accepted[key] = where

    def approving(self, given: Approval, release: int) -> None:
        """Somebody presses the button."""
        self._approving.add((given, release))

    # --- soaks ---

    def looked(self, key: EnvironmentKey) -> None:
        """A look was taken, now."""
        self._looked_at[key] = self.world.clock.elapsed
        groups = self.world.runtime.groups_of(key)
        for placement in self.world.store.load(key).state.placements:
            ready = {group.service: group.ready_count for group in groups if group.placement == placement.id}
            self._ready[key, placement.id] = all(
                ready.get(service.name, 0) >= service.instances for service in placement.spec.services
            )

    def looked_at(self, key: EnvironmentKey) -> float:
        """When somebody looked last."""
        return self._looked_at.get(key, -1e9)

    def begin_step(self, process: Process) -> None:
        """A process carries its promotions on: the time since its last step may count."""
        now, before = self.world.clock.elapsed, self._stepped
        self._stepped = (process, now)
        passed_s = min(now - before[1], TICK_MAX_S) if before is not None and before[0] is process else 0.0
        for key in KEYS:
            live = self.world.store.load(key).state.live
            if live is None:
                self._healthy.pop(key, None)
                continue
            placement, healthy_s = self._healthy.get(key, (live.id, 0.0))
            fresh = now - self.looked_at(key) <= LOOK_MAX_S
            if placement != live.id:
                self._healthy[key] = (live.id, 0.0)
            elif fresh and self._ready.get((key, live.id), False):
                self._healthy[key] = (live.id, healthy_s + passed_s)
            else:
                self._healthy[key] = (live.id, healthy_s)

    def on_step(self) -> None:
        """A whole step of the pipeline has gone well."""
        for promotion in self.world.kept.load(APP).state.ended:
            if promotion.ended is Ended.ARRIVED:
                continue
            key = EnvironmentKey(app=APP, environment=promotion.environment)
            record = self.world.store.rollout_by_request_key(key, promotion.request_key(key.environment))
            if record is not None and not record.rollout.phase.ended:
                current = self.world.store.load(key).state.rollout
                if current is not None and current.phase is not Phase.ABORTING:
                    raise Violation("NOT-SENT-HOME", f"{key}: rollout {current.id} of {promotion}")

    # --- rollouts ---

    def on_environment(self, key: EnvironmentKey, state: EnvironmentState) -> None:
        """The state of an environment is this now."""
        before = self._states.get(key)
        if before is state:
            return
        self._states[key] = state
        was = before or EnvironmentState(key=key)
        for request in (state.pending, state.rollout.request if state.rollout else None):
            if request is not None and request.salt not in self._judged:
                self._judged.add(request.salt)
                self.world.note(f"{key}: r{request.release} {request.kind} {request.key} {request.why}")
                self._judge(key, was, request)
        rollout = state.rollout
        if rollout is not None and (was.rollout is None or was.rollout.id != rollout.id):
            self._once(key, rollout)
        last = state.last
        if last is not None and (was.last is None or was.last.id != last.id):
            self.world.reached[f"rollout {last.phase}: {last.reason}"] += 1

    def _once(self, key: EnvironmentKey, rollout: model.Rollout) -> None:
        request = rollout.request
        if request.kind is not RolloutKind.DEPLOY:
            return
        known = self._begun.setdefault((key.environment, request.why), rollout.id)
        if known != rollout.id:
            raise Violation("BEGUN-TWICE", f"{key}: rollouts {known} and {rollout.id} for {request.why}")

    def _judge(self, key: EnvironmentKey, before: EnvironmentState, request: RolloutRequest) -> None:
        if request.kind is not RolloutKind.DEPLOY:
            return
        self.world.reached["rollout begun"] += 1
        release, what = self.world.releases[request.release], f"{key}: r{request.release} for {request.why}"
        self._check_admission(key, release, request, what)
        if request.digest in self.world.content.changed:
            raise Violation("TAMPERED", f"{what}: its package was changed")
        if request.emergency:
            if request.why not in self._emergencies:
                raise Violation("UNPASSED", f"{what}: nobody asked for an emergency")
            return
        live = self.world.releases[before.live.release] if before.live else None
        manifests = [release, *([live] if live else [])]
        for manifest in manifests:
            names = [name for name, _ in manifest.environments]
            for name in names[: names.index(key.environment)] if key.environment in names else ():
                if (name, identity(release)) not in self._earned:
                    raise Violation("UNPASSED", f"{what} has not passed {name}")
        promotion = _promotion_of(request)
        for manifest in manifests:
            spec = manifest.environment(key.environment)
            if spec is not None:
                self._check_frozen(spec, what)
                self._check_approved(spec, promotion, key.environment, what)
        if promotion is not None:
            self._check_overtaken(key, promotion, request, what)

    def _check_admission(
        self, key: EnvironmentKey, release: model.Release, request: RolloutRequest, what: str
    ) -> None:
        try:
            claims = dict(self.world.seals.opened("admission", request.admission))
        except (errors.SealError, ValueError) as error:
            raise Violation("ADMISSION", f"{what} has none: {error}") from error
        wanted = {
            "app": APP,
            "environment": key.environment,
            "release": release.number,
            "digest": release.digest,
            "identity": identity(release),
        }
        if {name: claims.get(name) for name in wanted} != wanted:
            raise Violation("ADMISSION", f"{what} has one for something else")

    def _check_frozen(self, spec: model.EnvironmentSpec, what: str) -> None:
        if frozen(spec, self.world.clock.now()):
            raise Violation("FROZEN", f"{what} in a freeze window")

    def _check_approved(
        self, spec: model.EnvironmentSpec, promotion: int | None, environment: str, what: str
    ) -> None:
        if spec.approvals is None:
            return
        given = self._given[promotion] if promotion is not None else []
        missing = missing_approvals(spec.approvals, given, environment, self.world.clock.now())
        if missing > 0:
            raise Violation("UNAPPROVED", f"{what}: {missing} approvals are missing")
        self.world.reached["entered with approval"] += 1

    def _check_overtaken(
        self, key: EnvironmentKey, promotion: int, request: RolloutRequest, what: str
    ) -> None:
        self._entered[key.environment, promotion] = request.release
        for (name, other), release in self._entered.items():
            if name != key.environment or other <= promotion or release == request.release:
                continue
            record = self.world.kept.promotion(APP, other)
            if record is not None and record.ended in (None, Ended.ARRIVED):
                raise Violation("OVERTAKEN", f"{what}: r{release}, asked for later, was there before")

    # --- the pipeline ---

    def on_pipeline(self, before: PipelineState, after: PipelineState, passes: tuple[Pass, ...]) -> None:
        """A state of the pipeline was committed."""
        known = {one.id for one in (*after.promotions, *after.ended)}
        lost = [one.id for one in before.promotions if one.id not in known]
        if lost:
            raise Violation("LOST", f"promotions {lost} are nowhere")
        for one in passes:
            self._check_pass(one)
        for soak in after.soaks:
            was_over = any(known.passed and known.placement == soak.placement for known in before.soaks)
            if soak.passed and not was_over and soak.environment not in {one.environment for one in passes}:
                raise Violation(
                    "PASS-LOST", f"the soak in {soak.environment} is over, and nothing has passed"
                )
        for promotion in (*after.promotions, *after.ended):
            was = before.promotion(promotion.id)
            if was == promotion:
                continue
            self.world.note(
                f"promotion {promotion.id} r{promotion.release} {promotion.environment} "
                f"{promotion.waits} {promotion.ended} {promotion.detail}"
            )
            self._check_changed(was, promotion)
        self._check_queues(after)

    def _check_changed(self, was: Promotion | None, promotion: Promotion) -> None:
        for approval in promotion.approvals:
            if was is not None and approval in was.approvals:
                continue
            if (replace(approval, seal=""), promotion.release) not in self._approving:
                raise Violation("HANDED-ON", f"nobody gave {approval} to promotion {promotion.id}")
            self._given[promotion.id].append(approval)
        if promotion.waits is not None:
            self.world.reached[f"waits: {promotion.waits}"] += 1
        if promotion.ended is None or (was is not None and was.ended is not None):
            return
        self.world.reached[f"ended: {promotion.ended}"] += 1
        if not promotion.detail:
            raise Violation("LOST", f"promotion {promotion.id} has ended, and nobody knows why")
        if promotion.ended is Ended.ARRIVED:
            key = EnvironmentKey(app=APP, environment=promotion.target)
            history = self.world.store.history(key, limit=1000)
            if not any(
                record.rollout.phase is Phase.SUCCEEDED
                and record.rollout.request.release == promotion.release
                for record in history
            ):
                raise Violation("NOT-ARRIVED", f"r{promotion.release} was never live in {key}")

    def _check_queues(self, state: PipelineState) -> None:
        for key in KEYS:
            waiting = {
                one.release
                for one in state.promotions
                if one.waits in GATES and one.environment == key.environment
            }
            if len(waiting) > 1:
                raise Violation("QUEUE", f"{sorted(waiting)} wait before {key}")

    def _check_pass(self, one: Pass) -> None:
        key = EnvironmentKey(app=APP, environment=one.environment)
        release, live = self.world.releases[one.release], self.world.store.load(key).state.live
        what = f"r{one.release} in {one.environment}"
        if live is None or live.release != one.release or one.identity != identity(release):
            raise Violation("PASS-UNEARNED", f"{what} is not live")
        made = next(
            record.rollout
            for record in self.world.store.history(key, limit=1000)
            if record.rollout.placement == live.id and record.rollout.phase is Phase.SUCCEEDED
        )
        if made.request.kind is not RolloutKind.DEPLOY or made.request.emergency:
            raise Violation("PASS-UNEARNED", f"{what} came there by {made.request.kind}, or in an emergency")
        placement, healthy_s = self._healthy.get(key, (None, 0.0))
        healthy_s = healthy_s if placement == live.id else 0.0
        if healthy_s + TOLERANCE_S < live.spec.soak_s:
            raise Violation("PASS-UNEARNED", f"{what}: {healthy_s:.1f} s instead of {live.spec.soak_s:g}")
        self.world.reached["soaked" if live.spec.soak_s else "passed"] += 1
        self._earned.add((one.environment, one.identity))

    # --- the end ---

    def is_at_rest(self) -> bool:
        """Nothing is left that would go on by itself."""
        states = [self.world.store.load(key).state for key in KEYS]
        if any(state.rollout is not None or state.pending is not None for state in states):
            return False
        return all(self._waits_for_people(one) for one in self.world.kept.load(APP).state.promotions)

    def _waits_for_people(self, one: Promotion) -> bool:
        """The gate at which it waits is closed in truth, and nobody but a person or a calendar opens it."""
        key = EnvironmentKey(app=APP, environment=one.environment)
        live = self.world.store.load(key).state.live
        manifests = [self.world.releases[one.release]]
        manifests += [self.world.releases[live.release]] if live else []
        specs = [s for s in (m.environment(one.environment) for m in manifests) if s is not None]
        now = self.world.clock.now()
        if one.waits is Waits.FREEZE:
            return any(frozen(spec, now) for spec in specs)
        if one.waits is not Waits.APPROVAL:
            return False
        rules = [spec.approvals for spec in specs if spec.approvals is not None]
        return any(missing_approvals(r, self._given[one.id], one.environment, now) > 0 for r in rules)

    def at_the_end(self) -> None:
        """Faults have stopped a while ago."""
        if not self.is_at_rest():
            state = self.world.kept.load(APP).state
            rollouts = [self.world.store.load(key).state.rollout for key in KEYS]
            going = [(r.id, r.phase, r.detail) for r in rollouts if r is not None]
            raise Violation("NO-REST", f"{state.promotions} {going}")
        promoted = {one.key for one in self.world.kept.promotions(APP, limit=10**6)}
        for key, where in self._accepted.items():
            if key not in promoted and self.world.store.rollout_by_request_key(where, key) is None:
                raise Violation("FORGOTTEN", f"{key} was accepted for {where}")
        self.world.reached["at rest"] += 1


def frozen(spec: model.EnvironmentSpec, now: float) -> bool:
    """By the dates of this world's windows, which are in UTC."""
    for freeze in spec.freezes:
        since, until = (
            dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp() for text in freeze.dates or ()
        )
        if since <= now < until:
            return True
    return False


def missing_approvals(rule: model.Approvals, given: list[Approval], environment: str, now: float) -> int:
    """How many people more have to agree."""
    people = set()
    for approval in given:
        right = not rule.roles or approval.role in (*rule.roles, "admin")
        own = rule.not_by_requester and approval.by == "ada"
        in_time = 0 <= now - approval.at <= rule.expires_s
        if approval.environment == environment and right and in_time and not own:
            people.add(approval.by)
    return rule.count - len(people)


def _promotion_of(request: RolloutRequest) -> int | None:
    """Number of the promotion that asked, by the key of its request."""
    parts = request.key.split("-")
    return int(parts[1]) if parts[0] == "promotion" else None
