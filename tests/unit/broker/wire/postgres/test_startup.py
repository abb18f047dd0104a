"""The start of a connection, in the server's role."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.postgres import startup
from broker.wire.postgres.startup import (
    CancelWanted,
    EncryptionWanted,
    GssRefused,
    StartupMachine,
    StartupRefused,
    StartupWanted,
)
from broker.wire.violation import RemoteViolation

SSL = startup.encode_request(startup.SSL_REQUEST)
GSS = startup.encode_request(startup.GSSENC_REQUEST)
HELLO = startup.encode_startup({"user": "ses_1", "database": "orders", "application_name": "psql"})


def machine(*, encrypted: bool = False, loopback: bool = False) -> StartupMachine:
    return StartupMachine(encrypted=encrypted, loopback=loopback)


def test_gss_then_tls_then_startup() -> None:
    """What psql does: GSS is refused, TLS is begun, and then it says who it is."""
    client = machine()
    assert client.receive(GSS) == GssRefused()
    assert client.receive(SSL) == EncryptionWanted()
    client.encrypted()
    assert client.receive(HELLO) == StartupWanted(
        "ses_1", {"database": "orders", "application_name": "psql"}, startup.VERSION_3_0, b""
    )


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.lists(st.integers(0, len(HELLO)), max_size=6))
def test_any_split_gives_the_same_answer(places: list[int]) -> None:
    """A startup packet may come in pieces."""
    cuts = sorted({0, len(HELLO), *places})
    client = machine(encrypted=True)
    answers = [client.receive(HELLO[a:b]) for a, b in itertools.pairwise(cuts)]
    assert [answer is None for answer in answers] == [True] * (len(answers) - 1) + [False]


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.binary(max_size=300))
def test_junk_gives_an_answer_or_the_violation(junk: bytes) -> None:
    """A stranger's bytes raise one exception type."""
    with contextlib.suppress(RemoteViolation):
        machine(loopback=True).receive(junk)


def test_bytes_planted_behind_an_ssl_request_end_the_connection() -> None:
    """CVE-2021-23214: they would be read as if they had come through TLS."""
    with pytest.raises(RemoteViolation, match="behind"):
        machine().receive(SSL + HELLO)


def test_bytes_during_the_tls_handshake_end_the_connection() -> None:
    """The machine takes nothing between S and the end of the handshake."""
    client = machine()
    client.receive(SSL)
    with pytest.raises(RemoteViolation):
        client.receive(HELLO)


@pytest.mark.parametrize("first", [SSL, GSS])
def test_an_encryption_request_twice_ends_the_connection(first: bytes) -> None:
    """At most one of each: otherwise a client could loop for free."""
    client = machine()
    client.receive(first)
    if first is SSL:
        client.encrypted()
    with pytest.raises(RemoteViolation, match="out of place"):
        client.receive(first)


def test_ssl_request_inside_direct_tls_ends_the_connection() -> None:
    """Direct TLS has no SSLRequest inside."""
    with pytest.raises(RemoteViolation, match="out of place"):
        machine(encrypted=True).receive(SSL)


def test_plaintext_off_loopback_is_refused() -> None:
    """A session secret's proof over plaintext could be replayed into nothing, but the data could be read."""
    answer = machine().receive(HELLO)
    assert isinstance(answer, StartupRefused)
    assert answer.sqlstate == "28000"
    assert isinstance(machine(loopback=True).receive(HELLO), StartupWanted)


@pytest.mark.parametrize("length", [0, 7, 10_001, 2**31 - 1])
def test_an_impossible_length_ends_the_connection(length: int) -> None:
    """The length is believed only within PostgreSQL's own bounds."""
    with pytest.raises(RemoteViolation, match="length"):
        machine(encrypted=True).receive(length.to_bytes(4, "big") + b"\0\3\0\0")


def test_a_cancel_request_of_either_key_length() -> None:
    """4 bytes in 3.0, up to 256 in 3.2."""
    for secret in (b"abcd", b"x" * 32, b"x" * 256):
        assert machine().receive(startup.encode_cancel(7, secret)) == CancelWanted(7, secret)
    for secret in (b"abc", b"x" * 257):
        with pytest.raises(RemoteViolation):
            machine().receive(startup.encode_cancel(7, secret))


@pytest.mark.parametrize("version", [0x30001, 0x30003, 0x3270F, 0x30000])
def test_any_minor_and_unknown_options_are_negotiated(version: int) -> None:
    """libpq greases the minor with 3.9999: refusing it would refuse tomorrow's clients."""
    parameters = {"user": "u"} | ({"_pq_.new": "1"} if version == 0x30000 else {})
    answer = machine(encrypted=True).receive(startup.encode_startup(parameters, version))
    assert isinstance(answer, StartupWanted)
    options = [b"_pq_.new\0"] if version == 0x30000 else []
    body = (0x30002).to_bytes(4, "big") + len(options).to_bytes(4, "big") + b"".join(options)
    assert answer.negotiate == b"v" + (len(body) + 4).to_bytes(4, "big") + body


def test_another_major_is_refused() -> None:
    """Protocol 2 has no message lengths: nothing of it could be framed."""
    answer = machine(encrypted=True).receive(startup.encode_startup({"user": "u"}, 0x20000))
    assert isinstance(answer, StartupRefused)
    assert answer.sqlstate == "0A000"


@pytest.mark.parametrize(
    "parameter",
    [
        ("options", "-c search_path=evil"),
        ("search_path", "evil"),
        ("role", "postgres"),
        ("session_authorization", "postgres"),
        ("standard_conforming_strings", "off"),
        ("replication", "database"),
        ("REPLICATION", "true"),
    ],
)
def test_a_startup_parameter_that_changes_what_statements_mean_is_refused(parameter: tuple[str, str]) -> None:
    """``options`` sets anything, ``replication`` opens another language: only what was considered passes."""
    answer = machine(encrypted=True).receive(startup.encode_startup({"user": "u", parameter[0]: parameter[1]}))
    assert isinstance(answer, StartupRefused)
    assert answer.sqlstate == "42501"


def test_replication_off_is_what_every_client_means() -> None:
    """Some drivers send ``replication=false``."""
    answer = machine(encrypted=True).receive(startup.encode_startup({"user": "u", "replication": "false"}))
    assert isinstance(answer, StartupWanted)
    assert "replication" not in answer.parameters


@pytest.mark.parametrize(
    "body",
    [
        b"user\0u\0",
        b"user\0u",
        b"user\0\0\0",
        b"user\0u\0database\0\0",
        b"\0\0\0",
        b"user\0\xff\0\0",
        b"user\0u\0USER\0v\0\0",
    ],
)
def test_malformed_parameters_end_the_connection(body: bytes) -> None:
    """Two readings of one packet are two users."""
    raw = (len(body) + 8).to_bytes(4, "big") + (0x30000).to_bytes(4, "big") + body
    try:
        answer = machine(encrypted=True).receive(raw)
    except RemoteViolation:
        return
    assert isinstance(answer, StartupRefused)
