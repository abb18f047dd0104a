"""Folds archived changes into what each row should be now, and what the rows say of each other.

What is checked: every row was made once; each later change starts from what the one before left, so that none was never
archived; no change was one that may not be (``domain.row_change``); a session hangs on an archived hop, a connection on
a session and a target hop, an answer and a use on an ask, a minted credential on a connection; connection rows are
numbered without holes per broker boot, each naming the hash of the one before. Keeps of each row only hashes, so that
an archive larger than memory's documents can be folded. Pure but for what it is given.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby, pairwise
from typing import Final

from chalicelib.domain.archived_item import GONE, ONCE, ArchivedItem, Change
from chalicelib.domain.canonical import Json, digest, timestamp
from chalicelib.domain.row_change import change_fault
from chalicelib.services.reviewed import Finding, FindingKind

_GONE_SHA256: Final = GONE.sha256()


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One archived change of a row, without its document, and the object that holds it."""

    order: int
    change: Change
    sha256: str
    before_sha256: str
    fault: str
    at: datetime
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbered:
    """A connection row's place in its broker boot."""

    boot: str
    number: int
    connection: str
    previous_sha256: str
    sha256: str


@dataclass(kw_only=True, slots=True)
class Facts:
    """What rows say of each other, by ids. ``expires`` is the end of a session's grant, where it has one;
    ``activations`` are the documents of the activations, as they were made, by their rows' names."""

    hops: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, tuple[str, str]] = field(default_factory=dict)
    expires: dict[str, str] = field(default_factory=dict)
    connections: dict[str, tuple[str, str]] = field(default_factory=dict)
    numbered: list[Numbered] = field(default_factory=list)
    sealed: set[str] = field(default_factory=set)
    asks: set[str] = field(default_factory=set)
    asked: dict[str, str] = field(default_factory=dict)
    minted: set[str] = field(default_factory=set)
    activations: dict[str, Mapping[str, Json]] = field(default_factory=dict)


class RowFold:
    """Folds the changes that :meth:`meet` is given, in any order. Not thread-safe."""

    def __init__(self) -> None:
        self.facts = Facts()
        self.changes = 0
        self._twice: list[Finding] = []
        self._steps: dict[tuple[str, str], dict[int, Step]] = {}

    def meet(self, change: ArchivedItem, where: str) -> None:
        """Take a change that the object ``where`` holds."""
        steps = self._steps.setdefault((change.table, change.key), {})
        known = steps.get(change.order())
        if known is not None:
            what = f"holds a change of {row_id(change.table, change.key)} that {known.where} holds"
            self._twice.append(Finding(key=where, kind=FindingKind.ORDER, what=what))
            return
        fault = change.fault
        if change.change is Change.REMOVE or change.table not in ("sessions", "connections", "revocations", ONCE):
            fault = fault or change_fault(change.table, change.keys(), change.change, GONE, change.state)
        steps[change.order()] = Step(
            order=change.order(),
            change=change.change,
            sha256=_GONE_SHA256 if change.change is Change.REMOVE else change.state.sha256(),
            before_sha256=change.before_sha256,
            fault=fault,
            at=change.at,
            where=where,
        )
        self.changes += 1
        _learn(self.facts, change)

    def last(self) -> Mapping[tuple[str, str], Step]:
        """Return the last change of every row, by table and key."""
        return {row: steps[max(steps)] for row, steps in self._steps.items()}

    def findings(self, *, whole: bool) -> Iterator[Finding]:
        """Give what does not hold. ``whole``: the fold has everything from the first change on; else what a row hangs
        on may have been archived before."""
        yield from self._twice
        for (table, key), steps in self._steps.items():
            if table != ONCE:  # a claim lapses and is taken anew, in one write
                yield from _history(row_id(table, key), [steps[order] for order in sorted(steps)], whole=whole)
        yield from _numbers(self.facts.numbered, whole=whole)
        if whole:
            yield from _hangs(self.facts)

    def open_connections(self) -> frozenset[str]:
        """Return the connections that no row was sealed for, as ``SESSION/CONNECTION``."""
        facts = self.facts
        return frozenset(f"{said[0]}/{one}" for one, said in facts.connections.items() if one not in facts.sealed)


def row_id(table: str, key: str) -> str:
    """Return the name under which findings have a row: the id of what it holds. Pure."""
    keys = _keys(key)
    match table:
        case "sessions" | "connections" | "asks":
            return str(keys.get("id", ""))
        case "chains":
            return str(keys.get("place", "")).partition("#")[2] or key
        case "answers":
            return f"{keys.get('ask', '')}#{keys.get('person', '')}"
        case "uses":
            return f"{keys.get('ask', '')}#{keys.get('n', '')}"
        case _:
            return f"{table} {'/'.join(str(value) for value in keys.values())}"


def _keys(key: str) -> Mapping[str, Json]:
    keys: Mapping[str, Json] = json.loads(key)
    return keys


def _history(name: str, steps: list[Step], *, whole: bool) -> Iterator[Finding]:
    for step in steps:
        if step.fault:
            gone = step.change is Change.REMOVE
            kind = FindingKind.MISSING if gone else FindingKind.ALTERED
            yield Finding(key=name, kind=kind, what=f"{step.fault} ({timestamp(step.at)})")
    if whole and steps[0].change is not Change.INSERT:
        yield Finding(key=name, kind=FindingKind.MISSING, what="was changed, and that it was made is not archived")
    for before, after in pairwise(steps):
        if after.change is Change.INSERT and before.change is not Change.REMOVE:
            yield Finding(key=name, kind=FindingKind.ALTERED, what=f"was made twice ({timestamp(after.at)})")
        elif after.change is not Change.INSERT and after.before_sha256 != before.sha256:
            what = f"lacks a change that was never archived, before {timestamp(after.at)}"
            yield Finding(key=name, kind=FindingKind.MISSING, what=what)


def _numbers(rows: list[Numbered], *, whole: bool) -> Iterator[Finding]:
    for boot, group in groupby(sorted(rows, key=lambda row: (row.boot, row.number)), key=lambda row: row.boot):
        numbered = list(group)
        if whole and numbered[0].number != 1:
            yield _never(boot, 1, numbered[0].number - 1)
        for before, after in pairwise(numbered):
            if after.number > before.number + 1:
                yield _never(boot, before.number + 1, after.number - 1)
            elif after.number == before.number or after.previous_sha256 != before.sha256:
                what = f"is not the row that {after.connection}, the broker's next, names"
                yield Finding(key=before.connection, kind=FindingKind.ALTERED, what=what)


def _never(boot: str, first: int, last: int) -> Finding:
    what = f"lacks connection rows {first} to {last}: they were never made, or never archived"
    return Finding(key=f"boot {boot}", kind=FindingKind.MISSING, what=what)


def _hangs(facts: Facts) -> Iterator[Finding]:
    missing = FindingKind.MISSING
    for session, (_, leaf) in facts.sessions.items():
        if leaf not in facts.hops:
            yield Finding(key=leaf, kind=missing, what=f"was never archived: it opened {session}")
    for connection, (session, hop) in facts.connections.items():
        if session not in facts.sessions:
            yield Finding(key=session, kind=missing, what=f"was never archived: {connection} was opened in it")
        if hop not in facts.hops:
            yield Finding(key=hop, kind=missing, what=f"was never archived: it is the target hop of {connection}")
    for name, ask in facts.asked.items():
        if ask not in facts.asks:
            yield Finding(key=ask, kind=missing, what=f"was never archived: {name} is about it")
    for connection in sorted(facts.minted - set(facts.connections)):
        yield Finding(key=connection, kind=missing, what="got a target's credential and has no connection row")


def _learn(facts: Facts, change: ArchivedItem) -> None:
    keys = change.keys()
    doc = change.state.document()
    match change.table:
        case "sessions":
            _learn_session(facts, doc)
        case "connections" if doc:
            _learn_connection(facts, doc, made=change.change is Change.INSERT)
        case "chains" if change.change is Change.INSERT:
            facts.hops[str(doc.get("id", ""))] = str(doc.get("txn", ""))
        case "asks" if change.change is Change.INSERT:
            facts.asks.add(str(keys.get("id", "")))
        case "answers" | "uses" if change.change is Change.INSERT:
            facts.asked[row_id(change.table, change.key)] = str(keys.get("ask", ""))
        case "activations" if change.change is Change.INSERT:
            facts.activations[row_id(change.table, change.key)] = doc
        case "once" if change.state.rest().get("kind") == "mint":
            facts.minted.add(str(keys.get("id", "")).partition("#")[2])
        case _:
            return


def _learn_session(facts: Facts, doc: Mapping[str, Json]) -> None:
    if not doc:
        return
    session = str(doc.get("id", ""))
    facts.sessions.setdefault(session, (str(doc.get("txn", "")), str(doc.get("leaf_hop", ""))))
    grant = doc.get("grant")
    if isinstance(grant, Mapping):
        facts.expires[session] = str(grant.get("expires_at", ""))


def _learn_connection(facts: Facts, doc: Mapping[str, Json], *, made: bool) -> None:
    connection = str(doc.get("id", ""))
    if doc.get("sealed_at") is not None:
        facts.sealed.add(connection)
    if not made:
        return
    facts.connections[connection] = (str(doc.get("session_id", "")), str(doc.get("target_hop", "")))
    number = doc.get("number")
    facts.numbered.append(
        Numbered(
            boot=str(doc.get("boot", "")),
            number=number if isinstance(number, int) else 0,
            connection=connection,
            previous_sha256=str(doc.get("previous_sha256", "")),
            sha256=_row_sha256(doc),
        )
    )


def _row_sha256(doc: Mapping[str, Json]) -> str:
    """Return what ``ConnectionRow.sha256`` gives for the row with this document."""
    names = ("id", "txn", "leaf_hop", "target_hop", "target", "principal", "peer", "boot", "number", "previous_sha256")
    try:
        opened = timestamp(datetime.fromisoformat(str(doc.get("opened_at", ""))))
        said = {"session": doc.get("session_id"), "opened_at": opened, **{name: doc.get(name) for name in names}}
        return digest(said)
    except (ValueError, TypeError):  # no row of ours: its own finding says so
        return ""
