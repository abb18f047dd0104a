"""The once table: what may happen once until a moment (a token's use, a Slack delivery, an Idempotency-Key)."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Final

from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.exceptions import PutError
from pynamodb.models import Model

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.store.tables import MAX_RACES, Tables, reaching

ONCE: Final = "once"
TTL_ATTRIBUTE: Final = "expires"
_DIGITS: Final = 10  # of the largest number that 32 bits hold


class OnceRow(Model):
    """``expires`` is in whole seconds, rounded up: it is also the table's TTL attribute, which takes nothing finer."""

    id = UnicodeAttribute(hash_key=True)
    payload = UnicodeAttribute()
    expires = NumberAttribute(attr_name=TTL_ATTRIBUTE)


class DynamoOnce:
    """Implements ``domain.store.Once``.

    A claim whose answer was lost and that the client repeated finds itself taken: for a token that reads as a replay,
    which refuses. The other reading would let a replay through whenever a connection breaks.
    """

    def __init__(self, tables: Tables) -> None:
        self._rows = tables.bind(OnceRow, ONCE)

    def claim(self, kind: str, value: str, payload: str, *, expires_at: datetime, now: datetime) -> str | None:
        key, rows = f"{kind}#{value}", self._rows
        row = rows(id=key, payload=payload, expires=math.ceil(expires_at.timestamp()))
        # DynamoDB deletes what expired within days, not at once, so the condition itself compares the time.
        free = rows.id.does_not_exist() | (rows.expires <= now.timestamp())
        for _ in range(MAX_RACES):
            with reaching(ONCE):
                try:
                    row.save(condition=free)
                    return None
                except PutError as error:
                    if error.cause_response_code != "ConditionalCheckFailedException":
                        raise
                try:
                    return rows.get(key, consistent_read=True).payload
                except rows.DoesNotExist:
                    continue  # TTL removed it between the two calls: it is free now
        raise StoreUnavailable("a store could not be reached", store=ONCE)

    def advance(self, kind: str, value: str, number: int, *, expires_at: datetime, now: datetime) -> bool:
        key, rows = f"{kind}#{value}", self._rows
        held = f"{number:0{_DIGITS}d}"  # one width, so that texts compare as their numbers do
        row = rows(id=key, payload=held, expires=math.ceil(expires_at.timestamp()))
        lower = rows.id.does_not_exist() | (rows.expires <= now.timestamp()) | (rows.payload < held)
        with reaching(ONCE):
            try:
                row.save(condition=lower)
            except PutError as error:
                if error.cause_response_code != "ConditionalCheckFailedException":
                    raise
                return False
        return True

    def held(self, kind: str, value: str, *, now: datetime) -> str | None:
        with reaching(ONCE):
            try:
                row = self._rows.get(f"{kind}#{value}", consistent_read=True)
            except self._rows.DoesNotExist:
                return None
        return row.payload if row.expires > now.timestamp() else None
