"""Passkey and Assertion: the authenticator that a person registered, and what it signed for one answer.

Why: a click proves that somebody held a Slack session, and our signature over the answer proves only that ``decide``
says so. An assertion is signed by a key that neither Slack nor we hold, over this Ask, this yes or no and these blocks:
who stole a Slack account, the answer key or a table can make none.

Rules: a passkey counts for a person because the signed configuration says so, and for nobody else; the challenge names
everything that the answer means, so that an assertion is good for one answer and no other. Pure: the bytes of an
assertion are read and its signature is checked by ``chalicelib.identity.webauthn``.
Source: W3C Web Authentication Level 3, sections 5.8.1 (client data), 6.1 (authenticator data) and 7.2 (verification).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.activation import Activation
from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.identifiers import AskId

ASSERTION_VERSION: Final = 1
_WHAT: Final = "countersign-answer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Passkey:
    """A WebAuthn credential of a person. ``id`` is the credential's, base64url; ``public_key`` its
    SubjectPublicKeyInfo, base64; ``rp`` the relying party's id (a host name) that it was made for."""

    id: str
    public_key: str
    rp: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Assertion:
    """What a passkey signed. ``client_data``, ``authenticator_data`` and ``signature`` are base64url, as the browser
    gave them; ``activation`` is the signed configuration in which ``passkey`` was the person's."""

    passkey: Passkey
    client_data: str
    authenticator_data: str
    signature: str
    activation: Activation

    def signed(self) -> Mapping[str, Json]:
        """Return it as the answer's signature covers it."""
        return {
            "v": ASSERTION_VERSION,
            "passkey": {"id": self.passkey.id, "public_key": self.passkey.public_key, "rp": self.passkey.rp},
            "client_data": self.client_data,
            "authenticator_data": self.authenticator_data,
            "signature": self.signature,
            "activation": {**self.activation.signed(), "signature": self.activation.signature},
        }


def answer_challenge(ask_id: AskId, digest: str, card_sha256: str, *, approved: bool) -> bytes:
    """Return the 32 bytes that a passkey signs for one answer: the Ask, its digest, yes or no, and the blocks that were
    shown. Nothing random is in it: an Ask's id is used once, and a person answers it once. Pure."""
    said: Mapping[str, Json] = {
        "v": ASSERTION_VERSION,
        "what": _WHAT,
        "ask": ask_id,
        "digest": digest,
        "approved": approved,
        "card_sha256": card_sha256,
    }
    return hashlib.sha256(canonical(said)).digest()
