"""A deployment in an emulator whose tables' streams are read, and the administrator who may tamper with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from boto3.session import Session

from chalicelib.domain.store import Stores
from chalicelib.settings import StoreSettings
from chalicelib.store.opened import open_stores
from dev.lambdas import Answered
from dev.provision import provision
from dev.pump import StreamPump
from dev.settings import SystemClock
from tests.conformance.backends import REGION, new_settings
from tests.fakes.archive import ArchiveIn
from tests.fakes.clock import FakeClock
from tests.fakes.digested import Change, DigestedIn

_MOST_READS: Final = 100  # a shard answers empty now and then; a test makes tens of changes


class EmulatedAdministrator:
    """Implements ``Administrator`` with all rights on tables and bucket."""

    def __init__(self, settings: StoreSettings) -> None:
        session = Session(region_name=REGION)
        self._settings = settings
        self._tables: Any = session.resource("dynamodb")
        self._s3: Any = session.client("s3")

    def edit_row(self, table: str, key: Mapping[str, str | int], change: Change) -> None:
        rows = self._tables.Table(f"{self._settings.prefix}-{table}")
        document = json.loads(rows.get_item(Key=dict(key), ConsistentRead=True)["Item"]["doc"])
        change(document)
        rows.update_item(
            Key=dict(key), UpdateExpression="SET doc = :doc", ExpressionAttributeValues={":doc": json.dumps(document)}
        )

    def delete_row(self, table: str, key: Mapping[str, str | int]) -> None:
        self._tables.Table(f"{self._settings.prefix}-{table}").delete_item(Key=dict(key))

    def put_object(self, key: str, body: bytes, *, copies: bool = False) -> None:
        self._s3.put_object(Bucket=self._bucket(copies), Key=key, Body=body)

    def delete_object(self, key: str, *, copies: bool = False) -> None:
        self._s3.delete_object(Bucket=self._bucket(copies), Key=key)

    def _bucket(self, copies: bool) -> str:
        return self._settings.digest_bucket if copies else self._settings.bucket


class Streams:
    """Every table's stream, read as Lambda reads them."""

    def __init__(self, arns: Mapping[str, str], client: Any = None) -> None:
        self._events: list[Any] = []
        client = client if client is not None else Session(region_name=REGION).client("dynamodbstreams")
        self._pumps = [StreamPump(client, arn, REGION, self._take, batch=100) for arn in arns.values()]

    def __call__(self) -> list[Any]:
        """Return the events that were not returned yet."""
        for pump in self._pumps:
            for _ in range(_MOST_READS):
                if not pump.step():
                    break
        events, self._events = self._events, []
        return events

    def _take(self, event: object) -> Answered:
        self._events.append(json.loads(json.dumps(event)))
        return Answered(payload=None, failed=False)


def settings_with_copies() -> StoreSettings:
    settings = new_settings()
    return replace(settings, digest_bucket=f"{settings.prefix}-digests")


def digested_in_an_emulator() -> DigestedIn[Stores]:
    """Return a chain's evidence in a deployment of its own, archived from its streams and digested."""
    settings = settings_with_copies()
    made = provision(settings)
    stores: Stores = open_stores(settings)
    archive = ArchiveIn(stores, FakeClock(SystemClock().now()))
    return DigestedIn(archive, EmulatedAdministrator(settings), Streams(made.streams), settings.prefix)
