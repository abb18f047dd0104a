"""The tables as they were, rebuilt from the archive of their changes: what a downloaded bucket has of them.

Rules: a row is what its last archived change left, by the stream's own numbers; a row that was removed is not there.
What one cannot read is left out and named in ``unreadable``. Of each row only the place of its last change is kept in
memory; the change is read again when the row is asked for. Reads once, when it is made: what lies in the folder then.

What it does not do: show what was never archived, or the live tables; who verifies says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date
from functools import lru_cache
from typing import Final, TypeVar

from chalicelib.domain.archived_item import ITEMS, ArchivedItem, items_of, row_name
from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Hop
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import NotFound, StoreUnavailable
from chalicelib.domain.identifiers import AskId, HopId, SessionId, Txn
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.session import Session
from chalicelib.domain.store import Keys
from chalicelib.store.plain_documents import read_document

T = TypeVar("T")
Place = tuple[int, str]  # the last change: its number, and the object that holds it
_TABLES: Final = ("chains", "sessions", "connections", "asks", "answers", "uses", "revocations")
_OBJECTS_HELD: Final = 64  # a batch has a hundred changes, and a chain's lie in a few of them


class Rebuilt:
    """The rows of every table, by table and the text of their key."""

    def __init__(self, objects: ReadObjects) -> None:
        """Raises StoreUnavailable where the folder cannot be read."""
        self._objects = objects
        self._last: dict[str, dict[str, Place]] = {table: {} for table in _TABLES}
        self._of: dict[tuple[str, str], set[str]] = {}
        self.unreadable: dict[str, None] = {}
        self._held = lru_cache(maxsize=_OBJECTS_HELD)(self._changes)
        for table in _TABLES:
            for where in objects.keys(f"{ITEMS}/{table}/"):
                for change in items_of(objects.get(where))[0]:
                    if change.table == table:
                        self._take(change, where)

    def one(self, kind: type[T], table: str, key: str) -> T | None:
        """Return the row with this key; None where there is none."""
        place = self._last[table].get(key)
        if place is None:
            return None
        item = self._held(place[1]).get((key, place[0]), "")
        if not item:  # it was removed; and the feed's epoch has no document
            return None
        try:
            return read_document(kind, item)
        except StoreUnavailable:
            self.unreadable[row_name(table, key)] = None
            return None

    def under(self, kind: type[T], table: str, of: str) -> list[T]:
        """Return the rows that belong to ``of``: a txn, a session, an ask, a boot."""
        found = (self.one(kind, table, key) for key in sorted(self._of.get((table, of), ())))
        return [row for row in found if row is not None]

    def every(self, kind: type[T], table: str) -> Iterable[T]:
        found = (self.one(kind, table, key) for key in sorted(self._last[table]))
        return (row for row in found if row is not None)

    def _take(self, change: ArchivedItem, where: str) -> None:
        last = self._last[change.table]
        known = last.get(change.key)
        if known is None or known[0] < change.order():
            last[change.key] = (change.order(), where)
        for of in _owners(change):
            self._of.setdefault((change.table, of), set()).add(change.key)

    def _changes(self, where: str) -> Mapping[tuple[str, int], str]:
        return {(one.key, one.order()): one.state.item for one in items_of(self._objects.get(where))[0]}


def _owners(change: ArchivedItem) -> list[str]:
    """Return under what a row is looked for besides its key."""
    keys: Mapping[str, Json] = change.keys()
    match change.table:
        case "chains":
            return [str(keys.get("txn", ""))]
        case "sessions":
            return [str(change.state.document().get("txn", ""))]
        case "connections":
            return [str(keys.get("session", "")), f"boot {change.state.document().get('boot', '')}"]
        case "answers" | "uses":
            return [str(keys.get("ask", ""))]
        case _:
            return []


class RebuiltChains:
    def __init__(self, rows: Rebuilt) -> None:
        self._rows = rows

    def hops(self, txn: Txn) -> Mapping[HopId, Hop]:
        return {hop.id: hop for hop in self._rows.under(Hop, "chains", txn) if hop.txn == txn}


class RebuiltSessions:
    def __init__(self, rows: Rebuilt) -> None:
        self._rows = rows

    def get(self, session_id: SessionId) -> Session:
        found = self._rows.one(Session, "sessions", f'{{"id":"{session_id}"}}')
        if found is None or found.id != session_id:
            raise NotFound("there is no such session", session=session_id)
        return found

    def of_txn(self, txn: Txn) -> Sequence[Session]:
        return [session for session in self._rows.under(Session, "sessions", txn) if session.txn == txn]

    def created_on(self, day: date) -> Sequence[SessionId]:
        made = self._rows.every(Session, "sessions")
        return [session.id for session in made if session.created_at.astimezone(UTC).date() == day]

    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        found = (self._rows.one(Session, "sessions", f'{{"id":"{one}"}}') for one in dict.fromkeys(session_ids))
        return [session for session in found if session is not None]


class RebuiltConnections:
    def __init__(self, rows: Rebuilt) -> None:
        self._rows = rows

    def of_session(self, session_id: SessionId) -> Sequence[ConnectionRow]:
        found = self._rows.under(ConnectionRow, "connections", session_id)
        return sorted((row for row in found if row.session_id == session_id), key=lambda row: row.id)

    def of_boot(self, boot: str, after: int, most: int) -> Sequence[ConnectionRow]:
        found = self._rows.under(ConnectionRow, "connections", f"boot {boot}")
        above = sorted((row for row in found if row.number > after), key=lambda row: row.number)
        return above[:most]


class RebuiltAsks:
    def __init__(self, rows: Rebuilt) -> None:
        self._rows = rows

    def get(self, ask_id: AskId) -> Ask:
        found = self._rows.one(Ask, "asks", f'{{"id":"{ask_id}"}}')
        if found is None or found.id != ask_id:
            raise NotFound("there is no such ask", ask=ask_id)
        return found


class RebuiltAnswers:
    def __init__(self, rows: Rebuilt) -> None:
        self._rows = rows

    def of_ask(self, ask_id: AskId) -> Sequence[Answer]:
        found = [answer for answer in self._rows.under(Answer, "answers", ask_id) if answer.ask_id == ask_id]
        return sorted(found, key=lambda answer: answer.person)


class RebuiltUses:
    def __init__(self, rows: Rebuilt) -> None:
        self._rows = rows

    def of_ask(self, ask_id: AskId) -> Sequence[Use]:
        found = [use for use in self._rows.under(Use, "uses", ask_id) if use.ask_id == ask_id]
        return sorted(found, key=lambda use: use.n)


class RebuiltRevocations:
    """Every one that was archived, by its key."""

    def __init__(self, rows: Rebuilt) -> None:
        self._rows = {row.key: row for row in rows.every(Revocation, "revocations")}

    def any_of(self, keys: frozenset[str]) -> Revocation | None:
        return next((self._rows[key] for key in sorted(keys) if key in self._rows), None)


class RebuiltStores:
    """Implements ``domain.reading.EvidenceStores`` over a downloaded bucket; ``keys`` come from elsewhere."""

    def __init__(self, objects: ReadObjects, keys: Keys) -> None:
        """Raises StoreUnavailable where the folder cannot be read."""
        rows = Rebuilt(objects)
        self.unreadable = rows.unreadable
        self.chains = RebuiltChains(rows)
        self.sessions = RebuiltSessions(rows)
        self.connections = RebuiltConnections(rows)
        self.asks = RebuiltAsks(rows)
        self.answers = RebuiltAnswers(rows)
        self.uses = RebuiltUses(rows)
        self.revocations = RebuiltRevocations(rows)
        self.objects = objects
        self.keys = keys
