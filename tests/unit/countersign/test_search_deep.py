"""Words in recordings, whatever frames and segments cut them; and what must stop the search."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from chalicelib.domain.canonical import Json
from chalicelib.domain.identifiers import ConnectionId, SessionId, Txn
from chalicelib.domain.recording import (
    Frame,
    FrameKind,
    RecordedAs,
    segment_header,
    segment_key,
    tombstone,
)
from countersign.failures import Failure
from countersign.search_deep import search_deep, stored_in
from countersign.search_local import Found, Hit
from countersign.search_terms import terms_of
from tests.fakes.clock import START

SESSION = SessionId("ses_01m6dshkc8w586sj5sp0arcw4h")
CONNECTION = ConnectionId("con_01m6dshkc8w586sj5sp0arcw4h")
WHO = RecordedAs(
    session_id=SESSION,
    connection_id=CONNECTION,
    txn=Txn("01m6dshkc8w586sj5sp0arcw4h"),
    protocol="ssh",
    actor="a",
    originator="o",
    target="db-prod",
    principal="deploy",
)


def _frame(seq: int, kind: FrameKind, text: str, op: str = "op_1", **meta: Json) -> Frame:
    way = "c2s" if kind is FrameKind.OPERATION else "s2c"
    return Frame(seq=seq, at=START, dir=way, kind=kind, text=text, meta=tuple({"op": op, **meta}.items()))


def _segment(number: int, *frames: Frame) -> tuple[str, bytes]:
    lines = [segment_header(WHO, number, ""), *(frame.line(WHO) for frame in frames)]
    return segment_key(SESSION, CONNECTION, number), gzip.compress(b"".join(lines))


def _hit(op: str = "op_1", time_ms: int = 1) -> Hit:
    return Hit(
        uid=f"{op}-{time_ms}",
        time_ms=time_ms,
        at="2026-11-02T09:00:00.000Z",
        originator="o",
        actor="a",
        target="db-prod",
        principal="deploy",
        actions=("ssh:exec",),
        verdict="forward",
        held=False,
        outcome="ok",
        code="",
        rules=(),
        people=(),
        session_id=SESSION,
        connection_id=CONNECTION,
        operation_id=op,
        frame=1,
        segment="",
        txn=WHO.txn,
    )


def _found(words: str, objects: Iterable[tuple[str, bytes]], *hits: Hit, limit: int = 10) -> Found:
    told: Sequence[Hit] = hits or (_hit(),)
    kept = list(objects)
    return search_deep([(SESSION, told)], lambda _: kept, terms_of([words]), limit, objects=0)


def test_a_word_that_two_frames_and_two_segments_share_is_found() -> None:
    """Attack: write a word in two pieces, so that no line of the recording has it."""
    first = _segment(0, _frame(1, FrameKind.DATA, "the pass", stream="stdout"))
    other = _segment(1, _frame(2, FrameKind.DATA, "not it", stream="stderr"))
    second = _segment(2, _frame(3, FrameKind.DATA, "word is", stream="stdout"))
    (hit,) = _found("password", [first, other, second]).hits
    assert (hit.where, hit.frame, hit.segment) == ("stream", 3, second[0])
    assert "password" in hit.text
    assert _found("passnot", [first, other, second]).hits == (), "streams are apart"


def test_a_terminals_escape_sequences_hide_no_word() -> None:
    """Attack: colour every letter, or hide a title between two, so that the bytes have no such word."""
    text = "".join(f"\x1b[31m{char}" for char in "drop") + " \x1b]0;x\x07table"
    (hit,) = _found('"drop table"', [_segment(0, _frame(1, FrameKind.DATA, text))]).hits
    assert "\x1b" not in hit.text


def test_bytes_that_were_no_text_are_read() -> None:
    """A stream with a byte that is no UTF-8 is kept as base64."""
    text = base64.b64encode(b"\xffsecret\xfe").decode()
    assert _found("secret", [_segment(0, _frame(1, FrameKind.DATA, text, encoding="base64"))]).hits


def test_all_words_of_one_operation_and_no_unwanted_one() -> None:
    """In its statement or its result; another operation's do not count."""
    frames = [
        _frame(1, FrameKind.OPERATION, "SELECT name FROM people", "op_1"),
        _frame(2, FrameKind.ROWS, '["Alice"]', "op_1"),
        _frame(3, FrameKind.OPERATION, "SELECT name FROM pets", "op_2"),
        _frame(4, FrameKind.ROWS, '["Rex"]', "op_2"),
    ]
    objects, hits = [_segment(0, *frames)], (_hit("op_1", 1), _hit("op_2", 2))
    assert [hit.operation_id for hit in _found("alice people", objects, *hits).hits] == ["op_1"]
    assert _found("alice pets", objects, *hits).hits == ()
    assert [hit.operation_id for hit in _found("name -rex", objects, *hits).hits] == ["op_1"]
    assert [hit.operation_id for hit in _found("name", objects, *hits).hits] == ["op_2", "op_1"], "newest first"
    page = _found("name", objects, *hits, limit=1)
    assert [hit.operation_id for hit in page.hits] == ["op_2"]
    assert str(page.after) == "2.op_2-2"


@pytest.mark.parametrize(
    "body",
    [
        b"not gzip",
        gzip.compress(b'{"kind":"segment"}\n'),
        _segment(0, _frame(1, FrameKind.DATA, "x"))[1][:-4],
        gzip.compress(segment_header(WHO, 0, "") + b"not json\n"),
        _segment(7, _frame(1, FrameKind.DATA, "x"))[1],
    ],
    ids=["no gzip", "no header", "cut", "no frame", "another number"],
)
def test_what_is_no_segment_of_the_connection_stops_the_search(body: bytes) -> None:
    """Attack: damage or swap a segment, so that a word in it is not found and nobody asks why."""
    with pytest.raises(Failure) as stopped:
        _found("x", [(segment_key(SESSION, CONNECTION, 0), body)])
    assert stopped.value.exit_code == 65


def test_a_tombstone_is_passed_over() -> None:
    """Who seals for a dead broker takes keys with it: no text is lost by that."""
    dead = (segment_key(SESSION, CONNECTION, 1), gzip.compress(tombstone(SESSION, CONNECTION, 1, "sweeper", START)))
    assert _found("x", [_segment(0, _frame(1, FrameKind.DATA, "x")), dead]).hits


def test_a_copy_is_read_by_names_of_ours_and_no_link_is_followed(tmp_path: Path) -> None:
    """Attack: a copy in which a link leads to the auditor's own files, or a session's name leads out of it."""
    key, body = _segment(0, _frame(1, FrameKind.DATA, "x"))
    path = tmp_path / "bucket" / key
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    (path.parent / "000001.ndjson.gz").symlink_to(path)
    (path.parent / "x.ndjson.gz").write_bytes(body)
    (tmp_path / "bucket/rec/v1" / f"{SESSION[:-1]}0").symlink_to(path.parents[1])
    stored = stored_in(tmp_path / "bucket")
    assert [found for found, _ in stored(SESSION)] == [key]
    assert list(stored("../..")) == []
    assert list(stored(f"{SESSION[:-1]}0")) == []


def test_a_frame_with_members_of_other_types_is_no_crash() -> None:
    """Attack: JSON of another shape in the archive."""
    lines = [
        json.dumps(one).encode() for one in ({"kind": ["data"]}, {"kind": "data", "text": 7, "meta": 7, "seq": ""})
    ]
    body = gzip.compress(_segment_raw(lines))
    with pytest.raises(Failure):
        _found("x", [(segment_key(SESSION, CONNECTION, 0), body)])


def _segment_raw(lines: Sequence[bytes]) -> bytes:
    return b"\n".join([segment_header(WHO, 0, "").rstrip(b"\n"), *lines]) + b"\n"
