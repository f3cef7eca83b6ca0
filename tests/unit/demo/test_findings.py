"""The last table of `tide demo --verdicts` counts what users had to bear, and compares fairly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from tests.unit.demo.made import sample
from tests.unit.demo.test_report import BAD, failed
from tidegate.demo import rivals
from tidegate.demo.findings import Fault, Finding, findings
from tidegate.demo.report import Act
from tidegate.demo.samples import Sample

ACT = replace(BAD, reason="worse", detail="It fails.", exposed_s=4.2)
FAILING = Fault(title="fails every fifth request", change="discount", failed_share=0.2)


def found(samples: Sequence[Sample], fault: Fault = FAILING, act: Act = ACT) -> Finding:
    (finding,) = findings(samples, ((fault, act),)).found
    return finding


def test_bad_requests_are_those_that_failed_by_the_release() -> None:
    """Answers of the bad release that were fine are none of them, nor are failures of another one."""
    seen = [sample(11, 3), failed(12, release=3), failed(13, release=3), failed(14, release=2), sample(15, 2)]
    assert (found(seen).bad_requests, found(seen).users_hit) == (2, 1)


def test_each_answer_of_a_slower_release_is_bad() -> None:
    """Nothing failed, but whoever was served had to wait; rules on failures find nothing of it."""
    slow = replace(FAILING, slow=True)
    line = found([sample(11, 3), sample(12, 3, user=2), sample(13, 2)], slow)
    assert (line.bad_requests, line.users_hit) == (2, 2)
    assert [other.seconds for other in line.others] == [None, None]


def test_others_get_the_same_stream() -> None:
    """Their canary has the users' rate times the exposure, and fails as the release is made to."""
    seen = [sample(10 + number / 10, 2) for number in range(100)]
    line = found(seen)
    assert line.requests_per_second == 0.5  # 100 requests in 10 s, of which 5 % go to the canary
    assert line.others == tuple(rivals.computed(rule, 0.5, 0.2) for rule in rivals.RULES)


def test_share_of_failures_that_nobody_knows_is_measured() -> None:
    """How many requests a crash hits is a matter of the machine: failures of all that met the release."""
    crashing = replace(FAILING, failed_share=None)
    seen = [sample(11, 3), failed(12), sample(13, 2), sample(14, 2)]
    assert found(seen, crashing).others == tuple(rivals.computed(rule, 0.02, 0.5) for rule in rivals.RULES)


def test_findings_are_json() -> None:
    """`--json` has the table, and the rules that were computed."""
    table = json.loads(json.dumps(findings([failed(12, release=3)], ((FAILING, ACT),)).as_json()))
    assert table["found"][0]["sentence"] == "It fails."
    assert table["found"][0]["exposed_s"] == 4.2
    assert [rule["name"] for rule in table["rules"]] == ["Flagger", "Argo Rollouts"]
