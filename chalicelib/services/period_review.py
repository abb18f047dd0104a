"""The access review of many sessions: every chain of a population, each reviewed whole; or a list of them from tables.

Rules: a whole review says of each session what ``review`` says of one, so nothing in it is weaker for being one of
many. A list opens no recording and checks no signature: it is quick, says only what rows say, and is never called
verified.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Protocol

from chalicelib.domain.ask import Answer
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.chain import Hop
from chalicelib.domain.errors import NotFound, RowUnreadable
from chalicelib.domain.identifiers import HopId, PersonId, Txn
from chalicelib.domain.identity import Identity, Person
from chalicelib.domain.reading import EvidenceStores
from chalicelib.domain.signoff import Period, Selection
from chalicelib.services.at_once import at_once
from chalicelib.services.population import Member, Population
from chalicelib.services.review import Review
from chalicelib.services.reviewed import AccessReview, Finding, FindingKind, review_json, unreadable


@dataclass(frozen=True, kw_only=True, slots=True)
class ReviewedPeriod:
    """``chains`` are in the order of their first session. ``findings`` are the population's and every chain's."""

    period: Period
    selection: Selection
    population_sha256: str
    sessions: int
    chains: tuple[AccessReview, ...]
    findings: tuple[Finding, ...]
    reviewed_at: datetime

    @property
    def verified(self) -> bool:
        return not self.findings


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSession:
    """One session as the tables have it. ``through`` are the names from the originator to the actor, ``assurance`` is
    the actor's; ``answers`` are (person, name, approved, when); ``exits`` are those of its connections."""

    id: str
    txn: str
    requested_at: datetime
    originator: Identity
    accountable: tuple[str, ...]
    through: tuple[str, ...]
    assurance: str
    target: str
    principal: str
    reason: str
    status: str
    granted: bool
    rules: tuple[str, ...]
    answers: tuple[tuple[PersonId, str, bool, datetime], ...]
    exits: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What of a population one review is of: a chain, and its sessions in it."""

    txn: Txn
    members: tuple[Member, ...]


class ReviewParts(Protocol):
    """Reviews many parts, somewhere."""

    def __call__(self, parts: Sequence[Part]) -> Sequence[AccessReview | Finding]:
        """Return what ``review_part`` returns for each of ``parts``, in order. Raises as it does."""
        ...


def review_part(review: Review, part: Part) -> AccessReview | Finding:
    """Return the review of one part, whole; a finding where its chain has no hop. Raises StoreUnavailable."""
    rows = {member.session.id: member.rows for member in part.members}
    try:
        return review.of_some(part.txn, [member.session for member in part.members], rows)
    except RowUnreadable as error:
        return unreadable(part.txn, error)
    except NotFound:
        what = f"has no hop any more: {part.members[0].session.id} was opened under it"
        return Finding(key=part.txn, kind=FindingKind.MISSING, what=what)


class PeriodReview:
    """Reviews populations with ``review``, ``readers`` chains at once; or with ``apart``, where that is given."""

    def __init__(
        self,
        *,
        stores: EvidenceStores,
        review: Review,
        people: Sequence[Person],
        readers: int = 1,
        apart: ReviewParts | None = None,
    ) -> None:
        self._stores = stores
        self._review = review
        self._names = {person.id: person.name for person in people}
        self._readers = readers
        self._apart = apart

    def __call__(self, population: Population, now: datetime) -> ReviewedPeriod:
        """Return the review of every member, whole. Raises StoreUnavailable; a chain without a hop is a finding."""
        parts = [Part(txn=txn, members=tuple(found)) for txn, found in _by_chain(population.members).items()]
        if self._apart is not None:
            reviewed = self._apart(parts)
        else:
            reviewed = at_once(partial(review_part, self._review), parts, self._readers)
        findings = [*population.findings]
        for found in reviewed:
            findings += found.findings if isinstance(found, AccessReview) else [found]
        return ReviewedPeriod(
            period=population.period,
            selection=population.selection,
            population_sha256=population.sha256,
            sessions=len(population.members),
            chains=tuple(found for found in reviewed if isinstance(found, AccessReview)),
            findings=tuple(dict.fromkeys(findings)),
            reviewed_at=now,
        )

    def listed(self, population: Population) -> tuple[ListedSession, ...]:
        """Return every member as the tables have it. Raises StoreUnavailable."""
        txns = list(_by_chain(population.members))
        hops = dict(zip(txns, at_once(self._stores.chains.hops, txns, self._readers), strict=True))
        answers = at_once(self._answers, population.members, self._readers)
        return tuple(
            self._listed(member, hops[member.session.txn], given)
            for member, given in zip(population.members, answers, strict=True)
        )

    def _answers(self, member: Member) -> Sequence[Answer]:
        ask_id = member.session.ask_id
        return () if ask_id is None else self._stores.answers.of_ask(ask_id)

    def _listed(self, member: Member, hops: Mapping[HopId, Hop], answers: Sequence[Answer]) -> ListedSession:
        session, leaf = member.session, hops.get(member.session.leaf_hop)
        above = _above(leaf, hops)
        grant = session.grant
        return ListedSession(
            id=session.id,
            txn=session.txn,
            requested_at=session.created_at,
            originator=session.originator,
            accountable=above[0].accountable if above else (),
            through=tuple(hop.actor.name for hop in above) or (session.actor.name,),
            assurance="" if leaf is None else leaf.evidence.assurance.value,
            target=session.request.target,
            principal=session.request.principal,
            reason=session.request.reason,
            status=session.status.value,
            granted=grant is not None,
            rules=() if grant is None else tuple(dict.fromkeys((*grant.rules, *grant.met))),
            answers=tuple(
                (answer.person, self._names.get(answer.person, answer.person), answer.approved, answer.answered_at)
                for answer in sorted(answers, key=lambda answer: answer.answered_at)
            ),
            exits=tuple("open" if row.sealed_at is None else row.exit for row in member.rows),
        )


def period_json(review: ReviewedPeriod) -> dict[str, Json]:
    """Return the review as JSON values, as ``review_json`` does each chain's. Pure."""
    return {
        "verified": review.verified,
        "since": timestamp(review.period.since),
        "until": timestamp(review.period.until),
        "target": review.selection.target,
        "pipeline": review.selection.pipeline,
        "population_sha256": review.population_sha256,
        "sessions": review.sessions,
        "findings": [
            {"key": finding.key, "kind": finding.kind.value, "what": finding.what} for finding in review.findings
        ],
        "reviewed_at": timestamp(review.reviewed_at),
        "chains": [review_json(chain) for chain in review.chains],
    }


def listed_json(session: ListedSession) -> dict[str, Json]:
    return {
        "session": session.id,
        "txn": session.txn,
        "requested_at": timestamp(session.requested_at),
        "originator": {"issuer": session.originator.issuer, "subject": session.originator.subject}
        | {"name": session.originator.name},
        "accountable": list(session.accountable),
        "through": list(session.through),
        "assurance": session.assurance,
        "target": session.target,
        "principal": session.principal,
        "reason": session.reason,
        "status": session.status,
        "granted": session.granted,
        "rules": list(session.rules),
        "answers": [
            {"person": person, "name": name, "approved": approved, "at": timestamp(at)}
            for person, name, approved, at in session.answers
        ],
        "exits": list(session.exits),
    }


def _by_chain(members: Sequence[Member]) -> Mapping[Txn, list[Member]]:
    found = defaultdict[Txn, list[Member]](list)
    for member in members:
        found[member.session.txn].append(member)
    return found


def _above(leaf: Hop | None, hops: Mapping[HopId, Hop]) -> list[Hop]:
    """Return the hops from the origin to ``leaf``, as far as they are there. Pure."""
    found: list[Hop] = []
    while leaf is not None and len(found) < len(hops):
        found.append(leaf)
        leaf = hops.get(leaf.parent) if leaf.parent is not None else None
    return found[::-1]
