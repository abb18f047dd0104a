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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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


class OperationFold:
    """One connection's frames, in order, to the events of its operations."""

    def __init__(self, who: RecordedAs) -> None:
        self._who = who
        self._where = _Where()
        self._open: dict[str, AuditEvent] = {}

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
                yield from (_without_outcome(event) for event in left)
            case _:
                return

    def _began(self, frame: Frame, meta: Mapping[str, Json]) -> Iterator[AuditEvent]:
        op = _text(meta, "op")
        if not op or op in self._open or _number(meta, "part"):  # a long text takes several frames: the first tells it
            return
        event = self._event(frame, meta, op)
        if event.verdict == "block":
            yield _refused(event, _text(meta, "code"))
            return
        self._open[op] = event
        if len(self._open) > MAX_OPEN:
            yield _without_outcome(self._open.pop(next(iter(self._open))))

    def _held(self, frame: Frame, meta: Mapping[str, Json]) -> Iterator[AuditEvent]:
        op = _text(meta, "op")
        event = self._open.get(op)
        if event is None:
            return
        event = replace(event, ask_id=_text(meta, "ask") or event.ask_id)
        if frame.kind is FrameKind.ANSWERED:
            event = replace(event, people=_texts(meta, "people"))
        if frame.kind is FrameKind.VERDICT:
            event = replace(event, verdict=_text(meta, "verdict"), rules=_texts(meta, "rules") or event.rules)
            if event.operated is not None:
                event = replace(event, operated=replace(event.operated, masks=_texts(meta, "masks")))
            serial = _number(meta, "configuration_serial") or event.configuration_serial
            event = replace(event, configuration_serial=serial)
        if frame.kind is FrameKind.VERDICT and event.verdict not in _RUNS:
            self._open.pop(op)
            yield _refused(event, _text(meta, "code"))
            return
        self._open[op] = event

    def _ended(self, meta: Mapping[str, Json]) -> Iterator[AuditEvent]:
        event = self._open.pop(_text(meta, "op"), None)
        if event is None or event.operated is None:
            return
        status = _text(meta, "status")
        done = replace(
            event.operated,
            outcome=status,
            tag=_text(meta, "tag"),
            sqlstate=_text(meta, "sqlstate"),
            row_count=_number(meta, "rows"),
            byte_count=_number(meta, "bytes"),
            duration_ms=_number(meta, "duration_ms"),
        )
        if status == _REFUSED:
            # Let through and not sent after all: its tag is a code of ours, or words that say why.
            yield _refused(replace(event, operated=done), done.tag if _CODE.match(done.tag) else _REFUSED)
        else:
            yield replace(event, operated=done)

    def _event(self, frame: Frame, meta: Mapping[str, Json], op: str) -> AuditEvent:
        return AuditEvent(
            name=AuditName.OPERATION_RAN,
            at=frame.at,
            txn=self._who.txn,
            session_id=self._who.session_id,
            connection_id=self._who.connection_id,
            actor=self._who.actor,
            target=self._who.target,
            principal=self._who.principal,
            peer=self._where.peer,
            acting=self._where.acting,
            verdict=_text(meta, "verdict"),
            rules=_texts(meta, "rules"),
            policy_digest=_text(meta, "policy_digest"),
            configuration_serial=_number(meta, "configuration_serial"),
            frame=frame.seq,
            operation_id=op,
            protocol=self._who.protocol,
            operated=Operated(
                actions=_texts(meta, "actions"),
                text=frame.text,
                masks=_texts(meta, "masks"),
                tables=_texts(meta, "tables"),
                reads_masked=meta.get("reads_masked") is True,
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


def _refused(event: AuditEvent, code: str) -> AuditEvent:
    done = replace(event.operated, outcome=_REFUSED) if event.operated else None
    return replace(event, name=AuditName.OPERATION_REFUSED, verdict="block", code=code or _REFUSED, operated=done)


def _without_outcome(event: AuditEvent) -> AuditEvent:
    """What was still held never ran; what was let through may have."""
    if event.verdict not in _RUNS:
        return _refused(event, "approval_withdrawn")
    return replace(event, operated=replace(event.operated, outcome=UNKNOWN) if event.operated else None)


def _text(meta: Mapping[str, Json], name: str) -> str:
    found = meta.get(name, "")
    return found if isinstance(found, str) else ""


def _number(meta: Mapping[str, Json], name: str) -> int:
    found = meta.get(name, 0)
    return found if isinstance(found, int) and found >= 0 else 0


def _texts(meta: Mapping[str, Json], name: str) -> tuple[str, ...]:
    found = meta.get(name, ())
    if isinstance(found, str) or not isinstance(found, Sequence):
        return ()
    return tuple(item for item in found if isinstance(item, str))
