"""The one mapping from our refusals to PostgreSQL's errors.

Rules: every kind of AccessError has a row (a test walks all leaf classes); anything else is ``internal``; the text is
the error's public sentence, the hint its next step, and the detail JSON for programs. Before a session is admitted a
refusal of *who you are* has one text whatever its cause, so that a stranger cannot tell an unknown session from a wrong
secret.

Source: PostgreSQL 15, appendix A; models.md (d).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from broker.wire.postgres import fields
from chalicelib.domain import errors
from chalicelib.domain.identifiers import OperationId
from chalicelib.domain.operation import Block

# First match in order of the class's own line of descent, so a kind covers its special cases.
_STATES: Final[Mapping[type[errors.AccessError], str]] = {
    errors.BadRequest: "22023",
    errors.Unauthenticated: "28000",
    errors.Denied: "42501",
    errors.NotFound: "28000",
    errors.Conflict: "55000",
    errors.Limited: "53300",
    errors.TargetUnavailable: "08006",
    errors.StoreUnavailable: "57P03",
    errors.RecordingUnavailable: "57P03",
    errors.ConfigurationInvalid: "57P03",
    errors.ProtocolViolation: "08P01",
    errors.AccessError: "XX000",
}
# A connection that is open and must end: the client's pools know 57P01 as "the server ends this, connect again".
ENDED: Final = "57P01"
BLOCKED: Final = "42501"
WRONG_SECRET: Final = "28P01"


def sqlstate(error: errors.AccessError) -> str:
    """Return the SQLSTATE of a refusal before the relay. Pure."""
    return next(_STATES[cls] for cls in type(error).__mro__ if cls in _STATES)


def before_relay(error: errors.AccessError, session_id: str) -> bytes:
    """Return the FATAL of a connection that was not opened."""
    detail = _detail(code=error.code, session=session_id)
    return fields.error("FATAL", sqlstate(error), error.public, detail=detail, hint=error.next_step)


def wrong_secret() -> bytes:
    """Return the FATAL of a proof that does not match: one text for every cause."""
    return fields.error(
        "FATAL",
        WRONG_SECRET,
        "the session id or its secret is not valid",
        detail=_detail(code=errors.ProofInvalid.code),
        hint=errors.ProofInvalid.hint,
    )


def ended(error: errors.AccessError, connection_id: str) -> bytes:
    """Return the FATAL that ends an open connection."""
    state = "08P01" if isinstance(error, errors.ProtocolViolation) else ENDED
    detail = _detail(code=error.code, connection=connection_id)
    return fields.error("FATAL", state, error.public, detail=detail, hint=error.next_step)


def blocked(block: Block, op_id: OperationId) -> bytes:
    """Return the ERROR of a refused operation: the session lives."""
    detail = _detail(code=block.code, operation=op_id, rules=list(block.ruling.rules))
    return fields.error("ERROR", BLOCKED, block.public, detail=detail, hint=block.hint)


def refused(state: str, message: str, hint: str, code: str) -> bytes:
    """Return an ERROR of the broker itself, where no policy was asked."""
    return fields.error("ERROR", state, message, detail=_detail(code=code), hint=hint)


def internal() -> bytes:
    """Return the FATAL of a bug of ours: it says nothing."""
    return fields.error("FATAL", "XX000", "the broker failed", detail=_detail(code="internal"))


def _detail(**facts: object) -> str:
    return json.dumps({name: value for name, value in facts.items() if value}, separators=(",", ":"))
