"""The connections table: a row a connection, put by the broker before it may mint, and sealed once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pynamodb.attributes import UnicodeAttribute

from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import AlreadyExists, Conflict
from chalicelib.domain.identifiers import ConnectionId, SessionId
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.tables import RevisedRow, Tables, matching, one, put_new, revise, under

CONNECTIONS: Final = "connections"


class ConnectionsRow(RevisedRow):
    session = UnicodeAttribute(hash_key=True)
    id = UnicodeAttribute(range_key=True)


class DynamoConnections:
    """Implements ``domain.store.Connections``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(ConnectionsRow, CONNECTIONS)

    def put(self, row: ConnectionRow) -> None:
        put_new(
            self._rows(session=row.session_id, id=row.id, doc=to_document(row)),
            self._rows.id.does_not_exist(),
            AlreadyExists("this connection has a row already", connection=row.id),
            lambda: self._row(row.session_id, row.id),
        )

    def get(self, session_id: SessionId, connection_id: ConnectionId) -> ConnectionRow:
        return _value(self._row(session_id, connection_id))

    def of_session(self, session_id: SessionId) -> Sequence[ConnectionRow]:
        return [_value(row) for row in under(self._rows, session_id)]

    def seal(
        self,
        session_id: SessionId,
        connection_id: ConnectionId,
        *,
        at: datetime,
        exit: str,
        key: str,
        sha256: str,
    ) -> None:
        def sealed(row: ConnectionRow) -> ConnectionRow:
            if row.sealed_at is not None:
                raise Conflict("the connection is sealed already", connection=connection_id)
            return dataclasses.replace(row, sealed_at=at, exit=exit, manifest_key=key, manifest_sha256=sha256)

        revise(ConnectionRow, lambda: self._row(session_id, connection_id), sealed)

    def _row(self, session_id: SessionId, connection_id: ConnectionId) -> ConnectionsRow:
        return one(self._rows, session_id, connection_id, missing="there is no such connection")


def _value(row: ConnectionsRow) -> ConnectionRow:
    found = from_document(ConnectionRow, row.doc)
    return matching(found, holds=(found.session_id, found.id) == (row.session, row.id), store=CONNECTIONS)
