"""Checks the kept proofs of a chain: that the issuer's token which began it is there, is that hop's, and is the
issuer's.

Rules: an origin hop of a version that keeps its token names an object, and it must be there, whole, of this chain.
While it is sealed that is all that anybody can see. Where it was opened (``GET /v1/chains/{txn}/token``) the plain
proof must be the one that was sealed, the token must verify with the keys that were fetched then, and its claims must
be those that the hop hashed: so that who initiated is the issuer's word. What those keys prove about the issuer, years
later, is what was believed of its address then; an auditor may compare them with the issuer's own history. Opens
nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from chalicelib.domain.canonical import digest, sha256_hex
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.kept_proof import (
    KeptProof,
    kept_key,
    proof_sha256,
    read_kept,
    read_proof,
)
from chalicelib.domain.reading import ReadObjects
from chalicelib.identity.compact import Malformed, check, json_object, take_apart
from chalicelib.services.reviewed import Finding, FindingKind

KEEPS_SINCE = 4  # the version of hops from which on an origin names what it keeps


def kept_findings(hops: Iterable[Hop], objects: ReadObjects, opened: Mapping[str, bytes]) -> Iterator[Finding]:
    """Give what is wrong with the kept proofs of ``hops``, of which ``opened`` are plain, by txn.

    Raises StoreUnavailable.
    """
    for hop in hops:
        if hop.kind is not HopKind.ORIGIN or hop.version < KEEPS_SINCE:
            continue
        if not hop.evidence.kept_sha256:
            yield Finding(key=hop.id, kind=FindingKind.MISSING, what="keeps no token of its issuer")
            continue
        kept = _kept(hop, objects)
        if isinstance(kept, Finding):
            yield kept
        elif hop.txn in opened:
            yield from _opened_findings(hop, kept, opened[hop.txn])


def _kept(hop: Hop, objects: ReadObjects) -> KeptProof | Finding:
    key = kept_key(hop.txn, hop.evidence.kept_sha256)
    try:
        body = objects.get(key)
    except NotFound:
        what = f"is missing: it keeps the issuer's token that {hop.id} began with"
        return Finding(key=key, kind=FindingKind.MISSING, what=what)
    try:
        kept = read_kept(body)
    except ProofInvalid:
        return Finding(key=key, kind=FindingKind.ALTERED, what="is no kept proof")
    if sha256_hex(body) != hop.evidence.kept_sha256:
        return Finding(key=key, kind=FindingKind.ALTERED, what=f"was altered: it is not the one that {hop.id} names")
    said = (kept.txn, kept.claims_sha256, kept.issuer)
    if said != (hop.txn, hop.evidence.claims_sha256, hop.actor.issuer):
        return Finding(key=key, kind=FindingKind.SWAPPED, what=f"is of another chain or token than {hop.id}")
    return kept


def _opened_findings(hop: Hop, kept: KeptProof, body: bytes) -> Iterator[Finding]:
    key = f"opened/{hop.txn}.json"
    if proof_sha256(body) != kept.proof_sha256:
        yield Finding(key=key, kind=FindingKind.ALTERED, what="is not the proof that was sealed")
        return
    try:
        require_vouched(hop, body)
    except (ProofInvalid, Malformed) as error:
        what = f"does not show that the issuer vouched for {hop.id}: {error}"
        yield Finding(key=key, kind=FindingKind.OTHER_KEY, what=what)


def require_vouched(hop: Hop, document: bytes) -> None:
    """Raise ProofInvalid or Malformed unless the token in a plain proof is the issuer's, by its keys as fetched, and
    says what the hop hashed. Pure."""
    proof = read_proof(document)
    unverified = take_apart(proof.token.expose())
    listed = proof.jwks.get("keys")
    keys = [key for key in listed if isinstance(key, Mapping)] if isinstance(listed, list) else []
    named = [key for key in keys if key.get("kid") == unverified.kid]
    if len(named) != 1:
        raise ProofInvalid("the issuer's keys have none, or several, of that name")
    check(unverified, named[0], unverified.algorithm)
    claims = json_object(unverified.payload)
    if digest(claims) != hop.evidence.claims_sha256 or claims.get("iss") != hop.actor.issuer:
        raise ProofInvalid("the token says something else than the hop")
