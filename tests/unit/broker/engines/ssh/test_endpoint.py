"""One half of a channel: what is sent once, and when its number is forgotten."""

from __future__ import annotations

from broker.engines.ssh.endpoint import Endpoint
from broker.wire.ssh import messages
from tests.fakes.ssh_wire import FakeWire


def endpoint() -> tuple[FakeWire, Endpoint]:
    wire = FakeWire()
    half = Endpoint(wire, 4, Endpoint.nobody().owner)
    half.take_confirmation(messages.Confirmation(4, 9, 0, 0))
    return wire, half


def test_close_and_eof_are_sent_once() -> None:
    """RFC 4254 section 5.3: a peer ends the connection at a second CLOSE."""
    wire, half = endpoint()
    for _ in range(2):
        half.end_input()
        half.close()
    assert wire.kinds == [messages.EOF, messages.CLOSE]


def test_nothing_follows_a_close_and_no_data_an_eof() -> None:
    """What comes late from another thread must not break the protocol."""
    wire, half = endpoint()
    half.end_input()
    half.send(messages.STDOUT, b"late")
    half.close()
    half.adjust(1)
    half.ask("signal", b"")
    assert wire.kinds == [messages.EOF, messages.CLOSE]


def test_the_number_is_forgotten_when_both_have_closed() -> None:
    """Before that the peer's messages still come to it; after it they would be somebody else's."""
    wire, half = endpoint()
    half.close()
    assert wire.forgotten == []
    half.take_close()
    assert wire.forgotten == [4]
    wire, half = endpoint()
    half.take_close()
    assert wire.forgotten == []
    half.close()
    assert wire.forgotten == [4]


def test_nothing_is_sent_before_the_peer_has_confirmed() -> None:
    """Its number is not known: a CLOSE would be for another channel of the peer's."""
    wire = FakeWire()
    half = Endpoint(wire, 4, Endpoint.nobody().owner)
    half.ask("signal", b"")
    half.close()
    assert wire.kinds == []
    half.take_confirmation(messages.Confirmation(4, 9, 0, 0))
    half.close()
    assert wire.kinds == [messages.CLOSE]


def test_a_channel_that_is_gone_takes_late_messages() -> None:
    """They are no violation: they were on their way when it closed."""
    nobody = Endpoint.nobody()
    nobody.take_data(messages.string(b"late"))
    nobody.take_close()
    nobody.send(messages.STDOUT, b"x")
    nobody.close()
