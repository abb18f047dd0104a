"""AWS throttles: each store waits a little, tries again a bounded number of times, and then refuses in words.

A small server stands in front of the emulator and throttles the next requests of an operation, in the words of each
service. What counts is how often we ask (a retry storm is what keeps a throttled table down), how long a caller waits
(somebody stands before Slack, or holds a client's connection), and that nothing was done twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.identifiers import new_txn
from chalicelib.domain.store import Stores
from chalicelib.store.opened import open_stores
from chalicelib.store.tables import RETRIES
from dev.emulator import Emulator, start_ministack
from dev.loopback import Request, Response
from dev.provision import provision
from tests.conformance.backends import REGION, new_settings
from tests.fakes import samples
from tests.fakes.clock import START
from tests.unit.chalicelib.store.test_lost_answers import LossyEdge

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("throttling")]

# A refusal must come while somebody still listens: Slack gives 3 s, and botocore's own pauses are random below it.
SOON_S: Final = 8.0
NOT_S3: Final = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")


class ThrottlingEdge(LossyEdge):
    """Throttles the next ``throttle[operation]`` requests of an operation, and leaves keys of batches unread."""

    def __init__(self, emulator: Emulator) -> None:
        self.throttle: dict[str, int] = {}
        self.unread = 0
        self.code = NOT_S3[0]
        super().__init__(emulator)

    def _answer(self, request: Request) -> Response:
        operation = request.headers.get("x-amz-target", request.method).rpartition(".")[2]
        if self.throttle.get(operation, 0) > 0:
            self.throttle[operation] -= 1
            self.seen.append(operation)
            return self._throttled(operation)
        if operation == "BatchGetItem" and self.unread:
            self.unread -= 1
            self.seen.append(operation)
            asked = json.loads(request.body)["RequestItems"]
            told: Any = {"Responses": {table: [] for table in asked}, "UnprocessedKeys": asked}
            return Response(body=json.dumps(told).encode(), content_type="application/x-amz-json-1.0")
        return super()._answer(request)

    def _throttled(self, operation: str) -> Response:
        if operation in ("PUT", "GET", "HEAD"):
            body = b"<Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>"
            return Response(status=503, body=body, content_type="application/xml")
        body = json.dumps({"__type": self.code, "message": "slow down"}).encode()
        return Response(status=400, body=body, content_type="application/x-amz-json-1.0")

    def count(self, operation: str) -> int:
        return self.seen.count(operation)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    started = start_ministack(tmp_path_factory.mktemp("ministack"))
    yield started
    started.stop()


@pytest.fixture
def edge(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThrottlingEdge]:
    found = ThrottlingEdge(emulator)
    for name, value in {**emulator.environment(REGION), "AWS_ENDPOINT_URL": found.url}.items():
        monkeypatch.setenv(name, value)
    yield found
    found.stop()


@pytest.fixture
def stores(edge: ThrottlingEdge) -> Stores:
    settings = new_settings()
    provision(settings)
    edge.seen.clear()
    return open_stores(settings)


def refused_soon(call: Callable[[], object]) -> StoreUnavailable:
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as raised:
        call()
    assert time.monotonic() - began < SOON_S
    return raised.value


CALLS: Final[dict[str, tuple[str, Callable[[Stores], object]]]] = {
    "a row is put": ("PutItem", lambda stores: stores.chains.put(samples.origin())),
    "a row is read": ("GetItem", lambda stores: stores.sessions.get(samples.session().id)),
    "rows are listed": ("Query", lambda stores: stores.chains.hops(new_txn(START))),
    "a revocation is looked for": ("BatchGetItem", lambda stores: stores.revocations.any_of(frozenset({"txn:x"}))),
    "sessions are read": ("BatchGetItem", lambda stores: stores.sessions.get_many([samples.session().id])),
    "rows are compared": ("BatchGetItem", lambda stores: stores.rows.states("sessions", ['{"id":"x"}'])),
    "a revocation is made": (
        "TransactWriteItems",
        lambda stores: stores.revocations.revoke("txn:x", by="a", why="b", at=START),
    ),
    "an object is put": ("PUT", lambda stores: stores.objects.put_new("rec/v1/x", b"x", content_type="text/plain")),
    "something is signed": ("Sign", lambda stores: stores.signer("token").sign("at+jwt", b"{}")),
}


@pytest.mark.parametrize("what", sorted(CALLS))
def test_what_stays_throttled_is_refused_after_a_bounded_number_of_tries(
    edge: ThrottlingEdge, stores: Stores, what: str
) -> None:
    """More tries than these keep the table throttled, and a caller waiting."""
    operation, call = CALLS[what]
    edge.throttle[operation] = 1000
    error = refused_soon(lambda: call(stores))
    assert error.code == "store_unavailable"
    assert 1 + RETRIES <= edge.count(operation) <= 1 + RETRIES


@pytest.mark.parametrize("code", NOT_S3)
def test_a_moment_of_throttling_is_ridden_out_and_nothing_is_done_twice(
    edge: ThrottlingEdge, stores: Stores, code: str
) -> None:
    """A partition that splits throttles for a moment: an approval must not fail for it."""
    edge.code = code
    hop = samples.origin()
    edge.throttle = {"PutItem": RETRIES, "Query": RETRIES}
    stores.chains.put(hop)
    assert list(stores.chains.hops(hop.txn)) == [hop.id]
    edge.throttle = {"PUT": 2}
    stores.objects.put_new("rec/v1/x", b"x", content_type="text/plain")
    assert stores.objects.get("rec/v1/x") == b"x"


@pytest.mark.parametrize("what", ["a revocation is looked for", "sessions are read", "rows are compared"])
def test_keys_that_stay_unread_are_an_outage_and_not_a_loop(edge: ThrottlingEdge, stores: Stores, what: str) -> None:
    """BatchGetItem answers 200 with what it did not read: asked again at once and for ever, it never would."""
    edge.unread = 1000
    refused_soon(lambda: CALLS[what][1](stores))
    assert edge.count("BatchGetItem") <= 40


def test_keys_that_were_unread_for_a_moment_are_read(edge: ThrottlingEdge, stores: Stores) -> None:
    """What is missing from the first answer is not missing from the table."""
    session = samples.session()
    stores.sessions.create(session)
    edge.unread = 2
    assert [one.id for one in stores.sessions.get_many([session.id])] == [session.id]
    stores.revocations.revoke("txn:y", by="a", why="b", at=START)
    edge.unread = 2
    assert stores.revocations.any_of(frozenset({"txn:y"})) is not None
