"""The rules of the pipeline, each switched off once: one that no checker misses is a rule without proof.

See `tests.simulation.mutants`, whose values these are; without profiles: each seed draws its own faults.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from tests.simulation.mutants import Mutant, Patch
from tidegate import errors
from tidegate.core import pipeline, placements, promotions, requests
from tidegate.core.model import Phase
from tidegate.core.promotions import Ended, PipelineState, Promotion
from tidegate.engine import gates, operations, pipelines
from tidegate.testing.pipelines import MemoryPipelines


def _passes_not_asked() -> list[Patch]:
    return [(pipeline, "unpassed", lambda environment, path, travel: "")]


def _live_manifest_ignored() -> list[Patch]:
    return [(gates, "_before", lambda release, environment: ())]


def _broken_seal_counts() -> list[Patch]:
    return [(gates.Gates, "_holds", lambda self, app, one: True)]


def _seal_of_another_counts() -> list[Patch]:
    def holds(self: Any, app: str, one: Any) -> bool:
        try:
            self.seals.opened("pass", one.seal)
        except errors.SealError:
            return False
        return True

    return [(gates.Gates, "_holds", holds)]


def _bytes_not_checked() -> list[Patch]:
    return [(gates.Gates, "check", lambda self, key, release: None)]


def _request_key_forgotten() -> list[Patch]:
    return [(promotions.Promotion, "request_key", lambda self, environment: "")]


def _asked_again_is_another() -> list[Patch]:
    original = pipeline.promote

    def promote(state: PipelineState, wanted: Promotion) -> Any:
        forgotten = replace(
            state,
            promotions=tuple(replace(one, key="", identity="") for one in state.promotions),
            ended=tuple(replace(one, key="") for one in state.ended),
        )
        decided = original(forgotten, wanted)
        known = {one.id: one for one in (*state.promotions, *state.ended)}

        def remembered(one: Promotion) -> Promotion:
            was = known.get(one.id)
            return replace(one, key=was.key, identity=was.identity) if was else one

        after = decided.state
        kept = replace(
            after,
            promotions=tuple(remembered(one) for one in after.promotions),
            ended=tuple(remembered(one) for one in after.ended),
        )
        return replace(decided, state=kept)

    by_key = (MemoryPipelines, "promotion_by_key", lambda self, app, key: None)
    return [(pipeline, "promote", promote), by_key]


def _approvals_handed_on() -> list[Patch]:
    original = pipeline.promote

    def promote(state: PipelineState, wanted: Promotion) -> Any:
        inherited = tuple(approval for one in state.promotions for approval in one.approvals)
        return original(state, replace(wanted, approvals=inherited))

    return [(pipeline, "promote", promote)]


def _approvals(**changes: Any) -> list[Patch]:
    original = pipeline.valid_approvals

    def valid(promotion: Promotion, rule: Any, now: float) -> Any:
        return original(promotion, replace(rule, **changes), now)

    return [(pipeline, "valid_approvals", valid)]


def _expiry_ignored() -> list[Patch]:
    return _approvals(expires_s=1e12)


def _requester_may_approve() -> list[Patch]:
    anybody = _approvals(not_by_requester=False)
    original = pipeline.approve

    def approve(state: Any, environment: str, release: Any, approval: Any, rules: Any) -> Any:
        mild = tuple(replace(rule, not_by_requester=False) for rule in rules)
        return original(state, environment, release, approval, mild)

    return [*anybody, (pipeline, "approve", approve)]


def _one_person_counts_twice() -> list[Patch]:
    return [*_approvals(count=1), (pipeline, "_approval_missing", _one_is_enough)]


def _one_is_enough(promotion: Promotion, travel: Any, there: Any, now: float) -> str:
    own = travel.release.environment(promotion.environment)
    live = there.live if there else None
    for spec in (own, live.spec if live else None):
        rule = spec.approvals if spec else None
        if rule is not None and not pipeline.valid_approvals(promotion, rule, now):
            return "waits"
    return ""


def _live_approvals_ignored() -> list[Patch]:
    original = pipeline._approval_missing
    return [
        (
            pipeline,
            "_approval_missing",
            lambda promotion, travel, there, now: original(promotion, travel, None, now),
        )
    ]


def _freeze_ignored() -> list[Patch]:
    return [(gates.Gates, "frozen", lambda self, key, release, live: "")]


def _soak_by_the_wall_clock() -> list[Patch]:
    original = pipeline.advance
    before: dict[str, float] = {}

    def advance(state: PipelineState, look: Any, dt_s: float) -> Any:
        passed_s = look.now - before.get(state.app, look.now)
        before[state.app] = look.now
        return original(state, look, passed_s)

    return [(pipeline, "advance", advance), (pipeline, "TICK_MAX_S", 1e9)]


def _soak_counts_what_nobody_saw() -> list[Patch]:
    return [(pipeline, "TICK_MAX_S", 1e9)]


def _soak_unsound() -> list[Patch]:
    return [(placements, "all_ready", lambda placement, groups: True)]


def _old_looks_count() -> list[Patch]:
    return [(pipelines, "LOOK_MAX_S", 1e9)]


def _any_way_earns() -> list[Patch]:
    return [(pipeline, "_earns", lambda rollout: rollout.phase is Phase.SUCCEEDED)]


def _soak_over_before_its_commit() -> list[Patch]:
    original = pipelines.Pipelines.step

    def step(self: Any, app: str, views: Any) -> bool:
        versioned = self.kept.load(app)
        try:
            return original(self, app, views)
        except errors.StorageError:
            grown = tuple(replace(soak, passed=True) for soak in versioned.state.soaks)
            self._soaks[app] = (versioned.version, grown)
            raise

    return [(pipelines.Pipelines, "step", step)]


def _pending_is_arrived() -> list[Patch]:
    original = pipelines.Pipelines._adopt

    def adopt(
        self: Any, app: str, stood: Promotion, *, rollout: int | None = None, queued: bool = False
    ) -> None:
        if queued and stood.environment == stood.target:
            self._ends(app, stood.id, Ended.ARRIVED, "is live there already")
        else:
            original(self, app, stood, rollout=rollout, queued=queued)

    return [(pipelines.Pipelines, "_adopt", adopt)]


def _never_sent_home() -> list[Patch]:
    return [(pipelines.Pipelines, "_send_home", lambda self, app, **more: None)]


def _sent_home_by_the_request_alone() -> list[Patch]:
    original = pipelines.Pipelines._send_home

    def send_home(self: Any, app: str, *, settled: bool = False) -> None:
        if not settled:
            original(self, app)

    return [(pipelines.Pipelines, "_send_home", send_home)]


def _older_stay_in_the_queue() -> list[Patch]:
    return [(pipeline, "_newest_at_gate", lambda state, promotion: None)]


def _older_follows_newer() -> list[Patch]:
    return [(pipeline, "_has_passed", lambda promotion, gate: False)]


def _live_without_a_pass_waits() -> list[Patch]:
    return [
        (pipelines.Pipelines, "_there_already", lambda self, *rest: None),
        (pipeline, "passes_nothing", lambda promotion, soak: ""),
    ]


def _admission_for_elsewhere() -> list[Patch]:
    original = gates.Gates.admission

    def admission(self: Any, key: Any, release: Any, grounds: str) -> str:
        return original(self, replace(key, environment="test"), release, grounds)

    return [(gates.Gates, "admission", admission)]


def _admitted_by_an_older_look() -> list[Patch]:
    def enter(self: Any, key: Any, release: int, asked: Any, entry: Any, *, supersede: bool) -> Any:
        repeated = self.repeated(key, asked)
        if repeated is not None:
            return repeated
        request = self.deploy_request(key, release, asked)
        if not placements.is_live(self.store.load(key).state, request):
            request = self._admitted(key, request, entry)
        return self._decided(
            key,
            lambda state: requests.start(state, operations._adapted(state, request), supersede=supersede),
        )

    return [(operations.Operations, "enter", enter)]


def _way_back_goes_on_soaking() -> list[Patch]:
    original = pipelines.Pipelines._place

    def place(self: Any, state: PipelineState, key: Any, view: Any) -> Any:
        found = original(self, state, key, view)
        soak, live = state.soak(key.environment), found.state.live
        known = soak is not None and live is not None and soak.placement == live.id
        return replace(found, made_live=None) if known else found

    return [(pipelines.Pipelines, "_place", place)]


def _begin_before_commit() -> list[Patch]:
    original = pipelines.Pipelines.step

    def step(self: Any, app: str, views: Any) -> bool:
        state = self.kept.load(app).state
        for begin in pipeline.advance(state, self._look(state, views), 0.0).begins:
            self._begin(app, begin)
        return original(self, app, views)

    return [(pipelines.Pipelines, "step", step)]


MUTANTS: Final = (
    Mutant(name="passes-not-asked", patches=_passes_not_asked, caught_by=("UNPASSED",)),
    Mutant(name="live-manifest-ignored", patches=_live_manifest_ignored, caught_by=("UNPASSED",)),
    Mutant(name="broken-seal-counts", patches=_broken_seal_counts, caught_by=("UNPASSED",)),
    Mutant(name="seal-of-another-counts", patches=_seal_of_another_counts, caught_by=("UNPASSED",)),
    Mutant(name="bytes-not-checked", patches=_bytes_not_checked, caught_by=("TAMPERED",)),
    Mutant(name="request-key-forgotten", patches=_request_key_forgotten),
    Mutant(name="asked-again-is-another", patches=_asked_again_is_another, caught_by=("BEGUN-TWICE",)),
    Mutant(name="approvals-handed-on", patches=_approvals_handed_on, caught_by=("HANDED-ON",)),
    Mutant(name="expiry-ignored", seeds=400, patches=_expiry_ignored, caught_by=("UNAPPROVED",)),
    Mutant(name="requester-may-approve", patches=_requester_may_approve, caught_by=("UNAPPROVED",)),
    Mutant(name="one-person-counts-twice", patches=_one_person_counts_twice, caught_by=("UNAPPROVED",)),
    Mutant(
        name="live-approvals-ignored", seeds=400, patches=_live_approvals_ignored, caught_by=("UNAPPROVED",)
    ),
    Mutant(name="freeze-ignored", patches=_freeze_ignored, caught_by=("FROZEN",)),
    Mutant(name="soak-by-the-wall-clock", patches=_soak_by_the_wall_clock, caught_by=("PASS-UNEARNED",)),
    Mutant(
        name="soak-counts-what-nobody-saw", patches=_soak_counts_what_nobody_saw, caught_by=("PASS-UNEARNED",)
    ),
    Mutant(name="soak-unsound", patches=_soak_unsound, caught_by=("PASS-UNEARNED",)),
    Mutant(name="old-looks-count", seeds=400, patches=_old_looks_count, caught_by=("PASS-UNEARNED",)),
    Mutant(name="any-way-earns", patches=_any_way_earns, caught_by=("PASS-UNEARNED",)),
    Mutant(
        name="soak-over-before-its-commit", patches=_soak_over_before_its_commit, caught_by=("PASS-LOST",)
    ),
    Mutant(name="pending-is-arrived", patches=_pending_is_arrived, caught_by=("NOT-ARRIVED",)),
    Mutant(name="never-sent-home", patches=_never_sent_home, caught_by=("NOT-SENT-HOME",)),
    Mutant(
        name="sent-home-by-the-request-alone",
        patches=_sent_home_by_the_request_alone,
        caught_by=("NOT-SENT-HOME",),
    ),
    Mutant(name="older-stay-in-the-queue", patches=_older_stay_in_the_queue, caught_by=("QUEUE",)),
    Mutant(name="older-follows-newer", patches=_older_follows_newer, caught_by=("OVERTAKEN",)),
    Mutant(name="live-without-a-pass-waits", patches=_live_without_a_pass_waits, caught_by=("NO-REST",)),
    Mutant(name="admission-for-elsewhere", patches=_admission_for_elsewhere, caught_by=("ADMISSION",)),
    Mutant(
        name="admitted-by-an-older-look",
        seeds=400,
        patches=_admitted_by_an_older_look,
        caught_by=("ADMISSION",),
    ),
    Mutant(
        name="way-back-goes-on-soaking",
        patches=_way_back_goes_on_soaking,
        seeds=400,
        caught_by=("PASS-UNEARNED",),
    ),
    Mutant(name="begin-before-commit", patches=_begin_before_commit),
)


def by_name(name: str) -> Mutant:
    """Raises KeyError."""
    return {mutant.name: mutant for mutant in MUTANTS}[name]
