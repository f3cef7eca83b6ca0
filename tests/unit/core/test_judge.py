"""The judge: what it does in each situation of a canary, and what it says."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import islice

import pydantic
import pytest

from bench.canary import __main__ as command
from bench.canary import fast, latency, streams, trials
from tidegate.core import judge, sequential, verdicts
from tidegate.core.judge import Counts, JudgeState, Tick
from tidegate.core.policy import AnalysisPolicy, LittleEvidence, Metric
from tidegate.core.sequential import PLAIN, Histogram, Plan, Sample
from tidegate.core.verdicts import Finding, Verdict, VerdictKind

POLICY = AnalysisPolicy()
PAST = Histogram(cells=tuple((index, 100) for index in range(80, 110)))


def counts(requests: int, errors: int = 0, shift: int | None = None) -> Counts:
    """Latencies are those of the past, `shift` buckets slower."""
    latencies = None
    if shift is not None:
        spread = Counter(80 + shift + (at * 7) % 30 for at in range(requests))
        latencies = Histogram(cells=tuple(sorted(spread.items())))
    return Counts(requests=requests, errors=errors, latencies=latencies)


def begun(policy: AnalysisPolicy = POLICY, plan: Plan = PLAIN) -> JudgeState:
    return judge.started(policy, plan, PAST)


def after(
    state: JudgeState, canary: Counts, stable: Counts, *, looks: int = 1, policy: AnalysisPolicy = POLICY
) -> JudgeState:
    for _ in range(looks):
        state = judge.judged(state, Tick(canary=canary, stable=stable), policy, 1.0)
    return state


def said(state: JudgeState, policy: AnalysisPolicy = POLICY) -> Verdict:
    return verdicts.verdict(state, policy)


# --- aborts ----------------------------------------------------------------------------------------


def test_a_total_failure_at_5_percent_aborts_within_five_requests() -> None:
    """At 100 requests a second the first look at five failed requests aborts and names the errors."""
    found = said(after(begun(), counts(5, 5, 0), counts(95, 0, 0)))
    assert (found.kind, found.finding, found.metric) == (
        VerdictKind.ABORT,
        Finding.MORE_ERRORS,
        Metric.ERRORS,
    )
    assert "5 of 5 failed" in found.sentence
    assert "100 to 1 aborts" in found.sentence
    assert found.combined >= found.abort_bound


@pytest.mark.parametrize(("exposure", "needed"), [(0.01, 2), (0.05, 3), (0.25, 5), (0.5, 10)])
def test_with_no_stable_errors_few_canary_errors_abort(exposure: float, needed: int) -> None:
    """Zero errors on the stable side: 2, 3, 5, 10 abort at 1, 5, 25, 50 %, all metrics being judged."""
    assert latency.errors_needed(exposure) == needed


def test_a_canary_three_times_slower_aborts_after_its_warm_up() -> None:
    """Ten slow requests a second abort within three seconds after the warm-up, for being slower."""
    state, looks = begun(), 0
    while said(state).kind is not VerdictKind.ABORT and looks < 60:
        state, looks = after(state, counts(10, 0, 22), counts(190, 0, 0)), looks + 1
    assert POLICY.warmup_s < looks <= POLICY.warmup_s + 3
    assert (said(state).finding, said(state).metric) == (Finding.SLOWER, Metric.LATENCY)
    assert "slower" in said(state).sentence


def test_a_slow_cold_start_does_not_count() -> None:
    """Latencies ten times as high within the warm-up leave no evidence behind."""
    state = after(begun(), counts(10, 0, 47), counts(190, 0, 0), looks=int(POLICY.warmup_s))
    assert set(state.slower.settled) == {0.0}
    state = after(state, counts(10, 0, 0), counts(190, 0, 0), looks=30)
    assert said(state).kind is VerdictKind.CONTINUE


def test_a_warm_up_lasts_for_requests_too() -> None:
    """A canary with one request in five seconds is warm after twenty requests, not after ten seconds."""
    state = begun()
    for look in range(5 * POLICY.warmup_requests + 5):
        state = after(state, counts(1 if look % 5 == 0 else 0, 0, 40), counts(99, 0, 0))
        if state.canary.requests < POLICY.warmup_requests:
            assert set(state.slower.settled) == {0.0}
    assert set(state.slower.settled) != {0.0}


def test_errors_count_during_the_warm_up() -> None:
    """A canary that fails from its first request is not given time to warm up."""
    assert said(after(begun(), counts(5, 5, 47), counts(95, 0, 0))).kind is VerdictKind.ABORT


def test_an_outage_that_hits_both_alike_does_not_abort() -> None:
    """A minute with 40 % errors on both sides is no evidence against the canary."""
    state = after(begun(), counts(100, 40), counts(1900, 760), looks=60)
    assert said(state).kind is VerdictKind.CONTINUE


def test_above_an_absolute_limit_the_canary_goes_back_though_stable_is_no_better() -> None:
    """`max_error_share` of 5 % aborts in an outage that hits both, and says so."""
    policy = AnalysisPolicy(max_error_share=0.05)
    found = said(after(begun(policy), counts(100, 12), counts(1900, 228), looks=10, policy=policy), policy)
    assert (found.kind, found.finding) == (VerdictKind.ABORT, Finding.ERROR_LIMIT)
    assert "limit of 5 %" in found.sentence


def test_above_the_latency_limit_the_canary_goes_back() -> None:
    """`max_p99_ms` aborts when a tenth of the requests take longer, also if the stable release's do."""
    policy = AnalysisPolicy(max_p99_ms=90.0)
    state = after(begun(policy), counts(100, 0, 0), counts(1900, 0, 0), looks=30, policy=policy)
    assert said(state, policy).finding is Finding.LATENCY_LIMIT
    assert "90 ms" in said(state, policy).sentence


def test_a_business_metric_that_falls_aborts() -> None:
    """A canary whose visitors stop buying is sent back for that."""
    policy = AnalysisPolicy(business=True)
    canary = Counts(requests=100, values=Sample(cells=((1.0, 5), (0.0, 95))))
    stable = Counts(requests=1900, values=Sample(cells=((1.0, 570), (0.0, 1330))))
    found = said(after(begun(policy), canary, stable, looks=30, policy=policy), policy)
    assert (found.kind, found.finding) == (VerdictKind.ABORT, Finding.POORER)
    assert "business" in found.sentence


def test_a_burst_alone_does_not_abort_under_a_capped_plan() -> None:
    """What aborts when errors count in full does not when one block may give 1.5 nats only."""
    capped = begun(plan=Plan(block_s=60.0))
    assert said(after(begun(), counts(100, 12), counts(1900, 2), looks=10)).kind is VerdictKind.ABORT
    state = after(capped, counts(100, 12), counts(1900, 2), looks=10)
    assert said(state).kind is VerdictKind.CONTINUE
    assert said(after(state, counts(100, 12), counts(1900, 2), looks=300)).kind is VerdictKind.ABORT


# --- nothing to say ----------------------------------------------------------------------------------


def test_a_harmless_difference_never_becomes_evidence() -> None:
    """Two per cent more errors for an hour at 1 000 requests a second stay within the margin."""
    state = after(begun(), counts(1000, 10), counts(19_000, 186), looks=3600)
    assert said(state).kind is not VerdictKind.ABORT


def test_no_canary_requests_cost_nothing_and_are_said() -> None:
    """While the canary has no requests the evidence stays, and the sentence says for how long."""
    state = after(begun(), counts(0), counts(2000, 5), looks=15)
    assert state.worse == begun().worse
    assert said(state).finding is Finding.NO_REQUESTS
    assert "no request yet" in said(state).sentence
    served = after(after(begun(), counts(50, 0), counts(950, 1)), counts(0), counts(950, 1), looks=12)
    assert said(served).finding is Finding.NO_REQUESTS
    assert "no request for 12 s" in said(served).sentence


def test_few_requests_are_said() -> None:
    """With fifty requests there is neither an abort nor a promotion, and a sentence that says why."""
    found = said(after(begun(), counts(50), counts(950)))
    assert (found.kind, found.finding) == (VerdictKind.CONTINUE, Finding.FEW_REQUESTS)
    assert "50 requests" in found.sentence


def test_without_stable_requests_there_is_nothing_to_compare() -> None:
    """Errors of a canary that has all the traffic are no evidence in comparison."""
    found = said(after(begun(), counts(100, 50), counts(0), looks=10))
    assert (found.kind, found.finding) == (VerdictKind.CONTINUE, Finding.NOTHING_TO_COMPARE)


def test_who_cannot_look_decides_nothing() -> None:
    """Looks that failed are counted in seconds and leave everything else as it was."""
    state = begun()
    for tick in (Tick(canary=None, stable=counts(10)), Tick(canary=counts(10, 10), stable=None)):
        for _ in range(10):
            state = judge.judged(state, tick, POLICY, 1.0)
    assert state == replace(begun(), blind_s=20.0)
    assert said(state).finding is Finding.BLIND
    assert after(state, counts(5), counts(95)).blind_s == 0.0


def test_a_canary_whose_latencies_fall_silent_is_not_promoted() -> None:
    """Enough good requests promote; the same without latencies, where stable has them, do not."""
    spoken = after(begun(), counts(500, 0, 0), counts(9500, 5, 0), looks=60)
    silent = after(begun(), counts(500, 0), counts(9500, 5, 0), looks=60)
    assert said(spoken).kind is VerdictKind.PROMOTE
    assert (said(silent).kind, said(silent).finding) == (VerdictKind.CONTINUE, Finding.LATENCY_SILENT)


def test_an_analysis_that_is_off_says_so_and_never_aborts() -> None:
    """`enabled: false` continues whatever happens."""
    policy = AnalysisPolicy(enabled=False)
    found = said(after(begun(policy), counts(100, 100), counts(1900), policy=policy), policy)
    assert (found.kind, found.finding) == (VerdictKind.CONTINUE, Finding.OFF)
    assert verdicts.at_hold_end(found, policy) is LittleEvidence.GO_ON


# --- promotion -------------------------------------------------------------------------------------


def test_an_equal_canary_is_promoted_early_only_if_the_user_says_so() -> None:
    """Shown no worse, the stage ends early with `promote_early`, and not before it has soaked."""
    eager = AnalysisPolicy(promote_early=True)
    found = said(after(begun(), counts(100, 0, 0), counts(1900, 2, 0), looks=150))
    assert (found.kind, found.finding) == (VerdictKind.PROMOTE, Finding.NO_WORSE)
    assert "no worse" in found.sentence
    assert verdicts.may_end_early(found, eager, held_s=eager.soak_s)
    assert not verdicts.may_end_early(found, eager, held_s=eager.soak_s - 1)
    assert not verdicts.may_end_early(found, POLICY, held_s=1000.0)


def test_a_slower_canary_is_not_promoted() -> None:
    """Errors alone do not promote a canary whose median lies beyond the margin."""
    lenient = AnalysisPolicy(false_abort=1e-12)
    state = after(begun(lenient), counts(100, 0, 4), counts(1900, 2, 0), looks=60, policy=lenient)
    assert said(after(state, counts(100, 0), counts(1900, 2), policy=lenient), lenient).kind is not (
        VerdictKind.PROMOTE
    )


@pytest.mark.parametrize("wish", list(LittleEvidence))
def test_a_hold_that_ends_without_evidence_does_what_the_policy_says(wish: LittleEvidence) -> None:
    """Go on, wait or ask; a canary that is shown no worse goes on in any case."""
    policy = AnalysisPolicy(on_little_evidence=wish)
    little = said(after(begun(), counts(5), counts(95)))
    enough = said(after(begun(), counts(1000, 0, 0), counts(19_000, 0, 0), looks=60))
    assert verdicts.at_hold_end(little, policy) is wish
    assert verdicts.at_hold_end(enough, policy) is LittleEvidence.GO_ON


# --- looks -----------------------------------------------------------------------------------------


def test_looks_of_few_requests_are_taken_together() -> None:
    """Three errors in single requests weigh as much as in one look: a lone request compares nothing."""
    state = begun()
    for look in range(100):
        state = judge.judged(
            state,
            Tick(canary=counts(look % 20 == 0, look % 20 == 0), stable=counts(look % 20 != 0)),
            POLICY,
            0.01,
        )
    assert said(state).combined > 3.0
    assert state.worse != begun().worse


def test_a_look_back_in_time_is_refused() -> None:
    """Negative and infinite times are the caller's mistake."""
    for dt_s in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="look"):
            judge.judged(begun(), Tick(canary=counts(1), stable=counts(1)), POLICY, dt_s)


def test_counters_that_were_reset_begin_anew() -> None:
    """What is below the reading before is counted from zero, and nothing becomes negative."""
    before = Counts(requests=100, errors=5, latencies=Histogram(cells=((3, 60), (4, 40))))
    now = Counts(requests=130, errors=6, latencies=Histogram(cells=((3, 80), (4, 40), (5, 10))))
    assert judge.since(before, now) == Counts(
        requests=30, errors=1, latencies=Histogram(cells=((3, 20), (5, 10)))
    )
    assert judge.since(now, before) == before
    fewer = replace(now, latencies=Histogram(cells=((5, 130),)))
    assert judge.since(before, fewer) == fewer
    assert judge.since(before, replace(now, latencies=None)) == Counts(requests=30, errors=1)


# --- the committed value -----------------------------------------------------------------------------


def test_the_state_stays_small_and_survives_its_text() -> None:
    """After looks with every latency bucket it is below 10 kB, and its text reads as itself."""
    policy = AnalysisPolicy(business=True, max_error_share=0.2, max_p99_ms=900_000.0)
    state = begun(policy, Plan(block_s=60.0, phi=1.5))
    rng = random.Random(1)
    for _ in range(90):
        cells = tuple((index, rng.randint(1000, 90_000)) for index in range(256))
        full = Counts(
            requests=10**6,
            errors=12_345,
            latencies=Histogram(cells=cells),
            values=Sample(cells=((0.25, 7), (1.0, 3))),
        )
        state = judge.judged(state, Tick(canary=full, stable=full), policy, 0.7)
    adapter = pydantic.TypeAdapter(JudgeState)
    text = adapter.dump_json(state)
    assert len(text) < 10_000
    assert adapter.validate_json(text) == state


# --- the bench -------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [PLAIN, Plan(phi=2.0), Plan(block_s=5.0)], ids=str)
@pytest.mark.parametrize("scenario", ["equal", "ramp 1-5-25-50 %, drift", "user bursts"])
def test_the_bench_judges_as_the_judge_does(scenario: str, plan: Plan) -> None:
    """The written-out process aborts five times as many errors in the very look in which the judge does."""
    looks = list(islice(streams.NULLS[scenario](random.Random(5), 0.001, 5.0), 400))
    outcome = fast.abort(iter(looks), len(looks), plan)
    state, at = begun(plan=plan), 0
    for n_c, x_c, n_s, x_s in looks:
        state, at = after(state, counts(n_c, x_c), counts(n_s, x_s)), at + 1
        if said(state).kind is VerdictKind.ABORT:
            break
    assert (said(state).kind is VerdictKind.ABORT, at) == (outcome.crossed, outcome.looks)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_in_a_sample_of_the_bench_no_regression_is_missed_and_no_good_release_aborted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With fixed seeds: all regressions are found near the limit, and slower canaries in few requests."""
    _, score, missed = trials.regressions(trials.QUICK, 1)
    assert missed == 0
    assert score < 1.5
    slower = [trials._slower(1.5, number) for number in range(9)]
    assert sorted(found[0] for found in slower if found)[4] <= 100
    good = (trials._null("ramp 1-5-25-50 %, drift", 0.001, (PLAIN,), number) for number in range(10))
    assert not any(good)
    assert command.main(["--quick", "--part", "needed", "--processes", "1"]) == 0
    assert "10" in capsys.readouterr().out


def test_latencies_lie_in_the_buckets_that_the_sentence_names() -> None:
    """The median of the past is shown as the lower edge of its bucket."""
    shown = said(after(begun(), counts(10, 0, 0), counts(190, 0, 0), looks=20)).stable_latency
    assert shown is not None
    assert sequential.bucket_edge_s(93) * 1000 <= shown.p50_ms <= sequential.bucket_edge_s(97) * 1000


def test_looks_of_one_slice_are_judged_together() -> None:
    """Requests, latencies and values of looks that came before a slice was full all count in it."""
    policy = AnalysisPolicy()
    half = judge.Counts(
        requests=20,
        latencies=sequential.Histogram(cells=((5, 20),)),
        values=sequential.Sample(cells=((1.0, 20),)),
    )
    first = judge.judged(
        judge.started(policy, sequential.PLAIN, sequential.Histogram()),
        judge.Tick(canary=half, stable=half),
        policy,
        1.0,
    )
    assert first.canary.requests == 0
    second = judge.judged(first, judge.Tick(canary=half, stable=half), policy, 1.0)
    assert (second.canary.requests, second.stable.requests, second.centre) == (40, 40, None)
    assert sum(weight for _, weight in second.stable_latencies.past) == 40


def test_release_without_latencies_is_promoted_on_its_errors_alone() -> None:
    """Where nobody measures latencies they cannot hold a promotion up."""
    policy = AnalysisPolicy(promote_early=True)
    state = judge.started(policy, sequential.PLAIN, sequential.Histogram())
    quiet = judge.Counts(requests=5000)
    for _ in range(6):
        state = judge.judged(state, judge.Tick(canary=quiet, stable=quiet), policy, 1.0)
    assert verdicts.verdict(state, policy).kind is verdicts.VerdictKind.PROMOTE


def test_rounding_cannot_leave_a_quantile_without_a_bucket() -> None:
    """If the parts add up to a hair less than the whole, the last bucket holds the quantile."""
    assert sequential.quantile(((3, 0.1), (7, 0.2)), 1.0 + 1e-9) == 7


def test_small_app_is_compared_before_its_stage_is_over() -> None:
    """Two dozen requests in 150 s fill no slice, and still a canary that failed each of its own aborts."""
    policy = AnalysisPolicy()
    state = judge.started(policy, PLAIN, Histogram())
    for second in range(150):
        canary = Counts(requests=int(second % 12 == 3), errors=int(second % 12 == 3))
        state = judge.judged(
            state, Tick(canary=canary, stable=Counts(requests=int(second % 12 == 9))), policy, 1.0
        )
    assert state.canary.requests == state.canary.errors <= 12
    assert verdicts.verdict(state, policy).kind is VerdictKind.ABORT


def test_canary_alone_in_its_slice_waits_for_the_stable_release() -> None:
    """However old: without a stable request beside it, it says nothing."""
    policy = AnalysisPolicy()
    state = judge.started(policy, PLAIN, Histogram())
    for _ in range(40):
        state = judge.judged(state, Tick(canary=Counts(requests=1), stable=Counts()), policy, 1.0)
    assert (state.canary.requests, state.waiting.canary.requests) == (0, 40)
