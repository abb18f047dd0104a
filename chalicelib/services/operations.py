"""What was done on a connection, told from its frames: each operation with its last verdict and its outcome.

Rules: a frame is whatever JSON object the bucket holds, so nothing in it is believed to have its type; a frame of
an operation that no frame opened is left out here, and stays in the recording. Whether the frames themselves hold is
``recordings``'s to say. Pure. Source: ``docs/data_schema.md``, "Recording".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.recording import FrameKind
from chalicelib.services.reviewed import ReviewedOperation


def operations_of(
    row: ConnectionRow, frames: Sequence[Mapping[str, Any]], *, recorded: bool
) -> tuple[ReviewedOperation, ...]:
    """Return the operations in ``frames``, in order. ``recorded``: the frames are in segments that verify."""
    found: dict[str, ReviewedOperation] = {}
    for frame in frames:
        meta = meta_of(frame)
        op = str(meta.get("op", ""))
        kind = frame.get("kind")
        if kind == FrameKind.OPERATION and op not in found:
            found[op] = _operation(row, frame, meta, recorded=recorded)
        elif op in found:
            found[op] = _told(found[op], str(kind), frame, meta)
    return tuple(found.values())


def meta_of(frame: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a frame's ``meta`` holds; nothing where it is no JSON object."""
    return json_object(str(frame.get("meta", "")).encode("utf-8", "backslashreplace")) or {}


def json_object(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``text``; None where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def moment_of(value: object, otherwise: datetime) -> datetime:
    """Return the moment that ``value`` states, aware; ``otherwise`` where it states none."""
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return otherwise
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


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
    )


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
                code=str(meta.get("code", "")),
                rules=_texts(meta.get("rules")),
            )
        case FrameKind.OUTCOME:
            return replace(
                op,
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
