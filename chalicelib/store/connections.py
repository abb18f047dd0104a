"""The connections table: a row a connection, put by the broker before it may mint, and sealed once.

Two indexes, of keys alone: ``unsealed`` holds a row until it is sealed (sealing removes the attribute that puts it
there, so that the sweeper's question stays as small as its answer), ``of-boot`` a boot's rows by number. One partition
holds all that is unsealed: it takes a thousand openings and sealings a second.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.indexes import GlobalSecondaryIndex, KeysOnlyProjection

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import AlreadyExists, Conflict
from chalicelib.domain.identifiers import ConnectionId, SessionId
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.tables import RevisedRow, Tables, matching, one, put_new, reaching, revise, under

CONNECTIONS: Final = "connections"
UNSEALED: Final = "unsealed"
OF_BOOT: Final = "of-boot"
_OPEN: Final = "open"  # the one value of the attribute ``open``
_MOST_UNSEALED: Final = 1000  # what one run of the sweeper could not do anyway; it comes again in minutes


class UnsealedConnections(GlobalSecondaryIndex["ConnectionsRow"]):  # type: ignore[no-untyped-call] # pynamodb's own
    class Meta:
        index_name = UNSEALED
        projection = KeysOnlyProjection()

    open = UnicodeAttribute(hash_key=True)
    opened = UnicodeAttribute(range_key=True)


class ConnectionsOfBoot(GlobalSecondaryIndex["ConnectionsRow"]):  # type: ignore[no-untyped-call] # pynamodb's own
    class Meta:
        index_name = OF_BOOT
        projection = KeysOnlyProjection()

    boot = UnicodeAttribute(hash_key=True)
    number = NumberAttribute(range_key=True)


class ConnectionsRow(RevisedRow):
    session = UnicodeAttribute(hash_key=True)
    id = UnicodeAttribute(range_key=True)
    boot = UnicodeAttribute()
    number = NumberAttribute()
    opened = UnicodeAttribute()
    open = UnicodeAttribute(null=True)
    unsealed = UnsealedConnections()
    of_boot = ConnectionsOfBoot()


class DynamoConnections:
    """Implements ``domain.store.Connections``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(ConnectionsRow, CONNECTIONS)

    def put(self, row: ConnectionRow) -> None:
        put_new(
            self._rows(
                session=row.session_id,
                id=row.id,
                boot=row.boot,
                number=row.number,
                opened=timestamp(row.opened_at),
                open=_OPEN,
                doc=to_document(row),
            ),
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

        revise(ConnectionRow, lambda: self._row(session_id, connection_id), sealed, (self._rows.open.remove(),))

    def unsealed(self) -> Sequence[ConnectionRow]:
        with reaching(CONNECTIONS):
            found = [(row.session, row.id) for row in self._rows.unsealed.query(_OPEN, limit=_MOST_UNSEALED)]
        rows = [self.get(SessionId(session), ConnectionId(connection)) for session, connection in found]
        return [row for row in rows if row.sealed_at is None]

    def of_boot(self, boot: str, after: int, most: int) -> Sequence[ConnectionRow]:
        with reaching(CONNECTIONS):
            above = self._rows.of_boot.query(boot, self._rows.number > after, limit=most)
            found = [(row.session, row.id) for row in above]
        return [self.get(SessionId(session), ConnectionId(connection)) for session, connection in found]

    def _row(self, session_id: SessionId, connection_id: ConnectionId) -> ConnectionsRow:
        return one(self._rows, session_id, connection_id, missing="there is no such connection")


def _value(row: ConnectionsRow) -> ConnectionRow:
    found = from_document(ConnectionRow, row.doc)
    return matching(found, holds=(found.session_id, found.id) == (row.session, row.id), store=CONNECTIONS)
