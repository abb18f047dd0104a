"""Lines made by orjson, and made later, are the lines that every reader knows."""

from __future__ import annotations

import base64
import gzip
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.recorder.lines import MAX_ROWS_BYTES, LineWriter
from broker.recorder.recording import Failure, Recording
from broker.recorder.spool import Spool
from chalicelib.domain.errors import RecordingUnavailable
from chalicelib.domain.recording import MAX_TEXT, Frame, FrameKind, segment_key
from tests.fakes.broker import InlinePool, WaitingPool
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemoryStores
from tests.unit.broker.recorder.test_recording import WHO

META = (("op", "op_1"), ("columns", ["n"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def never() -> None:
    pytest.fail("the rows can be read")


class Slow:
    """A recording whose pool runs when the test says so."""

    def __init__(self, spool: Spool | None = None) -> None:
        self.stores, self.pool = MemoryStores(), WaitingPool()
        self.recording = Recording(
            who=WHO,
            objects=self.stores.objects,
            pool=self.pool,
            clock=FakeClock(),
            spooled=None if spool is None else spool.begin(WHO.session_id, WHO.connection_id),
        )

    def raw(self, number: int = 0) -> bytes:
        return gzip.decompress(self.stores.objects.get(segment_key(WHO.session_id, WHO.connection_id, number)))

    def frames(self, number: int = 0) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.raw(number).splitlines()[1:]]

    def run(self) -> None:
        self.recording.flush()
        while self.pool.waiting:
            self.pool.waiting.pop(0)()


@given(
    text=st.text(), meta=st.lists(st.tuples(st.text(max_size=4), JSON), max_size=3), way=st.sampled_from(["c2s", "ctl"])
)
def test_a_line_has_the_very_bytes_that_the_domain_writes(text: str, meta: list[Any], way: str) -> None:
    """Segments of old brokers, and of the sweeper, are read by the same eyes: two formats would be two recordings."""
    text = text.encode("utf-8", "backslashreplace").decode()
    frame = Frame(seq=7, at=FakeClock().now(), dir=way, kind=FrameKind.DATA, text=text, meta=tuple(meta))
    try:
        expected = frame.line(WHO)
    except UnicodeEncodeError:
        with pytest.raises(UnicodeEncodeError):
            LineWriter(WHO, unreadable=never).line(frame)
        return
    assert LineWriter(WHO, unreadable=never).line(frame) == expected


def test_a_line_is_cut_where_the_domain_cuts_it() -> None:
    """A text of more than a frame holds is split before; what is not may not make a line that no reader takes."""
    frame = Frame(seq=1, at=FakeClock().now(), dir="c2s", kind=FrameKind.DATA, text="x" * (MAX_TEXT + 1))
    assert LineWriter(WHO, unreadable=never).line(frame) == frame.line(WHO)


def test_rows_become_text_in_the_pools_thread() -> None:
    """The relay's loop must not pay for it: what is accepted is the bytes, in order with everything else."""
    slow = Slow()
    made: list[str] = []

    def text(rows: Sequence[bytes]) -> str:
        made.append(threading.current_thread().name)
        return "\n".join(f'["{row.decode()}"]' for row in rows)

    assert slow.recording.accept(FrameKind.OPERATION, "c2s", "select", META[:1]) == 1
    assert slow.recording.accept_rows([b"a", b"b"], text, META) == 2
    assert slow.recording.accept(FrameKind.OUTCOME, "ctl", meta=META[:1]) == 3
    assert not made
    slow.run()
    assert [(frame["seq"], frame["kind"], frame["text"]) for frame in slow.frames()] == [
        (1, "operation", "select"),
        (2, "rows", '["a"]\n["b"]'),
        (3, "outcome", ""),
    ]
    assert len(made) == 1


def test_rows_that_cannot_be_read_are_kept_and_end_the_recording() -> None:
    """They were sent: what the client saw is in the record, and nothing more runs where it cannot be read."""
    slow = Slow()

    def text(_: Sequence[bytes]) -> str:
        raise ValueError("not as described")

    slow.recording.accept_rows([b"\0\1", b"\xff"], text, META)
    slow.run()
    (frame,) = slow.frames()
    assert frame["kind"] == "data"
    assert json.loads(frame["meta"]) == {"op": "op_1", "encoding": "base64"}
    assert base64.b64decode(frame["text"]) == b"\0\1\xff"
    assert slow.recording.failure is Failure.UNREADABLE
    assert slow.recording.durable_upto == 1
    with pytest.raises(RecordingUnavailable):
        slow.recording.accept(FrameKind.DATA, "c2s", "more")


def test_more_rows_than_one_frame_holds_are_split_at_once() -> None:
    """Their number is given before their text is made, so that it may need no second one."""
    slow = Slow()
    size = MAX_ROWS_BYTES + 1
    last = slow.recording.accept_rows([b"\x01" * size], lambda rows: json.dumps([rows[0].decode()]), META)
    slow.run()
    assert last == 2
    assert json.loads("".join(frame["text"] for frame in slow.frames())) == ["\x01" * size]


def test_the_window_counts_what_is_not_text_yet() -> None:
    """Rows that wait to be made text are memory: uncounted they would grow behind a bucket that hangs."""
    slow = Slow()
    rows = [b"x" * (MAX_ROWS_BYTES - 1)]
    for _ in range(8 * 1024 * 1024 // MAX_ROWS_BYTES + 1):
        slow.recording.accept_rows(rows, lambda rows: f'["{rows[0].decode()}"]', META)
    assert slow.recording.behind


def test_disk_and_bucket_have_the_same_lines(tmp_path: Path) -> None:
    """The next process compares them by their bytes; whichever wrote first made them, also across segments."""
    slow = Slow(Spool(tmp_path, "boot_a"))
    calls: list[int] = []

    def text(rows: Sequence[bytes]) -> str:
        calls.append(len(rows))
        return json.dumps([rows[0].decode()])

    for number in range(2):
        slow.recording.accept_rows([b"first"], text, META)
        slow.recording.accept(FrameKind.DATA, "s2c", f"{number}" * 5000)
        slow.recording.spool()
        slow.recording.accept_rows([b"second"], text, META)
        slow.recording.flush()
    slow.recording.spool()
    on_disk = [path.read_bytes() for path in sorted(tmp_path.rglob("*.ndjson"))]
    slow.run()
    assert on_disk == [slow.raw(0), slow.raw(1)]
    assert len(calls) == 4


def test_segments_that_upload_at_once_are_linked_in_their_order() -> None:
    """A later segment's thread may come first: it makes the ones before, since it names their hash."""
    slow = Slow()
    for number in range(3):
        slow.recording.accept(FrameKind.DATA, "s2c", f"{number}" * 3000)
        slow.recording.flush()
    slow.pool.waiting.reverse()
    slow.run()
    segments, gaps = slow.recording.settled()
    assert not gaps
    heads = [json.loads(slow.raw(number).splitlines()[0])["prev_sha256"] for number in range(3)]
    assert heads == ["", segments[0].sha256_raw, segments[1].sha256_raw]


def test_a_pool_that_runs_at_once_makes_lines_too() -> None:
    """Cutting holds the lock that making takes: tests and a full pool must not find it the other way round."""
    stores = MemoryStores()
    recording = Recording(who=WHO, objects=stores.objects, pool=InlinePool(), clock=FakeClock())
    upto = recording.accept_rows([b"a"], lambda _: '["a"]', META)
    recording.flush()
    assert recording.durable_upto == upto
