"""Message bodies: decode is the inverse of encode, and a malformed body is the violation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.postgres import messages
from broker.wire.postgres.messages import Column
from broker.wire.violation import RemoteViolation
from tests.vectors.postgres.replay import SESSIONS, after_login, frames

DECODERS: dict[int, Callable[[bytes], object]] = {
    messages.QUERY: messages.parse_query,
    messages.PARSE: messages.parse_parse,
    messages.BIND: messages.parse_bind,
    messages.DESCRIBE: messages.parse_named,
    messages.EXECUTE: messages.parse_execute,
    messages.CLOSE: messages.parse_named,
}
SERVER_DECODERS: dict[int, Callable[[bytes], object]] = {
    messages.ROW_DESCRIPTION: messages.parse_row_description,
    messages.DATA_ROW: messages.parse_row,
    messages.PARAMETER_STATUS: messages.parse_parameter_status,
    messages.READY: messages.parse_ready,
    messages.COMMAND_COMPLETE: messages.parse_command_complete,
    messages.NOTIFICATION: messages.parse_notification,
    messages.BACKEND_KEY: messages.parse_backend_key,
    messages.PARAMETER_DESCRIPTION: messages.parse_parameter_description,
}


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.lists(st.none() | st.binary(max_size=40), max_size=10))
def test_rows_come_back_as_they_were(values: list[bytes | None]) -> None:
    """A masked row is encoded anew: the same values must give the same row."""
    assert messages.parse_row(messages.encode_row(values)[5:]) == tuple(values)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(
    st.lists(
        st.builds(
            Column,
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20).map(str.encode),
            st.integers(0, 2**32 - 1),
            st.integers(-(2**15), 2**15 - 1),
            st.integers(0, 2**32 - 1),
            st.integers(-(2**15), 2**15 - 1),
            st.integers(-(2**31), 2**31 - 1),
            st.sampled_from([0, 1]),
        ),
        max_size=6,
    )
)
def test_row_descriptions_come_back_as_they_were(columns: list[Column]) -> None:
    """Origins decide masks, so no field may move."""
    assert messages.parse_row_description(messages.encode_row_description(columns)[5:]) == tuple(columns)


@pytest.mark.parametrize("decode", [*DECODERS.values(), *SERVER_DECODERS.values()])
@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(junk=st.binary(max_size=80))
def test_junk_gives_the_violation_and_nothing_else(decode: Callable[[bytes], object], junk: bytes) -> None:
    """An attacker's body raises one exception type."""
    with contextlib.suppress(RemoteViolation):
        decode(junk)


@pytest.mark.parametrize("name", SESSIONS)
def test_a_real_clients_messages_cut_short_or_long_are_refused(name: str) -> None:
    """Every message of a real session decodes whole; with a byte less or more it does not."""
    data = b"".join(piece for towards, piece in after_login(name) if towards == "c")
    seen = set()
    for kind, body in frames("c", data):
        if kind not in DECODERS:
            continue
        seen.add(kind)
        DECODERS[kind](body)
        with pytest.raises(RemoteViolation):
            DECODERS[kind](body + b"x")
        with pytest.raises(RemoteViolation):
            DECODERS[kind](body[:-1])
    assert messages.QUERY in seen or messages.BIND in seen


def test_text_that_is_not_utf8_is_refused() -> None:
    """A byte that is one thing to us and another to the server is a way past the parser."""
    with pytest.raises(RemoteViolation, match="UTF-8"):
        messages.parse_query(b"select '\xff'\0")


def test_a_nul_inside_a_text_is_refused() -> None:
    """What comes behind a NUL would be unseen by us or by the server."""
    with pytest.raises(RemoteViolation, match="longer"):
        messages.parse_query(b"select 1\0; drop table t\0")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"\0\0\0\x02\0\x01\0\x01\0\x01\0\0\0\x01x\0\0", "as many parameter formats"),
        (b"\0\0\0\x01\0\x02\0\0\0\0", "neither text nor binary"),
        (b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0", "negative"),
    ],
)
def test_a_bind_that_lies_about_its_parameters_is_refused(body: bytes, what: str) -> None:
    """Bind values are what is approved: they must be read as the server reads them."""
    with pytest.raises(RemoteViolation, match=what):
        messages.parse_bind(body)


def test_bind_formats_none_one_or_each() -> None:
    """One format code stands for all parameters, none for text."""
    bind = messages.Bind(b"", b"", (1,), (b"a", b"b"), ())
    assert [bind.format_of(0), bind.format_of(1)] == [1, 1]
    assert messages.Bind(b"", b"", (), (b"a",), ()).format_of(0) == 0
    assert messages.Bind(b"", b"", (0, 1), (b"a", b"b"), ()).format_of(1) == 1


def test_round_trips_of_what_we_make_ourselves() -> None:
    """Our own messages are read back by our own decoders."""
    assert messages.parse_query(messages.encode_query(b"select 1")[5:]) == b"select 1"
    assert messages.parse_parse(messages.encode_parse(b"a", b"select 1")[5:]) == messages.Parse(b"a", b"select 1", ())
    assert messages.parse_bind(messages.encode_bind(b"p", b"s")[5:]) == messages.Bind(b"p", b"s", (), (), ())
    assert messages.parse_execute(messages.encode_execute(b"p", 5)[5:]) == messages.Execute(b"p", 5)
    named = messages.Named(messages.PORTAL, b"p")
    assert messages.parse_named(messages.encode_describe(messages.PORTAL, b"p")[5:]) == named
    assert messages.parse_named(messages.encode_close(messages.PORTAL, b"p")[5:]) == named
    assert messages.parse_parameter_status(messages.encode_parameter_status(b"a", b"b")[5:]) == (b"a", b"b")
    assert messages.parse_backend_key(messages.encode_backend_key(7, b"abcd")[5:]) == (7, b"abcd")
    assert messages.parse_notification(messages.encode_notification(7, b"c", b"p")[5:]) == (7, b"c", b"p")
    assert messages.parse_ready(messages.encode_ready(b"T")[5:]) == ord("T")
