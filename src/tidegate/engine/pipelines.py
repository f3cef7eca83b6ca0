"""Carries promotions through the pipeline of each app: looks, lets the core decide, seals, commits, begins.

Hides how the look is put together and how a rollout that was begun is found again. Invariants:

- a rollout begins only from a committed promotion, under the promotion's own key: a control plane that is
  killed before, between or after begins it once;
- a pass is sealed before it is committed, and a soak that was not committed is soaked again;
- what ends before its rollout did sends it home, also when the control plane was killed in between;
- what refuses to begin ends the promotion with the reason; what cannot be looked at now waits.

Neighbours: `core.pipeline` decides, `gates` proves and admits, `operations` begins rollouts, `watch` calls
`step` after each round of looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tidegate import errors, ports
from tidegate.core import model, pipeline, placements, requests
from tidegate.core.model import EnvironmentKey, Phase, Reason
from tidegate.core.promotions import Ended, PipelineState, Promotion, Soak, Waits
from tidegate.engine import loop
from tidegate.engine.gates import Gates

#: A soak that has grown by less is not worth a commit: after a crash it is soaked again.
SOAK_STEP_S: Final = 5.0
#: Who gives an approval wakes us, and a window ends on the minute.
FOR_SOMEBODY: Final = (Waits.APPROVAL, Waits.FREEZE)
#: How often a decision is tried again when somebody else has committed in between.
ATTEMPTS: Final = 10

#: Refusals that end by themselves.
CLOSED: Final = (model.Refusal.BUSY.value, model.Refusal.HALTED.value)
#: Seconds for which the newest look at an environment counts.
LOOK_MAX_S: Final = 10.0

Told = tuple[tuple[str, model.Event], ...]
Enter = Callable[[EnvironmentKey, model.Release, Promotion], requests.Decision]


def _nobody(key: EnvironmentKey, release: int, why: str) -> None:
    """Nobody is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipelines:
    """The pipelines of all apps. `step` from one thread, everything else from any."""

    store: ports.Store
    kept: ports.Pipelines
    lease: ports.Lease
    clock: ports.Clock
    gates: Gates
    enter: Enter
    """Begin the rollout of a promotion where it stands; asked twice it is one. Raises RequestError."""
    send_home: Callable[[EnvironmentKey, int], None]
    """Abort a rollout; no error if it has ended."""
    wake: Callable[[], None]
    stopped: Callable[[EnvironmentKey, int, str], None] = _nobody
    """Tell the audit log that a release was stopped on its way: where, which, why."""
    _stepped_at: dict[str, float] = field(default_factory=dict)
    _soaks: dict[str, tuple[int, tuple[Soak, ...]]] = field(default_factory=dict)
    """By app: soaks that have grown since the version that was committed last."""

    def apps(self) -> tuple[str, ...]:
        """All that `step` has something to do for."""
        return self.kept.apps()

    def is_busy(self, app: str) -> bool:
        """A promotion is under way, and does not wait for a person or the calendar: that may take days."""
        return any(one.waits not in FOR_SOMEBODY for one in self.kept.load(app).state.promotions)

    def step(self, app: str, views: Mapping[EnvironmentKey, loop.View]) -> bool:
        """Look, decide, commit, begin; whether anything changed. Raises FencedError, StoreError."""
        versioned = self.kept.load(app)
        version, soaks = self._soaks.get(app, (0, ()))
        state = replace(versioned.state, soaks=soaks) if version == versioned.version else versioned.state
        proved = tuple(self.gates.proved(app, promotion) for promotion in state.promotions)
        state = replace(state, promotions=proved)
        now = self.clock.monotonic()
        elapsed_s = now - self._stepped_at.get(app, now)
        self._stepped_at[app] = now
        outcome = pipeline.advance(state, self._look(state, views), elapsed_s)
        changed = bool(outcome.passes or outcome.events) or _decided(versioned.state, outcome.state)
        if changed or _soaked(versioned.state, outcome.state):
            passes = tuple(self.gates.sealed(app, one) for one in outcome.passes)
            self.kept.commit(
                self.lease,
                versioned,
                outcome.state,
                passes=passes,
                events=outcome.events,
                at=self.clock.now(),
            )
        else:
            self._soaks[app] = (versioned.version, outcome.state.soaks)
        self._tell(app, outcome.events)
        for begin in outcome.begins:
            self._begin(app, begin)
        self._send_home(app, settled=True)
        return changed

    def _begin(self, app: str, begin: pipeline.Begin) -> None:
        promotion = self.kept.load(app).state.promotion(begin.promotion)
        if promotion is None or promotion.ended is not None or promotion.environment != begin.environment:
            return
        key = EnvironmentKey(app=app, environment=begin.environment)
        release = self.store.release(app, promotion.release)
        try:
            if release is None:
                raise errors.NotFoundError(f"{app} has no release r{promotion.release} any more.")
            decision = self.enter(key, release, promotion)
        except errors.RequestError as error:
            if not isinstance(error, errors.RefusedError) or error.reason not in CLOSED:
                self._ends(app, promotion.id, Ended.FAILED, error.message)
            return
        pending = decision.state.pending
        if decision.rollout is not None:
            self._adopt(app, promotion, rollout=decision.rollout)
        elif pending is not None and pending.key == promotion.request_key(begin.environment):
            self._adopt(app, promotion, queued=True)
        elif release is not None:
            self._there_already(app, promotion, release, decision.state)

    def _there_already(
        self, app: str, promotion: Promotion, release: model.Release, there: model.EnvironmentState
    ) -> None:
        """What is live needs no rollout; but it goes on from there with a pass alone."""
        name = promotion.environment
        if name == promotion.target:
            self._ends(app, promotion.id, Ended.ARRIVED, f"r{promotion.release} is live there already")
            return
        soak = self.kept.load(app).state.soak(name)
        if name in self.gates.passed(app, release) or soak is None or there.live is None:
            return
        if soak.placement != there.live.id:
            return  # not looked at yet
        why = pipeline.passes_nothing(promotion, soak)
        if why:
            self._ends(app, promotion.id, Ended.FAILED, why)
        elif soak.rollout is not None:
            self._adopt(app, promotion, rollout=soak.rollout)

    def _ends(self, app: str, promotion_id: int, how: Ended, detail: str) -> None:
        def end(state: PipelineState) -> tuple[PipelineState, Told]:
            promotion = state.promotion(promotion_id)
            if promotion is None or promotion.ended is not None:
                return state, ()
            ended, told = pipeline.ended(promotion, how, detail)
            return state.with_promotion(ended), told

        self._tell(app, self._committed(app, end))

    def _tell(self, app: str, events: Told) -> None:
        for name, event in events:
            if event.reason is Reason.STOPPED:
                self.stopped(EnvironmentKey(app=app, environment=name), event.release or 0, event.detail)

    def _adopt(self, app: str, stood: Promotion, *, rollout: int | None = None, queued: bool = False) -> None:
        """Know the rollout at once: also one of another key, when it was live or begun already."""

        def adopt(state: PipelineState) -> tuple[PipelineState, Told]:
            promotion = state.promotion(stood.id)
            if promotion is None or promotion.ended is not None:
                return state, ()
            if promotion.environment != stood.environment:
                return state, ()
            return state.with_promotion(replace(promotion, rollout=rollout, queued=queued)), ()

        self._committed(app, adopt)

    def _send_home(self, app: str, *, settled: bool = False) -> None:
        """Rollouts of promotions that ended before them. `settled`: none of them can begin any more."""
        for promotion in self.kept.load(app).state.ended:
            if not promotion.homeward:
                continue
            key = EnvironmentKey(app=app, environment=promotion.environment)
            pending = self.store.load(key).state.pending  # first: what has begun since is found below
            rollout = self._rollout(app, promotion)
            if rollout is not None and not rollout.phase.ended:
                self.send_home(key, rollout.id)
            elif settled and (pending is None or pending.key != promotion.request_key(promotion.environment)):
                self._is_home(app, promotion.id)

    def _is_home(self, app: str, promotion_id: int) -> None:
        def arrive(state: PipelineState) -> tuple[PipelineState, Told]:
            ended = tuple(
                replace(one, homeward=False) if one.id == promotion_id else one for one in state.ended
            )
            return replace(state, ended=ended), ()

        self._committed(app, arrive)

    # --- what people ask ---------------------------------------------------------------------------

    def decide(self, app: str, ask: Callable[[PipelineState], pipeline.Decision]) -> pipeline.Decision:
        """Commit a decision on the pipeline. Raises what `ask` raises, FencedError, StoreError."""
        decided: list[pipeline.Decision] = []

        def change(state: PipelineState) -> tuple[PipelineState, Told]:
            decided[:] = [ask(state)]
            return decided[0].state, decided[0].events

        self._committed(app, change)
        self._send_home(app)
        self.wake()
        return decided[0]

    def _committed(
        self,
        app: str,
        change: Callable[[PipelineState], tuple[PipelineState, Told]],
    ) -> Told:
        """What the history says of it."""
        for _ in range(ATTEMPTS):
            versioned = self.kept.load(app)
            state, events = change(versioned.state)
            if state == versioned.state:
                return ()
            try:
                self.kept.commit(self.lease, versioned, state, events=events, at=self.clock.now())
            except errors.ConflictError:
                continue
            return events
        raise errors.ConflictError(
            f"The pipeline of {app} changed {ATTEMPTS} times while this was decided; nothing was done.",
            hint="Ask again.",
        )

    # --- looking -----------------------------------------------------------------------------------

    def _look(self, state: PipelineState, views: Mapping[EnvironmentKey, loop.View]) -> pipeline.Look:
        travels = {}
        for promotion in state.promotions:
            release = self.store.release(state.app, promotion.release)
            if release is not None:
                rollout = self._rollout(state.app, promotion)
                travels[promotion.id] = self.gates.travel(state.app, promotion, release, rollout)
        # After the rollouts: one that is seen to have succeeded is live there, or was.
        places = {
            key.environment: self._place(state, key, views.get(key))
            for key in self.store.environments()
            if key.app == state.app
        }
        return pipeline.Look(now=self.clock.now(), places=places, travels=travels)

    def _place(self, state: PipelineState, key: EnvironmentKey, view: loop.View | None) -> pipeline.Place:
        """`view`: None if nobody has looked yet."""
        there = self.store.load(key).state
        live, soak = there.live, state.soak(key.environment)
        fresh = view is not None and self.clock.monotonic() - view.looked_s <= LOOK_MAX_S
        groups = view.observed.groups if view is not None and fresh else None
        if live is None:
            return pipeline.Place(state=there)
        passed = soak is not None and soak.placement == live.id and soak.passed
        made = None if passed else self._made_live(key, live)
        return pipeline.Place(
            state=there,
            sound=groups is not None and placements.all_ready(live, groups),
            made_live=made,
            release=None if passed else self.store.release(key.app, live.release),
        )

    def _made_live(self, key: EnvironmentKey, live: model.Placement) -> model.Rollout | None:
        return next(
            (
                record.rollout
                for record in self.store.history(key, limit=50)
                if record.rollout.placement == live.id and record.rollout.phase is Phase.SUCCEEDED
            ),
            None,
        )

    def _rollout(self, app: str, promotion: Promotion) -> model.Rollout | None:
        """By the promotion's own key, else by the number that it was told."""
        key = EnvironmentKey(app=app, environment=promotion.environment)
        begun = self.store.rollout_by_request_key(key, promotion.request_key(promotion.environment))
        if begun is not None:
            return begun.rollout
        if promotion.rollout is None:
            return None
        records = self.store.history(key, limit=1000)
        return next((r.rollout for r in records if r.rollout.id == promotion.rollout), None)


def _decided(before: PipelineState, after: PipelineState) -> bool:
    """Something other than a time has changed."""
    return _without_times(before) != _without_times(after)


def _without_times(state: PipelineState) -> PipelineState:
    soaks = tuple(replace(soak, soaked_s=0.0) for soak in state.soaks)
    promotions = tuple(replace(one, detail="") if one.waits is not None else one for one in state.promotions)
    return replace(state, soaks=soaks, promotions=promotions)


def _soaked(before: PipelineState, after: PipelineState) -> bool:
    """A soak has grown by enough to be worth a commit."""
    known = {soak.environment: soak.soaked_s for soak in before.soaks}
    return any(soak.soaked_s - known.get(soak.environment, 0.0) >= SOAK_STEP_S for soak in after.soaks)
