"""What a signature of ours covers: the SHA-256 of a canonical value, under a type that keeps purposes apart.

The compact JWS's payload is ``{"sha256": HASH}``: small enough for KMS to sign as it is (4,096 bytes), and the JWS
header's ``typ`` stops a signature over one kind of thing from standing for another (RFC 8725 section 3.11).
"""

from __future__ import annotations

from enum import StrEnum

from chalicelib.domain.canonical import canonical


class KeyPurpose(StrEnum):
    """A KMS key each; a role can use no other's."""

    TOKEN = "token"  # ``sign``: tokens, origin and delegate hops
    ANSWER = "answer"  # ``decide``: answers
    RECORD = "record"  # the broker: target hops, manifests
    ACTIVATION = "activation"  # who may push configuration


def signed_payload(sha256: str) -> bytes:
    """Return the payload that a signature over the value with this hash has."""
    return canonical({"sha256": sha256})
