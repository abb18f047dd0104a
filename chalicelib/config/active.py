"""Which bundle is active: the newest signed Activation's, loaded from the bucket and kept.

Rules: read at most every 10 s; a signature is checked before anything that it covers is believed; a serial never goes
back, nor does one change its bundle, nor does the store's epoch go back; what was loaded must have the digest that was
signed. A newer activation that cannot be used stops new sessions at once and operations after 10 minutes. A store that
cannot be read is borne 30 s.

Does not: put activations, or verify signatures (``verify`` is given). Source: architecture, "Configuration".
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from chalicelib.config.bundle import Bundle
from chalicelib.config.files import bundle_digest, decode_bundle
from chalicelib.config.loader import CompilePolicy, load_bundle
from chalicelib.domain.activation import Activation, bundle_key, is_epoch_kept
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import ConfigurationInvalid, StoreUnavailable
from chalicelib.domain.store import Activations, Objects

READ_EVERY_S: Final = 10.0  # how late a push may arrive; one consistent read of one row
RETRY_S: Final = 1.0  # after a read that failed: a process that was idle must not refuse for ten more seconds
GRACE_S: Final = 600.0  # long enough to push a correction, short enough that a withheld update does not rule for a day
OUTAGE_S: Final = 30.0  # the same as for revocations: an outage must not become a way to keep old rules


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """What is known. ``broken_since_s`` is when a newer activation was first found that cannot be used, ``why`` what
    stopped it; ``reached_s`` when the store last answered."""

    bundle: Bundle | None = None
    seen: Activation | None = None
    broken_since_s: float | None = None
    why: str = ""
    reached_s: float | None = None
    tried_s: float | None = None


class ActiveBundle:
    """Implements :class:`chalicelib.config.bundle.Bundles`. Thread-safe: one thread reads, and the others go on with
    what is known, or wait for it where nothing is yet."""

    def __init__(
        self,
        *,
        activations: Activations,
        objects: Objects,
        verify: Callable[[Activation], None],
        compile_policy: CompilePolicy,
        clock: Clock,
    ) -> None:
        """``verify`` raises where an activation's signature does not hold."""
        self._activations = activations
        self._objects = objects
        self._verify = verify
        self._compile = compile_policy
        self._clock = clock
        self._reading = threading.Lock()
        self._state = _State()

    def current(self) -> Bundle:
        """Return the bundle that operations are decided by. Reads where the last read is 10 s old. Raises
        ConfigurationInvalid, StoreUnavailable."""
        state = self._fresh()
        if state.broken_since_s is not None and self._clock.monotonic_s() - state.broken_since_s >= GRACE_S:
            raise _broken(state)
        return self._known(state)

    def for_new_sessions(self) -> Bundle:
        """Return the bundle that a new session is decided by. Raises ConfigurationInvalid, StoreUnavailable."""
        state = self._fresh()
        if state.broken_since_s is not None:
            raise _broken(state)
        return self._known(state)

    def _known(self, state: _State) -> Bundle:
        if self._old(state):
            raise StoreUnavailable("the active configuration cannot be read")
        if state.bundle is None:
            raise _broken(state)
        return state.bundle

    def _fresh(self) -> _State:
        if not self._due(self._state):
            return self._state
        # Whoever has nothing to go on with waits, what is too old to decide by included (a process that was idle); the
        # others do not queue behind one slow read.
        if self._reading.acquire(blocking=self._state.bundle is None or self._old(self._state)):
            try:
                if self._due(self._state):
                    self._state = self._read(self._state)
            finally:
                self._reading.release()
        return self._state

    def _due(self, state: _State) -> bool:
        if state.tried_s is None:
            return True
        every_s = READ_EVERY_S if state.reached_s == state.tried_s else RETRY_S
        return self._clock.monotonic_s() - state.tried_s >= every_s

    def _old(self, state: _State) -> bool:
        return state.reached_s is None or self._clock.monotonic_s() - state.reached_s >= OUTAGE_S

    def _read(self, before: _State) -> _State:
        now_s = self._clock.monotonic_s()
        try:
            latest = self._activations.latest()
        except StoreUnavailable:
            return replace(before, tried_s=now_s)
        except Exception as error:  # noqa: BLE001 - whatever stops the newest from being read stops it; never the reader
            return _broken_by(before, error, now_s)
        try:
            bundle = self._load(latest, before)
        except Exception as error:  # noqa: BLE001 - the same: an odd bundle must not leave the old one unmarked
            return _broken_by(before, error, now_s)
        return _State(bundle=bundle, seen=latest, reached_s=now_s, tried_s=now_s)

    def _load(self, latest: Activation, before: _State) -> Bundle:
        self._verify(latest)
        seen = before.seen
        if seen is not None and latest.serial < seen.serial:
            raise ConfigurationInvalid("the active configuration went back", serial=latest.serial, seen=seen.serial)
        if seen is not None and latest.serial == seen.serial and latest.bundle_digest != seen.bundle_digest:
            raise ConfigurationInvalid("an activation changed its bundle", serial=latest.serial)
        if seen is not None and not is_epoch_kept(seen, latest):
            raise ConfigurationInvalid("the store's epoch went back", serial=latest.serial)
        if before.bundle is not None and before.bundle.digest == latest.bundle_digest:
            return replace(before.bundle, serial=latest.serial, epoch_at=latest.epoch_at)
        files = decode_bundle(self._objects.get(bundle_key(latest.bundle_digest)))
        if bundle_digest(files) != latest.bundle_digest:
            raise ConfigurationInvalid("the stored bundle is not the one that was activated", serial=latest.serial)
        return replace(load_bundle(files, self._compile, serial=latest.serial), epoch_at=latest.epoch_at)


def _broken_by(before: _State, error: Exception, now_s: float) -> _State:
    since_s = now_s if before.broken_since_s is None else before.broken_since_s
    return replace(before, broken_since_s=since_s, why=repr(error), reached_s=now_s, tried_s=now_s)


def _broken(state: _State) -> ConfigurationInvalid:
    # What is wrong with a bundle is for its author (``config check``), not for whoever asks for a session.
    return ConfigurationInvalid(
        "the newest configuration cannot be loaded", hint="Tell the operators; sessions wait for it.", why=state.why
    )
