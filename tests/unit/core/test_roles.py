"""Who may do what: the order of roles, the scope of an asker, and what a refusal says."""

from __future__ import annotations

import itertools

import pytest

from tidegate import errors
from tidegate.core import roles
from tidegate.core.roles import NEEDS, Action, Asker, Reach, Role

#: As the documentation promises it; a change of the table is a change of this one, seen by two.
LEAST = {
    Role.VIEWER: {Action.LOOK, Action.PLAN, Action.READ_AUDIT},
    Role.DEPLOYER: {
        Action.READ_LOGS, Action.PREVIEW, Action.UPLOAD, Action.ADD_RELEASE, Action.DEPLOY, Action.PROMOTE,
        Action.PAUSE, Action.RESUME, Action.ABORT, Action.ROLLBACK, Action.MIGRATE,
    },
    Role.APPROVER: {Action.APPROVE},
    Role.ADMIN: {
        Action.EMERGENCY, Action.SECRETS, Action.SOURCES, Action.TOKENS, Action.KEYS, Action.BACKUP,
        Action.SHUTDOWN, Action.ON_BEHALF,
    },
}  # fmt: skip


def asker(role: Role = Role.DEPLOYER, *scope: str) -> Asker:
    return Asker(name="ci", role=role, scope=tuple(roles.reach(part) for part in scope or ("*/*",)))


def refused(who: Asker, action: Action, app: str | None = None, environment: str | None = None) -> str:
    with pytest.raises(errors.ForbiddenError) as caught:
        who.demand(action, app, environment)
    return str(caught.value)


def test_each_action_needs_the_role_that_is_documented() -> None:
    """No action is forgotten, and none needs more or less."""
    assert {role: {a for a, least in NEEDS.items() if least is role} for role in Role} == LEAST
    assert set(NEEDS) == set(Action)


@pytest.mark.parametrize(("mine", "needed"), list(itertools.product(Role, Role)))
def test_a_role_includes_those_before_it(mine: Role, needed: Role) -> None:
    """Viewer, deployer, approver, admin: each may do what those before it may, and no more."""
    order = [Role.VIEWER, Role.DEPLOYER, Role.APPROVER, Role.ADMIN]
    assert mine.includes(needed) == (order.index(mine) >= order.index(needed))


@pytest.mark.parametrize(("role", "action"), list(itertools.product(Role, Action)))
def test_an_action_is_for_its_role_and_those_above(role: Role, action: Action) -> None:
    """Everywhere in scope: exactly those roles that include the one that is needed."""
    if role.includes(NEEDS[action]):
        asker(role).demand(action, "shop", "production")
        asker(role).demand(action)
    else:
        assert f"needs the role {NEEDS[action]}, and this is the role {role}" in refused(
            asker(role), action, "shop", "production"
        )


@pytest.mark.parametrize(
    ("scope", "app", "environment", "holds"),
    [
        (("shop/*",), "shop", "production", True),
        (("shop/*",), "shop", None, True),
        (("shop/*",), "shopping", "production", False),
        (("*/staging",), "blog", "staging", True),
        (("*/staging",), "blog", "staging-2", False),
        (("*/staging",), "blog", None, True),
        (("shop/staging", "blog/production"), "shop", "production", False),
        (("shop/staging", "blog/production"), "blog", "production", True),
        (("shop-*/test",), "shop-eu", "test", True),
        (("shop-*/test",), "shop", "test", False),
        (("*-eu/t*t",), "shop-eu", "test", True),
        (("*-eu/t*t",), "shop-eu", "t", False),
        (("*-eu-*/test",), "shop-eu-1", "test", True),
        (("s*-eu-*/test",), "shop-us-1", "test", False),
    ],
)
def test_scope_is_where_both_patterns_match(
    scope: tuple[str, ...], app: str, environment: str | None, *, holds: bool
) -> None:
    """App and environment belong together: a scope of two pairs is not a scope of four."""
    who = asker(Role.ADMIN, *scope)
    assert who.reaches(app, environment) == holds
    if not holds:
        assert f"This token is for {', '.join(scope)}." in refused(who, Action.LOOK, app, environment)


def test_what_concerns_the_whole_control_plane_needs_a_scope_of_everything() -> None:
    """An admin of one app does not stop the control plane, nor make tokens for others."""
    for action in (Action.SHUTDOWN, Action.TOKENS, Action.BACKUP, Action.KEYS, Action.ON_BEHALF):
        assert "for every environment" in refused(asker(Role.ADMIN, "shop/*"), action)
        asker(Role.ADMIN, "shop/*", "*/*").demand(action)


@pytest.mark.parametrize(
    "text", ["shop", "shop/", "/test", "Shop/test", "shop/test/x", "shop/te st", "a?/b", ""]
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    """A scope that means nothing would be found out too late."""
    with pytest.raises(errors.RequestError, match="does not name environments"):
        roles.reach(text)


def test_a_pattern_full_of_stars_costs_nothing() -> None:
    """Matching takes as long as the name is, whatever the pattern: no token can make the gate slow."""
    assert not Reach("a*" * 19 + "c", "*").covers("a" * 40 + "b")
    assert Reach("a*" * 20, "*").covers("a" * 40)


def test_whom_an_admin_speaks_for_is_shown_beside_the_proved_name() -> None:
    """History shows both; only the first is proved."""
    assert Asker(name="root", role=Role.ADMIN).by == "root"
    assert Asker(name="root", role=Role.ADMIN, on_behalf_of="alice").by == "root for alice"


def test_a_token_in_a_text_is_unreadable() -> None:
    """Wherever it stands, and cut off too; what only looks like one stays."""
    token = "tide_" + "aB3-_" * 8 + "xyz"
    assert roles.redacted(f"Bearer {token}, {token[:30]}.") == "Bearer tide_***, tide_***."
    assert roles.redacted("tide_requests") == "tide_requests"
