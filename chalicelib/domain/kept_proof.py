"""KeptProof: the issuer's token that began a chain, whole, with the issuer's keys as fetched; sealed until it expired.

Why: "who initiated" is our own word as long as only what we wrote is kept. The token is the issuer's, and anybody can
verify it with the issuer's keys; but whoever could read it while it lives could present it elsewhere. So it is stored
encrypted (``kept/v1/TXN/SHA256.json``, named by its own hash), and given out only when it has expired.

Rules: the origin hop's signed evidence names the SHA-256 of the stored object, and the object that of the plain proof:
an opened copy is bound to the hop as the sealed one is. Who and until when (:meth:`KeptProof.context`) is the
*encryption context* of its key: another end in the object, and nothing decrypts it. Pure; encrypts and reads nothing.
Source: AWS KMS Developer Guide, "Encryption context"; RFC 7515 (the token), RFC 7517 (the keys).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from chalicelib.domain.canonical import Json, canonical, sha256_hex, timestamp
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import Txn
from chalicelib.domain.secret import Secret

KEPT_VERSION: Final = 1
KEPT: Final = "kept/v1"
MAX_KEPT: Final = 1024 * 1024  # a token has 16 KiB at most, an issuer's keys 256 KiB, and base64 adds a third
# Verifiers elsewhere allow for clocks that are off, some of them by five minutes: until then a token is worth stealing.
SPENT_AFTER: Final = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuerProof:
    """A token as its issuer signed it, the JWK Set that it was verified with, from where, and when that was fetched."""

    token: Secret
    jwks_uri: str
    jwks: Mapping[str, Json]
    fetched_at: datetime

    def document(self) -> bytes:
        """Return its one byte form, which has the token in it: seal it, or keep it as the secret that it is."""
        return canonical(
            {
                "v": KEPT_VERSION,
                "token": self.token.expose(),
                "jwks_uri": self.jwks_uri,
                "jwks": self.jwks,
                "fetched_at": timestamp(self.fetched_at),
            }
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedData:
    """What envelope encryption makes: the data key under the key of the vault, the nonce, and the text with its tag."""

    data_key: bytes
    nonce: bytes
    sealed: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptProof:
    """A sealed proof. ``claims_sha256`` is that of the hop's evidence, ``proof_sha256`` that of the plain document."""

    txn: Txn
    issuer: str
    claims_sha256: str
    proof_sha256: str
    expires_at: datetime
    kept_at: datetime
    data: SealedData

    def context(self) -> Mapping[str, str]:
        """Return what its encryption is bound to: without exactly this nothing decrypts it. Not secret."""
        return proof_context(self.txn, self.claims_sha256, self.proof_sha256, self.expires_at)

    def document(self) -> bytes:
        """Return the stored object's bytes, of which there is one form."""
        return canonical(
            {
                "v": KEPT_VERSION,
                "txn": self.txn,
                "issuer": self.issuer,
                "claims_sha256": self.claims_sha256,
                "proof_sha256": self.proof_sha256,
                "expires_at": timestamp(self.expires_at),
                "kept_at": timestamp(self.kept_at),
                "data_key": _text(self.data.data_key),
                "nonce": _text(self.data.nonce),
                "sealed": _text(self.data.sealed),
            }
        )

    def readable_at(self) -> datetime:
        """Return from when on it may be opened."""
        return self.expires_at + SPENT_AFTER


def proof_context(txn: Txn, claims_sha256: str, proof_sha256: str, expires_at: datetime) -> Mapping[str, str]:
    """Return the encryption context of a proof. Pure."""
    return {
        "countersign:kept": f"v{KEPT_VERSION}",
        "countersign:txn": txn,
        "countersign:claims": claims_sha256,
        "countersign:proof": proof_sha256,
        "countersign:expires": timestamp(expires_at),
    }


def kept_key(txn: Txn, sha256: str) -> str:
    """Return the key of the object with this hash. Pure."""
    return f"{KEPT}/{txn}/{sha256}.json"


def read_kept(body: bytes) -> KeptProof:
    """Return the kept proof in an object. Raises ProofInvalid where it is none of ours. Pure."""
    try:
        said = _object(body)
        kept = KeptProof(
            txn=Txn(said["txn"]),
            issuer=said["issuer"],
            claims_sha256=said["claims_sha256"],
            proof_sha256=said["proof_sha256"],
            expires_at=_moment(said["expires_at"]),
            kept_at=_moment(said["kept_at"]),
            data=SealedData(
                data_key=_bytes(said["data_key"]), nonce=_bytes(said["nonce"]), sealed=_bytes(said["sealed"])
            ),
        )
        same = kept.document() == body
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ProofInvalid("the kept proof cannot be read") from None
    if not same:
        raise ProofInvalid("the kept proof cannot be read", why="it has another form than ours")
    return kept


def read_proof(body: bytes) -> IssuerProof:
    """Return the proof in an opened document. Raises ProofInvalid where it is none of ours. Pure."""
    try:
        said = _object(body)
        jwks = said["jwks"]
        proof = IssuerProof(
            token=Secret(said["token"]),
            jwks_uri=said["jwks_uri"],
            jwks=jwks if isinstance(jwks, dict) else {},
            fetched_at=_moment(said["fetched_at"]),
        )
        same = proof.document() == body
    except (KeyError, TypeError, ValueError, AttributeError):
        same = False
    if not same:
        raise ProofInvalid("the issuer's proof cannot be read")  # nothing of it is quoted: it has a token in it
    return proof


def proof_sha256(document: bytes) -> str:
    """Return the hash under which a plain document is known. A token's signature is in it, so that the hash tells
    nobody who lacks the token anything. Pure."""
    return sha256_hex(document)


def _object(body: bytes) -> dict[str, Any]:
    if len(body) > MAX_KEPT:
        raise ValueError("larger than any")
    try:
        found = json.loads(body)
    except RecursionError:
        raise ValueError("nested without end") from None
    if not isinstance(found, dict) or found.get("v") != KEPT_VERSION:
        raise ValueError("another version")
    return found


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone")
    return moment


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("no base64") from error
