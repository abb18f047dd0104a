"""What is unusual in an access review, in sentences: what a reader is told first.

Nothing here is wrong with the evidence (that is a Finding); each is what a careful reader would ask about. The texts
are as they were recorded: who shows them makes them safe. Pure.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from countersign.printable import counted
from countersign.review_operations import time_of

if TYPE_CHECKING:
    from chalicelib.services.reviewed import AccessReview, ReviewedHop, ReviewedOperation, ReviewedSession

_OPAQUE: Final = frozenset({"opaque", "shell"})
_RAN: Final = frozenset({"forward", "mask"})
_BY_SECRET: Final = "was entered with its secret alone: whoever could read it was its owner (bearer)"


_ID: Final = re.compile(r" ?\(?\b(?:ses|con|hop|op|ask)_[0-9a-z]{26}\b\)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Alike:
    """Sentences that say the same of one run's name, ``number`` of them. ``line`` is the sentence, without the ids in
    it where there are several; ``ids`` are these ids, or the chains'."""

    who: str
    line: str
    number: int
    ids: tuple[str, ...]


def alike(told: Iterable[tuple[str, str, str]]) -> list[Alike]:
    """Return (who, chain, sentence) put together, the rarest first: what happened once in a month of runs is not to be
    looked for among thousands of the same. Pure."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for who, txn, line in told:
        found.setdefault((who, _ID.sub("", line)), []).append((line, txn))
    every = [
        Alike(
            who=who,
            line=same[0][0] if len(same) == 1 else plain,
            number=len(same),
            ids=tuple(ids[0].strip(" ()") if (ids := _ID.findall(line)) else txn for line, txn in same),
        )
        for (who, plain), same in found.items()
    ]
    return sorted(every, key=lambda one: one.number)


def unusual(review: AccessReview) -> Iterator[str]:
    """Give a sentence for each."""
    if not review.accountable:
        yield "nobody is known behind this run: its trigger is unknown"
    yield from unusual_hops(review)
    yield from _entered_by_secret(review)
    for session in review.sessions:
        where = f"{session.target} ({session.id})"
        yield from (f"{where} {what}" for what in _of_session(session))


def unusual_hops(review: AccessReview) -> Iterator[str]:
    for hop in review.hops:
        if hop.revoked is not None and hop.revoked.key != revoked_above(review, hop):
            why = f"revoked at {time_of(hop.revoked.at)} by {hop.revoked.by}: {hop.revoked.why}"
            yield f"{name_of(hop)} was {why}; what is below ended with it"
    for name, hops in Counter(name_of(hop) for hop in review.hops if hop.assurance == "vouched").items():
        several = f" ({hops} hops)" if hops > 1 else ""
        yield f"{name} is vouched{several}: its parent named its key, and no issuer knows it"


def _entered_by_secret(review: AccessReview) -> Iterator[str]:
    """Give a line for each target: for PostgreSQL it is every session, and a line for each would hide the rest."""
    hops = {hop.id: hop for hop in review.hops}
    found: dict[str, list[str]] = {}
    for session in review.sessions:
        if _is_bearer(session, hops):
            found.setdefault(session.target, []).append(session.id)
    for target, ids in found.items():
        if len(ids) == 1:
            yield f"{target} ({ids[0]}) {_BY_SECRET}"
        else:
            yield f"{target}: {len(ids)} sessions were entered with their secret alone, whoever held it (bearer)"


def unusual_session(session: ReviewedSession, hops: Mapping[str, ReviewedHop]) -> Iterator[str]:
    """Give what is unusual in one session, without its name; ``hops`` are the review's, by id."""
    if _is_bearer(session, hops):
        yield _BY_SECRET
    yield from _of_session(session)


def _is_bearer(session: ReviewedSession, hops: Mapping[str, ReviewedHop]) -> bool:
    entered = (hops.get(recording.target_hop) for recording in session.recordings)
    return any(hop is not None and hop.assurance == "bearer" for hop in entered)


def _of_session(session: ReviewedSession) -> Iterator[str]:
    if session.revoked is not None:
        yield f"was revoked at {time_of(session.revoked.at)} by {session.revoked.by}: {session.revoked.why}"
    ran = [op for op in session.operations if op.verdict in _RAN]
    opaque = sum(is_opaque(op) for op in ran)
    if opaque:
        yield f"ran {counted(opaque, 'opaque operation')}: what they did could not be read before they ran"
    cut_off = sum(op.status == "unknown" for op in ran)
    if cut_off:
        yield f"ended while {counted(cut_off, 'operation')} ran: how much of it was done is not known"
    unknown = sum(not op.status for op in ran)
    if unknown:
        yield f"has {counted(unknown, 'operation')} of which no end was recorded"


def is_opaque(op: ReviewedOperation) -> bool:
    return bool(_OPAQUE & {action.rpartition(":")[2] for action in op.actions})


def revoked_above(review: AccessReview, hop: ReviewedHop) -> str:
    """Return the key with which the hop above was revoked, empty where it was not."""
    parent = next((other for other in review.hops if other.id == hop.parent), None)
    return parent.revoked.key if parent is not None and parent.revoked is not None else ""


def name_of(hop: ReviewedHop) -> str:
    return f"{hop.principal} on {hop.target}" if hop.target else hop.identity.name
