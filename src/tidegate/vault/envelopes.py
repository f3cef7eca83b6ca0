"""A signed text: an in-toto statement in a DSSE envelope, read with suspicion.

    https://github.com/secure-systems-lab/dsse    https://github.com/in-toto/attestation

Hides the envelope's JSON and the order of checks: size, form, payload type, signature, and only then the
payload is parsed. Invariants: what was signed here is accepted only byte for byte as it was written, so that
no edit goes unseen, not even one without a meaning; nothing of a payload is believed that no key vouches for.
Neighbours: `statements` says what the payloads mean, `keys` which keys count.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pydantic_core
from securesystemslib import dsse, exceptions
from securesystemslib.signer import CryptoSigner, Signature

from tidegate import errors
from tidegate.vault.keys import PublicKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
#: A provenance with a hundred materials is a tenth of this.
ENVELOPE_BYTES_MAX: Final = 256 * 1024
#: SLSA's own statements are six deep.
DEPTH_MAX: Final = 16
#: Of one foreign envelope: each costs a proof.
SIGNATURES_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What was signed, and by whom."""

    name: str
    """Of the subject."""
    sha256: str
    """Of the subject: 64 hex digits."""
    predicate_type: str
    predicate: Mapping[str, Any]
    key: PublicKey


def signed(
    *, name: str, sha256: str, predicate_type: str, predicate: Mapping[str, Any], signer: CryptoSigner
) -> str:
    """The envelope's text. Raises SealError for what JSON has no word for, or what is too long."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": sha256}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    try:
        payload = _canonical(statement).encode()
    except (ValueError, TypeError, UnicodeEncodeError) as error:
        raise _refused("it holds something that JSON has no word for") from error
    envelope = dsse.Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer)
    text = _text(envelope)
    if len(text) > ENVELOPE_BYTES_MAX or _depth(statement) > DEPTH_MAX:
        raise _refused(f"it is longer than {ENVELOPE_BYTES_MAX} bytes or too deep")
    return text


def proved(text: str, keys: Sequence[PublicKey]) -> Statement:
    """What one of the keys has signed, as `signed` or `accepted` wrote it. Raises SealError."""
    envelope = _parsed(text)
    if len(envelope.signatures) != 1 or _text(envelope) != text:
        raise _refused("it is not written as it was when it was signed")
    return _statement(envelope, _prover(envelope, keys))


def accepted(text: str, keys: Sequence[PublicKey]) -> str:
    """A foreign envelope in our own writing, with the one signature that counts. Raises SealError."""
    envelope = _parsed(text)
    prover = _prover(envelope, keys)
    _statement(envelope, prover)
    only = {prover.id: Signature(prover.id, envelope.signatures[prover.id].signature)}
    return _text(dsse.Envelope(envelope.payload, envelope.payload_type, only))


def _parsed(text: str) -> dsse.Envelope:
    if len(text) > ENVELOPE_BYTES_MAX:
        raise _refused(f"it is longer than {ENVELOPE_BYTES_MAX} bytes")
    try:
        data = _json(text)
        if not isinstance(data, dict) or not {"payload", "payloadType", "signatures"} <= data.keys():
            raise _refused("it is no DSSE envelope")
        signatures = data["signatures"]
        if not isinstance(signatures, list) or not 0 < len(signatures) <= SIGNATURES_MAX:
            raise _refused(f"it has no signature, or more than {SIGNATURES_MAX}")
        envelope = dsse.Envelope.from_dict(data)
    except (ValueError, TypeError, KeyError, AttributeError, exceptions.FormatError) as error:
        raise _refused("it is no DSSE envelope") from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise _refused("it holds something else than an in-toto statement")
    return envelope


def _prover(envelope: dsse.Envelope, keys: Sequence[PublicKey]) -> PublicKey:
    """The first of our keys whose signature holds."""
    known = [key for key in keys if key.id in envelope.signatures]
    if not known:
        raise _refused("no key that this control plane has or trusts has signed it")
    for key in known:
        try:
            envelope.verify([key.key], 1)
        except (exceptions.Error, ValueError):
            continue
        return key
    raise errors.SealError(hint=TAMPERED_HINT)


def _statement(envelope: dsse.Envelope, prover: PublicKey) -> Statement:
    """Parsed only now that somebody vouches for it."""
    try:
        data = _json(envelope.payload)
        (subject,) = data["subject"]
        found = Statement(
            name=_str(subject["name"]),
            sha256=_str(subject["digest"]["sha256"]),
            predicate_type=_str(data["predicateType"]),
            predicate=data["predicate"],
            key=prover,
        )
    except (ValueError, TypeError, KeyError) as error:
        raise _refused("it is signed, but no statement about one artifact") from error
    if data["_type"] != STATEMENT_TYPE or not isinstance(found.predicate, dict) or _depth(data) > DEPTH_MAX:
        raise _refused("it is signed, but no in-toto statement of version 1")
    return found


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value).__name__)
    return value


def _json(text: str | bytes) -> Any:
    """Bounded in depth by the parser itself, and without numbers that JSON does not have."""
    return pydantic_core.from_json(text, allow_inf_nan=False)


def _text(envelope: dsse.Envelope) -> str:
    return _canonical(envelope.to_dict())


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list | tuple) else 0


TAMPERED_HINT: Final = (
    "Restore the last backup of the state; `tide audit` shows what was done through Tidegate."
)


def _refused(why: str) -> errors.SealError:
    return errors.SealError(f"The statement is refused: {why}.", hint=TAMPERED_HINT)
