"""Masked, recorded as the client sees it, then sent."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.engines.flow import Connection
from broker.engines.ssh.endpoint import Endpoint
from broker.engines.ssh.one_way import MAX_DATA, OneWay
from broker.engines.ssh.output import Input, Output, Recorded
from broker.wire.ssh import messages
from chalicelib.domain.errors import MaskWrittenBack
from chalicelib.domain.identifiers import OperationId
from chalicelib.domain.recording import MAX_TEXT
from tests.fakes.clock import FakeClock
from tests.fakes.ssh_wire import FakeWire

OP = OperationId("op_01k8zq5v9c3f7n2m4p6r8t0wxz")
IDLE_S = 0.2


class Frames:
    """A connection that keeps what is recorded: (direction, stream, encoding, text)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, str]] = []

    def data(self, op_id: OperationId, direction: str, text: str, encoding: str = "utf-8", *, stream: str = "") -> None:
        self.told.append((direction, stream, encoding, text))

    @property
    def raw(self) -> bytes:
        return b"".join(
            base64.b64decode(text) if encoding == "base64" else text.encode() for _, _, encoding, text in self.told
        )


class HoldsTail:
    """A mask that holds back what follows the last newline."""

    def __init__(self) -> None:
        self.passes = False
        self._held = b""

    @property
    def waits(self) -> bool:
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        whole, newline, self._held = (self._held + data).rpartition(b"\n")
        return (whole + newline).replace(b"SECRET", b"***")

    def idle(self) -> bytes:
        return self.finish()

    def finish(self) -> bytes:
        held, self._held = self._held, b""
        return held.replace(b"SECRET", b"***")


class Made:
    def __init__(self) -> None:
        self.frames, self.sink, self.clock = Frames(), FakeWire(), FakeClock()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        way = OneWay(window=1024)
        sink = Endpoint(self.sink, 0, Endpoint.nobody().owner)
        sink.confirmed = True
        way.goes_to(sink, 10_000, MAX_DATA)
        self.output = Output(
            kind=messages.STDOUT,
            mask=HoldsTail(),
            recorded=recorded(self.frames),
            way=way,
            later=lambda after_s, work: self.timers.append((after_s, work)),
            clock=self.clock,
            idle_s=IDLE_S,
        )


def recorded(frames: Frames, direction: str = "s2c", stream: str = "stdout") -> Recorded:
    return Recorded(cast(Connection, frames), OP, direction, stream)


def test_what_is_recorded_is_what_the_client_sees() -> None:
    """A recording with the secret in it would only move the leak."""
    made = Made()
    made.output.feed(b"a SECRET\nb SEC")
    made.output.feed(b"RET\n")
    made.output.finish()
    assert made.sink.data == made.frames.raw == b"a ***\nb ***\n"
    assert made.output.shown_bytes == len(b"a ***\nb ***\n")


def test_what_a_mask_holds_back_is_let_go_when_nothing_follows() -> None:
    """A prompt without a newline must appear, and not with the next keystroke."""
    made = Made()
    made.output.feed(b"$ ")
    assert made.sink.data == b""
    (after_s, look), made.timers = made.timers[0], []
    assert after_s == IDLE_S
    made.clock.advance(after_s)
    look()
    assert made.sink.data == b"$ "
    assert made.timers == []


def test_what_a_mask_holds_back_waits_while_more_comes() -> None:
    """Let go too early, half of a value is through before its other half shows what it is."""
    made = Made()
    made.output.feed(b"SEC")
    made.clock.advance(0.15)
    made.output.feed(b"R")
    (_, look), made.timers = made.timers[0], []
    made.clock.advance(0.1)
    look()
    assert made.sink.data == b""
    assert [round(after_s, 3) for after_s, _ in made.timers] == [0.1]


def test_nothing_is_sent_after_the_end() -> None:
    """A timer may fire behind CLOSE."""
    made = Made()
    made.output.feed(b"$ ")
    made.output.finish()
    made.output.finish()
    made.output.feed(b"late")
    made.clock.advance(1)
    made.timers[0][1]()
    assert made.sink.data == b"$ "


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.lists(st.binary(max_size=40), max_size=12))
def test_any_bytes_are_recorded_whole(pieces: list[bytes]) -> None:
    """Characters that two packets share, and bytes that are no text, come back as they were."""
    frames = Frames()
    taken = recorded(frames)
    for piece in pieces:
        taken.take(piece)
    taken.take(b"", final=True)
    assert frames.raw == b"".join(pieces)


def test_a_character_goes_whole_into_the_later_frame() -> None:
    """A replay shows characters, not halves of them."""
    frames = Frames()
    taken = recorded(frames)
    euro = "€".encode()
    taken.take(b"a" + euro[:2])
    taken.take(euro[2:])
    assert [text for *_, text in frames.told] == ["a", "€"]


def test_bytes_that_are_no_text_fit_their_frames() -> None:
    """A frame that is split in the middle of its base64 could not be read by itself."""
    frames = Frames()
    recorded(frames).take(b"\xff" * 100_000)
    assert frames.raw == b"\xff" * 100_000
    assert all(len(text) <= MAX_TEXT for *_, text in frames.told)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.integers(0, 9))
def test_a_mask_that_comes_back_on_stdin(split: int) -> None:
    """Written back, a mask replaces the value that it stands for; also where two packets share it."""
    text = b"x #MASKED:"
    taken = Input(recorded(Frames(), "c2s", "stdin"))
    taken.take(text[:split])
    with pytest.raises(MaskWrittenBack):
        taken.take(text[split:] + b"email#")


def test_a_secret_on_stdin_is_not_recorded() -> None:
    """What a job pipes in is its own secret, and the archive keeps it for years."""
    frames = Frames()
    Input(recorded(frames, "c2s", "stdin")).take(b"url=postgres://a:hunter2hunter2@db/x\n")
    assert b"hunter2" not in frames.raw
    assert frames.told[0][:2] == ("c2s", "stdin")
