"""Proofs of a key for requests to this service: each counts once, and is for our own address.

The address is this service's own public one and never what the request says of itself: a proof made for another
service, to which a client was led, is none here. What a key is allowed is not decided here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import KeyProofInvalid
from chalicelib.domain.store import Once
from chalicelib.identity.dpop import WINDOW, Proof, verify_proof

TOKEN_PATH: Final = "/v1/token"
_MEMORY: Final = WINDOW + timedelta(seconds=1)  # past ``iat``: as long as the proof could be shown again


class Proofs:
    """Verifies proofs for one service. Thread-safe where the store is."""

    def __init__(self, *, once: Once, clock: Clock, public_url: str) -> None:
        """``public_url`` is without a slash at its end."""
        self._once = once
        self._clock = clock
        self._public_url = public_url

    def proved(self, proof: str, method: str, path: str, token: str | None, *, count_once: bool = True) -> Proof:
        """Return what ``proof`` proves for a request of ``method`` to ``path`` with the access token ``token``.

        Raises KeyProofInvalid, StoreUnavailable. Counts it unless told otherwise: by :meth:`count`, later, or because
        the function that the request came to has counted it.
        """
        if not proof:
            raise KeyProofInvalid("a DPoP proof of your key is missing")
        found = verify_proof(proof, method=method, url=f"{self._public_url}{path}", token=token, clock=self._clock)
        if count_once:
            self.count(found)
        return found

    def at_token_endpoint(self, proof: str) -> Proof:
        """Return what ``proof`` proves for ``POST /v1/token``, where no access token goes with it; it is not counted
        before what it comes with has been verified, so that a stranger makes us write nothing. Raises
        KeyProofInvalid."""
        return self.proved(proof, "POST", TOKEN_PATH, None, count_once=False)

    def count(self, proof: Proof) -> None:
        """Use ``proof`` up. Raises KeyProofInvalid where it was used before, StoreUnavailable."""
        value = sha256_hex(f"{proof.thumbprint}#{proof.jti}".encode())
        now, until = self._clock.now(), proof.issued_at + _MEMORY
        if self._once.claim("dpop", value, "", expires_at=until, now=now) is not None:
            raise KeyProofInvalid("this DPoP proof was used before", hint="Make a new proof for each request.")
