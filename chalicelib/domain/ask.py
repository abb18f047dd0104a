"""Ask, Answer, Use: an approval as three facts, each put once and never updated.

An approval's state is :func:`fold_approval` over them. Rules: an Answer counts only for the digest that it names; a
person answers an Ask once; one refusal ends it; where a rule needs a passkey, a yes without its assertion meets
nothing; the accountable people and every actor of the chain are excluded; an approval is used once, and a withdrawal
takes the same slot as the use, so that only one of the two can happen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeAlias

from chalicelib.domain.canonical import Json, digest, timestamp
from chalicelib.domain.identifiers import AskId, PersonId, SessionId, Txn
from chalicelib.domain.passkey import Assertion
from chalicelib.domain.session import ApprovalNeed

ASK_VERSION: Final = 1
ANSWER_SIGNATURE_TYPE: Final = "countersign-answer+jws"


class Stage(StrEnum):
    REQUEST = "request"
    OPERATION = "operation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What an approver is asked, whole: the digest covers every field, and the card shows every one that says what,
    where, who and why.

    ``text`` is what will run with secrets replaced (``literals`` names them, e.g. ``card_number, 16 characters``);
    ``commitment`` is SHA-256 over a random salt, the exact bytes and the bind values: it binds the approval to what
    the broker alone holds. ``chain`` is the identities, originator first. ``state`` is what changes the text's meaning
    (database, search path, role).
    """

    stage: Stage
    session_id: SessionId
    connection_id: str
    operation_id: str
    txn: Txn
    chain: tuple[str, ...]
    leaf_hop_sha256: str
    target: str
    principal: str
    action: str
    text: str
    binds: tuple[str, ...]
    literals: tuple[str, ...]
    state: tuple[tuple[str, str], ...]
    commitment: str
    reason: str
    duration_s: int
    rules: tuple[str, ...]
    needs: tuple[ApprovalNeed, ...]
    trigger_known: bool
    configuration_serial: int
    policy_digest: str

    def digest(self) -> str:
        """Return the digest that Answers name, 64 hexadecimal digits."""
        fields: Mapping[str, Json] = {
            "v": ASK_VERSION,
            "stage": self.stage.value,
            "session": self.session_id,
            "connection": self.connection_id,
            "operation": self.operation_id,
            "txn": self.txn,
            "chain": list(self.chain),
            "leaf_hop_sha256": self.leaf_hop_sha256,
            "target": self.target,
            "principal": self.principal,
            "action": self.action,
            "text": self.text,
            "binds": list(self.binds),
            "literals": list(self.literals),
            "state": [list(pair) for pair in self.state],
            "commitment": self.commitment,
            "reason": self.reason,
            "duration_s": self.duration_s,
            "rules": list(self.rules),
            "needs": [need.told() for need in self.needs],
            "trigger_known": self.trigger_known,
            "configuration_serial": self.configuration_serial,
            "policy_digest": self.policy_digest,
        }
        return digest(fields)

    @property
    def needs_passkey(self) -> bool:
        """Whether a rule needs an assertion: then the question is approved on the approval page and not by a click."""
        return any(need.approval.webauthn for need in self.needs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What needs people. ``excluded`` are the people (ids) who may not answer it: those behind the run."""

    id: AskId
    question: Question
    digest: str
    excluded: tuple[PersonId, ...]
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One person's signed answer. ``groups`` are the person's at that moment; ``card_sha256`` is over the blocks that
    they saw, which ``card`` keeps as JSON text; ``via`` says where the answer came from (``slack:T1/U1/C1/ts``,
    ``webauthn:HOST/PASSKEY``); ``assertion`` is their passkey's, where the answer was given with one."""

    ask_id: AskId
    person: PersonId
    approved: bool
    digest: str
    groups: tuple[str, ...]
    card_sha256: str
    card: str
    via: str
    answered_at: datetime
    signature: str = ""
    assertion: Assertion | None = None

    def signed(self) -> Mapping[str, Json]:
        """Return exactly what the signature covers; an answer without an assertion as before there were any."""
        with_passkey = {} if self.assertion is None else {"assertion": self.assertion.signed()}
        return {
            "v": ASK_VERSION,
            "ask": self.ask_id,
            "person": self.person,
            "approved": self.approved,
            "digest": self.digest,
            "groups": list(self.groups),
            "card_sha256": self.card_sha256,
            "via": self.via,
            "answered_at": timestamp(self.answered_at),
            **with_passkey,
        }

    def sha256(self) -> str:
        return digest(self.signed())


class UseKind(StrEnum):
    RAN = "ran"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """The single use of an approval, or its withdrawal: both are put into slot ``n``, so one excludes the other."""

    ask_id: AskId
    n: int
    kind: UseKind
    by: str
    why: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """``missing``: how many more each need takes. ``answers`` so far count."""

    missing: tuple[tuple[ApprovalNeed, int], ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Approved:
    answers: tuple[Answer, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    by: PersonId


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """Used or withdrawn already."""

    use: Use


ApprovalState: TypeAlias = Waiting | Approved | Refused | Expired | Spent

UNKNOWN_TRIGGER_APPROVERS: Final = 2  # one of two may be whoever started the run; the other is then somebody else


def raise_unknown_trigger(needs: Iterable[ApprovalNeed]) -> tuple[ApprovalNeed, ...]:
    """Return ``needs`` with every count at least two: for a chain whose ``accountable`` is empty, at both stages.

    Where nobody knows who is behind a run (a schedule, a bot, a re-run) nobody can be excluded from approving it, so
    that a single answer could be the requester's own. Pure; applying it twice changes nothing more.
    """
    return tuple(
        replace(need, approval=replace(need.approval, count=max(need.approval.count, UNKNOWN_TRIGGER_APPROVERS)))
        for need in needs
    )


def counts_for(need: ApprovalNeed, answer: Answer) -> bool:
    """Return whether ``answer``, a verified one, is of those that ``need`` counts: by somebody of the group, and with a
    passkey where the rule needs one. Says nothing of yes or no, nor whose passkey it was. Pure."""
    return need.approval.group in answer.groups and (answer.assertion is not None or not need.approval.webauthn)


def fold_approval(ask: Ask, answers: Iterable[Answer], uses: Iterable[Use], now: datetime) -> ApprovalState:
    """Return the state of ``ask``.

    ``answers`` must be verified ones (signature checked); those with another digest, from an excluded person, or given
    after expiry are ignored. Order of precedence: spent, refused, approved, expired, waiting. Approved before expired:
    an answer in time stays good for the moment it takes to run. Pure.
    """
    for use in uses:
        return Spent(use=use)
    counted = [
        answer
        for answer in answers
        if answer.ask_id == ask.id
        and answer.digest == ask.digest
        and answer.person not in ask.excluded
        and answer.answered_at <= ask.expires_at
    ]
    for answer in counted:
        if not answer.approved:
            return Refused(by=answer.person)
    missing: list[tuple[ApprovalNeed, int]] = []
    for need in ask.question.needs:
        people = {answer.person for answer in counted if counts_for(need, answer)}
        if len(people) < need.approval.count:
            missing.append((need, need.approval.count - len(people)))
    if not missing and ask.question.needs:
        return Approved(answers=tuple(counted))
    if now >= ask.expires_at:
        return Expired()
    return Waiting(missing=tuple(missing), answers=tuple(counted))
