"""What a signature of ours covers: the SHA-256 of a canonical value, under a type that keeps purposes apart.

The compact JWS's payload is ``{"sha256": HASH}``: small enough for KMS to sign as it is (4,096 bytes), and the JWS
header's ``typ`` stops a signature over one kind of thing from standing for another (RFC 8725 section 3.11).
"""

from __future__ import annotations

import base64
import re
from enum import StrEnum
from typing import Final

from chalicelib.domain.canonical import canonical

_HASH: Final = re.compile(r"[0-9a-f]{64}\Z")  # such a text is its own canonical form, in quotes
MAX_SIGNING_INPUT: Final = 4096  # what KMS Sign takes as it is (MessageType RAW), so that no signer signs a bare digest


class KeyPurpose(StrEnum):
    """A KMS key each; a role can use no other's."""

    TOKEN = "token"  # ``sign``: tokens, origin and delegate hops
    ANSWER = "answer"  # ``decide``: answers
    RECORD = "record"  # the broker: target hops, manifests, a boot's last number
    SWEEP = "sweep"  # ``sweep``: manifests of what a dead broker left, and nothing else
    SIGNOFF = "signoff"  # ``sign_off``: that a person signed an access review off
    ACTIVATION = "activation"  # who may push configuration
    DIGEST = "digest"  # ``digest``: the hourly digests
    COPY = "copy"  # ``vouch_copy``: that somebody made a copy of evidence, and its hash
    SSH_USER = "ssh-user"  # ``sign``: certificates with which clients enter the broker's sshd
    SSH_TARGET = "ssh-target"  # ``mint``: certificates with which the broker enters targets


# Their keys sign certificates and nothing else; the others' sign JWS and nothing else.
SSH_PURPOSES: Final = frozenset({KeyPurpose.SSH_USER, KeyPurpose.SSH_TARGET})


def signed_payload(sha256: str) -> bytes:
    """Return the payload that a signature over the value with this hash has."""
    return b'{"sha256":"%b"}' % sha256.encode() if _HASH.match(sha256) else canonical({"sha256": sha256})


def checked_message(purpose: KeyPurpose, message: bytes) -> bytes:
    """Return ``message``, which the key of an SSH ``purpose`` may sign as it is. Raises ValueError for another purpose,
    and past ``MAX_SIGNING_INPUT`` bytes. Pure."""
    if purpose not in SSH_PURPOSES:
        raise ValueError(f"the {purpose.value} key signs JWS and nothing else")
    if len(message) > MAX_SIGNING_INPUT:
        raise ValueError(f"a message of {len(message)} bytes is past the {MAX_SIGNING_INPUT} that KMS signs")
    return message


def check_signs_jws(purpose: KeyPurpose) -> None:
    """Raise ValueError where the key of ``purpose`` signs SSH certificates alone. Pure."""
    if purpose in SSH_PURPOSES:
        raise ValueError(f"the {purpose.value} key signs SSH certificates and nothing else")


def signing_input(typ: str, kid: str, payload: bytes) -> bytes:
    """Return the JWS signing input (RFC 7515 section 5.1) of ``payload`` under ES256: what every Signer signs.

    Raises ValueError past ``MAX_SIGNING_INPUT`` bytes. Pure.
    """
    header = canonical({"alg": "ES256", "kid": kid, "typ": typ})
    text = _base64url(header) + b"." + _base64url(payload)
    if len(text) > MAX_SIGNING_INPUT:
        raise ValueError(f"a signing input of {len(text)} bytes is past the {MAX_SIGNING_INPUT} that KMS signs")
    return text


def compact(signing: bytes, signature: bytes) -> str:
    """Return the compact JWS of a signing input and its 64 bytes ``r || s`` (RFC 7518 section 3.4). Pure."""
    return (signing + b"." + _base64url(signature)).decode()


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
