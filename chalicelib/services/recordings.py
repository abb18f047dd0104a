"""Reads a connection's recording back and checks it: manifest, segments, frames.

What is checked: the manifest is the one that the row names and is signed by the record key; each segment is there in
that very version, hashes to what the manifest says, names the hash of the one before; frames are numbered without holes
but for the gaps that the manifest admits. What does not hold is a finding; what can be read is read on: where no
manifest stands for a recording, as after a broker's death, what the bucket holds of it is shown, and never as verified.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.identifiers import ConnectionId, SessionId, Txn
from chalicelib.domain.recording import FrameKind, Gap, Manifest, Segment, segment_key
from chalicelib.domain.store import Objects
from chalicelib.services.reviewed import ReviewedOperation, ReviewedRecording

MAX_RAW: Final = 64 * 1024 * 1024  # a segment holds 256 KiB and one long text; more is not one of ours
_GZIP: Final = 16 + zlib.MAX_WBITS


@dataclass(kw_only=True, slots=True)
class Read:
    """What came out of one connection's recording."""

    recording: ReviewedRecording
    operations: tuple[ReviewedOperation, ...]
    findings: list[str] = field(default_factory=list)


def read_recording(
    objects: Objects, verify: Callable[[Manifest], None], row: ConnectionRow, leaf_hop_sha256: str
) -> Read:
    """Return what the recording of ``row`` holds. ``verify`` raises ProofInvalid where a manifest is not signed;
    ``leaf_hop_sha256`` is the hash of the row's target hop, empty where there is none.

    Raises StoreUnavailable; everything else that is wrong is a finding.
    """
    findings: list[str] = []
    manifest = _manifest(objects, verify, row, findings)
    if manifest is not None and manifest.leaf_hop_sha256 != leaf_hop_sha256:
        findings.append(f"{row.manifest_key} is of another chain than {row.id}")
    if manifest is not None:
        segments = len(manifest.segments)
        frames = _sealed_frames(objects, manifest, findings)
    else:
        segments, frames = _unsealed_frames(objects, row, findings)
    verified = manifest is not None and not findings
    if manifest is not None:
        _check_numbers(manifest, frames, row, findings)
    recording = ReviewedRecording(
        connection_id=row.id,
        peer=row.peer,
        opened_at=row.opened_at,
        sealed_at=row.sealed_at,
        exit=row.exit,
        manifest_key=row.manifest_key,
        segments=segments,
        frames=len(frames),
        gaps=manifest.gaps if manifest is not None else (),
        verified=verified and not findings,
    )
    return Read(recording=recording, operations=_operations(row, frames, recorded=verified), findings=findings)


def manifest_of(document: Mapping[str, Any]) -> Manifest:
    """Return the manifest that a stored document holds. Raises ProofInvalid where it is not one. Pure."""
    try:
        manifest = Manifest(
            session_id=SessionId(document["session"]),
            connection_id=ConnectionId(document["connection"]),
            txn=Txn(document["txn"]),
            leaf_hop_sha256=document["leaf_hop_sha256"],
            opened_at=datetime.fromisoformat(document["opened_at"]),
            closed_at=datetime.fromisoformat(document["closed_at"]),
            exit=document["exit"],
            segments=tuple(Segment(**segment) for segment in document["segments"]),
            gaps=tuple(Gap(**gap) for gap in document["gaps"]),
            policy_digest=document["policy_digest"],
            configuration_serial=document["configuration_serial"],
            broker_build=document["broker_build"],
            sealed_by=document["sealed_by"],
            signature=document["signature"],
        )
        said = {**manifest.signed(), "signature": manifest.signature}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProofInvalid("this is not a manifest") from error
    if said != document:  # the Merkle root among the rest: it is computed, and must be what was written
        raise ProofInvalid("the manifest does not add up")
    return manifest


def _manifest(
    objects: Objects, verify: Callable[[Manifest], None], row: ConnectionRow, findings: list[str]
) -> Manifest | None:
    if row.sealed_at is None:
        findings.append(f"{row.id} is not sealed: it is open, or its broker died and the sweeper has not come by")
        return None
    if not row.manifest_key:
        findings.append(f"{row.id} has no manifest: nothing was forwarded on it ({row.exit})")
        return None
    try:
        document = _object(objects.get(row.manifest_key))
        manifest = manifest_of(document if document is not None else {})
        verify(manifest)
    except (NotFound, ProofInvalid) as error:
        findings.append(f"{row.manifest_key}: {error.public}")
        return None
    same = (manifest.session_id, manifest.connection_id, manifest.txn) == (row.session_id, row.id, row.txn)
    if not same or manifest.sha256() != row.manifest_sha256:
        findings.append(f"{row.manifest_key} is not the manifest that {row.id} was sealed with")
    return manifest


def _sealed_frames(objects: Objects, manifest: Manifest, findings: list[str]) -> list[Mapping[str, Any]]:
    frames: list[Mapping[str, Any]] = []
    previous = ""
    for segment in manifest.segments:
        raw = _segment(objects, segment, findings)
        if raw is not None:
            frames += _frames(segment.key, raw, segment.number, previous, findings)
        previous = segment.sha256_raw
    return frames


def _unsealed_frames(objects: Objects, row: ConnectionRow, findings: list[str]) -> tuple[int, list[Mapping[str, Any]]]:
    """Return how many segments the bucket holds of a recording that no manifest vouches for, and their frames.

    Each segment names the hash of the one before, so the links are checked; that the last one is the last, is not.
    """
    frames: list[Mapping[str, Any]] = []
    previous = ""
    keys = sorted(objects.keys(segment_key(row.session_id, row.id, 0).rpartition("/")[0] + "/"))
    for number, key in enumerate(keys):
        try:
            raw = _unpacked(objects.get(key))
        except NotFound:
            continue
        frames += _frames(key, raw, number, previous, findings)
        previous = sha256_hex(raw)
    return len(keys), frames


def _frames(key: str, raw: bytes, number: int, previous: str, findings: list[str]) -> list[Mapping[str, Any]]:
    lines = raw.splitlines()
    header = _object(lines[0]) if lines else None
    if header is None or header.get("prev_sha256") != previous or header.get("number") != number:
        findings.append(f"{key} does not follow the segment before it")
    return [frame for line in lines[1:] if (frame := _object(line)) is not None]


def _segment(objects: Objects, segment: Segment, findings: list[str]) -> bytes | None:
    try:
        stored = objects.get(segment.key, segment.version_id or None)  # the broker may not have learnt the id
    except NotFound:
        findings.append(f"{segment.key} is missing")
        return None
    raw = _unpacked(stored)
    if sha256_hex(stored) != segment.sha256_stored or sha256_hex(raw) != segment.sha256_raw:
        findings.append(f"{segment.key} was changed: it does not hash to what the manifest says")
    return raw


def _unpacked(stored: bytes) -> bytes:
    """Return a segment's lines; nothing where it is no gzip: it then hashes to nothing that anybody wrote. Pure."""
    try:
        return zlib.decompressobj(_GZIP).decompress(stored, MAX_RAW)
    except zlib.error:
        return b""


def _check_numbers(
    manifest: Manifest, frames: Sequence[Mapping[str, Any]], row: ConnectionRow, findings: list[str]
) -> None:
    lost = {number for gap in manifest.gaps for number in range(gap.first, gap.last + 1)}
    seen = {frame.get("seq") for frame in frames}
    last = max([number for number in seen if isinstance(number, int)], default=0)
    missing = [number for number in range(1, last + 1) if number not in seen and number not in lost]
    if missing:
        findings.append(f"{row.id}: {len(missing)} frames are missing, the first is {missing[0]}")
    findings += [f"{row.id}: frames {gap.first} to {gap.last} were lost ({gap.why})" for gap in manifest.gaps]
    if any(frame.get("con") != row.id or frame.get("txn") != row.txn for frame in frames):
        findings.append(f"{row.id}: a frame belongs to another connection")


def _operations(
    row: ConnectionRow, frames: Sequence[Mapping[str, Any]], *, recorded: bool
) -> tuple[ReviewedOperation, ...]:
    found: dict[str, ReviewedOperation] = {}
    for frame in frames:
        meta = _object(str(frame.get("meta", "")).encode()) or {}
        op = str(meta.get("op", ""))
        kind = frame.get("kind")
        if kind == FrameKind.OPERATION and op not in found:
            found[op] = _operation(row, frame, meta, recorded=recorded)
        elif op in found:
            found[op] = _told(found[op], str(kind), frame, meta)
    return tuple(found.values())


def _operation(
    row: ConnectionRow, frame: Mapping[str, Any], meta: Mapping[str, Any], *, recorded: bool
) -> ReviewedOperation:
    return ReviewedOperation(
        id=str(meta["op"]),
        connection_id=row.id,
        at=_moment(frame.get("t"), row.opened_at),
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


def _object(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _moment(value: object, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        return otherwise
