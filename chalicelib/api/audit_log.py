"""AuditEvents and our own log as structured lines, every field named in advance.

Rules: only an AuditEvent's own row and the fields of :data:`_ALLOWED` are ever written, so that no body, header, token
or card can reach a log by accident. What cannot be written raises: nothing is audited by being dropped.
"""

from __future__ import annotations

import threading
from typing import Final

from aws_lambda_powertools import Logger

from chalicelib.domain.audit import AuditEvent
from chalicelib.domain.errors import AccessError
from chalicelib.domain.identifiers import ulid
from chalicelib.services.event_lines import AUDIT

# What a refusal's detail may carry into the log: ids and names of ours, never a text that somebody sent.
_ALLOWED: Final = frozenset(
    {"session", "ask", "connection", "hop", "txn", "key", "rules", "target", "known", "in_scope", "store", "error"}
    | {"function", "operation", "reference", "serial", "by"}
)


class LogAudit:
    """Writes AuditEvents as log lines, which a subscription brings to the ``events`` function, and that to the locked
    bucket. One for each process: it numbers what it tells."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._writer = ""
        self._number = 0

    def record(self, event: AuditEvent) -> None:
        with self._lock:
            self._writer = self._writer or f"fn_{ulid(event.at)}"
            number, self._number = self._number, self._number + 1
        self._logger.info(event.name.value, extra={AUDIT: event.row(writer=self._writer, number=number)})


def log_refusal(logger: Logger, error: AccessError, request_id: str) -> None:
    """Write that a request was refused: its code and what of its detail may be written."""
    detail = {name: str(value)[:200] for name, value in error.detail.items() if name in _ALLOWED}
    logger.info("refused", extra={"code": error.code, "request_id": request_id, "detail": detail})
