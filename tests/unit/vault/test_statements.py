"""Statements: standard in form, proved byte for byte, of one kind each, believed from the right key alone."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib import dsse

from tests.unit.vault.made import DIGEST
from tidegate import errors, ports
from tidegate.testing.vault import CLAIMS
from tidegate.vault import envelopes, statements
from tidegate.vault.keys import Keys
from tidegate.vault.statements import Seals

PROVENANCE: ports.Claims = {
    "app": "shop",
    "digest": DIGEST,
    "revision": "a" * 40,
    "repository": "https://example.com/shop.git",
    "command": "make dist",
    "manifest": "sha256:abc",
    "how": "built",
    "by": "ada",
    "started": 1_800_000_000.0,
    "finished": 1_800_000_060.0,
    "materials": ("pkg:pypi/flask@3.1",),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vault")


@pytest.fixture(scope="module")
def seals(folder: Path) -> Seals:
    return Seals(Keys(folder / "keys"), version="1.2.3")


def payload(envelope: str) -> Any:
    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))


def signed_by(keys: Keys, statement: object, payload_type: str = envelopes.PAYLOAD_TYPE) -> str:
    """An envelope as another program would write it: indented, and in its own order."""
    envelope = dsse.Envelope(json.dumps(statement, indent=1).encode(), payload_type, {})
    envelope.sign(keys.signer())
    return json.dumps(envelope.to_dict(), indent=2)


def foreign(app: str = "shop", digest: str = "d" * 64, **changes: object) -> dict[str, object]:
    """A provenance of a builder that has never heard of Tidegate."""
    return {
        "predicateType": "https://slsa.dev/provenance/v1",
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": digest}, "name": app}],
        "predicate": {
            "buildDefinition": {
                "buildType": "https://example.com/ci",
                "externalParameters": {"manifest": "sha256:abc"},
                "resolvedDependencies": [
                    {"uri": "git+https://example.com/shop.git", "digest": {"gitCommit": "b" * 40}},
                    {"uri": "pkg:pypi/flask@3.1"},
                ],
            },
            "runDetails": {"builder": {"id": "https://example.com/ci/7"}},
        },
        **changes,
    }


# --- form ------------------------------------------------------------------------------------------


def test_envelope_is_dsse_and_its_payload_an_in_toto_statement(seals: Seals) -> None:
    """So that any tool of that world can prove it with the public key."""
    envelope = seals.seal(statements.PASS, CLAIMS)
    outer = json.loads(envelope)
    assert set(outer) == {"payload", "payloadType", "signatures"}
    assert outer["payloadType"] == "application/vnd.in-toto+json"
    statement = payload(envelope)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "tidegate:pass/v1"
    assert statement["subject"] == [{"name": "shop", "digest": {"sha256": "7" * 64}}]
    assert statement["predicate"]["release"] == 7


def test_provenance_is_slsa(seals: Seals, folder: Path) -> None:
    """Where source, builder, command and times stand is not ours to choose."""
    statement = payload(seals.seal(statements.PROVENANCE, PROVENANCE))
    own = Keys(folder / "keys").own()[0].id
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["predicate"] == {
        "buildDefinition": {
            "buildType": "tidegate:build/v1",
            "externalParameters": {
                "repository": "https://example.com/shop.git",
                "revision": "a" * 40,
                "command": "make dist",
                "manifest": "sha256:abc",
            },
            "internalParameters": {"how": "built"},
            "resolvedDependencies": [
                {"uri": "git+https://example.com/shop.git", "digest": {"gitCommit": "a" * 40}},
                {"uri": "pkg:pypi/flask@3.1"},
            ],
        },
        "runDetails": {
            "builder": {"id": f"tidegate:{own}", "version": {"tidegate": "1.2.3"}},
            "metadata": {
                "invocationId": "ada",
                "startedOn": "2027-01-15T08:00:00Z",
                "finishedOn": "2027-01-15T08:01:00Z",
            },
        },
    }


def test_provenance_says_again_what_it_was_told(seals: Seals) -> None:
    """The builder is added, and times are written as dates."""
    claims = seals.opened(statements.PROVENANCE, seals.seal(statements.PROVENANCE, PROVENANCE))
    told = {name: claims[name] for name in PROVENANCE if name not in ("started", "finished")}
    assert told == {name: value for name, value in PROVENANCE.items() if name in told}
    assert str(claims["builder"]).startswith("tidegate:")
    assert claims["finished"] == "2027-01-15T08:01:00Z"


@pytest.mark.parametrize("revision", ["", "v1.2", "a" * 40 + "-dirty"])
def test_what_is_no_commit_is_not_called_one(seals: Seals, revision: str) -> None:
    """A folder with changes has no commit that it could be built from again."""
    claims = {**PROVENANCE, "revision": revision, "repository": ""}
    envelope = seals.seal(statements.PROVENANCE, claims)
    assert "gitCommit" not in json.dumps(payload(envelope))
    assert seals.opened(statements.PROVENANCE, envelope)["revision"] == revision


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    claims=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=20),
        st.text(st.characters(codec="utf-8"), max_size=50)
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.lists(st.text(st.characters(codec="utf-8"), max_size=10), max_size=5).map(tuple),
        max_size=8,
    )
)
def test_any_claims_come_back_as_they_were(seals: Seals, claims: dict[str, Any]) -> None:
    """Whatever their names and values, and exactly."""
    told = {**claims, "app": "shop", "digest": DIGEST}
    assert dict(seals.opened("admission", seals.seal("admission", told))) == told


@pytest.mark.parametrize(
    "claim",
    [None, {}, [1], [["x"]], b"x", float("nan"), float("inf"), "\ud800", "x" * envelopes.ENVELOPE_BYTES_MAX],
    ids=range(9),
)
def test_claims_that_no_statement_can_hold_are_refused(seals: Seals, claim: Any) -> None:
    """Before anything is signed, not when it is to be proved."""
    with pytest.raises(errors.SealError):
        seals.seal("pass", {**CLAIMS, "odd": claim})


# --- proof -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pass", "provenance"])
def test_flipping_any_bit_of_any_byte_is_found(seals: Seals, kind: str) -> None:
    """Also of bytes without a meaning: of key ids, of unused bits of base64, of the order of members."""
    envelope = seals.seal(kind, PROVENANCE if kind == "provenance" else CLAIMS)
    assert seals.opened(kind, envelope)
    for at, character in enumerate(envelope):
        for bit in (1, 2, 4, 8, 16, 32, 64):
            edited = envelope[:at] + chr(ord(character) ^ bit) + envelope[at + 1 :]
            with pytest.raises(errors.SealError):
                seals.opened(kind, edited)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: f" {text}",
        lambda text: f"{text}\n",
        lambda text: text.replace(":", ": ", 1),
        lambda text: json.dumps(json.loads(text), indent=1),
        lambda text: text.replace('"payload":', '"payload":"x","payload":', 1),
        lambda text: text.replace('"keyid":', '"x":1,"keyid":', 1),
        lambda text: text.replace('"sig":', '"x":1,"sig":', 1),
        lambda text: text.replace("]}", ",{}]}", 1),
        lambda text: text + text,
    ],
    ids=range(9),
)
def test_same_statement_in_another_writing_is_refused(seals: Seals, edit: Callable[[str], str]) -> None:
    """There is one way in which we write it: another one was written by somebody else."""
    envelope = seals.seal("pass", CLAIMS)
    with pytest.raises(errors.SealError):
        seals.opened("pass", edit(envelope))


def test_signature_of_another_statement_is_refused_with_what_to_do(seals: Seals) -> None:
    """Both were signed by us, but not together."""
    one = json.loads(seals.seal("pass", CLAIMS))
    other = json.loads(seals.seal("pass", {**CLAIMS, "environment": "production"}))
    mixed = json.dumps({**one, "signatures": other["signatures"]}, sort_keys=True, separators=(",", ":"))
    with pytest.raises(errors.SealError) as refused:
        seals.opened("pass", mixed)
    assert refused.value.message == (
        "A statement does not match its signature: somebody changed the database."
    )
    assert "backup" in str(refused.value.hint)


def test_statement_of_another_control_plane_is_no_pass_here_even_if_it_is_trusted(folder: Path) -> None:
    """Trust is for where artifacts come from: who builds elsewhere cannot say what has passed here."""
    there = Seals(Keys(folder / "there"), version="1")
    keys = Keys(folder / "here")
    keys.trust("there", Keys(folder / "there").own()[0].pem)
    here = Seals(keys, version="1")
    assert here.proved("provenance", there.seal("provenance", PROVENANCE)).key.name == "there"
    for kind in ("pass", "approval", "admission"):
        with pytest.raises(errors.SealError, match="no key that this control plane has or trusts"):
            here.opened(kind, there.seal(kind, CLAIMS))


def test_trust_that_is_taken_away_counts_from_the_next_question_on(tmp_path: Path) -> None:
    """Nothing is remembered of what was proved before."""
    there, keys = Seals(Keys(tmp_path / "there"), version="1"), Keys(tmp_path / "here")
    here = Seals(keys, version="1")
    envelope = there.seal("provenance", PROVENANCE)
    with pytest.raises(errors.SealError):
        here.opened("provenance", envelope)
    keys.trust("there", Keys(tmp_path / "there").own()[0].pem)
    assert here.opened("provenance", envelope)["app"] == "shop"
    keys.distrust("there")
    with pytest.raises(errors.SealError):
        here.opened("provenance", envelope)


def test_what_was_signed_before_a_rotation_is_proved_after_it(tmp_path: Path) -> None:
    """And what is signed after it, by the new key."""
    keys = Keys(tmp_path)
    seals = Seals(keys, version="1")
    before = seals.seal("admission", CLAIMS)
    keys.rotate_signer()
    after = seals.seal("admission", CLAIMS)
    assert seals.opened("admission", before) == seals.opened("admission", after)
    assert json.loads(before)["signatures"][0]["keyid"] != json.loads(after)["signatures"][0]["keyid"]


def test_key_id_of_another_key_is_refused(seals: Seals, tmp_path: Path) -> None:
    """The id says which key proves it; a wrong one is not tried."""
    envelope = seals.seal("pass", CLAIMS)
    own = json.loads(envelope)["signatures"][0]["keyid"]
    other = Keys(tmp_path).own()[0].id
    with pytest.raises(errors.SealError, match="no key"):
        seals.opened("pass", envelope.replace(own, other))


# --- hostile ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 200_000,
        '{"a":' * 50_000,
        "x" * (envelopes.ENVELOPE_BYTES_MAX + 1),
        '{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[]}',
        '{"payload":1,"payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"a","sig":"AA=="}]}',
        '{"payload":"!","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"a","sig":"AA=="}]}',
        '{"payload":"","payloadType":"text/plain","signatures":[{"keyid":"a","sig":"AA=="}]}',
        '{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":["x"]}',
        '{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":1,"sig":"AA=="}]}',
        '{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"a","sig":1}]}',
        '{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"a","sig":"*"}]}',
        '{"payload":"\\ud800","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"a","sig":""}]}',
        '{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":'
        + json.dumps([{"keyid": "a", "sig": "AA=="}] * 9)
        + "}",
        '{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":'
        + json.dumps([{"keyid": "a", "sig": "AA=="}] * 2)
        + "}",
    ],
    ids=range(18),
)
def test_hostile_envelopes_are_refused_in_a_sentence(seals: Seals, text: str) -> None:
    """Deep, long, of the wrong types: never with another error."""
    with pytest.raises(errors.SealError):
        seals.opened("pass", text)
    with pytest.raises(errors.SealError):
        seals.accepted(text)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_no_text_is_a_statement_by_chance(seals: Seals, text: str) -> None:
    """And none brings it down."""
    with pytest.raises(errors.SealError):
        seals.opened("pass", text)


# --- made elsewhere --------------------------------------------------------------------------------


def test_foreign_provenance_is_accepted_in_our_own_writing(tmp_path: Path) -> None:
    """A builder that knows in-toto needs to know nothing of Tidegate; its words are kept, not its spaces."""
    builder, keys = Keys(tmp_path / "builder"), Keys(tmp_path / "here")
    keys.trust("ci", builder.own()[0].pem)
    seals = Seals(keys, version="1")
    accepted = seals.accepted(signed_by(builder, foreign()))
    claims = seals.opened("provenance", accepted)
    assert claims["app"] == "shop"
    assert claims["repository"] == "https://example.com/shop.git"
    assert claims["revision"] == "b" * 40
    assert claims["builder"] == "https://example.com/ci/7"
    assert claims["materials"] == ("pkg:pypi/flask@3.1",)
    assert claims["manifest"] == "sha256:abc"


def test_of_several_signatures_the_one_that_counts_is_kept(tmp_path: Path) -> None:
    """A key that nobody here knows proves nothing, and is no harm."""
    builder, stranger, keys = (Keys(tmp_path / name) for name in ("builder", "stranger", "here"))
    keys.trust("ci", builder.own()[0].pem)
    envelope = dsse.Envelope(json.dumps(foreign()).encode(), envelopes.PAYLOAD_TYPE, {})
    envelope.sign(stranger.signer())
    envelope.sign(builder.signer())
    accepted = Seals(keys, version="1").accepted(json.dumps(envelope.to_dict()))
    (kept,) = json.loads(accepted)["signatures"]
    assert kept["keyid"] == builder.own()[0].id


@pytest.mark.parametrize(
    "statement",
    [
        foreign(predicateType="tidegate:admission/v1"),
        foreign(predicateType="https://slsa.dev/provenance/v0.2"),
        foreign(_type="https://in-toto.io/Statement/v0.1"),
        foreign(subject=[]),
        foreign(subject=[{"name": "a", "digest": {"sha256": "d" * 64}}] * 2),
        foreign(subject=[{"name": "a", "digest": {"sha512": "d" * 128}}]),
        foreign(subject=[{"name": 1, "digest": {"sha256": "d" * 64}}]),
        foreign(digest="D" * 64),
        foreign(digest="../etc/passwd"),
        foreign(predicate=[]),
        foreign(predicate=json.loads("[" * 20 + "]" * 20)),
        [],
        "text",
    ],
    ids=range(13),
)
def test_what_a_trusted_key_has_signed_is_refused_unless_it_is_a_provenance(
    tmp_path: Path, statement: object
) -> None:
    """Of one artifact, of a version that is known here."""
    builder, keys = Keys(tmp_path / "builder"), Keys(tmp_path / "here")
    keys.trust("ci", builder.own()[0].pem)
    with pytest.raises(errors.SealError):
        Seals(keys, version="1").accepted(signed_by(builder, statement))


def test_odd_parts_of_a_foreign_provenance_are_left_out(tmp_path: Path) -> None:
    """What it says in another form than SLSA's is not known, and nothing else suffers."""
    builder, keys = Keys(tmp_path / "builder"), Keys(tmp_path / "here")
    keys.trust("ci", builder.own()[0].pem)
    odd = {"buildDefinition": {"resolvedDependencies": {"a": 1}, "externalParameters": 7}, "runDetails": []}
    seals = Seals(keys, version="1")
    claims = seals.opened("provenance", seals.accepted(signed_by(builder, foreign(predicate=odd))))
    assert (claims["repository"], claims["materials"], claims["builder"]) == ("", (), "")
