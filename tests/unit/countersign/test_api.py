"""The HTTP client against a real server that misbehaves."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from email.utils import format_datetime

import pytest

from chalicelib.domain.secret import Secret
from countersign.address import parse_address
from countersign.api import DEADLINE_S, MAX_BODY, RETRY_BUDGET_S, HttpClient
from countersign.failures import Exit, Failure
from countersign.proofs import BoundToken, OwnKey
from tests.fakes.api_server import ACCESS_TOKEN, ApiServer
from tests.fakes.waiting_clock import WaitingClock

TARGETS = "GET /v1/targets"
KEY = OwnKey.new()


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        server.bind(ACCESS_TOKEN, KEY.thumbprint)
        yield server


def get(url: str, clock: WaitingClock | None = None, *, repeatable: bool = True) -> object:
    clock = clock or WaitingClock()
    client = HttpClient(parse_address(url, "x"), clock)
    presented = BoundToken(Secret(ACCESS_TOKEN), KEY, clock)
    return client.call("GET", f"{url}/v1/targets", presented=presented, repeatable=repeatable).body


def failure_of(url: str, clock: WaitingClock | None = None, *, repeatable: bool = True) -> Failure:
    with pytest.raises(Failure) as caught:
        get(url, clock, repeatable=repeatable)
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect(api: ApiServer, status: int) -> None:
    """Attack: a redirect takes the token to another host; none is followed, not even to the same one."""
    with ApiServer() as elsewhere:
        api.answer(TARGETS, status=status, headers={"Location": f"{elsewhere.url}/v1/targets"})
        failure = failure_of(api.url)
        assert elsewhere.seen == []
    assert failure.exit_code is Exit.UNREACHABLE
    assert "redirect" in failure.message


def test_huge_body(api: ApiServer) -> None:
    """Attack: an answer without end fills the runner's memory."""
    api.answer(TARGETS, status=200, body=b"x" * (MAX_BODY + 1))
    assert "more than" in failure_of(api.url).message


def test_huge_body_of_an_error(api: ApiServer) -> None:
    """The same bound holds where the answer is an error."""
    api.answer(TARGETS, status=403, body=b"x" * (MAX_BODY + 1))
    assert "more than" in failure_of(api.url).message


class TickingClock(WaitingClock):
    """Each look at it takes a tenth of the deadline: time passes with what is read, whatever the machine does."""

    def monotonic_s(self) -> float:
        self.advance(DEADLINE_S / 10)
        return super().monotonic_s()


def test_dripping_body() -> None:
    """Attack: bytes that never end, each in time, keep the job for ever; the deadline counts the whole answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:

        def drip() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
                try:
                    while True:
                        peer.sendall(b"x" * 100)
                except OSError:
                    return

        pool.submit(drip)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        failure = failure_of(url, TickingClock(), repeatable=False)
    assert failure.exit_code is Exit.UNREACHABLE
    assert "took more than" in failure.message


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b'"x"', b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_json_object(api: ApiServer, body: bytes) -> None:
    """A captive portal or another service answers 200: it is not taken for a grant."""
    api.answer(TARGETS, status=200, body=body)
    assert failure_of(api.url).exit_code is Exit.UNREACHABLE


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(api: ApiServer, status: int) -> None:
    """A busy service is asked again when it says, and the answer is then the answer."""
    for _ in range(2):
        api.answer(
            TARGETS, status=status, body={"code": "limited", "message": "slow down"}, headers={"Retry-After": "7"}
        )
    clock = WaitingClock()
    assert get(api.url, clock) == {"targets": []}
    assert clock.monotonic_s() >= 14


def test_retry_after_without_end(api: ApiServer) -> None:
    """Attack: a Retry-After of a day parks the job; past the budget the refusal is the answer."""
    api.answer(
        TARGETS, status=503, body={"code": "store_unavailable", "message": "no"}, headers={"Retry-After": "86400"}
    )
    clock = WaitingClock()
    failure = failure_of(api.url, clock)
    assert (failure.exit_code, failure.code) == (Exit.UNREACHABLE, "store_unavailable")
    assert clock.monotonic_s() == 0


def test_busy_without_end(api: ApiServer) -> None:
    """A service that is always busy ends the command as unreachable, within the budget."""
    for _ in range(100):
        api.answer(TARGETS, status=503, body={"code": "store_unavailable", "message": "no"})
    clock = WaitingClock()
    assert failure_of(api.url, clock).exit_code is Exit.UNREACHABLE
    assert clock.monotonic_s() <= RETRY_BUDGET_S


def test_nothing_listens() -> None:
    """69, and the address that was tried."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    clock = WaitingClock()
    failure = failure_of(f"http://127.0.0.1:{port}", clock)
    assert failure.exit_code is Exit.UNREACHABLE
    assert str(port) in failure.message
    assert 0 < clock.monotonic_s() <= RETRY_BUDGET_S


def test_a_lost_connection_is_not_repeated_where_it_might_count_twice() -> None:
    """An issuer's token is accepted once: after a lost answer the exchange is not sent again blindly."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        accepted = []

        def hang_up() -> None:
            peer, _ = listener.accept()
            accepted.append(peer.recv(65536))
            peer.close()

        pool.submit(hang_up)
        clock = WaitingClock()
        failure = failure_of(f"http://127.0.0.1:{listener.getsockname()[1]}", clock, repeatable=False)
    assert failure.exit_code is Exit.UNREACHABLE
    assert (len(accepted), clock.monotonic_s()) == (1, 0)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (403, {"message": "Missing Authentication Token"}, Exit.DENIED),
        (403, {"message": "Forbidden"}, Exit.DENIED),
        (400, {"error": "invalid_request", "error_description": "expired", "code": "token_expired"}, Exit.DENIED),
        (404, {"code": "not_found", "message": "no such target"}, Exit.DENIED),
        (400, {"code": "bad_request", "message": "field"}, Exit.USAGE),
        (409, {"code": "idempotency_conflict", "message": "key"}, Exit.USAGE),
        (413, {"code": "body_too_large", "message": "big"}, Exit.USAGE),
        (500, {"code": "internal", "message": "ours"}, Exit.UNREACHABLE),
        (502, {"message": "Internal server error"}, Exit.UNREACHABLE),
        (504, {"message": "Endpoint request timed out"}, Exit.UNREACHABLE),
        (418, {"code": "from_the_future", "message": "new"}, Exit.USAGE),
    ],
)
def test_exit_codes_of_answers(api: ApiServer, status: int, body: dict[str, str], expected: Exit) -> None:
    """Our codes, RFC 6749's shape, and what API Gateway says itself each end with the documented exit code."""
    api.answer(TARGETS, status=status, body=body)
    failure = failure_of(api.url)
    assert failure.exit_code is expected
    assert failure.message == (body.get("message") or body.get("error_description"))


def test_a_proxy_of_the_environment_is_not_used_for_loopback(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attack: http_proxy of the job sends the local stack's token to another machine."""
    with ApiServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert get(api.url) == {"targets": []}
        assert proxy.seen == []


def test_each_sending_has_its_own_proof(api: ApiServer) -> None:
    """A proof counts once: a retry that repeated it would be taken for somebody who replays what they saw."""
    api.answer(TARGETS, status=503)
    api.answer(TARGETS, status=429)
    get(api.url)
    proofs = [seen.headers["DPoP"] for seen in api.calls(TARGETS)]
    assert len(set(proofs)) == len(proofs) == 3


@pytest.mark.parametrize(("seconds", "word"), [(90, "ahead of"), (-90, "behind"), (5, "")])
def test_a_clock_that_is_off_is_named(api: ApiServer, seconds: int, word: str) -> None:
    """A proof is refused for its time where this machine's clock is wrong: the service's Date tells, and the user must
    hear which clock to set."""
    clock = WaitingClock()
    there = format_datetime(clock.now() - timedelta(seconds=seconds), usegmt=True)
    refused = {"code": "invalid_dpop_proof", "message": "m", "hint": "the service's own"}
    api.answer(TARGETS, status=401, body=refused, headers={"Date": there})
    hint = failure_of(api.url, clock).hint
    assert (word in hint) if word else (hint == "the service's own")
