"""Keeps the issuer's token that begins a chain, sealed, before its hop is signed. Runs in the ``sign`` function.

Rules: what cannot be kept begins no chain; the object is put before the hop that names it, so that a signed hop whose
proof is not there shows a removal; its name is its hash, so that exchanges that race, or one that died between the two,
leave an object that no hop names, and never another's. ``sign`` seals and cannot open: ``open_token`` can.
"""

from __future__ import annotations

from typing import Final

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import TokenInvalid
from chalicelib.domain.identifiers import Txn
from chalicelib.domain.identity import VerifiedIdentity
from chalicelib.domain.kept_proof import MAX_KEPT, KeptProof, kept_key, proof_context, proof_sha256
from chalicelib.domain.store import Objects, Vault

CONTENT_TYPE: Final = "application/json"


class KeepProof:
    """Seals and stores."""

    def __init__(self, *, vault: Vault, objects: Objects, clock: Clock) -> None:
        self._vault = vault
        self._objects = objects
        self._clock = clock

    def __call__(self, txn: Txn, who: VerifiedIdentity) -> str:
        """Return the SHA-256 of the stored object, for the origin hop of ``txn``. Each call stores another object.

        Raises StoreUnavailable, NotFound where there is no key, TokenInvalid where issuer's keys and token are larger
        than any.
        """
        plain = who.proof.document()
        expires_at = who.expires_at
        context = proof_context(txn, who.evidence.claims_sha256, proof_sha256(plain), expires_at)
        kept = KeptProof(
            txn=txn,
            issuer=who.identity.issuer,
            claims_sha256=who.evidence.claims_sha256,
            proof_sha256=proof_sha256(plain),
            expires_at=expires_at,
            kept_at=self._clock.now(),
            data=self._vault.seal(plain, context),
        )
        body = kept.document()
        if len(body) > MAX_KEPT:
            raise TokenInvalid("the issuer's token and keys are larger than any that are kept")
        sha256 = sha256_hex(body)
        self._objects.put_new(kept_key(txn, sha256), body, content_type=CONTENT_TYPE)
        return sha256
