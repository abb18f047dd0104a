"""The pumps: Lambda's event shape, order, and what becomes of a batch that fails."""

from __future__ import annotations

import queue
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from chalicelib.domain.errors import StoreUnavailable
from dev.lambdas import Answered
from dev.pump import TRIES, Pumps, StreamPump, Windowed, scheduled_event
from tests.fakes.clock import FakeClock

ARN = "arn:aws:dynamodb:eu-west-1:1:table/cs-asks/stream/2026"


def _record(number: int) -> dict[str, Any]:
    return {
        "eventID": f"e{number}",
        "eventName": "INSERT",
        "dynamodb": {
            "Keys": {"id": {"S": f"ask_{number}"}},
            "NewImage": {"id": {"S": f"ask_{number}"}, "blob": {"B": b"\x00\xff"}},
            "SequenceNumber": str(number),
            "ApproximateCreationDateTime": datetime(2026, 1, 1, tzinfo=UTC),
        },
    }


class Stream:
    """One shard that keeps the contract of the API: an iterator reads on from where it is, and the end is empty."""

    def __init__(self, count: int) -> None:
        self.records = [_record(number) for number in range(count)]

    def describe_stream(self, *, StreamArn: str) -> Any:  # noqa: N803
        return {"StreamDescription": {"Shards": [{"ShardId": "s"}]}}

    def get_shard_iterator(self, *, StreamArn: str, ShardId: str, ShardIteratorType: str) -> Any:  # noqa: N803
        assert ShardIteratorType == "TRIM_HORIZON"
        return {"ShardIterator": "0"}

    def get_records(self, *, ShardIterator: str, Limit: int) -> Any:  # noqa: N803
        start = int(ShardIterator)
        found = self.records[start : start + Limit]
        return {"Records": found, "NextShardIterator": str(start + len(found))}


class Receiver:
    """Keeps events; fails as often as it is told to."""

    def __init__(self, fail: int = 0, unreachable: bool = False) -> None:
        self.events: list[Any] = []
        self._fail = fail
        self._unreachable = unreachable

    def __call__(self, event: object) -> Answered:
        self.events.append(event)
        if self._unreachable:
            raise StoreUnavailable("too many calls wait")
        self._fail -= 1
        return Answered(payload=None, failed=self._fail >= 0)


def _ids(receiver: Receiver) -> list[list[str]]:
    return [[record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"]] for event in receiver.events]


def test_records_arrive_in_order_in_batches_in_lambdas_shape() -> None:
    """The card poster is written for the event that Lambda sends: bytes are base64, moments are seconds."""
    receiver = Receiver()
    pump = StreamPump(Stream(12), ARN, "eu-west-1", receiver)
    assert [pump.step(), pump.step(), pump.step()] == [10, 2, 0]
    assert _ids(receiver) == [[f"ask_{number}" for number in range(10)], ["ask_10", "ask_11"]]
    record = receiver.events[0]["Records"][0]
    assert record["eventSource"] == "aws:dynamodb"
    assert record["eventSourceARN"] == ARN
    assert record["dynamodb"]["NewImage"]["blob"] == {"B": "AP8="}
    assert record["dynamodb"]["ApproximateCreationDateTime"] == 1767225600.0


def test_a_batch_that_fails_is_tried_again() -> None:
    """A function that was restarted in the middle must not lose a card."""
    receiver = Receiver(fail=TRIES - 1)
    pump = StreamPump(Stream(1), ARN, "eu-west-1", receiver)
    pump.step()
    assert len(receiver.events) == TRIES
    assert not pump.put_aside


@pytest.mark.parametrize("receiver", [Receiver(fail=TRIES), Receiver(unreachable=True)])
def test_one_poison_record_on_the_stream_blocks_every_card(receiver: Receiver) -> None:
    """After its tries a batch is put aside, named, and the next record is read."""
    stream = Stream(1)
    pump = StreamPump(stream, ARN, "eu-west-1", receiver)
    pump.step()
    assert list(pump.put_aside) == [("0",)]
    stream.records.append(_record(1))
    pump.step()
    assert _ids(receiver)[-1] == ["ask_1"]


def test_a_scheduled_event_has_eventbridges_shape() -> None:
    """Chalice reads these fields in its own event class."""
    event = scheduled_event(FakeClock(), "cs-reconcile", "1", "eu-west-1")
    assert event["time"] == "2026-11-02T09:30:00Z"
    assert event["resources"] == ["arn:aws:events:eu-west-1:1:rule/cs-reconcile"]


def test_a_schedule_runs_again_and_again_and_a_full_function_does_not_end_it() -> None:
    """The reconciler is the net under every card: one throttled call must not be its last."""
    ticks: queue.Queue[int] = queue.Queue()

    def run() -> None:
        ticks.put(1)
        raise StoreUnavailable("too many calls wait")

    pumps = Pumps([], [run], every_s=0.001)
    pumps.start()
    for _ in range(3):
        ticks.get(timeout=10)
    pumps.stop()


def test_a_stream_that_cannot_be_read_for_a_while_is_read_again() -> None:
    """The emulator may be slow; the pump must not end with its first error, and says so once."""
    stream, receiver = Stream(1), Receiver()
    delivered = threading.Event()
    failures = iter([True, True, False])

    class Flaky(Stream):
        def describe_stream(self, *, StreamArn: str) -> Any:  # noqa: N803
            if next(failures, False):
                raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
            return stream.describe_stream(StreamArn=StreamArn)

    def deliver(event: object) -> Answered:
        delivered.set()
        return receiver(event)

    pumps = Pumps([StreamPump(Flaky(1), ARN, "eu-west-1", deliver)], [])
    pumps.start()
    assert delivered.wait(10)
    pumps.stop()
    assert _ids(receiver) == [["ask_0"]]


def test_what_may_not_be_lost_comes_again_until_it_is_taken() -> None:
    """A batch of changes that was put aside would be missing from the archive for ever."""
    receiver = Receiver(fail=2 * TRIES)
    pump = StreamPump(Stream(5), ARN, "eu-west-1", receiver, batch=3, until_taken=True)
    assert [pump.step() for _ in range(5)] == [0, 0, 3, 2, 0]
    assert _ids(receiver)[-2:] == [["ask_0", "ask_1", "ask_2"], ["ask_3", "ask_4"]]
    assert not pump.put_aside


def test_a_batching_window_lets_changes_gather() -> None:
    """Nine streams that are asked four times a second each would be all that the emulator does."""
    clock, receiver = FakeClock(), Receiver()
    stream = Stream(2)
    pump = Windowed(StreamPump(stream, ARN, "eu-west-1", receiver), clock, window_s=2.0)
    assert [pump.step(), pump.step()] == [2, 0]
    stream.records.append(_record(2))
    assert pump.step() == 0
    clock.advance(2)
    assert [pump.step(), len(receiver.events)] == [1, 2]
