"""Finishes what a dead broker left in the spool: puts the segments that the bucket lacks, and seals.

Rules: a segment is put under its own key with ``If-None-Match``, so that a key that is taken is left as it is: by the
dead broker's own upload it is done, by a tombstone it is *fenced*: another seals this recording, and what has no place
any more is put aside in the spool (``Spool.keep``). What a restarted process seals says ``restart:`` and names the gap
after the last frame on disk: what the dead one had accepted and not yet written, nobody knows. Blocks on store and
disk; a recording that cannot be finished now is tried again at the next step.
Source: architecture, "Accepted and durable", "Closing".
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from broker.recorder.spool import Left, Spool, whole_lines
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import AccessError, AlreadyExists, NotFound, StoreUnavailable
from chalicelib.domain.recording import segment_key
from chalicelib.domain.store import Connections, Objects
from chalicelib.services.seal_orphan import SealOrphan
from chalicelib.services.stored_segments import Stored, found_in

FINISH_EVERY_S: Final = 5.0

_logger = logging.getLogger(__name__)


class Finishing:
    """Belongs to one thread."""

    def __init__(
        self,
        *,
        spool: Spool,
        objects: Objects,
        connections: Connections,
        seal: SealOrphan,
        stopping: Callable[[], bool],
    ) -> None:
        """``stopping``: whether to leave the rest to the next process."""
        self._spool = spool
        self._objects = objects
        self._connections = connections
        self._seal = seal
        self._stopping = stopping

    def step(self) -> None:
        """Finish all that can be finished. Raises OSError where the spool cannot be listed."""
        for left in self._spool.left():
            if self._stopping():
                break
            try:
                self._finish(left)
            except (AccessError, OSError) as error:
                why = error.code if isinstance(error, AccessError) else type(error).__name__
                _logger.warning(
                    "a recording in the spool waits", extra={"connection_id": left.connection_id, "why": why}
                )

    def _finish(self, left: Left) -> None:
        row = self._connections.get(left.session_id, left.connection_id)
        placed = [self._placed(row, number, path) for number, path in left.files]
        if all(placed):
            self._seal(row)
            self._spool.drop(left)
            _logger.info("a recording that a process left is finished", extra={"connection_id": row.id})
        else:
            self._spool.keep(left.folder)

    def _keep_days(self, row: ConnectionRow, number: int) -> int:
        """Return how long the target's recordings are kept: as the first segment is. One that died before its first
        was durable never reached its target, and needs no longer than the default."""
        if number == 0:
            return 0
        try:
            return self._objects.facts(segment_key(row.session_id, row.id, 0)).kept_days
        except NotFound:
            return 0

    def _placed(self, row: ConnectionRow, number: int, path: Path) -> bool:
        """Return whether the bucket has every frame of a spooled segment, having put it where its key was free."""
        raw = whole_lines(path)
        if raw.count(b"\n") < 2:  # a header alone holds nothing
            return True
        stored = gzip.compress(raw, mtime=0)
        mine = found_in(row.session_id, row.id, number, stored)
        if not isinstance(mine, Stored):
            _logger.error("a spooled segment is not whole", extra={"connection_id": row.id, "number": number})
            return False
        key = segment_key(row.session_id, row.id, number)
        if row.sealed_at is None:
            try:
                keep_days = self._keep_days(row, number)
                self._objects.put_new(key, stored, content_type="application/gzip", keep_days=keep_days)
            except AlreadyExists:
                _logger.info("a spooled segment is there already", extra={"key": key})
        try:
            there = found_in(row.session_id, row.id, number, self._objects.get(key))
        except NotFound as error:
            if row.sealed_at is not None:
                return False
            raise StoreUnavailable("the bucket lost an object that it had acknowledged", key=key) from error
        # The disk may have fewer frames of it than the upload: it was killed between the two.
        return isinstance(there, Stored) and (there.segment.first, there.segment.last) >= (
            mine.segment.first,
            mine.segment.last,
        )
