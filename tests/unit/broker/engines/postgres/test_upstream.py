"""The broker as a client of a target that does not mean well, and what it pins."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from broker.engines.channel import ReceiveBuffer
from broker.engines.postgres import upstream
from broker.wire.postgres import fields, messages
from broker.wire.postgres.framing import frame
from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.identifiers import Txn
from chalicelib.domain.secret import Secret
from chalicelib.domain.target import Target
from tests.e2e.postgres_broker import make_certificate, target_at
from tests.fakes.flow import TXN
from tests.fakes.postgres import scripted

P = ParamSpec("P")
T = TypeVar("T")

READY = messages.encode_backend_key(7, b"abcd") + messages.encode_ready(b"I")


class Inline:
    """Runs at once: a test has no pool."""

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return fn(*args, **kwargs)


def method(number: int, rest: bytes = b"") -> bytes:
    return frame(b"R", number.to_bytes(4, "big") + rest)


async def dial_scripted(
    answers: Sequence[bytes], change: Callable[[Target], Target] = lambda t: t
) -> upstream.Upstream:
    async with scripted(answers) as port:
        return await dial_at(port, change)


async def dial_at(port: int, change: Callable[[Target], Target] = lambda target: target) -> upstream.Upstream:
    return await upstream.dial(
        change(target_at(port)),
        login="u",
        secret=Secret("p"),
        parameters={},
        buffer=ReceiveBuffer(4096),
        runs=Inline(),
    )


def run(work: Awaitable[object]) -> object:
    async def main() -> object:
        return await work

    return asyncio.run(main())


def test_a_target_that_lets_the_broker_in() -> None:
    """The control: parameters and key are kept."""

    async def main() -> None:
        welcome = method(0) + messages.encode_parameter_status(b"is_superuser", b"off") + READY
        async with scripted([welcome]) as port:
            dialled = await dial_at(port)
            dialled.channel.abort()
        assert dialled.parameters == {b"is_superuser": b"off"}
        assert (dialled.process, dialled.secret) == (7, b"abcd")
        assert dialled.settled

    asyncio.run(main())


SCRAM_OFFER = method(10, b"SCRAM-SHA-256\0\0")


@pytest.mark.parametrize(
    "answers",
    [
        [b""],
        [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        [method(0) + frame(b"T")],
        [method(9)],
        [method(10, b"SOMETHING-ELSE\0\0")],
        [SCRAM_OFFER, method(0) + READY],
        [SCRAM_OFFER, method(11, b"r=short,s=AAAA,i=4096")],
        [SCRAM_OFFER, method(12, b"v=AAAA")],
        [method(11, b"r=x,s=AAAA,i=1")],
        [fields.error("FATAL", "28P01", "password authentication failed for user at inner.host")],
        [method(0) + fields.error("FATAL", "3D000", "no such database")],
    ],
    ids=[
        "closes",
        "another protocol",
        "rows before ready",
        "unknown method",
        "unknown mechanism",
        "skips its proof",
        "a nonce that is not ours",
        "final without first",
        "continues without beginning",
        "refuses",
        "refuses the database",
    ],
)
def test_a_target_that_cannot_be_trusted_is_unavailable(answers: list[bytes]) -> None:
    """One kind of error, whose public text has nothing of the target in it."""
    with pytest.raises(TargetUnavailable) as caught:
        run(dial_scripted(answers))
    assert "inner.host" not in caught.value.public
    assert "127.0.0.1" not in caught.value.public


@pytest.mark.parametrize("answer", [b"N", b"SX", b"E", fields.error("FATAL", "0A000", "planted"), b""])
def test_tls_is_begun_by_exactly_one_byte(answer: bytes, tmp_path: Path) -> None:
    """CVE-2021-23222: bytes behind the S would be read as if they had come through TLS; N is never plaintext."""
    ca_pem = make_certificate(tmp_path)[0].read_text()

    def with_tls(target: Target) -> Target:
        return replace(target, plaintext=False, ca_pem=ca_pem)

    with pytest.raises(TargetUnavailable):
        run(dial_scripted([answer], with_tls))


def test_plaintext_needs_loopback_and_the_targets_own_word() -> None:
    """A target off loopback without a CA is not dialled at all."""
    with pytest.raises(TargetUnavailable, match="no CA"):
        run(dial_at(1, lambda target: replace(target, host="db.example", plaintext=True, ca_pem="")))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("psql", f"txn:{TXN} psql"),
        ("", f"txn:{TXN}"),
        ("x" * 100, f"txn:{TXN} {'x' * 100}"[:63]),
        ("naïve\nname", f"txn:{TXN} na?ve?name"),
    ],
)
def test_the_application_name_begins_with_the_chain(name: str, expected: str) -> None:
    """Within 63 bytes: the server cuts what is longer."""
    assert upstream.application_name(TXN, name) == expected
    assert len(expected.encode()) <= 63


def test_a_clients_parameters_cannot_replace_what_is_pinned() -> None:
    """Encoding, string syntax and search path decide what a text means."""
    sent = upstream.target_parameters(
        replace(target_at(1), search_path=("app", "Weird Name", "pg_temp")),
        Txn("t"),
        {"client_encoding": "LATIN1", "search_path": "evil", "timezone": "UTC", "database": "other"},
    )
    assert sent["client_encoding"] == "UTF8"
    assert sent["standard_conforming_strings"] == "on"
    assert sent["search_path"] == 'app, "Weird Name", pg_temp'
    assert sent["timezone"] == "UTC"
    assert "database" not in sent


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("localhost.evil.example", False)],
)
def test_loopback_is_an_address_or_the_one_name(host: str, loopback: bool) -> None:
    """A name that only begins like it is somebody else's."""
    assert upstream.is_loopback(host) is loopback


def test_md5_is_postgresqls_own() -> None:
    """md5(md5(password + user) + salt), chapter 55.2.1: a known answer, made with another tool."""
    inner = hashlib.md5(b"pu").hexdigest().encode()
    assert upstream._md5("u", Secret("p"), b"salt") == b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode()
