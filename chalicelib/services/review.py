"""The access review of one session, or of a whole chain: who initiated it, which hops it took, what was done under
which verdict and rule, who approved what, and whether the record is whole.

Rules: everything is read from the stores and the bucket and checked again: hop and answer signatures, digests, links,
segments, manifests. What does not hold is a *finding*, said in a sentence; it never stops the review, since the
rest may be what an auditor needs. Writes nothing and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from chalicelib.domain.ask import Answer, Approved, Ask, Use, UseKind, fold_approval
from chalicelib.domain.chain import Hop, chain_to
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.identifiers import SESSION_ID, TXN, AskId, HopId, SessionId, Txn
from chalicelib.domain.identity import Person
from chalicelib.domain.session import Session
from chalicelib.domain.store import Stores
from chalicelib.identity.jws import verify_answer, verify_hop, verify_manifest
from chalicelib.services.recordings import read_recording
from chalicelib.services.reviewed import (
    AccessReview,
    ReviewedApproval,
    ReviewedHop,
    ReviewedOperation,
    ReviewedSession,
)
from chalicelib.services.settle import request_commitment


class Review:
    """Reviews. ``people`` are the active bundle's, for their names; empty where there is none to read."""

    def __init__(self, *, stores: Stores, people: Sequence[Person], clock: Clock) -> None:
        self._stores = stores
        self._people = {person.id: person.name for person in people}
        self._aliases = {alias: person.name for person in people for alias in person.aliases}
        self._clock = clock

    def __call__(self, session_or_txn: str) -> AccessReview:
        """Return the review of a session (``ses_...``), or of a chain with all its sessions (a bare txn).

        Raises NotFound where there is none, StoreUnavailable where something could not be read.
        """
        sessions, txn = self._sessions(session_or_txn)
        hops = self._stores.chains.hops(txn)
        root = next((hop for hop in hops.values() if hop.depth == 0), None)
        if root is None:
            raise NotFound("there is no such chain", txn=txn)
        findings: list[str] = []
        reviewed_hops = self._hops(hops, findings)
        reviewed = tuple(self._session(session, hops, findings) for session in sessions)
        shown = {row for session in reviewed for row in _target_hops(self._stores, session)} if sessions else set()
        whole = not SESSION_ID.match(session_or_txn)
        return AccessReview(
            txn=txn,
            initiator=root.originator,
            initiator_assurance=root.evidence.assurance.value,
            initiator_attributes=root.evidence.attributes,
            accountable=tuple((alias, self._aliases.get(alias, "")) for alias in root.accountable),
            hops=tuple(hop for hop in reviewed_hops if whole or not hop.target or hop.id in shown),
            sessions=reviewed,
            findings=tuple(findings),
            reviewed_at=self._clock.now(),
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

    def _hops(self, hops: Mapping[HopId, Hop], findings: list[str]) -> list[ReviewedHop]:
        return [self._hop(hop, hops, findings) for hop in sorted(hops.values(), key=lambda hop: (hop.depth, hop.id))]

    def _hop(self, hop: Hop, hops: Mapping[HopId, Hop], findings: list[str]) -> ReviewedHop:
        try:
            chain_to(hops, hop.id)
            verify_hop(hop, self._stores.keys)
            verified = True
        except ProofInvalid as error:
            findings.append(f"{hop.id}: {error.public}")
            verified = False
        return ReviewedHop(
            id=hop.id,
            depth=hop.depth,
            kind=hop.kind.value,
            identity=hop.actor,
            assurance=hop.evidence.assurance.value,
            attributes=hop.evidence.attributes,
            target=hop.target,
            principal=hop.principal,
            issued_at=hop.issued_at,
            expires_at=hop.expires_at,
            verified=verified,
        )

    def _session(self, session: Session, hops: Mapping[HopId, Hop], findings: list[str]) -> ReviewedSession:
        approvals = self._request_approvals(session, findings)
        rows = self._stores.connections.of_session(session.id)
        reads = [
            read_recording(
                self._stores.objects,
                partial(verify_manifest, keys=self._stores.keys),
                row,
                hops[row.target_hop].sha256() if row.target_hop in hops else "",
            )
            for row in rows
        ]
        for read in reads:
            findings += read.findings
        operations = [self._operation(op, session, findings) for read in reads for op in read.operations]
        grant = session.grant
        return ReviewedSession(
            id=session.id,
            target=session.request.target,
            principal=session.request.principal,
            reason=session.request.reason,
            status=session.status.value,
            close_reason=session.close_reason,
            requested_at=session.created_at,
            granted_at=None if grant is None else grant.not_before,
            expires_at=None if grant is None else grant.expires_at,
            rules=() if grant is None else tuple(dict.fromkeys((*grant.rules, *grant.met))),
            actor=session.actor,
            approvals=approvals,
            operations=tuple(sorted(operations, key=lambda op: (op.at, op.id))),
            recordings=tuple(read.recording for read in reads),
        )

    def _request_approvals(self, session: Session, findings: list[str]) -> tuple[ReviewedApproval, ...]:
        met = session.grant is not None and bool(session.grant.met)
        if session.ask_id is None:
            if met:
                findings.append(f"{session.id} was granted on approvals that nobody was asked for")
            return ()
        ask = self._ask(session.ask_id, findings)
        if ask is None:
            return ()
        if ask.question.session_id != session.id or ask.question.commitment != request_commitment(session.request):
            findings.append(f"{session.id} is not what {ask.id} asked for")
        approvals, answers = self._approvals(ask, findings)
        if met:
            self._check_approved(ask, answers, f"{session.id} was granted", findings)
        return approvals

    def _operation(self, op: ReviewedOperation, session: Session, findings: list[str]) -> ReviewedOperation:
        if not op.held:
            return op
        ran = op.verdict in ("forward", "mask")
        missing: list[str] = []  # an ask that could not be put leaves its name on an operation that did not run
        ask = self._ask(AskId(op.ask_id), missing) if op.ask_id else None
        if ask is None:
            if ran:
                findings.append(f"{op.id} was held and then ran, and nothing shows who was asked")
            return op
        findings += missing
        if ask.question.operation_id != op.id or ask.question.session_id != session.id:
            findings.append(f"{op.id} is not what {ask.id} asked for")
        approvals, answers = self._approvals(ask, findings)
        if ran:
            self._check_approved(ask, answers, f"{op.id} ran", findings)
        return replace(op, approvals=approvals)

    def _ask(self, ask_id: AskId, findings: list[str]) -> Ask | None:
        try:
            ask = self._stores.asks.get(ask_id)
        except NotFound:
            findings.append(f"{ask_id} is missing")
            return None
        if ask.question.digest() != ask.digest:
            findings.append(f"{ask_id} was changed after it was made")
        return ask

    def _approvals(self, ask: Ask, findings: list[str]) -> tuple[tuple[ReviewedApproval, ...], list[Answer]]:
        """Return the answers as reviewed, and those of them that verify."""
        shown, good = [], []
        for answer in sorted(self._stores.answers.of_ask(ask.id), key=lambda answer: answer.answered_at):
            verified = self._holds(answer, ask)
            if verified:
                good.append(answer)
            else:
                findings.append(f"the answer of {answer.person} to {ask.id} does not verify")
            shown.append(self._approval(answer, ask, verified=verified))
        return tuple(shown), good

    def _holds(self, answer: Answer, ask: Ask) -> bool:
        try:
            verify_answer(answer, self._stores.keys)
        except ProofInvalid:
            return False
        return answer.digest == ask.digest

    def _approval(self, answer: Answer, ask: Ask, *, verified: bool) -> ReviewedApproval:
        rules = (need.rule for need in ask.question.needs if need.approval.group in answer.groups)
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

    def _check_approved(self, ask: Ask, answers: Iterable[Answer], what: str, findings: list[str]) -> None:
        uses: Sequence[Use] = self._stores.uses.of_ask(ask.id)
        if not isinstance(fold_approval(ask, answers, (), self._clock.now()), Approved):
            findings.append(f"{what} without the approvals that {ask.id} needs")
        if [use.kind for use in uses] != [UseKind.RAN]:
            findings.append(f"{what} without using {ask.id} once")


def _target_hops(stores: Stores, session: ReviewedSession) -> set[str]:
    return {row.target_hop for row in stores.connections.of_session(SessionId(session.id))}
