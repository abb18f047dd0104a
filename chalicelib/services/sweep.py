"""The sweeper: seals the connections of brokers that are dead, so that nobody takes them for open.

When a row's broker counts as dead, one of:
- *silent*: its boot's beat is older than ``SILENT_AFTER`` (or was never there). A broker that cannot reach the tables
  has ended every connection by then, and one that lives beats many times meanwhile. That no segment came lately says
  nothing: an idle client makes none for hours.
- *over*: the target hop, so the grant, ended more than ``OVER_AFTER`` ago. No connection outlives its grant: its broker
  lives, and could not seal.
A row that is younger than ``SILENT_AFTER`` is left alone: the boot's first beat may be on its way.

Being wrong costs a live connection and no evidence: the seal is a fence first (``seal_orphan``). One that fails is left
for the next run, and never stops the others. Any number may run at once. Source: security.md, "Recording and evidence".
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import Json
from chalicelib.domain.clock import Clock
from chalicelib.domain.connection import SILENT_AFTER, ConnectionRow
from chalicelib.domain.errors import AccessError
from chalicelib.domain.recording import BROKER_LOST
from chalicelib.domain.store import Beats, Chains, Connections
from chalicelib.services.seal_orphan import Sealed, SealOrphan

# A broker ends a connection with its grant and seals within ``CLOSE_WITHIN_S`` (30 s); a restarted one, with its
# predecessor's spool, within minutes more.
OVER_AFTER: Final = timedelta(minutes=10)
RUN_S: Final = 240.0  # of the function's 300 s: the last connection begun still has a minute


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """How one run went, in rows. ``left``: its time was over."""

    sealed: int = 0
    by_others: int = 0
    alive: int = 0
    failed: int = 0
    left: int = 0

    def told(self) -> dict[str, Json]:
        return asdict(self)


class Sweep:
    """One run a call. Idempotent; may run anywhere at once."""

    def __init__(
        self,
        *,
        connections: Connections,
        beats: Beats,
        chains: Chains,
        seal: SealOrphan,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._connections = connections
        self._beats = beats
        self._chains = chains
        self._seal = seal
        self._clock = clock
        self._audit = audit

    def __call__(self) -> Swept:
        """Look at every unsealed row. Raises StoreUnavailable where they cannot be listed."""
        began = self._clock.monotonic_s()
        swept = Swept()
        silent: dict[str, bool] = {}
        for row in self._connections.unsealed():
            if self._clock.monotonic_s() - began > RUN_S:
                swept = replace(swept, left=swept.left + 1)
                continue
            swept = self._one(row, silent, swept)
        return swept

    def _one(self, row: ConnectionRow, silent: dict[str, bool], swept: Swept) -> Swept:
        try:
            why = self._why_dead(row, silent)
            if not why:
                return replace(swept, alive=swept.alive + 1)
            done = self._seal(row)
            if done is Sealed.BY_OTHERS:
                return replace(swept, by_others=swept.by_others + 1)
            self._audit.record(self._event(row, why))
            return replace(swept, sealed=swept.sealed + 1)
        except AccessError as error:
            refused = error
        except Exception as error:  # noqa: BLE001 - whatever one recording can break, the rows behind it must be sealed
            refused = AccessError(f"its recording could not be read: {type(error).__name__}")
        self._audit.record(replace(self._event(row, refused.public), code=refused.code))
        return replace(swept, failed=swept.failed + 1)

    def _why_dead(self, row: ConnectionRow, silent: dict[str, bool]) -> str:
        """Return why the row's broker counts as dead; nothing where it does not."""
        now = self._clock.now()
        if now - row.opened_at < SILENT_AFTER:
            return ""
        if row.boot not in silent:
            silent[row.boot] = self._is_silent(row.boot, now)
        if silent[row.boot]:
            return f"its broker {row.boot} is silent"
        hop = self._chains.hops(row.txn).get(row.target_hop)
        if hop is not None and now - hop.expires_at > OVER_AFTER:
            return "its grant is over, and its broker did not seal it"
        return ""

    def _is_silent(self, boot: str, now: datetime) -> bool:
        beat = self._beats.last(boot)
        return beat is None or now - beat.at > SILENT_AFTER

    def _event(self, row: ConnectionRow, why: str) -> AuditEvent:
        return AuditEvent(
            name=AuditName.CONNECTION_SEALED,
            at=self._clock.now(),
            code=BROKER_LOST,
            txn=row.txn,
            session_id=row.session_id,
            connection_id=row.id,
            target=row.target,
            principal=row.principal,
            peer=row.peer,
            why=why,
        )
