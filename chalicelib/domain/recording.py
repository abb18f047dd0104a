"""Frame, Segment, Recording, Manifest: the record of a connection, and what makes a change to it visible.

A Frame is one NDJSON line; a Segment is an immutable object of frames, gzip-compressed, whose first line names the
SHA-256 of the previous segment's uncompressed bytes; a Manifest lists the segments with a Merkle root (RFC 9162
section 2.1.1) and is signed. Keys: ``rec/v1/SESSION/CONNECTION/NNNNNN.ndjson.gz`` and
``manifests/v1/YYYY-MM-DD/SESSION/CONNECTION.json``.

A *tombstone* stands at a segment's key and holds no frame: whoever seals for a dead broker puts them at the keys that
it could still write, so that its own put is refused and it is fenced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final

from chalicelib.domain.canonical import Digested, Json, timestamp
from chalicelib.domain.identifiers import ConnectionId, SessionId, Txn

RECORDING_VERSION: Final = 1
MANIFEST_SIGNATURE_TYPE: Final = "countersign-manifest+jws"
SWEEPER: Final = "sweeper"  # ``sealed_by`` of what the sweeper sealed; a broker says ``broker:`` or ``restart:``
BROKER_LOST: Final = "broker_lost"  # ``exit`` of a connection whose broker died
RECORD_STATEMENTS: Final = "record:statements"  # ``why`` results were left out: target and policy say so
TAIL_GAP: Final = "tail_gap"  # ``why`` of a gap that nobody knows the end of: its broker died
# A broker has at most this many segments on their way, with numbers that follow each other: so whoever puts as many
# tombstones after the last segment has fenced it, whatever of it is still under way.
UPLOADS_AT_ONCE: Final = 8
# A busy connection writes thousands of lines a second; ``json.dumps`` with these arguments makes an encoder for each.
_ENCODED: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, check_circular=False).encode
_QUOTED: Final = json.encoder.encode_basestring
MAX_TEXT: Final = 64 * 1024  # a JSON SerDe row is at most 32 MB; a frame stays far below and is split by its writer


class FrameKind(StrEnum):
    """What a frame tells. Permanent names; ``meta`` by kind is documented in ``docs/data_schema.md``."""

    OPEN = "open"  # ctl: target, principal, target_hop, peer, grant, rules, policy_digest, configuration_serial, record
    CREDENTIAL = "credential"  # ctl: what the minted credential turned out to be: its kind and login, no secret
    OPERATION = "operation"  # c2s: text; op, actions, verdict, rules, policy_digest, configuration_serial, binds
    HELD = "held"  # ctl: op, ask, digest, needs
    ANSWERED = "answered"  # ctl: op, ask, state (approved, refused, expired, withdrawn), people
    VERDICT = "verdict"  # ctl: the last word on a held operation: op, ask, verdict, rules
    OUTCOME = "outcome"  # ctl: op, status (ok, error, refused, unknown), tag, rows, bytes, sqlstate, duration_ms
    ROWS = "rows"  # s2c: text is JSON lines, one array of strings or nulls a row, as the client saw them; op, columns
    NOTICE = "notice"  # s2c: text as the client saw it; severity, sqlstate
    DATA = "data"  # c2s or s2c: bytes of a stream (COPY, a terminal) as text; op, encoding, stream (stdout, stderr)
    TERMINAL = "terminal"  # ctl: a terminal was opened or resized: op, term, cols, rows
    CLOSE = "close"  # ctl: exit


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """One timestamped record. ``dir`` is ``c2s``, ``s2c`` or ``ctl``; ``meta`` holds what differs by ``kind``.

    Bytes recorded here are what the client sees: masked. Authentication phases are never recorded.
    """

    seq: int
    at: datetime
    dir: str
    kind: FrameKind
    text: str
    meta: tuple[tuple[str, Json], ...] = ()

    def line(self, who: RecordedAs) -> bytes:
        """Return the NDJSON line, newline included. ``meta`` is JSON text, so that one column fits all protocols."""
        begin, protocol, end = line_parts(who)
        meta = _QUOTED(_ENCODED(dict(self.meta)))
        return (
            f'{begin},"seq":{self.seq},"t":"{timestamp(self.at)}",{protocol},"dir":{_QUOTED(self.dir)}'
            f',"kind":"{self.kind.value}","text":{_QUOTED(self.text[:MAX_TEXT])},"meta":{meta},{end}\n'
        ).encode()


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftOut:
    """What was sent to the client and, as policy permits, not recorded: counted, as the client saw it.

    ``outcomes``: in how many outcome frames it is told; ``rows`` of tables (of COPY, messages); ``bytes`` of them, or
    of a command's output.
    """

    outcomes: int = 0
    rows: int = 0
    bytes: int = 0

    def __add__(self, other: LeftOut) -> LeftOut:
        return LeftOut(
            outcomes=self.outcomes + other.outcomes, rows=self.rows + other.rows, bytes=self.bytes + other.bytes
        )

    def told(self) -> Mapping[str, Json]:
        """Return it as an outcome frame's ``left_out``."""
        return {"rows": self.rows, "bytes": self.bytes, "why": RECORD_STATEMENTS}


NOTHING_LEFT_OUT: Final = LeftOut()


def left_out_of(meta: Mapping[str, Json]) -> LeftOut:
    """Return what an outcome frame's ``meta`` says was left out. Never raises: whoever reads a frame may read a forged
    one. Pure."""
    told = meta.get("left_out")
    if not isinstance(told, Mapping):
        return NOTHING_LEFT_OUT
    rows, size = (found if isinstance(found := told.get(name), int) else 0 for name in ("rows", "bytes"))
    return LeftOut(outcomes=1, rows=rows, bytes=size)


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedAs:
    """Who and what every frame of one connection names."""

    session_id: SessionId
    connection_id: ConnectionId
    txn: Txn
    protocol: str
    actor: str
    originator: str
    target: str
    principal: str


@lru_cache(maxsize=4096)  # open connections of one broker, several times over; an entry is some 500 bytes
def line_parts(who: RecordedAs) -> tuple[str, str, str]:
    """Return the members of a frame's line that are the same in all of a connection's: those before the number, the
    protocol, and those after ``meta``. Pure."""
    begin = _ENCODED({"v": RECORDING_VERSION, "sid": who.session_id, "con": who.connection_id})[:-1]
    end = _ENCODED({"txn": who.txn, "actor": who.actor, "sub": who.originator})[1:]
    return begin, _ENCODED({"proto": who.protocol})[1:-1], end


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """An immutable object of frames ``first`` to ``last``. Hashes are hexadecimal; sizes in bytes."""

    number: int
    key: str
    version_id: str
    raw_bytes: int
    sha256_raw: str
    sha256_stored: str
    first: int
    last: int


def segment_key(session_id: SessionId, connection_id: ConnectionId, number: int) -> str:
    return f"rec/v1/{session_id}/{connection_id}/{number:06d}.ndjson.gz"


def manifest_key(session_id: SessionId, connection_id: ConnectionId, opened_at: datetime) -> str:
    return f"manifests/v1/{timestamp(opened_at)[:10]}/{session_id}/{connection_id}.json"


def segment_header(who: RecordedAs, number: int, previous_sha256: str) -> bytes:
    """Return a segment's first line: it links the segment to the one before (empty hash for the first)."""
    header = {"v": RECORDING_VERSION, "kind": "segment", "sid": who.session_id, "con": who.connection_id}
    return (
        json.dumps({**header, "number": number, "prev_sha256": previous_sha256}, separators=(",", ":")).encode() + b"\n"
    )


def tombstone(session_id: SessionId, connection_id: ConnectionId, number: int, by: str, at: datetime) -> bytes:
    """Return the one line of a tombstone: ``by`` took this key so that the broker cannot."""
    header = {"v": RECORDING_VERSION, "kind": "tombstone", "sid": session_id, "con": connection_id}
    told = {**header, "number": number, "by": by, "t": timestamp(at)}
    return json.dumps(told, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Frames that were accepted and never became durable. ``last`` None: a broker died, and nobody knows how many (the
    window of "accepted and durable" bounds them)."""

    first: int
    last: int | None
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest(Digested):
    """The signed list of a connection's segments."""

    session_id: SessionId
    connection_id: ConnectionId
    txn: Txn
    leaf_hop_sha256: str
    opened_at: datetime
    closed_at: datetime
    exit: str
    segments: tuple[Segment, ...]
    gaps: tuple[Gap, ...]
    policy_digest: str
    configuration_serial: int
    broker_build: str
    sealed_by: str
    left_out: LeftOut = NOTHING_LEFT_OUT
    signature: str = ""

    def merkle_root(self) -> str:
        return merkle_root([bytes.fromhex(segment.sha256_raw) for segment in self.segments]).hex()

    def signed(self) -> Mapping[str, Json]:
        """Return exactly what the signature covers, and what the object holds besides it. ``left_out`` is a member only
        where something was."""
        left: dict[str, Json] = {}
        if self.left_out.outcomes:
            left["left_out"] = {"outcomes": self.left_out.outcomes, **self.left_out.told()}
        return left | {
            "v": RECORDING_VERSION,
            "session": self.session_id,
            "connection": self.connection_id,
            "txn": self.txn,
            "leaf_hop_sha256": self.leaf_hop_sha256,
            "opened_at": timestamp(self.opened_at),
            "closed_at": timestamp(self.closed_at),
            "exit": self.exit,
            "segments": [
                {
                    "number": s.number,
                    "key": s.key,
                    "version_id": s.version_id,
                    "raw_bytes": s.raw_bytes,
                    "sha256_raw": s.sha256_raw,
                    "sha256_stored": s.sha256_stored,
                    "first": s.first,
                    "last": s.last,
                }
                for s in self.segments
            ],
            "merkle_root": self.merkle_root(),
            "gaps": [{"first": gap.first, "last": gap.last, "why": gap.why} for gap in self.gaps],
            "policy_digest": self.policy_digest,
            "configuration_serial": self.configuration_serial,
            "broker_build": self.broker_build,
            "sealed_by": self.sealed_by,
        }

    def sha256(self) -> str:
        return self._digest_of(self.signed)


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the Merkle tree hash of ``leaves`` (RFC 9162 section 2.1.1): leaf 0x00, node 0x01, split at the largest
    power of two below the count. Pure."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\x01" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()
