"""What was done on a connection, told from its frames: each operation with its last verdict and its outcome.

Rules: a frame is whatever JSON object the bucket holds, so nothing in it is believed to have its type; a frame of
an operation that no frame opened is left out here, and stays in the recording. Whether the frames themselves hold is
``recordings``'s to say. Pure. Source: ``docs/data_schema.md``, "Recording".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.recording import FrameKind, left_out_of
from chalicelib.services.reviewed import ReviewedOperation

# A tuple: a hostile kind may be a list, which no set takes.
_TELL: Final = (FrameKind.OPERATION, FrameKind.HELD, FrameKind.VERDICT, FrameKind.OUTCOME)
_Scan: TypeAlias = Callable[[str, int], tuple[Any, int]]
_SCAN: Final[_Scan] = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed has it not: what json.loads calls


def operations_of(
    row: ConnectionRow, frames: Sequence[Mapping[str, Any]], *, recorded: bool
) -> tuple[ReviewedOperation, ...]:
    """Return the operations in ``frames``, in order. ``recorded``: the frames are in segments that verify."""
    found: dict[str, ReviewedOperation] = {}
    for frame in frames:
        kind = frame.get("kind")
        if kind not in _TELL:
            continue
        meta = meta_of(frame)
        op = str(meta.get("op", ""))
        if kind == FrameKind.OPERATION and op not in found:
            found[op] = _operation(row, frame, meta, recorded=recorded)
        elif op in found:
            found[op] = _told(found[op], str(kind), frame, meta)
    return tuple(found.values())


def meta_of(frame: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a frame's ``meta`` holds; nothing where it is no JSON object."""
    try:
        found = _parsed(str(frame.get("meta", "")))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def json_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``text``; None where it is none."""
    try:
        # What begins so is UTF-8, which ``json.loads`` takes as long to find out as to read a frame.
        found = _parsed(text.decode("utf-8", "surrogatepass")) if text.startswith(b'{"') else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _parsed(text: str) -> Any:
    """Return what ``json.loads`` returns, and raise what it raises. A text without white space around it, which is what
    we write, takes no search for any: of a short frame that is a third."""
    try:
        found, end = _SCAN(text, 0)
    except StopIteration:
        return json.loads(text)
    return found if end == len(text) else json.loads(text)


def moment_of(value: object, otherwise: datetime) -> datetime:
    """Return the moment that ``value`` states, in UTC; ``otherwise`` where it states none."""
    try:
        found = datetime.fromisoformat(str(value))
        if found.tzinfo is UTC:
            return found
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: year 1 east of Greenwich
        return otherwise


def _operation(
    row: ConnectionRow, frame: Mapping[str, Any], meta: Mapping[str, Any], *, recorded: bool
) -> ReviewedOperation:
    return ReviewedOperation(
        id=str(meta.get("op", "")),
        connection_id=row.id,
        at=moment_of(frame.get("t"), row.opened_at),
        text=str(frame.get("text", "")),
        actions=_texts(meta.get("actions")),
        binds=_texts(meta.get("binds")),
        held=meta.get("verdict") == "hold",
        verdict=str(meta.get("verdict", "")),
        code=str(meta.get("code", "")),
        rules=_texts(meta.get("rules")),
        ask_id="",
        approvals=(),
        status="",
        tag="",
        rows=0,
        sqlstate="",
        duration_ms=0,
        recorded=recorded,
        configuration_serial=serial_of(meta, 0),
    )


def serial_of(meta: Mapping[str, Any], otherwise: int) -> int:
    """Return the configuration's serial that a frame states; ``otherwise`` where it states none."""
    stated = meta.get("configuration_serial")
    return stated if type(stated) is int and stated > 0 else otherwise


def _told(op: ReviewedOperation, kind: str, frame: Mapping[str, Any], meta: Mapping[str, Any]) -> ReviewedOperation:
    match kind:
        case FrameKind.OPERATION:  # a long text is several frames
            return replace(op, text=op.text + str(frame.get("text", "")))
        case FrameKind.HELD:
            return replace(op, held=True, ask_id=str(meta.get("ask", "")))
        case FrameKind.VERDICT:
            return replace(
                op,
                verdict=str(meta.get("verdict", "")),
                configuration_serial=serial_of(meta, op.configuration_serial),
                code=str(meta.get("code", "")),
                rules=_texts(meta.get("rules")),
            )
        case FrameKind.OUTCOME:
            left = left_out_of(meta)
            return replace(
                op,
                left_rows=op.left_rows + left.rows,
                left_bytes=op.left_bytes + left.bytes,
                status=str(meta.get("status", "")),
                tag=str(meta.get("tag", "")),
                rows=_number(meta.get("rows")),
                sqlstate=str(meta.get("sqlstate", "")),
                duration_ms=_number(meta.get("duration_ms")),
            )
        case _:
            return op


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
