"""All recordings of this broker: opens them, steps them in one thread, and seals each with a signed manifest.

Sealing: the last segment, then the manifest, then the row. A *fenced* recording is not sealed here: whoever took its
next key seals it; nor is one of which something is not acknowledged: what became of it is looked up behind a fence, by
the spool's next reader or the sweeper, who name what is missing as a gap. Where the manifest cannot be stored the row
stays unsealed for them too; only a connection that never ran anything is sealed without one.
Source: architecture, "Closing".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from broker.recorder import window
from broker.recorder.recording import Failure, Recording
from broker.recorder.spool import Spool, SpooledRecording
from broker.threads import Pool
from chalicelib.domain.canonical import canonical
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, AlreadyExists, Conflict, RecordingUnavailable
from chalicelib.domain.recording import Frame, FrameKind, Manifest, RecordedAs, manifest_key
from chalicelib.domain.store import Connections, Objects, Signer
from chalicelib.identity.jws import sign_manifest

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Closing:
    """What the manifest says besides its segments. ``ran``: whether anything may have been forwarded."""

    leaf_hop_sha256: str
    opened_at: datetime
    exit: str
    policy_digest: str
    configuration_serial: int
    ran: bool


class Recorder:
    """Thread-safe. :meth:`step` is called ten times a second, by one thread for all recordings."""

    def __init__(
        self,
        *,
        objects: Objects,
        connections: Connections,
        signer: Signer,
        pool: Pool,
        clock: Clock,
        build: str,
        sealed_by: str,
        spool: Spool | None = None,
        open_within_s: float = window.OPEN_WITHIN_S,
        close_within_s: float = window.CLOSE_WITHIN_S,
    ) -> None:
        """``signer`` has the record key; ``pool`` carries the uploads of all connections."""
        self._objects = objects
        self._connections = connections
        self._signer = signer
        self._pool = pool
        self._clock = clock
        self._build = build
        self._sealed_by = sealed_by
        self._spool = spool
        self._open_within_s = open_within_s
        self._close_within_s = close_within_s
        self._lock = threading.Lock()
        self._open: dict[Recording, SpooledRecording | None] = {}

    def start(self, who: RecordedAs, *, seen: Callable[[Frame], None] | None = None, keep_days: int = 0) -> Recording:
        """Return a new recording, stepped from now on. Memory only: nothing is durable yet. ``seen`` and ``keep_days``:
        as Recording has them."""
        spooled = None if self._spool is None else self._spool.begin(who.session_id, who.connection_id)
        recording = Recording(
            who=who,
            objects=self._objects,
            pool=self._pool,
            clock=self._clock,
            spooled=spooled,
            seen=seen,
            keep_days=keep_days,
        )
        with self._lock:
            self._open[recording] = spooled
        return recording

    def make_durable(self, recording: Recording) -> None:
        """Block until all that ``recording`` accepted is durable. Raises RecordingUnavailable after a bounded time."""
        recording.spool()  # first: a disk that refuses must be known before anything is let in
        recording.check()
        upto = recording.accepted
        recording.flush()
        recording.wait(upto, self._open_within_s)

    def step(self) -> None:
        """Step every recording. One that raises is logged and ends nothing else."""
        self._each(lambda recording: recording.step())

    def spool(self) -> None:
        """Write to disk what every recording accepted since. Called twenty times a second, by a thread of its own: a
        slow disk must not delay the uploads."""
        self._each(lambda recording: recording.spool())

    def _each(self, do: Callable[[Recording], None]) -> None:
        with self._lock:
            recordings = tuple(self._open)
        for recording in recordings:
            try:
                do(recording)
            except Exception:
                _logger.exception(
                    "a recording could not be stepped", extra={"connection_id": recording.who.connection_id}
                )

    def seal(self, recording: Recording, closing: Closing) -> bool:
        """Put the last segment, the signed manifest, and seal the row; return whether the row is sealed. Blocks.

        Never raises an AccessError: what could not be done is logged, and left to the sweeper.
        """
        try:
            recording.accept(FrameKind.CLOSE, "ctl", meta=(("exit", closing.exit),))
        except RecordingUnavailable:
            _logger.warning("a recording ends without its close frame", extra={"failure": recording.failure})
        recording.stop()
        try:
            recording.wait(recording.accepted, self._close_within_s)
        except RecordingUnavailable:
            _logger.warning("a recording ends with a gap", extra={"connection_id": recording.who.connection_id})
            recording.spool()
        with self._lock:
            spooled = self._open.pop(recording, None)
        if recording.failure is Failure.FENCED:
            if spooled is not None:
                spooled.fenced()
            return False
        if recording.settled()[1] and (closing.ran or spooled is not None):
            # The disk may have what the bucket did not take, or the bucket may have it and its answer was lost, or it
            # is still on its way: called a gap here, it would stay one. Whoever finishes it looks, behind a fence.
            if spooled is not None:
                spooled.abandoned()
            return False
        try:
            sealed = self._seal_row(recording, closing)
        except AccessError as error:
            _logger.error("a connection is not sealed", extra={"code": error.code, "detail": error.detail})
            if spooled is not None:
                spooled.abandoned()
            return False
        if spooled is not None:
            spooled.sealed() if sealed else spooled.fenced()
        return sealed

    def _seal_row(self, recording: Recording, closing: Closing) -> bool:
        who = recording.who
        key = sha256 = ""
        try:
            manifest = self._manifest(recording, closing)
            key, sha256 = self._put(manifest, recording.keep_days), manifest.sha256()
        except AccessError:
            if closing.ran:
                raise
        try:
            self._connections.seal(
                who.session_id, who.connection_id, at=self._clock.now(), exit=closing.exit, key=key, sha256=sha256
            )
        except Conflict:
            _logger.warning("a connection was sealed by another", extra={"connection_id": who.connection_id})
            return False
        return True

    def _manifest(self, recording: Recording, closing: Closing) -> Manifest:
        segments, gaps = recording.settled()
        unsigned = Manifest(
            session_id=recording.who.session_id,
            connection_id=recording.who.connection_id,
            txn=recording.who.txn,
            leaf_hop_sha256=closing.leaf_hop_sha256,
            opened_at=closing.opened_at,
            closed_at=self._clock.now(),
            exit=closing.exit,
            segments=segments,
            gaps=gaps,
            policy_digest=closing.policy_digest,
            configuration_serial=closing.configuration_serial,
            broker_build=self._build,
            sealed_by=self._sealed_by,
            left_out=recording.left_out,
        )
        return sign_manifest(self._signer, unsigned)

    def _put(self, manifest: Manifest, keep_days: int) -> str:
        key = manifest_key(manifest.session_id, manifest.connection_id, manifest.opened_at)
        body = canonical({**manifest.signed(), "signature": manifest.signature})
        try:
            self._objects.put_new(key, body, content_type="application/json", keep_days=keep_days)
        except AlreadyExists:
            if self._objects.get(key) != body:  # our own try, whose answer was lost, left these very bytes
                raise
        return key
