"""The active bundle as memory: a thread reads it, and whoever decides on an operation takes what was read last.

Rules: :meth:`ActiveConfiguration.current` never does I/O, since it is called on the event loop for every operation; a
serial never goes back; where reading fails the bundles' own rule says for how long the old one stands, and its
refusal is passed on. Does not load, verify or validate a bundle: ``chalicelib.config`` does.
"""

from __future__ import annotations

import threading
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, ConfigurationInvalid, StoreUnavailable

STALE_S: Final = 30.0  # the thread reads every second; this long without one means that it hangs, and nobody knows


class ActiveConfiguration:
    """What :meth:`step` read last. Thread-safe."""

    def __init__(self, *, bundles: Bundles, clock: Clock) -> None:
        self._bundles = bundles
        self._clock = clock
        self._lock = threading.Lock()
        self._bundle: Bundle | None = None
        self._refusal: AccessError | None = StoreUnavailable("the configuration has not been read yet")
        self._read_at_s = clock.monotonic_s()

    def step(self) -> None:
        """Read the active bundle; called every second. Never raises an AccessError: :meth:`current` does."""
        started = self._clock.monotonic_s()
        bundle: Bundle | None = None
        refusal: AccessError | None = None
        try:
            bundle = self._bundles.current()
        except AccessError as error:
            refusal = error
        with self._lock:
            if bundle is not None and self._bundle is not None and bundle.serial < self._bundle.serial:
                refusal = ConfigurationInvalid("the configuration went back to an earlier one", serial=bundle.serial)
            elif bundle is not None:
                self._bundle = bundle
            self._refusal = refusal
            self._read_at_s = started

    def current(self) -> Bundle:
        """Return the active bundle, from memory. Raises ConfigurationInvalid or StoreUnavailable."""
        with self._lock:
            if self._refusal is not None:
                # A new one each time: raising one instance again and again makes its traceback grow for ever.
                raise type(self._refusal)(self._refusal.public, hint=self._refusal.next_step)
            if self._bundle is None or self._clock.monotonic_s() - self._read_at_s > STALE_S:
                raise StoreUnavailable("the configuration could not be read", age_limit_s=STALE_S)
            return self._bundle
