"""Whether an answer's assertion is a passkey's over exactly that answer: for ``decide``, and again for every reader.

Rules: the signature is checked first, over the bytes as they came, and only then is anything in them read; the
challenge is computed from the answer and never taken from it; the origin must be one at which the relying party's id
may be used, and the user must have been present *and* verified (a PIN or a finger: a key that was left in its slot
answers nothing). ES256 and RS256 alone, which is what the registration page asks for.

Does not say whose passkey it is (``services.access.as_registered``, ``services.passkeys``), nor compare counters or the
deployment's own origin, which ``decide`` does: those are of the moment.
Source: W3C Web Authentication Level 3, section 7.2, steps 11 to 21; python-fido2 reads the structures (ADR 0021).
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from dataclasses import dataclass
from hmac import compare_digest
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from fido2.cose import ES256, RS256, CoseKey
from fido2.rpid import verify_rp_id
from fido2.webauthn import AuthenticatorData, CollectedClientData

from chalicelib.domain.ask import Answer
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.passkey import Assertion, answer_challenge
from chalicelib.identity.compact import MIN_RSA_BITS, Malformed, json_object

MAX_CLIENT_DATA: Final = 2048  # browsers write 130 to 250 bytes, more with an origin of 253 characters
MAX_AUTHENTICATOR_DATA: Final = 1024  # 37 bytes without extensions, and we ask for none
MAX_SIGNATURE: Final = 1024  # ES256 at most 72 bytes, RS256 with 4,096 bits 512
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+\Z")
# What reading bytes of somebody else's choice raises in the libraries: CBOR, DER, JSON, struct.
_UNREADABLE: Final = (ValueError, KeyError, TypeError, IndexError, AttributeError, struct.error, RecursionError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What a verified assertion tells of its making. ``counter`` is 0 for authenticators that keep none (synced
    passkeys)."""

    origin: str
    counter: int


def verify_assertion(answer: Answer) -> Shown | None:
    """Return what the answer's assertion tells; None where the answer has none.

    Raises ProofInvalid unless the passkey that it names signed this very answer. Pure.
    """
    given = answer.assertion
    if given is None:
        return None
    challenge = answer_challenge(answer.ask_id, answer.digest, answer.card_sha256, approved=answer.approved)
    try:
        return _shown(given, challenge)
    except InvalidSignature:
        why = "the passkey did not sign it"
    except _UNREADABLE as error:
        why = str(error) if isinstance(error, _Wrong) else f"it cannot be read: {type(error).__name__}"
    raise ProofInvalid("the passkey's assertion does not verify", ask=answer.ask_id, why=why)


class _Wrong(ValueError):
    """It is well formed and says something else than it must."""


def _shown(given: Assertion, challenge: bytes) -> Shown:
    client_data = _decoded(given.client_data, MAX_CLIENT_DATA)
    authenticator_data = _decoded(given.authenticator_data, MAX_AUTHENTICATOR_DATA)
    signature = _decoded(given.signature, MAX_SIGNATURE)
    signed = authenticator_data + hashlib.sha256(client_data).digest()
    _cose_key(given.passkey.public_key).verify(signed, signature)
    _require_client_data(client_data, challenge, given.passkey.rp)
    told = AuthenticatorData(authenticator_data)
    if not compare_digest(told.rp_id_hash, hashlib.sha256(given.passkey.rp.encode()).digest()):
        raise _Wrong("it was made for another relying party")
    if not told.is_user_present() or not told.is_user_verified():
        raise _Wrong("the person was not verified")
    return Shown(origin=CollectedClientData(client_data).origin, counter=told.counter)


def _require_client_data(client_data: bytes, challenge: bytes, rp: str) -> None:
    try:
        said = json_object(client_data)  # a member that is there twice is read differently by different readers
    except Malformed:
        raise _Wrong("its client data is not JSON that names each member once") from None
    told = CollectedClientData(client_data)
    if told.type != CollectedClientData.TYPE.GET.value:
        raise _Wrong("it is not an assertion")
    if not compare_digest(told.challenge, challenge):
        raise _Wrong("it is over something else")
    if told.cross_origin is not False or "topOrigin" in said:
        raise _Wrong("it was made inside another site's page")
    if not isinstance(told.origin, str) or not verify_rp_id(rp, told.origin):
        raise _Wrong("it was made on another site")


def _cose_key(public_key: str) -> CoseKey:
    key = load_der_public_key(base64.b64decode(public_key, validate=True))
    found: CoseKey
    match key:
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            found = ES256.from_cryptography_key(key)  # type: ignore[no-untyped-call] # fido2's own
        case RSAPublicKey() if key.key_size >= MIN_RSA_BITS:
            found = RS256.from_cryptography_key(key)  # type: ignore[no-untyped-call] # fido2's own
        case _:
            raise _Wrong("its key is of another kind")
    return found


def _decoded(text: str, most: int) -> bytes:
    if not _BASE64URL.match(text) or len(text) > most * 4 // 3 + 4:
        raise _Wrong("a part of it is not base64url of a sensible length")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
