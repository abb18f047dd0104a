"""Tell that a recording is replayed, before a byte of it is shown: who reads what others did is a fact for auditors.

Rules: whoever replays needs a rule that permits ``chain:review`` with ``context.what`` ``replay``, also for a session
of their own chain; what is not allowed and what is not there are one answer. The command line asks for this and shows
nothing where it is refused, or where nobody could be told.

What it does not do: hand out the recording. Who replays reads the bucket with rights of their own, which CloudTrail's
data events tell apart from this; an offline copy is told nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chalicelib.config.bundle import Bundles
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import NotFound
from chalicelib.domain.identifiers import SESSION_ID, SessionId
from chalicelib.domain.session import Session
from chalicelib.domain.store import Sessions
from chalicelib.services.access import CHAIN_REVIEW
from chalicelib.services.identify import Caller
from chalicelib.services.permitted import permits

WHAT: Final = "replay"  # ``context.what`` of the question whether the caller may


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayWanted:
    """What is about to be shown: a session's recordings, or of one connection, as the asker says (no role of ours that
    serves the API reads connections). ``form`` is terminal, page or json; ``begin`` says where it begins ("90 s", an
    operation's id), empty for the whole."""

    session_id: str
    connection_id: str
    form: str
    begin: str


class TellReplay:
    """Records replays. Writes nothing but the audit."""

    def __init__(self, *, bundles: Bundles, sessions: Sessions, clock: Clock, audit: AuditLog) -> None:
        self._bundles = bundles
        self._sessions = sessions
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, wanted: ReplayWanted) -> datetime:
        """Return when it was told. Not idempotent: replayed twice is two facts.

        Raises NotFound for what is not there and what the caller may not see, which is audited too; StoreUnavailable,
        ConfigurationInvalid, and whatever the audit raises where it cannot write.
        """
        now = self._clock.now()
        try:
            session = self._session(caller, wanted, now)
        except NotFound:
            self._record(AuditName.REPLAY_REFUSED, caller, wanted, None, now)
            raise
        self._record(AuditName.RECORDING_REPLAYED, caller, wanted, session, now)
        return now

    def _session(self, caller: Caller, wanted: ReplayWanted, now: datetime) -> Session:
        if permits(self._bundles.current(), caller, CHAIN_REVIEW, WHAT, now) is None:
            raise _nothing(wanted)
        if not SESSION_ID.match(wanted.session_id):
            raise _nothing(wanted)
        try:
            return self._sessions.get(SessionId(wanted.session_id))
        except NotFound:
            raise _nothing(wanted) from None

    def _record(
        self, name: AuditName, caller: Caller, wanted: ReplayWanted, session: Session | None, now: datetime
    ) -> None:
        known = wanted.session_id if SESSION_ID.match(wanted.session_id) else ""
        self._audit.record(
            AuditEvent(
                name=name,
                at=now,
                subject=wanted.form,
                code="" if session is not None else NotFound.code,
                txn="" if session is None else session.txn,
                session_id=known,
                connection_id="" if session is None else wanted.connection_id,
                target="" if session is None else session.request.target,
                principal="" if session is None else session.request.principal,
                actor=caller.actor.key,
                acting=Acting.of(caller.chain),
                why=f"{'the whole' if not wanted.begin else f'from {wanted.begin}'}, by a caller of {caller.chain.txn}",
            )
        )


def _nothing(wanted: ReplayWanted) -> NotFound:
    known = wanted.session_id if SESSION_ID.match(wanted.session_id) else "no id of ours"  # it goes into the log
    return NotFound("there is no such recording, or you may not see it", hint="Check the id.", key=known)
