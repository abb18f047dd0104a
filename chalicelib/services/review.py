"""The access review of one session, or of a whole chain: who initiated it, which hops it took, what was done under
which verdict and rule, who approved what, what was revoked, and whether the record is whole.

Rules: everything is read from the stores and the bucket and checked again: hop and answer signatures, digests, links,
narrowness, segments, manifests, and that rows say what signed hops say. What does not hold is a *finding* that names
it; it never stops the review, since the rest may be what an auditor needs. Writes nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from chalicelib.domain.ask import ANSWER_SIGNATURE_TYPE, Answer, Approved, Ask, Use, UseKind, counts_for, fold_approval
from chalicelib.domain.canonical import sha256_hex, timestamp
from chalicelib.domain.chain import Hop
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import NotFound
from chalicelib.domain.identifiers import SESSION_ID, TXN, AskId, ConnectionId, HopId, SessionId, Txn
from chalicelib.domain.identity import Person
from chalicelib.domain.legal_hold import LegalHold
from chalicelib.domain.reading import EvidenceStores
from chalicelib.domain.session import Session
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Keys
from chalicelib.services.access import asks_for
from chalicelib.services.legal_holds import read_holds
from chalicelib.services.operations import meta_of
from chalicelib.services.passkeys import passkey_fault
from chalicelib.services.recordings import Read, read_recording
from chalicelib.services.review_chain import (
    ancestry,
    chain_of,
    review_hops,
    revocations_of,
    row_faults,
    session_faults,
    session_revocation,
    unrecorded_target_hops,
)
from chalicelib.services.reviewed import (
    AccessReview,
    Finding,
    FindingKind,
    ReviewedApproval,
    ReviewedHold,
    ReviewedOperation,
    ReviewedSession,
)
from chalicelib.services.signatures import signature_finding
from chalicelib.services.stored_segments import Tombstone, found_in, number_of

_RAN: Final = frozenset({"forward", "mask"})
_MOST_DAYS: Final = 8  # of manifests in which a session's are looked for: no grant lives longer than its hop, hours


class Review:
    """Reviews. ``people`` are the active bundle's, for their names; empty where there is none to read. ``keys`` are
    those that may have signed; None: those of ``stores``."""

    def __init__(
        self, *, stores: EvidenceStores, people: Sequence[Person], clock: Clock, keys: Keys | None = None
    ) -> None:
        self._stores = stores
        self._keys = stores.keys if keys is None else keys
        self._people = {person.id: person.name for person in people}
        self._aliases = {alias: person.name for person in people for alias in person.aliases}
        self._clock = clock
        self._holds: tuple[LegalHold, ...] | None = None

    def __call__(self, session_or_txn: str) -> AccessReview:
        """Return the review of a session (``ses_...``) with the hops above it, or of a chain (a bare txn) with all its
        hops and sessions.

        Raises NotFound where there is none, StoreUnavailable where something could not be read.
        """
        sessions, txn = self._sessions(session_or_txn)
        rows = {session.id: self._stores.connections.of_session(session.id) for session in sessions}
        return self._review(txn, sessions, rows, whole=not SESSION_ID.match(session_or_txn))

    def of_some(
        self, txn: Txn, sessions: Sequence[Session], rows: Mapping[SessionId, Sequence[ConnectionRow]]
    ) -> AccessReview:
        """Return the review of these sessions of a chain, with the hops above them; ``rows`` are their connections',
        by session. Raises as a call does."""
        return self._review(txn, sessions, rows, whole=False)

    def _review(
        self, txn: Txn, sessions: Sequence[Session], rows: Mapping[SessionId, Sequence[ConnectionRow]], *, whole: bool
    ) -> AccessReview:
        hops = self._hops(txn, sessions, [row for found in rows.values() for row in found], whole=whole)
        findings: list[Finding] = []
        revoked = revocations_of(hops, self._stores.revocations)
        reviewed_hops = review_hops(hops, sessions, revoked, self._keys, findings)
        for session in sessions:
            findings += session_faults(session, hops)
        every_row = [row for found in rows.values() for row in found]
        findings += row_faults(every_row, sessions, hops)
        if whole:
            findings += unrecorded_target_hops(hops, every_row)
        reviewed = tuple(self._session(session, rows[session.id], hops, findings) for session in sessions)
        root = reviewed_hops[0]  # the least deep: where the origin itself is missing, that is a finding already
        return AccessReview(
            txn=txn,
            initiator=hops[HopId(root.id)].originator,
            initiator_assurance=root.assurance,
            initiator_attributes=root.attributes,
            accountable=tuple((alias, self._aliases.get(alias, "")) for alias in hops[HopId(root.id)].accountable),
            hops=reviewed_hops,
            sessions=reviewed,
            findings=tuple(dict.fromkeys(findings)),
            reviewed_at=self._clock.now(),
            holds=self._holds_on(txn, sessions, whole=whole),
        )

    def _holds_on(self, txn: Txn, sessions: Sequence[Session], *, whole: bool) -> tuple[ReviewedHold, ...]:
        """Return the holds that are on any of this; they are read once for all reviews of a period."""
        if self._holds is None:
            self._holds = read_holds(self._stores.objects).active
        return tuple(
            ReviewedHold(
                id=hold.id, kind=hold.kind.value, subject=hold.subject, reason=hold.reason, by=hold.by, at=hold.at
            )
            for hold in self._holds
            if any(hold.covers(session) for session in sessions) or (whole and hold.subject == txn)
        )

    def _sessions(self, session_or_txn: str) -> tuple[Sequence[Session], Txn]:
        if SESSION_ID.match(session_or_txn):
            session = self._stores.sessions.get(SessionId(session_or_txn))
            return [session], session.txn
        if not TXN.match(session_or_txn):
            raise NotFound("this is neither a session's id nor a chain's")
        found = self._stores.sessions.of_txn(Txn(session_or_txn))
        # The list may come from an index; what is reviewed is read by key.
        return [self._stores.sessions.get(session.id) for session in found], Txn(session_or_txn)

    def _hops(
        self, txn: Txn, sessions: Sequence[Session], rows: Sequence[ConnectionRow], *, whole: bool
    ) -> Mapping[HopId, Hop]:
        """Return the chain's hops; for one session those above it, and the target hops of its connections."""
        hops = self._stores.chains.hops(txn)
        if not whole:
            kept = {row.target_hop for row in rows}.union(*(ancestry(hops, session.leaf_hop) for session in sessions))
            hops = {hop_id: hop for hop_id, hop in hops.items() if hop_id in kept}
        if not hops:
            raise NotFound("there is no such chain", txn=txn)
        return hops

    def _session(
        self, session: Session, rows: Sequence[ConnectionRow], hops: Mapping[HopId, Hop], findings: list[Finding]
    ) -> ReviewedSession:
        approvals = self._request_approvals(session, hops.get(session.leaf_hop), findings)
        reads = [
            read_recording(
                self._stores.objects,
                self._keys,
                row,
                hops[row.target_hop].sha256() if row.target_hop in hops else "",
                texts=False,
            )
            for row in rows
        ]
        for read in reads:
            findings += read.findings
            findings += _open_faults(session, read)
        findings += self._extra_objects(session, reads)
        operations = [self._operation(op, session, findings) for read in reads for op in read.operations]
        findings += _wider(operations, session, hops)
        grant = session.grant
        return ReviewedSession(
            id=session.id,
            leaf_hop=session.leaf_hop,
            target=session.request.target,
            principal=session.request.principal,
            reason=session.request.reason,
            status=session.status.value,
            close_reason=session.close_reason,
            closed_at=session.closed_at,
            requested_at=session.created_at,
            granted_at=None if grant is None else grant.not_before,
            expires_at=None if grant is None else grant.expires_at,
            rules=() if grant is None else tuple(dict.fromkeys((*grant.rules, *grant.met))),
            actor=session.actor,
            approvals=approvals,
            operations=tuple(sorted(operations, key=lambda op: (op.at, op.id))),
            recordings=tuple(read.recording for read in reads),
            revoked=session_revocation(session, self._stores.revocations),
        )

    def _extra_objects(self, session: Session, reads: Sequence[Read]) -> list[Finding]:
        """Return a finding for each object of this session that nothing accounts for: a segment that was put beside
        those of its manifest, or the recording of a connection whose row was removed."""
        accounted = frozenset[str]().union(*(read.objects for read in reads))
        found = [key for prefix in recording_prefixes(session) for key in self._stores.objects.keys(prefix)]
        what = f"belongs to no connection of {session.id}: no row and no manifest names it"
        extra = [key for key in found if key not in accounted and not self._is_tombstone(key, session, reads)]
        return [_finding(key, FindingKind.EXTRA, what) for key in extra]

    def _is_tombstone(self, key: str, session: Session, reads: Sequence[Read]) -> bool:
        """Say whether a dead broker's key was taken there, so that it could not write: it holds no frame."""
        number = number_of(key)
        owner = next((read.recording.connection_id for read in reads if f"/{read.recording.connection_id}/" in key), "")
        if number is None or not owner:
            return False
        found = found_in(session.id, ConnectionId(owner), number, self._stores.objects.get(key))
        return isinstance(found, Tombstone)

    def _request_approvals(
        self, session: Session, leaf: Hop | None, findings: list[Finding]
    ) -> tuple[ReviewedApproval, ...]:
        met = session.grant is not None and bool(session.grant.met)
        if session.ask_id is None:
            if met:
                what = "was granted on approvals that nobody was asked for"
                findings.append(_finding(session.id, FindingKind.UNAPPROVED, what))
            return ()
        ask = self._ask(session.ask_id, findings)
        if ask is None:
            return ()
        if leaf is not None and not asks_for(ask.question, session, leaf):  # a hop that is missing is a finding already
            findings.append(_finding(session.id, FindingKind.ALTERED, f"is not what {ask.id} asked for"))
        approvals, answers = self._approvals(ask, findings)
        if met:
            self._check_approved(ask, answers, session.id, "was granted", findings)
        return approvals

    def _operation(self, op: ReviewedOperation, session: Session, findings: list[Finding]) -> ReviewedOperation:
        if not op.held:
            return op
        ran = op.verdict in _RAN
        missing: list[Finding] = []  # an ask that could not be put leaves its name on an operation that did not run
        ask = self._ask(AskId(op.ask_id), missing) if op.ask_id else None
        if ask is None:
            if ran:
                what = "was held and then ran, and nothing shows who was asked"
                findings.append(_finding(op.id, FindingKind.UNAPPROVED, what))
            return op
        findings += missing
        if ask.question.operation_id != op.id or ask.question.session_id != session.id:
            findings.append(_finding(op.id, FindingKind.ALTERED, f"is not what {ask.id} asked for"))
        approvals, answers = self._approvals(ask, findings)
        if ran:
            self._check_approved(ask, answers, op.id, "ran", findings)
        return replace(op, approvals=approvals)

    def _ask(self, ask_id: AskId, findings: list[Finding]) -> Ask | None:
        try:
            ask = self._stores.asks.get(ask_id)
        except NotFound:
            findings.append(_finding(ask_id, FindingKind.MISSING, "is missing"))
            return None
        if ask.question.digest() != ask.digest:
            findings.append(_finding(ask_id, FindingKind.ALTERED, "was changed after it was made"))
        return ask

    def _approvals(self, ask: Ask, findings: list[Finding]) -> tuple[tuple[ReviewedApproval, ...], list[Answer]]:
        """Return the answers as reviewed, and those of them that verify."""
        shown, good = [], []
        for answer in sorted(self._stores.answers.of_ask(ask.id), key=lambda answer: answer.answered_at):
            fault = self._fault(answer, ask)
            if fault is None:
                good.append(answer)
            else:
                findings.append(fault)
            shown.append(self._approval(answer, ask, verified=fault is None))
        return tuple(shown), good

    def _fault(self, answer: Answer, ask: Ask) -> Finding | None:
        key = f"{ask.id}#{answer.person}"
        fault = signature_finding(
            key, self._keys, KeyPurpose.ANSWER, ANSWER_SIGNATURE_TYPE, answer.signature, answer.sha256()
        )
        if fault is None and (answer.ask_id != ask.id or answer.digest != ask.digest):
            return _finding(key, FindingKind.SWAPPED, f"does not verify: it answers something else than {ask.id}")
        if fault is None and sha256_hex(answer.card.encode()) != answer.card_sha256:
            return _finding(key, FindingKind.ALTERED, "does not verify: its card is not the one that was shown")
        if fault is None and (what := passkey_fault(answer, self._stores.objects, self._keys)):
            return _finding(key, FindingKind.ALTERED, what)
        return fault

    def _approval(self, answer: Answer, ask: Ask, *, verified: bool) -> ReviewedApproval:
        rules = (need.rule for need in ask.question.needs if counts_for(need, answer))
        return ReviewedApproval(
            ask_id=ask.id,
            person=answer.person,
            name=self._people.get(answer.person, answer.person),
            approved=answer.approved,
            at=answer.answered_at,
            groups=answer.groups,
            rules=tuple(dict.fromkeys(rules)),
            via=answer.via,
            verified=verified,
        )

    def _check_approved(
        self, ask: Ask, answers: Iterable[Answer], key: str, what: str, findings: list[Finding]
    ) -> None:
        uses: Sequence[Use] = self._stores.uses.of_ask(ask.id)
        if not isinstance(fold_approval(ask, answers, (), self._clock.now()), Approved):
            findings.append(_finding(key, FindingKind.UNAPPROVED, f"{what} without the approvals that {ask.id} needs"))
        if [use.kind for use in uses] != [UseKind.RAN]:
            findings.append(_finding(key, FindingKind.UNAPPROVED, f"{what} without using {ask.id} once"))


def recording_prefixes(session: Session) -> Sequence[str]:
    """Return the prefixes under which every object of a session's recordings lies. Pure."""
    until = session.created_at if session.grant is None else session.grant.expires_at
    days = min(max((until.date() - session.created_at.date()).days, 0), _MOST_DAYS) + 1
    dates = [timestamp(session.created_at + timedelta(days=day))[:10] for day in range(days)]
    return [f"rec/v1/{session.id}/", *(f"manifests/v1/{date}/{session.id}/" for date in dates)]


def _open_faults(session: Session, read: Read) -> list[Finding]:
    """Return what the session's row says otherwise than the frame with which its recording opened."""
    grant = session.grant
    opened = next((meta_of(frame) for frame in read.frames if frame.get("kind") == "open"), None)
    if grant is None or opened is None:
        return []
    said: dict[str, object] = {
        "grant": grant.id,
        "rules": list(grant.rules),
        "policy_digest": grant.policy_digest,
        "target": grant.target,
        "principal": grant.principal,
    }
    if all(opened[name] == value for name, value in said.items() if name in opened):
        return []
    what = f"holds another grant than {read.recording.connection_id} was opened under: its row was altered"
    return [_finding(session.id, FindingKind.ALTERED, what)]


def _wider(operations: Iterable[ReviewedOperation], session: Session, hops: Mapping[HopId, Hop]) -> list[Finding]:
    """Return a finding for each operation that ran outside the scope that was delegated."""
    chain, grant = chain_of(hops, session.leaf_hop), session.grant
    if chain is None or grant is None:
        return []
    return [
        _finding(op.id, FindingKind.WIDER, f"ran {action}, which is outside the scope that was delegated")
        for op in operations
        if op.verdict in _RAN
        for action in op.actions
        if not chain.allows(grant.target, grant.principal, action)
    ]


def _finding(key: str, kind: FindingKind, what: str) -> Finding:
    return Finding(key=key, kind=kind, what=what)
