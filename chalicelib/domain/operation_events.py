"""Operations become events: one an operation, by a fold over the frames of its recording.

So an event says nothing that the recording does not, and can be made again from the segments alone, with the same uid:
what a killed broker had not written yet is not lost. Rules: the first frame (``open``) says who and where; an operation
that is refused is told at once, one that runs once its outcome is known, or with outcome ``unknown`` when the recording
ends without one. At most ``MAX_OPEN`` are kept waiting: past it the oldest is told with what is known.
The fold runs under the recording's lock, before the operation is sent: it keeps what an event needs, and the event is
made when somebody writes it (:meth:`ToldOperation.event`).
Memory only, one thread at a time, never raises on a frame that it does not know.
Source: architecture, "An operation", "Holding"; ``docs/data_schema.md``, Recording.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from chalicelib.domain.audit import (
    MAX_SHOWN,
    NOBODY,
    Acting,
    AuditEvent,
    AuditName,
    Operated,
    bounded,
    classify,
    fact_uid,
    listed,
    row_of,
    said_of_connection,
)
from chalicelib.domain.canonical import Json
from chalicelib.domain.recording import Frame, FrameKind, RecordedAs

MAX_OPEN: Final = 1024  # operations of one connection without an outcome: more is a client that pipelines to exhaust us
UNKNOWN: Final = "unknown"
_REFUSED: Final = "refused"
_RUNS: Final = ("forward", "mask")
# A number's column in Athena: a target that says it sent more rows than that would spoil an object of all events.
_BIGINT: Final = 1 << 63
_OF_HELD: Final = frozenset({FrameKind.HELD, FrameKind.ANSWERED, FrameKind.VERDICT})
_UNTOLD: Final = frozenset({"binds", "literals"})  # in the recording alone; binds may be large, and an event waits
_CODE: Final = re.compile(r"[a-z_]{1,64}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Where:
    """What the first frame said of the connection."""

    acting: Acting = NOBODY
    peer: str = ""


@dataclass(slots=True)
class ToldOperation:
    """An operation, and what became of it so far. Once the fold has given it, nothing changes it any more."""

    who: RecordedAs
    where: _Where
    frame: int
    at: datetime
    text: str
    meta: Mapping[str, Json]  # its frame's, less what no event says
    name: AuditName = AuditName.OPERATION_RAN
    code: str = ""
    last_word: Mapping[str, Json] = field(default_factory=dict)  # the meta of a held operation's verdict
    ask_id: str = ""
    people: tuple[str, ...] = ()
    ended: Mapping[str, Json] = field(default_factory=dict)  # the meta of its outcome

    @property
    def verdict(self) -> str:
        return _text(self.last_word or self.meta, "verdict")

    @property
    def size(self) -> int:
        """How many characters of it a client or a target chose."""
        return len(self.text) + len(_text(self.ended, "tag"))

    def event(self) -> AuditEvent:
        """Return its event. Pure."""
        who, meta, last_word, ended = self.who, self.meta, self.last_word, self.ended
        refused = self.name is AuditName.OPERATION_REFUSED
        return AuditEvent(
            name=self.name,
            at=self.at,
            txn=who.txn,
            session_id=who.session_id,
            connection_id=who.connection_id,
            actor=who.actor,
            target=who.target,
            principal=who.principal,
            peer=self.where.peer,
            acting=self.where.acting,
            ask_id=self.ask_id,
            people=self.people,
            code=self.code,
            verdict="block" if refused else self.verdict,
            rules=_texts(last_word, "rules") or _texts(meta, "rules"),
            policy_digest=_text(meta, "policy_digest"),
            configuration_serial=_number(last_word, "configuration_serial") or _number(meta, "configuration_serial"),
            frame=self.frame,
            operation_id=_text(meta, "op"),
            protocol=who.protocol,
            operated=Operated(
                actions=_texts(meta, "actions"),
                text=self.text,
                masks=_texts(last_word or meta, "masks"),
                tables=_texts(meta, "tables"),
                reads_masked=meta.get("reads_masked") is True,
                outcome=_REFUSED if refused else _text(ended, "status"),
                tag=_text(ended, "tag"),
                sqlstate=_text(ended, "sqlstate"),
                row_count=_number(ended, "rows"),
                byte_count=_number(ended, "bytes"),
                duration_ms=_number(ended, "duration_ms"),
            ),
        )

    def row(self, *, writer: str, number: int, segment: str) -> dict[str, Json]:
        """Return ``self.event().row(...)``. Pure. A broker makes one for each statement: without an event between, in
        half the time."""
        who, meta, last_word, ended = self.who, self.meta, self.last_word, self.ended
        refused = self.name is AuditName.OPERATION_REFUSED
        op, actions = _text(meta, "op"), _texts(meta, "actions")
        said: dict[str, Json] = {
            "code": bounded(self.code),
            **said_of_connection(
                who.txn,
                self.where.acting,
                who.actor,
                who.session_id,
                who.connection_id,
                who.target,
                who.principal,
                who.protocol,
                self.where.peer,
            ),
            "operation_id": bounded(op),
            "ask_ids": listed((self.ask_id,) if self.ask_id else ()),
            "people": listed(self.people),
            "verdict": "block" if refused else bounded(self.verdict),
            "rules": listed(_texts(last_word, "rules") or _texts(meta, "rules")),
            "policy_digest": bounded(_text(meta, "policy_digest")),
            "configuration_serial": _number(last_word, "configuration_serial") or _number(meta, "configuration_serial"),
            "actions": listed(actions),
            "text": bounded(self.text, MAX_SHOWN),
            "masks": listed(_texts(last_word or meta, "masks")),
            "tables": listed(_texts(meta, "tables")),
            "reads_masked": meta.get("reads_masked") is True,
            "outcome": _REFUSED if refused else bounded(_text(ended, "status")),
            "tag": bounded(_text(ended, "tag")),
            "sqlstate": bounded(_text(ended, "sqlstate")),
            "row_count": _number(ended, "rows"),
            "byte_count": _number(ended, "bytes"),
            "duration_ms": _number(ended, "duration_ms"),
            "frame": self.frame,
            "segment": segment,
        }
        uid = fact_uid("operation", who.connection_id, op)
        classified = classify(self.name, who.protocol, actions)
        return row_of(self.name, self.at, uid, classified, said, writer=writer, number=number)


class OperationFold:
    """One connection's frames, in order, to the events of its operations."""

    def __init__(self, who: RecordedAs) -> None:
        self._who = who
        self._where = _Where()
        self._open: dict[str, ToldOperation] = {}

    def take(self, frame: Frame) -> Sequence[ToldOperation]:
        """Return the operations whose last word this frame is: mostly none, or one."""
        kind = frame.kind
        if kind is FrameKind.OUTCOME:
            return self._ended(dict(frame.meta))
        if kind is FrameKind.OPERATION:
            return self._began(frame)
        if kind in _OF_HELD:
            return self._held(frame)
        if kind is FrameKind.OPEN:
            self._where = _where(self._who, dict(frame.meta))
        elif kind is FrameKind.CLOSE:
            left, self._open = self._open, {}
            return [_without_outcome(begun) for begun in left.values()]
        return ()

    def _began(self, frame: Frame) -> Sequence[ToldOperation]:
        meta = {name: value for name, value in frame.meta if name not in _UNTOLD}
        op = _text(meta, "op")
        if not op or op in self._open or _number(meta, "part"):  # a long text takes several frames: the first tells it
            return ()
        begun = ToldOperation(self._who, self._where, frame.seq, frame.at, frame.text, meta)
        if begun.verdict == "block":
            return [_refused(begun, _text(meta, "code"))]
        self._open[op] = begun
        if len(self._open) > MAX_OPEN:
            return [_without_outcome(self._open.pop(next(iter(self._open))))]
        return ()

    def _held(self, frame: Frame) -> Sequence[ToldOperation]:
        meta = dict(frame.meta)
        op = _text(meta, "op")
        begun = self._open.get(op)
        if begun is None:
            return ()
        begun.ask_id = _text(meta, "ask") or begun.ask_id
        if frame.kind is FrameKind.ANSWERED:
            begun.people = _texts(meta, "people")
        if frame.kind is not FrameKind.VERDICT:
            return ()
        begun.last_word = meta
        if begun.verdict in _RUNS:
            return ()
        return [_refused(self._open.pop(op), _text(meta, "code"))]

    def _ended(self, meta: Mapping[str, Json]) -> Sequence[ToldOperation]:
        begun = self._open.pop(_text(meta, "op"), None)
        if begun is None:
            return ()
        begun.ended = meta
        if _text(meta, "status") == _REFUSED:
            # Let through and not sent after all: its tag is a code of ours, or words that say why.
            tag = _text(meta, "tag")
            return [_refused(begun, tag if _CODE.match(tag) else _REFUSED)]
        return [begun]


def _refused(begun: ToldOperation, code: str) -> ToldOperation:
    begun.name = AuditName.OPERATION_REFUSED
    begun.code = code or _REFUSED
    return begun


def _without_outcome(begun: ToldOperation) -> ToldOperation:
    """What was still held never ran; what was let through may have."""
    if begun.verdict not in _RUNS:
        return _refused(begun, "approval_withdrawn")
    begun.ended = {"status": UNKNOWN}
    return begun


def _where(who: RecordedAs, meta: Mapping[str, Json]) -> _Where:
    acting = Acting(
        originator=who.originator,
        chain=_texts(meta, "chain"),
        hop=_text(meta, "target_hop"),
        assurance=_text(meta, "assurance"),
    )
    return _Where(acting=acting, peer=_text(meta, "peer"))


def _text(meta: Mapping[str, Json], name: str) -> str:
    found = meta.get(name, "")
    return found if isinstance(found, str) else ""


def _number(meta: Mapping[str, Json], name: str) -> int:
    found = meta.get(name, 0)
    return found if isinstance(found, int) and 0 <= found < _BIGINT else 0


def _texts(meta: Mapping[str, Json], name: str) -> tuple[str, ...]:
    found = meta.get(name)
    if not found or not isinstance(found, list | tuple):
        return ()
    return tuple([item for item in found if isinstance(item, str)])
