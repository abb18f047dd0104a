"""This process as the evidence knows it: a beat while it lives, and the signed end of its numbered rows when it ends.

Rules: the first beat comes before the first connection; beats go on for as long as anything may run, because a broker
that is silent is taken for dead and its connections are sealed by others (``services.sweep``). A boot that ends orderly
puts how many rows it numbered; one that cannot leaves that unsaid, and ``verify`` says so. Blocks; a thread's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from chalicelib.domain.canonical import canonical
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import Beat, BootEnd, boot_end_key
from chalicelib.domain.errors import AccessError
from chalicelib.domain.store import Beats, Objects

_logger = logging.getLogger(__name__)


class Boot:
    """``name`` is this boot's, and no other process's before or after it."""

    def __init__(self, name: str, *, beats: Beats, objects: Objects, clock: Clock) -> None:
        self.name = name
        self._beats = beats
        self._objects = objects
        self._clock = clock

    def beat(self) -> None:
        """Say that this process lives. Raises StoreUnavailable."""
        self._beats.put(Beat(boot=self.name, at=self._clock.now()))

    def end(self, rows: Callable[[], BootEnd]) -> None:
        """Put how this boot's rows end. Never raises an AccessError: what could not be put is missing, and seen."""
        try:
            ended = rows()
            body = canonical({**ended.signed(), "signature": ended.signature})
            self._objects.put_new(boot_end_key(ended.boot, ended.closed_at), body, content_type="application/json")
        except AccessError as error:
            _logger.error("the boot's last number could not be put", extra={"code": error.code})
