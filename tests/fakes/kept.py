"""The kept token of an archive's first hop: really signed by an issuer, really sealed, with nothing of the services
that read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from chalicelib.domain.canonical import digest, sha256_hex
from chalicelib.domain.identifiers import Txn
from chalicelib.domain.kept_proof import IssuerProof, KeptProof, kept_key, proof_context, proof_sha256
from chalicelib.domain.secret import Secret
from chalicelib.domain.store import Stores
from tests.fakes.issuer import JWKS_URI, MemoryIssuer, claims

LIVES = timedelta(minutes=5)


@lru_cache(1)
def issuer() -> MemoryIssuer:
    """One RSA key for the whole test run: making one takes most of a second."""
    return MemoryIssuer()


@dataclass(frozen=True, kw_only=True)
class IssuedToken:
    proof: IssuerProof
    claims_sha256: str
    expires_at: datetime


def issued_token(now: datetime) -> IssuedToken:
    """Return a token of GitHub's shape that was verified ``now``."""
    issued = int(now.timestamp())
    told = claims(iat=issued, nbf=issued, exp=issued + int(LIVES.total_seconds()))
    proof = IssuerProof(
        token=Secret(issuer().token(told)), jwks_uri=JWKS_URI, jwks=dict(issuer().fetch(JWKS_URI)), fetched_at=now
    )
    expires_at = now.replace(microsecond=0) + LIVES
    return IssuedToken(proof=proof, claims_sha256=digest(told), expires_at=expires_at)


def keep_token(stores: Stores, txn: Txn, issuer_url: str, issued: IssuedToken, now: datetime) -> str:
    """Seal and put it; return the hash that the hop names."""
    plain = issued.proof.document()
    context = proof_context(txn, issued.claims_sha256, proof_sha256(plain), issued.expires_at)
    kept = KeptProof(
        txn=txn,
        issuer=issuer_url,
        claims_sha256=issued.claims_sha256,
        proof_sha256=proof_sha256(plain),
        expires_at=issued.expires_at,
        kept_at=now,
        data=stores.vault.seal(plain, context),
    )
    body = kept.document()
    stores.objects.put_new(kept_key(txn, sha256_hex(body)), body, content_type="application/json")
    return sha256_hex(body)
