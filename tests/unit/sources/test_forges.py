"""Webhooks: who signed them, and what little is taken from them."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from tests.support import webhooks
from tidegate import errors
from tidegate.pushes import Forge
from tidegate.sources import forges

KEY, OTHER = b"k" * 43, b"o" * 43
REVISION = "a" * 40


@pytest.mark.parametrize("forge", list(Forge))
def test_right_signature_is_believed(forge: Forge) -> None:
    """Whoever knows a valid secret is believed, the one before the newest too."""
    sent = webhooks.sent(forge, KEY, revision=REVISION)
    assert forges.is_believed(forge, sent.headers, sent.body, (KEY,))
    assert forges.is_believed(forge, sent.headers, sent.body, (OTHER, KEY))
    assert not forges.is_believed(forge, sent.headers, sent.body, (OTHER,))
    assert not forges.is_believed(forge, sent.headers, sent.body, ())


@pytest.mark.parametrize("forge", list(Forge))
def test_each_flipped_byte_of_a_signature_is_found(forge: Forge) -> None:
    """A signature that differs in any one byte is wrong, and so is a shorter or a longer one."""
    sent = webhooks.sent(forge, KEY, revision=REVISION)
    name = webhooks.SIGNATURE[forge]
    right = sent.headers[name]
    wrong = [right[:i] + chr(ord(right[i]) ^ 1) + right[i + 1 :] for i in range(len(right))]
    for signature in (*wrong, right[:-1], right + "0", "", right.upper()):
        assert not forges.is_believed(forge, {**sent.headers, name: signature}, sent.body, (KEY,)), signature


@pytest.mark.parametrize("forge", [Forge.GITHUB, Forge.GITEA])
def test_each_flipped_byte_of_a_body_is_found(forge: Forge) -> None:
    """A body that differs in any one byte was not signed."""
    sent = webhooks.sent(forge, KEY, revision=REVISION)
    for i in range(len(sent.body)):
        changed = bytearray(sent.body)
        changed[i] ^= 1
        assert not forges.is_believed(forge, sent.headers, bytes(changed), (KEY,)), i


def test_signature_of_an_empty_secret_is_not_believed() -> None:
    """Where no secret is set, nobody can have signed with it."""
    body = b"{}"
    signature = "sha256=" + hmac.new(b"", body, hashlib.sha256).hexdigest()
    assert not forges.is_believed(Forge.GITHUB, {"x-hub-signature-256": signature}, body, ())


@pytest.mark.parametrize("forge", list(Forge))
def test_ref_commit_and_delivery_are_taken(forge: Forge) -> None:
    """Of all that a forge sends, three names and the hash of the body are kept."""
    sent = webhooks.sent(forge, KEY, revision=REVISION, delivery="d-1")
    told = forges.told(forge, sent.headers, sent.body)
    assert told is not None
    assert (told.ref, told.revision, told.delivery) == ("refs/heads/main", REVISION, "d-1")
    assert told.body == hashlib.sha256(sent.body).hexdigest()


@pytest.mark.parametrize("forge", list(Forge))
def test_other_events_are_nothing_to_do(forge: Forge) -> None:
    """A ping, or a comment on an issue, tells nothing."""
    sent = webhooks.sent(forge, KEY, revision=REVISION, event="ping")
    assert forges.told(forge, sent.headers, sent.body) is None


def test_removed_branch_is_nothing_to_do() -> None:
    """A branch that is gone leads to no commit."""
    sent = webhooks.sent(Forge.GITHUB, KEY, revision="0" * 40)
    assert forges.told(Forge.GITHUB, sent.headers, sent.body) is None


@pytest.mark.parametrize(
    "ref", ["refs/heads/a\u202eb", "refs/heads/-x", "refs/tidegate/keep/x", "main"], ids=ascii
)
def test_hostile_ref_is_nothing_to_do(ref: str) -> None:
    """A signed name that nobody may push is not acted upon."""
    sent = webhooks.sent(Forge.GITHUB, KEY, revision=REVISION, ref=ref)
    assert forges.told(Forge.GITHUB, sent.headers, sent.body) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"nonsense",
        b"\xff\xfe",
        b"[" * 200_000,
        b"9" * 100_000,
        json.dumps({"ref": 1, "after": REVISION}).encode(),
        json.dumps({"ref": "refs/heads/main", "after": "abc"}).encode(),
        json.dumps({"ref": "refs/heads/main", "after": None}).encode(),
        b"payload=%7B%7D",
    ],
    ids=range(11),
)
def test_strange_body_is_refused(body: bytes) -> None:
    """What cannot be read is refused, however it was meant to harm the reader."""
    sent = webhooks.signed(Forge.GITHUB, KEY, body)
    with pytest.raises(errors.RequestError):
        forges.told(Forge.GITHUB, sent.headers, body)


@pytest.mark.parametrize("delivery", ["", "x" * 101, "a\x1bb"], ids=ascii)
def test_webhook_without_a_plain_id_is_refused(delivery: str) -> None:
    """Without an id of its own a webhook could not be told from its replay."""
    sent = webhooks.sent(Forge.GITHUB, KEY, revision=REVISION, delivery=delivery)
    with pytest.raises(errors.RequestError):
        forges.told(Forge.GITHUB, sent.headers, sent.body)
