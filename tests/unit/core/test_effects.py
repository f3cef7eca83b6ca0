"""Effects: stable keys, and sentences that plan and log share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.builders import WEB, environment, placed, service, spec
from tidegate.core import reconcile, routing
from tidegate.core.effects import ApplyGroup, ApplyRoutes, RemoveGroup
from tidegate.core.model import Phase


@pytest.mark.parametrize(
    ("instances", "sentence"),
    [
        (1, "run 1 instance of web at r1 in shop/production"),
        (2, "run 2 instances of web at r1 in shop/production"),
    ],
)
def test_start_of_a_group_is_named_and_described(instances: int, sentence: str) -> None:
    """The key names the group, the sentence what will run where."""
    state = environment().live("r1", spec(service("web", instances=instances))).state
    placement = placed(state, "r1")
    group = reconcile.instance_group(state, placement, placement.spec.services[0])
    effect = ApplyGroup(group=group)
    assert effect.key == "apply:shop.production.1.web"
    assert effect.describe() == sentence


def test_stop_of_a_group_is_named_and_described() -> None:
    """The key names the group."""
    effect = RemoveGroup(group_id="shop.production.1.web")
    assert (effect.key, effect.describe()) == (
        "remove:shop.production.1.web",
        "stop shop.production.1.web",
    )


def test_route_is_named_by_its_fence_and_described_by_its_share() -> None:
    """Who reads the log sees which slot gets how much."""
    canary = environment().live("r1", spec(WEB)).incoming("r2", spec(WEB), phase=Phase.SHIFTING).state
    effect = ApplyRoutes(table=routing.route_table(canary))
    assert effect.key == "routes:shop/production:2"
    assert effect.describe() == "route shop/production: stable slot 0, 5 % of users to slot 1, 2 servers"


def test_route_to_one_release_is_all() -> None:
    """Without a canary, everybody goes to the stable slot."""
    table = routing.route_table(environment().live("r1").state)
    assert ApplyRoutes(table=table).describe() == "route shop/production: stable slot 0, all, 1 servers"


def test_route_to_nothing_says_so() -> None:
    """An aborted first deployment leaves a route that leads nowhere."""
    table = routing.route_table(environment().live("r1").state)
    nowhere = replace(table, route=replace(table.route, stable=None))
    assert ApplyRoutes(table=nowhere).describe() == "route nothing for shop/production"
