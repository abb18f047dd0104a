"""``/v1/holds``: who may put a legal hold, who may lift it, and what is kept of either."""

from __future__ import annotations

from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.domain.audit import AuditName
from chalicelib.domain.identifiers import SessionId
from chalicelib.services.legal_holds import read_holds
from tests.fakes.control_plane import ControlPlane
from tests.fakes.keys import Key
from tests.functional.test_signoffs import Reviewed, _files
from tests.functional.world import Holder, World

_POLICY = """
@id("people-hold") permit (principal in Team::"people", action == Action::"evidence:hold", resource);
@id("security-lifts") permit (principal in Team::"people", action == Action::"evidence:lift", resource);
"""


class Held(Reviewed):
    """The sign-offs' day, where people may hold and lift."""

    def __init__(self) -> None:
        World.__init__(self)
        files = _files()
        files["policies/main.cedar"] += _POLICY
        self.plane = ControlPlane(files=files)
        self.sessions = [self.session(self.runner)]
        self.alice = self.login("alice", Key())
        self.plane.clock.advance(1)
        self.dave = self.login("dave", Key())

    def hold(self, holder: Holder, subject: str, **more: Any) -> HTTPResponse:
        return self.post(holder, "/v1/holds", **({"subject": subject, "reason": "case 7"} | more))

    def lift(self, holder: Holder, hold_id: str) -> HTTPResponse:
        return self.post(holder, f"/v1/holds/{hold_id}/lift", reason="case 7 is closed")

    def facts(self) -> list[str]:
        return [key for key in self.plane.stores.objects.rows if key.startswith("holds/")]


@pytest.fixture(scope="module")
def shared() -> Held:
    return Held()


@pytest.fixture
def day(shared: Held) -> Held:
    return shared


def told(answer: HTTPResponse) -> tuple[int, str]:
    return answer.status_code, str(answer.json_body.get("code", ""))


def test_a_hold_is_put_told_listed_and_lifted(day: Held) -> None:
    """Each is a fact that nobody can change afterwards, and an event with who and why."""
    put = day.hold(day.alice, day.sessions[0])
    assert told(put) == (201, ""), put.json_body
    hold_id = put.json_body["id"]
    (hold,) = [one for one in read_holds(day.plane.stores.objects).active if one.id == hold_id]
    assert (hold.subject, hold.reason, hold.kind.value) == (day.sessions[0], "case 7", "session")
    assert hold.by.endswith("#alice")
    assert day.audited(AuditName.EVIDENCE_HELD.value)[-1].subject == hold_id
    assert told(day.lift(day.alice, hold_id)) == (201, "")
    assert told(day.lift(day.alice, hold_id)) == (409, "already_exists")
    assert hold_id not in {one.id for one in read_holds(day.plane.stores.objects).active}
    assert day.audited(AuditName.EVIDENCE_LIFTED.value)[-1].why == "case 7 is closed"
    listed = day.get(day.alice, "/v1/holds").json_body["holds"]
    assert [one["lift_reason"] for one in listed if one["id"] == hold_id] == ["case 7 is closed"]


def test_a_target_is_held_from_a_day_on(day: Held) -> None:
    """Without a day it would say nothing about how far back it looks; a misspelt name would hold nothing."""
    assert told(day.hold(day.alice, "orders-prod")) == (400, "bad_request")
    assert told(day.hold(day.alice, "orders-prod", since="2026-13-01")) == (400, "bad_request")
    assert told(day.hold(day.alice, "orders-prdo", since="2026-01-31")) == (404, "not_found")
    made = day.hold(day.alice, "orders-prod", since="2026-01-31")
    assert (made.status_code, made.json_body["since"]) == (201, "2026-01-31")


@pytest.mark.parametrize("subject", ["ses_01m6dsg7e0fwejtv7egfb0rbxm", "01m6dsg7e0fwejtv7egfb0rbxm"])
def test_what_is_not_there_is_not_held(day: Held, subject: str) -> None:
    """A hold that names nothing would be believed to hold something."""
    before = day.facts()
    assert told(day.hold(day.alice, subject)) == (404, "not_found")
    assert day.facts() == before


def test_who_no_rule_permits_holds_lifts_and_lists_nothing(day: Held) -> None:
    """Attack: a run holds everything, so that nothing is ever deleted, or lifts what is held of it."""
    hold_id = day.hold(day.alice, day.sessions[0]).json_body["id"]
    before = day.facts()
    runner = day.runner
    assert told(day.hold(runner, day.sessions[0])) == (403, "not_permitted")
    assert told(day.lift(runner, hold_id)) == (403, "not_permitted")
    unknown = day.lift(runner, "hld_01m6dsg7e0fwejtv7egfb0rbxm")
    assert told(unknown) == (403, "not_permitted"), "which holds there are is not theirs to know"
    assert told(day.get(runner, "/v1/holds")) == (403, "not_permitted")
    assert day.facts() == before
    assert {event.code for event in day.audited(AuditName.HOLD_REFUSED.value)} >= {"not_permitted"}


def test_who_is_behind_the_run_does_not_lift_the_hold_on_it(day: Held) -> None:
    """Attack: Dave's pipeline is under investigation, and a rule permits Dave to lift holds."""
    session = day.plane.stores.sessions.get(SessionId(day.sessions[0]))
    for subject in (day.sessions[0], session.txn):
        hold_id = day.hold(day.dave, subject).json_body["id"]
        assert told(day.lift(day.dave, hold_id)) == (403, "not_permitted")
        assert told(day.lift(day.alice, hold_id)) == (201, "")


def test_a_reason_is_one_line(day: Held) -> None:
    """It is shown in reviews, beside what the reader believes."""
    for reason in ("", "   ", "a\nVERIFIED", "a\u2028b", "x" * 501):
        assert told(day.hold(day.alice, day.sessions[0], reason=reason))[0] == 400
