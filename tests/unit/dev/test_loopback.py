"""The small server: bounded, and closed to pages of other origins."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from dev.loopback import MAX_BODY, LoopbackServer, Request, Response, as_json
from tests.unit.dev.calling import call


def _echo(request: Request) -> Response:
    if request.path == "/bug":
        raise RuntimeError("an inner detail")
    return as_json({"method": request.method, "body": request.body.decode()})


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    made = LoopbackServer("echo", _echo)
    made.start()
    yield made
    made.stop()


def test_a_page_of_another_origin_cannot_click_or_mint(server: LoopbackServer) -> None:
    """A web site that the developer visits may send requests to any loopback port: its Origin gives it away."""
    assert call(server.url, {}, {"Origin": "https://evil.example"})[0] == 403
    assert call(server.url, {}, {"Origin": server.url})[0] == 200


def test_a_rebound_host_name_is_refused(server: LoopbackServer) -> None:
    """With DNS rebinding the page is same-origin to itself; only the Host header still names the other site."""
    assert call(server.url, {}, {"Host": "evil.example"})[0] == 421


def test_a_body_past_the_bound_is_refused_unread(server: LoopbackServer) -> None:
    """Only the announced length is looked at: nothing of it is read into memory."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as client:
        client.sendall(
            f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode()
        )
        assert b" 413 " in client.recv(4096)


def test_a_bug_behind_it_is_a_500_without_its_text(server: LoopbackServer) -> None:
    """What an exception says may be a secret; it goes to our log alone."""
    assert call(f"{server.url}/bug") == (500, {"error": "internal"})


def test_stopping_a_server_that_never_started_returns() -> None:
    """A start that fails half way ends every part, also those that did not get to run."""
    LoopbackServer("idle", _echo).stop()
