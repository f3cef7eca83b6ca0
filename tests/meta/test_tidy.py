"""The house style holds in every file, and each rule catches what it is for."""

from __future__ import annotations

import pytest

from tests.meta import ratchet, sources, tidy

DOCSTRING = '"""Hides nothing."""\n'
SHOUT = "TO" + "DO"
HOME = "/ro" + "ot/"
HOST = "pypi" + ".org"


def rules_broken(path: str, text: str) -> dict[str, int]:
    """Rule -> size for one module of made-up source."""
    return {violation.rule: violation.size for violation in tidy.violations(sources.source(path, text))}


def function(lines: int, signature: str = "def f() -> None:") -> str:
    """A documented module with one function of so many body lines."""
    return DOCSTRING + signature + '\n    """Say."""\n' + "    value = 1\n" * lines


def test_every_module_keeps_to_the_style_or_is_in_the_ratchet() -> None:
    """No module breaks a rule of the style, except as ratchet.json says, to the line."""
    found: dict[str, int] = {}
    hints: dict[str, str] = {}
    for source in sources.python_sources():
        for violation in tidy.violations(source):
            found[violation.key] = max(violation.size, found.get(violation.key, 0))
            hints[violation.key] = violation.hint
    problems = [
        f"{problem}\n    {hints.get(problem.partition(' = ')[0], '')}"
        for problem in ratchet.problems(found, ratchet.load().tidy)
    ]
    assert not problems, "\n" + "\n".join(problems)


def test_no_text_file_names_a_machine_or_a_registry() -> None:
    """Prose, settings and templates too are free of unfinished business, machine paths and registry hosts."""
    found = [str(hit) for path, text in sources.texts() for hit in tidy.forbidden_text(path, text)]
    assert not found, "\n" + "\n".join(found)


def test_a_tidy_module_breaks_no_rule() -> None:
    """A documented module with a short function is left alone."""
    assert rules_broken("src/tidegate/thing.py", function(60)) == {}


def test_a_long_function_is_caught_by_its_body_lines() -> None:
    """Line 61 of a body is one too many, and docstring and signature do not count."""
    assert rules_broken("src/tidegate/thing.py", function(61)) == {"function-lines": 61}


def test_a_long_method_inside_a_class_is_caught_by_its_dotted_name() -> None:
    """A method is named with its class, so that the ratchet can tell two apart."""
    text = DOCSTRING + "class Gate:\n    def close(self) -> None:\n" + "        value = 1\n" * 61
    (violation,) = tidy.violations(sources.source("src/tidegate/thing.py", text))
    assert violation.key == "src/tidegate/thing.py::Gate.close function-lines"


@pytest.mark.parametrize(
    "signature",
    [
        "def f(a, b, c, d, e, f, g) -> None:",
        "def f(a, /, b, c, *, d, e, f, g) -> None:",
        "async def f(a, b, c, d, e, *f, **g) -> None:",
    ],
)
def test_a_seventh_parameter_is_caught_however_it_is_passed(signature: str) -> None:
    """Positional, keyword-only and starred parameters count alike."""
    assert rules_broken("src/tidegate/thing.py", function(1, signature)) == {"parameters": 7}


def test_self_is_no_parameter() -> None:
    """A method may have six parameters beside self."""
    text = DOCSTRING + "class Gate:\n    def close(self, a, b, c, d, e, f) -> None:\n        pass\n"
    assert rules_broken("src/tidegate/thing.py", text) == {}


def test_a_long_module_is_caught() -> None:
    """Line 601 of a module is one too many."""
    assert rules_broken("src/tidegate/thing.py", DOCSTRING + "value = 1\n" * 600) == {"module-lines": 601}


def test_a_module_without_docstring_is_caught() -> None:
    """Also an empty module says what it is for."""
    assert rules_broken("src/tidegate/thing.py", "") == {"module-docstring": 1}


def test_an_empty_file_that_only_makes_a_test_folder_a_package_needs_no_docstring() -> None:
    """CONTRIBUTING.md says what the folders of tests are for; code in such a file must say what it is."""
    assert rules_broken("tests/unit/__init__.py", "") == {}
    assert rules_broken("tests/unit/__init__.py", "value = 1\n") == {"module-docstring": 1}


@pytest.mark.parametrize(
    ("docstring", "accepted"),
    [
        ("A gate shuts.", True),
        ("A gate shuts when the numbers\n    turn.\n\n    Why so: Nobody watches. See traffic.md.", True),
        ("A gate shuts", False),
        ("A gate shuts. It opens again.", False),
        ("", False),
    ],
)
def test_the_sentence_of_a_test_is_one_sentence(docstring: str, *, accepted: bool) -> None:
    """A test's docstring starts with exactly one sentence."""
    text = f'{DOCSTRING}def test_gate() -> None:\n    """{docstring}"""\n    assert 1\n'
    assert rules_broken("tests/unit/test_thing.py", text) == ({} if accepted else {"test-sentence": 1})


def test_a_test_without_docstring_is_caught_also_in_a_class() -> None:
    """Methods of test classes need their sentence too."""
    text = DOCSTRING + "class TestGate:\n    def test_shuts(self) -> None:\n        assert 1\n"
    assert rules_broken("tests/unit/test_thing.py", text) == {"test-sentence": 1}


def test_helpers_of_tests_need_no_sentence() -> None:
    """Only what pytest runs states a behaviour."""
    text = DOCSTRING + "def make_gate() -> None:\n    assert 1\n"
    assert rules_broken("tests/unit/test_thing.py", text) == {}


@pytest.mark.parametrize(
    "code",
    [
        "from unittest.mock import patch",
        "from unittest import mock\nmock.patch('a.b')",
        "import unittest.mock\nunittest.mock.patch.object(a, 'b')",
        "def f(mocker):\n    mocker.patch('a.b')",
    ],
)
def test_patching_is_caught_in_every_spelling(code: str) -> None:
    """A patch pins the code instead of the behaviour, so none is let through."""
    assert "patching" in rules_broken("tests/unit/helper.py", DOCSTRING + code)


def test_an_http_patch_is_no_patching() -> None:
    """The method of a client with the same name is left alone."""
    assert rules_broken("tests/unit/helper.py", DOCSTRING + "client.patch('/x')") == {}


def test_a_shell_is_caught_and_its_absence_is_not() -> None:
    """Only a literal False lets `shell` pass."""
    assert rules_broken("src/tidegate/thing.py", DOCSTRING + "run(a, shell=True)") == {"shell": 1}
    assert rules_broken("src/tidegate/thing.py", DOCSTRING + "run(a, shell=flag)") == {"shell": 1}
    assert rules_broken("src/tidegate/thing.py", DOCSTRING + "run(a, shell=False)") == {}


@pytest.mark.parametrize(
    ("path", "size"),
    [
        ("src/tidegate/engine/loop.py", 2),
        ("src/tidegate/client.py", 2),
        ("src/tidegate/cli.py", 0),
        ("src/tidegate/cli/status.py", 0),
        ("src/tidegate/demo/shop.py", 0),
        ("bench/routing.py", 0),
    ],
)
def test_print_is_for_the_terminal_only(path: str, size: int) -> None:
    """Prints are counted everywhere in src but in the command line and the demo."""
    found = rules_broken(path, DOCSTRING + "print(1)\nprint(2)\n")
    assert found == ({"print": size} if size else {})


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        (f"# {SHOUT}: later", "unfinished"),
        (f"open('{HOME}.ssh/key')", "machine-path"),
        (f"index = 'https://{HOST}/simple'", "registry-host"),
    ],
)
def test_forbidden_text_is_caught_in_code_and_prose(line: str, rule: str) -> None:
    """Unfinished business, machine paths and registry hosts are found wherever they stand."""
    assert rules_broken("src/tidegate/thing.py", f"{DOCSTRING}{line}\n") == {rule: 1}
    assert [hit.rule for hit in tidy.forbidden_text("docs/page.md", line)] == [rule]


@pytest.mark.parametrize("line", ["the net/work/ layer", "f'{folder}/root/bin'", "TODOS are a noun here"])
def test_text_that_only_looks_forbidden_is_left_alone(line: str) -> None:
    """Parts of longer paths and words are no violation."""
    assert not list(tidy.forbidden_text("docs/page.md", line))


def test_nested_functions_are_measured_with_their_own_name() -> None:
    """A closure is a function too, also inside an if."""
    text = DOCSTRING + "def f():\n    if 1:\n        def g(a, b, c, d, e, f, h):\n            pass\n"
    (violation,) = tidy.violations(sources.source("src/tidegate/thing.py", text))
    assert violation.symbol == "f.g"
