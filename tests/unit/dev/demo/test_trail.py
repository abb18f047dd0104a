"""The audit trail as the demo reads it: events out of every part's log, and nothing that only looks like one."""

from __future__ import annotations

import json
from pathlib import Path

from dev.demo.trail import Trail
from dev.settings import SystemClock


def line(name: str, **audit: str) -> str:
    return json.dumps({"message": name, "audit": audit}) + "\n"


def test_events_are_found_in_every_log_with_the_part_that_wrote_them(tmp_path: Path) -> None:
    """The broker, the API and the functions each write their own."""
    (tmp_path / "broker.log").write_text(line("connection.refused", target="db-prod") + '{"message": "connection.ref')
    (tmp_path / "sign.log").write_text("Traceback:\n" + line("token.refused", code="run_bound"))
    (tmp_path / "db-prod.log").write_text("Failed password for connection.refused\n")
    trail = Trail(tmp_path, SystemClock())
    assert list(trail.events("connection.refused")) == [{"target": "db-prod", "part": "broker"}]
    assert trail.count("token.refused", lambda event: event.get("code") == "run_bound") == 1


def test_a_line_without_an_audit_is_no_event(tmp_path: Path) -> None:
    """A log line of ours may have the same words."""
    (tmp_path / "api.log").write_text('{"message": "token.refused"}\n["token.refused"]\n')
    assert list(Trail(tmp_path, SystemClock()).events("token.refused")) == []


def test_an_old_event_does_not_stand_for_a_new_one(tmp_path: Path) -> None:
    """The story tries several things that are refused by one name: each must be seen for itself."""
    log = tmp_path / "decide.log"
    log.write_text(line("answer.refused", actor="first"))
    trail = Trail(tmp_path, SystemClock(), within_s=0)
    found = trail.find("answer.refused", lambda _: True)
    assert found is not None
    assert found["actor"] == "first"
    assert trail.find("answer.refused", lambda _: True, more_than=1) is None
    log.write_text(log.read_text() + line("answer.refused", actor="second"))
    found = trail.find("answer.refused", lambda _: True, more_than=1)
    assert found is not None
    assert found["actor"] == "second"
