"""Hostile files: bounded in size, number, depth and time, whatever they hold."""

from __future__ import annotations

import time

import pytest

from tests.unit.manifest.support import mistakes, with_environments, with_services

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
NESTED_ALIASES = (
    "a0: &a0 ["
    + "[" * 10
    + "]" * 10
    + "]\n"
    + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(1_000))
)

HOSTILE = {
    "size": ("x" * ((1 << 20) + 1), "is larger than 1024 KiB"),
    "size in bytes": ("é" * ((1 << 19) + 1), "is larger than 1024 KiB"),
    "depth of lists": ("[" * 500_000, "is nested deeper than 24 levels"),
    "depth of mappings": ("{a: " * 100_000, "is nested deeper than 24 levels"),
    "depth of blocks": ("- " * 100_000, "is nested deeper than 24 levels"),
    "depth through aliases": (NESTED_ALIASES, "is nested deeper than 24 levels"),
    "number": ("a: [" + "x," * 400_000 + "]", "holds more than 20000 values"),
    "number through aliases": (BOMB, "holds more than 20000 values"),
}

MANY = {
    "unknown keys": "".join(f"key{i}: x\n" for i in range(9_000)),
    "wrong services": "services:\n" + "".join(f"  k{i}: v\n" for i in range(9_000)),
    "wrong names": "services:\n" + "".join(f"  K{i}: v\n" for i in range(9_000)),
    "equal keys": "a: x\n" * 9_000,
    "tags": "a: [" + "!!str x," * 9_000 + "]",
    "unknown needs": with_services(
        "\n".join(f"k{i}: {{run: x, needs: [{','.join(f'z{j}' for j in range(45))}]}}" for i in range(190))
    ),
    "circles": with_services("\n".join(f"k{i}: {{run: x, needs: k{i ^ 1}}}" for i in range(200))),
    "one circle": with_services("\n".join(f"k{i}: {{run: x, needs: k{(i + 1) % 200}}}" for i in range(200))),
    "hosts": with_services("\n".join(f"k{i}: {{run: x, route: '*'}}" for i in range(200)))
    + "environments:\n"
    + "".join(f"  e{i}: {{}}\n" for i in range(50)),
    "words": with_services(f"web: {{run: [{'a,' * 15_000}]}}"),
    "one long word": f"app: {'A' * 1_000_000}",
    "one long command": with_services(f"web: {{run: {'a ' * 500_000}}}"),
    "one long quote": with_services(f'web: {{run: "{chr(39) * 500_001}"}}'),
    "one long key": f"{'k' * 1_000_000}: x",
    "one long host": with_services(f"web: {{run: x, route: {'a.' * 500_000}}}"),
    "one long value": with_environments(f"test: {{config: {{A: {'a' * 1_000_000}}}}}"),
}


@pytest.mark.parametrize(("text", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_refused_before_it_costs(text: str, expected: str) -> None:
    """A file over a limit is refused with the limit, in less than a second."""
    began = time.process_time()
    (problem,) = mistakes(text)
    assert expected in problem
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("text", MANY.values(), ids=MANY)
def test_many_mistakes(text: str) -> None:
    """Thousands of mistakes, or huge ones, give a message that can be read, in seconds."""
    began = time.process_time()
    found = mistakes(text)
    assert 1 <= len(found) <= 302
    assert max(len(line) for line in found) < 500
    assert time.process_time() - began < 3.0


def test_what_is_left_out_is_counted() -> None:
    """A hundred mistakes are spelled out, the others counted."""
    found = mistakes("".join(f"key{i}: x\n" for i in range(1_000)))
    assert len(found) == 101
    assert found[-1].endswith("has 903 more mistakes that are not shown (is it the right file?)")


def test_too_many_services() -> None:
    """A file describes at most 200 services."""
    text = with_services("\n".join(f"k{i}: {{run: x}}" for i in range(201)))
    assert mistakes(text) == ["services: line 3: has too many: at most 200"]


def test_too_many_words() -> None:
    """Lists of hosts are bounded."""
    hosts = ", ".join(f"a{i}.example" for i in range(51))
    assert mistakes(with_services(f"web: {{run: x, route: [{hosts}]}}")) == [
        (
            "services.web.route: line 4: "
            "should be a host name such as shop.example.com, or a list of them, at most 50"
        )
    ]
