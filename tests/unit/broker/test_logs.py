"""The broker's log: named fields only, whatever somebody put on a record."""

from __future__ import annotations

import json
import logging

from broker.logs import JsonLines, log_event, log_sessions
from chalicelib.domain.audit import AuditEvent, AuditName
from tests.fakes.clock import START


class Kept(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)


def line(**extra: object) -> dict[str, object]:
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "happened", **extra})
    found: dict[str, object] = json.loads(JsonLines().format(record))
    return found


def test_only_named_fields_are_written() -> None:
    """A secret or a statement has no field to travel in."""
    found = line(peer="127.0.0.1", secret="s3cret", text="select 1", why={"sqlstate": "42501", "host": 5, "sql": "x"})
    assert found["peer"] == "127.0.0.1"
    assert found["why"] == {"sqlstate": "42501", "host": "5"}
    assert "s3cret" not in json.dumps(found)
    assert "select 1" not in json.dumps(found)


def test_a_field_is_bounded_and_a_line_is_one_line() -> None:
    """Log lines are split at newlines by whoever reads them."""
    raw = JsonLines().format(logging.makeLogRecord({"msg": "a\nb", "why": "x\n" * 10_000}))
    assert "\n" not in raw
    assert len(raw) < 2_000


def test_an_exceptions_traceback_is_written() -> None:
    """A bug of ours must be found from the log alone."""
    error = ValueError("broken")
    found = line(exc_info=(ValueError, error, None))
    assert "ValueError: broken" in str(found["exception"])


def test_an_audit_event_is_a_line_with_its_own_fields() -> None:
    """The line is the event's own row, so that what reads logs and what reads the bucket read one thing."""
    row = AuditEvent(name=AuditName.CONNECTION_OPENED, at=START, subject="con_1").row(writer="boot_1", number=0)
    handler = Kept()
    log = logging.getLogger("audit")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        log_event(row)
    finally:
        log.removeHandler(handler)
    found = json.loads(JsonLines().format(handler.seen[0]))
    assert found["message"] == "connection.opened"
    assert found["audit"] == row
    assert (row["at"], row["subject"], row["writer"]) == ("2026-11-02T09:30:00.000Z", "con_1", "boot_1")


def test_the_number_of_sessions_is_a_metric_of_its_deployment() -> None:
    """The service scales by it: CloudWatch takes names, dimensions and the value from the line itself."""
    kept = Kept()
    logger = logging.getLogger("broker.logs")
    logger.addHandler(kept)
    level, logger.level = logger.level, logging.INFO
    try:
        log_sessions(7, name="countersign-prod", at=START)
    finally:
        logger.removeHandler(kept)
        logger.setLevel(level)
    (record,) = kept.seen
    found = json.loads(JsonLines().format(record))
    assert (found["Sessions"], found["Service"], found["Name"]) == (7, "broker", "countersign-prod")
    (described,) = found["_aws"]["CloudWatchMetrics"]
    assert described["Namespace"] == "Countersign"
    assert described["Metrics"] == [{"Name": "Sessions", "Unit": "Count"}]
    assert all(found[name] for names in described["Dimensions"] for name in names)
    assert found["_aws"]["Timestamp"] == int(START.timestamp() * 1000)
