"""The revocations table: a row a revoked key, a numbered feed, and the feed's epoch, changed in one transaction.

Three kinds of row share the table: ``key#KEY``, ``feed#NUMBER`` and ``epoch``. The feed is read by its numbers, one key
each, so that a reader who knows the epoch can tell a hole from an end. No row has a TTL: a revocation never lapses.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final

from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.exceptions import TransactWriteError
from pynamodb.models import Model
from pynamodb.transactions import TransactWrite

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.revocation import Revocation
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.tables import Tables, documents, matching, reaching

REVOCATIONS: Final = "revocations"
_EPOCH: Final = "epoch"
_MAX_FEED: Final = 10_000  # rows of the feed in one read: a reader so far behind starts anew from the epoch

# Revocations race only with each other, for the next number. Sixteen people revoking in one second get theirs within
# a second; the pause is random so that two losers do not meet again.
_MAX_RACES: Final = 24
_MAX_PAUSE_S: Final = 0.1


class RevocationRow(Model):
    """``doc`` is on the rows of a key and of the feed, ``number`` on the epoch's alone."""

    id = UnicodeAttribute(hash_key=True)
    doc = UnicodeAttribute(null=True)
    number = NumberAttribute(null=True)


class DynamoRevocations:
    """Implements ``domain.store.Revocations``."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._rows = tables.bind(RevocationRow, REVOCATIONS)
        self._pause = threading.Event()

    def revoke(self, key: str, *, by: str, why: str, at: datetime) -> Revocation:
        for _ in range(_MAX_RACES):
            found = self.any_of(frozenset({key}))
            if found is not None:
                return found
            revocation = Revocation(key=key, number=self.epoch() + 1, by=by, why=why, at=at)
            if self._put(revocation):
                return revocation
            self._pause.wait(random.uniform(0, _MAX_PAUSE_S))  # noqa: S311 - spreads writers, protects nothing
        raise StoreUnavailable("a store could not be reached", store=REVOCATIONS, error="too many writers")

    def any_of(self, keys: frozenset[str]) -> Revocation | None:
        rows = self._read(f"key#{key}" for key in sorted(keys))
        if not rows:
            return None
        name = min(rows)
        found = from_document(Revocation, rows[name])
        return matching(found, holds=f"key#{found.key}" == name, store=REVOCATIONS)

    def epoch(self) -> int:
        with reaching(REVOCATIONS):
            try:
                row = self._rows.get(_EPOCH, consistent_read=True)
            except self._rows.DoesNotExist:
                return 0
        if row.number is None:
            raise StoreUnavailable("a stored row cannot be read", store=REVOCATIONS, row=_EPOCH)
        return int(row.number)

    def since(self, number: int) -> Sequence[Revocation]:
        wanted = [f"feed#{n}" for n in range(number + 1, min(self.epoch(), number + _MAX_FEED) + 1)]
        rows = self._read(wanted)
        if len(rows) != len(wanted):
            raise StoreUnavailable("the feed of revocations has a hole", since=number, found=len(rows))
        feed = [from_document(Revocation, rows[name]) for name in wanted]
        holds = all(f"feed#{found.number}" == name for found, name in zip(feed, wanted, strict=True))
        return matching(feed, holds=holds, store=REVOCATIONS)

    def _put(self, revocation: Revocation) -> bool:
        """Put all three rows or none. False where somebody else took the key or the number."""
        rows, document = self._rows, to_document(revocation)
        last = revocation.number - 1
        # A free number alone would do while the feed has no holes; a restore may raise the epoch past its rows.
        unmoved = rows.number == last if last else rows.id.does_not_exist()
        with reaching(REVOCATIONS):
            try:
                with TransactWrite(connection=self._tables.connection) as transaction:
                    free = rows.id.does_not_exist()
                    transaction.save(rows(id=f"key#{revocation.key}", doc=document), condition=free)
                    transaction.save(rows(id=f"feed#{revocation.number}", doc=document), condition=free)
                    transaction.save(rows(id=_EPOCH, number=revocation.number), condition=unmoved)
            except TransactWriteError as error:
                codes = {reason.code for reason in error.cancellation_reasons if reason is not None}
                if codes and codes <= {"ConditionalCheckFailed", "TransactionConflict"}:
                    return False
                raise
        return True

    def _read(self, ids: Iterable[str]) -> Mapping[str, str]:
        return documents(self._rows, list(ids))
