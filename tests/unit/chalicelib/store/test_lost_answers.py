"""What the stores do when AWS is slow, wrong, gone, or answers twice: refuse, in time, and never guess.

A small server stands for AWS's edge: it answers with an error, or passes the request on and loses the answer, as a
network does. Behind it is the emulator, where a test needs one.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
from collections.abc import Callable, Iterator, Mapping

import pytest

from chalicelib.domain.errors import AlreadyExists, AlreadyUsed, StoreUnavailable
from chalicelib.domain.identifiers import new_ask_id, new_txn
from chalicelib.domain.store import ObjectVersion
from chalicelib.settings import StoreSettings
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.opened import Stores, open_stores
from dev.emulator import Emulator, start_ministack
from dev.loopback import LoopbackServer, Request, Response
from dev.processes import free_port
from dev.provision import provision
from tests.conformance.backends import REGION, new_settings
from tests.fakes import samples
from tests.fakes.clock import START

SETTINGS = StoreSettings(prefix="p", region=REGION, bucket="b-bucket", lock_days=0)
Answer = Callable[[Request], Response]


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], None]]:
    """Make botocore call a function of the test's, and stop it afterwards."""
    started: list[LoopbackServer] = []
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")

    def start(answer: Answer) -> None:
        server = LoopbackServer("edge", answer)
        server.start()
        started.append(server)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)

    yield start
    for server in started:
        server.stop()


Edge = Callable[[Answer], None]


def failing(status: int, kind: str) -> Answer:
    body = json.dumps({"__type": kind, "message": "no"}).encode()
    return lambda _: Response(status=status, body=body, content_type="application/x-amz-json-1.0")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(failing(400, "AccessDeniedException"), id="a right is missing"),
        pytest.param(failing(400, "ResourceNotFoundException"), id="the table is missing"),
        pytest.param(failing(400, "ProvisionedThroughputExceededException"), id="throttled"),
        pytest.param(failing(500, "InternalServerError"), id="an error of theirs"),
    ],
)
def test_whatever_is_wrong_with_a_table_is_an_outage(edge: Edge, answer: Answer) -> None:
    """Never an empty answer: 'no revocation found' and 'could not look' must not be the same."""
    edge(answer)
    stores = open_stores(SETTINGS)
    session = samples.session()
    calls: list[Callable[[], object]] = [
        lambda: stores.chains.hops(session.txn),
        lambda: stores.chains.put(samples.origin()),
        lambda: stores.sessions.get(session.id),
        lambda: stores.revocations.any_of(frozenset({"txn:1"})),
        lambda: stores.revocations.epoch(),
        lambda: stores.once.claim("a", "b", "", expires_at=START, now=START),
        lambda: stores.activations.latest(),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            call()


def test_something_else_that_answers_is_an_outage(edge: Edge) -> None:
    """A page with status 200 must not read as 'nothing is revoked' or 'a chain without hops'."""
    edge(lambda _: Response(body=b"<html>"))
    stores = open_stores(SETTINGS)
    for call in (lambda: stores.revocations.any_of(frozenset({"txn:1"})), lambda: stores.chains.hops(new_txn(START))):
        with pytest.raises(StoreUnavailable):
            call()


def test_nobody_there_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection, for every service."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    stores = open_stores(SETTINGS)
    calls: list[Callable[[], object]] = [
        lambda: stores.sessions.get(samples.session().id),
        lambda: stores.objects.put_new("k", b"", content_type="text/plain"),
        lambda: stores.objects.get("k"),
        lambda: stores.objects.keys("k"),
        lambda: stores.keys.public_keys("token"),
        lambda: stores.signer("token").sign("t", b"{}"),
        lambda: stores.secrets.get("s"),
        lambda: stores.functions.invoke("f", {}),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable) as outage:
            call()
        assert "127.0.0.1" not in outage.value.public


def test_a_table_that_is_not_there_names_no_key_in_its_error(edge: Edge) -> None:
    """The detail goes into a log, and a verifier or a token's id must not."""
    edge(failing(500, "InternalServerError"))
    with pytest.raises(StoreUnavailable) as outage:
        open_stores(SETTINGS).once.claim("token", "jti-that-is-secret", "payload", expires_at=START, now=START)
    assert "jti-that-is-secret" not in f"{outage.value.public} {outage.value.detail}"


@pytest.mark.parametrize(
    "text", ["", "{}", "null", '{"id":1}', to_document(samples.origin())[:-1], to_document(samples.ask())]
)
def test_a_row_that_cannot_be_read_is_an_outage(text: str) -> None:
    """It may be the one that says no; and the error must not quote it."""
    with pytest.raises(StoreUnavailable) as outage:
        from_document(type(samples.origin()), text)
    assert samples.ISSUER not in f"{outage.value.public} {outage.value.detail}"
    assert outage.value.__cause__ is None


def test_values_are_not_guessed_at() -> None:
    """'1' is not 1: a row written by something else is not ours."""
    row = samples.connection_row()
    assert from_document(type(row), to_document(row)) == row
    told = json.loads(to_document(row))
    with pytest.raises(StoreUnavailable):
        from_document(type(row), json.dumps({**told, "number": "1"}))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    started = start_ministack(tmp_path_factory.mktemp("ministack"))
    yield started
    started.stop()


class LossyEdge:
    """Passes requests on to the emulator; loses the answer to the next ones of an operation that a test names."""

    def __init__(self, emulator: Emulator) -> None:
        self._host = emulator.endpoint.removeprefix("http://")
        self.lose: dict[str, int] = {}
        self.seen: list[str] = []
        self._server = LoopbackServer("edge", self._answer)
        self._server.start()

    @property
    def url(self) -> str:
        return self._server.url

    def stop(self) -> None:
        self._server.stop()

    def _answer(self, request: Request) -> Response:
        operation = request.headers.get("x-amz-target", request.method).rpartition(".")[2]
        self.seen.append(operation)
        passed = self._pass_on(request)
        if self.lose.get(operation, 0) > 0:
            self.lose[operation] -= 1
            return Response(status=500, body=b"")
        return passed

    def _pass_on(self, request: Request) -> Response:
        connection = http.client.HTTPConnection(self._host, timeout=10)
        try:
            kept = {name: value for name, value in request.headers.items() if name not in {"connection", "expect"}}
            connection.request(request.method, request.target, body=request.body, headers=kept)
            answer = connection.getresponse()
            body = answer.read()
            told: Mapping[str, str] = dict(answer.getheaders())
        finally:
            connection.close()
        dropped = {"content-length", "content-type", "transfer-encoding", "connection", "date", "server"}
        headers = {name: value for name, value in told.items() if name.lower() not in dropped}
        return Response(
            status=answer.status, body=body, headers=headers, content_type=told.get("Content-Type", "text/plain")
        )


@pytest.fixture
def lossy(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyEdge]:
    edge = LossyEdge(emulator)
    for name, value in {**emulator.environment(REGION), "AWS_ENDPOINT_URL": edge.url}.items():
        monkeypatch.setenv(name, value)
    yield edge
    edge.stop()


def opened(lock_days: int = 1) -> Stores:
    settings = new_settings(lock_days)
    provision(settings)
    return open_stores(settings)


@pytest.mark.emulator
def test_a_put_whose_answer_was_lost_is_still_ours(lossy: LossyEdge) -> None:
    """The client repeats it and meets its own row: an approval must not be spent by a broken connection."""
    stores = opened()
    use = samples.use(new_ask_id(START))
    lossy.lose["PutItem"] = 1
    stores.uses.put(use)
    assert lossy.seen.count("PutItem") == 2
    assert list(stores.uses.of_ask(use.ask_id)) == [use]
    lossy.lose["PutItem"] = 1
    with pytest.raises(AlreadyUsed):  # another's row is another's, lost answer or not
        stores.uses.put(dataclasses.replace(use, by="broker:other"))
    with pytest.raises(AlreadyUsed):  # and without a lost answer our own row is a second use
        stores.uses.put(use)


@pytest.mark.emulator
def test_a_claim_whose_answer_was_lost_is_a_replay(lossy: LossyEdge) -> None:
    """Two requests may carry one token and one payload: the second must never be let through."""
    stores = opened()
    lossy.lose["PutItem"] = 1
    assert stores.once.claim("token", "t", "", expires_at=START.replace(year=2027), now=START) == ""


@pytest.mark.emulator
def test_a_change_whose_answer_was_lost_is_judged_again(lossy: LossyEdge) -> None:
    """A close is a close, however often it is sent."""
    stores = opened()
    session = samples.session()
    stores.sessions.create(session)
    lossy.lose["UpdateItem"] = 1
    closed = stores.sessions.close(session.id, "done", START)
    assert stores.sessions.get(session.id) == closed
    assert closed.close_reason == "done"


@pytest.mark.emulator
def test_a_revocation_whose_answer_was_lost_is_made_once(lossy: LossyEdge) -> None:
    """One number, one row."""
    stores = opened()
    lossy.lose["TransactWriteItems"] = 1
    revoked = stores.revocations.revoke("txn:1", by="ada", why="leaked", at=START)
    assert list(stores.revocations.since(0)) == [revoked]


@pytest.mark.emulator
def test_a_segment_whose_answer_was_lost_is_not_a_fence(lossy: LossyEdge) -> None:
    """A broker whose PUT answers 412 stops both sides: its own lost answer must not do that to it."""
    stores = opened()
    lossy.lose["PUT"] = 1
    put = stores.objects.put_new("rec/v1/s/c/000001.ndjson.gz", b"frames", content_type="application/gzip")
    assert isinstance(put, ObjectVersion)
    assert stores.objects.get(put.key, put.version_id) == b"frames"
    lossy.lose["PUT"] = 1
    with pytest.raises(AlreadyExists):
        stores.objects.put_new(put.key, b"tombstone", content_type="application/json")


@pytest.mark.emulator
def test_an_object_store_that_loses_every_answer_is_an_outage(lossy: LossyEdge) -> None:
    """Bounded: the recorder has two seconds."""
    stores = opened()
    stores.objects.put_new("first", b"", content_type="text/plain")
    lossy.lose["PUT"] = 99
    lossy.lose["HEAD"] = 99
    with pytest.raises(StoreUnavailable):
        stores.objects.put_new("k", b"x", content_type="text/plain")
    assert lossy.seen.count("PUT") <= 9


@pytest.mark.emulator
def test_a_bucket_that_does_not_lock_takes_no_evidence(lossy: LossyEdge) -> None:
    """A record that anybody may delete is none; the check costs one call a process."""
    settings = new_settings(lock_days=0)
    provision(settings)
    with pytest.raises(StoreUnavailable):
        open_stores(dataclasses.replace(settings, lock_days=1)).objects.put_new("k", b"", content_type="text/plain")
    open_stores(settings).objects.put_new("k", b"", content_type="text/plain")
    locked = new_settings(lock_days=3)
    provision(locked)
    with pytest.raises(StoreUnavailable):
        open_stores(dataclasses.replace(locked, lock_days=4)).objects.put_new("k", b"", content_type="text/plain")
    open_stores(locked).objects.put_new("k", b"", content_type="text/plain")
