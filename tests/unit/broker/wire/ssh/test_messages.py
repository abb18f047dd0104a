"""The messages of RFC 4254: what is written is read again, and what is not whole is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.ssh import messages
from broker.wire.violation import RemoteViolation

PARSERS: tuple[Callable[[bytes], object], ...] = (
    messages.parse_global_request,
    messages.parse_open,
    messages.parse_confirmation,
    messages.parse_open_failure,
    messages.parse_request,
    messages.parse_adjust,
    messages.parse_data,
    messages.parse_extended,
    messages.parse_terminal,
    messages.parse_size,
    messages.parse_variable,
    messages.parse_command,
    messages.parse_text,
    messages.parse_exit_status,
    messages.parse_exit_signal,
    messages.parse_address,
)
NUMBERS = st.integers(0, 2**32 - 1)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.binary(max_size=300))
@pytest.mark.parametrize("parse", PARSERS)
def test_any_bytes_are_read_or_a_violation(parse: Callable[[bytes], object], body: bytes) -> None:
    """A reading thread ends with the exception that its owner knows, or not at all: any other is a bug of ours."""
    with contextlib.suppress(RemoteViolation):
        parse(body)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.binary(max_size=200), st.data())
def test_a_message_that_ends_early_is_never_filled_up(command: bytes, data: st.DataObject) -> None:
    """paramiko fills what is missing with zeros: a command that was never sent would be judged and run."""
    whole = messages.string(command)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(RemoteViolation):
        messages.parse_command(whole[:cut])


def test_bytes_behind_a_message_are_a_violation() -> None:
    """What one reader skips another may take for an argument."""
    with pytest.raises(RemoteViolation):
        messages.parse_command(messages.string(b"uptime") + b"x")


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(NUMBERS, NUMBERS, NUMBERS)
def test_an_open_says_what_was_meant(sender: int, window: int, size: int) -> None:
    """A window that is read wrong stops a channel, or floods it."""
    written = messages.encode_open("session", sender, window, size)
    assert messages.parse_open(written[1:]) == messages.ChannelOpen("session", sender, window, size, b"")


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_a_confirmation_says_what_was_meant(recipient: int, sender: int, window: int, size: int) -> None:
    """The same of the answer."""
    written = messages.encode_confirmation(recipient, sender, window, size)
    assert messages.parse_confirmation(written[1:]) == messages.Confirmation(recipient, sender, window, size)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.sampled_from((messages.STDOUT, messages.STDERR)), st.binary(max_size=100))
def test_data_says_what_was_meant(kind: int, payload: bytes) -> None:
    """Standard output and standard error have messages of their own."""
    written = messages.encode_data(7, kind, payload)
    number, body = written[0], written[5:]
    read = messages.parse_extended(body) if number == messages.EXTENDED_DATA else (0, messages.parse_data(body))
    assert read == (kind, payload)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.text(max_size=20), NUMBERS, NUMBERS, NUMBERS, NUMBERS, st.binary(max_size=50))
def test_a_terminal_is_passed_on_as_it_was_asked_for(
    term: str, cols: int, rows: int, width: int, height: int, modes: bytes
) -> None:
    """Its modes decide how the target's shell echoes."""
    terminal = messages.Terminal(term, cols, rows, width, height, modes)
    assert messages.parse_terminal(messages.encode_terminal(terminal)) == terminal


def test_a_name_is_bounded_and_text() -> None:
    """Names go into records and logs."""
    with pytest.raises(RemoteViolation):
        messages.parse_text(messages.string(b"x" * (messages.MAX_NAME + 1)))
    with pytest.raises(RemoteViolation):
        messages.parse_text(messages.string(b"\xff"))
