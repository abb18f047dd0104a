"""Rows as they are archived: read by key from any table, whatever is in them, to compare them with the archive.

Rules: every read is consistent; a row comes back as the very state that the archive keeps of one
(``domain.archived_item.state_of``), so that an attribute which no shape of ours has shows as well. Reads only. Source:
Amazon DynamoDB API reference, BatchGetItem (100 keys, unprocessed keys), Scan.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from chalicelib.domain.archived_item import TABLE_KEYS, RowState, key_text, state_of
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.settings import StoreSettings
from chalicelib.store.clients import Clients, calling

_BATCH: Final = 100  # BatchGetItem's own limit
_MAX_ROUNDS: Final = 32  # a batch of large rows comes back in parts of 16 MB: a hundred of 400 KB in three
_MAX_THROTTLED: Final = 8  # rounds in which nothing was read: an audit is in no hurry, and 3 s later it is an outage
_MAX_PAUSE_S: Final = 0.2


class DynamoRows:
    """Implements ``domain.archived_item.Rows``."""

    def __init__(self, clients: Clients, settings: StoreSettings) -> None:
        self._clients = clients
        self._prefix = settings.prefix
        self._pause = threading.Event()  # never set

    def states(self, table: str, keys: Sequence[str]) -> Mapping[str, RowState]:
        found: dict[str, RowState] = {}
        for start in range(0, len(keys), _BATCH):
            found |= self._batch(table, keys[start : start + _BATCH])
        return found

    def keys(self, table: str) -> Iterator[str]:
        names = {f"#{number}": name for number, name in enumerate(TABLE_KEYS[table])}
        more: dict[str, Any] = {}
        while True:
            with calling("dynamodb"):
                page = self._clients.tables().scan(
                    TableName=f"{self._prefix}-{table}",
                    ConsistentRead=True,
                    ProjectionExpression=", ".join(names),
                    ExpressionAttributeNames=names,
                    **more,
                )
            yield from (key_text(item) for item in page["Items"])
            if "LastEvaluatedKey" not in page:
                return
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def _batch(self, table: str, keys: Sequence[str]) -> dict[str, RowState]:
        name = f"{self._prefix}-{table}"
        left: Any = {name: {"Keys": [_tagged(key) for key in keys], "ConsistentRead": True}}
        found: dict[str, RowState] = {}
        throttled = 0
        for _ in range(_MAX_ROUNDS):
            with calling("dynamodb"):
                answer = self._clients.tables().batch_get_item(RequestItems=left)
            for item in answer["Responses"].get(name, []):
                key = {part: item[part] for part in TABLE_KEYS[table]}
                state = state_of(table, TABLE_KEYS[table], item)
                if state is not None:
                    found[key_text(key)] = state
            left = answer.get("UnprocessedKeys")
            if not left:
                return found
            if not answer["Responses"].get(name):  # throttled, not merely too large for one answer
                throttled += 1
                if throttled == _MAX_THROTTLED:
                    break
                self._pause.wait(random.uniform(0, _MAX_PAUSE_S * throttled))  # noqa: S311 - spreads readers only
        raise StoreUnavailable("a store could not be reached", store=table, error="unprocessed keys")


def _tagged(key: str) -> dict[str, dict[str, str]]:
    parts: Mapping[str, Json] = json.loads(key)
    return {name: {"N" if isinstance(value, int) else "S": str(value)} for name, value in parts.items()}
