"""What HAProxy reads: every value in its place, and nothing that could be more than one value."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import model
from tidegate.errors import RouterError
from tidegate.haproxy import config, servers
from tidegate.haproxy.settings import RouterSettings
from tidegate.haproxy.wire import _COMMAND

KEY = model.EnvironmentKey(app="shop", environment="production")
HTTP = model.Check(kind=model.CheckKind.HTTP, path="/healthz")
SERVER = model.Server(name="p1-0-9001", host="127.0.0.1", port=9001)

tokens = st.text("abcXYZ019_", min_size=2, max_size=20)
slots = st.none() | st.integers(0, 3)
routes = st.builds(
    model.Route,
    stable=slots,
    canary=slots,
    exposure_bps=st.integers(0, 10_000),
    salt=st.just("") | tokens,
    preview=st.just("") | tokens,
    fence=st.integers(0, 10**17),
    hold_s=st.just(0) | st.integers(1, 3600),
)


def table(**changes: object) -> model.RouteTable:
    """One service with one server in slot 0."""
    whole = model.RouteTable(
        key=KEY,
        route=model.Route(stable=0, fence=1),
        services=(
            model.PublicService(
                service="web", hosts=("shop.example.com",), identity=model.UserIdentity.COOKIE
            ),
        ),
        backends=(model.Backend(service="web", slot=0, check=HTTP, servers=(SERVER,)),),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def backend(service: str, slot: int, check: model.Check = HTTP) -> model.Backend:
    return model.Backend(service=service, slot=slot, check=check, servers=())


def everything(whole: model.RouteTable) -> str:
    """All text that a table can put before HAProxy. Raises RouterError."""
    shape = config.structure(whole, ())
    commands = servers.bring_in((), servers.wanted(whole))
    maps = [config.map_text(entries) for entries in config.map_entries(whole).values()]
    return "\n".join([config.environment_text(whole, shape), *maps, *commands])


@given(routes)
def test_route_survives_the_map(route: model.Route) -> None:
    """A route read back from its map value is the same route, and the value is one word."""
    value = config.route_value(route)
    assert config.parse_route(value) == route
    assert _COMMAND.fullmatch(value)
    assert " " not in value


@given(st.text(max_size=60) | st.from_regex(r"[-0-9=~!:a-z]{0,40}", fullmatch=True))
def test_only_own_values_are_routes(value: str) -> None:
    """What is read as a route is written the same way; anything else is none."""
    route = config.parse_route(value)
    assert route is None or config.route_value(route) == value


@pytest.mark.parametrize(
    "route",
    [
        model.Route(stable=4),
        model.Route(canary=-1),
        model.Route(exposure_bps=10_001),
        model.Route(exposure_bps=-1),
        model.Route(fence=-1),
        model.Route(hold_s=-1),
        model.Route(hold_s=3601),
        model.Route(salt="a:b"),
        model.Route(salt="-"),
        model.Route(preview="a b"),
        model.Route(preview="a"),
        model.Route(preview="a\nb"),
    ],
)
def test_impossible_routes_are_refused(route: model.Route) -> None:
    """A route outside its limits, or whose words would be two, never reaches HAProxy."""
    with pytest.raises(RouterError):
        config.route_value(route)


def test_refused_token_is_not_told() -> None:
    """The error about a preview token does not repeat the token."""
    with pytest.raises(RouterError) as caught:
        config.route_value(model.Route(preview="secret token"))
    assert "secret" not in str(caught.value)


HOSTILE = st.text(
    st.sampled_from("ab01.-_ \t\r\n\0;\\'\"#$%{}<>[]()*&|/:@=~!?,\x1b\u2028é"), min_size=1, max_size=12
)


@given(HOSTILE, st.sampled_from(["app", "environment", "service", "server", "address", "host", "path"]))
def test_hostile_values_are_refused_or_harmless(text: str, place: str) -> None:
    """Whatever stands in a name, host, address or path: it is refused, or every line has its known form."""
    whole = table()
    (one,) = whole.backends
    changed = {
        "app": lambda: replace(whole, key=replace(KEY, app=text)),
        "environment": lambda: replace(whole, key=replace(KEY, environment=text)),
        "service": lambda: replace(whole, backends=(replace(one, service=text),)),
        "server": lambda: replace(whole, backends=(replace(one, servers=(replace(SERVER, name=text),)),)),
        "address": lambda: replace(whole, backends=(replace(one, servers=(replace(SERVER, host=text),)),)),
        "host": lambda: replace(whole, services=(replace(whole.services[0], hosts=(text,)),)),
        "path": lambda: replace(whole, backends=(replace(one, check=replace(HTTP, path=text)),)),
    }[place]()
    try:
        rendered = everything(changed)
    except RouterError:
        return
    assert len(rendered.split("\n")) == len(everything(whole).split("\n"))
    forbidden = set('\\"#<>\t\r\0\x1b\u2028')
    if place != "path":  # which HAProxy reads between single quotes, where these mean nothing
        forbidden |= set(";$")
    assert not set(rendered) & forbidden
    assert rendered.count("'") == everything(whole).count("'")
    words = [len(line.split(" ")) for line in rendered.split("\n")]
    assert words == [len(line.split(" ")) for line in everything(whole).split("\n")]


def test_all_slots_of_a_service_are_there_before_they_are_used() -> None:
    """A new rollout's slot needs no reload: it has its backend already."""
    text = everything(table())
    assert [f"backend shop.production.web.{slot} from tidegate" in text for slot in range(4)] == [True] * 4


def test_structure_stays_while_slots_come_and_go() -> None:
    """Using, leaving and re-using slots with the same check leaves the structure as it was."""
    held = config.structure(table(), ())
    for used in ((0, 1), (1,), (1, 2), (3,)):
        backends = tuple(backend("web", slot) for slot in used)
        assert config.structure(table(backends=backends), held) == held


def test_structure_changes_with_checks_and_services() -> None:
    """Another check in a used slot, another service or one less is another structure."""
    held = config.structure(table(), ())
    other = replace(HTTP, path="/ready")
    for backends in (
        (backend("web", 0), backend("web", 1, other)),
        (backend("api", 0), backend("web", 0)),
        (),
    ):
        assert config.structure(table(backends=backends), held) != held


def test_unused_slot_takes_the_newest_check_once() -> None:
    """Slots never used get the canary's check, and keep it when the canary has gone."""
    other = replace(HTTP, path="/ready")
    both = table(
        route=model.Route(stable=0, canary=1), backends=(backend("web", 0), backend("web", 1, other))
    )
    first = config.structure(both, ())
    assert [one.check.path for one in first] == ["/healthz", "/ready", "/ready", "/ready"]
    assert config.structure(table(), first) == first


def test_map_has_one_owner_per_entry() -> None:
    """An environment whose name begins with another's owns none of its entries."""
    prefix = config.owner_prefix(replace(KEY, environment="production-two"))
    for name, entries in config.map_entries(table()).items():
        assert not any(config.owned(name, prefix, entry) for entry in entries.items())
        assert all(config.owned(name, config.owner_prefix(KEY), entry) for entry in entries.items())


def test_two_owners_of_a_host_are_refused() -> None:
    """Two environments, or two services, cannot have one host."""
    other = table(key=replace(KEY, environment="staging"))
    with pytest.raises(RouterError, match=r"shop\.example\.com"):
        config.merged(config.HOSTS, [table(), other])
    twice = (table().services[0], replace(table().services[0], service="api"))
    with pytest.raises(RouterError, match="Two services"):
        config.map_entries(table(services=twice))


def test_base_has_the_users_settings() -> None:
    """Address, ports, limits and times of the settings are in the shared part."""
    text = config.base_text(
        RouterSettings(
            host="::1",
            port=8443,
            link_ports=(29_001, 29_002),
            connections_max=77,
            threads=3,
            response_timeout_s=1.5,
            tunnel_timeout_s=7200,
        )
    )
    for line in (
        "bind [::1]:8443",
        "bind 127.0.0.1:29001",
        "bind 127.0.0.1:29002",
        "maxconn 77",
        "nbthread 3",
        "timeout server 1500ms",
        "timeout tunnel 7200000ms",
    ):
        assert f"    {line}\n" in text
    assert "$" not in text


@pytest.mark.parametrize(
    "changes", [{"host": "localhost"}, {"host": "1.2.3.4\nbind"}, {"tunnel_timeout_s": -1.0}]
)
def test_impossible_settings_are_refused(changes: dict[str, object]) -> None:
    """Settings that HAProxy cannot have are errors before anything is written."""
    with pytest.raises(RouterError):
        config.base_text(RouterSettings(**changes))  # type: ignore[arg-type]


def test_connections_fit_the_limit_on_open_files() -> None:
    """The default number of connections leaves descriptors for everything else."""
    settings = RouterSettings()
    assert 100 <= settings.connections() <= 20_000
    assert RouterSettings(connections_max=7).connections() == 7


def test_call_of_another_app_is_an_entry_of_the_caller() -> None:
    """It names the service without a slot, and begins with the caller's prefix: that one takes it away."""
    calls = replace(table(), foreign=(model.ForeignLink(service="accounts/api", port=29_650),))
    entry = ("29650", "shop.production./accounts.production.api.")
    assert entry in config.map_entries(calls)[config.LINKS].items()
    assert config.owned(config.LINKS, "shop.production.", entry)
    assert not config.owned(config.LINKS, "accounts.production.", entry)


def test_bad_or_taken_call_of_another_app_is_refused() -> None:
    """No name of a stranger gets into a map, and no port has two meanings."""
    for links in (
        (model.ForeignLink(service="accounts/a pi", port=29_650),),
        (model.ForeignLink(service="accounts", port=29_650),),
        (
            model.ForeignLink(service="accounts/api", port=29_650),
            model.ForeignLink(service="accounts/web", port=29_650),
        ),
    ):
        with pytest.raises(RouterError):
            config.map_entries(replace(table(), foreign=links))
