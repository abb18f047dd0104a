"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both roles, over bytes.

Rules: nonces and channel binding data are arguments (the machine has no randomness); proofs are compared in constant
time; the server role takes the same steps for a verifier that nothing matches, so that a stranger learns nothing; a
client that says "I could bind but you did not offer it" (``y``) to a server that did offer is refused, since somebody
between them removed the offer.

Source: RFC 5802 sections 3, 5, 7; RFC 7677; RFC 5929 section 4 (tls-server-end-point); PostgreSQL 15 chapter 55.3.
PostgreSQL ignores the user name in the exchange (the StartupMessage has it), and so does this.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import stringprep
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.wire.violation import RemoteViolation

PLAIN: Final = "SCRAM-SHA-256"
PLUS: Final = "SCRAM-SHA-256-PLUS"
# A target that asks for more work than this per login is broken or hostile: 1,000,000 rounds take half a second.
MAX_ITERATIONS: Final = 1_000_000


class ProofRefused(Exception):
    """The peer does not know the secret (or, for a client, the server does not)."""


@dataclass(frozen=True, slots=True, repr=False)
class ScramKeys:
    """What a server keeps: raw bytes."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


class ScramServer:
    """One exchange: :meth:`first`, then :meth:`final`."""

    def __init__(self, keys: ScramKeys, *, nonce: str, binding: bytes | None) -> None:
        """``nonce``: at least 18 random bytes as printable ASCII. ``binding``: tls-server-end-point data, or None
        where there is no TLS."""
        self._keys = keys
        self._nonce = nonce
        self._binding = binding
        self._bare = ""
        self._gs2 = b""
        self._bound = False
        self._server_first = ""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        return (PLAIN,) if self._binding is None else (PLUS, PLAIN)

    def first(self, mechanism: str, client_first: bytes) -> bytes:
        """Return the server-first-message. Raises RemoteViolation."""
        if mechanism not in self.mechanisms:
            raise RemoteViolation("a mechanism that was not offered")
        text = _ascii_or_utf8(client_first)
        parts = text.split(",", 2)
        if len(parts) != 3:
            raise RemoteViolation("a client-first-message without its header")
        flag, authorization, self._bare = parts
        if authorization:
            raise RemoteViolation("an authorization identity")
        self._bound = mechanism == PLUS
        if self._bound != flag.startswith("p="):
            raise RemoteViolation("a channel binding flag that contradicts the mechanism")
        if self._bound and flag != "p=tls-server-end-point":
            raise RemoteViolation("a channel binding that is not known")
        if not self._bound and (flag not in ("n", "y") or (flag == "y" and self._binding is not None)):
            raise RemoteViolation("the offer of channel binding was removed on the way")
        self._gs2 = f"{flag},,".encode()
        fields = self._bare.split(",")
        if len(fields) < 2 or not fields[0].startswith("n=") or not fields[1].startswith("r=") or len(fields[1]) < 12:
            raise RemoteViolation("a client-first-message without user and nonce")
        self._nonce = fields[1][2:] + self._nonce
        salt = base64.b64encode(self._keys.salt).decode()
        self._server_first = f"r={self._nonce},s={salt},i={self._keys.iterations}"
        return self._server_first.encode()

    def final(self, client_final: bytes) -> bytes:
        """Return the server-final-message once the proof was verified. Raises ProofRefused, RemoteViolation."""
        without, mark, proof_text = _ascii_or_utf8(client_final).rpartition(",p=")
        fields = without.split(",")
        if not mark or len(fields) < 2 or not fields[0].startswith("c=") or not fields[1].startswith("r="):
            raise RemoteViolation("a client-final-message without binding, nonce and proof")
        expected = self._gs2 + (self._binding or b"" if self._bound else b"")
        if not hmac.compare_digest(_unbase64(fields[0][2:]), expected):
            raise ProofRefused("the channel is bound to another certificate")
        if not hmac.compare_digest(fields[1][2:].encode(), self._nonce.encode()):
            raise RemoteViolation("a nonce that is not this exchange's")
        proof = _unbase64(proof_text)
        if len(proof) != 32:
            raise RemoteViolation("a proof of wrong length")
        message = f"{self._bare},{self._server_first},{without}".encode()
        signature = hmac.digest(self._keys.stored_key, message, "sha256")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._keys.stored_key):
            raise ProofRefused("the proof is wrong")
        return b"v=" + base64.b64encode(hmac.digest(self._keys.server_key, message, "sha256"))


class ScramClient:
    """One exchange in the client's role: send :attr:`first` under :attr:`mechanism`, :meth:`final`, :meth:`verify`."""

    def __init__(self, password: str, *, offered: Sequence[str], nonce: str, binding: bytes | None) -> None:
        """Raises RemoteViolation where nothing that was offered is known."""
        plus = binding is not None and PLUS in offered
        if not plus and PLAIN not in offered:
            raise RemoteViolation("no mechanism that is known was offered")
        self.mechanism: Final = PLUS if plus else PLAIN
        flag = "p=tls-server-end-point" if plus else "n" if binding is None else "y"
        self._password = password
        self._nonce = nonce
        self._header = f"{flag},,".encode() + (binding or b"" if plus else b"")
        self._bare = f"n=,r={nonce}"
        self.first: Final = f"{flag},,{self._bare}".encode()
        self._signature = b""

    def final(self, server_first: bytes) -> bytes:
        """Return the client-final-message. Raises RemoteViolation."""
        text = _ascii_or_utf8(server_first)
        fields = text.split(",")
        if len(fields) < 3 or [field[:2] for field in fields[:3]] != ["r=", "s=", "i="]:
            raise RemoteViolation("a server-first-message without nonce, salt and rounds")
        nonce, salt, rounds = fields[0][2:], _unbase64(fields[1][2:]), fields[2][2:]
        if not nonce.startswith(self._nonce) or len(nonce) <= len(self._nonce):
            raise RemoteViolation("a nonce that does not extend ours")
        if not rounds.isascii() or not rounds.isdigit() or not 1 <= int(rounds) <= MAX_ITERATIONS:
            raise RemoteViolation("a number of rounds that is not accepted")
        salted = hashlib.pbkdf2_hmac("sha256", saslprep(self._password).encode(), salt, int(rounds))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without = f"c={base64.b64encode(self._header).decode()},r={nonce}"
        message = f"{self._bare},{text},{without}".encode()
        mask = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, mask, strict=True))
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return f"{without},p={base64.b64encode(proof).decode()}".encode()

    def verify(self, server_final: bytes) -> None:
        """Raises ProofRefused unless the server knows the secret too."""
        text = _ascii_or_utf8(server_final)
        if not self._signature or not text.startswith("v="):
            raise ProofRefused("the server did not prove itself")
        if not hmac.compare_digest(_unbase64(text[2:]), self._signature):
            raise ProofRefused("the server does not know the secret")


def saslprep(password: str) -> str:
    """Return ``password`` prepared as PostgreSQL does: RFC 4013, or unchanged where that would refuse it."""
    if password.isascii():
        return password
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c))
    prepared = unicodedata.normalize("NFKC", mapped)
    refused = (
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
        stringprep.in_table_a1,
    )
    if not prepared or any(table(c) for c in prepared for table in refused):
        return password
    if any(stringprep.in_table_d1(c) for c in prepared):
        edges = stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])
        if not edges or any(stringprep.in_table_d2(c) for c in prepared):
            return password
    return prepared


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteViolation("base64 that is none") from None


def _ascii_or_utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise RemoteViolation("text that is not UTF-8") from None
