"""One direction of a channel: order, room, and nobody who waits."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.engines.ssh.endpoint import Endpoint
from broker.engines.ssh.one_way import MAX_DATA, OneWay
from broker.wire.ssh import messages
from broker.wire.violation import RemoteViolation
from tests.fakes.ssh_wire import FakeWire

WINDOW: Final = 64 * 1024


class Both:
    """A direction between two wires. ``room``: what the taker takes at first."""

    def __init__(self, *, room: int = WINDOW, max_packet: int = MAX_DATA) -> None:
        self.source, self.sink = FakeWire(), FakeWire()
        self.gate = True
        self.way = OneWay(window=WINDOW, gate=lambda: self.gate)
        nobody = Endpoint.nobody().owner
        giver = Endpoint(self.source, 0, nobody)
        giver.confirmed = True
        self.way.comes_from(giver)
        self.taker = Endpoint(self.sink, 0, nobody)
        self.taker.confirmed = True
        self.way.goes_to(self.taker, room, max_packet)

    def take(self, data: bytes) -> None:
        self.way.took(len(data))
        self.way.put(messages.STDOUT, data)
        self.way.pump()


def test_what_there_is_no_room_for_waits_and_leaves_in_order() -> None:
    """A slow client gets everything, later, and in one piece."""
    both = Both(room=3)
    both.take(b"abcdef")
    assert both.sink.data == b"abc"
    assert both.way.kept == 3
    both.way.adjusted(10)
    assert both.sink.data == b"abcdef"


def test_the_sender_gets_room_back_only_as_it_leaves() -> None:
    """Else a target that is faster than its client fills the broker's memory."""
    both = Both(room=0)
    both.take(b"x" * WINDOW)
    assert both.source.granted == 0
    both.way.adjusted(WINDOW)
    assert both.source.granted == WINDOW


def test_more_than_there_was_room_for_breaks_the_protocol() -> None:
    """The window is the bound of memory: who ignores it is not served."""
    both = Both(room=0)
    both.take(b"x" * WINDOW)
    with pytest.raises(RemoteViolation):
        both.way.took(1)


def test_an_end_leaves_after_the_data_before_it() -> None:
    """A channel that closes before its last bytes loses them."""
    both = Both(room=1)
    both.take(b"ab")
    both.way.then(both.taker.end_input)
    both.way.then(both.taker.close)
    both.way.pump()
    assert both.sink.kinds == [messages.DATA]
    both.way.adjusted(1)
    assert both.sink.kinds == [messages.DATA, messages.DATA, messages.EOF, messages.CLOSE]


def test_nothing_leaves_while_keys_are_exchanged() -> None:
    """RFC 4253 section 7.1: a peer ends the connection that sends data then; and nobody waits for it to end."""
    both = Both()
    both.sink.open = False
    both.take(b"ab")
    assert both.sink.sent == []
    both.sink.open = True
    both.way.pump()
    assert both.sink.data == b"ab"


def test_nothing_leaves_while_the_gate_is_shut() -> None:
    """While nobody knows whether the session was revoked, nothing is forwarded."""
    both = Both()
    both.gate = False
    both.take(b"rm -rf\n")
    assert both.sink.sent == []
    both.gate = True
    both.way.pump()
    assert both.sink.data == b"rm -rf\n"


def test_the_last_words_leave_instead_of_what_waits() -> None:
    """A revoked session says so, and nothing that it still had in the pipe."""
    both = Both(room=0)
    both.take(b"secret")
    both.way.adjusted(0)
    assert not both.way.last_words(messages.STDOUT, b"bye")
    both.way.adjusted(100)
    assert both.way.last_words(messages.STDOUT, b"bye")
    both.way.put(messages.STDOUT, b"more")
    both.way.pump()
    assert both.sink.data == b"bye"


def test_an_end_leaves_where_nobody_reads_the_data_before_it() -> None:
    """A client that closed without reading gets its exit status, and the target is not stopped by a full window."""
    both = Both(room=0)
    both.take(b"x" * WINDOW)
    both.way.then(both.taker.close)
    both.way.nobody_reads()
    assert both.sink.kinds == [messages.CLOSE]
    assert both.source.granted == WINDOW
    both.take(b"more")
    assert both.way.kept == 0


def test_a_window_past_its_bound_breaks_the_protocol() -> None:
    """RFC 4254 section 5.2: 2^32 - 1 bytes."""
    both = Both()
    with pytest.raises(RemoteViolation):
        both.way.adjusted(messages.MAX_WINDOW)


def test_a_channel_that_takes_no_message_is_refused() -> None:
    """It would never take anything, and never end."""
    with pytest.raises(RemoteViolation):
        Both(max_packet=0)


@settings(max_examples=200, deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(
    st.lists(
        st.one_of(st.binary(min_size=1, max_size=5000), st.integers(1, 5000), st.booleans()), min_size=1, max_size=40
    ),
    st.integers(1, 3000),
)
def test_bytes_are_neither_lost_nor_changed_nor_out_of_order(steps: list[bytes | int | bool], max_packet: int) -> None:
    """Whatever the order in which bytes, room and key exchanges come: what left is a beginning of what came, no more
    than there was room for, in messages no longer than the taker takes; and at the end it is all of it."""
    both = Both(room=0, max_packet=max_packet)
    came, room, granted = b"", 0, WINDOW
    for step in steps:
        if isinstance(step, bool):
            both.sink.open = step
            both.way.pump()
        elif isinstance(step, int):
            room += step
            both.way.adjusted(step)
        elif len(came) + len(step) <= granted:
            came += step
            both.take(step)
        granted = WINDOW + both.source.granted
        assert came.startswith(both.sink.data)
        assert len(both.sink.data) <= room
        assert both.way.kept == len(came) - len(both.sink.data)
    both.sink.open = True
    both.way.adjusted(len(came) + 1)
    assert both.sink.data == came
    assert all(len(sent) <= max_packet + 9 for sent in both.sink.sent)
