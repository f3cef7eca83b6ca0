"""How a canary is judged, as it is written: what arrives in the policy, and which of two places wins."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.manifest.support import mistakes, text_of, with_environments, with_services
from tidegate import manifest
from tidegate.core import policy, sequential
from tidegate.core.policy import AnalysisPolicy, LittleEvidence
from tidegate.errors import ManifestError

SERVICE = with_services("web: {run: x}")


def judged(text: str, environment: str = "production") -> AnalysisPolicy:
    """The policy of one environment of the file."""
    found = manifest.parse(text).environment(environment)
    assert found is not None
    return found.analysis


def tuned(key: str, value: object) -> AnalysisPolicy:
    """The policy with one key at the top of the file."""
    return judged(f"{SERVICE}analysis: {{{key}: {value}}}\n")


@pytest.mark.parametrize("text", ["", "analysis:\n", "analysis: {}\n", "analysis: on\n", "analysis: true\n"])
def test_nothing_written(text: str) -> None:
    """With nothing written, or no more than that it is on, the policy is the core's default."""
    assert judged(SERVICE + text) == policy.DEFAULT


def test_everything_written() -> None:
    """Every key arrives in its field, in the unit of the field."""
    text = text_of("""
        analysis:
          enabled: false
          false_abort: 0.1%
          margin: 1.25
          allowance: 0.0001%
          latency_margin: 1.5
          max_error_share: 2.5%
          max_p99: 1.5s
          overdue: 20s
          promote_early: true
          soak: 3m
          on_little_evidence: wait
          warmup: 500ms
          warmup_requests: 0
    """)
    assert judged(SERVICE + text) == dataclasses.replace(
        policy.DEFAULT,
        enabled=False,
        false_abort=0.001,
        margin=1.25,
        allowance=0.000001,
        latency_margin_buckets=9,
        max_error_share=0.025,
        max_p99_ms=1_500.0,
        overdue_s=20.0,
        promote_early=True,
        soak_s=180.0,
        on_little_evidence=LittleEvidence.WAIT,
        warmup_s=0.5,
        warmup_requests=0,
    )


@pytest.mark.parametrize("word", ["off", "false"])
def test_off(word: str) -> None:
    """The short form switches the judge off and leaves the rest as it was."""
    assert judged(f"{SERVICE}analysis: {word}\n") == dataclasses.replace(policy.DEFAULT, enabled=False)


def test_each_key_of_the_environment_wins() -> None:
    """An environment takes over what the top of the file says, but for the keys that it writes itself."""
    top = "analysis: {margin: 2, max_p99: 1s, false_abort: 5%}\n"
    text = top + with_environments("test: {analysis: {margin: 3, max_p99: off}}\nproduction: {}")
    assert judged(text, "test") == dataclasses.replace(policy.DEFAULT, margin=3.0, false_abort=0.05)
    assert judged(text) == dataclasses.replace(
        policy.DEFAULT, margin=2.0, false_abort=0.05, max_p99_ms=1_000.0
    )


def test_off_for_all_but_one() -> None:
    """What is off at the top of the file is on where an environment says so."""
    text = "analysis: off\n" + with_environments("test: {}\nproduction: {analysis: on}")
    assert not judged(text, "test").enabled
    assert judged(text).enabled


def test_a_default_that_is_written_wins() -> None:
    """A key that an environment writes wins, even if it says what is the default anyway."""
    text = "analysis: {margin: 2}\n" + with_environments("production: {analysis: {margin: 1.10}}")
    assert judged(text).margin == 1.1


@given(st.decimals(min_value=1, max_value=100, places=3))
def test_latency_margin_covers_what_was_written(ratio: object) -> None:
    """The steps of the histogram are the fewest that reach the ratio: never stricter than as written."""
    steps = tuned("latency_margin", ratio).latency_margin_buckets
    assert sequential.BUCKET_RATIO**steps >= float(str(ratio)) * (1 - 1e-12)
    assert steps == 0 or sequential.BUCKET_RATIO ** (steps - 1) < float(str(ratio))


def test_latency_limit_can_be_exceeded() -> None:
    """The largest limit that may be written still has a bucket beyond it, where requests count as slower."""
    refused = mistakes(f"{SERVICE}analysis: {{max_p99: 365d}}\n")
    longest = refused[0].split(" and ")[1].split(" ")[0]
    limit_ms = tuned("max_p99", longest).max_p99_ms
    assert limit_ms is not None
    assert sequential.bucket_edge_s(sequential.BUCKETS - 1) * 1000 >= limit_ms


NUMBERS = st.decimals(min_value=0, max_value=200, places=4).map(str) | st.integers(0, 10**8).map(str)
VALUES = st.tuples(NUMBERS, st.sampled_from(["", "%", "ms", "s", "d"])).map("".join) | st.sampled_from(
    ["on", "off", "true", "go-on", "ask", "~", "[]", "x"]
)
KEYS = st.sampled_from(
    [
        "enabled",
        "false_abort",
        "margin",
        "allowance",
        "latency_margin",
        "max_error_share",
        "max_p99",
        "overdue",
        "promote_early",
        "soak",
        "on_little_evidence",
        "warmup",
        "warmup_requests",
    ]
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_a_value_is_refused_in_words_or_makes_a_policy(keys: dict[str, str]) -> None:
    """The file never lets through what the policy itself would refuse, and every refusal names its key."""
    lines = ", ".join(f"{key}: {value}" for key, value in keys.items())
    try:
        found = judged(f"{SERVICE}analysis: {{{lines}}}\n")
    except ManifestError as error:
        refused = [problem.path for problem in error.problems]
        assert refused
        assert set(refused) <= {f"analysis.{key}" for key in keys}
    else:
        assert math.isfinite(found.abort_bound)


IN_ANALYSIS = [
    ("analysis: maybe", "analysis: line 6: should be on, off, or keys such as margin: below it, not 'maybe'"),
    ("analysis: [off]", "analysis: line 6: should be on, off, or keys such as margin: below it, not a list"),
    ("analysis: {margn: 1.2}", "analysis.margn: line 6: there is no such key (did you mean margin?)"),
    (
        "analysis: {enabled: off}",
        "analysis.enabled: line 6: should be true or false, not 'off' (did you mean false?)",
    ),
    (
        "analysis: {margin: 20%}",
        "analysis.margin: line 6: should be a ratio such as 1.10, not '20%' (did you mean 1.2?)",
    ),
    (
        "analysis: {margin: 0.9}",
        "analysis.margin: line 6: should be at least 1 and at most 100 (1.10 permits a tenth more)",
    ),
    (
        "analysis: {latency_margin: 1000}",
        "analysis.latency_margin: line 6: should be at least 1 and at most 100 (1.10 permits a tenth more)",
    ),
    (
        "analysis: {false_abort: 0.01}",
        "analysis.false_abort: line 6: should be a percentage such as 1% or 0.5%, not '0.01'",
    ),
    (
        "analysis: {false_abort: 0%}",
        (
            "analysis.false_abort: line 6: should be more than 0% and at most 50% "
            "(analysis: off aborts for nothing)"
        ),
    ),
    (
        "analysis: {false_abort: 51%}",
        (
            "analysis.false_abort: line 6: should be more than 0% and at most 50% "
            "(analysis: off aborts for nothing)"
        ),
    ),
    ("analysis: {allowance: 100%}", "analysis.allowance: line 6: should be less than 100%"),
    (
        "analysis: {max_error_share: 0%}",
        "analysis.max_error_share: line 6: should be more than 0% and less than 100% (off is no limit)",
    ),
    (
        "analysis: {max_error_share: none}",
        "analysis.max_error_share: line 6: should be a percentage such as 1% or 0.1%, or off, not 'none'",
    ),
    (
        "analysis: {max_p99: 500}",
        "analysis.max_p99: line 6: should be a duration such as 500ms or 2s, or off, not '500'",
    ),
    ("analysis: {max_p99: 5m}", "analysis.max_p99: line 6: should be between 1ms and 120s (off is no limit)"),
    (
        "analysis: {overdue: never}",
        "analysis.overdue: line 6: should be a duration such as 5s or 1m, or auto, not 'never'",
    ),
    ("analysis: {overdue: 0s}", "analysis.overdue: line 6: should be between 100ms and 1d"),
    (
        "analysis: {soak: 60}",
        "analysis.soak: line 6: should be a duration such as 500ms, 30s, 2m, 1h or 1d, not '60'",
    ),
    (
        "analysis: {warmup_requests: 1.5}",
        "analysis.warmup_requests: line 6: should be a whole number such as 20, not '1.5'",
    ),
    (
        "analysis: {warmup_requests: 10000001}",
        "analysis.warmup_requests: line 6: should be at most 10000000",
    ),
    (
        "analysis: {on_little_evidence: stop}",
        "analysis.on_little_evidence: line 6: should be go-on, wait or ask, not 'stop'",
    ),
]


@pytest.mark.parametrize(("written", "expected"), IN_ANALYSIS, ids=[written for written, _ in IN_ANALYSIS])
def test_mistake_in_the_analysis(written: str, expected: str) -> None:
    """One wrong value gives exactly one line, in the words of the file."""
    assert mistakes(with_environments(f"test: {{{written}}}")) == [f"environments.test.{expected}"]


def test_every_mistake_at_once() -> None:
    """Wrong values of the analysis come out together with every other mistake of the file, in its order."""
    text = "analysis: {margin: 0.5, soak: soon}\n" + with_environments(
        "test: {keep_warm: long, analysis: {margin: x, max_p99: 0ms}}"
    )
    assert [line.split(": line")[0] for line in mistakes(text)] == [
        "analysis.margin",
        "analysis.soak",
        "environments.test.keep_warm",
        "environments.test.analysis.margin",
        "environments.test.analysis.max_p99",
    ]


@pytest.mark.parametrize(
    "where",
    [
        "services: {web: {run: x, analysis: off}}",
        "services: {web: {run: x, health: {analysis: off}}}",
        "services: {web: {run: x}}\nenvironments: {test: {strategy: {analysis: off}}}",
        "services: {web: {run: x}}\nenvironments: {test: {services: {web: {analysis: off}}}}",
    ],
)
def test_it_stands_in_two_places_only(where: str) -> None:
    """Anywhere else the key is refused with the places where it has a meaning."""
    found = mistakes(f"app: shop\nartifact: {{package: dist}}\n{where}\n")
    assert [line.partition("line")[2].partition(": ")[2] for line in found][-1:] == [
        "does not stand here (it stands in an environment, or at the top of the file for all of them)"
    ]
