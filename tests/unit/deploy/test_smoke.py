"""The smoke test: each check is seen wrong, since one that cannot fail says nothing."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dev.authority import make_server_identity
from dev.loopback import LoopbackServer, Request, Response, as_json
from dev.processes import background, free_port
from dev.settings import SystemClock
from infra.deploy.smoke import smoke
from infra.deploy.stage import BrokerAddress
from infra.deploy.tools import StepFailed

REFUSED = {"refused": {"code": "bad_request", "public": "", "hint": ""}}


class Functions:
    """Every function answers alike."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def answer_of(self, function: str, event: Mapping[str, Any]) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@contextmanager
def served(keys: list[object]) -> Iterator[str]:
    def answer(request: Request) -> Response:
        return as_json({"keys": keys} if request.path.endswith("jwks.json") else {"status": "ok"})

    server = LoopbackServer("api", answer)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def once() -> None:
            with listener.accept()[0] as connection:
                serve(connection)

        running = background("broker", once)
        yield listener.getsockname()[1]
        running.join(10)


def wrong(url: str, functions: Functions, broker: BrokerAddress | None = None) -> list[str]:
    return [check.what for check in smoke(url, "countersign-prod-", broker, functions) if check.wrong]


def test_a_deployment_that_answers_is_well() -> None:
    """A refusal of an empty order is the right answer."""
    with served([{"kid": "1"}]) as url:
        assert wrong(url, Functions(REFUSED)) == []


@pytest.mark.parametrize(
    "answer",
    [
        {"refused": {"code": "store_unavailable", "public": "", "hint": ""}},
        {"ok": {}},
        None,
        StepFailed("sign failed: Runtime.ImportModuleError"),
    ],
    ids=["no right", "takes an empty order", "nothing", "does not import"],
)
def test_a_function_that_does_not_refuse_as_it_should_is_found(answer: object) -> None:
    """Its role lacks a right, its package a library, or it does not check what it gets."""
    with served([{"kid": "1"}]) as url:
        assert len(wrong(url, Functions(answer))) == 4


def test_an_api_without_keys_and_one_that_is_not_there_are_found() -> None:
    """Nobody could verify a token."""
    with served([]) as url:
        assert wrong(url, Functions(REFUSED)) == [f"{url}/.well-known/jwks.json has keys"]
    gone = f"http://127.0.0.1:{free_port()}"
    assert len(wrong(gone, Functions(REFUSED))) == 2


@pytest.mark.parametrize("ours", [True, False], ids=["our authority", "another's"])
def test_the_brokers_certificate_is_verified_against_what_clients_are_told(tmp_path: Path, ours: bool) -> None:
    """A broker with another certificate is refused by every client, or is not ours."""
    identity = make_server_identity(tmp_path / "one", SystemClock())
    other = make_server_identity(tmp_path / "two", SystemClock())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)

    def serve(connection: socket.socket) -> None:
        assert connection.recv(8) == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
        connection.sendall(b"S")
        try:
            context.wrap_socket(connection, server_side=True).close()
        except OSError:
            assert not ours

    with served([{"kid": "1"}]) as url, listening(serve) as port:
        pem = (identity if ours else other).authority_pem()
        broker = BrokerAddress(host="localhost", postgres_port=port, ssh_port=0, ca_pem=pem)
        assert wrong(url, Functions(REFUSED), broker) == (
            [] if ours else [f"localhost:{port} speaks TLS with our certificate"]
        )
