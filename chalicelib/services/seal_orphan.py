"""Seals a connection whose broker died: fences it, reads what the bucket holds, and says in a signed manifest what that
is and what nobody knows.

Rules: first the fence. Every key that the broker could still write (a hole, and as many after the last segment as it
has on their way at once) is taken by a tombstone, ``If-None-Match``; a broker that lives after all is refused there and
stops both sides. Only then are the segments final. A manifest is put once: who finds another's adopts it, so that any
number of sweepers, a restarted broker and the broker itself come to one. The end of a record that has no close frame is
a ``tail_gap``: the broker may have accepted more than it stored. A connection without a first segment never had a
credential, and is sealed without a manifest, as its broker would have. Before the row is sealed the operations are
told again as events (``retell``): what the broker had not told is lost otherwise, and nobody looks at a sealed row.
Idempotent at every step: whoever dies here is followed by another. Does not decide that a broker is dead (``sweep``).
Source: architecture, "Closing"; security.md, "Sweeper seals a live connection".
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Final

from chalicelib.domain.canonical import canonical
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import AlreadyExists, Conflict, NotFound, ProofInvalid, StoreUnavailable
from chalicelib.domain.recording import (
    BROKER_LOST,
    NOTHING_LEFT_OUT,
    TAIL_GAP,
    UPLOADS_AT_ONCE,
    FrameKind,
    Gap,
    Manifest,
    manifest_key,
    segment_key,
    tombstone,
)
from chalicelib.domain.store import Chains, Connections, Keys, Objects, Signer
from chalicelib.identity.jws import sign_manifest, verify_manifest
from chalicelib.services.operations import meta_of
from chalicelib.services.recordings import manifest_of
from chalicelib.services.retell import retell
from chalicelib.services.stored_segments import Found, Stored, found_in, number_of

_READERS: Final = 16  # a segment is read in some 20 ms: 40,000 of them, a connection of 10 GB, in about two minutes
_MOST_SEGMENTS: Final = 1_000_000  # six digits in a key


class Sealed(StrEnum):
    """What became of the row."""

    BY_US = "by_us"
    BY_OTHERS = "by_others"  # it was sealed, or its manifest was there
    UNUSED = "unused"  # nothing was ever recorded, so nothing ran


class SealOrphan:
    """Seals. Thread-safe."""

    def __init__(
        self,
        *,
        objects: Objects,
        connections: Connections,
        chains: Chains,
        keys: Keys,
        signer: Signer,
        clock: Clock,
        sealed_by: str,
        build: str,
    ) -> None:
        """``signer``: the record key, or with ``sealed_by`` SWEEPER the sweeper's own."""
        self._objects = objects
        self._connections = connections
        self._chains = chains
        self._keys = keys
        self._signer = signer
        self._clock = clock
        self._sealed_by = sealed_by
        self._build = build

    def __call__(self, row: ConnectionRow) -> Sealed:
        """Seal ``row``, whose broker is known to be dead. Idempotent.

        Raises StoreUnavailable, and ProofInvalid where the manifest that is there is nobody's of ours: the row stays.
        """
        if row.sealed_at is not None:
            return Sealed.BY_OTHERS
        key = manifest_key(row.session_id, row.id, row.opened_at)
        if self._adopted(row, key):
            return Sealed.BY_OTHERS
        keep_days = self._keep_days(row)
        stored = self._fence(row, keep_days)
        if not stored:
            return Sealed.UNUSED if self._seal(row, exit=BROKER_LOST, key="", sha256="") else Sealed.BY_OTHERS
        manifest = sign_manifest(self._signer, self._manifest(row, stored))
        try:
            body = canonical({**manifest.signed(), "signature": manifest.signature})
            self._objects.put_new(key, body, content_type="application/json", keep_days=keep_days)
        except AlreadyExists:
            if not self._adopted(row, key):
                raise StoreUnavailable("a manifest is there and cannot be read", key=key) from None
            return Sealed.BY_OTHERS
        retell(self._objects, row, manifest, self._clock)
        sealed = self._seal(row, exit=manifest.exit, key=key, sha256=manifest.sha256())
        return Sealed.BY_US if sealed else Sealed.BY_OTHERS

    def _adopted(self, row: ConnectionRow, key: str) -> bool:
        """Seal the row with the manifest that is there already, if one is: its writer died, or was faster."""
        try:
            manifest = manifest_of(self._objects.get(key))
        except NotFound:
            return False
        verify_manifest(manifest, self._keys)
        if (manifest.session_id, manifest.connection_id, manifest.txn) != (row.session_id, row.id, row.txn):
            raise ProofInvalid("the manifest of another connection stands here", key=key)
        retell(self._objects, row, manifest, self._clock)
        self._seal(row, exit=manifest.exit, key=key, sha256=manifest.sha256())
        return True

    def _seal(self, row: ConnectionRow, *, exit: str, key: str, sha256: str) -> bool:
        try:
            self._connections.seal(row.session_id, row.id, at=self._clock.now(), exit=exit, key=key, sha256=sha256)
        except Conflict:
            return False
        return True

    # -- the fence -------------------------------------------------------------------------------------------------

    def _keep_days(self, row: ConnectionRow) -> int:
        """Return how long the target's recordings are kept: as the first segment is, which its broker put."""
        try:
            return self._objects.facts(segment_key(row.session_id, row.id, 0)).kept_days
        except NotFound:
            return 0

    def _fence(self, row: ConnectionRow, keep_days: int) -> list[Stored]:
        """Return the connection's segments in order, final from now on."""
        prefix = segment_key(row.session_id, row.id, 0).rpartition("/")[0] + "/"
        listed = {number for key in self._objects.keys(prefix) if (number := number_of(key)) is not None}
        found = self._read_all(row, sorted(listed))
        stored: list[Stored] = []
        fenced = number = 0
        ahead, wall = UPLOADS_AT_ONCE, -1
        while fenced < UPLOADS_AT_ONCE or number <= max(listed, default=-1):
            there = found.get(number) or self._claim(row, number, keep_days)
            if isinstance(there, Stored):
                stored.append(there)
                fenced = 0
                if number not in found and number > wall:
                    # It came while we looked: the broker lives, and uploads faster than we do one by one. So it runs
                    # into a wall further on, and we come after; each time it was past that already, twice as far.
                    wall = number + ahead if self._claim(row, number + ahead, keep_days) is None else number
                    ahead *= 2
            else:
                fenced += 1
            number += 1
            if number >= _MOST_SEGMENTS:
                raise StoreUnavailable("a recording has more segments than any of ours", connection=row.id)
        return stored

    def _claim(self, row: ConnectionRow, number: int, keep_days: int) -> Found | None:
        """Take a key that was free; return what is there where it is not free any more."""
        line = tombstone(row.session_id, row.id, number, self._sealed_by, self._clock.now())
        key = segment_key(row.session_id, row.id, number)
        try:
            body = gzip.compress(line, mtime=0)
            self._objects.put_new(key, body, content_type="application/gzip", keep_days=keep_days)
        except AlreadyExists:
            return self._read(row, number)
        return None

    def _read_all(self, row: ConnectionRow, numbers: Iterable[int]) -> Mapping[int, Found]:
        with ThreadPoolExecutor(max_workers=_READERS, thread_name_prefix="segments") as readers:
            return dict(zip(numbers, readers.map(lambda number: self._read(row, number), numbers), strict=True))

    def _read(self, row: ConnectionRow, number: int) -> Found:
        key = segment_key(row.session_id, row.id, number)
        try:
            version = self._objects.facts(key).version_id
            body = self._objects.get(key, version or None)
        except NotFound as error:
            raise StoreUnavailable("a segment that was listed is not there", key=key) from error
        return found_in(row.session_id, row.id, number, body, version)

    # -- what is known ---------------------------------------------------------------------------------------------

    def _manifest(self, row: ConnectionRow, stored: list[Stored]) -> Manifest:
        hop = self._chains.hops(row.txn).get(row.target_hop)
        opened = next((meta_of(one.opening) for one in stored if one.opening.get("kind") == FrameKind.OPEN), {})
        ending = stored[-1].ending
        closed = ending.get("kind") == FrameKind.CLOSE
        serial = opened.get("configuration_serial")
        return Manifest(
            session_id=row.session_id,
            connection_id=row.id,
            txn=row.txn,
            leaf_hop_sha256="" if hop is None else hop.sha256(),
            opened_at=row.opened_at,
            closed_at=self._clock.now(),
            exit=str(meta_of(ending).get("exit", BROKER_LOST)) if closed else BROKER_LOST,
            segments=tuple(one.segment for one in stored),
            gaps=_gaps(stored, closed=closed),
            policy_digest=str(opened.get("policy_digest", "")),
            configuration_serial=serial if isinstance(serial, int) else 0,
            broker_build=self._build,
            sealed_by=self._sealed_by,
            left_out=sum((one.left_out for one in stored), NOTHING_LEFT_OUT),
        )


def _gaps(stored: list[Stored], *, closed: bool) -> tuple[Gap, ...]:
    """Return the frames that are in no segment: between two, and, unless the record was ``closed``, after the last."""
    gaps: list[Gap] = []
    expected = 1
    for one in stored:
        if one.segment.first > expected:
            gaps.append(Gap(first=expected, last=one.segment.first - 1, why=BROKER_LOST))
        expected = one.segment.last + 1
    if not closed:
        gaps.append(Gap(first=expected, last=None, why=TAIL_GAP))
    return tuple(gaps)
