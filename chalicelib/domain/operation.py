"""Operation and Verdict: one unit inside a connection, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from chalicelib.domain.canonical import Json
from chalicelib.domain.identifiers import OperationId
from chalicelib.domain.session import ApprovalNeed


@dataclass(frozen=True, kw_only=True, slots=True)
class Literal:
    """A secret that client text carried: named by kind and length on the card, its value nowhere."""

    kind: str
    length: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Act:
    """What an operation does, as policy sees it: one Cedar action with its context. One statement is one Act.

    ``context`` holds what was parsed (tables, columns, functions, ...) in the shape that the policy schema declares
    for ``action``. Two Acts that are equal get the same decision within one session, so they must hold everything
    that policy may read and nothing that differs from run to run.
    """

    action: str
    context: tuple[tuple[str, Json], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One unit inside a connection: a statement batch, an exec, an API call, a ref update.

    ``acts`` are decided together and the worst verdict wins; empty ``acts`` are a Block. ``text`` is what may be shown
    and recorded: client text with detected secrets replaced, the ``literals``. ``exact`` are the very bytes and
    ``binds`` the values: they stay in the broker's memory, and only a salted commitment to them leaves it.
    """

    id: OperationId
    protocol: str
    acts: tuple[Act, ...]
    text: str
    shown_binds: tuple[str, ...]
    literals: tuple[Literal, ...]
    exact: bytes
    binds: tuple[bytes | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ruling:
    """On what a verdict rests."""

    rules: tuple[str, ...]
    policy_digest: str
    configuration_serial: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Forward:
    """Let it through, and mask what comes back with ``masks`` (none: nothing to mask)."""

    ruling: Ruling
    masks: tuple[str, ...]
    durable: bool
    record_full: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Hold:
    """Wait, in flight, for ``needs``; once they are met policy is evaluated again."""

    ruling: Ruling
    needs: tuple[ApprovalNeed, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Refuse it in the client's own protocol. ``code`` is of ``errors``; ``public`` and ``hint`` may be shown."""

    ruling: Ruling
    code: str
    public: str
    hint: str


Verdict: TypeAlias = Forward | Hold | Block


def verdict_word(verdict: Verdict) -> str:
    """Return the glossary's word for a verdict, as records carry it: forward, mask, hold or block."""
    match verdict:
        case Forward():
            return "mask" if verdict.masks else "forward"
        case Hold():
            return "hold"
        case Block():
            return "block"
