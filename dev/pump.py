"""What feeds functions at AWS and not here: a table's stream, and a schedule; :class:`Pumps` runs those and others.

Rules: records of one shard arrive in order, in batches of ``BATCH``, in the event shape of Lambda's DynamoDB source,
read with the function's own credentials as Lambda does; a batch that fails is tried ``TRIES`` times, then put aside
(its sequence numbers in the log), so that one poison record never stops the rest; only where nothing may be lost does
it come again until it is taken. A pump that cannot read says so once
and tries again.
Sources: docs.aws.amazon.com, "Using Lambda with DynamoDB" (event, batching, retries), "Scheduled events" (event).
"""

from __future__ import annotations

import base64
import threading
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import StoreUnavailable
from dev.lambdas import Answered
from dev.output import complain
from dev.processes import Joinable, background

POLL_S: Final = 0.25  # Lambda reads each shard four times a second
BATCH: Final = 10
TRIES: Final = 3
WINDOW_S: Final = 1.0
SCHEDULE_S: Final = 60.0
_PUT_ASIDE_KEPT: Final = 100


class Streams(Protocol):
    """What is used of boto3's ``dynamodbstreams`` client."""

    def describe_stream(self, *, StreamArn: str) -> Any: ...  # noqa: N803 - boto3's names

    def get_shard_iterator(self, *, StreamArn: str, ShardId: str, ShardIteratorType: str) -> Any: ...  # noqa: N803

    def get_records(self, *, ShardIterator: str, Limit: int) -> Any: ...  # noqa: N803


class StreamPump:
    """Reads one stream from its beginning and gives every record to ``deliver``."""

    def __init__(
        self,
        streams: Streams,
        arn: str,
        region: str,
        deliver: Callable[[object], Answered],
        *,
        batch: int = BATCH,
        until_taken: bool = False,
    ) -> None:
        """``until_taken``: a batch that fails is never put aside, but comes again with the next step."""
        self._streams = streams
        self._arn = arn
        self._region = region
        self._deliver = deliver
        self._batch = batch
        self._until_taken = until_taken
        self._iterators: dict[str, str | None] = {}
        self.put_aside: deque[tuple[str, ...]] = deque(maxlen=_PUT_ASIDE_KEPT)

    def step(self) -> int:
        """Read each shard once and deliver what is there; return how many records that was. Raises botocore's
        errors."""
        for shard in self._streams.describe_stream(StreamArn=self._arn)["StreamDescription"]["Shards"]:
            if shard["ShardId"] not in self._iterators:
                first = self._streams.get_shard_iterator(
                    StreamArn=self._arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
                )
                self._iterators[shard["ShardId"]] = first["ShardIterator"]
        return sum(self._read(shard) for shard in list(self._iterators))

    def _read(self, shard: str) -> int:
        iterator = self._iterators[shard]
        if iterator is None:  # the shard is closed and read to its end
            return 0
        found = self._streams.get_records(ShardIterator=iterator, Limit=self._batch)
        records: list[dict[str, Any]] = found["Records"]
        if records and not self._given(records):
            return 0  # the iterator stays where it is
        self._iterators[shard] = found.get("NextShardIterator")
        return len(records)

    def _given(self, records: Sequence[Mapping[str, Any]]) -> bool:
        """Deliver, and return whether the next records may follow."""
        event = {"Records": [_as_lambda_shows(record, self._arn, self._region) for record in records]}
        for _ in range(TRIES):
            try:
                if not self._deliver(event).failed:
                    return True
            except StoreUnavailable:
                continue
        if self._until_taken:
            return False
        numbers = tuple(record["dynamodb"]["SequenceNumber"] for record in records)
        self.put_aside.append(numbers)
        complain(
            f"{self._arn.split('/stream/')[0].rpartition('/')[2]}: put aside after {TRIES} tries: {', '.join(numbers)}"
        )
        return True


def _as_lambda_shows(record: Mapping[str, Any], arn: str, region: str) -> dict[str, Any]:
    return {
        "eventID": record["eventID"],
        "eventName": record["eventName"],
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": region,
        "dynamodb": _plain(record["dynamodb"]),
        "eventSourceARN": arn,
    }


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON carries it in Lambda's event: bytes as base64, moments as seconds. Pure."""
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [_plain(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.timestamp()
        case _:
            return value


class Pump(Protocol):
    """What is followed: a stream, a log."""

    def step(self) -> int:
        """Deliver what is new; return how much that was. Raises botocore's errors or OSError where nothing can be
        read."""


class Windowed:
    """A pump with Lambda's batching window: what comes within ``window_s`` is delivered together."""

    def __init__(self, pump: Pump, clock: Clock, window_s: float = WINDOW_S) -> None:
        self._pump = pump
        self._clock = clock
        self._window_s = window_s
        self._next = 0.0

    def step(self) -> int:
        if self._clock.monotonic_s() < self._next:
            return 0
        found = self._pump.step()
        if not found:
            self._next = self._clock.monotonic_s() + self._window_s
        return found


class Pumps:
    """Runs every pump in threads of its own until :meth:`stop`; each of ``schedules`` every ``every_s`` seconds."""

    def __init__(
        self,
        pumps: Sequence[Pump],
        schedules: Sequence[Callable[[], object]],
        *,
        every_s: float = SCHEDULE_S,
    ) -> None:
        self._pumps = pumps
        self._schedules = schedules
        self._every_s = every_s
        self._ended = threading.Event()
        self._threads: list[Joinable] = []

    def start(self) -> None:
        for pump in self._pumps:
            self._threads.append(background("pump", lambda pump=pump: self._read(pump)))  # type: ignore[misc]
        for run in self._schedules:
            self._threads.append(background("schedule pump", lambda run=run: self._tick(run)))  # type: ignore[misc]

    def _read(self, pump: Pump) -> None:
        complained = False
        while not self._ended.is_set():
            try:
                found = pump.step()
                complained = False
            except (ClientError, BotoCoreError, OSError) as error:
                found = 0
                if not complained and not self._ended.is_set():
                    complain(f"a pump could not read: {error}")
                    complained = True
            self._ended.wait(0 if found else POLL_S)

    def _tick(self, run: Callable[[], object]) -> None:
        while not self._ended.wait(self._every_s):
            try:
                run()
            except StoreUnavailable as error:
                complain(f"a scheduled call was dropped: {error.public}")

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(timeout=5)


def scheduled_event(clock: Clock, name: str, account: str, region: str) -> dict[str, Any]:
    """Return what EventBridge sends a function on schedule."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": account,
        "time": timestamp(clock.now())[:19] + "Z",
        "region": region,
        "resources": [f"arn:aws:events:{region}:{account}:rule/{name}"],
        "detail": {},
    }
