"""AuditEvents and our own log as structured lines, every field named in advance.

Rules: only the fields of :class:`AuditEvent` and of :data:`_ALLOWED` are ever written, so that no body, header, token
or card can reach a log by accident. What cannot be written raises: nothing is audited by being dropped.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from aws_lambda_powertools import Logger

from chalicelib.domain.audit import AuditEvent
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import AccessError

# What a refusal's detail may carry into the log: ids and names of ours, never a text that somebody sent.
_ALLOWED: Final = frozenset(
    {"session", "ask", "connection", "hop", "txn", "key", "rules", "target", "known", "in_scope", "store", "error"}
    | {"function", "operation", "reference", "serial", "by"}
)


class LogAudit:
    """Writes AuditEvents as log lines, which CloudWatch keeps and ships to the locked bucket."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger

    def record(self, event: AuditEvent) -> None:
        fields = {
            field.name: getattr(event, field.name)
            for field in dataclasses.fields(event)
            if field.name not in ("name", "at") and getattr(event, field.name)
        }
        self._logger.info(event.name.value, extra={"audit": {"at": timestamp(event.at), **fields}})


def log_refusal(logger: Logger, error: AccessError, request_id: str) -> None:
    """Write that a request was refused: its code and what of its detail may be written."""
    detail = {name: str(value)[:200] for name, value in error.detail.items() if name in _ALLOWED}
    logger.info("refused", extra={"code": error.code, "request_id": request_id, "detail": detail})
