"""Frames: any split of the bytes gives the same frames, and junk gives the violation and nothing else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.postgres.framing import (
    CLIENT_MESSAGE_BYTES,
    SMALL_MESSAGE_BYTES,
    FrameReader,
    client_reader,
    frame,
    server_reader,
)
from broker.wire.violation import RemoteViolation
from tests.vectors.postgres.replay import SESSIONS, after_login

Cut = list[tuple[int, bytes]]


def cut(reader: FrameReader, *pieces: bytes) -> Cut:
    found: Cut = []
    for piece in pieces:
        got = reader.feed(piece)
        found += [(kind, got.data[start:end]) for kind, start, end in got.spans]
    return found


MESSAGES = st.lists(
    st.tuples(st.sampled_from([b"Q", b"P", b"B", b"d"]), st.binary(max_size=60)).map(lambda pair: frame(*pair)),
    max_size=8,
)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(messages=MESSAGES, places=st.lists(st.integers(0, 500), max_size=12))
def test_any_split_gives_the_same_frames(messages: list[bytes], places: list[int]) -> None:
    """A network may cut anywhere; what is judged must not depend on where."""
    whole = b"".join(messages)
    cuts = sorted({0, len(whole), *(place % (len(whole) + 1) for place in places)})
    pieces = [whole[a:b] for a, b in itertools.pairwise(cuts)]
    reader = client_reader()
    assert cut(reader, *pieces) == [(message[0], message) for message in messages]
    assert reader.buffered == 0


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.binary(max_size=200))
def test_junk_gives_frames_or_the_violation(junk: bytes) -> None:
    """Bytes of an attacker raise one exception type, so no other path out of the reader exists."""
    for reader in (client_reader(), server_reader()):
        try:
            cut(reader, junk)
        except RemoteViolation:
            continue
        assert reader.buffered <= len(junk)


@pytest.mark.parametrize("name", SESSIONS)
def test_a_real_session_byte_by_byte(name: str) -> None:
    """Real clients' bytes, one at a time, are the frames of the same bytes at once."""
    for direction, reader, other in (("c", client_reader(), client_reader()), ("s", server_reader(), server_reader())):
        data = b"".join(piece for towards, piece in after_login(name) if towards == direction)
        assert cut(reader, *(data[at : at + 1] for at in range(len(data)))) == cut(other, data)


@pytest.mark.parametrize("name", SESSIONS)
def test_a_real_session_cut_short_is_never_a_frame_too_many(name: str) -> None:
    """Truncation at every byte: what is whole is given, the rest is waited for, nothing is made up."""
    data = b"".join(piece for towards, piece in after_login(name) if towards == "c")
    whole = cut(client_reader(), data)
    for at in range(len(data)):
        reader = client_reader()
        given_frames = cut(reader, data[:at])
        assert given_frames == whole[: len(given_frames)]
        assert sum(len(raw) for _, raw in given_frames) + reader.buffered == at


@pytest.mark.parametrize(
    ("junk", "what"),
    [
        (b"\x00\x00\x00\x00\x04", "unknown type"),
        (b"Q\x00\x00\x00\x03", "shorter"),
        (b"Q\xff\xff\xff\xff", "shorter"),
        (b"Q" + (CLIENT_MESSAGE_BYTES + 1).to_bytes(4, "big"), "longer"),
        (b"S" + (SMALL_MESSAGE_BYTES + 1).to_bytes(4, "big"), "longer"),
        (b"p\x00\x00\x00\x08", "unknown type"),  # a password after authentication
    ],
)
def test_a_bad_header_is_refused_before_its_body_is_waited_for(junk: bytes, what: str) -> None:
    """A length is believed only within its cap: otherwise a header of five bytes reserves a gigabyte."""
    with pytest.raises(RemoteViolation, match=what):
        client_reader().feed(junk)


def test_a_large_row_is_buffered_once() -> None:
    """Parts of one message are joined once, and nothing is left behind."""
    reader = server_reader()
    row = frame(b"D", b"x" * 1_000_000)
    pieces = [row[at : at + 10_000] for at in range(0, len(row), 10_000)]
    assert cut(reader, *pieces) == [(ord("D"), row)]
    assert reader.buffered == 0
