"""The sessions table: created, granted, re-keyed and closed by the control plane; the broker only reads."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Final

from pynamodb.attributes import UnicodeAttribute
from pynamodb.indexes import GlobalSecondaryIndex, KeysOnlyProjection

from chalicelib.domain.errors import AlreadyExists, Conflict, StoreUnavailable
from chalicelib.domain.identifiers import SessionId, Txn
from chalicelib.domain.session import Grant, Session, SessionStatus
from chalicelib.domain.verifier import Verifier
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.tables import MAX_ROWS, RevisedRow, Tables, documents, matching, one, put_new, reaching, revise

SESSIONS: Final = "sessions"
OF_TXN: Final = "of-txn"
BY_DAY: Final = "by-day"
MAX_DAY: Final = 100_000  # sessions of one day: a review of more is made from the archive, by Athena


class SessionsOfTxn(GlobalSecondaryIndex["SessionRow"]):  # type: ignore[no-untyped-call] # pynamodb's own
    """Finds the ids of a chain's sessions; they are ULIDs, so their order is that of time. The rows are read by key."""

    class Meta:
        index_name = OF_TXN
        projection = KeysOnlyProjection()

    txn = UnicodeAttribute(hash_key=True)
    id = UnicodeAttribute(range_key=True)


class SessionsByDay(GlobalSecondaryIndex["SessionRow"]):  # type: ignore[no-untyped-call] # pynamodb's own
    """Finds the ids of the sessions created on a day (UTC), for reviews of a period. The rows are read by key."""

    class Meta:
        index_name = BY_DAY
        projection = KeysOnlyProjection()

    day = UnicodeAttribute(hash_key=True)
    id = UnicodeAttribute(range_key=True)


class SessionRow(RevisedRow):
    id = UnicodeAttribute(hash_key=True)
    txn = UnicodeAttribute()
    day = UnicodeAttribute()
    of_txn = SessionsOfTxn()
    by_day = SessionsByDay()


class DynamoSessions:
    """Implements ``domain.store.Sessions``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(SessionRow, SESSIONS)

    def create(self, session: Session) -> None:
        put_new(
            self._rows(id=session.id, txn=session.txn, day=_day(session), doc=to_document(session)),
            self._rows.id.does_not_exist(),
            AlreadyExists("this session exists already", session=session.id),
            lambda: self._row(session.id),
        )

    def get(self, session_id: SessionId) -> Session:
        session = from_document(Session, self._row(session_id).doc)
        return matching(session, holds=session.id == session_id, store=SESSIONS)

    def grant(self, session_id: SessionId, grant: Grant) -> Session:
        def granted(session: Session) -> Session:
            if session.status is not SessionStatus.PENDING:
                raise Conflict("the session is not pending any more", session=session_id)
            return dataclasses.replace(session, status=SessionStatus.GRANTED, grant=grant)

        return revise(Session, lambda: self._row(session_id), granted)

    def rekey(self, session_id: SessionId, verifier: Verifier, *, only_first: bool) -> None:
        def rekeyed(session: Session) -> Session:
            if session.status is not SessionStatus.GRANTED or (only_first and session.verifier is not None):
                raise Conflict("the session takes no new secret", session=session_id)
            return dataclasses.replace(session, verifier=verifier)

        revise(Session, lambda: self._row(session_id), rekeyed)

    def close(self, session_id: SessionId, reason: str, at: datetime) -> Session:
        def closed(session: Session) -> Session:
            if session.status is SessionStatus.CLOSED:
                return session
            return dataclasses.replace(session, status=SessionStatus.CLOSED, closed_at=at, close_reason=reason)

        return revise(Session, lambda: self._row(session_id), closed)

    def of_txn(self, txn: Txn) -> Sequence[Session]:
        with reaching(SESSIONS):
            ids = [row.id for row in self._rows.of_txn.query(txn, limit=MAX_ROWS)]
        return [self.get(SessionId(found)) for found in ids]

    def created_on(self, day: date) -> Sequence[SessionId]:
        with reaching(SESSIONS):
            found = [SessionId(row.id) for row in self._rows.by_day.query(day.isoformat(), limit=MAX_DAY + 1)]
        if len(found) > MAX_DAY:
            raise StoreUnavailable("a store holds more than can be read", store=SESSIONS)
        return found

    def get_many(self, session_ids: Sequence[SessionId]) -> Sequence[Session]:
        wanted = list(dict.fromkeys(session_ids))
        rows = documents(self._rows, wanted)
        found = [(session_id, from_document(Session, rows[session_id])) for session_id in wanted if session_id in rows]
        return [matching(session, holds=session.id == named, store=SESSIONS) for named, session in found]

    def _row(self, session_id: SessionId) -> SessionRow:
        return one(self._rows, session_id, missing="there is no such session")


def _day(session: Session) -> str:
    return session.created_at.astimezone(UTC).date().isoformat()
