"""Accepted and durable: what may be lost, when to stop, and what a slow, broken or stolen bucket does."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.recorder import Recording, window
from broker.recorder.recording import Failure
from chalicelib.domain.errors import AlreadyExists, Limited, RecordingUnavailable, StoreUnavailable
from chalicelib.domain.identifiers import ConnectionId, SessionId, Txn
from chalicelib.domain.recording import MAX_TEXT, FrameKind, Gap, RecordedAs, segment_key
from chalicelib.domain.store import ObjectFacts, ObjectVersion
from tests.fakes.broker import InlinePool, WaitingPool
from tests.fakes.clock import FakeClock
from tests.fakes.memory import MemoryStores

WHO = RecordedAs(
    session_id=SessionId("ses_1"),
    connection_id=ConnectionId("con_1"),
    txn=Txn("txn1"),
    protocol="postgres",
    actor="https://ci#a",
    originator="https://ci#a",
    target="orders-prod",
    principal="app_rw",
)


class Bench:
    """One recording over memory stores, with a clock and a pool that the test moves."""

    def __init__(self, *, slow: bool = False, objects: Any = None) -> None:
        self.clock = FakeClock()
        self.stores = MemoryStores()
        self.slow = WaitingPool()
        pool = self.slow if slow else InlinePool()
        self.recording = Recording(who=WHO, objects=objects or self.stores.objects, pool=pool, clock=self.clock)
        self.heard: list[int] = []
        self.recording.on_progress(lambda: self.heard.append(self.recording.durable_upto))

    def accept(self, text: str = "x") -> int:
        return self.recording.accept(FrameKind.DATA, "c2s", text)

    def segment(self, number: int) -> list[dict[str, Any]]:
        raw = gzip.decompress(self.stores.objects.get(segment_key(WHO.session_id, WHO.connection_id, number)))
        return [json.loads(line) for line in raw.splitlines()]

    def is_behind(self) -> bool:
        return self.recording.behind

    def verify(self) -> list[int]:
        """Return the sequence numbers in the bucket, having checked that every segment names the one before."""
        seen: list[int] = []
        previous = ""
        for number, key in enumerate(self.stores.objects.keys("rec/")):
            raw = gzip.decompress(self.stores.objects.get(key))
            header, *lines = [json.loads(line) for line in raw.splitlines()]
            assert (header["kind"], header["number"], header["prev_sha256"]) == ("segment", number, previous)
            previous = hashlib.sha256(raw).hexdigest()
            seen += [line["seq"] for line in lines]
        return seen


def big() -> str:
    return "x" * MAX_TEXT


def test_a_frame_is_accepted_and_becomes_durable_when_asked() -> None:
    """One PutObject carries all that wait."""
    bench = Bench()
    assert [bench.accept(), bench.accept()] == [1, 2]
    assert (bench.recording.accepted, bench.recording.durable_upto) == (2, 0)
    bench.recording.flush()
    assert bench.recording.durable_upto == 2
    assert bench.heard == [2]
    assert bench.verify() == [1, 2]


def test_a_quiet_connection_is_flushed_in_time_without_anybody_asking() -> None:
    """Half the window waits for company, the other half is the upload's."""
    bench = Bench()
    bench.accept()
    bench.clock.advance(window.FLUSH_AFTER_S - 0.01)
    bench.recording.step()
    assert bench.recording.durable_upto == 0
    bench.clock.advance(0.01)
    bench.recording.step()
    assert bench.recording.durable_upto == 1
    assert not bench.recording.behind


def test_a_segment_is_cut_at_256_kib() -> None:
    """A busy connection does not wait for the clock."""
    bench = Bench()
    for _ in range(5):
        bench.accept(big())
    assert bench.recording.durable_upto >= 4


def test_a_long_text_takes_several_frames_and_loses_nothing() -> None:
    """A frame's text is bounded; its writer splits it."""
    bench = Bench()
    text = "a" * MAX_TEXT + "b" * MAX_TEXT + "c"
    assert bench.accept(text) == 3
    bench.recording.flush()
    _, *lines = bench.segment(0)
    assert "".join(line["text"] for line in lines) == text
    assert [json.loads(line["meta"])["part"] for line in lines] == [0, 1, 2]


def test_half_a_surrogate_pair_is_recorded_escaped() -> None:
    """Bytes of a client that have no UTF-8 must neither be lost nor stop the record."""
    bench = Bench()
    bench.accept("\ud800!")
    bench.recording.flush()
    assert bench.segment(0)[1]["text"] == "\\ud800!"


def test_a_slow_bucket_makes_the_connection_behind() -> None:
    """2 s unacknowledged: the broker stops reading from both sides, and goes on when it is acknowledged."""
    bench = Bench(slow=True)
    bench.accept()
    bench.recording.flush()
    bench.clock.advance(window.WINDOW_S)
    assert not bench.is_behind()
    bench.clock.advance(0.01)
    assert bench.is_behind()
    bench.slow.run_all()
    assert not bench.is_behind()


def test_eight_mib_unacknowledged_is_behind_at_once() -> None:
    """The other bound of the window, whatever the time."""
    bench = Bench(slow=True)
    while not bench.is_behind():
        bench.accept(big())
    assert window.WINDOW_BYTES < bench.recording.accepted * (MAX_TEXT + 300) < window.WINDOW_BYTES + 3 * MAX_TEXT
    bench.slow.run_all()
    assert not bench.is_behind()


def test_no_more_than_eight_upload_at_once_and_what_waits_shares_one_object() -> None:
    """The pool is shared by all connections; one must not take it."""
    bench = Bench(slow=True)
    for _ in range(100):
        bench.accept(big())
    assert len(bench.slow.waiting) == window.UPLOADS_AT_ONCE
    bench.slow.run_all()
    bench.recording.flush()
    bench.slow.run_all()
    assert bench.verify() == list(range(1, 101))
    assert len(bench.stores.objects.rows) == window.UPLOADS_AT_ONCE + 1


def test_segments_grow_while_others_are_on_their_way() -> None:
    """With 256 KiB each, eight uploads of 40 ms would bound a connection to 50 MiB/s, and cost four times the PUTs."""
    bench = Bench(slow=True)
    while len(bench.slow.waiting) < window.UPLOADS_AT_ONCE:
        bench.accept(big())
    bench.slow.run_all()
    sizes = [sum(len(frame.get("text", "")) for frame in bench.segment(n)) for n in range(window.UPLOADS_AT_ONCE)]
    assert sizes == [window.SEGMENT_BYTES] * 3 + [window.BUSY_SEGMENT_BYTES] * 5
    for _ in range(4):
        bench.accept(big())
    assert len(bench.slow.waiting) == 1, "nothing is on its way: 256 KiB are enough again"


def test_memory_is_bounded_whatever_a_driver_forgets() -> None:
    """Twice the window and no more: past it the recording fails, and nothing runs unrecorded."""
    bench = Bench(slow=True)

    def fill() -> None:
        for _ in range(300):
            bench.accept(big())

    with pytest.raises(RecordingUnavailable):
        fill()
    assert bench.recording.failure is Failure.FULL
    bench.slow.run_all()
    assert bench.verify()[:3] == [1, 2, 3]


def test_durable_is_a_prefix_without_gaps() -> None:
    """A later segment that is acknowledged first proves nothing of the earlier."""
    bench = Bench(slow=True)
    bench.accept()
    bench.recording.flush()
    bench.accept()
    bench.recording.flush()
    bench.slow.run(1)
    assert bench.recording.durable_upto == 0
    bench.slow.run(0)
    assert bench.recording.durable_upto == 2


@given(order=st.permutations(range(6)))
def test_whatever_order_uploads_end_in_the_record_is_whole(order: list[int]) -> None:
    """Eight at once end in any order; durable_upto never runs ahead and never falls back."""
    bench = Bench(slow=True)
    for _ in order:
        bench.accept()
        bench.recording.flush()
    waiting = list(bench.slow.waiting)
    done: set[int] = set()
    for index in order:
        waiting[index]()
        done.add(index)
        whole = next(count for count in range(7) if count not in done)
        assert bench.recording.durable_upto == whole
    assert bench.verify() == [1, 2, 3, 4, 5, 6]


def test_an_upload_that_failed_is_tried_again_and_nothing_is_lost() -> None:
    """A hiccup of the bucket is waited out, later tries further apart."""
    bench = Bench()
    bench.stores.fail("objects")
    bench.accept()
    bench.recording.flush()
    bench.clock.advance(1)
    bench.recording.step()
    assert bench.recording.durable_upto == 0
    bench.stores.heal("objects")
    bench.clock.advance(3)
    bench.recording.step()
    assert bench.recording.durable_upto == 1


def test_a_bucket_that_is_down_for_long_ends_the_recording() -> None:
    """Bounded: after 30 s nothing more is accepted, and whoever waits is told."""
    bench = Bench()
    bench.stores.fail("objects")
    bench.accept()
    bench.recording.flush()
    for _ in range(16):
        bench.clock.advance(2)
        bench.recording.step()
    assert bench.recording.failure is Failure.STORE
    assert bench.heard == [0]
    with pytest.raises(RecordingUnavailable):
        bench.accept()
    with pytest.raises(RecordingUnavailable):
        bench.recording.wait(1, 0)


def test_a_bug_in_an_upload_ends_the_recording() -> None:
    """An exception that is not an outage: nobody would try that segment again, so that nothing more may run."""

    class Broken:
        def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
            raise AlreadyExists("taken")

        def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
            raise ValueError("a bug")

    bench = Bench(objects=Broken())
    bench.accept()
    bench.recording.flush()
    assert bench.recording.failure is Failure.STORE


def test_an_unknown_exception_of_the_store_is_tried_again() -> None:
    """A store that breaks its contract is a store that is out of reach."""

    class Odd:
        def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
            raise OSError("reset")

    bench = Bench(objects=Odd())
    bench.accept()
    bench.recording.flush()
    assert bench.recording.failure is None


def test_a_key_that_another_took_fences_the_recording_at_once() -> None:
    """architecture, "Closing": a sweeper sealed it; both sides stop, nothing more is put."""
    bench = Bench()
    bench.stores.objects.put_new(segment_key(WHO.session_id, WHO.connection_id, 0), b"tombstone", content_type="x")
    bench.accept()
    bench.recording.flush()
    assert bench.recording.failure is Failure.FENCED
    assert bench.heard == [0]
    with pytest.raises(RecordingUnavailable):
        bench.accept()
    bench.recording.stop()
    assert len(bench.stores.objects.rows) == 1


class _AnswerLost:
    """Stores, and says once that it could not be reached."""

    def __init__(self, stores: MemoryStores) -> None:
        self._objects = stores.objects
        self.lost = 1

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        version = self._objects.put_new(key, body, content_type=content_type, keep_days=keep_days)
        if self.lost:
            self.lost -= 1
            raise StoreUnavailable("the answer was lost")
        return version

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
        return self._objects.facts(key, version_id)

    def keys(self, prefix: str) -> Any:
        return self._objects.keys(prefix)


def test_our_own_try_whose_answer_was_lost_does_not_fence_us() -> None:
    """412 on our own bytes: the read-back tells our retry from a sweeper's tombstone."""
    stores = MemoryStores()
    bench = Bench(objects=_AnswerLost(stores))
    bench.accept()
    bench.recording.flush()
    bench.clock.advance(1)
    bench.recording.step()
    assert bench.recording.failure is None
    assert bench.recording.durable_upto == 1
    (segment,), gaps = bench.recording.settled()
    assert (bool(segment.version_id), gaps) == (True, ())


def test_a_read_back_that_fails_is_no_verdict() -> None:
    """412, and the bucket cannot be read: neither fenced nor durable, but tried again."""
    stores = MemoryStores()

    class NoRead(_AnswerLost):
        def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
            raise StoreUnavailable("no reads")

    bench = Bench(objects=NoRead(stores))
    bench.accept()
    bench.recording.flush()
    bench.clock.advance(1)
    bench.recording.step()
    assert bench.recording.failure is None
    assert bench.recording.durable_upto == 0


def test_a_process_that_is_killed_leaves_segments_that_verify() -> None:
    """P6: kill -9 without close: what was acknowledged is contiguous, linked, and readable by anybody."""
    bench = Bench()
    for number in range(50):
        bench.accept(f"frame {number}")
        if number % 7 == 0:
            bench.recording.flush()
    assert bench.verify() == list(range(1, 51))[: bench.recording.durable_upto]


def test_what_never_became_durable_is_named_as_a_gap() -> None:
    """The manifest never calls a record complete that is not."""
    bench = Bench(slow=True)
    for _ in range(3):
        bench.accept()
        bench.recording.flush()
    bench.accept()
    bench.slow.run(1)
    bench.recording.stop()
    segments, gaps = bench.recording.settled()
    assert [(segment.first, segment.last) for segment in segments] == [(2, 2)]
    assert gaps == (Gap(first=1, last=1, why="store"), Gap(first=3, last=4, why="store"))


def test_a_pool_that_is_full_is_waited_for() -> None:
    """Limited is not lost: the segment stays and is tried again."""

    class Full(InlinePool):
        full = True

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
            if self.full:
                raise Limited("full")
            return super().submit(fn, *args, **kwargs)

    stores, clock, pool = MemoryStores(), FakeClock(), Full()
    recording = Recording(who=WHO, objects=stores.objects, pool=pool, clock=clock)
    recording.accept(FrameKind.DATA, "c2s", "x")
    recording.flush()
    pool.full = False
    clock.advance(1)
    recording.step()
    assert recording.durable_upto == 1


def test_nothing_is_accepted_after_the_end() -> None:
    """A frame after the last segment would be in none."""
    bench = Bench()
    bench.accept()
    bench.recording.stop()
    assert bench.recording.durable_upto == 1
    with pytest.raises(RecordingUnavailable):
        bench.accept()


def test_a_listener_that_left_is_called_no_more() -> None:
    """Every durable operation adds one: they must not pile up."""
    bench = Bench()
    heard: list[int] = []

    def listener() -> None:
        heard.append(1)

    bench.recording.on_progress(listener)
    bench.recording.off_progress(listener)
    bench.recording.off_progress(listener)
    bench.accept()
    bench.recording.flush()
    assert heard == []


class _Lying:
    """Says 200 and keeps nothing, so many times."""

    def __init__(self, stores: MemoryStores, lies: int) -> None:
        self._objects = stores.objects
        self.lies = lies
        self.puts = 0

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        self.puts += 1
        if self.lies:
            self.lies -= 1
            return ObjectVersion(key=key, version_id="v1")
        return self._objects.put_new(key, body, content_type=content_type, keep_days=keep_days)

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
        return self._objects.facts(key, version_id)

    def keys(self, prefix: str) -> Any:
        return self._objects.keys(prefix)


def test_a_bucket_that_says_200_and_loses_the_object_is_found_out() -> None:
    """The read-back, not the acknowledgement, makes a frame durable; the same bytes are put again."""
    stores = MemoryStores()
    bench = Bench(objects=_Lying(stores, 2))
    bench.stores = stores
    bench.accept()
    bench.recording.flush()
    assert bench.recording.durable_upto == 0
    for _ in range(2):
        bench.clock.advance(1)
        bench.recording.step()
    assert (bench.recording.durable_upto, bench.recording.failure) == (1, None)
    assert bench.verify() == [1]


def test_a_bucket_that_goes_on_lying_ends_the_recording() -> None:
    """Bounded: it is a bucket that is down."""
    lying = _Lying(MemoryStores(), 1000)
    bench = Bench(objects=lying)
    bench.accept()
    bench.recording.flush()
    for _ in range(40):
        bench.clock.advance(1)
        bench.recording.step()
    assert bench.recording.failure is Failure.STORE
    assert lying.puts < 40


def test_an_object_that_reads_back_as_another_fences() -> None:
    """The bucket took ours and holds something else: somebody writes there, or it corrupts. Nothing goes on."""

    class Corrupting(_Lying):
        def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
            found = super().facts(key, version_id)
            return ObjectFacts(key=key, version_id="v1", size=found.size, sha256="00" * 32)

    bench = Bench(objects=Corrupting(MemoryStores(), 0))
    bench.accept()
    bench.recording.flush()
    assert bench.recording.failure is Failure.FENCED


def test_a_bucket_that_names_no_checksum_is_not_believed() -> None:
    """Without one, 256 KiB of zeros would be as good as the record."""

    class Silent(_Lying):
        def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
            found = super().facts(key, version_id)
            return ObjectFacts(key=key, version_id="v1", size=found.size, sha256="")

    bench = Bench(objects=Silent(MemoryStores(), 0))
    bench.accept()
    bench.recording.flush()
    assert bench.recording.durable_upto == 0


def test_a_frames_place_is_known_once_it_is_cut() -> None:
    """An event names the object that holds its frame; the name is true from the cut on."""
    bench = Bench()
    for number in range(5):
        bench.accept(str(number))
        if number % 2:
            bench.recording.flush()
    places = [bench.recording.place(seq)[-16:-10] for seq in range(7)]
    assert places == ["", "000000", "000000", "000001", "000001", "", ""]
    bench.recording.stop()
    assert bench.recording.place(5).endswith("000002.ndjson.gz")


def test_every_accepted_frame_is_seen_once_and_in_order() -> None:
    """Operations become events by this."""
    seen: list[int] = []
    stores = MemoryStores()
    recording = Recording(
        who=WHO,
        objects=stores.objects,
        pool=InlinePool(),
        clock=FakeClock(),
        seen=lambda frame: seen.append(frame.seq),
    )
    recording.accept(FrameKind.DATA, "c2s", "x" * (MAX_TEXT + 1))
    recording.accept(FrameKind.DATA, "c2s", "y")
    assert seen == [1, 2, 3]
