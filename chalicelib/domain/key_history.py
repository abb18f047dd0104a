"""KeyEntry: one key of a purpose in that purpose's history, signed by the key before it and by itself.

Why: an auditor gets fingerprints at onboarding, and keys are changed. Whoever could make a new key and sign everything
anew with it would pass, if the new fingerprint came from whoever keeps the evidence. So a key is introduced by the one
before: ``keys/v1/PURPOSE/NNNN.json``, numbered without holes, put once, under the lock. Signed by itself as well, it
says that its holder took part, and, since an entry names the hash of the one before, that those before it are its own.

Rules: the keys of the SSH purposes sign certificates and nothing else, so they have no history. Reads and checks
nothing (``services.key_history``). Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from chalicelib.domain.canonical import Json, canonical, digest, timestamp
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.signature import SSH_PURPOSES, KeyPurpose

KEY_VERSION: Final = 1
KEY_SIGNATURE_TYPE: Final = "countersign-key+jws"
KEYS: Final = "keys/v1"
PURPOSES: Final = tuple(purpose for purpose in KeyPurpose if purpose not in SSH_PURPOSES)
MAX_ENTRY: Final = 16 * 1024  # two signatures and a key are some 1,500 bytes
_PLACE: Final = re.compile(r"keys/v1/([a-z-]{1,32})/([0-9]{4})\.json\Z")
_JWK: Final = frozenset({"kty", "crv", "x", "y", "kid"})


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyEntry:
    """One key. ``number`` counts from 1; ``previous_sha256`` is the hash of the entry before, empty for the first.
    ``signed_by_previous`` is empty for the first; both are compact JWS of ``KEY_SIGNATURE_TYPE`` over the hash."""

    purpose: KeyPurpose
    number: int
    jwk: Mapping[str, str]
    previous_sha256: str
    made_at: datetime
    by: str
    signed_by_previous: str = ""
    signed_by_itself: str = ""

    def signed(self) -> Mapping[str, Json]:
        """Return exactly what the signatures cover."""
        return {
            "v": KEY_VERSION,
            "purpose": self.purpose.value,
            "number": self.number,
            "jwk": dict(self.jwk),
            "previous_sha256": self.previous_sha256,
            "made_at": timestamp(self.made_at),
            "by": self.by,
        }

    def sha256(self) -> str:
        return digest(self.signed())

    def document(self) -> bytes:
        """Return the stored object's bytes, of which there is one form."""
        signatures = {"signed_by_previous": self.signed_by_previous, "signed_by_itself": self.signed_by_itself}
        return canonical({**self.signed(), **signatures})


def entry_key(purpose: KeyPurpose, number: int) -> str:
    """Return the key of the object of this number. Pure."""
    return f"{KEYS}/{purpose.value}/{number:04d}.json"


def entry_place(key: str) -> tuple[KeyPurpose, int] | None:
    """Return the purpose and number that an object's key says; None where it is no entry's. Pure."""
    found = _PLACE.match(key)
    purpose = next((one for one in PURPOSES if found is not None and one.value == found[1]), None)
    return None if found is None or purpose is None else (purpose, int(found[2]))


def read_entry(body: bytes) -> KeyEntry:
    """Return the entry in an object. Raises ProofInvalid where it is none of ours. Pure."""
    try:
        said = _object(body)
        entry = KeyEntry(
            purpose=KeyPurpose(said["purpose"]),
            number=said["number"],
            jwk={str(name): str(value) for name, value in said["jwk"].items()},
            previous_sha256=said["previous_sha256"],
            made_at=datetime.fromisoformat(said["made_at"]),
            by=said["by"],
            signed_by_previous=said["signed_by_previous"],
            signed_by_itself=said["signed_by_itself"],
        )
        same = entry.document() == body and set(entry.jwk) == _JWK
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        same = False
    if not same:
        raise ProofInvalid("an entry of a key's history cannot be read")
    return entry


def _object(body: bytes) -> dict[str, Any]:
    found = json.loads(body) if len(body) <= MAX_ENTRY else None
    if not isinstance(found, dict) or found.get("v") != KEY_VERSION:
        raise ValueError("another version")
    return found
