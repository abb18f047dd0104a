"""Reads a connection's recording back and checks it: manifest, segments, frames.

What is checked: the manifest is the one that the row names and is signed by the record key; each segment is there in
that very version, hashes to what the manifest says, names the hash of the one before; frames are numbered without holes
but for the gaps that the manifest admits. What does not hold is a finding that names the object; what can be read is
read on: where no manifest stands for a recording, as after a broker's death, what the bucket holds of it is shown, and
never as verified. A long recording is read ahead, a few segments at once; what its results say is neither parsed nor
kept unless ``texts`` asks for it, so that verifying 10 GB takes no more memory than 1 MB.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.identifiers import ConnectionId, SessionId, Txn
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.recording import (
    MANIFEST_SIGNATURE_TYPE,
    NOTHING_LEFT_OUT,
    FrameKind,
    Gap,
    LeftOut,
    Manifest,
    Segment,
    left_out_of,
    manifest_key,
    segment_key,
)
from chalicelib.domain.store import Keys
from chalicelib.identity.jws import manifest_purpose
from chalicelib.services.operations import json_object, meta_of, operations_of
from chalicelib.services.reviewed import Finding, FindingKind, ReviewedOperation, ReviewedRecording
from chalicelib.services.signatures import signature_finding
from chalicelib.services.stored_segments import Tombstone, found_in, number_of, unpacked

# Segments on their way at once: gunzip and hashes leave the interpreter's lock, and a GET takes 20 ms in one region.
# In memory at once: as many of 8 MiB at the very most, which is what a broker behind a slow bucket puts into one.
_READ_AHEAD: Final = 8
# What stands between is a string, in which no quote stands by itself: a member that looks so is one.
_RESULT: Final = re.compile(
    rb'\{"v":\d+,"sid":("[^"\\]*"),"con":("[^"\\]*"),"seq":(\d{1,15}),"t":"[^"\\]*","proto":"[^"\\]*",'
    rb'"dir":"s2c","kind":"(rows|data)",'
)
_WHAT_ENDS: Final = 1 << 62  # later than any frame: a gap that nobody knows the end of


@dataclass(kw_only=True, slots=True)
class Read:
    """What came out of one connection's recording. ``objects`` are the keys that it accounts for."""

    recording: ReviewedRecording
    frames: Sequence[Mapping[str, Any]]
    operations: tuple[ReviewedOperation, ...]
    objects: frozenset[str]
    findings: list[Finding] = field(default_factory=list)


def read_recording(
    objects: ReadObjects, keys: Keys, row: ConnectionRow, leaf_hop_sha256: str, *, texts: bool = True
) -> Read:
    """Return what the recording of ``row`` holds. ``leaf_hop_sha256`` is the hash of the row's target hop, empty where
    there is none. ``texts`` False: frames of results and output, in segments that verify, have number and ids alone.

    Raises StoreUnavailable; everything else that is wrong is a finding.
    """
    findings: list[Finding] = []
    manifest = _manifest(objects, keys, row, findings)
    if manifest is not None:
        _check_row(manifest, row, leaf_hop_sha256, findings)
        accounted = [segment.key for segment in manifest.segments]
        frames = _sealed_frames(objects, manifest, findings, texts=texts)
    else:
        accounted, frames = _unsealed_frames(objects, row, findings)
    verified = manifest is not None and not findings
    if manifest is not None:
        _check_numbers(manifest, frames, row, findings)
        _check_left_out(manifest, frames, findings)
    if any(
        (frame.get("sid"), frame.get("con"), frame.get("txn")) != (row.session_id, row.id, row.txn) for frame in frames
    ):
        findings.append(_finding(row.id, FindingKind.SWAPPED, "holds a frame of another connection"))
    recording = ReviewedRecording(
        connection_id=row.id,
        target_hop=row.target_hop,
        peer=row.peer,
        opened_at=row.opened_at,
        sealed_at=row.sealed_at,
        exit=row.exit,
        manifest_key=row.manifest_key,
        segments=len(accounted),
        frames=len(frames),
        gaps=manifest.gaps if manifest is not None else (),
        sealed_by=manifest.sealed_by if manifest is not None else "",
        verified=verified and not findings,
    )
    return Read(
        recording=recording,
        frames=frames,
        operations=operations_of(row, frames, recorded=verified),
        objects=frozenset((*accounted, row.manifest_key)),
        findings=findings,
    )


def manifest_of(stored: bytes) -> Manifest:
    """Return the manifest that an object holds. Raises ProofInvalid where it is not one, byte for byte. Pure."""
    document = json_object(stored) or {}
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
            left_out=_left_out(document.get("left_out")),
            signature=document["signature"],
        )
        said = canonical({**manifest.signed(), "signature": manifest.signature})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ProofInvalid("is not a manifest") from error
    if said != stored:  # the Merkle root among the rest: it is computed, and must be what was written
        raise ProofInvalid("does not add up: it is not what a broker wrote")
    return manifest


def _left_out(told: Any) -> LeftOut:
    if told is None:
        return NOTHING_LEFT_OUT
    return LeftOut(outcomes=told["outcomes"], rows=told["rows"], bytes=told["bytes"])


def _manifest(objects: ReadObjects, keys: Keys, row: ConnectionRow, findings: list[Finding]) -> Manifest | None:
    if row.sealed_at is None:
        what = "is not sealed: it is open, or its broker died and the sweeper has not come by"
        findings.append(_finding(row.id, FindingKind.UNSEALED, what))
        return None
    if not row.manifest_key:
        what = f"has no manifest: nothing was forwarded on it ({row.exit})"
        findings.append(_finding(row.id, FindingKind.UNSEALED, what))
        return None
    try:
        manifest = manifest_of(objects.get(row.manifest_key))
    except NotFound:
        findings.append(_finding(row.manifest_key, FindingKind.MISSING, "is missing"))
        return None
    except ProofInvalid as error:
        findings.append(_finding(row.manifest_key, FindingKind.ALTERED, error.public))
        return None
    unsigned = signature_finding(
        row.manifest_key,
        keys,
        manifest_purpose(manifest),
        MANIFEST_SIGNATURE_TYPE,
        manifest.signature,
        manifest.sha256(),
    )
    if unsigned is not None:
        findings.append(unsigned)
        return None
    return manifest


def _check_row(manifest: Manifest, row: ConnectionRow, leaf_hop_sha256: str, findings: list[Finding]) -> None:
    """Compare a manifest that its signature covers with the row that names it, which nothing covers by itself."""
    key = row.manifest_key
    if (manifest.session_id, manifest.connection_id, manifest.txn) != (row.session_id, row.id, row.txn):
        what = f"is the manifest of {manifest.connection_id} in {manifest.session_id}, not of {row.id}"
        findings.append(_finding(key, FindingKind.SWAPPED, what))
    elif manifest.sha256() != row.manifest_sha256:
        findings.append(_finding(key, FindingKind.REPLACED, f"is not the manifest that {row.id} was sealed with"))
    elif (manifest.exit, manifest.opened_at) != (row.exit, _to_milliseconds(row.opened_at)):
        what = f"says otherwise than its manifest: the row was altered ({row.exit}, not {manifest.exit})"
        findings.append(_finding(row.id, FindingKind.ALTERED, what))
    elif key != manifest_key(row.session_id, row.id, row.opened_at):
        findings.append(_finding(key, FindingKind.SWAPPED, f"is not where the manifest of {row.id} belongs"))
    if manifest.leaf_hop_sha256 != leaf_hop_sha256:
        findings.append(_finding(key, FindingKind.SWAPPED, f"is of another chain than {row.id}"))


def _to_milliseconds(moment: datetime) -> datetime:
    """Return the moment as it is signed (``domain.canonical.timestamp``)."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fetched:
    """What is at a segment's key."""

    stored: bytes
    raw: bytes
    whole: bool
    sha256_stored: str
    sha256_raw: str


def _sealed_frames(
    objects: ReadObjects, manifest: Manifest, findings: list[Finding], *, texts: bool
) -> list[Mapping[str, Any]]:
    frames: list[Mapping[str, Any]] = []
    previous: str | None = ""
    number = 0
    skipped = None if texts else _result_line(manifest)
    for segment, fetched in zip(manifest.segments, _fetched(objects, manifest), strict=True):
        if segment.number > number:
            previous = None  # the one before is in a gap, which the manifest names: nobody knows its hash
        before = len(findings)
        raw = _segment(manifest, segment, fetched, number, findings)
        if raw is not None and len(findings) == before:
            frames += _frames(segment.key, raw, segment.number, previous, findings, skipped)
        elif raw is not None:
            frames += _lines_after_header(raw)  # its links say nothing more: it is named already
        previous, number = segment.sha256_raw, segment.number + 1
    return frames


def _fetched(objects: ReadObjects, manifest: Manifest) -> Iterator[_Fetched | None]:
    """Give what is at each segment's key, in order; None where nothing is, or where the key is not its own."""

    def fetch(segment: Segment) -> _Fetched | None:
        if segment.key != segment_key(manifest.session_id, manifest.connection_id, segment.number):
            return None
        try:
            stored = objects.get(segment.key, segment.version_id or None)  # the broker may not have learnt the id
        except NotFound:
            return None
        raw, whole = unpacked(stored)
        return _Fetched(
            stored=stored, raw=raw, whole=whole, sha256_stored=sha256_hex(stored), sha256_raw=sha256_hex(raw)
        )

    if len(manifest.segments) <= _READ_AHEAD:
        yield from map(fetch, manifest.segments)
        return
    with ThreadPoolExecutor(max_workers=_READ_AHEAD, thread_name_prefix="segments") as readers:
        ahead: deque[Future[_Fetched | None]] = deque()
        for segment in manifest.segments:
            ahead.append(readers.submit(fetch, segment))
            if len(ahead) > _READ_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _segment(
    manifest: Manifest, segment: Segment, fetched: _Fetched | None, least: int, findings: list[Finding]
) -> bytes | None:
    """Return the lines of a segment; None where they are not its own, so that one finding says all of it. ``least`` is
    the lowest number that may stand at its place."""
    key = segment_key(manifest.session_id, manifest.connection_id, segment.number)
    if segment.number < least or segment.key != key:
        what = f"stands in the manifest at the place of segment {least} of {manifest.connection_id}"
        findings.append(_finding(segment.key, FindingKind.ORDER, what))
        return None
    if fetched is None:
        findings.append(_finding(segment.key, FindingKind.MISSING, "is missing"))
        return None
    if (fetched.sha256_stored, fetched.sha256_raw) == (segment.sha256_stored, segment.sha256_raw):
        return fetched.raw
    kind, what = _changed(manifest, segment, fetched)
    findings.append(_finding(segment.key, kind, what))
    return fetched.raw if kind is FindingKind.ALTERED else None


def _changed(manifest: Manifest, segment: Segment, fetched: _Fetched) -> tuple[FindingKind, str]:
    """Return what was done to a segment that does not hash to what its manifest says."""
    raw = fetched.raw
    for other in manifest.segments:
        if fetched.sha256_stored == other.sha256_stored:
            return FindingKind.ORDER, f"holds the bytes of segment {other.number}: segments were put in another order"
    header = json_object(raw.partition(b"\n")[0]) or {}
    owner = header.get("sid"), header.get("con")
    if header.get("kind") == "segment" and owner != (manifest.session_id, manifest.connection_id):
        return FindingKind.SWAPPED, f"holds a segment of {owner[1]} in {owner[0]}"
    if not fetched.whole or 0 < len(raw) < segment.raw_bytes:
        return FindingKind.TRUNCATED, f"was cut: {len(raw)} of {segment.raw_bytes} bytes are left"
    return FindingKind.ALTERED, "was changed: it does not hash to what the manifest says"


def _unsealed_frames(
    objects: ReadObjects, row: ConnectionRow, findings: list[Finding]
) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Return the segments that the bucket holds of a recording that no manifest vouches for, and their frames.

    Each segment names the hash of the one before, so the links are checked; that the last one is the last, is not. A
    tombstone is there before its manifest: whoever put it has not come to the end.
    """
    frames: list[Mapping[str, Any]] = []
    previous: str | None = ""
    expected = 0
    found = sorted(objects.keys(segment_key(row.session_id, row.id, 0).rpartition("/")[0] + "/"))
    for key in found:
        try:
            stored = objects.get(key)
        except NotFound:
            continue
        number = number_of(key)
        if number is not None and isinstance(found_in(row.session_id, row.id, number, stored), Tombstone):
            previous, expected = None, number + 1
            continue
        raw, _ = unpacked(stored)
        frames += _frames(key, raw, expected, previous, findings)
        previous, expected = sha256_hex(raw), (expected if number is None else number) + 1
    return found, frames


def _frames(
    key: str,
    raw: bytes,
    number: int,
    previous: str | None,
    findings: list[Finding],
    skipped: _ResultLine | None = None,
) -> list[Mapping[str, Any]]:
    """Return the frames in a segment's lines. ``previous`` is the hash that they must name, if it is known."""
    header = json_object(raw[: end if (end := raw.find(b"\n")) >= 0 else len(raw)])
    if header is None or header.get("number") != number or previous not in (None, header.get("prev_sha256")):
        findings.append(_finding(key, FindingKind.ORDER, "does not follow the segment before it"))
    return _lines_after_header(raw, skipped)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ResultLine:
    """What a frame of results holds in a segment of this connection that its broker wrote."""

    sid: bytes
    con: bytes
    txn: bytes
    ids: Mapping[str, Any]


def _result_line(manifest: Manifest) -> _ResultLine:
    ids = {"sid": manifest.session_id, "con": manifest.connection_id, "txn": manifest.txn}
    sid, con, txn = (json.dumps(said).encode() for said in ids.values())
    return _ResultLine(sid=sid, con=con, txn=b',"txn":%b,"actor":' % txn, ids=ids)


def _result_in(raw: bytes, at: int, end: int, line: _ResultLine) -> dict[str, Any] | None:
    """Return number, kind and ids of the line there, if it is a frame of this connection's results: what a broker wrote
    is not parsed to be skipped."""
    found = _RESULT.match(raw, at, end)
    if found is None or (found[1], found[2]) != (line.sid, line.con) or raw.rfind(line.txn, at, end) < 0:
        return None
    return {"seq": int(found[3]), "kind": found[4].decode(), **line.ids}


def _lines_after_header(raw: bytes, skipped: _ResultLine | None = None) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    at = raw.find(b"\n") + 1
    while 0 < at < len(raw):
        end = raw.find(b"\n", at)
        end = len(raw) if end < 0 else end
        frame = _result_in(raw, at, end, skipped) if skipped is not None else None
        frame = frame or json_object(raw[at:end])
        if frame is not None:
            found.append(frame)
        at = end + 1
    return found


def _check_numbers(
    manifest: Manifest, frames: Sequence[Mapping[str, Any]], row: ConnectionRow, findings: list[Finding]
) -> None:
    count, first = _holes([number for frame in frames if isinstance(number := frame.get("seq"), int)], manifest.gaps)
    if count and not findings:  # else a segment that is named already held them
        findings.append(_finding(row.id, FindingKind.MISSING, f"lacks {count} frames, the first is {first}"))
    findings += [_finding(row.id, FindingKind.LOST, _lost(gap, manifest)) for gap in manifest.gaps]


def _check_left_out(manifest: Manifest, frames: Sequence[Mapping[str, Any]], findings: list[Finding]) -> None:
    """Compare what the manifest says was left out with what the frames say, unless some of them are missing anyway."""
    if findings or manifest.gaps:
        return
    outcomes = (frame for frame in frames if frame.get("kind") == FrameKind.OUTCOME)
    told = (left_out_of(meta_of(frame)) for frame in outcomes if '"left_out"' in str(frame.get("meta", "")))
    if sum(told, NOTHING_LEFT_OUT) != manifest.left_out:
        what = "says otherwise than its frames about what was left out of the record"
        findings.append(
            _finding(
                manifest_key(manifest.session_id, manifest.connection_id, manifest.opened_at), FindingKind.ALTERED, what
            )
        )


def _lost(gap: Gap, manifest: Manifest) -> str:
    if gap.last is None:
        return f"may lack frames from {gap.first} on: its broker died, and {manifest.sealed_by} sealed it ({gap.why})"
    return f"lost frames {gap.first} to {gap.last} ({gap.why})"


def _holes(seen: Sequence[int], gaps: Sequence[Gap]) -> tuple[int, int]:
    """Return how many numbers from 1 to the last seen are neither seen nor in a gap, and the first of them. By spans,
    since whoever made a copy chose the numbers. Pure."""
    last = max(seen, default=0)
    count = first = 0
    expected = 1
    lost = [(gap.first, _WHAT_ENDS if gap.last is None else gap.last) for gap in gaps]
    for start, end in sorted([(number, number) for number in seen] + lost):
        hole = min(start, last + 1) - expected
        if hole > 0:
            count, first = count + hole, first or expected
        expected = max(expected, end + 1)
    return count, first


def _finding(key: str, kind: FindingKind, what: str) -> Finding:
    return Finding(key=key, kind=kind, what=what)
