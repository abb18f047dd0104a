"""Operations become events: one an operation, by a fold over the frames of its recording.

So an event says nothing that the recording does not, and can be made again from the segments alone, with the same uid:
what a killed broker had not written yet is not lost. Rules: the first frame (``open``) says who and where; an operation
that is refused is told at once, one that runs once its outcome is known, or with outcome ``unknown`` when the recording
ends without one. At most ``MAX_OPEN`` are kept waiting: past it the oldest is told with what is known.
Memory only, one thread at a time, never raises on a frame that it does not know.
Source: architecture, "An operation", "Holding"; ``docs/data_schema.md``, Recording.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.audit import NOBODY, Acting, AuditEvent, AuditName, Operated
from chalicelib.domain.canonical import Json
from chalicelib.domain.recording import Frame, FrameKind, RecordedAs

MAX_OPEN: Final = 1024  # operations of one connection without an outcome: more is a client that pipelines to exhaust us
UNKNOWN: Final = "unknown"
_REFUSED: Final = "refused"
_RUNS: Final = ("forward", "mask")
_CODE: Final = re.compile(r"[a-z_]{1,64}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Where:
    """What the first frame said of the connection."""

    acting: Acting = NOBODY
    peer: str = ""


@dataclass(kw_only=True, slots=True)
class _Begun:
    """An operation without an outcome, and what became of it so far: its event is made once, when all is known."""

    frame: Frame
    meta: Mapping[str, Json]
    verdict: str
    rules: tuple[str, ...]
    masks: tuple[str, ...]
    configuration_serial: int
    ask_id: str = ""
    people: tuple[str, ...] = ()


class OperationFold:
    """One connection's frames, in order, to the events of its operations."""

    def __init__(self, who: RecordedAs) -> None:
        self._who = who
        self._where = _Where()
        self._open: dict[str, _Begun] = {}

    def take(self, frame: Frame) -> tuple[AuditEvent, ...]:
        """Return the events that are complete with this frame: mostly none, or one."""
        return tuple(self._taken(frame, dict(frame.meta)))

    def _taken(self, frame: Frame, meta: Mapping[str, Json]) -> Iterator[AuditEvent]:
        match frame.kind:
            case FrameKind.OPEN:
                self._where = _where(self._who, meta)
            case FrameKind.OPERATION:
                yield from self._began(frame, meta)
            case FrameKind.HELD | FrameKind.ANSWERED | FrameKind.VERDICT:
                yield from self._held(frame, meta)
            case FrameKind.OUTCOME:
                yield from self._ended(meta)
            case FrameKind.CLOSE:
                left, self._open = list(self._open.values()), {}
                yield from (self._without_outcome(begun) for begun in left)
            case _:
                return

    def _began(self, frame: Frame, meta: Mapping[str, Json]) -> Iterator[AuditEvent]:
        op = _text(meta, "op")
        if not op or op in self._open or _number(meta, "part"):  # a long text takes several frames: the first tells it
            return
        begun = _Begun(
            frame=frame,
            meta=meta,
            verdict=_text(meta, "verdict"),
            rules=_texts(meta, "rules"),
            masks=_texts(meta, "masks"),
            configuration_serial=_number(meta, "configuration_serial"),
        )
        if begun.verdict == "block":
            yield self._refused(begun, _text(meta, "code"))
            return
        self._open[op] = begun
        if len(self._open) > MAX_OPEN:
            yield self._without_outcome(self._open.pop(next(iter(self._open))))

    def _held(self, frame: Frame, meta: Mapping[str, Json]) -> Iterator[AuditEvent]:
        op = _text(meta, "op")
        begun = self._open.get(op)
        if begun is None:
            return
        begun.ask_id = _text(meta, "ask") or begun.ask_id
        if frame.kind is FrameKind.ANSWERED:
            begun.people = _texts(meta, "people")
        if frame.kind is not FrameKind.VERDICT:
            return
        begun.verdict = _text(meta, "verdict")
        begun.rules = _texts(meta, "rules") or begun.rules
        begun.masks = _texts(meta, "masks")
        begun.configuration_serial = _number(meta, "configuration_serial") or begun.configuration_serial
        if begun.verdict not in _RUNS:
            yield self._refused(self._open.pop(op), _text(meta, "code"))

    def _ended(self, meta: Mapping[str, Json]) -> Iterator[AuditEvent]:
        begun = self._open.pop(_text(meta, "op"), None)
        if begun is None:
            return
        if _text(meta, "status") == _REFUSED:
            # Let through and not sent after all: its tag is a code of ours, or words that say why.
            tag = _text(meta, "tag")
            yield self._refused(begun, tag if _CODE.match(tag) else _REFUSED, meta)
        else:
            yield self._event(begun, AuditName.OPERATION_RAN, ended=meta)

    def _refused(self, begun: _Begun, code: str, ended: Mapping[str, Json] | None = None) -> AuditEvent:
        begun.verdict = "block"
        ended = {**(ended or {}), "status": _REFUSED}
        return self._event(begun, AuditName.OPERATION_REFUSED, code=code or _REFUSED, ended=ended)

    def _without_outcome(self, begun: _Begun) -> AuditEvent:
        """What was still held never ran; what was let through may have."""
        if begun.verdict not in _RUNS:
            return self._refused(begun, "approval_withdrawn")
        return self._event(begun, AuditName.OPERATION_RAN, ended={"status": UNKNOWN})

    def _event(self, begun: _Begun, name: AuditName, *, ended: Mapping[str, Json], code: str = "") -> AuditEvent:
        frame, meta = begun.frame, begun.meta
        return AuditEvent(
            name=name,
            at=frame.at,
            txn=self._who.txn,
            session_id=self._who.session_id,
            connection_id=self._who.connection_id,
            actor=self._who.actor,
            target=self._who.target,
            principal=self._who.principal,
            peer=self._where.peer,
            acting=self._where.acting,
            ask_id=begun.ask_id,
            people=begun.people,
            code=code,
            verdict=begun.verdict,
            rules=begun.rules,
            policy_digest=_text(meta, "policy_digest"),
            configuration_serial=begun.configuration_serial,
            frame=frame.seq,
            operation_id=_text(meta, "op"),
            protocol=self._who.protocol,
            operated=Operated(
                actions=_texts(meta, "actions"),
                text=frame.text,
                masks=begun.masks,
                tables=_texts(meta, "tables"),
                reads_masked=meta.get("reads_masked") is True,
                outcome=_text(ended, "status"),
                tag=_text(ended, "tag"),
                sqlstate=_text(ended, "sqlstate"),
                row_count=_number(ended, "rows"),
                byte_count=_number(ended, "bytes"),
                duration_ms=_number(ended, "duration_ms"),
            ),
        )


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
    return found if isinstance(found, int) and found >= 0 else 0


def _texts(meta: Mapping[str, Json], name: str) -> tuple[str, ...]:
    found = meta.get(name, ())
    if not isinstance(found, list | tuple):
        return ()
    return tuple([item for item in found if isinstance(item, str)])
