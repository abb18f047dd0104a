"""The broker's log: one JSON object a line on standard error, fields by allow-list; and AuditEvents as such lines.

Rules: a record's message is a fixed text of ours; what varies travels in named fields, and only those in ``_FIELDS``
are written, so that no statement, value, secret or address of a target reaches a log by accident. An exception's
traceback is written; its locals are not. In ECS the number of open sessions is such a line too, in the form that
CloudWatch makes a metric of: no call, no right and no library is needed for it.

Source: CloudWatch, "Embedded metric format specification".
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from chalicelib.domain.canonical import Json, timestamp

MAX_FIELD: Final = 500  # characters of one field: a log line is read by people and billed by the byte
_FIELDS: Final = frozenset(
    {"peer", "how", "why", "code", "session", "connection", "connection_id", "session_id", "target", "failure", "exit"}
    | {
        "sealed",
        "number",
        "key",
        "thread_step",
        "host",
        "port",
        "build",
        "boot",
        "operation",
        "ask",
        "serial",
        "limit_s",
        "live",
    }
    | {"ask_id", "segment", "policy_digest", "sqlstate", "protocol"}
)
_AUDIT: Final = "audit"
_METRIC: Final = "metric"
METRICS: Final = "Countersign"  # their namespace
SESSIONS: Final = "Sessions"


class JsonLines(logging.Formatter):
    """Writes a record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, object] = {
            "at": timestamp(moment),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name in _FIELDS:
                line[name] = _shown(value)
        audit = vars(record).get(_AUDIT)
        if isinstance(audit, dict):
            line[_AUDIT] = audit
        metric = vars(record).get(_METRIC)
        if isinstance(metric, dict):
            line |= metric
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def _shown(value: object) -> object:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, dict):
        # A refusal's detail: its parts by the same list.
        return {str(name): str(part)[:MAX_FIELD] for name, part in value.items() if name in _FIELDS}
    return str(value)[:MAX_FIELD]


def log_to_stderr() -> None:
    """Send every log record of this process to standard error, as JSON lines. Call it once, first."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("botocore").setLevel(logging.WARNING)


def log_event(row: Mapping[str, Json]) -> None:
    """Write an AuditEvent's row as a line, named by its event: bounded and allow-listed where rows are made."""
    logging.getLogger(_AUDIT).info(str(row["name"]), extra={_AUDIT: dict(row)})


def log_sessions(live: int, *, name: str, at: datetime) -> None:
    """Write how many sessions are open as a metric of the deployment called ``name``, which others in the account have
    too."""
    described: dict[str, object] = {"Namespace": METRICS, "Dimensions": [["Service", "Name"]]}
    described |= {"Metrics": [{"Name": SESSIONS, "Unit": "Count"}]}
    values = {SESSIONS: live, "Service": "broker", "Name": name}
    aws = {"Timestamp": int(at.timestamp() * 1000), "CloudWatchMetrics": [described]}
    logging.getLogger(__name__).info("sessions", extra={_METRIC: {"_aws": aws, **values}})
