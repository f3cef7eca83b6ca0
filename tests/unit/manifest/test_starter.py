"""What `tide init` writes is a file to start with."""

from __future__ import annotations

import pytest

from tidegate import manifest
from tidegate.core.model import CheckKind, StrategyKind
from tidegate.errors import ManifestError


def test_starter_is_valid() -> None:
    """Written as it is, without knowing anything of the folder, the file is valid."""
    parsed = manifest.parse(manifest.example("shop"))
    assert parsed.app == "shop"
    assert [(name, spec.strategy.kind) for name, spec in parsed.environments] == [
        ("test", StrategyKind.SWITCH),
        ("production", StrategyKind.CANARY),
    ]


def test_starter_grows_a_database_by_two_lines() -> None:
    """The comments that speak of migrations are what has to be written, in their places."""
    text = (
        manifest.example("shop").replace("# migrations: ", "migrations: ").replace("# secrets: ", "secrets: ")
    )
    with pytest.raises(ManifestError) as refusal:
        manifest.parse(text)
    (problem,) = refusal.value.problems
    assert problem.message.endswith("test does not say where its database is: it has no DATABASE_URL")
    parsed = manifest.parse(text.replace("  test:\n", "  test:\n    migrations: off\n"))
    (_, test), (_, production) = parsed.environments
    assert (test.migrations, production.migrations and production.migrations.path) == (None, "migrations")


def test_starter_holds_what_was_found() -> None:
    """What a folder told is in the file, unchanged, whatever signs it holds."""
    found = manifest.Detected(
        run='./bin/web: {a} # "x" \\ %s "\U0001f30a\n\x7f"',
        build="make 'dist all'",
        package="out: #1",
        health="/up",
        route="shop.example.com",
    )
    parsed = manifest.parse(manifest.example("shop", found))
    (_, test), (_, production) = parsed.environments
    assert parsed.artifact == manifest.Artifact(build="make 'dist all'", package="out: #1")
    assert production.services[0].run == ("./bin/web:", "{a}", "#", "x", " %s", "\U0001f30a\n\x7f")
    assert (production.services[0].check.kind, production.services[0].check.path) == (CheckKind.HTTP, "/up")
    assert (test.services[0].hosts, production.services[0].hosts) == (
        ("test.shop.example.com",),
        ("shop.example.com",),
    )


def test_starter_for_every_host() -> None:
    """A catch-all for production leaves the test environment a host of its own."""
    parsed = manifest.parse(manifest.example("shop", manifest.Detected(route="*")))
    assert [spec.services[0].hosts for _, spec in parsed.environments] == [("test.localhost",), ("*",)]


def test_starter_is_commented() -> None:
    """Every line that is not obvious has its reason above it, and the commented keys are keys."""
    text = manifest.example("shop")
    assert text.count("#") > 10
    uncommented = (
        text.replace("# build:", "build:").replace("# health:", "health:").replace("# worker:", "worker:")
    )
    uncommented = uncommented.replace("#   run: ./bin/worker", "  run: ./bin/worker")
    (_, spec), *_ = manifest.parse(uncommented).environments
    assert [service.name for service in spec.services] == ["web", "worker"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("shop", "shop"),
        ("My Shop", "my-shop"),
        ("2024_shop.v2", "shop-v2"),
        ("--", "app"),
        ("", "app"),
        ("Größe", "gr-e"),
        ("a" * 60, "a" * 40),
        ("a" * 39 + "-b", "a" * 39),
    ],
)
def test_name_from(folder: str, name: str) -> None:
    """Any folder's name gives a valid name that resembles it."""
    assert manifest.name_from(folder) == name
    assert manifest.parse(manifest.example(manifest.name_from(folder))).app == name
