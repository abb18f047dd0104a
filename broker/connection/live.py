"""One open connection: what an engine submits to, records with, and asks whether it may go on.

Rules: :meth:`Connection.submit` is the only place where an operation gets its Verdict; an exception anywhere in it is a
Block; what is forwarded was accepted by the recorder first. Everything but :meth:`Connection.close` is memory, so that
it may run on the event loop. Does not: understand a protocol, wait, see bytes from the target before they are masked.
Source: architecture, "An operation", "Accepted and durable", "Threads and loops".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, assert_never

from broker.admission import Admission
from broker.asking import make_ask
from broker.configuration import ActiveConfiguration
from broker.events import EventLog
from broker.holds import Held, HoldStores
from broker.inspection import Inspection
from broker.liveness import Liveness
from broker.masking import carries_sentinel
from broker.recorder import Recording
from broker.recorder.recorder import Closing
from chalicelib.domain.audit import Acting, AuditEvent, AuditName
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import (
    AccessError,
    GrantExpired,
    GrantRevoked,
    HeldInTransaction,
    MaskWrittenBack,
    PolicyDenied,
    RecordingUnavailable,
)
from chalicelib.domain.identifiers import ConnectionId, OperationId
from chalicelib.domain.operation import Block, Forward, Hold, Operation, Ruling, Verdict, verdict_word
from chalicelib.domain.policy import Allow, Deny, NeedsApproval
from chalicelib.domain.recording import MAX_TEXT, NOTHING_LEFT_OUT, FrameKind, LeftOut
from chalicelib.domain.target import Credential, RecordMode

MAX_TOUCHED: Final = 64  # tables that a frame names: a statement that names more is a dump, and its text says which
INTERNAL: Final = AccessError("the operation could not be judged, so it was not forwarded")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """What is known of a connection once it is open."""

    id: ConnectionId
    admission: Admission
    credential: Credential
    closing: Closing


class Connection:
    """One admitted transport in a Session. ``Gateway.open`` makes one. Thread-safe."""

    def __init__(
        self,
        *,
        opened: Opened,
        recording: Recording,
        inspection: Inspection,
        configuration: ActiveConfiguration,
        liveness: Liveness,
        holds: HoldStores,
        audit: EventLog,
    ) -> None:
        self.id = opened.id
        self.admission = opened.admission
        self.credential = opened.credential
        self.recording = recording
        self._closing = opened.closing
        self._inspection = inspection
        self._configuration = configuration
        self._liveness = liveness
        self._holds = holds
        self._audit = audit
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self._was_ending = False
        self._is_closed = False
        liveness.watch(self._looked)

    # -- an operation ----------------------------------------------------------------------------------------------

    def submit(self, op: Operation, *, in_transaction: bool) -> Verdict:
        """Return what becomes of ``op``, recorded. Never blocks, never raises: whatever fails is a Block.

        A Forward may be sent once its frame is accepted (it is), or, where it says ``durable``, once
        :attr:`durable_upto` has reached :attr:`accepted`.
        """
        verdict = self._guarded(op, in_transaction)
        try:
            self._record_operation(op, verdict)
        except AccessError as error:
            return self._block(error)
        except Exception:
            _logger.exception("an operation could not be recorded", extra={"connection_id": self.id})
            return self._block(INTERNAL)
        return verdict

    def preview(self, op: Operation, *, in_transaction: bool = False) -> Verdict:
        """Return what :meth:`submit` would say now, and record nothing: it must be submitted before it runs."""
        return self._guarded(op, in_transaction)

    def hold(self, op: Operation, verdict: Hold, state: tuple[tuple[str, str], ...] = ()) -> Held:
        """Return the held ``op``, nothing put yet. ``state``: what else changes its meaning (a role, a search path).

        Raises ConfigurationInvalid or StoreUnavailable where there is no bundle to name the excluded people from.
        """
        ask = make_ask(
            admission=self.admission,
            connection_id=self.id,
            op=op,
            verdict=verdict,
            state=state,
            bundle=self._configuration.current(),
            now=self._now(),
        )
        return Held(
            stores=self._holds,
            admission=self.admission,
            inspection=self._inspection,
            recording=self.recording,
            op=op,
            ask=ask,
        )

    def _guarded(self, op: Operation, in_transaction: bool) -> Verdict:
        try:
            self.check_alive()
            return self._judged(op, in_transaction)
        except AccessError as error:
            return self._block(error)
        except Exception:
            _logger.exception("an operation could not be judged", extra={"connection_id": self.id})
            return self._block(INTERNAL)

    def _judged(self, op: Operation, in_transaction: bool) -> Verdict:
        if _carries_mask(op):
            return self._block(MaskWrittenBack("the operation carries a masked value"))
        judged = self._inspection.judge(op.acts, self._now())
        outcome = judged.outcome
        match outcome:
            case Allow():
                return Forward(
                    ruling=judged.ruling,
                    masks=outcome.masks,
                    durable=judged.durable or outcome.durable,
                    record_full=outcome.record_full,
                )
            case NeedsApproval():
                if in_transaction:
                    refusal = HeldInTransaction("this needs an approval, and a transaction is open")
                    return self._block(refusal, judged.ruling)
                return Hold(ruling=judged.ruling, needs=outcome.needs)
            case Deny():
                return self._block(PolicyDenied(outcome.public, hint=outcome.hint), judged.ruling)
            case _:
                assert_never(outcome)

    def _block(self, error: AccessError, ruling: Ruling | None = None) -> Block:
        if ruling is None:  # refused before policy was asked: the bundle is the one that opened the connection
            ruling = Ruling(
                rules=(),
                policy_digest=self._closing.policy_digest,
                configuration_serial=self._closing.configuration_serial,
            )
        return Block(ruling=ruling, code=error.code, public=error.public, hint=error.next_step)

    def _record_operation(self, op: Operation, verdict: Verdict) -> None:
        actions: Json = sorted({act.action for act in op.acts})
        literals: Json = [[literal.kind, literal.length] for literal in op.literals]
        meta: tuple[tuple[str, Json], ...] = (
            ("op", op.id),
            ("protocol", op.protocol),
            ("actions", actions),
            ("verdict", verdict_word(verdict)),
            ("rules", list(verdict.ruling.rules)),
            ("policy_digest", verdict.ruling.policy_digest),
            ("configuration_serial", verdict.ruling.configuration_serial),
            ("binds", list(op.shown_binds)),
            ("literals", literals),
        )
        if isinstance(verdict, Block):
            meta += (("code", verdict.code),)
        if isinstance(verdict, Forward) and verdict.masks:
            meta += (("masks", list(verdict.masks)),)
        if isinstance(verdict, Forward) and not verdict.record_full:
            meta += (("recorded", RecordMode.STATEMENTS.value),)
        meta += _touched(op)
        self.recording.accept(FrameKind.OPERATION, "c2s", op.text, meta)

    # -- what came of it -------------------------------------------------------------------------------------------

    def outcome(
        self,
        op_id: OperationId,
        *,
        status: str,
        tag: str = "",
        rows: int = 0,
        bytes: int = 0,  # noqa: A002 the frame's own word
        sqlstate: str = "",
        duration_ms: int = 0,
        left_out: LeftOut = NOTHING_LEFT_OUT,
    ) -> None:
        """Record how a forwarded operation ended: ``ok``, ``error``, ``refused`` or ``unknown``. Memory.

        ``left_out``: what was sent and not recorded since its outcome before. Raises RecordingUnavailable: end the
        connection.
        """
        meta: tuple[tuple[str, Json], ...] = (
            ("op", op_id),
            ("status", status),
            ("tag", tag),
            ("rows", rows),
            ("bytes", bytes),
            ("sqlstate", sqlstate),
            ("duration_ms", duration_ms),
        )
        if left_out.outcomes:
            meta += (("left_out", left_out.told()),)
        self.recording.accept(FrameKind.OUTCOME, "ctl", meta=meta)

    def rows(self, op_id: OperationId, columns: Sequence[str], lines: Sequence[str]) -> None:
        """Record rows as the client will see them: JSON lines, already masked. Memory. Raises RecordingUnavailable."""
        names: Json = list(columns)
        for text in _in_frames(lines):
            self.recording.accept(FrameKind.ROWS, "s2c", text, (("op", op_id), ("columns", names)))

    def rows_later(
        self, op_id: OperationId, columns: Sequence[str], rows: Sequence[bytes], text: Callable[[Sequence[bytes]], str]
    ) -> None:
        """As :meth:`rows`; ``text`` makes the lines of ``rows``, in any thread, when they are stored."""
        names: Json = list(columns)
        self.recording.accept_rows(rows, text, (("op", op_id), ("columns", names)))

    def notice(self, severity: str, sqlstate: str, text: str) -> None:
        """Record a notice as the client will see it. Memory. Raises RecordingUnavailable."""
        self.recording.accept(FrameKind.NOTICE, "s2c", text, (("severity", severity), ("sqlstate", sqlstate)))

    def data(self, op_id: OperationId, direction: str, text: str, encoding: str = "utf-8", *, stream: str = "") -> None:
        """Record bytes of a stream as text, masked; ``stream`` is ``stdin``, ``stdout`` or ``stderr`` where there are
        several. Memory. Raises RecordingUnavailable."""
        meta: tuple[tuple[str, Json], ...] = (("op", op_id), ("encoding", encoding))
        self.recording.accept(FrameKind.DATA, direction, text, meta + ((("stream", stream),) if stream else ()))

    def terminal(self, op_id: OperationId, term: str, cols: int, rows: int) -> None:
        """Record that a terminal was opened or resized. Memory. Raises RecordingUnavailable."""
        meta: tuple[tuple[str, Json], ...] = (("op", op_id), ("term", term), ("cols", cols), ("rows", rows))
        self.recording.accept(FrameKind.TERMINAL, "ctl", meta=meta)

    # -- whether it may go on --------------------------------------------------------------------------------------

    def check_alive(self) -> None:
        """Raise GrantExpired, GrantRevoked, RecordingUnavailable, StoreUnavailable (feed stale, clock off). Memory."""
        if self.recording.failure is not None:
            raise RecordingUnavailable("this connection is not recorded any more", failure=self.recording.failure)
        if self._now() >= self._expires_at:
            raise GrantExpired("the session is over")
        self._liveness.check(self.admission.liveness)
        self._audit.require_room()

    def ending(self) -> AccessError | None:
        """Return why the connection must end now, or None. Memory. A stale feed only stops forwarding, for 30 s."""
        if self.recording.failure is not None:
            return RecordingUnavailable("this connection is not recorded any more", failure=self.recording.failure)
        if self._now() >= self._expires_at:
            return GrantExpired("the session is over")
        try:
            self._audit.require_room()
        except AccessError as error:
            return error
        return self._liveness.ending(self.admission.liveness)

    @property
    def accepted(self) -> int:
        """The last frame's number."""
        return self.recording.accepted

    @property
    def durable_upto(self) -> int:
        """The last frame that the bucket acknowledged, with all before it."""
        return self.recording.durable_upto

    @property
    def behind(self) -> bool:
        """Whether to stop reading from both sides: 8 MiB or 2 s unacknowledged."""
        return self.recording.behind

    def flush(self) -> None:
        """Ask for all that was accepted to be made durable now. Memory; :meth:`on_progress` tells when."""
        self.recording.flush()

    def on_progress(self, callback: Callable[[], None]) -> None:
        """Have ``callback`` called, in any thread, when more is durable, the recording failed, or :meth:`ending` gives
        a reason. It must not block; several may be added."""
        with self._lock:
            self._listeners.append(callback)
        self.recording.on_progress(callback)

    def off_progress(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` no more. Idempotent."""
        with self._lock:
            if callback in self._listeners:
                self._listeners.remove(callback)
        self.recording.off_progress(callback)

    def _looked(self) -> None:
        """Called once a second: the feed was read (or not), and time went on."""
        ending = self.ending() is not None
        with self._lock:
            news = ending and not self._was_ending
            self._was_ending = ending
            listeners = tuple(self._listeners)
        if news:
            for listener in listeners:
                listener()

    @property
    def _expires_at(self) -> datetime:
        return min(self.admission.grant.expires_at, self.admission.chain.leaf.expires_at)

    def _now(self) -> datetime:
        return self._holds.clock.now()

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self, exit: str) -> None:
        """Seal: the last segment, the signed manifest, the row. Blocks. Idempotent; only the first ``exit`` counts.

        Never raises an AccessError: what could not be sealed stays unsealed in its row, for the sweeper.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._liveness.unwatch(self._looked)
        sealed = self._holds.recorder.seal(self.recording, replace(self._closing, exit=exit, ran=True))
        name = AuditName.CONNECTION_REVOKED if exit == GrantRevoked.code else AuditName.CONNECTION_SEALED
        try:
            self._audit.record(connection_event(name, self._now(), self.admission, self.id, code=exit))
        except Exception:
            _logger.exception("the end of a connection could not be audited", extra={"connection_id": self.id})
        _logger.info("a connection ended", extra={"connection_id": self.id, "exit": exit, "sealed": sealed})


def connection_event(
    name: AuditName, now: datetime, admission: Admission, connection_id: ConnectionId, *, code: str = ""
) -> AuditEvent:
    """Return the AuditEvent of one connection. Pure."""
    return AuditEvent(
        name=name,
        at=now,
        subject=connection_id,
        code=code,
        txn=admission.session.txn,
        session_id=admission.session.id,
        connection_id=connection_id,
        actor=admission.session.actor.key,
        target=admission.target.name,
        peer=admission.peer,
        acting=Acting.of(admission.chain),
        principal=admission.principal.name,
        protocol=admission.target.protocol.value,
        rules=admission.grant.rules,
        policy_digest=admission.grant.policy_digest,
        configuration_serial=admission.configuration_serial,
    )


def _touched(op: Operation) -> tuple[tuple[str, Json], ...]:
    """Return which tables ``op`` names, and whether it reads a column that a mask rule names: what reviews ask by."""
    contexts = [dict(act.context) for act in op.acts]
    tables = sorted({table for context in contexts for table in _texts(context.get("tables"))})[:MAX_TOUCHED]
    reads_masked = any(context.get("reads_masked") is True for context in contexts)
    listed: Json = list(tables)
    told: tuple[tuple[str, Json], ...] = (("tables", listed),) if tables else ()
    return told + ((("reads_masked", True),) if reads_masked else ())


def _texts(value: Json) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def _carries_mask(op: Operation) -> bool:
    """Return whether a mask's sentinel is anywhere in what would run: its values are not the target's own. Pure."""
    return any(carries_sentinel(part) for part in (op.text, op.exact, *op.binds))


def _in_frames(lines: Sequence[str]) -> Iterator[str]:
    """Give ``lines`` in texts that a frame holds whole, broken at a line's end wherever a line fits a frame. Pure."""
    whole = "\n".join(lines)
    if len(whole) <= MAX_TEXT:  # nearly always: an engine tells some hundred rows at once
        if lines:
            yield whole
        return
    text: list[str] = []
    size = 0
    for line in lines:
        if text and size + len(line) + 1 > MAX_TEXT:
            yield "\n".join(text)
            text, size = [], 0
        text.append(line)
        size += len(line) + 1
    if text:
        yield "\n".join(text)
