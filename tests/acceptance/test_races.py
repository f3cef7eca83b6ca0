"""Several people at once, and people who press twice: one rollout per wish, or a refusal with its reason."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, finished, wait_for
from tidegate import errors

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted]

_names = itertools.count(1)


@pytest.fixture
def make(shared: Tide) -> Callable[..., App]:
    """Makes apps with a release that is live."""

    def made(strategy: Any = sample.HELD) -> App:
        name = f"race{next(_names)}"
        web = sample.service("web", route=f"{name}.test")
        production = {"strategy": strategy, "keep_warm": "1m"}
        app = shared.app(name, services={"web": web}, environments={"production": production})
        app.host = f"{name}.test"
        app.open()
        return app

    return made


def _at_once(count: int, what: Callable[[], Any]) -> list[Any]:
    """Do it in several threads at the same moment; answers and errors."""
    answers: list[Any] = []
    start = threading.Barrier(count)

    def one() -> None:
        start.wait()
        try:
            answers.append(what())
        except errors.TidegateError as error:
            answers.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _refused(error: object) -> dict[str, Any]:
    assert isinstance(error, errors.ReportedError), error
    assert (error.reported["status"], error.reported["exit_status"]) == (409, 2)
    return error.reported


def test_two_deploys_at_once_are_one_rollout(make: Callable[..., App]) -> None:
    """Two people deploy two releases at the same moment: one wins, the other is told which."""
    app = make()
    app.write({"made": "by ada"})
    first = app.begin("deploy", "--no-wait")
    app.folder.joinpath("dist", "note").write_text("by bob")
    second = app.begin("deploy", "--no-wait")
    done = [finished(first), finished(second)]
    won = [one for one in done if one.status == 0]
    lost = [one for one in done if one.status == 2]
    rollout = app.look()["rollout"]
    if len(won) == 2:  # both packed the same files: then they asked for the same
        assert rollout["release"] == 2
    else:
        assert (len(won), len(lost)) == (1, 1)
        assert f"Rollout #{rollout['id']} of r{rollout['release']}" in lost[0].err
    assert len(app.history()) == 2


def test_same_key_is_one_rollout(make: Callable[..., App]) -> None:
    """The same request delivered three times under one key starts one rollout, and all get its id."""
    app = make()
    app.hold()
    app.act("abort")
    app.wait_ended()
    answers = _at_once(3, lambda: app.act("deploy", release=2, key="delivery-1"))
    assert len({answer["rollout"] for answer in answers}) == 1
    assert sorted(answer["no_op"] for answer in answers) == [False, True, True]
    app.act("promote", full=True) if app.wait_phase("holding") else None
    app.wait_ended()
    late = app.act("deploy", release=2, key="delivery-1")
    assert late["no_op"]
    assert len(app.history()) == 3


def test_deploy_by_many_starts_one(make: Callable[..., App]) -> None:
    """Six people deploy the same release at once: one rollout, five no-ops."""
    app = make()
    app.hold()
    app.act("abort")
    app.wait_ended()
    answers = _at_once(6, lambda: app.act("deploy", release=2))
    assert sorted(answer["no_op"] for answer in answers) == [False] + [True] * 5
    assert len({answer["rollout"] for answer in answers}) == 1


def test_abort_during_abort_is_one_abort(make: Callable[..., App]) -> None:
    """Aborting what is being aborted changes nothing; afterwards there is nothing to abort any more."""
    app = make()
    app.hold()
    answers = _at_once(4, lambda: app.act("abort"))
    accepted = [answer for answer in answers if isinstance(answer, dict)]
    assert [answer["no_op"] for answer in accepted].count(False) == 1
    for error in (answer for answer in answers if not isinstance(answer, dict)):
        assert _refused(error)["reason"] == "no-rollout-in-progress"
    app.wait_ended()
    again = app.run("abort")
    assert again.status == 2
    assert "No rollout is in progress" in again.err


def test_rollback_during_rollback_is_one_rollback(make: Callable[..., App]) -> None:
    """Two people roll back at once: everybody is back where both wanted to be, by one rollout."""
    app = make(strategy="switch")
    app.open()
    _at_once(2, lambda: app.act("rollback", to=1))
    ended = app.wait_ended()
    assert ended["live"] == 1
    assert [rollout["release"] for rollout in app.history()] == [1, 2, 1]


def test_rollback_during_a_canary_says_what_is_in_the_way(make: Callable[..., App]) -> None:
    """A rollback while a canary runs is refused with the ways out; with --supersede it wins."""
    app = make(strategy="switch")
    app.open()
    app.manifest["environments"]["production"]["strategy"] = sample.HELD
    app.hold()
    refused = app.run("rollback")
    assert refused.status == 2
    assert "tide abort" in refused.err
    done = app.ok("rollback", "--supersede")
    assert "r1 is live" in done.out
    assert [(r["release"], r["phase"]) for r in app.history()][:2] == [(1, "succeeded"), (3, "aborted")]


@pytest.mark.parametrize("action", ["pause", "resume", "promote", "abort"])
def test_steering_after_the_end_is_refused(make: Callable[..., App], action: str) -> None:
    """Whoever steers a rollout that was aborted is told how it ended; nothing changes."""
    app = make()
    rollout = app.hold()["rollout"]["id"]
    app.act("abort")
    app.wait_ended()
    with pytest.raises(errors.ReportedError) as error:
        app.act(action, rollout=rollout)
    assert _refused(error.value)["reason"] == "rollout-has-ended"
    done = app.run(action)
    assert done.status == 2
    assert f"#{rollout} of r2, aborted (aborted-by-user)" in done.err
    assert len(app.history()) == 2


def test_stale_button_acts_on_nothing_else(make: Callable[..., App]) -> None:
    """A request that names another rollout than the one in progress is refused."""
    app = make()
    old = app.hold()["rollout"]["id"]
    app.act("abort")
    app.wait_ended()
    app.hold()
    with pytest.raises(errors.ReportedError) as error:
        app.act("abort", rollout=old)
    _refused(error.value)
    assert wait_for(lambda: app.look()["rollout"])["phase"] == "holding"
