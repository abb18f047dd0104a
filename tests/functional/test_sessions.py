"""``/v1/sessions``: asking, waiting, taking, closing; and every way of asking wrongly."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.ask import UseKind
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import SessionStatus
from chalicelib.domain.verifier import verifier_of
from tests.fakes.control_plane import FILES, ControlPlane
from tests.fakes.keys import Key
from tests.functional.session_answers import refused

# -- what is permitted ---------------------------------------------------------------------------------------------


def test_a_permitted_session_is_granted_at_once(plane: ControlPlane) -> None:
    """The contract of issue 2 for pipelines, field by field: a curl script reads these names."""
    answer = plane.ask(plane.token(), "orders-dev")
    assert answer.status_code == 201
    body = answer.json_body
    assert set(body) == {"session_id", "status", "txn", "expires_at", "connect"}
    assert body["status"] == "granted"
    connect = body["connect"]
    assert set(connect) == {"protocol", "host", "port", "ca_pem", "user", "secret", "database", "env", "command"}
    assert (connect["protocol"], connect["host"], connect["port"]) == ("postgres", "broker.example.com", 5432)
    assert (connect["user"], connect["database"]) == (body["session_id"], "orders")
    assert connect["env"] == {
        "PGHOST": "broker.example.com",
        "PGPORT": "5432",
        "PGUSER": body["session_id"],
        "PGDATABASE": "orders",
        "PGSSLMODE": "verify-full",
        "PGPASSWORD": connect["secret"],
    }
    (session,) = plane.stores.sessions.rows.values()
    assert session.grant is not None
    assert session.verifier is not None
    again = verifier_of(Secret(connect["secret"]), _salt(session.verifier.salt))
    assert again == session.verifier
    assert body["expires_at"] == timestamp(session.grant.expires_at)


def test_the_grant_is_capped_by_target_and_hop(plane: ControlPlane) -> None:
    """A wish for twelve hours must not outlive what the target allows, nor what the run has left."""
    key = Key()
    plane.ask(plane.token(key=key), "orders-dev", by=key, duration_s=43_200)
    plane.clock.advance(8 * 3600 - 600)
    plane.ask(plane.token(key=key), "orders-dev", by=key, duration_s=1800)
    first, second = (session.grant for session in plane.stores.sessions.rows.values())
    assert first is not None
    assert second is not None
    assert (first.expires_at - first.not_before).total_seconds() == 1800
    assert (second.expires_at - second.not_before).total_seconds() == 600


def test_no_table_holds_a_secret(plane: ControlPlane) -> None:
    """Whoever reads the tables must not be able to log in, with or without an Idempotency-Key."""
    secret = plane.ask(plane.token(), "orders-dev", key="k1").json_body["connect"]["secret"]
    assert secret not in repr(plane.snapshot())
    assert secret not in plane.log.getvalue()


# -- what needs people ---------------------------------------------------------------------------------------------


def test_a_session_that_needs_people_waits_for_them(plane: ControlPlane) -> None:
    """Ask, card, click, grant: and the secret is given once, to who asked."""
    token = plane.token()
    pending = plane.ask(token, "orders-prod")
    assert pending.status_code == 202
    body = pending.json_body
    assert set(body) == {"session_id", "status", "txn", "approval", "poll"}
    assert body["approval"]["needs"] == [
        {
            "rule": "prod-open",
            "group": "dba",
            "count": 1,
            "webauthn": False,
            "missing": 1,
            "hint": "ask the dba on call",
        }
    ]
    assert body["poll"] == f"/v1/sessions/{body['session_id']}?wait_s=5"
    assert 2 <= int(pending.headers["Retry-After"]) <= 5
    assert plane.click(plane.card(), "UALICE").status_code == 200
    granted = plane.http.get(body["poll"], headers={"authorization": f"Bearer {token}"})
    assert granted.status_code == 200
    assert "secret" in granted.json_body["connect"]
    (session,) = plane.stores.sessions.rows.values()
    assert session.grant is not None
    assert session.grant.met == ("prod-open",)
    assert [use.kind for use in plane.stores.uses.rows.values()] == [UseKind.RAN]
    later = plane.poll(token, body["session_id"])
    assert later.status_code == 200
    assert "secret" not in later.json_body["connect"]
    assert "PGPASSWORD" not in later.json_body["connect"]["env"]


def test_a_look_takes_nothing(plane: ControlPlane) -> None:
    """`countersign status` in another terminal must not use up the secret that `exec` waits for."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE")
    assert "secret" not in plane.poll(token, session_id, "?take=false").json_body["connect"]
    assert "secret" in plane.poll(token, session_id).json_body["connect"]


def test_racing_polls_share_one_grant_and_one_secret(plane: ControlPlane) -> None:
    """Twenty polls that see the approval at once must use it once, and one of them gets the secret."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE")
    services = plane.plane.services
    caller = services.identify(plane.presented(token, "GET", "/v1/targets"))
    with ThreadPoolExecutor(20) as pool:
        seen = list(pool.map(lambda _: services.poll(caller, session_id), range(20)))
    assert sum(getattr(standing, "secret", None) is not None for standing in seen) == 1
    assert len(plane.stores.uses.rows) == 1


def test_an_approval_whose_grant_was_lost_is_granted_by_the_next_poll(plane: ControlPlane) -> None:
    """A function may die between the Use and the grant: the people's answer must not be lost, nor used twice."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE")
    grant = plane.stores.sessions.grant
    setattr(plane.stores.sessions, "grant", _dies)  # noqa: B010 - an instance that dies, whatever the type says
    assert plane.poll(token, session_id).status_code == 500
    assert len(plane.stores.uses.rows) == 1
    setattr(plane.stores.sessions, "grant", grant)  # noqa: B010
    assert plane.poll(token, session_id).status_code == 200
    assert len(plane.stores.uses.rows) == 1


def test_a_refusal_closes_the_session(plane: ControlPlane) -> None:
    """One no ends it; the next poll must say so, and say what to do."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE", "deny")
    for _ in range(2):
        refused(plane.poll(token, session_id), 403, "approval_denied")
    assert plane.stores.sessions.rows[session_id].status is SessionStatus.CLOSED


def test_an_approval_that_comes_too_late_is_none(plane: ControlPlane) -> None:
    """A card must not be a standing offer: fifteen minutes after it nobody remembers why."""
    key = Key()
    session_id = plane.ask(plane.token(key=key), "orders-prod", by=key).json_body["session_id"]
    card = plane.card()
    plane.clock.advance(901)
    plane.click(card, "UALICE")
    assert not plane.stores.answers.rows
    refused(plane.poll(plane.token(key=key), session_id, by=key), 403, "approval_expired")


def test_two_people_where_who_started_it_is_no_person_of_ours(plane: ControlPlane) -> None:
    """An actor id that maps to nobody may be any approver's second account: it is as good as unknown."""
    body = plane.ask(plane.token(actor_id="31337"), "orders-prod").json_body
    assert (body["approval"]["trigger_known"], body["approval"]["needs"][0]["count"]) == (False, 2)


def test_two_people_where_nobody_knows_who_started_it(plane: ControlPlane) -> None:
    """A scheduled run names nobody: whoever scheduled it could be the one approver, so two must."""
    token = plane.token(event_name="schedule")
    body = plane.ask(token, "orders-prod").json_body
    assert (body["approval"]["trigger_known"], body["approval"]["needs"][0]["count"]) == (False, 2)
    card = plane.card()
    assert "Trigger unknown" in json.dumps(card.blocks)
    plane.click(card, "UALICE")
    assert plane.poll(token, body["session_id"]).status_code == 202
    plane.click(plane.card(), "UBOB")
    assert plane.poll(token, body["session_id"]).status_code == 200


def test_rules_that_changed_meanwhile_are_the_rules(plane: ControlPlane) -> None:
    """An approval satisfies the rule that asked for it; a newer rule that forbids must win."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE")
    closed = '@id("closed") forbid (principal, action, resource == Target::"orders-prod");\n'
    plane.bundles.activate(policy=FILES["policies/main.cedar"] + closed)
    refused(plane.poll(token, session_id), 403, "policy_denied")
    assert not plane.stores.uses.rows


def test_an_approver_who_left_the_group_counts_no_more(plane: ControlPlane) -> None:
    """Between click and grant somebody may lose the right that the click rested on."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE")
    plane.bundles.activate(approvers=FILES["approvers.yaml"].replace("Alice, groups: [dba]", "Alice, groups: []"))
    refused(plane.poll(token, session_id), 403, "policy_denied")


def test_an_answer_that_somebody_wrote_into_the_table_is_none(plane: ControlPlane) -> None:
    """Attack: whoever can write the answers table approves; only ``decide`` can sign."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE", "deny")
    ((key, answer),) = plane.stores.answers.rows.items()
    plane.stores.answers.rows[key] = replace(answer, approved=True)
    assert plane.poll(token, session_id).status_code == 202


def test_an_approval_of_another_request_is_none(plane: ControlPlane) -> None:
    """Approve X, try Y: the session's row is changed to ask for more than the card showed."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE")
    session = plane.stores.sessions.rows[session_id]
    plane.stores.sessions.rows[session_id] = replace(session, request=replace(session.request, duration_s=43_200))
    refused(plane.poll(token, session_id), 401, "proof_invalid")
    assert not plane.stores.uses.rows


# -- waiting -------------------------------------------------------------------------------------------------------


def test_a_waiting_poll_sees_the_approval(plane: ControlPlane) -> None:
    """A pipeline that waits is told within half a second of the click, not at its next poll."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    card = plane.card()
    plane.on_pause = lambda: plane.click(card, "UALICE")
    answer = plane.poll(token, session_id, "?wait_s=5")
    assert answer.status_code == 200
    assert plane.paused_s == 0.5


def test_a_wait_ends(plane: ControlPlane) -> None:
    """Five seconds at most: API Gateway and the click behind it wait too."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    assert plane.poll(token, session_id, "?wait_s=5").status_code == 202
    assert plane.paused_s == pytest.approx(5)


def test_waiting_pipelines_fill_the_room_and_clicks_go_on(plane: ControlPlane) -> None:
    """Attack: waiting pipelines use up the function that takes the clicks. Past the bound nobody waits, and the click
    is answered and counts."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    card = plane.card()
    for place in range(4):
        until = plane.clock.now().replace(year=2100)
        plane.stores.once.claim("wait", str(place), "", expires_at=until, now=plane.clock.now())
    for _ in range(8):
        assert plane.poll(token, session_id, "?wait_s=5").status_code == 202
    assert plane.paused_s == 0
    assert plane.click(card, "UALICE").status_code == 200
    assert plane.poll(token, session_id, "?wait_s=5").status_code == 200


def test_at_most_as_many_wait_as_there_are_places() -> None:
    """The bound is over all processes of the function: it is counted in the table, not in memory."""
    plane = ControlPlane(waiters=3)
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    waited = []

    def look() -> None:
        waited.append(len([key for key in plane.stores.once.rows if key.startswith("wait#")]))
        if len(waited) < 40:
            plane.poll(token, session_id, "?wait_s=5")

    plane.on_pause = look
    plane.poll(token, session_id, "?wait_s=5")
    assert max(waited) <= 3


# -- again, and somebody else's ------------------------------------------------------------------------------------


def test_a_retried_request_gets_its_session_with_a_new_secret(plane: ControlPlane) -> None:
    """Attack: a retried POST replays a stored secret. The answer is made anew, and the earlier secret is void."""
    token = plane.token()
    first = plane.ask(token, "orders-dev", key="deploy-7").json_body
    second = plane.ask(token, "orders-dev", key="deploy-7").json_body
    assert second["session_id"] == first["session_id"]
    assert second["connect"]["secret"] != first["connect"]["secret"]
    (session,) = plane.stores.sessions.rows.values()
    assert session.verifier is not None
    salt = _salt(session.verifier.salt)
    assert verifier_of(Secret(second["connect"]["secret"]), salt) == session.verifier
    assert verifier_of(Secret(first["connect"]["secret"]), salt) != session.verifier


def test_a_retried_request_for_approval_makes_one_card(plane: ControlPlane) -> None:
    """A lost answer must not ask the approvers twice."""
    token = plane.token()
    first = plane.ask(token, "orders-prod", key="deploy-7")
    second = plane.ask(token, "orders-prod", key="deploy-7")
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json_body["session_id"] == second.json_body["session_id"]
    assert len(plane.stores.asks.rows) == 1


def test_a_retry_after_the_first_died_finishes_it(plane: ControlPlane) -> None:
    """The first call may die after its claim: the key must lead to a session, not to nothing."""
    token = plane.token()
    plane.stores.fail("sessions")
    refused(plane.ask(token, "orders-prod", key="deploy-7"), 503, "store_unavailable")
    plane.stores.heal("sessions")
    assert plane.ask(token, "orders-prod", key="deploy-7").status_code == 202
    assert (len(plane.stores.sessions.rows), len(plane.stores.asks.rows)) == (1, 1)


def test_a_key_is_for_one_request(plane: ControlPlane) -> None:
    """The same key for something else is a mistake in a script, and must not silently answer the first."""
    token = plane.token()
    plane.ask(token, "orders-dev", key="deploy-7")
    before = plane.snapshot()
    refused(plane.ask(token, "orders-dev", key="deploy-7", reason="another"), 409, "idempotency_conflict")
    assert plane.snapshot() == before


def test_a_key_is_its_runs_own(plane: ControlPlane) -> None:
    """Every run of a workflow may use the word "deploy": one must not get another's session."""
    first = plane.ask(plane.token(), "orders-dev", key="deploy")
    second = plane.ask(plane.token(run_id="5002"), "orders-dev", key="deploy")
    assert first.json_body["session_id"] != second.json_body["session_id"]


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "\u00e9"])
def test_a_malformed_idempotency_key(plane: ControlPlane, key: str) -> None:
    """A key that is cut or re-coded on its way would make two requests one."""
    token = plane.token()
    before = plane.snapshot()
    refused(plane.ask(token, "orders-dev", key=key), 400, "bad_request")
    assert plane.snapshot() == before


def test_another_run_cannot_poll_take_or_close_it(plane: ControlPlane) -> None:
    """Only who asked may: the same pipeline's next run is somebody else, and learns nothing."""
    token, other = plane.token(), plane.token(run_id="5002")
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.click(plane.card(), "UALICE")
    before = plane.snapshot()
    missing = plane.poll(other, "ses_01m6dsg7e0fwejtv7egfb0rbxm")
    for answer in (plane.poll(other, session_id), plane.close(other, session_id)):
        refused(answer, 404, "not_found")
        assert answer.json_body["message"] == missing.json_body["message"]
    assert plane.snapshot() == before


def test_closing_ends_it_for_good(plane: ControlPlane) -> None:
    """The owner's close must revoke, since live connections hear of nothing else; and it may be repeated."""
    token = plane.token()
    session_id = plane.ask(token, "orders-dev").json_body["session_id"]
    for _ in range(2):
        answer = plane.close(token, session_id)
        assert (answer.status_code, answer.json_body["status"]) == (200, "closed")
    assert list(plane.stores.revocations.rows) == [f"session:{session_id}"]
    refused(plane.poll(token, session_id), 403, "grant_revoked")


def test_an_approval_of_a_closed_request_is_refused(plane: ControlPlane) -> None:
    """The pipeline gave up: a click after that must not open anything."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    card = plane.card()
    plane.close(token, session_id)
    plane.click(card, "UALICE")
    assert not plane.stores.answers.rows
    refused(plane.poll(token, session_id), 403, "approval_withdrawn")


def _salt(text: str) -> bytes:
    return base64.b64decode(text)


def _dies(*_: object) -> Any:
    raise RuntimeError("the function died here")
