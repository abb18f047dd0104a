"""The request stage: what policy is asked about a session, and who may not answer for it. Pure.

Used by every plane that decides on a session (``request``, ``take``, ``mint``, the broker's admission), so that all of
them ask policy the same question: a grant is necessary, never sufficient.

Rule: the requester's reason is never given to policy, since the requester's own text must not lower a threshold.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from chalicelib.config.bundle import Bundle
from chalicelib.domain.ask import Answer, Ask, raise_unknown_trigger
from chalicelib.domain.chain import Chain
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.policy import PolicyQuestion
from chalicelib.domain.session import ApprovalNeed
from chalicelib.domain.target import Protocol, Target

SESSION_OPEN: Final = "session:open"
_ANY_DURATION_S: Final = 86_400  # caps nothing, so that policy is asked about a stand-in as about a target


def session_question(
    *, bundle: Bundle, chain: Chain, target: Target, principal: str, duration_s: int, now: datetime, met: frozenset[str]
) -> PolicyQuestion:
    """Return what policy is asked about a session: ``met`` are the rules whose approvals were given for it."""
    return PolicyQuestion(
        chain=chain,
        target=target,
        principal=principal,
        action=SESSION_OPEN,
        context={"duration_s": duration_s},
        trigger_known=trigger_known(bundle, chain),
        now=now,
        met=met,
    )


def stand_in(name: str) -> Target:
    """Return a target that is not in the registry, so that an unknown name costs what a forbidden one costs."""
    return Target(
        name=name,
        protocol=Protocol.POSTGRES,
        environment="unknown",
        description="",
        host="",
        port=0,
        database="",
        principals=(),
        default_principal="",
        ca_pem="",
        plaintext=False,
        search_path=(),
        tags=(),
        max_session_s=_ANY_DURATION_S,
        max_connections=0,
        hold_budget_s=0,
        durable=False,
    )


def chain_lines(bundle: Bundle, chain: Chain) -> tuple[str, ...]:
    """Return the identities as a Question and its card carry them, originator first: the name, then the immutable id
    on which everything is decided; and with the originator, who is behind the run."""
    lines = [f"{identity.name} · {identity.key}" if identity.name else identity.key for identity in chain.identities]
    if chain.accountable:
        behind = [person.name for person in bundle.people_behind(chain.accountable)]
        lines[0] = f"{lines[0]} · started by {', '.join([*behind, *chain.accountable])}"
    return tuple(lines)


def trigger_known(bundle: Bundle, chain: Chain) -> bool:
    """Return whether the people behind the run are known, to the issuer and to us."""
    return bundle.knows_who_is_behind(chain.accountable)


def needs_of(needs: Iterable[ApprovalNeed], *, trigger_known: bool) -> tuple[ApprovalNeed, ...]:
    """Return ``needs``, each raised to two people where the trigger is not known."""
    return tuple(needs) if trigger_known else raise_unknown_trigger(needs)


def excluded_people(bundle: Bundle, chain: Chain) -> tuple[PersonId, ...]:
    """Return the people who may not answer for this chain: those behind the run, and those who are an actor in it."""
    keys = tuple(identity.key for identity in chain.identities)
    return tuple(sorted(person.id for person in bundle.people_behind(chain.accountable + keys)))


def approvers_stand(bundle: Bundle, chain: Chain, ask: Ask, answers: Iterable[Answer]) -> bool:
    """Return whether the people who approved still may, under ``bundle``: in the group, and not behind the run.

    ``answers`` are those that :func:`chalicelib.domain.ask.fold_approval` counted.
    """
    excluded = set(excluded_people(bundle, chain)) | set(ask.excluded)
    given = {answer.person for answer in answers if answer.approved} - excluded
    for need in ask.question.needs:
        able = {person.id for person in bundle.people if need.approval.group in person.groups}
        if len(given & able) < need.approval.count:
            return False
    return bool(ask.question.needs)
