"""The chain's part of an access review: each hop with its signature, its links and what it may, which sessions it
opened, and what revoked it.

Rules: a hop counts as verified when its own signature and every link up to the origin hold, and no hop on the way has
more than its parent (``domain.chain.chain_to``). A target hop must be the one of exactly one connection row, and that
row must say what the hop's signed evidence says: so that a row that somebody altered, moved or removed is named.
What no signature covers (when a row was sealed is covered by its manifest; the boot's numbers by the next row) is
listed in ``docs/data_schema.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

from chalicelib.domain.canonical import digest
from chalicelib.domain.chain import HOP_SIGNATURE_TYPE, Chain, Hop, HopKind, chain_to
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import HopId
from chalicelib.domain.reading import ReadRevocations
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.session import Session
from chalicelib.domain.store import Keys
from chalicelib.identity.jws import hop_purpose
from chalicelib.services.reviewed import Finding, FindingKind, ReviewedHop, ReviewedRevocation
from chalicelib.services.signatures import signature_finding
from chalicelib.services.standing import CLOSED_BY_OWNER, CLOSED_BY_OWNER_WHY


def ancestry(hops: Mapping[HopId, Hop], leaf: HopId) -> frozenset[HopId]:
    """Return the ids of ``leaf`` and all that is above it, as far as they are there. Pure."""
    found: set[HopId] = set()
    wanted: HopId | None = leaf
    while wanted is not None and wanted in hops and wanted not in found:
        found.add(wanted)
        wanted = hops[wanted].parent
    return frozenset(found)


def review_hops(
    hops: Mapping[HopId, Hop],
    sessions: Sequence[Session],
    revoked: Mapping[HopId, ReviewedRevocation],
    keys: Keys,
    findings: list[Finding],
) -> tuple[ReviewedHop, ...]:
    """Return every hop as reviewed, parents first. Raises StoreUnavailable where the keys cannot be read."""
    reviewed = []
    for hop in sorted(hops.values(), key=lambda hop: (hop.depth, hop.id)):
        faults = list(_hop_faults(hop, hops, keys))
        findings += faults
        reviewed.append(
            ReviewedHop(
                id=hop.id,
                parent=hop.parent or "",
                depth=hop.depth,
                max_depth=hop.max_depth,
                kind=hop.kind.value,
                identity=hop.actor,
                scope=hop.scope,
                teams=hop.teams,
                key_thumbprint=hop.key_thumbprint,
                ticket=hop.ticket,
                rules=hop.rules,
                revoked=revoked.get(hop.id),
                sessions=tuple(session.id for session in sessions if session.leaf_hop == hop.id),
                assurance=hop.evidence.assurance.value,
                attributes=hop.evidence.attributes,
                target=hop.target,
                principal=hop.principal,
                issued_at=hop.issued_at,
                expires_at=hop.expires_at,
                verified=not faults,
            )
        )
    return tuple(reviewed)


def revocations_of(hops: Mapping[HopId, Hop], revocations: ReadRevocations) -> Mapping[HopId, ReviewedRevocation]:
    """Return what revoked each hop that was: itself, its identity or issuer, the chain, or a hop above it.

    Raises StoreUnavailable. One read where nothing was revoked.
    """
    own = {hop.id: own_keys(hop) for hop in hops.values()}
    if revocations.any_of(frozenset[str]().union(*own.values())) is None:
        return {}
    found: dict[HopId, ReviewedRevocation] = {}
    for hop in sorted(hops.values(), key=lambda hop: hop.depth):
        revocation = revocations.any_of(own[hop.id])
        if revocation is not None:
            found[hop.id] = reviewed_revocation(revocation)
        elif hop.parent is not None and hop.parent in found:
            found[hop.id] = found[hop.parent]
    return found


def session_revocation(session: Session, revocations: ReadRevocations) -> ReviewedRevocation | None:
    """Return what revoked a session, None where nothing did. That its owner closed it is how a session ends, and no
    revocation, although it is stored as one (so that its connections end); only where it says so in every part, so that
    no revocation by somebody else, or for another reason, hides behind a close that came after it.

    Raises StoreUnavailable.
    """
    keys = session.liveness_keys()
    found = revocations.any_of(keys)
    if found is not None and _is_close(found, session):
        found = revocations.any_of(keys - {found.key})
    return None if found is None else reviewed_revocation(found)


def _is_close(revocation: Revocation, session: Session) -> bool:
    said = (revocation.key, revocation.by, revocation.why, session.close_reason)
    return said == (f"session:{session.id}", session.actor.key, CLOSED_BY_OWNER_WHY, CLOSED_BY_OWNER)


def reviewed_revocation(revocation: Revocation) -> ReviewedRevocation:
    return ReviewedRevocation(key=revocation.key, by=revocation.by, why=revocation.why, at=revocation.at)


def chain_of(hops: Mapping[HopId, Hop], leaf: HopId) -> Chain | None:
    """Return the chain to ``leaf``; None where it does not hold, which is a finding of its own."""
    try:
        return chain_to(hops, leaf)
    except ProofInvalid:
        return None


def session_faults(session: Session, hops: Mapping[HopId, Hop]) -> Iterator[Finding]:
    """Give what a session's row says otherwise than the hops that are signed."""
    leaf = hops.get(session.leaf_hop)
    if leaf is None:
        yield _finding(session.leaf_hop, FindingKind.MISSING, f"is missing: it opened {session.id}")
        return
    if (session.actor, session.originator) != (leaf.actor, leaf.originator):
        yield _finding(session.id, FindingKind.ALTERED, f"names another actor than {leaf.id}, which opened it")
    grant, chain = session.grant, chain_of(hops, session.leaf_hop)
    if grant is None:
        return
    if (grant.session_id, grant.target) != (session.id, session.request.target):
        yield _finding(session.id, FindingKind.ALTERED, "holds a grant that is for something else")
    if chain is not None and not chain.allows(grant.target, grant.principal):
        yield _finding(session.id, FindingKind.WIDER, "was granted outside the scope that was delegated")
    if grant.expires_at > leaf.expires_at:
        yield _finding(session.id, FindingKind.WIDER, "was granted for longer than the hop that opened it lives")


def row_faults(rows: Sequence[ConnectionRow], sessions: Iterable[Session], hops: Mapping[HopId, Hop]) -> list[Finding]:
    """Return what connection rows say otherwise than their target hops, and where a row beside another is not it."""
    by_id = {session.id: session for session in sessions}
    faults = [fault for row in rows for fault in _row_faults(row, by_id[row.session_id], hops)]
    for before, after in pairwise(sorted(rows, key=lambda row: (row.boot, row.number))):
        if before.boot != after.boot or after.number > before.number + 1:
            continue  # those between belong to other sessions: only the digests of all rows show whether they are there
        if after.number == before.number or after.previous_sha256 != before.sha256():
            what = f"was altered: {after.id}, the broker's next row, names another one before it"
            faults.append(_finding(before.id, FindingKind.ALTERED, what))
    return faults


def unrecorded_target_hops(hops: Mapping[HopId, Hop], rows: Sequence[ConnectionRow]) -> Iterator[Finding]:
    """Give the target hops that no connection row names: a connection, or a whole session, was removed."""
    named = {row.target_hop for row in rows}
    for hop in hops.values():
        if hop.kind is HopKind.TARGET and hop.id not in named:
            what = (
                f"has no connection: the row of {hop.evidence.token_id} on {hop.target}, or its session's, is missing"
            )
            yield _finding(hop.id, FindingKind.MISSING, what)


def _hop_faults(hop: Hop, hops: Mapping[HopId, Hop], keys: Keys) -> Iterator[Finding]:
    unsigned = signature_finding(hop.id, keys, hop_purpose(hop), HOP_SIGNATURE_TYPE, hop.signature, hop.sha256())
    if unsigned is not None:
        yield unsigned
    try:
        chain_to(hops, hop.id)
    except ProofInvalid as error:
        at_fault = str(error.detail.get("hop", hop.id))
        if at_fault == hop.id:
            yield _finding(hop.id, FindingKind.WIDER, f"is not a part of its parent: {error.public}")
        elif at_fault not in hops:
            yield _finding(at_fault, FindingKind.MISSING, f"is missing: it is above {hop.id}")
        else:
            yield _finding(hop.id, FindingKind.WIDER, f"stands below {at_fault}, which does not hold")


def _row_faults(row: ConnectionRow, session: Session, hops: Mapping[HopId, Hop]) -> Iterator[Finding]:
    hop = hops.get(row.target_hop)
    if hop is None:
        yield _finding(row.target_hop, FindingKind.MISSING, f"is missing: it is the target hop of {row.id}")
        return
    claims = {
        "connection": row.id,
        "session": row.session_id,
        "grant": session.grant.id if session.grant is not None else "",
        "peer": row.peer,
    }
    said = (row.txn, row.leaf_hop, row.target, row.principal, row.id, digest(claims))
    signed = (hop.txn, hop.parent, hop.target, hop.principal, hop.evidence.token_id, hop.evidence.claims_sha256)
    if said != signed or session.leaf_hop != row.leaf_hop:
        what = f"was altered: it, or {session.id}, says otherwise than {hop.id}, which the broker signed"
        yield _finding(row.id, FindingKind.ALTERED, what)


def own_keys(hop: Hop) -> frozenset[str]:
    """Return the keys of which a revocation is this hop's own; those of the hops above it end it too. Pure."""
    if hop.kind is HopKind.TARGET:
        return frozenset({f"hop:{hop.id}"})
    chain = {f"txn:{hop.txn}"} if hop.parent is None else set()
    return frozenset({f"hop:{hop.id}", f"identity:{hop.actor.key}", f"issuer:{hop.actor.issuer}"} | chain)


def _finding(key: str, kind: FindingKind, what: str) -> Finding:
    return Finding(key=key, kind=kind, what=what)
