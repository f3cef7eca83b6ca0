"""Who sees the canary: the right share, always the same users, and nobody by guessing."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.integration.haproxy.world import HOST, TOKEN, World, backend
from tests.support.buckets import bucket
from tests.support.http_load import ask, ask_all
from tests.support.web_app import WebApp
from tidegate.core import model

pytestmark = pytest.mark.real

SHARES = (100, 500, 2500, 5000)
USERS = [f"user-{number}" for number in range(1500)]


@pytest.fixture
def both(blue: WebApp, green: WebApp) -> tuple[model.Backend, model.Backend]:
    return backend(0, [blue]), backend(1, [green])


def exposed(world: World, users: list[str] = USERS) -> set[str]:
    """The users to whom HAProxy shows the canary."""
    answers = ask_all(world.port, HOST, [f"Cookie: a=b; tidegate_user={user}" for user in users])
    assert set(answers) <= {"blue", "green"}
    return {user for user, app in zip(users, answers, strict=True) if app == "green"}


def test_exposed_users_are_those_of_the_buckets_below_the_share(
    world: World, both: tuple[model.Backend, model.Backend]
) -> None:
    """For each share HAProxy exposes exactly the users that the published hash puts below it.

    With it the unit test of the hash speaks for a hundred thousand users.
    """
    for share in SHARES:
        world.apply(world.table(*both, canary=1, exposure_bps=share))
        assert exposed(world) == {user for user in USERS if bucket("salt-1", user) < share}


def test_exposure_is_monotone(world: World, both: tuple[model.Backend, model.Backend]) -> None:
    """Who sees the canary at a share sees it at every larger one; at 0 nobody, at 10 000 everybody."""
    seen = []
    for share in (0, *SHARES, 10_000):
        world.apply(world.table(*both, canary=1, exposure_bps=share))
        seen.append(exposed(world, USERS[:400]))
    assert all(smaller <= larger for smaller, larger in pairwise(seen))
    assert (seen[0], seen[-1]) == (set(), set(USERS[:400]))


def test_another_rollout_exposes_other_users(world: World, both: tuple[model.Backend, model.Backend]) -> None:
    """Two salts at 25 % overlap by chance only."""
    sets = []
    for salt in ("rollout-1", "rollout-2"):
        world.salt = salt
        world.apply(world.table(*both, canary=1, exposure_bps=2500))
        sets.append(exposed(world))
    overlap = len(sets[0] & sets[1]) / len(USERS)
    assert 0.03 < overlap < 0.10  # 0.0625 expected; far outside 0.25 and 0


def test_new_users_get_a_cookie_that_keeps_their_side(
    world: World, both: tuple[model.Backend, model.Backend]
) -> None:
    """A visitor without a cookie gets one for a year, and with it the same side ever after."""
    world.apply(world.table(*both, canary=1, exposure_bps=5000))
    sides = set()
    for _ in range(12):
        answer = ask(world.port, HOST)
        cookie = answer.headers["set-cookie"]
        assert re.fullmatch(
            r"tidegate_user=[0-9a-f-]{36}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax", cookie
        )
        later = ask(world.port, HOST, headers=[f"Cookie: {cookie.partition(';')[0]}"])
        assert (later.app, "set-cookie" in later.headers) == (answer.app, False)
        sides.add(answer.app)
    assert sides == {"blue", "green"}


def test_empty_cookie_is_no_user(world: World, both: tuple[model.Backend, model.Backend]) -> None:
    """A cookie without a value is replaced, lest all who send it be one user."""
    world.apply(world.table(*both, canary=1, exposure_bps=5000))
    assert "set-cookie" in ask(world.port, HOST, headers=["Cookie: tidegate_user="]).headers


def test_no_cookie_without_a_canary(world: World, both: tuple[model.Backend, model.Backend]) -> None:
    """While one release serves everybody, nobody is given a cookie."""
    world.apply(world.table(*both))
    assert "set-cookie" not in ask(world.port, HOST).headers


def test_users_can_be_told_by_address(world: World, both: tuple[model.Backend, model.Backend]) -> None:
    """With identity by address everybody behind one address is one user, with no cookie."""
    by_address = model.PublicService(service="web", hosts=(HOST,), identity=model.UserIdentity.ADDRESS)
    below = bucket("salt-1", "127.0.0.1") + 1
    for share, app in ((below, "green"), (below - 1, "blue")):
        world.apply(world.table(*both, canary=1, exposure_bps=share, services=(by_address,)))
        answers = [ask(world.port, HOST, headers=[f"Cookie: tidegate_user=u{i}"]) for i in range(5)]
        assert {answer.app for answer in answers} == {app}
        assert not any("set-cookie" in answer.headers for answer in answers)


@pytest.mark.parametrize("form", ["X-Tidegate-Preview: {}", "Cookie: a=b; tidegate_preview={}; c=d"])
def test_preview_needs_the_whole_token(
    world: World, both: tuple[model.Backend, model.Backend], form: str
) -> None:
    """The token shows the canary at no exposure; a part of it, more than it, or another does not."""
    world.apply(world.table(*both, canary=1, exposure_bps=0))
    wrong = ["", "-", TOKEN[:-1], f"{TOKEN}x", TOKEN.upper(), "x" * len(TOKEN), f"x{TOKEN}"]
    assert ask(world.port, HOST, headers=[form.format(TOKEN)]).app == "green"
    assert {ask(world.port, HOST, headers=[form.format(token)]).app for token in wrong} == {"blue"}


def test_no_token_matches_an_empty_one(world: World, both: tuple[model.Backend, model.Backend]) -> None:
    """Without a preview token in the route nothing that a client sends shows the canary."""
    table = world.table(*both, canary=1, exposure_bps=0)
    route = model.Route(stable=0, canary=1, salt="salt-1", fence=table.route.fence)
    world.apply(model.RouteTable(key=table.key, route=route, services=table.services, backends=both))
    for token in ("", "-", "salt-1", "0"):
        for form in (f"X-Tidegate-Preview: {token}", f"Cookie: tidegate_preview={token}"):
            assert ask(world.port, HOST, headers=[form]).app == "blue"


def test_preview_token_does_not_reach_the_app(
    world: World, both: tuple[model.Backend, model.Backend]
) -> None:
    """The header with the token is taken off before the request goes on."""
    world.apply(world.table(*both, canary=1, exposure_bps=0))
    answer = ask(world.port, HOST, "/headers", headers=[f"X-Tidegate-Preview: {TOKEN}"])
    assert answer.app == "green"
    assert TOKEN not in answer.body.decode()


def test_first_release_can_be_previewed_before_anybody_sees_it(
    world: World, both: tuple[model.Backend, model.Backend]
) -> None:
    """With nothing stable and no exposure the token shows the canary, and everybody else is asked to wait."""
    world.apply(world.table(both[1], stable=None, canary=1))
    assert ask(world.port, HOST, headers=[f"X-Tidegate-Preview: {TOKEN}"]).app == "green"
    assert ask(world.port, HOST).status == 503
