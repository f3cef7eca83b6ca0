"""Any text is either a manifest or a ManifestError; any valid file means exactly what it says."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.manifest.schema_check import accepts
from tidegate import manifest
from tidegate.core import spec
from tidegate.core.model import FULL_EXPOSURE, CheckKind, EnvironmentSpec, StrategyKind
from tidegate.errors import ManifestError, Problem

SCHEMA = manifest.json_schema()

# --- anything ------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        "app",
        "artifact",
        "services",
        "environments",
        "build",
        "package",
        "run",
        "route",
        "health",
        "instances",
        "needs",
        "port",
        "user_by",
        "limits",
        "drain",
        "grace",
        "path",
        "tcp",
        "command",
        "interval",
        "timeout",
        "deadline",
        "memory",
        "cpus",
        "strategy",
        "canary",
        "steps",
        "every",
        "share",
        "hold",
        "keep_warm",
        "config",
        "analysis",
        "margin",
        "max_p99",
        "secrets",
        "verify",
        "smoke",
        "service",
        "soak",
        "approve",
        "roles",
        "freeze",
        "from",
        "until",
        "zone",
        "migrations",
        "database",
        "contract_after",
        "image",
        "<<",
        "web",
        "api",
        "production",
        "*",
    ]
) | st.text(max_size=8)
VALUES = st.sampled_from(
    [
        *("x", "~", "no", "1", "0.5%", "30s", "512MB", "*", "/up", "switch", "manual", "true", "web"),
        *("a b && c", "off", "fri 16:00", "mon", "2026-12-20 16:00", "2026-12-20", "UTC", "file", "admin"),
    ]
) | st.text(max_size=12)
TREES = st.recursive(
    VALUES | st.integers() | st.floats() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)
SIGNS = st.text(alphabet="abx:-?[]{},&*!|>'\"%@`#~<\n\t \\0.", max_size=200)


def _problems(text: str) -> tuple[Problem, ...]:
    """None: it is a manifest."""
    try:
        manifest.parse(text)
    except ManifestError as error:
        return error.problems
    return ()


def _refused_or_read(text: str) -> None:
    began = time.process_time()
    for problem in _problems(text):
        assert problem.path
        assert problem.message.startswith("line ")
        assert "Input should" not in str(problem)
        assert str(problem).isprintable()
    assert time.process_time() - began < 2.0


@given(st.text() | SIGNS)
@example("a: &a [*a]")
@example("\ufeff")
@example("? ")
@example("%YAML 9.9\n---\na: b")
@example("&a a: *a")
def test_any_text(text: str) -> None:
    """Whatever the text, nothing but a ManifestError comes out, soon, and it can be printed."""
    _refused_or_read(text)


@given(st.dictionaries(KEYS, TREES, max_size=6))
def test_any_tree(tree: dict[str, Any]) -> None:
    """Keys of the manifest with values of any kind, in any place, are refused in words or read."""
    _refused_or_read(yaml.safe_dump(tree, allow_unicode=True, sort_keys=False))


def _json(file: Any) -> str:
    return json.dumps(file, ensure_ascii=False)


# --- valid files ---------------------------------------------------------------------------------

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
VARIABLES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: (
        name != "PORT" and not name.startswith(("TIDEGATE_", "SECRET_")) and not name.endswith("_URL")
    )
)
SECRETS = st.from_regex(r"SECRET_[A-Z]{1,8}", fullmatch=True)
# JSON is YAML but for half letters, which it writes for those beyond 16 bits, and raw control characters.
TEXTS = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"], include_characters="\n\t", exclude_characters="\ufeff\ufffe\uffff"
    ),
    max_size=20,
)
WORDS = st.lists(TEXTS, max_size=4).map(lambda words: ["./run", *words])
DURATIONS = st.tuples(st.integers(0, 300), st.sampled_from(["ms", "s", "m", "h", "d"])).map(
    lambda pair: f"{pair[0]}{pair[1]}"
)
HEALTHS = st.sampled_from(
    ["/up", {"path": "/up?x=1"}, {"tcp": True}, {"command": "./check now"}, {"deadline": "3m"}]
)
LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "memory": st.integers(1, 4_000).map("{}MB".format),
        "cpus": st.integers(1, 64),
        "processes": st.integers(1, 1_000),
        "open_files": st.integers(1, 1_000),
    },
)
ANALYSES = st.sampled_from(["on", "off"]) | st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "false_abort": st.integers(1, 50).map("{}%".format),
        "margin": st.integers(1, 100),
        "allowance": st.integers(0, 99).map("{}%".format),
        "latency_margin": st.integers(10, 1_000).map(lambda tenths: tenths / 10),
        "max_error_share": st.just("off") | st.integers(1, 99).map("{}%".format),
        "max_p99": st.just("off") | st.integers(1, 120).map("{}s".format),
        "overdue": st.just("auto") | st.integers(1, 86_400).map("{}s".format),
        "promote_early": st.booleans(),
        "soak": DURATIONS,
        "on_little_evidence": st.sampled_from(["go-on", "wait", "ask"]),
        "warmup": DURATIONS,
        "warmup_requests": st.integers(0, 1_000),
    },
)
MINUTES = st.integers(0, 1439).map(lambda minutes: f"{minutes // 60}:{minutes % 60:02}")
DAYS = st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])
MOMENTS = st.one_of(
    st.tuples(st.builds("{} {}".format, DAYS, MINUTES), st.builds("{} {}".format, DAYS, MINUTES)).filter(
        lambda pair: pair[0] != pair[1]
    ),
    st.tuples(MINUTES, MINUTES).map(lambda pair: (f"2026-02-28 {pair[0]}", f"2026-03-01 {pair[1]}")),
)
FREEZES = st.builds(
    lambda pair, zone, why: {"from": pair[0], "until": pair[1], "zone": zone, "why": why},
    MOMENTS,
    st.sampled_from(["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"]),
    st.text("abc ", max_size=9),
)
GATES: dict[str, st.SearchStrategy[Any]] = {
    "verify": st.just("off")
    | WORDS
    | st.fixed_dictionaries({"run": WORDS}, optional={"timeout": st.sampled_from(["100ms", "5m", "1d"])}),
    "soak": DURATIONS,
    "approve": st.just("manual")
    | st.fixed_dictionaries(
        {},
        optional={
            "count": st.integers(1, 20),
            "roles": st.sampled_from(["approver", "admin", ["admin", "approver"]]),
            "expires": st.integers(1, 365).map("{}d".format),
            "not_by_requester": st.booleans(),
        },
    ),
    "freeze": st.lists(FREEZES, max_size=3),
    "secrets": st.lists(SECRETS, max_size=4, unique=True)
    | st.dictionaries(SECRETS, st.sampled_from(["file", "variable"]), max_size=4),
}
#: No secret and no variable of the strategies above is called so.
DATABASES = st.sampled_from(["DATABASE_URL", "SHOP_URL"])
PLANS = {"contract_after": DURATIONS, "hold": st.integers(1, 60).map("{}s".format)}
MIGRATIONS = st.sampled_from(["migrations/", "db"]) | st.fixed_dictionaries(
    {"path": st.sampled_from(["migrations/", "a/b"])}, optional={"database": DATABASES, **PLANS}
)
MIGRATIONS_HERE = st.just("off") | st.fixed_dictionaries(
    {}, optional={"run": st.booleans(), "database": DATABASES, **PLANS}
)
SHARES = st.lists(st.integers(1, FULL_EXPOSURE - 1), min_size=1, max_size=5, unique=True).map(sorted)


@st.composite
def steps(draw: st.DrawFn) -> list[Any]:
    """Growing shares, short and long."""
    written: list[Any] = [f"{share / 100:g}%" for share in draw(SHARES)]
    return [
        {"share": share, "hold": draw(DURATIONS | st.just("manual"))} if draw(st.booleans()) else share
        for share in written
    ]


@st.composite
def services(draw: st.DrawFn) -> dict[str, Any]:
    """Services that need only later ones, then shuffled."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    written = {}
    for index, name in enumerate(names):
        written[name] = {
            "run": draw(WORDS),
            **draw(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "health": HEALTHS,
                        "instances": st.integers(1, 100),
                        "needs": st.lists(st.sampled_from(names[index + 1 :] or ["-"]), unique=True).map(
                            lambda needs: [need for need in needs if need != "-"]
                        ),
                        "user_by": st.sampled_from(["cookie", "address"]),
                        "limits": LIMITS,
                        "drain": DURATIONS,
                        "grace": DURATIONS,
                        "port": st.just(True),
                    },
                )
            ),
        }
    return {name: written[name] for name in draw(st.permutations(names))}


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Valid manifests, with a host of its own for each service in each environment."""
    written = draw(services())
    environments: dict[str, Any] = {}
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        environments[name] = draw(
            st.fixed_dictionaries(
                {
                    "services": st.just(
                        {service: {"route": f"x{service}x.x{name}x.example"} for service in written}
                    )
                },
                optional={
                    "strategy": st.sampled_from(["switch", "canary"])
                    | st.fixed_dictionaries({"steps": steps()}, optional={"every": DURATIONS}).map(
                        lambda canary: {"canary": canary}
                    ),
                    "keep_warm": DURATIONS,
                    "analysis": ANALYSES,
                    "config": st.dictionaries(VARIABLES, TEXTS, max_size=4),
                    **GATES,
                },
            )
        )
    whole = {
        "app": draw(NAMES),
        "artifact": {"package": "dist"},
        "services": written,
        "environments": environments,
        "analysis": draw(ANALYSES),
    }
    return draw(with_databases(whole))


@st.composite
def with_databases(draw: st.DrawFn, whole: dict[str, Any]) -> dict[str, Any]:
    """Perhaps with migrations: environments may say what is different, and all know both databases."""
    written = draw(st.none() | MIGRATIONS)
    if written is None or not whole["environments"]:
        return whole
    for section in whole["environments"].values():
        section["config"] = section.get("config", {}) | {"DATABASE_URL": draw(TEXTS)}
        secrets = section.get("secrets", [])
        section["secrets"] = (
            [*secrets, "SHOP_URL"] if isinstance(secrets, list) else secrets | {"SHOP_URL": "variable"}
        )
        if draw(st.booleans()):
            section["migrations"] = draw(MIGRATIONS_HERE)
    return whole | {"migrations": written}


@given(files())
def test_valid_files_mean_what_they_say(file: dict[str, Any]) -> None:
    """What was written is in every environment, in dependency order; the editors' schema agrees."""
    text = _json(file)
    parsed = manifest.parse(text)
    assert accepts(SCHEMA, file)
    assert parsed.app == file["app"]
    assert [name for name, _ in parsed.environments] == list(file["environments"] or {"production": {}})
    for name, environment in parsed.environments:
        written = file["environments"].get(name, {})
        assert dict(environment.config) == written.get("config", {})
        assert list(environment.config) == sorted(environment.config)
        assert {service.name for service in environment.services} == set(file["services"])
        assert environment.analysis.enabled == _judged(written.get("analysis", {}), file["analysis"])
        _services_as_written(environment, file["services"])
        _gates_as_written(environment, written)
        _migrations_as_written(environment, written.get("migrations", {}), file.get("migrations"))
        _ends_with_everybody(environment)


def _judged(*places: Any) -> bool:
    """Whether a canary is judged: by the first of these places that says so."""
    for written in places:
        if written in ("on", "off"):
            return bool(written == "on")
        if "enabled" in written:
            return bool(written["enabled"])
    return True


def _services_as_written(environment: EnvironmentSpec, written: dict[str, Any]) -> None:
    seen: set[str] = set()
    for service in environment.services:
        said = written[service.name]
        assert set(service.needs) <= seen
        assert service.run == tuple(said["run"])
        assert service.instances == said.get("instances", 1)
        assert service.identity == said.get("user_by", "cookie")
        assert service.serves or service.check.kind in (CheckKind.ALIVE, CheckKind.COMMAND)
        assert all(environment.service(need) for need in service.needs)
        assert all(needed.serves for need in service.needs if (needed := environment.service(need)))
        seen.add(service.name)


def _gates_as_written(environment: EnvironmentSpec, written: dict[str, Any]) -> None:
    verify = written.get("verify", "off")
    if verify == "off":
        assert environment.verify is None
    else:
        assert environment.verify is not None
        assert environment.verify.run == tuple(verify if isinstance(verify, list) else verify["run"])
    assert (environment.approvals is not None) is ("approve" in written)
    assert [freeze.zone for freeze in environment.freezes] == [f["zone"] for f in written.get("freeze", [])]
    assert all((freeze.weekly is None) is (freeze.dates is not None) for freeze in environment.freezes)
    secrets = written.get("secrets", {})
    files = {name for name, form in secrets.items() if form == "file"} if isinstance(secrets, dict) else set()
    assert [use.name for use in environment.secrets] == sorted(secrets)
    assert {use.name for use in environment.secrets if use.as_file} == files


def _migrations_as_written(environment: EnvironmentSpec, here: Any, everywhere: Any) -> None:
    use = environment.migrations
    if everywhere is None or here == "off" or not here.get("run", True):
        assert use is None
        return
    assert use is not None
    wanted = {"database": "DATABASE_URL", "hold": "15s", "contract_after": "24h"}
    wanted |= {"path": everywhere} if isinstance(everywhere, str) else everywhere
    wanted |= here
    assert use.path == wanted["path"].removesuffix("/")
    assert (use.database, f"{use.hold_s}s") == (wanted["database"], wanted["hold"])
    assert use.contract_after_s == pytest.approx(_seconds(wanted["contract_after"]))


def _seconds(duration: str) -> float:
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
    number = duration.rstrip("msdh")
    return int(number) * units[duration[len(number) :]]


def _ends_with_everybody(environment: EnvironmentSpec) -> None:
    shares = [stage.exposure_bps for stage in environment.strategy.stages]
    assert shares[-1] == FULL_EXPOSURE
    assert shares == sorted(set(shares))
    assert (len(shares) == 1) == (environment.strategy.kind is StrategyKind.SWITCH)


@given(files())
def test_the_style_of_writing_does_not_matter(file: dict[str, Any]) -> None:
    """A file in block style, with comments, is the same manifest as its JSON."""
    block = yaml.safe_dump(file, sort_keys=False, allow_unicode=True, indent=4)
    assert manifest.parse(f"# a comment\n{block}").environments == manifest.parse(_json(file)).environments


@given(files(), st.data())
def test_one_mistake_is_one_line(file: dict[str, Any], data: st.DataObject) -> None:
    """An unknown key anywhere in a valid file is reported, alone, at its place; so does the schema."""
    places = [(), ("artifact",), *(("services", name) for name in file["services"])]
    where = data.draw(st.sampled_from([*places, *(("environments", name) for name in file["environments"])]))
    section: Any = file
    for key in where:
        section = section[key]
    section["surprise"] = data.draw(TEXTS | st.lists(TEXTS) | st.integers() | st.dictionaries(NAMES, TEXTS))
    with pytest.raises(ManifestError) as refusal:
        manifest.parse(_json(file))
    assert [problem.path for problem in refusal.value.problems] == [".".join([*where, "surprise"])]
    assert not accepts(SCHEMA, file)


# --- rules ---------------------------------------------------------------------------------------

GRAPHS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.lists(st.sampled_from("abcdefghi"), max_size=3, unique=True).map(tuple)
)


@given(GRAPHS)
def test_order_or_circles(needs: dict[str, tuple[str, ...]]) -> None:
    """Either every name has its place after its needs, or there is a circle that says why not."""
    without_self = {name: tuple(other for other in others if other != name) for name, others in needs.items()}
    order = spec.dependency_order(without_self)
    for index, name in enumerate(order):
        assert all(other in order[:index] for other in without_self[name] if other in without_self)
    circles = spec.cycles(needs)
    assert (len(order) == len(needs)) == (circles == ())
    for circle in circles:
        assert all(
            after in needs[before] for before, after in zip(circle, (*circle[1:], circle[0]), strict=True)
        )
    named = [name for circle in circles for name in circle]
    assert len(named) == len(set(named))
