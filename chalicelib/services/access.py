"""The request stage: what policy is asked about a session, or about this service, and who may not answer for it. Pure.

Used by every plane that decides on a session (``request``, ``take``, ``mint``, the broker's admission), so that all of
them ask policy the same question: a grant is necessary, never sufficient.

Rule: the requester's reason is never given to policy, since the requester's own text must not lower a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Final

from chalicelib.config.bundle import Bundle
from chalicelib.domain.ask import Answer, Ask, Question, Stage, counts_for, raise_unknown_trigger
from chalicelib.domain.canonical import digest
from chalicelib.domain.chain import Chain, Hop
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.identity import Assurance
from chalicelib.domain.policy import Decision, PolicyQuestion
from chalicelib.domain.session import AccessRequest, ApprovalNeed, Session
from chalicelib.domain.target import Protocol, Target

SESSION_OPEN: Final = "session:open"
CHAIN_DELEGATE: Final = "chain:delegate"
CHAIN_REVOKE: Final = "chain:revoke"
CHAIN_REVIEW: Final = "chain:review"
_ANY_DURATION_S: Final = 86_400  # caps nothing, so that policy is asked about a stand-in as about a target


def session_policy(
    *, bundle: Bundle, chain: Chain, target: Target, principal: str, duration_s: int, now: datetime
) -> Callable[[frozenset[str]], Decision]:
    """Return what policy says of a session, by the rules whose approvals were given for it: whoever asks a second time,
    with those that were met, asks the very same question."""
    unmet = PolicyQuestion(
        chain=chain,
        target=target,
        principal=principal,
        action=SESSION_OPEN,
        context={"duration_s": duration_s},
        trigger_known=trigger_known(bundle, chain),
        now=now,
        met=frozenset(),
    )
    return lambda met: bundle.policy.decide(replace(unmet, met=met))


def service_question(bundle: Bundle, chain: Chain, action: str, what: str, now: datetime) -> PolicyQuestion:
    """Return what policy is asked about ``action`` on this service itself: a delegation to a key or an issuer, a
    revocation or a review, of the kind ``what``. No approval counts here."""
    return PolicyQuestion(
        chain=chain,
        target=None,
        principal="",
        action=action,
        context={"what": what},
        trigger_known=trigger_known(bundle, chain),
        now=now,
        met=frozenset(),
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
    """Return whether the people behind the run are known, to the issuer and to us; and those behind the run of every
    actor that was let in below it, or somebody could answer for what their own pipeline does under another's."""
    known = bool(chain.accountable) and bundle.knows_who_is_behind(chain.involved)
    return known and not any(_hides_people(bundle, hop) for hop in chain.hops[1:])


def needs_of(needs: Iterable[ApprovalNeed], *, trigger_known: bool) -> tuple[ApprovalNeed, ...]:
    """Return ``needs``, each raised to two people where the trigger is not known."""
    return tuple(needs) if trigger_known else raise_unknown_trigger(needs)


def excluded_people(bundle: Bundle, chain: Chain) -> tuple[PersonId, ...]:
    """Return the people who may not answer for this chain: those behind any hop, and those who are an actor in it."""
    keys = tuple(identity.key for identity in chain.identities)
    return tuple(sorted(person.id for person in bundle.people_behind(chain.involved + keys)))


def request_commitment(request: AccessRequest) -> str:
    """Return what an approval of a request is bound to: the request, whole. Pure."""
    return digest(
        {
            "target": request.target,
            "principal": request.principal,
            "reason": request.reason,
            "duration_s": request.duration_s,
        }
    )


def asks_for(question: Question, session: Session, leaf: Hop) -> bool:
    """Return whether ``question`` is about opening this session, as its row is now, for the hop ``leaf``: a row
    that was moved to another actor takes no approval along. Pure."""
    request = session.request
    return (
        question.stage is Stage.REQUEST
        and question.session_id == session.id
        and question.txn == session.txn == leaf.txn
        and question.leaf_hop_sha256 == leaf.sha256()
        and (question.target, question.principal) == (request.target, request.principal)
        and question.commitment == request_commitment(request)
    )


def approvers_stand(bundle: Bundle, chain: Chain, ask: Ask, answers: Iterable[Answer]) -> bool:
    """Return whether the people who approved still may, under ``bundle``: in the group, not behind the run, and with
    a passkey that is still theirs where a rule needs one.

    ``answers`` are those that :func:`chalicelib.domain.ask.fold_approval` counted.
    """
    excluded = set(excluded_people(bundle, chain)) | set(ask.excluded)
    given = [as_registered(bundle, answer) for answer in answers if answer.person not in excluded]
    standing = [answer for answer in given if answer is not None]
    return bool(ask.question.needs) and all(people_meet(need, standing) for need in ask.question.needs)


def as_registered(bundle: Bundle, answer: Answer) -> Answer | None:
    """Return ``answer`` as ``bundle`` lets it count now: with those groups that the person is still in, and without its
    assertion where the passkey is not the person's any more; None where the bundle does not know them. Pure.

    What it returns is for counting: its signature is over the answer as it was given.
    """
    person = next((person for person in bundle.people if person.id == answer.person), None)
    if person is None:
        return None
    groups = tuple(group for group in answer.groups if group in person.groups)
    known = answer.assertion is not None and answer.assertion.passkey in person.passkeys
    return replace(answer, groups=groups, assertion=answer.assertion if known else None, signature="")


def people_meet(need: ApprovalNeed, answers: Iterable[Answer]) -> bool:
    """Return whether as many people said yes as ``need`` wants, each in the way that it wants. Pure."""
    people = {answer.person for answer in answers if answer.approved and counts_for(need, answer)}
    return len(people) >= need.approval.count


def rules_met(
    bundle: Bundle, chain: Chain, needs: Iterable[ApprovalNeed], question: Question, answers: Iterable[Answer]
) -> frozenset[str]:
    """Return the rules of which every one of ``needs`` is met: those that policy has *now*, and not those that the
    question names, since whoever can put an Ask writes them (one person where the rule says two, a click where it wants
    a passkey). An answer meets only rules that its question named. Pure."""
    wanted = needs_of(needs, trigger_known=trigger_known(bundle, chain))
    standing = [held for held in (as_registered(bundle, answer) for answer in answers) if held is not None]
    missing = {need.rule for need in wanted if not people_meet(need, standing)}
    return frozenset({need.rule for need in wanted} & {need.rule for need in question.needs}) - missing


def _hides_people(bundle: Bundle, hop: Hop) -> bool:
    """Return whether somebody started what ``hop`` attests, and its token did not say who: its issuer names people, and
    not this time (a schedule, a re-run). Where an issuer never does, as a cluster of its pods, there is no run."""
    if hop.evidence.assurance is not Assurance.ATTESTED or hop.accountable:
        return False
    return any(issuer.url == hop.actor.issuer and issuer.accountable for issuer in bundle.issuers)
