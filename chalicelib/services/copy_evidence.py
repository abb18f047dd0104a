"""Copies the evidence of a session or a chain: all that a review of it reads, as it is, sound or not.

Rules: what a review reads is what is copied, so that the copy verifies wherever the original does, and fails where it
fails; a segment is copied in the version that its manifest names; what is missing stays missing, for the copy's own
verification to say. Reads with an auditor's rights; writes nothing but the copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from chalicelib.domain.activation import bundle_key
from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.chain import Hop
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.identifiers import AskId, HopId, SessionId, Txn
from chalicelib.domain.kept_proof import kept_key
from chalicelib.domain.key_history import KEYS
from chalicelib.domain.reading import EvidenceStores, ReadRevocations
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.session import Session
from chalicelib.services.anchors import EVIDENCE_PURPOSES
from chalicelib.services.recordings import manifest_of
from chalicelib.services.review import Review, recording_prefixes
from chalicelib.services.review_chain import own_keys
from chalicelib.services.reviewed import AccessReview, ReviewedSession


class EvidenceOut(Protocol):
    """Where a copy goes. Each thing may be given more than once, and is there once."""

    def hop(self, hop: Hop) -> None: ...
    def session(self, session: Session) -> None: ...
    def connection(self, row: ConnectionRow) -> None: ...
    def ask(self, ask: Ask) -> None: ...
    def answer(self, answer: Answer) -> None: ...
    def use(self, use: Use) -> None: ...
    def revocation(self, revocation: Revocation) -> None: ...
    def keys(self, purpose: str, keys: Mapping[str, Mapping[str, str]]) -> None: ...
    def recorded(self, key: str, body: bytes) -> None: ...
    def opened(self, txn: str, proof: bytes) -> None: ...
    def finish(self, subject: str, made_at: datetime) -> str: ...


def _nothing_else(_review: AccessReview) -> None:
    """Copy nothing around a review: what a folder is."""


def copy_evidence(
    stores: EvidenceStores,
    subject: str,
    out: EvidenceOut,
    clock: Clock,
    opened: Mapping[str, bytes] = MappingProxyType({}),
    around: Callable[[AccessReview], None] = _nothing_else,
) -> tuple[AccessReview, str]:
    """Copy everything of ``subject`` (a session's id or a txn); return its review as it is now, and the copy's hash.
    ``opened`` are the issuers' proofs that go in in the clear, by txn; sealed they are copied always. ``around`` copies
    what else goes in, once all of that is.

    Raises NotFound where there is no such thing, StoreUnavailable where something could not be read or written.
    """
    review = Review(stores=stores, people=(), clock=clock)(subject)
    hops = stores.chains.hops(Txn(review.txn))
    for reviewed_hop in review.hops:
        out.hop(hops[HopId(reviewed_hop.id)])
        _copy_kept(stores, hops[HopId(reviewed_hop.id)], out)
    for txn, proof in opened.items():
        out.opened(txn, proof)
    keys = frozenset[str]().union(*(own_keys(hops[HopId(hop.id)]) for hop in review.hops))
    for reviewed in review.sessions:
        session = stores.sessions.get(SessionId(reviewed.id))
        out.session(session)
        keys |= session.liveness_keys()
        _copy_recordings(stores, session, out)
        for ask_id in _ask_ids(session, reviewed):
            _copy_ask(stores, ask_id, out)
    for revocation in _revocations(stores.revocations, keys):
        out.revocation(revocation)
    for key in stores.objects.keys(f"{KEYS}/"):
        body = _object(stores, key, "")
        if body is not None:
            out.recorded(key, body)
    for purpose in EVIDENCE_PURPOSES:
        out.keys(purpose.value, stores.keys.public_keys(purpose.value))
    around(review)
    return review, out.finish(subject, clock.now())


def _copy_kept(stores: EvidenceStores, hop: Hop, out: EvidenceOut) -> None:
    key = kept_key(hop.txn, hop.evidence.kept_sha256)
    body = _object(stores, key, "") if hop.evidence.kept_sha256 else None
    if body is not None:
        out.recorded(key, body)


def _ask_ids(session: Session, reviewed: ReviewedSession) -> Sequence[AskId]:
    asked = [AskId(operation.ask_id) for operation in reviewed.operations if operation.ask_id]
    return [*([session.ask_id] if session.ask_id is not None else []), *dict.fromkeys(asked)]


def _copy_ask(stores: EvidenceStores, ask_id: AskId, out: EvidenceOut) -> None:
    try:
        out.ask(stores.asks.get(ask_id))
    except NotFound:
        return
    for answer in stores.answers.of_ask(ask_id):
        out.answer(answer)
        if answer.assertion is not None:  # the configuration that says whose passkey it was
            key = bundle_key(answer.assertion.activation.bundle_digest)
            body = _object(stores, key, "")
            if body is not None:
                out.recorded(key, body)
    for use in stores.uses.of_ask(ask_id):
        out.use(use)


def _copy_recordings(stores: EvidenceStores, session: Session, out: EvidenceOut) -> None:
    versions: dict[str, str] = {}
    wanted: dict[str, None] = {}
    for row in stores.connections.of_session(session.id):
        out.connection(row)
        if row.manifest_key:
            wanted[row.manifest_key] = None
    for prefix in recording_prefixes(session):
        wanted |= dict.fromkeys(stores.objects.keys(prefix))
    for key in [key for key in wanted if key.startswith("manifests/")]:
        body = _object(stores, key, "")
        if body is not None:
            out.recorded(key, body)
            versions |= _versions(body)
    for key in sorted({*(key for key in wanted if key.startswith("rec/")), *versions}):
        body = _object(stores, key, versions.get(key, ""))
        if body is not None:
            out.recorded(key, body)


def _versions(manifest: bytes) -> Mapping[str, str]:
    try:
        return {segment.key: segment.version_id for segment in manifest_of(manifest).segments}
    except ProofInvalid:
        return {}


def _object(stores: EvidenceStores, key: str, version_id: str) -> bytes | None:
    try:
        return stores.objects.get(key, version_id or None)
    except NotFound:
        return None


def _revocations(revocations: ReadRevocations, keys: frozenset[str]) -> Iterator[Revocation]:
    while (found := revocations.any_of(keys)) is not None:
        yield found
        keys -= {found.key}
