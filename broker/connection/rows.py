"""The rows of this broker boot's connections: numbered without holes, each naming the hash of the one before.

Rules: a number belongs to a row that is in the table; a put whose answer was lost is looked up before the next number
is given, because a guess would leave either a hole or the same number twice. One lock: rows of one boot are put one
after the other, at the table's own pace (5 ms), which is far above the rate at which a task takes connections.
Source: security.md, "A connection that never got a row".
"""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime

from chalicelib.domain.connection import BootEnd, ConnectionRow
from chalicelib.domain.errors import AccessError, NotFound, ProofInvalid, StoreUnavailable
from chalicelib.domain.store import Connections


class NumberedRows:
    """Puts rows. Thread-safe; blocks."""

    def __init__(self, connections: Connections, boot: str) -> None:
        """``boot`` names this process, and no other before or after it."""
        self._connections = connections
        self._boot = boot
        self._lock = threading.Lock()
        self._number = 0
        self._previous_sha256 = ""
        self._unsure: ConnectionRow | None = None
        self._is_closed = False

    def put(self, row: ConnectionRow) -> ConnectionRow:
        """Put ``row`` with its boot, number (from 1) and ``previous_sha256`` filled in, and return it so.

        Raises StoreUnavailable; the number is then given to the next row, unless this one turns out to be there.
        """
        with self._lock:
            if self._is_closed:
                raise StoreUnavailable("the broker is shutting down")
            self._resolve()
            numbered = replace(row, boot=self._boot, number=self._number + 1, previous_sha256=self._previous_sha256)
            self._unsure = numbered
            try:
                self._connections.put(numbered)
            except AccessError:
                if self._resolve():
                    return numbered  # it is there: only the answer was lost
                raise
            self._took(numbered)
            return numbered

    def close(self, at: datetime) -> BootEnd:
        """Return the boot's last number, unsigned; no row is put any more. Raises StoreUnavailable while nobody can say
        whether the last row is there."""
        with self._lock:
            self._resolve()
            self._is_closed = True
            return BootEnd(boot=self._boot, last=self._number, last_sha256=self._previous_sha256, closed_at=at)

    def _resolve(self) -> bool:
        """Return whether the row of an unanswered put is there. Raises StoreUnavailable while nobody can say."""
        unsure = self._unsure
        if unsure is None:
            return False
        try:
            found = self._connections.get(unsure.session_id, unsure.id)
        except NotFound:
            self._unsure = None
            return False
        self._unsure = None
        if found.sha256() != unsure.sha256():  # ids are random: another row under ours is nobody's accident
            raise ProofInvalid("a connection row is not the one that was put", connection=unsure.id)
        self._took(unsure)
        return True

    def _took(self, row: ConnectionRow) -> None:
        self._number = row.number
        self._previous_sha256 = row.sha256()
        self._unsure = None
