"""Gates of an environment: what may be written, what it means, and every mistake in words."""

from __future__ import annotations

import pytest

from tests.unit.manifest.support import mistakes, text_of, with_environments, with_services
from tidegate import manifest
from tidegate.core.model import Approvals, EnvironmentSpec, Freeze, SecretUse, Smoke, Verify

DAY_S = 86_400.0

APP = """\
app: shop
artifact: {package: dist}
services:
  mailer: {run: ./mailer}
  api: {run: ./api, health: /healthz}
  web: {run: ./web, needs: api, route: shop.example}
"""


def environments(written: str, top: str = "") -> dict[str, EnvironmentSpec]:
    """The environments of an app with a worker, a service with a port and one with a route."""
    return dict(manifest.parse(f"{APP}{top}\nenvironments:\n  {written}\n").environments)


def only(written: str, top: str = "") -> EnvironmentSpec:
    return environments(f"production: {{{written}}}", top)["production"]


# --- what it means -----------------------------------------------------------------------------------


def test_nothing_written_is_no_gate() -> None:
    """No checks, no soak, nobody asked, no window, no secret."""
    spec = only("")
    assert (spec.verify, spec.soak_s, spec.approvals) == (None, 0.0, None)
    assert (spec.freezes, spec.secrets) == ((), ())


@pytest.mark.parametrize(
    ("written", "run"),
    [
        ("verify: ./bin/smoke --fast", ("./bin/smoke", "--fast")),
        ("verify: [./bin/smoke, two words]", ("./bin/smoke", "two words")),
        ("verify: {run: ./bin/smoke}", ("./bin/smoke",)),
    ],
)
def test_verify_is_a_command(written: str, run: tuple[str, ...]) -> None:
    """Short or long, it is an argv with ten minutes; in quotes even `off` is a command."""
    assert only(written).verify == Verify(run=run, smoke=(), timeout_s=600.0)


def test_verify_asks_paths() -> None:
    """A path without a service is asked of the one with a route, in the order of the file."""
    spec = only("verify: {smoke: [/up, {path: /v1, service: api, status: 404}], timeout: 90s}")
    smoke = (Smoke(service="web", path="/up"), Smoke(service="api", path="/v1", status=404))
    assert spec.verify == Verify(run=(), smoke=smoke, timeout_s=90.0)


def test_without_a_route_the_first_service_with_a_port_is_asked() -> None:
    """Workers are never asked."""
    spec = only("verify: {smoke: [/up]}, services: {web: {route: []}}")
    assert spec.verify is not None
    assert [smoke.service for smoke in spec.verify.smoke] == ["api"]


def test_verify_of_an_environment_replaces_that_of_the_file() -> None:
    """It is taken whole, and off is nothing at all."""
    found = environments(
        "a: {services: {web: {route: []}}}\n"
        "  b: {verify: ./b, services: {web: {route: []}}}\n"
        "  c: {verify: off}\n"
        "  d: {verify: 'off', services: {web: {route: d.example}}}",
        "verify: {run: ./all, timeout: 1m}",
    )
    assert {name: spec.verify for name, spec in found.items()} == {
        "a": Verify(run=("./all",), timeout_s=60.0),
        "b": Verify(run=("./b",)),
        "c": None,
        "d": None,
    }


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("manual", Approvals(count=1, roles=(), expires_s=7 * DAY_S, not_by_requester=False)),
        ("{count: 2}", Approvals(count=2)),
        (
            "{count: 3, roles: [approver, admin], expires: 12h, not_by_requester: true}",
            Approvals(count=3, roles=("approver", "admin"), expires_s=DAY_S / 2, not_by_requester=True),
        ),
        ("{roles: admin}", Approvals(roles=("admin",))),
    ],
)
def test_approve(written: str, expected: Approvals) -> None:
    """One approval of anybody's, or as many and whose as is written."""
    assert only(f"approve: {written}").approvals == expected


@pytest.mark.parametrize(
    ("begin", "until", "weekly"),
    [
        ("mon 00:00", "sun 23:59", (0, 7 * 1440 - 1)),
        ("fri 16:00", "mon 08:00", (4 * 1440 + 960, 480)),
        ("Friday 16:00", "Monday 8:00", (4 * 1440 + 960, 480)),
        ("sat", "mon", (5 * 1440, 0)),
        ("tue 24:00", "sun 24:00", (2 * 1440, 0)),
    ],
)
def test_window_of_the_week(begin: str, until: str, weekly: tuple[int, int]) -> None:
    """Minutes since Monday; without a time it is the beginning of the day."""
    spec = only(f"freeze: [{{from: {begin}, until: {until}, zone: Europe/Berlin, why: weekend}}]")
    assert spec.freezes == (Freeze(zone="Europe/Berlin", weekly=weekly, why="weekend"),)


@pytest.mark.parametrize(
    ("begin", "until", "dates"),
    [
        ("2026-12-20 16:00", "2027-01-02", ("2026-12-20T16:00", "2027-01-02T00:00")),
        ("2026-12-20T16:00", "2026-12-31 24:00", ("2026-12-20T16:00", "2027-01-01T00:00")),
    ],
)
def test_window_of_dates(begin: str, until: str, dates: tuple[str, str]) -> None:
    """Local times, as the core takes them."""
    spec = only(f"freeze: [{{from: {begin}, until: {until}, zone: UTC}}]")
    assert spec.freezes == (Freeze(zone="UTC", dates=dates),)


@pytest.mark.parametrize(
    "written",
    ["[DATABASE_URL, API_KEY]", "{DATABASE_URL: variable, API_KEY: variable}", '[DATABASE_URL, "API_KEY"]'],
)
def test_secrets_are_variables(written: str) -> None:
    """Sorted, however they are written."""
    assert only(f"secrets: {written}").secrets == (SecretUse(name="API_KEY"), SecretUse(name="DATABASE_URL"))


@pytest.mark.parametrize("written", ["{KEY: file, URL: variable}", "[URL, KEY: file]", "[{KEY: file}, URL]"])
def test_secret_can_be_a_file(written: str) -> None:
    """Each says for itself; one alone needs no list."""
    spec = only(f"secrets: {written}")
    assert spec.secrets == (SecretUse(name="KEY", as_file=True), SecretUse(name="URL"))
    assert only("secrets: KEY").secrets == (SecretUse(name="KEY"),)


def test_soak_is_a_duration() -> None:
    """In seconds."""
    assert only("soak: 1h").soak_s == 3600.0


# --- mistakes ----------------------------------------------------------------------------------------

MOMENT = "should be a time such as fri 16:00, or 2026-12-20 16:00, not"
WINDOW = "until: mon, zone: UTC"
COMMAND = "a command such as ./bin/web --fast, or a list of its words"

IN_GATES = [
    (
        "verify: a && b",
        (
            "verify: line 6: has '&&' in it, which only a shell understands"
            ' (no shell reads it; if you need one: [sh, -c, "..."])'
        ),
    ),
    ("verify: on", "verify: line 6: should say what to try (for example verify: ./bin/smoke)"),
    ("verify: {}", "verify: line 6: should have run, smoke or both (for example run: ./bin/smoke)"),
    (
        "verify: {timeout: 1m}",
        "verify: line 6: should have run, smoke or both (for example run: ./bin/smoke)",
    ),
    ("verify: {run: ''}", f"verify.run: line 6: is empty: it should be {COMMAND}"),
    ("verify: {comand: x}", "verify.comand: line 6: there is no such key (known here: run, smoke, timeout)"),
    ("verify: {run: x, timeout: 0s}", "verify.timeout: line 6: should be between 100ms and 1d"),
    (
        "verify: {smoke: /up}",
        (
            "verify.smoke: line 6: should be a list, not a single value "
            "(for example [/healthz, {path: /cart, service: web, status: 200}])"
        ),
    ),
    (
        "verify: {smoke: [up]}",
        "verify.smoke[0]: line 6: should be a path such as /healthz, not 'up' (did you mean /up?)",
    ),
    ('verify: {smoke: ["/a b"]}', "verify.smoke[0]: line 6: should be a path such as /healthz, not '/a b'"),
    (
        'verify: {smoke: ["/a\\r\\nX: y"]}',
        "verify.smoke[0]: line 6: should be a path such as /healthz, not '/a??X: y'",
    ),
    (
        "verify: {smoke: [{path: /a, status: 199}]}",
        "verify.smoke[0].status: line 6: should be between 200 and 599",
    ),
    (
        "verify: {smoke: [{path: /a, status: ok}]}",
        "verify.smoke[0].status: line 6: should be a status such as 200 or 404, not 'ok'",
    ),
    (
        "verify: {smoke: [{service: web}]}",
        "verify.smoke[0].path: line 6: is missing (the path that is asked, once, for example path: /cart)",
    ),
    (
        "verify: {smoke: [{path: /a, service: wep}]}",
        "verify.smoke[0].service: line 6: there is no service wep (did you mean web?)",
    ),
    (
        "verify: {smoke: [{path: /a, service: web}]}",
        (
            "verify.smoke[0].service: line 6: web has no port, so that nobody can ask it "
            "(port: true at web, if it listens on PORT)"
        ),
    ),
    (
        "verify: {smoke: [/a]}",
        (
            "verify.smoke[0]: line 6: nobody can be asked for /a: no service has a port "
            "(port: true at the service that listens)"
        ),
    ),
    ("soak: long", "soak: line 6: should be a duration such as 500ms, 30s, 2m, 1h or 1d, not 'long'"),
    (
        "approve: auto",
        (
            "approve: line 6: should be manual, or keys such as count: below it, not 'auto' "
            "(leave it out if nobody is to be asked)"
        ),
    ),
    ("approve: [manual]", "approve: line 6: should be manual, or keys such as count: below it, not a list"),
    ("approve: {count: 0}", "approve.count: line 6: should be between 1 and 20"),
    (
        "approve: {roles: deployer}",
        "approve.roles: line 6: should be approver or admin: a deployer may not approve anything",
    ),
    ("approve: {roles: [boss]}", "approve.roles: line 6: should be approver or admin, not 'boss'"),
    ("approve: {roles: [admin, admin]}", "approve.roles: line 6: names admin twice"),
    ("approve: {expires: 10ms}", "approve.expires: line 6: should be between 1s and 365d"),
    (
        "approve: {not_by_requestor: true}",
        "approve.not_by_requestor: line 6: there is no such key (did you mean not_by_requester?)",
    ),
    (
        "freeze: {from: fri}",
        (
            "freeze: line 6: should be a list, not a mapping "
            "(for example [{from: fri 16:00, until: mon 08:00, zone: Europe/Berlin}])"
        ),
    ),
    (
        "freeze: [{from: fri, until: mon}]",
        (
            "freeze[0].zone: line 6: is missing "
            "(time zone of the two, a name of the IANA database, for example zone: Europe/Berlin)"
        ),
    ),
    (
        "freeze: [{until: mon, zone: UTC}]",
        "freeze[0].from: line 6: is missing (when it begins, for example from: fri 16:00)",
    ),
    (
        f"freeze: [{{from: fry 16:00, {WINDOW}}}]",
        f"freeze[0].from: line 6: {MOMENT} 'fry 16:00' (did you mean fri?)",
    ),
    (
        f"freeze: [{{from: 16:00, {WINDOW}}}]",
        f"freeze[0].from: line 6: {MOMENT} '16:00' (say the day, too: mon 16:00)",
    ),
    (f"freeze: [{{from: fri 16, {WINDOW}}}]", f"freeze[0].from: line 6: {MOMENT} 'fri 16'"),
    (f"freeze: [{{from: fri 25:00, {WINDOW}}}]", f"freeze[0].from: line 6: {MOMENT} 'fri 25:00'"),
    (
        f"freeze: [{{from: '2026-12-20T16:00+01:00', {WINDOW}}}]",
        (
            f"freeze[0].from: line 6: {MOMENT} '2026-12-20T16:00+01:00' "
            "(without an offset: zone says where the clock hangs)"
        ),
    ),
    (
        f"freeze: [{{from: '2026-02-30 10:00', {WINDOW}}}]",
        "freeze[0].from: line 6: should be a day of the calendar, and 2026-02-30 is none",
    ),
    (
        "freeze: [{from: fri, until: '2026-12-20 10:00', zone: UTC}]",
        "freeze[0].until: line 6: should be a day of the week, as from is (two windows are two items)",
    ),
    (
        "freeze: [{from: '2026-12-20 10:00', until: mon, zone: UTC}]",
        "freeze[0].until: line 6: should be a date, as from is (two windows are two items)",
    ),
    (
        "freeze: [{from: '2026-12-20 10:00', until: '2026-12-20 10:00', zone: UTC}]",
        "freeze[0].until: line 6: should be later than 2026-12-20 10:00, when it begins",
    ),
    (
        "freeze: [{from: mon, until: sun 24:00, zone: UTC}]",
        (
            "freeze[0].until: line 6: is when it begins: nothing could ever enter "
            "(over the week's end is from: fri 16:00, until: mon 08:00)"
        ),
    ),
    (
        "freeze: [{from: fri, until: mon, zone: Berlin}]",
        (
            "freeze[0].zone: line 6: should be a time zone such as Europe/Berlin or UTC, and there is no "
            "Berlin (did you mean Europe/Berlin?)"
        ),
    ),
    (
        "freeze: [{from: fri, until: mon, zone: Europe/Berln}]",
        (
            "freeze[0].zone: line 6: should be a time zone such as Europe/Berlin or UTC, and there is no "
            "Europe/Berln (did you mean Europe/Berlin?)"
        ),
    ),
    (
        "freeze: [{from: fri, until: mon, zone: localtime}]",
        (
            "freeze[0].zone: line 6: should be a time zone such as Europe/Berlin or UTC, and there is no "
            "localtime (a name of the IANA database, such as Europe/Berlin)"
        ),
    ),
    (
        "freeze: [{from: fri, until: mon, zone: ../x}]",
        "freeze[0].zone: line 6: should be a time zone such as Europe/Berlin or UTC, not '../x'",
    ),
    (
        "secrets: [my-key]",
        (
            "secrets: line 6: should be the name of a variable: letters, digits and _, such as LOG_LEVEL, "
            "not 'my-key'"
        ),
    ),
    ("secrets: [A, A]", "secrets: line 6: names A twice"),
    ("secrets: [A, A: file]", "secrets: line 6: names A twice"),
    (
        "secrets: [[A]]",
        (
            "secrets: line 6: should be the name of a variable such as DATABASE_URL, or a list of them, "
            "not a list"
        ),
    ),
    (
        "secrets: [A: s3cr3t]",
        (
            "secrets: line 6: should be file or variable "
            "(the value never stands in this file: `tide secret set` takes it)"
        ),
    ),
    (
        "secrets: {A: s3cr3t}",
        (
            "secrets.A: line 6: should be file or variable "
            "(the value never stands in this file: `tide secret set` takes it)"
        ),
    ),
    (
        "secrets: {A: }",
        (
            "secrets.A: line 6: has no value: it should be file or variable "
            "(the value never stands in this file: `tide secret set` takes it)"
        ),
    ),
    (
        "secrets: [PORT]",
        (
            "secrets: line 6: PORT is set by Tidegate: it is the port that the instance must listen on"
            " (use another name)"
        ),
    ),
    (
        "secrets: {TIDEGATE_X: file}",
        (
            "secrets: line 6: TIDEGATE_X is set by Tidegate: names that begin with TIDEGATE_ are "
            "Tidegate's own (use another name)"
        ),
    ),
    (
        "config: {A: x}, secrets: [A]",
        "secrets: line 6: A stands in config, too (remove it there: what is in this file is no secret)",
    ),
    (
        "config: {A_FILE: x}, secrets: {A: file}",
        (
            "secrets: line 6: A is a file, so that A_FILE is its path, and A_FILE stands in config, too "
            "(use another name)"
        ),
    ),
    (
        "secrets: {A: file, A_FILE: variable}",
        (
            "secrets: line 6: A is a file, so that A_FILE is its path, and A_FILE stands in secrets, too "
            "(use another name)"
        ),
    ),
]


@pytest.mark.parametrize(("written", "expected"), IN_GATES, ids=[written for written, _ in IN_GATES])
def test_mistake_in_a_gate(written: str, expected: str) -> None:
    """One mistake gives exactly one line, with its path, its line and what would be right."""
    assert mistakes(with_environments(f"test: {{{written}}}")) == [f"environments.test.{expected}"]


def test_links_are_no_secrets() -> None:
    """The address of a needed service is Tidegate's own, as in config."""
    text = (
        with_services("api: {run: x}\nweb: {run: x, needs: api}")
        + "environments: {a: {secrets: [API_URL]}}\n"
    )
    assert mistakes(text) == [
        (
            "environments.a.secrets: line 6: API_URL is set by Tidegate: it is the address of api, of the "
            "same release (use another name)"
        )
    ]


def test_secret_in_a_command_is_a_mistake() -> None:
    """It would be in the list of processes; a shell looks it up by itself, and a path is no secret."""
    text = text_of("""
        app: shop
        artifact: {package: dist}
        services:
          api: {run: "./api --db=${URL}", health: {command: ./check $URL $OTHER}}
          web: {run: ./web $KEY_FILE $$URL}
          job: {run: [/bin/sh, -c, 'exec ./job "$URL"']}
        verify: ./smoke $URL
        environments:
          a: {secrets: {URL: variable, KEY: file}, verify: {run: [./smoke, $URL]}}
          b: {secrets: [URL]}
    """)
    said = (
        "names $URL, which is a secret: whoever is on the machine could read it there "
        "(let the program look it up in its environment)"
    )
    assert mistakes(text) == [
        f"services.api.run: line 4: {said}",
        f"services.api.health.command: line 4: {said}",
        f"verify: line 7: {said}",
        f"environments.a.verify: line 9: {said}",
    ]


def test_value_of_a_secret_is_never_repeated() -> None:
    """Somebody who writes the value into the file does not find it in the log of the build."""
    (line,) = mistakes(with_environments("test: {secrets: {A: postgres://u:hunter2@db}}"))
    assert "hunter2" not in line


@pytest.mark.parametrize("key", ["approve", "freeze", "secrets", "soak"])
def test_gates_stand_in_an_environment(key: str) -> None:
    """At the top of the file the message says where they stand."""
    text = f"{with_services('web: {run: x}')}{key}: x\n"
    assert mistakes(text) == [f"{key}: line 5: does not stand here (it stands in an environment)"]


def test_who_has_a_port_is_not_judged_where_services_are_wrong() -> None:
    """A route with a mistake would have been a port: only the mistake is told."""
    text = text_of("""
        app: shop
        artifact: {package: dist}
        services:
          web: {run: x, route: "a b"}
        verify: {smoke: [/up, {path: /, service: web}]}
    """)
    assert [line.split(": line")[0] for line in mistakes(text)] == ["services.web.route"]


def test_checks_at_the_top_of_the_file_are_judged_there() -> None:
    """The path of a mistake is where it was written."""
    text = f"{with_services('web: {run: x}')}verify: {{smoke: [{{path: /, service: wep}}]}}\n"
    assert mistakes(text) == ["verify.smoke[0].service: line 5: there is no service wep (did you mean web?)"]
