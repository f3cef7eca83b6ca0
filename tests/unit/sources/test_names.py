"""Names of refs, addresses of remotes and of forges: what is taken, and what never gets further."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate import errors
from tidegate.pushes import Source
from tidegate.sources import refs, remotes

HOSTILE_REFS = (
    "refs/heads/",
    "refs/heads/-x",
    "refs/heads/a/-b",
    "refs/heads/.git",
    "refs/heads/a..b",
    "refs/heads/a b",
    "refs/heads/a\nb",
    "refs/heads/a\x1b[2J",
    "refs/heads/a\u202eb",
    "refs/heads/a~1",
    "refs/heads/a^{}",
    "refs/heads/a:b",
    "refs/heads/a\\b",
    "refs/heads/a*",
    "refs/heads/@{u}",
    "refs/heads/a.lock",
    "refs/heads/a/",
    "refs/heads/a//b",
    "refs/heads/" + "x" * 300,
    "refs/tidegate/keep/" + "0" * 40,
    "refs/replace/" + "0" * 40,
    "refs/notes/commits",
    "HEAD",
    "main",
    "--upload-pack=x",
    "refs/heads/\udcff",
)


@pytest.mark.parametrize("ref", HOSTILE_REFS, ids=ascii)
def test_hostile_ref_is_refused(ref: str) -> None:
    """A name that could be an option, a path, an expression or a trick of the terminal is not taken."""
    assert refs.trouble(ref)
    assert not refs.is_meant(Source(app="shop", branches=("*",), tags=("*",)), ref)


@pytest.mark.parametrize(
    "name", ["main", "feature/a-b_c", "fix#12", "release/1.2", "v1+2", "a@b", "größe", "$(id)"]
)
def test_usual_name_is_taken(name: str) -> None:
    """Names that people use are taken, and those that only a shell would mind: none ever sees them."""
    assert refs.trouble(f"refs/heads/{name}") == ""


@given(st.text(max_size=60))
def test_what_is_taken_is_printable(name: str) -> None:
    """No name that is taken has a character that drives a terminal or hides the direction of text."""
    if not refs.trouble(f"refs/heads/{name}"):
        assert name.isprintable()
        assert not name.startswith("-")


@pytest.mark.parametrize(
    ("ref", "meant"),
    [
        ("refs/heads/main", True),
        ("refs/heads/release/1", True),
        ("refs/heads/mainly", False),
        ("refs/heads/Main", False),
        ("refs/tags/v1", True),
        ("refs/tags/main", False),
        ("refs/heads/v1", False),
    ],
)
def test_only_named_branches_and_tags_are_meant(ref: str, meant: bool) -> None:
    """A pattern of branches says nothing of tags, and the other way round."""
    assert refs.is_meant(Source(app="shop", branches=("main", "release/*"), tags=("v*",)), ref) is meant


@pytest.mark.parametrize("pattern", ["", "-x", "a..b", "a b", "[a]", "a\n", "$(x)", "x" * 200])
def test_strange_pattern_is_refused(pattern: str) -> None:
    """A pattern is a name with stars, and nothing cleverer."""
    assert refs.pattern_trouble(pattern)


@pytest.mark.parametrize("text", ["", "abc", "0" * 39, "g" * 40, "A" * 40, "0" * 40 + "\n", "\u0660" * 40])
def test_short_or_strange_revision_is_none(text: str) -> None:
    """A commit is named in full, by hexadecimal digits."""
    assert not refs.is_revision(text)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a/b.git",
        "https://example.com:8443/a%20b",
        "https://[::1]/a",
        "ssh://git@example.com/a.git",
        "ssh://example.com:2222/~ada/a.git",
        "git@example.com:a/b.git",
        "/srv/git/a.git",
        "file:///srv/git/a.git",
    ],
)
def test_address_of_a_repository_is_taken(url: str) -> None:
    """The three ways to a repository: https, ssh, this machine's disk."""
    assert remotes.checked(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-x",
        "--upload-pack=touch /tmp/x",
        "ext::sh -c id",
        "fd::3",
        "http://example.com/a",
        "git://example.com/a",
        "ftp://example.com/a",
        "https://example.com/a?x=1",
        "https://example.com/a#b",
        "https:///a",
        "https://-host/a",
        "https://exa mple.com/a",
        "https://example.com:99999/a",
        "ssh://-oProxyCommand=id/a",
        "ssh://git@-host/a",
        "-oProxyCommand=id@host:a",
        "git@-host:a",
        "git@host:-a",
        "file://host/a",
        "/a/../b",
        "https://example.com/../a",
        "https://example.com/a\n",
        "https://ex\u0430mple.com/a",
        "x" * 600,
    ],
    ids=ascii,
)
def test_everything_else_is_refused(url: str) -> None:
    """No helper, no option, no other protocol, nothing that two programs would read differently."""
    with pytest.raises(errors.RequestError):
        remotes.checked(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://ada:secret-8f@example.com/a",
        "https://secret-8f@example.com/a",
        "ssh://git:secret-8f@example.com/a",
    ],
)
def test_password_in_an_address_is_refused_and_not_repeated(url: str) -> None:
    """A password would be kept with the source: it is refused, and the refusal does not show it."""
    with pytest.raises(errors.RequestError) as refused:
        remotes.checked(url)
    assert "secret-8f" not in str(refused.value)
    assert "--credentials" in str(refused.value)


@pytest.mark.parametrize("path", ["a", "/a b", "/a;b", "/a'b", "/a$(b)", "/a/../b", "/a\nb", "/a`b`", ""])
def test_file_that_a_shell_could_read_differently_is_refused(path: str) -> None:
    """Git hands the name of a credentials file to a shell: only plain names are taken."""
    with pytest.raises(errors.RequestError):
        remotes.checked_file(path)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.github.com",
        "https://git.example.com:3000/api/v1/",
        "http://127.0.0.1:9/x",
        "http://[::1]:9",
        "http://localhost:9",
    ],
)
def test_api_over_https_or_on_this_machine_is_taken(url: str) -> None:
    """Reports go over https, or nowhere beyond this machine."""
    assert remotes.checked_api(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "http://169.254.169.254/latest",
        "http://127.0.0.1.example.com",
        "http://2130706433",
        "http://0x7f.1",
        "https://user@example.com",
        "https://u:p@example.com",
        "https://example.com/?x",
        "https://example.com/#x",
        "file:///etc/passwd",
        "gopher://127.0.0.1",
        "https://",
        "//example.com",
        "https://exam\nple.com",
    ],
    ids=ascii,
)
def test_api_elsewhere_is_refused(url: str) -> None:
    """Plain http leaves this machine for nobody, however the address is written."""
    with pytest.raises(errors.RequestError):
        remotes.checked_api(url)


@pytest.mark.parametrize("project", ["", "a/../b", "../a", "a b", "a/b?x", "a//b", "/a"])
def test_strange_project_is_refused(project: str) -> None:
    """A project is a path of plain names: nothing of it can lead elsewhere in the API."""
    with pytest.raises(errors.RequestError):
        remotes.checked_project(project)
