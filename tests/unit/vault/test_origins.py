"""Provenances of releases: signed once, proved of their own artifact, handed on in one file."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.vault.made import DIGEST, MANIFEST, ORIGIN, RELEASE, MemoryRows
from tidegate import errors, ports
from tidegate.vault import bundles, origins, proofs
from tidegate.vault.keys import Keys
from tidegate.vault.origins import SignedOrigins
from tidegate.vault.proofs import About, Sealed
from tidegate.vault.statements import Seals

SMALL = ports.Provenance(envelope="{}", manifest=MANIFEST)


class Place:
    """The origins of one control plane."""

    def __init__(self, folder: Path) -> None:
        self.rows = MemoryRows()
        self.keys = Keys(folder)
        self.seals = Seals(self.keys, version="1.2.3")
        self.origins = SignedOrigins(self.rows, self.seals, now=lambda: 1.0)


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return Place(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Place:
    return Place(tmp_path / "there")


def written(provenance: ports.Provenance, archive: Path) -> bytes:
    return b"".join(bundles.written(provenance, archive))


# --- origins ---------------------------------------------------------------------------------------


def test_release_is_signed_with_all_that_is_known_of_it(here: Place) -> None:
    """Of the release, of how it came to be, and of the text of its manifest."""
    here.origins.sign(RELEASE, ORIGIN)
    claims = here.origins.prove(RELEASE)
    assert (claims["app"], claims["digest"], claims["revision"]) == ("shop", DIGEST, "a" * 40)
    assert (claims["repository"], claims["command"], claims["how"]) == (
        "https://example.com/shop.git",
        "make dist",
        "built",
    )
    assert claims["manifest"] == origins.digest_of(MANIFEST)
    assert (claims["by"], claims["started"]) == ("ada", "2027-01-15T08:00:00Z")
    assert here.origins.kept("shop", 7).manifest == MANIFEST


def test_first_word_on_a_release_stays(here: Place) -> None:
    """The same release added again, perhaps by somebody else, is not signed anew."""
    here.origins.sign(RELEASE, ORIGIN)
    before = here.rows.provenances["shop", 7]
    here.origins.sign(replace(RELEASE, created_by="eve"), replace(ORIGIN, command="evil"))
    assert here.rows.provenances["shop", 7] == before


def test_word_that_nobody_vouches_for_any_more_is_replaced(here: Place, there: Place) -> None:
    """Who brings the same package again gives the release a new word: keys may have been lost."""
    here.keys.trust("there", there.keys.own()[0].pem)
    there.origins.sign(RELEASE, ORIGIN)
    here.origins.take(RELEASE, there.origins.kept("shop", 7))
    here.origins.sign(RELEASE, ORIGIN)
    assert here.origins.proved(RELEASE).key.name == "there"
    here.keys.distrust("there")
    here.origins.sign(RELEASE, ORIGIN)
    assert here.origins.proved(RELEASE).key.own


def test_release_signed_elsewhere_is_taken_only_if_it_is_about_that_release(
    here: Place, there: Place
) -> None:
    """By a trusted key, and of the digest that came with it."""
    there.origins.sign(RELEASE, ORIGIN)
    signed = there.origins.kept("shop", 7)
    with pytest.raises(errors.SealError):
        here.origins.take(RELEASE, signed)
    here.keys.trust("there", there.keys.own()[0].pem)
    with pytest.raises(errors.SealError, match="is that of another artifact"):
        here.origins.take(replace(RELEASE, digest=f"sha256:{'e' * 64}"), signed)
    here.origins.take(replace(RELEASE, number=1), signed)
    assert here.origins.proved(replace(RELEASE, number=1)).key.name == "there"


# --- files -----------------------------------------------------------------------------------------


def test_exported_release_is_a_tar_that_any_tar_reads(tmp_path: Path) -> None:
    """Three members, in this order, that say nothing of when and by whom."""
    (tmp_path / "archive").write_bytes(b"package" * 1000)
    content = written(SMALL, tmp_path / "archive")
    assert content == written(SMALL, tmp_path / "archive")
    with tarfile.open(fileobj=io.BytesIO(content)) as read:
        members = read.getmembers()
        assert [member.name for member in members] == ["provenance.json", "tidegate.yaml", "archive.tar.zst"]
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in members} == {(0, 0, 0, 0o644, "")}
        inner = read.extractfile("archive.tar.zst")
        assert inner is not None
        assert inner.read() == b"package" * 1000


@settings(max_examples=30)
@given(envelope=st.text(max_size=600), manifest=st.text(max_size=600), package=st.binary(max_size=1600))
def test_what_was_written_is_read_again(envelope: str, manifest: str, package: bytes) -> None:
    """Whatever its length: members end anywhere in a block."""
    envelope, manifest = (text.encode(errors="replace").decode() for text in (envelope, manifest))
    provenance = ports.Provenance(envelope=envelope, manifest=manifest)
    file = io.BytesIO()
    with io.BytesIO(package) as source:
        path = _Opened(source)
        file.write(written(provenance, path))  # type: ignore[arg-type] # as a path
    file.seek(0)
    bundle = bundles.read(file)
    assert bundle.provenance == provenance
    assert b"".join(iter(lambda: bundle.archive.read(7), b"")) == package


class _Opened:
    """A path that is open already."""

    def __init__(self, file: io.BytesIO) -> None:
        self.file = file

    def open(self, mode: str) -> io.BytesIO:
        assert mode == "rb"
        return self.file


def test_file_that_was_cut_or_edited_is_refused(tmp_path: Path) -> None:
    """At any place of a header, and with other members, orders or sizes."""
    (tmp_path / "archive").write_bytes(b"package")
    content = written(SMALL, tmp_path / "archive")
    for at in range(512):
        with pytest.raises(errors.ArtifactError):
            bundles.read(io.BytesIO(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]))
    for end in range(0, 5 * 512, 64):
        with pytest.raises(errors.ArtifactError):
            bundles.read(io.BytesIO(content[:end]))
    for odd in (content[1024:], b"", b"\0" * 4096, content[:512] + b"xx" + content[514:600]):
        with pytest.raises(errors.ArtifactError):
            bundles.read(io.BytesIO(odd))


def test_package_that_ends_too_soon_is_refused(tmp_path: Path) -> None:
    """The header says how long it is."""
    (tmp_path / "archive").write_bytes(b"package" * 100)
    content = written(SMALL, tmp_path / "archive")
    bundle = bundles.read(io.BytesIO(content[: 5 * 512 + 100]))
    assert bundle.archive.read(100) == (b"package" * 100)[:100]
    with pytest.raises(errors.ArtifactError, match="ends in the middle of the package"):
        bundle.archive.read(100)


def test_sizes_are_limited_before_anything_is_read(tmp_path: Path) -> None:
    """A header that announces gigabytes of manifest costs a header."""
    huge = ports.Provenance(envelope="x" * (300 * 1024), manifest=MANIFEST)
    (tmp_path / "archive").write_bytes(b"package")
    with pytest.raises(errors.ArtifactError, match="are the most"):
        bundles.read(io.BytesIO(written(huge, tmp_path / "archive")[:512]))


def test_archive_that_is_gone_cannot_be_exported(tmp_path: Path) -> None:
    """The sentence names the file."""
    with pytest.raises(errors.StorageError, match="Cannot read the archive"):
        written(SMALL, tmp_path / "none")


# --- proofs ----------------------------------------------------------------------------------------


class Packages:
    """Packages that may be damaged."""

    def __init__(self, *, tree: str = "", archive: str = "") -> None:
        self.tree, self.archive = tree, archive

    def verify(self, digest: str) -> None:
        if self.tree:
            raise errors.StorageError(self.tree)

    def verify_archive(self, digest: str) -> None:
        if self.archive:
            raise errors.ArtifactError(self.archive, hint="Deploy it again.")


def found(here: Place, about: About, packages: Packages | None = None) -> dict[str, tuple[bool, str]]:
    findings = proofs.findings(about, packages or Packages(), here.origins, here.seals)
    return {finding.name: (finding.ok, finding.detail) for finding in findings}


def sealed(here: Place, kind: str, **changes: str | int) -> str:
    claims = {"app": "shop", "digest": DIGEST, "environment": "staging", "release": 7, **changes}
    return here.seals.seal(kind, claims)


def test_every_point_of_a_release_is_proved(here: Place) -> None:
    """Bytes, origin, manifest, what it passed, and what lets it run."""
    here.origins.sign(RELEASE, ORIGIN)
    about = About(
        release=RELEASE,
        passes=[Sealed(environment="staging", envelope=sealed(here, "pass"))],
        admissions=[Sealed(environment="staging", envelope=sealed(here, "admission"))],
    )
    assert found(here, about) == {
        "archive": (True, f"has the digest {DIGEST}"),
        "files": (True, "every byte is as it was packed"),
        "provenance": (
            True,
            ", ".join(
                (
                    f"signed by this control plane (key {here.keys.own()[0].id[:16]})",
                    f"source https://example.com/shop.git@{'a' * 40}",
                    "built here from a clean checkout by ada",
                    "with `make dist`",
                )
            ),
        ),
        "manifest": (True, "the one that was signed"),
        "pass of staging": (True, "signed by this control plane"),
        "admission to staging": (True, "signed by this control plane"),
    }


def test_what_is_wrong_is_said_point_by_point(here: Place) -> None:
    """One fault hides no other."""
    here.origins.sign(RELEASE, ORIGIN)
    kept = here.rows.provenances["shop", 7]
    here.rows.provenances["shop", 7] = replace(kept, manifest="app: evil\n")
    about = About(
        release=RELEASE,
        passes=[
            Sealed(environment="staging", envelope=""),
            Sealed(environment="test", envelope=sealed(here, "pass")),
        ],
        admissions=[Sealed(environment="production", envelope=sealed(here, "pass"))],
    )
    shown = found(here, about, Packages(tree="bin/web differs", archive="it is cut short"))
    assert [name for name, (ok, _) in shown.items() if ok] == ["provenance"]
    assert shown["archive"] == (False, "it is cut short")
    assert shown["files"] == (False, "bin/web differs")
    assert shown["manifest"][1].startswith("not the one that was signed")
    assert shown["pass of staging"] == (False, "There is no signed statement.")
    assert shown["pass of test"] == (
        False,
        "It is signed for environment staging. Somebody changed the database.",
    )
    assert shown["admission to production"][1].startswith("The statement is no admission")


def test_release_without_provenance_is_said_and_its_manifest_not_believed(here: Place) -> None:
    """There is nothing to compare it with."""
    shown = found(here, About(release=RELEASE))
    assert shown["provenance"] == (False, "Nobody has signed where r7 of shop comes from.")
    assert "manifest" not in shown


def test_trusted_hand_is_called_by_its_name(here: Place, there: Place) -> None:
    """So that an operator sees whose word it is."""
    there.origins.sign(RELEASE, ports.Origin())
    here.keys.trust("build-server", there.keys.own()[0].pem)
    here.origins.take(RELEASE, there.origins.kept("shop", 7))
    ok, said = found(here, About(release=RELEASE))["provenance"]
    assert ok
    assert said.startswith("signed by build-server, whom you trust (key ")
