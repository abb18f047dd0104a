"""What policy is asked, and what it answers: the shapes that both planes share. No Cedar here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol, TypeAlias

from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Chain
from chalicelib.domain.session import ApprovalNeed
from chalicelib.domain.target import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyQuestion:
    """May the leaf of ``chain`` (its current actor) do ``action`` on ``target`` as ``principal``?

    ``target`` is None, and ``principal`` empty, for what is done to this service itself (``chain:revoke``,
    ``chain:review``).
    ``chain`` never contains the target hop. ``context`` holds what the action's schema declares beside the common
    fields, which the engine fills in itself from ``chain`` and ``now``. ``trigger_known``: the people behind the
    run are people of ours. ``met`` are the ids of rules whose approvals have been given for exactly this.
    """

    chain: Chain
    target: Target | None
    principal: str
    action: str
    context: Mapping[str, Json]
    trigger_known: bool
    now: datetime
    met: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Allow:
    """Allowed, once what we do ourselves is done: ``masks`` by name, ``durable``, ``record_full``, ``bound``.
    ``rules`` are the ids of the permits, the obligations met and the approvals used, sorted."""

    rules: tuple[str, ...]
    masks: tuple[str, ...]
    durable: bool
    record_full: bool
    bound: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NeedsApproval:
    """Only forbids that people can meet stand in the way."""

    rules: tuple[str, ...]
    needs: tuple[ApprovalNeed, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Deny:
    """No permit, a forbid that cannot be met, or an error. ``public`` and ``hint`` may be shown."""

    rules: tuple[str, ...]
    public: str
    hint: str


Decision: TypeAlias = Allow | NeedsApproval | Deny


class Policy(Protocol):
    """A validated policy set. Thread-safe; decides from memory and never raises: any failure is Deny."""

    @property
    def digest(self) -> str: ...

    def decide(self, question: PolicyQuestion) -> Decision: ...

    def covers_session(self, rule: str) -> bool:
        """Whether an approval of ``rule`` given to open a session counts for that session's operations too. False for
        a rule that is not known, or that does not say so."""
        ...


class MentionKind(StrEnum):
    """What a policy names that another file of the bundle must define."""

    ENVIRONMENT = "environment"
    TARGET = "target"
    TEAM = "team"
    ISSUER = "issuer"
    MASK = "mask"
    GROUP = "group"
    GROUP_WITH_PASSKEYS = "group with passkeys"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mention:
    """A name in a policy, and where. ``people`` is how many of a group must answer; 0 for the other kinds.

    A misspelt name in a ``forbid`` is a rule that never applies, so the loader refuses names that nobody defines.
    """

    kind: MentionKind
    name: str
    people: int
    file: str
    line: int


class CompiledPolicy(Policy, Protocol):
    """A policy fresh from its texts, which also tells what it names."""

    @property
    def mentions(self) -> tuple[Mention, ...]: ...
