"""The fold of frames to events: one an operation, told once, with its last word."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.audit import MAX_FIELD, AuditEvent
from chalicelib.domain.canonical import Json
from chalicelib.domain.identifiers import ConnectionId, SessionId, Txn
from chalicelib.domain.operation_events import MAX_OPEN, OperationFold, ToldOperation
from chalicelib.domain.recording import Frame, FrameKind, RecordedAs
from chalicelib.services.event_objects import checked_row
from tests.fakes.clock import START

WHO = RecordedAs(
    session_id=SessionId("ses_1"),
    connection_id=ConnectionId("con_1"),
    txn=Txn("txn1"),
    protocol="postgres",
    actor="iss#child",
    originator="iss#root",
    target="orders-prod",
    principal="app",
)


class Told:
    """A fold, fed frame by frame."""

    def __init__(self) -> None:
        self.fold = OperationFold(WHO)
        self.seq = 0
        self.events: list[AuditEvent] = []

    def frame(self, kind: FrameKind, text: str = "", **meta: Any) -> Told:
        self.seq += 1
        frame = Frame(seq=self.seq, at=START, dir="ctl", kind=kind, text=text, meta=tuple(meta.items()))
        self.events += [told.event() for told in self.fold.take(frame)]
        return self

    def opened(self) -> Told:
        return self.frame(FrameKind.OPEN, chain=["iss#root", "iss#child"], peer="192.0.2.1", target_hop="hop_1")

    def operation(self, op: str, verdict: str, **meta: Any) -> Told:
        return self.frame(FrameKind.OPERATION, f"SELECT {op}", op=op, verdict=verdict, rules=["r"], **meta)


def said(event: AuditEvent) -> tuple[str, str, str, str]:
    assert event.operated is not None
    return event.name.value, event.verdict, event.operated.outcome, event.code


def test_what_ran_is_told_with_its_outcome_and_its_frame() -> None:
    """One event has verdict and outcome both: an auditor joins nothing."""
    told = Told().opened().operation("a", "mask", masks=["email"], tables=["public.orders"], reads_masked=True)
    assert told.events == []
    told.frame(FrameKind.OUTCOME, op="a", status="ok", tag="SELECT 3", rows=3, duration_ms=7)
    (event,) = told.events
    assert said(event) == ("operation.ran", "mask", "ok", "")
    assert (event.frame, event.acting.chain, event.peer) == (2, ("iss#root", "iss#child"), "192.0.2.1")
    assert event.operated is not None
    assert (event.operated.row_count, event.operated.masks, event.operated.reads_masked) == (3, ("email",), True)


def test_a_block_is_told_at_once() -> None:
    """Nothing comes after it: waiting for an outcome would hide it until the connection ends."""
    told = Told().opened().operation("a", "block", code="policy_denied")
    assert [said(event) for event in told.events] == [("operation.refused", "block", "refused", "policy_denied")]


def test_a_held_operation_is_told_with_its_ask_and_who_answered() -> None:
    """Approved by whom is a column of the very operation that ran."""
    told = Told().opened().operation("a", "hold")
    told.frame(FrameKind.HELD, op="a", ask="ask_1").frame(FrameKind.ANSWERED, op="a", ask="ask_1", people=["dora"])
    told.frame(FrameKind.VERDICT, op="a", ask="ask_1", verdict="mask", rules=["prod-delete"], masks=["email"])
    told.frame(FrameKind.OUTCOME, op="a", status="ok")
    (event,) = told.events
    assert (event.ask_id, event.people, event.rules) == ("ask_1", ("dora",), ("prod-delete",))
    assert event.operated is not None
    assert event.operated.masks == ("email",)


def test_a_held_operation_that_was_refused_never_ran() -> None:
    """The verdict's frame is the last word; what follows is not of this operation any more."""
    told = Told().opened().operation("a", "hold").frame(FrameKind.HELD, op="a", ask="ask_1")
    told.frame(FrameKind.VERDICT, op="a", ask="ask_1", verdict="block", code="approval_denied")
    told.frame(FrameKind.OUTCOME, op="a", status="ok").frame(FrameKind.CLOSE)
    assert [said(event) for event in told.events] == [("operation.refused", "block", "refused", "approval_denied")]


def test_what_was_let_through_and_not_sent_is_no_operation_that_ran() -> None:
    """The client left, or the record could not be stored: nothing reached the target."""
    told = Told().opened().operation("a", "forward").frame(FrameKind.OUTCOME, op="a", status="refused", tag="denied")
    told.operation("b", "forward").frame(FrameKind.OUTCOME, op="b", status="refused", tag="the client left")
    assert [said(event)[3] for event in told.events] == ["denied", "refused"]
    assert {event.name.value for event in told.events} == {"operation.refused"}


def test_without_an_outcome_it_may_have_run() -> None:
    """Claiming that it did not would be a lie that a crash can tell."""
    told = Told().opened().operation("a", "forward").operation("b", "hold").frame(FrameKind.CLOSE, exit="closed")
    assert [said(event) for event in told.events] == [
        ("operation.ran", "forward", "unknown", ""),
        ("operation.refused", "block", "refused", "approval_withdrawn"),
    ]


def test_a_long_text_in_several_frames_is_one_operation() -> None:
    """Attack: a text of many frames would count as many operations, or hide the first."""
    told = Told().opened()
    told.operation("a", "forward", part=0, parts=2).operation("a", "forward", part=1, parts=2)
    told.frame(FrameKind.OUTCOME, op="a", status="ok")
    assert [event.frame for event in told.events] == [2]
    told.operation("b", "block", part=0, parts=2).operation("b", "block", part=1, parts=2)
    assert [event.operation_id for event in told.events] == ["a", "b"]


def test_pipelining_without_end_fills_no_memory() -> None:
    """Attack: operations without outcomes; the oldest are told as unknown, and none is dropped."""
    told = Told().opened()
    for number in range(MAX_OPEN + 5):
        told.operation(f"op{number}", "forward")
    assert [said(event)[2] for event in told.events] == ["unknown"] * 5
    told.frame(FrameKind.CLOSE)
    assert len(told.events) == MAX_OPEN + 5


def test_the_events_can_be_made_again_from_the_stored_lines() -> None:
    """What a killed broker had not told is told from its segments, under the same uids."""
    told = Told().opened().operation("a", "forward").frame(FrameKind.OUTCOME, op="a", status="ok")
    again = OperationFold(WHO)
    frames = [
        Frame(seq=1, at=START, dir="ctl", kind=FrameKind.OPEN, text="", meta=(("chain", ["iss#root", "iss#child"]),)),
        Frame(seq=2, at=START, dir="c2s", kind=FrameKind.OPERATION, text="SELECT a",
              meta=(("op", "a"), ("verdict", "forward"), ("rules", ["r"]))),
        Frame(seq=3, at=START, dir="ctl", kind=FrameKind.OUTCOME, text="", meta=(("op", "a"), ("status", "ok"))),
    ]  # fmt: skip
    stored = [json.loads(frame.line(WHO)) for frame in frames]
    read = [
        Frame(
            seq=line["seq"],
            at=START,
            dir=line["dir"],
            kind=FrameKind(line["kind"]),
            text=line["text"],
            meta=tuple(json.loads(line["meta"]).items()),
        )
        for line in stored
    ]
    events = [told.event() for frame in read for told in again.take(frame)]
    assert [event.uid() for event in events] == [event.uid() for event in told.events]


def test_hostile_meta_is_nothing() -> None:
    """A frame of another version, or of nobody's: no exception, under the recording's lock least of all."""
    told = Told().frame(FrameKind.OPEN, chain="not a list", peer=7)
    told.frame(FrameKind.OPERATION, "x", op=7, verdict="forward").frame(FrameKind.OUTCOME, op=None, status=3)
    told.frame(FrameKind.OPERATION, "x", op="a", verdict=5, rules="abc", actions=[1, "sql:read"])
    told.frame(FrameKind.OUTCOME, op="a", status="ok", rows=-1, tag=[])
    (event,) = told.events
    assert event.operated is not None
    assert (event.rules, event.operated.actions, event.operated.row_count) == ((), ("sql:read",), 0)


def test_a_number_that_no_column_holds_is_none() -> None:
    """Attack: a target says that it sent 2**64 rows, and the object with everybody's events can be read by nobody."""
    told = Told().opened().operation("a", "forward", configuration_serial=1 << 63)
    told.frame(FrameKind.OUTCOME, op="a", status="ok", rows=1 << 63, bytes=(1 << 63) - 1)
    row = told.events[0].row(writer="w", number=0)
    assert checked_row(row) is row
    assert (row.get("row_count"), row["byte_count"]) == (None, (1 << 63) - 1)


def test_what_waits_to_be_told_holds_no_binds() -> None:
    """Attack: megabytes of binds with each statement, kept for ten seconds where the queue counts their text alone."""
    fold = OperationFold(WHO)
    meta: tuple[tuple[str, Json], ...] = (("op", "a"), ("verdict", "block"), ("binds", ["x" * 9999]), ("literals", []))
    frame = Frame(seq=1, at=START, dir="c2s", kind=FrameKind.OPERATION, text="SELECT $1", meta=meta)
    (told,) = fold.take(frame)
    assert "x" * 9999 not in repr(told)


TEXTS = st.text(max_size=MAX_FIELD + 9)
HOSTILE = TEXTS | st.integers() | st.booleans() | st.lists(TEXTS, max_size=3)
MEMBERS = (
    *(
        "verdict",
        "rules",
        "masks",
        "code",
        "policy_digest",
        "configuration_serial",
        "actions",
        "tables",
        "people",
        "ask",
    ),
    *("reads_masked", "status", "tag", "sqlstate", "rows", "bytes", "duration_ms"),
)
META = st.dictionaries(st.sampled_from(MEMBERS), HOSTILE)


@given(TEXTS, META, META, META, st.sampled_from(["forward", "hold", "block"]), TEXTS.filter(bool))
def test_a_row_is_its_events_row(
    text: str, began: dict[str, Any], answered: dict[str, Any], ended: dict[str, Any], verdict: str, op: str
) -> None:
    """It is written without the event between: a column that said another thing would be a second truth."""
    fold = OperationFold(WHO)
    frames: tuple[tuple[FrameKind, dict[str, Any]], ...] = (
        (FrameKind.OPEN, {"chain": [text], "peer": text}),
        (FrameKind.OPERATION, {**began, "op": op, "verdict": verdict}),
        (FrameKind.ANSWERED, {**answered, "op": op}),
        (FrameKind.VERDICT if verdict == "hold" else FrameKind.HELD, {**answered, "op": op}),
        (FrameKind.OUTCOME, {**ended, "op": op}),
        (FrameKind.CLOSE, {}),
    )
    told: list[ToldOperation] = []
    for seq, (kind, meta) in enumerate(frames):
        told += fold.take(Frame(seq=seq, at=START, dir="ctl", kind=kind, text=text, meta=tuple(meta.items())))
    (one,) = told
    try:
        row = one.event().row(writer="w", number=1, segment="s")
    except UnicodeEncodeError:  # an operation's id is ours: it has no half of a surrogate pair
        return
    assert one.row(writer="w", number=1, segment="s") == row
