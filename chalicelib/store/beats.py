"""The beats table: one row a broker's boot, written over and over while its process lives. No evidence, no history.

A row goes by its ``expires`` (table TTL) a day after the last beat: the sweeper asks for minutes, and whoever looks
later finds the boot's rows and its closing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from pynamodb.attributes import NumberAttribute, UnicodeAttribute

from chalicelib.domain.connection import Beat
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.once import TTL_ATTRIBUTE
from chalicelib.store.tables import Row, Tables, matching, reaching

BEATS: Final = "beats"
_KEPT: Final = timedelta(days=1)


class BeatRow(Row):
    id = UnicodeAttribute(hash_key=True)
    expires = NumberAttribute(attr_name=TTL_ATTRIBUTE)


class DynamoBeats:
    """Implements ``domain.store.Beats``."""

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(BeatRow, BEATS)

    def put(self, beat: Beat) -> None:
        expires = int((beat.at + _KEPT).timestamp())
        with reaching(BEATS):
            self._rows(id=beat.boot, expires=expires, doc=to_document(beat)).save()

    def last(self, boot: str) -> Beat | None:
        with reaching(BEATS):
            try:
                row = self._rows.get(boot, consistent_read=True)
            except self._rows.DoesNotExist:
                return None
        beat = from_document(Beat, row.doc)
        return matching(beat, holds=beat.boot == row.id, store=BEATS)
