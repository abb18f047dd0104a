"""The real stack while a part of it fails: what a client sees, what ran, and what the record says afterwards.

Each broker that is killed or cut off here is one of the test's own, beside the stack's: same command, same role, same
stores. The witnesses are the target itself, its log, the bucket and the review; never the broker's own word.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.listeners.limits import MAX_STRANGERS_PER_PEER
from broker.listeners.tcp import HANDSHAKE_S
from dev.demo.waiting import wait_for
from dev.demo.witnesses import Cloud
from dev.local_stack import Stack
from dev.settings import ROOT, SystemClock, child_environment
from dev.targets import ORDERS
from tests.adversity.fault_proxy import FaultProxy, Network
from tests.e2e.visitor import (
    Row,
    SlackCard,
    Visitor,
    amount,
    another_broker,
    card_with,
    connect,
)

pytestmark = pytest.mark.e2e

CLOCK = SystemClock()
SOON_S = 10.0  # what happens within a second or two; a loaded machine gets more


@pytest.fixture(scope="module")
def visitor(stack: Stack) -> Visitor:
    return Visitor.of(stack)


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield pool


# -- witnesses -----------------------------------------------------------------------------------------------------


def plus_one(order: int) -> str:
    """Return a statement that policy holds, and of which the target shows how often it ran."""
    return f"UPDATE orders SET amount_cents = amount_cents + 1 WHERE id = {order}"


def logged(stack: Stack, text: str) -> bool:
    """Say whether the target's own log has ``text`` in a statement."""
    return text in Path(stack.ready["targets"][ORDERS]["log"]).read_text(errors="replace")


def segments(stack: Stack, session_id: str) -> dict[str, list[dict[str, Any]]]:
    """Return each recording's frames by connection, having checked numbers, links and sequence as an auditor would."""
    cloud = Cloud(stack.ready["aws"])
    found: dict[str, list[dict[str, Any]]] = {}
    previous: dict[str, str] = {}
    for key in sorted(cloud.keys(f"rec/v1/{session_id}/")):
        raw = cloud.read(key)
        header, *frames = [json.loads(line) for line in raw.splitlines()]
        connection_id = key.split("/")[3]
        assert header["prev_sha256"] == previous.get(connection_id, "")
        previous[connection_id] = hashlib.sha256(raw).hexdigest()
        found.setdefault(connection_id, []).extend({**frame, "meta": json.loads(frame["meta"])} for frame in frames)
    for recorded in found.values():
        assert [frame["seq"] for frame in recorded] == list(range(1, len(recorded) + 1))
    return found


def manifests(stack: Stack, session_id: str) -> list[dict[str, Any]]:
    cloud = Cloud(stack.ready["aws"])
    return [json.loads(cloud.read(key)) for key in cloud.keys("manifests/v1/") if f"/{session_id}/" in key]


def review(stack: Stack, session_id: str) -> tuple[int, dict[str, Any], str]:
    """Return (exit code, JSON, screen) of ``countersign review``, with the auditor's rights."""
    aws = stack.ready["aws"]
    environment = child_environment(
        {
            **aws["auditor"],
            "AWS_ENDPOINT_URL": aws["endpoint"],
            "AWS_DEFAULT_REGION": aws["region"],
            "COUNTERSIGN_PREFIX": aws["prefix"],
            "COUNTERSIGN_BUCKET": aws["bucket"],
        }
    )
    command = [sys.executable, "-m", "countersign", "review", session_id]
    done = [
        subprocess.run(
            [*command, *more], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        for more in ((), ("--json",))
    ]
    assert done[1].stdout, done[1].stderr
    return done[1].returncode, json.loads(done[1].stdout), done[0].stdout


def held(
    stack: Stack, threads: ThreadPoolExecutor, connection: psycopg.Connection[Row], sql: str
) -> tuple[Future[psycopg.Cursor[Row]], SlackCard]:
    """Send a statement that is held; return what waits for it, and its card."""
    waiting = threads.submit(connection.execute, sql)
    return waiting, card_with(stack, sql)


def farewell(waiting: Future[Any], within_s: float) -> psycopg.Error:
    """Return the error with which a statement ended."""
    error = waiting.exception(within_s)
    assert isinstance(error, psycopg.Error), error
    return error


# -- a broker that dies --------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Killed:
    """A broker that was killed while one statement was held, rows flowed, and an approved statement ran."""

    stack: Stack
    session: Mapping[str, Any]
    rows_seen: int
    errors: dict[str, psycopg.Error]
    late_card: SlackCard
    before: dict[int, int]


HELD, RUNNING = 7001, 7002
NAP = f"{plus_one(RUNNING)} AND pg_sleep(2) IS NOT NULL"
MANY_ROWS = "SELECT c.id, c.email, o.id FROM customers c CROSS JOIN orders o"


@pytest.fixture(scope="module")
def killed(stack: Stack, visitor: Visitor, threads: ThreadPoolExecutor) -> Killed:
    session = visitor.session()
    before = {order: amount(stack, order) for order in (HELD, RUNNING)}
    with another_broker(stack, "killed") as broker, contextlib.ExitStack() as open_ones:
        holding, streaming, running = (
            open_ones.enter_context(contextlib.closing(connect(stack, session, port=broker.port))) for _ in range(3)
        )
        waiting, late_card = held(stack, threads, holding, plus_one(HELD))
        approved, card = held(stack, threads, running, NAP)
        assert card.click("UALICE")["ok"]
        wait_for("the approved statement to run", lambda: logged(stack, NAP) or None, CLOCK, SOON_S)
        rows_seen = 0
        errors: dict[str, psycopg.Error] = {}
        try:
            for rows_seen, _ in enumerate(streaming.cursor().stream(MANY_ROWS), 1):
                if rows_seen == 20_000:
                    broker.kill()
        except psycopg.Error as error:
            errors["streaming"] = error
        errors["held"] = farewell(waiting, SOON_S)
        errors["running"] = farewell(approved, SOON_S)
    return Killed(stack=stack, session=session, rows_seen=rows_seen, errors=errors, late_card=late_card, before=before)


def test_kill_9_ends_every_client_with_an_error(killed: Killed) -> None:
    """P12: a statement that ended without a word would be taken for done, and rows that just stop for all rows."""
    assert set(killed.errors) == {"streaming", "held", "running"}
    assert 20_000 <= killed.rows_seen < 10_000_000


def test_kill_9_what_was_held_never_runs_not_even_when_approved_afterwards(killed: Killed) -> None:
    """The click comes after the broker's death: nobody is left who may send the statement, and nobody does."""
    killed.late_card.click("UALICE")
    assert amount(killed.stack, HELD) == killed.before[HELD]
    assert not logged(killed.stack, plus_one(HELD))


def test_kill_9_what_was_approved_ran_once_and_is_in_the_record(killed: Killed) -> None:
    """P6: nothing approved is ever lost; P4: its approval was used once, and nothing repeats it."""

    def ran() -> bool | None:
        return amount(killed.stack, RUNNING) == killed.before[RUNNING] + 1 or None

    wait_for("the approved statement's effect", ran, CLOCK, SOON_S)
    recorded = segments(killed.stack, killed.session["session_id"])
    verdicts = [
        frame["meta"]
        for frames in recorded.values()
        if any(frame["text"] == NAP for frame in frames)
        for frame in frames
        if frame["kind"] == "verdict"
    ]
    assert [verdict["verdict"] for verdict in verdicts] == ["mask"]  # forwarded, its answer masked


def test_kill_9_the_record_up_to_then_verifies_and_lost_at_most_the_window(killed: Killed) -> None:
    """P6: at most 2 s or 8 MiB are lost, whatever was in the broker's memory; the rest links from its first byte."""
    recorded = segments(killed.stack, killed.session["session_id"])
    assert len(recorded) == 3
    (flow,) = [frames for frames in recorded.values() if any(frame["text"] == MANY_ROWS for frame in frames)]
    lines = sum(frame["text"].count("\n") + 1 for frame in flow if frame["kind"] == "rows")
    row_bytes = 24  # the least that one recorded row takes
    assert lines >= killed.rows_seen - 8 * 1024 * 1024 // row_bytes


def test_kill_9_the_review_says_unsealed_and_unknown(killed: Killed) -> None:
    """P10: a review that called this whole would be a lie; what is not known is told as that."""
    code, told, screen = review(killed.stack, killed.session["session_id"])
    assert code != 0
    assert told["verified"] is False
    (session,) = told["sessions"]
    assert all(recording["sealed_at"] is None and not recording["verified"] for recording in session["recordings"])
    operations = {operation["text"]: operation for operation in session["operations"]}
    assert operations[NAP]["verdict"] == "mask"
    assert operations[NAP]["status"] in ("", "unknown")
    assert operations[plus_one(HELD)]["verdict"] == "hold"
    assert "unknown" in screen
    assert "NOT VERIFIED" in screen


# -- a broker that is told to end ----------------------------------------------------------------------------------


def test_sigterm_tells_every_client_seals_and_exits(
    stack: Stack, visitor: Visitor, threads: ThreadPoolExecutor
) -> None:
    """A deployment ends brokers every day: a readable 57P01, what was held is withdrawn, and every record is whole."""
    session = visitor.session()
    order = 7003
    before = amount(stack, order)
    with another_broker(stack, "drained") as broker, contextlib.ExitStack() as open_ones:
        idle, holding, streaming = (
            open_ones.enter_context(contextlib.closing(connect(stack, session, port=broker.port))) for _ in range(3)
        )
        idle.execute("SELECT 1")
        waiting, card = held(stack, threads, holding, plus_one(order))
        flowing = threads.submit(lambda: sum(1 for _ in streaming.cursor().stream(MANY_ROWS)))
        began = CLOCK.monotonic_s()
        assert broker.terminate() == 0
        assert CLOCK.monotonic_s() - began < 25
        errors = [farewell(waiting, SOON_S), farewell(flowing, SOON_S)]
        with pytest.raises(psycopg.Error) as ended:
            idle.execute("SELECT 2")
        for error in (*errors, ended.value):
            assert error.sqlstate == "57P01"
            assert "shutting down" in str(error)
    card.click("UALICE")
    assert amount(stack, order) == before
    found = manifests(stack, session["session_id"])
    assert [manifest["exit"] for manifest in found] == ["drained"] * 3
    assert not any(manifest["gaps"] for manifest in found)
    code, told, _ = review(stack, session["session_id"])
    assert (code, told["findings"]) == (0, [])


# -- stores that are out of reach ----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Outage:
    """What one connection saw while a store was away: (seconds since it began, how the probe ended)."""

    session: Mapping[str, Any]
    probes: list[tuple[float, str, str]] = field(default_factory=list)  # at, the probe's mark, error or empty
    ended_s: float = 0.0
    farewell: str = ""
    held_error: psycopg.Error | None = None
    held_s: float = 0.0


UNREADABLE = ("revocations could not", "configuration cannot")
OUTAGE_ENDS_S = 45.0  # 30 s by design, and what a loaded machine needs to notice


def _probe(connection: psycopg.Connection[Row], outage: Outage, began: float) -> bool | None:
    """Run one statement that nobody must approve; True once the connection is over."""
    mark = f"probe-{secrets.token_hex(8)}"
    error = ""
    try:
        connection.execute(f"SELECT '{mark}'")
    except psycopg.Error as refused:
        error = str(refused)
    at = CLOCK.monotonic_s() - began
    outage.probes.append((at, mark, error))
    if connection.broken:
        outage.ended_s, outage.farewell = at, error
    return connection.broken or None


def _outage(
    stack: Stack, visitor: Visitor, proxy: FaultProxy, service: str, *, hold_first: int, how: Network
) -> Outage:
    session = visitor.session()
    outage = Outage(session=session)
    with (
        another_broker(stack, f"no-{service}", **{f"AWS_ENDPOINT_URL_{service.upper()}": proxy.url}) as broker,
        ThreadPoolExecutor(max_workers=1) as pool,
        contextlib.closing(connect(stack, session, port=broker.port)) as probing,
        contextlib.closing(connect(stack, session, port=broker.port)) as holding,
    ):
        if hold_first:
            waiting, card = held(stack, pool, holding, plus_one(hold_first))
        began = CLOCK.monotonic_s()
        proxy.mode = how
        if hold_first:
            assert card.click("UALICE")["ok"]
        else:
            waiting = pool.submit(holding.execute, plus_one(7004))
        waiting.add_done_callback(lambda _: setattr(outage, "held_s", CLOCK.monotonic_s() - began))
        wait_for("the connection's end", lambda: _probe(probing, outage, began), CLOCK, OUTAGE_ENDS_S)
        outage.held_error = farewell(waiting, SOON_S)
        proxy.mode = Network.REFUSES  # what hangs in it ends, so that the broker can end
    return outage


@pytest.fixture(scope="module")
def proxies(stack: Stack) -> Iterator[dict[str, FaultProxy]]:
    made = {name: FaultProxy(upstream=stack.ready["aws"]["endpoint"]) for name in ("s3", "dynamodb")}
    yield made
    for proxy in made.values():
        proxy.stop()


@pytest.fixture(scope="module", autouse=True)
def outages_began(
    stack: Stack, visitor: Visitor, threads: ThreadPoolExecutor, proxies: dict[str, FaultProxy]
) -> dict[str, Future[Outage]]:
    """Both outages begin with the module's first test, beside the others: each takes the 30 s after which the design
    gives up, and harms nobody but a broker of its own."""
    ways = {"s3": (0, Network.REFUSES), "dynamodb": (7005, Network.SILENT)}
    return {
        name: threads.submit(_outage, stack, visitor, proxies[name], name, hold_first=hold, how=how)
        for name, (hold, how) in ways.items()
    }


@pytest.fixture(scope="module")
def outages(outages_began: dict[str, Future[Outage]]) -> dict[str, Outage]:
    return {name: future.result(90) for name, future in outages_began.items()}


def test_a_slow_bucket_slows_a_session_and_loses_nothing(
    stack: Stack, visitor: Visitor, threads: ThreadPoolExecutor, proxies: dict[str, FaultProxy]
) -> None:
    """Three seconds a PutObject is past the window: the broker waits for its record, and the record is whole."""
    session = visitor.session()
    proxy = FaultProxy(upstream=stack.ready["aws"]["endpoint"], delay_s=1.5)
    with another_broker(stack, "slow-s3", AWS_ENDPOINT_URL_S3=proxy.url) as broker:
        connection = connect(stack, session, port=broker.port)
        proxy.mode = Network.SLOW
        for _ in range(6):
            assert len(connection.execute("SELECT id, note FROM customers").fetchall()) == 1000
        waiting, card = held(stack, threads, connection, plus_one(7006))
        before = amount(stack, 7006)
        assert card.click("UALICE")["ok"]
        assert waiting.result(30).statusmessage == "UPDATE 1"
        assert amount(stack, 7006) == before + 1
        proxy.mode = Network.WORKS
        connection.close()
        wait_for("the seal", lambda: manifests(stack, session["session_id"]) or None, CLOCK, SOON_S)
    proxy.stop()
    (manifest,) = manifests(stack, session["session_id"])
    assert not manifest["gaps"]
    (frames,) = segments(stack, session["session_id"]).values()
    assert sum(frame["text"].count("\n") + 1 for frame in frames if frame["kind"] == "rows") == 6000


# -- strangers at the door -----------------------------------------------------------------------------------------


def _door(stack: Stack) -> tuple[str, int]:
    return "127.0.0.1", stack.ready["broker"]["postgres"]["port"]


GARBAGE = {
    "noise": bytes(range(256)) * 4,
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a length of 4 GiB": b"\xff\xff\xff\xff\x00\x03\x00\x00",
    "a length of zero": b"\x00\x00\x00\x00\x00\x03\x00\x00",
    "tls garbage": b"\x16\x03\x01\x02\x00" + b"\x00" * 512,
    "protocol 9": b"\x00\x00\x00\x09\x00\x09\x00\x00\x00",
}


@pytest.mark.parametrize("sent", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_at_the_broker_ends_in_a_bounded_time(stack: Stack, sent: bytes) -> None:
    """Whatever is sent before authentication: an answer or none, then the end; never a traceback."""
    with socket.create_connection(_door(stack), timeout=15) as client:
        client.sendall(sent)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(4096):
                got += piece
    assert b"Traceback" not in got
    assert len(got) < 4096


def _was_ended(stranger: socket.socket) -> bool:
    try:
        return stranger.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_500_connections_that_never_speak_leave_room_for_a_client(
    stack: Stack, visitor: Visitor, threads: ThreadPoolExecutor
) -> None:
    """Slow-loris from the client's own address: the door holds a bounded number, and who is silent makes room for who
    speaks."""
    session = visitor.session()
    crowd = [socket.socket() for _ in range(500)]
    try:
        for stranger in crowd:
            stranger.setblocking(False)
            stranger.connect_ex(_door(stack))
        began = CLOCK.monotonic_s()
        with connect(stack, session) as connection:
            assert connection.execute("SELECT count(*) FROM orders").fetchone() == (10_000,)
        assert CLOCK.monotonic_s() - began < HANDSHAKE_S / 2  # and not because their deadline came
        assert sum(map(_was_ended, crowd)) >= 500 - MAX_STRANGERS_PER_PEER
    finally:
        for stranger in crowd:
            stranger.close()


def test_half_open_and_leaving_clients_take_no_place_for_good(stack: Stack, visitor: Visitor) -> None:
    """Connect-and-leave, a half-closed socket, a reset: 200 of each, and the next client is let in."""
    session = visitor.session()
    for turn in range(200):
        stranger = socket.create_connection(_door(stack), timeout=5)
        if turn % 3 == 0:
            stranger.shutdown(socket.SHUT_WR)
        elif turn % 3 == 1:
            stranger.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # SSLRequest, and away
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        stranger.close()
    with connect(stack, session) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert stack.part("broker").alive()


# -- how the outages ended: last, since they take their time -----------------------------------------------------


def test_a_bucket_that_refuses_ends_the_session_in_its_protocol(outages: dict[str, Outage]) -> None:
    """P6, P12: no recorder, no session; the client is told, in a bounded time, and not left hanging."""
    outage = outages["s3"]
    assert outage.ended_s < OUTAGE_ENDS_S
    assert "record" in outage.farewell


def test_a_bucket_that_refuses_lets_nothing_held_run(stack: Stack, outages: dict[str, Outage]) -> None:
    """What must be durable first is refused while it cannot be, long before the session ends: no card, no effect."""
    error = outages["s3"].held_error
    assert error is not None
    assert "record" in str(error)
    assert not logged(stack, plus_one(7004))


def test_a_bucket_that_refuses_lets_reads_run_ahead_by_the_window_only(
    stack: Stack, outages: dict[str, Outage]
) -> None:
    """Accepted, not durable: 2 s ahead of the bucket, then the broker stops reading; what it read no more never ran."""
    outage = outages["s3"]
    ran = [at for at, mark, _ in outage.probes if logged(stack, mark)]
    assert max(ran, default=0.0) < 2.0 + 2.0


def test_tables_out_of_reach_forward_nothing_after_5_s(stack: Stack, outages: dict[str, Outage]) -> None:
    """A revocation could have been made that this broker cannot read."""
    outage = outages["dynamodb"]
    ran = [at for at, mark, _ in outage.probes if logged(stack, mark)]
    assert ran  # within the 5 s the session goes on
    assert max(ran) < 5.0 + 1.5
    refused = [(at, error) for at, _, error in outage.probes if error and "revocations could not be read" not in error]
    # The configuration, read every 10 s and borne for 30, may be what is told near the end, and nothing else is.
    assert [error for at, error in refused if at < 19 or "configuration cannot be read" not in error] == []


def test_tables_out_of_reach_end_the_connection_by_30_s(outages: dict[str, Outage]) -> None:
    """And the client is told why, in its protocol."""
    outage = outages["dynamodb"]
    assert outage.ended_s < 35  # the age counts from before the last answer: sooner is right, later is not
    # Revocations and the configuration have the same bound: whichever is noticed first says why.
    assert any(f"{what} be read" in outage.farewell for what in UNREADABLE)


def test_an_approval_given_while_the_tables_are_out_of_reach_runs_nothing(
    stack: Stack, outages: dict[str, Outage]
) -> None:
    """The answer is there, and cannot be read, nor used: the statement ends with an error and never runs."""
    outage = outages["dynamodb"]
    assert outage.held_error is not None
    assert outage.held_s < 40
    assert not logged(stack, plus_one(7005))
