"""What a balancer says of its client, in bytes."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.wire.proxy import LOCAL_HEADER, MAX_REST, SIGNATURE, ProxyHeader
from broker.wire.violation import RemoteViolation

# The example of the specification's own receiver: PROXY, TCP over IPv4, 12 bytes of addresses and ports.
V4 = SIGNATURE + b"\x21\x11\x00\x0c" + bytes((203, 0, 113, 7, 10, 0, 1, 5)) + struct.pack("!HH", 51234, 5432)


def header(source: str, *, more: bytes = b"") -> bytes:
    """Return a header as a balancer writes it, with ``more`` for its additional fields."""
    address = ipaddress.ip_address(source)
    family = 0x11 if address.version == 4 else 0x21
    rest = address.packed + address.packed + struct.pack("!HH", 1, 2) + more
    return SIGNATURE + bytes((0x21, family)) + struct.pack("!H", len(rest)) + rest


def read(data: bytes, sizes: list[int]) -> tuple[ProxyHeader, bytes]:
    """Feed ``data`` in pieces of at most ``sizes``, never more than is wanted; return the machine and what is left."""
    machine = ProxyHeader()
    at, turn = 0, 0
    while machine.wanted and at < len(data):
        size = min(machine.wanted, sizes[turn % len(sizes)] if sizes else machine.wanted)
        machine.take(data[at : at + size])
        at, turn = at + size, turn + 1
    return machine, data[at:]


def test_the_clients_address_is_the_headers() -> None:
    """The bytes of the specification, and one more of the client's that stays the client's."""
    machine, left = read(V4 + b"\x16", [])
    assert (machine.client, left) == ("203.0.113.7", b"\x16")


@given(
    source=st.ip_addresses(),
    more=st.binary(max_size=200),
    after=st.binary(max_size=50),
    sizes=st.lists(st.integers(1, 20), max_size=8),
)
def test_however_it_is_cut_no_byte_of_the_clients_is_taken(
    source: ipaddress.IPv4Address | ipaddress.IPv6Address, more: bytes, after: bytes, sizes: list[int]
) -> None:
    """TCP keeps no borders; and what is taken too much is missing in a TLS handshake."""
    machine, left = read(header(str(source), more=more) + after, sizes)
    mapped = source.ipv4_mapped if isinstance(source, ipaddress.IPv6Address) else None
    assert (machine.wanted, machine.client, left) == (0, str(mapped or source), after)


def test_an_address_of_version_4_in_version_6_is_the_one_that_it_is() -> None:
    """A session is for one address: the same client through a dual-stack balancer must not be another."""
    assert read(header("::ffff:203.0.113.7"), [])[0].client == "203.0.113.7"


@pytest.mark.parametrize(
    "data",
    [LOCAL_HEADER, SIGNATURE + b"\x20\x11\x00\x0c" + bytes(12), SIGNATURE + b"\x21\x00\x00\x03abc"],
    ids=["local", "local with addresses", "no family"],
)
def test_a_health_check_has_no_client(data: bytes) -> None:
    """What the balancer itself connects for is nobody's session."""
    machine, left = read(data, [3])
    assert (machine.wanted, machine.client, left) == (0, None, b"")


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",  # an SSLRequest
        b"SSH-2.0-x\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",  # version 1
        SIGNATURE[:11] + b"\x0b",
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),  # version 1 in binary
        SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),  # a command of the future
        SIGNATURE + b"\x21\x12\x00\x0c" + bytes(12),  # UDP
        SIGNATURE + b"\x21\x31\x00\xd8" + bytes(216),  # a Unix socket
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),  # a byte short of two addresses
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11" + struct.pack("!H", MAX_REST + 1) + bytes(MAX_REST + 1),
        SIGNATURE + b"\x20\x00\xff\xff",
    ],
    ids=[
        "tls",
        "ssh",
        "v1",
        "signature",
        "version",
        "command",
        "udp",
        "unix",
        "short4",
        "short6",
        "long",
        "long local",
    ],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    """A transport that may say what it likes of itself gets no further than here."""
    with pytest.raises(RemoteViolation):
        read(data, [1])


@given(data=st.binary(max_size=80), sizes=st.lists(st.integers(1, 30), max_size=5))
def test_rubbish_ends_in_a_violation_or_wants_more(data: bytes, sizes: list[int]) -> None:
    """Anything else would be an exception of ours for each stranger who knocks; and what is held is bounded."""
    try:
        machine, _ = read(data, sizes)
    except RemoteViolation:
        return
    assert 0 <= machine.wanted <= 16 + MAX_REST


@given(rest=st.binary(min_size=4, max_size=60))
def test_rubbish_behind_the_signature_too(rest: bytes) -> None:
    """The same where the first twelve bytes are right."""
    try:
        machine, _ = read(SIGNATURE + rest, [])
    except RemoteViolation:
        return
    assert machine.client is None or socket.getaddrinfo(machine.client, None, flags=socket.AI_NUMERICHOST)
