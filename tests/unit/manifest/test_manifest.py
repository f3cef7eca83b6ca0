"""What a valid file means: defaults, overrides, order."""

from __future__ import annotations

import pathlib

import pytest

from tests.unit.manifest.support import text_of, with_environments, with_services
from tidegate import manifest
from tidegate.core import strategy
from tidegate.core.model import (
    Check,
    CheckKind,
    EnvironmentSpec,
    Limits,
    ServiceSpec,
    Stage,
    Strategy,
    UserIdentity,
)
from tidegate.errors import ManifestError, NotFoundError, StorageError

CANARY = strategy.canary(tuple(Stage(exposure_bps=bps, hold_s=120.0) for bps in (100, 500, 2_500, 5_000)))


def service(text: str, name: str = "web", environment: str = "production") -> ServiceSpec:
    """One service of one environment of the file."""
    found = manifest.parse(text).environment(environment)
    assert found is not None
    resolved = found.service(name)
    assert resolved is not None
    return resolved


def strategies(text: str) -> dict[str, Strategy]:
    """The strategy of each environment."""
    return {name: spec.strategy for name, spec in manifest.parse(text).environments}


def test_smallest_file() -> None:
    """With only what must be there, everything else is the core's default, in one environment, production."""
    text = with_services("web: {run: ./web}")
    parsed = manifest.parse(text)
    assert parsed == manifest.Manifest(
        app="shop",
        artifact=manifest.Artifact(build=None, package="dist"),
        environments=(
            (
                "production",
                EnvironmentSpec(
                    services=(
                        ServiceSpec(
                            name="web", run=("./web",), serves=False, check=Check(kind=CheckKind.ALIVE)
                        ),
                    ),
                    strategy=CANARY,
                ),
            ),
        ),
        source=text,
    )


def test_everything_written() -> None:
    """Every key of a service arrives in its field, in the unit of the field."""
    text = with_services("""
        web:
          run: ./web --motto "two words" $PORT
          route: [A.example, b.example]
          health: {path: /up, interval: 500ms, timeout: 5s, deadline: 1.5m}
          instances: 3
          needs: api
          user_by: address
          limits: {memory: 1.5GiB, cpus: 0.5, processes: 7, open_files: 99}
          drain: 1h
          grace: 0s
        api: {run: x}
    """)
    assert service(text) == ServiceSpec(
        name="web",
        run=("./web", "--motto", "two words", "$PORT"),
        serves=True,
        check=Check(kind=CheckKind.HTTP, path="/up", interval_s=0.5, timeout_s=5.0),
        instances=3,
        needs=("api",),
        hosts=("a.example", "b.example"),
        identity=UserIdentity.ADDRESS,
        limits=Limits(memory_bytes=3 << 29, cpus=0.5, processes=7, open_files=99),
        ready_timeout_s=90.0,
        drain_s=3_600.0,
        grace_s=0.0,
    )


@pytest.mark.parametrize(
    ("written", "serves", "kind"),
    [
        ("run: x", False, CheckKind.ALIVE),
        ("run: x, health: {interval: 2s}", False, CheckKind.ALIVE),
        ("run: x, health: {command: ./check}", False, CheckKind.COMMAND),
        ("run: x, health: {command: [./check, now]}, port: true", True, CheckKind.COMMAND),
        ("run: x, port: true", True, CheckKind.TCP),
        ("run: x, route: a.example", True, CheckKind.TCP),
        ("run: x, health: {tcp: true}", True, CheckKind.TCP),
        ("run: x, health: /up", True, CheckKind.HTTP),
        ("run: x, route: '*', health: {path: /up}", True, CheckKind.HTTP),
    ],
)
def test_port_and_check(written: str, serves: bool, kind: CheckKind) -> None:
    """A service has a port if anybody can have a reason to call it; it is the check if none is written."""
    web = service(with_services(f"web: {{{written}}}"))
    assert (web.serves, web.check.kind) == (serves, kind)


def test_a_needed_service_has_a_port() -> None:
    """What another service needs gets a port, though nothing else says so."""
    api = service(with_services("web: {run: x, needs: api}\napi: {run: x}"), "api")
    assert (api.serves, api.check.kind) == (True, CheckKind.TCP)


def test_a_route_in_one_environment_gives_a_port_in_all() -> None:
    """Whether a service has a port is the same in every environment."""
    text = with_environments("test: {}\nproduction: {services: {web: {route: a.example}}}")
    assert service(text, environment="test").serves
    assert service(text, environment="test").hosts == ()
    assert service(text).hosts == ("a.example",)


def test_dependency_order() -> None:
    """Services stand after all that they need, else in the order of the file."""
    text = with_services("""
        web: {run: x, needs: [cart, api]}
        mail: {run: x}
        cart: {run: x, needs: api}
        api: {run: x}
    """)
    (_, spec), *_ = manifest.parse(text).environments
    assert [service.name for service in spec.services] == ["mail", "api", "cart", "web"]


def test_overrides() -> None:
    """An environment's own value wins, limits one by one; nothing leaks into the next environment."""
    text = with_services("web: {run: x, route: a.example, instances: 4, limits: {memory: 1GB, cpus: 2}}")
    text += "environments: {test: {services: {web: {route: [], instances: 1, limits: {cpus: 1}}}}, live: {}}"
    test, live = service(text, environment="test"), service(text, environment="live")
    assert (test.hosts, test.instances) == ((), 1)
    assert test.limits == Limits(memory_bytes=10**9, cpus=1.0)
    assert (live.hosts, live.instances) == (("a.example",), 4)
    assert live.limits == Limits(memory_bytes=10**9, cpus=2.0)


def test_config_keeps_the_text() -> None:
    """Configured values are the text of the file, sorted by name: no guess of YAML's changes them."""
    text = with_environments("""
        test:
          config:
            Z: no
            Y: 1.10
            X: 010
            W: 1_000
            V: 12:30:00
            U: 2024-01-01
            T: "quoted no"
            S: ''
            R: 0x1F
            Q: true
            P: 1e3
            O: "~"
    """)
    spec = manifest.parse(text).environment("test")
    assert spec is not None
    assert spec.config == (
        ("O", "~"),
        ("P", "1e3"),
        ("Q", "true"),
        ("R", "0x1F"),
        ("S", ""),
        ("T", "quoted no"),
        ("U", "2024-01-01"),
        ("V", "12:30:00"),
        ("W", "1_000"),
        ("X", "010"),
        ("Y", "1.10"),
        ("Z", "no"),
    )


def test_words_that_yaml_takes_for_something_else() -> None:
    """Names and arguments that YAML 1.1 would turn into truths and numbers stay words."""
    text = text_of("""
        app: no
        artifact: {package: on}
        services:
          off: {run: [sleep, 010, yes]}
        environments: {y: {}}
    """)
    parsed = manifest.parse(text)
    assert (parsed.app, parsed.artifact.package) == ("no", "on")
    assert service(text, "off", "y").run == ("sleep", "010", "yes")


@pytest.mark.parametrize(
    ("environments", "canaries"),
    [
        ("production: {}", {"production"}),
        ("test: {}", {"test"}),
        ("test: {}\nstaging: {}\nproduction: {}", {"production"}),
        ("test: {}\nlive: {}", {"live"}),
        ("prod: {}\ndemo: {}", {"prod", "demo"}),
        ("production: {}\ndemo: {strategy: switch}", {"production"}),
    ],
)
def test_default_strategy(environments: str, canaries: set[str]) -> None:
    """Without a word, users are protected: a canary in the last environment and in production."""
    found = strategies(with_environments(environments))
    assert {name for name, chosen in found.items() if chosen == CANARY} == canaries
    assert all(chosen == strategy.SWITCH for name, chosen in found.items() if name not in canaries)


def test_written_strategies() -> None:
    """Short and long forms of a strategy mean the same; a step may have its own hold."""
    found = strategies(
        with_environments("""
            a: {strategy: canary}
            b: {strategy: {canary: {}}}
            c: {strategy: {canary: {every: manual}}}
            d: {strategy: {canary: {steps: [0.01%, {share: 12.5%}, {share: 99.99%, hold: 1h}], every: 10m}}}
            e: {strategy: {canary: {steps: [{share: 5%, hold: manual}]}}}
        """)
    )
    assert found["a"] == found["b"] == CANARY
    assert {stage.hold_s for stage in found["c"].stages[:-1]} == {None}
    assert found["d"] == strategy.canary(
        (
            Stage(exposure_bps=1, hold_s=600.0),
            Stage(exposure_bps=1_250, hold_s=600.0),
            Stage(exposure_bps=9_999, hold_s=3_600.0),
        )
    )
    assert found["e"] == strategy.canary((Stage(exposure_bps=500, hold_s=None),))


def test_sections_with_nothing_in_them() -> None:
    """A key below which all lines are commented out is a section without keys."""
    text = with_environments("test:\nproduction:\n  config:\n  services:\n    web:\n      limits:\n")
    assert [name for name, _ in manifest.parse(text).environments] == ["test", "production"]


def test_aliases() -> None:
    """A whole value may be used twice."""
    text = with_environments("test: {config: &shared {A: x}}\nproduction: {config: *shared}")
    assert [spec.config for _, spec in manifest.parse(text).environments] == [(("A", "x"),)] * 2


def test_build() -> None:
    """A build command is the line that the user's shell will run, as it is written."""
    text = with_services("web: {run: x}").replace(
        "package: dist", "package: ./a//b/, build: make 'my x' && true"
    )
    assert manifest.parse(text).artifact == manifest.Artifact(build="make 'my x' && true", package="a/b")


@pytest.mark.parametrize("written", ["''", "'  '", "[make]", '"a\\0b"'])
def test_build_that_is_none(written: str) -> None:
    """A build command is one line that a shell can take."""
    text = with_services("web: {run: x}").replace("package: dist", f"package: ., build: {written}")
    with pytest.raises(ManifestError, match=r"artifact\.build: line 2: .*should be a command line"):
        manifest.parse(text)


def test_quoted_shell_signs_are_words() -> None:
    """A sign of the shell in quotes is an argument."""
    assert service(with_services("""web: {run: "awk -F '|' x"}""")).run == ("awk", "-F", "|", "x")


def test_load(tmp_path: pathlib.Path) -> None:
    """A file is read as UTF-8, with or without a byte order mark."""
    path = tmp_path / "tidegate.yaml"
    text = with_services("web: {run: ./wéb}")
    path.write_text(text, encoding="utf-8-sig")
    (_, spec), *_ = manifest.load(path).environments
    assert spec.services[0].run == ("./wéb",)


def test_load_what_is_not_there(tmp_path: pathlib.Path) -> None:
    """A missing file is the caller's fault, and says what to do."""
    with pytest.raises(NotFoundError, match=r"tidegate\.yaml.*`tide init` writes one"):
        manifest.load(tmp_path / "tidegate.yaml")


def test_load_what_cannot_be_read(tmp_path: pathlib.Path) -> None:
    """A folder in place of the file is not a mistake in a manifest."""
    with pytest.raises(StorageError, match="cannot be read"):
        manifest.load(tmp_path)


def test_load_other_bytes(tmp_path: pathlib.Path) -> None:
    """Bytes that are no text are refused with their line."""
    path = tmp_path / "tidegate.yaml"
    path.write_bytes(b"app: shop\n# caf\xe9\n")
    with pytest.raises(ManifestError, match="line 2: holds a byte that is not UTF-8"):
        manifest.load(path)


def test_load_too_much(tmp_path: pathlib.Path) -> None:
    """A file over the limit is refused; a letter cut at the limit is no mistake of its own."""
    path = tmp_path / "tidegate.yaml"
    path.write_text("x" + "é" * (1 << 20))
    with pytest.raises(ManifestError, match="is larger than 1024 KiB"):
        manifest.load(path)
