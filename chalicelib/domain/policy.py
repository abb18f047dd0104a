"""What policy is asked, and what it answers: the shapes that both planes share. No Cedar here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Chain
from chalicelib.domain.session import ApprovalNeed
from chalicelib.domain.target import Target


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyQuestion:
    """May the leaf of ``chain`` (its current actor) do ``action`` on ``target`` as ``principal``?

    ``chain`` never contains the target hop. ``context`` holds what the action's schema declares beside the common
    fields, which the engine fills in itself from ``chain`` and ``now``. ``met`` are the ids of rules whose approvals
    have been given for exactly this.
    """

    chain: Chain
    target: Target
    principal: str
    action: str
    context: Mapping[str, Json]
    now: datetime
    met: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Permitted:
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
class NotPermitted:
    """No permit, a forbid that cannot be met, or an error. ``public`` and ``hint`` may be shown."""

    rules: tuple[str, ...]
    public: str
    hint: str


Outcome: TypeAlias = Permitted | NeedsApproval | NotPermitted


class Policy(Protocol):
    """A validated policy set. Thread-safe; decides from memory and never raises: any failure is NotPermitted."""

    @property
    def digest(self) -> str: ...

    def decide(self, question: PolicyQuestion) -> Outcome: ...
