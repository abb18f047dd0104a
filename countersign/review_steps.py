"""An access review as steps in time: who was let in, what was asked for, what was done, who answered, what was ended.

Rules: every step that let something happen says "allowed by RULE, none required" or "approved by WHO at WHEN", or what
else became of it; a step that does not verify says so. The texts are as they were recorded: who shows them makes them
safe (``printable``, text nodes, neutralised cells). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from countersign.printable import counted

if TYPE_CHECKING:
    from chalicelib.services.reviewed import (
        AccessReview,
        ReviewedApproval,
        ReviewedHop,
        ReviewedOperation,
        ReviewedSession,
    )

    Told = Callable[[Sequence[ReviewedApproval]], str]

# By the last verdict, and whether people were waited for.
VERDICTS: Final = {
    ("forward", False): "forwarded",
    ("mask", False): "masked",
    ("forward", True): "held, ran",
    ("mask", True): "held, ran",
    ("block", False): "blocked",
    ("block", True): "held, refused",
    ("hold", True): "held",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """``kind`` is run, delegation, session, operation, answer or revocation; ``chain`` the names from the initiator to
    ``actor``; ``what`` what was asked for or done; ``verdict`` a word; ``allowed`` the sentence; ``telling``: a person
    or a rule had a say in it, or something does not verify."""

    at: datetime
    kind: str
    txn: str
    initiator: str
    accountable: str
    chain: tuple[str, ...]
    actor: str
    actor_key: str
    assurance: str
    target: str
    principal: str
    what: str
    verdict: str
    outcome: str
    allowed: str
    rules: tuple[str, ...]
    session: str
    connection: str
    id: str
    verified: bool
    telling: bool


def steps_of(review: AccessReview) -> tuple[Step, ...]:
    """Return every step of a review, oldest first."""
    return tuple(sorted(_Steps(review).all(), key=lambda step: (step.at, step.id)))


def allowed_hop(hop: ReviewedHop) -> str:
    """Return what allowed a hop: the declaration of its issuer, or the rules that permitted the delegation."""
    if hop.kind == "origin":
        return f"allowed by the declaration of {hop.identity.issuer}, none required"
    if hop.rules:
        return f"allowed by {' + '.join(hop.rules)}, none required"
    return "allowed by rules that its hop does not name (it was made before hops did), none required"


def allowed_session(session: ReviewedSession, told: Told) -> str:
    approved = [approval for approval in session.approvals if approval.approved]
    refused = [approval for approval in session.approvals if not approval.approved]
    if refused:
        return f"refused by {told(refused)}"
    rules = " + ".join(session.rules) or "no rule"
    if approved:
        return f"approved by {told(approved)}; {rules}"
    if session.granted_at is None:
        return f"no approval was given{f' ({session.close_reason})' if session.close_reason else ''}"
    return f"allowed by {rules}, none required"


def allowed_operation(operation: ReviewedOperation, told: Told) -> str:
    asked = tuple(rule for approval in operation.approvals for rule in approval.rules)
    # The rules that people answered come first: they are what a reader must see where the line is too short for all.
    rules = " + ".join(dict.fromkeys((*asked, *operation.rules))) or "no rule"
    approved = [approval for approval in operation.approvals if approval.approved]
    refused = [approval for approval in operation.approvals if not approval.approved]
    code = f" ({operation.code})" if operation.code and operation.code != "policy_denied" else ""
    match operation.verdict, operation.held:
        case "forward" | "mask", True:
            return f"approved by {told(approved) or 'nobody'}; {rules}"
        case "forward" | "mask", False:
            return f"allowed by {rules}, none required"
        case "block", True:
            return f"refused by {told(refused)}; {rules}" if refused else f"not approved{code}; {rules}"
        case "block", False:
            return f"blocked by {rules}{code}"
        case _:
            return f"waited for approval, and no verdict was recorded; {rules}"


def answered(approvals: Sequence[ReviewedApproval]) -> str:
    """Return who answered and when, whole; a signature that does not verify is said at its place."""
    return ", ".join(
        f"{one.name}{f' ({one.person})' if one.name != one.person else ''} at {_moment(one.at)}"
        f"{'' if one.verified else ' (SIGNATURE NOT VERIFIED)'}"
        for one in approvals
    )


class _Steps:
    def __init__(self, review: AccessReview) -> None:
        self._review = review
        self._hops: Mapping[str, ReviewedHop] = {hop.id: hop for hop in review.hops}
        self._behind = ", ".join(f"{name} ({alias})" if name else alias for alias, name in review.accountable)
        self._at_fault = {finding.key for finding in review.findings}

    def all(self) -> Iterator[Step]:
        for hop in self._review.hops:
            if hop.kind != "target":
                yield self._hop(hop)
        yield from self._revocations()
        for session in self._review.sessions:
            yield self._session(session)
            yield from (self._answer(session, one, session.id) for one in session.approvals)
            for operation in session.operations:
                yield self._operation(session, operation)
                yield from (self._answer(session, one, operation.id) for one in operation.approvals)

    def _step(
        self,
        at: datetime,
        kind: str,
        hop: ReviewedHop | None,
        *,
        identifier: str,
        what: str,
        session: ReviewedSession | None = None,
        verdict: str = "",
        outcome: str = "",
        allowed: str = "",
        rules: tuple[str, ...] = (),
        connection: str = "",
        verified: bool = True,
        telling: bool = False,
    ) -> Step:
        review = self._review
        who = hop.identity if hop is not None else session.actor if session is not None else review.initiator
        verified = verified and identifier not in self._at_fault
        return Step(
            at=at,
            kind=kind,
            txn=review.txn,
            initiator=review.initiator.name,
            accountable=self._behind,
            chain=self._names(hop) or (who.name,),
            actor=who.name,
            actor_key=who.key,
            assurance="" if hop is None else hop.assurance,
            target="" if session is None else session.target,
            principal="" if session is None else session.principal,
            what=what,
            verdict=verdict,
            outcome=outcome,
            allowed=allowed,
            rules=rules,
            session="" if session is None else session.id,
            connection=connection,
            id=identifier,
            verified=verified,
            telling=telling or not verified,
        )

    def _names(self, hop: ReviewedHop | None) -> tuple[str, ...]:
        found: list[str] = []
        while hop is not None and len(found) < len(self._hops):
            found.append(hop.identity.name)
            hop = self._hops.get(hop.parent)
        return tuple(reversed(found))

    def _hop(self, hop: ReviewedHop) -> Step:
        return self._step(
            hop.issued_at,
            "run" if hop.kind == "origin" else "delegation",
            hop,
            identifier=hop.id,
            what=f"may {' '.join(hop.scope) or 'nothing'} until {_moment(hop.expires_at)}",
            verdict="allowed",
            allowed=allowed_hop(hop),
            rules=hop.rules,
            verified=hop.verified,
            telling=hop.assurance == "vouched",
        )

    def _revocations(self) -> Iterator[Step]:
        ended = {hop.revoked.key: (hop, hop.revoked) for hop in reversed(self._review.hops) if hop.revoked is not None}
        for key, (hop, revoked) in ended.items():
            what = f"{key}: {revoked.why}"
            yield self._step(
                revoked.at, "revocation", hop, identifier=key, what=what, allowed=f"by {revoked.by}", telling=True
            )
        for session in self._review.sessions:
            if session.revoked is not None and session.revoked.key not in ended:
                yield self._step(
                    session.revoked.at,
                    "revocation",
                    self._hops.get(session.leaf_hop),
                    identifier=session.revoked.key,
                    what=f"{session.revoked.key}: {session.revoked.why}",
                    session=session,
                    allowed=f"by {session.revoked.by}",
                    telling=True,
                )

    def _session(self, session: ReviewedSession) -> Step:
        granted = session.granted_at is not None
        return self._step(
            session.requested_at,
            "session",
            self._hops.get(session.leaf_hop),
            identifier=session.id,
            what=session.reason,
            session=session,
            verdict="granted" if granted else session.status,
            allowed=allowed_session(session, answered),
            rules=session.rules,
            telling=bool(session.approvals) or not granted,
        )

    def _operation(self, session: ReviewedSession, op: ReviewedOperation) -> Step:
        return self._step(
            op.at,
            "operation",
            self._hops.get(session.leaf_hop),
            identifier=op.id,
            what=(op.text or "(an interactive shell)") + (f" with {', '.join(op.binds)}" if op.binds else ""),
            session=session,
            verdict=verdict_word(op),
            outcome=outcome_of(op),
            allowed=allowed_operation(op, answered),
            rules=op.rules,
            connection=op.connection_id,
            verified=op.recorded,
            telling=op.held or op.verdict == "block" or op.status not in {"ok", ""},
        )

    def _answer(self, session: ReviewedSession, approval: ReviewedApproval, to: str) -> Step:
        word = "approved" if approval.approved else "refused"
        known = f" ({approval.person})" if approval.name != approval.person else ""
        return self._step(
            approval.at,
            "answer",
            self._hops.get(session.leaf_hop),
            identifier=f"{approval.ask_id}#{approval.person}",
            what=f"{approval.name}{known} {word} {to}",
            session=session,
            verdict=word,
            allowed=f"by {approval.name}{known}, via {approval.via}; {' + '.join(approval.rules) or 'no rule'}",
            rules=approval.rules,
            verified=approval.verified,
            telling=True,
        )


def verdict_word(op: ReviewedOperation) -> str:
    """Return what became of an operation, in a word or two; the verdict itself where nobody knows it."""
    return VERDICTS.get((op.verdict, op.held), op.verdict)


def outcome_of(op: ReviewedOperation) -> str:
    """Return how an operation ended, in the target's own words where it has any, and what its record lacks."""
    return f"{left_out(op.left_rows, op.left_bytes)}; {_ended(op)}" if op.left_bytes else _ended(op)


def left_out(rows: int, size: int) -> str:
    """Return the words for results that policy permits to leave out of the record: short, for a column. Pure."""
    return f"{counted(rows, 'row') if rows else counted(size, 'byte')} unrecorded"


def _ended(op: ReviewedOperation) -> str:
    match op.status:
        case "ok":
            return op.tag or f"{op.rows} rows"
        case "":
            return "outcome unknown" if op.verdict in {"forward", "mask"} else "not run"
        case status:
            return how_it_ended(status, op.sqlstate or op.tag)


def how_it_ended(status: str, why: str) -> str:
    """Return the words for an outcome that is not ``ok``: ``why`` is a SQLSTATE, a tag or one of our codes. One that
    was still running when its connection ended is cut off: what of it was done nobody recorded. Pure."""
    if status == "unknown":
        return f"cut off: {why}" if why else "cut off"
    return f"{status} {why}".rstrip()


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
