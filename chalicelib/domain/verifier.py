"""The session secret's verifier: what the table holds instead of the secret.

SCRAM-SHA-256 keys (RFC 5802 section 3, RFC 7677): with them the broker can check a proof and prove itself, and a thief
of the table can do neither without also breaking SHA-256 on 256 random bits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.secret import Secret

ITERATIONS: Final = 4096  # RFC 7677's minimum: the secret has 256 random bits, so stretching it buys nothing
SALT_BYTES: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Verifier:
    """SCRAM-SHA-256 keys of one session secret; byte strings are base64 text."""

    salt: str
    iterations: int
    stored_key: str
    server_key: str


def new_session_secret() -> Secret:
    """Return a new secret of 256 random bits, in characters that survive a URL, a shell and a connection string."""
    return Secret(secrets.token_urlsafe(32))


def verifier_of(secret: Secret, salt: bytes | None = None) -> Verifier:
    """Return the verifier of ``secret`` under ``salt``, else under a new random one."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", secret.expose().encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return Verifier(
        salt=base64.b64encode(salt).decode(),
        iterations=ITERATIONS,
        stored_key=base64.b64encode(stored).decode(),
        server_key=base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode(),
    )


def matches(verifier: Verifier, presented: str) -> bool:
    """Return whether ``presented`` is the secret, for protocols that send it whole (ssh). Takes the same time for each
    answer. Pure."""
    told = verifier_of(Secret(presented), base64.b64decode(verifier.salt))
    return hmac.compare_digest(told.stored_key, verifier.stored_key)


def stranger_verifier(login: str, pepper: bytes) -> Verifier:
    """Return a verifier that nothing matches, the same for the same ``login``.

    A login that names no session gets this one, so that a stranger sees the same exchange, at the same cost, with a
    salt that does not change between tries (RFC 5802 section 9 names the user-enumeration leak).
    """
    seed = hmac.digest(pepper, login.encode(), "sha256")
    return Verifier(
        salt=base64.b64encode(seed[:SALT_BYTES]).decode(),
        iterations=ITERATIONS,
        stored_key=base64.b64encode(hmac.digest(seed, b"stored", "sha256")).decode(),
        server_key=base64.b64encode(hmac.digest(seed, b"server", "sha256")).decode(),
    )
