"""AuditEvent: a fact for auditors, in the past tense.

Names are permanent; fields are allow-listed here, so that a secret has no field to travel in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class AuditName(StrEnum):
    TOKEN_EXCHANGED = "token.exchanged"
    TOKEN_REFUSED = "token.refused"
    SESSION_REQUESTED = "session.requested"
    SESSION_GRANTED = "session.granted"
    SESSION_REFUSED = "session.refused"
    SESSION_CLOSED = "session.closed"
    CARD_POSTED = "card.posted"
    CARD_FAILED = "card.failed"
    ANSWER_GIVEN = "answer.given"
    ANSWER_REFUSED = "answer.refused"
    CREDENTIAL_MINTED = "credential.minted"
    CREDENTIAL_REFUSED = "credential.refused"
    CONNECTION_OPENED = "connection.opened"
    CONNECTION_REFUSED = "connection.refused"
    CONNECTION_SEALED = "connection.sealed"
    CONNECTION_REVOKED = "connection.revoked"
    TICKET_ISSUED = "ticket.issued"
    TICKET_REFUSED = "ticket.refused"
    CHAIN_EXTENDED = "chain.extended"
    CHAIN_REVOKED = "chain.revoked"
    REVOCATION_REFUSED = "revocation.refused"
    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_REFUSED = "certificate.refused"
    CHAIN_REVIEWED = "chain.reviewed"
    TARGET_LOGIN_REFUSED = "target.login_refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditEvent:
    """``code`` is the refusal's code or empty; ``subject`` what it is about; the rest is empty where unknown."""

    name: AuditName
    at: datetime
    subject: str = ""
    code: str = ""
    txn: str = ""
    session_id: str = ""
    connection_id: str = ""
    ask_id: str = ""
    actor: str = ""
    target: str = ""
    peer: str = ""
    why: str = field(default="")


class AuditLog(Protocol):
    """Takes events. An implementation that cannot write raises: nothing is audited by being dropped."""

    def record(self, event: AuditEvent) -> None: ...
