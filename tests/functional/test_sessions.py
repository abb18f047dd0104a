"""``/v1/sessions``: asking, waiting, taking, closing; and every way of asking wrongly."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from chalice.test import Client, HTTPResponse

from chalicelib.api.application import application
from chalicelib.domain.ask import UseKind
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import SessionStatus
from chalicelib.domain.verifier import verifier_of
from tests.fakes.control_plane import FILES, ROOT, ControlPlane
from tests.fakes.keys import Key

SHAPE = {"code", "message", "hint", "request_id"}


def refused(answer: HTTPResponse, status: int, code: str) -> None:
    """Assert the one error shape, with this status and code."""
    assert (answer.status_code, answer.json_body["code"]) == (status, code), answer.json_body
    assert set(answer.json_body) == SHAPE
    assert all(isinstance(answer.json_body[name], str) and answer.json_body[name] for name in SHAPE)
    assert answer.headers["Cache-Control"] == "no-store"


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
        {"rule": "prod-open", "group": "dba", "count": 1, "missing": 1, "hint": "ask the dba on call"}
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


# -- what is refused -----------------------------------------------------------------------------------------------


def test_an_unknown_and_a_forbidden_target_are_one_answer(plane: ControlPlane) -> None:
    """Attack: finding out which targets there are. Same status, headers and words, and policy is asked each time."""
    token = plane.token()
    before = plane.snapshot()
    forbidden = plane.ask(token, "payroll")
    unknown = plane.ask(token, "no-such-target")
    wrong_login = plane.ask(token, "orders-prod", principal="root")
    refused(forbidden, 403, "policy_denied")
    for answer in (unknown, wrong_login):
        assert answer.status_code == forbidden.status_code
        assert _same_words(answer) == _same_words(forbidden)
        assert dict(answer.headers) == dict(forbidden.headers)
    assert "payroll" not in str(_same_words(forbidden))
    assert plane.snapshot() == before


NULL = object()  # None leaves a field out

BAD_BODIES: dict[str, dict[str, Any]] = {
    "no target": {"target": None},
    "no reason": {"reason": None},
    "an unknown field": {"colour": "red"},
    "target is a number": {"target": 7},
    "target is a path": {"target": "../etc"},
    "target is long": {"target": "a" * 64},
    "principal has a quote": {"principal": 'x"'},
    "reason is empty": {"reason": ""},
    "reason is blank": {"reason": "  "},
    "reason is long": {"reason": "x" * 501},
    "reason breaks the line": {"reason": "a\nb"},
    "reason turns the line round": {"reason": "a\u202eb"},
    "duration is short": {"duration_s": 59},
    "duration is long": {"duration_s": 43_201},
    "duration is text": {"duration_s": "900"},
    "duration is a fraction": {"duration_s": 900.5},
    "duration is a truth": {"duration_s": True},
    "principal is null": {"principal": NULL},
    "an ssh key that is none": {"ssh_public_key": "ssh-ed25519 AAAA"},
    "an ssh key that is empty": {"ssh_public_key": ""},
    "an ssh key with a private part": {"ssh_public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"},
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_request_is_refused_and_nothing_is_written(plane: ControlPlane, name: str) -> None:
    """Each names its field, and leaves no row behind."""
    token = plane.token()
    before = plane.snapshot()
    body = {"target": "orders-dev", "reason": "deploy 7"} | BAD_BODIES[name]
    sent = {field: None if value is NULL else value for field, value in body.items() if value is not None}
    answer = _post(plane, token, json.dumps(sent).encode())
    refused(answer, 400, "bad_request")
    assert next(iter(BAD_BODIES[name])) in answer.json_body["message"]
    assert plane.snapshot() == before


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "bad_request"),
        (b"[]", "application/json", 400, "bad_request"),
        (b"", "application/json", 400, "bad_request"),
        (b"\xff\xfe", "application/json", 400, "bad_request"),
        (b'{"target": "orders-dev", "reason": "x"}', "text/plain", 415, "unsupported_media_type"),
        (b'{"target": "orders-dev", "reason": "x"}', "application/jsonp", 415, "unsupported_media_type"),
        (b" " * 70_000, "application/json", 413, "body_too_large"),
    ],
    ids=["cut", "a list", "empty", "not UTF-8", "text", "a look-alike type", "oversize"],
)
def test_what_is_not_json_is_refused(
    plane: ControlPlane, body: bytes, content_type: str, status: int, code: str
) -> None:
    """The parser's refusals are told in our one shape, and nothing is written."""
    token = plane.token()
    before = plane.snapshot()
    refused(_post(plane, token, body, content_type), status, code)
    assert plane.snapshot() == before


BAD_BEARERS: dict[str, tuple[str | None, str]] = {
    "none": (None, "unauthenticated"),
    "another scheme": ("Basic eA==", "unauthenticated"),
    "no token": ("Bearer", "token_invalid"),
    "two tokens": ("Bearer a b", "token_invalid"),
    "garbage": ("Bearer not.a.token", "token_invalid"),
    "three dots of nothing": ("Bearer ..", "token_invalid"),
}


@pytest.mark.parametrize("name", BAD_BEARERS)
def test_who_shows_no_token_of_ours_is_refused(plane: ControlPlane, name: str) -> None:
    """Before anything is read or written, and with the challenge that RFC 6750 asks for."""
    header, code = BAD_BEARERS[name]
    headers = {} if header is None else {"authorization": header}
    paths = [("POST", "/v1/sessions"), ("GET", "/v1/sessions/x"), ("DELETE", "/v1/sessions/x"), ("GET", "/v1/targets")]
    for method, path in paths:
        answer = plane.http.request(method, path, headers=headers, body=b"{}")
        refused(answer, 401, code)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert not any(plane.snapshot().values())


def test_an_issuers_token_is_no_access_token(plane: ControlPlane) -> None:
    """Confusing the two would skip the exchange: no hop, no run, no replay row."""
    refused(plane.ask(plane.ci_token(), "orders-dev"), 401, "token_invalid")


def test_an_expired_access_token(plane: ControlPlane) -> None:
    """Five minutes and not a second more."""
    token = plane.token()
    plane.clock.advance(300)
    refused(plane.ask(token, "orders-dev"), 401, "token_expired")


def test_a_token_signed_by_another_of_our_keys(plane: ControlPlane) -> None:
    """A thief of the broker's key must not be able to make access tokens with it."""
    token = plane.token()
    plane.stores.keys.rotate("token")
    refused(plane.ask(token, "orders-dev"), 401, "token_invalid")


@pytest.mark.parametrize("kind", ["txn", "identity", "issuer", "token"])
def test_a_revoked_caller_is_refused(plane: ControlPlane, kind: str) -> None:
    """Revocation of anything in the chain ends its tokens at once, not when they expire."""
    token = plane.token()
    caller = plane.plane.services.identify(plane.presented(token, "GET", "/v1/targets"))
    keys = {key.partition(":")[0]: key for key in caller.chain.liveness_keys() | {f"token:{caller.token_id}"}}
    plane.stores.revocations.revoke(keys[kind], by="ops", why="test", at=plane.clock.now())
    refused(plane.ask(token, "orders-dev"), 403, "grant_revoked")
    assert not plane.stores.sessions.rows


def test_a_hop_that_somebody_changed_ends_its_tokens(plane: ControlPlane) -> None:
    """Attack: whoever can write the chains table puts a pipeline in another team; the hop's signature covers it."""
    token = plane.token(repository_id="702")
    ((key, hop),) = plane.stores.chains.rows.items()
    plane.stores.chains.rows[key] = replace(hop, teams=("pipeline",))
    refused(plane.ask(token, "orders-dev"), 401, "proof_invalid")


@pytest.mark.parametrize(
    "query", ["?wait_s=6", "?wait_s=-1", "?wait_s=x", "?wait_s=", "?wait_s=1&wait_s=2", "?x=1", "?take=1"]
)
def test_a_bad_query_is_refused(plane: ControlPlane, query: str) -> None:
    """A parameter that nobody reads is a belief that is wrong."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    refused(plane.poll(token, session_id, query), 400, "bad_request")


def test_what_may_be_asked_for_is_listed(plane: ControlPlane) -> None:
    """`countersign targets` shows what a request would not flatly refuse, and names nothing else."""
    listed = plane.http.get("/v1/targets", headers={"authorization": f"Bearer {plane.token()}"}).json_body
    assert [target["name"] for target in listed["targets"]] == ["orders-dev", "orders-prod"]
    assert set(listed["targets"][0]) == {"name", "protocol", "environment", "description"}
    stranger = plane.token(repository_id="702", run_id="6001")
    assert plane.http.get("/v1/targets", headers={"authorization": f"Bearer {stranger}"}).json_body == {"targets": []}


# -- when something is down ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["chains", "revocations", "sessions", "asks", "once"])
def test_a_store_that_cannot_be_reached_refuses(plane: ControlPlane, store: str) -> None:
    """It fails closed, says when to try again, and grants nothing on what it could not read."""
    token = plane.token()
    plane.stores.fail(store)
    answer = plane.ask(token, "orders-prod", key="k")
    refused(answer, 503, "store_unavailable")
    assert answer.headers["Retry-After"] == "5"
    assert not plane.stores.sessions.rows


def test_a_field_that_is_there_twice(plane: ControlPlane) -> None:
    """Readers differ in which of two they believe: a filter in front of us must see the target that we see."""
    before = plane.snapshot()
    answer = _post(plane, plane.token(), b'{"target":"orders-dev","reason":"x","target":"orders-prod"}')
    refused(answer, 400, "bad_request")
    assert plane.snapshot()["sessions"] == before["sessions"]


def test_a_bug_of_ours_tells_the_client_nothing(plane: ControlPlane) -> None:
    """A stack trace names hosts, versions and values; the client gets a word and an id for the operators."""

    def broken() -> Any:
        raise RuntimeError("db-17.internal: password=hunter2")

    client = Client(application(broken, plane.logger), stage_name="local", project_dir=str(ROOT)).http
    answer = client.get("/v1/targets", headers={"authorization": "Bearer x"})
    refused(answer, 500, "internal")
    assert "hunter2" not in str(answer.json_body)
    assert "internal" in answer.json_body["code"]
    oauth = client.post("/v1/token", headers={"content-type": "application/x-www-form-urlencoded"}, body=b"a=b")
    assert (oauth.status_code, oauth.json_body["error"]) == (500, "server_error")


def test_logs_hold_no_token_and_no_body(plane: ControlPlane) -> None:
    """Logs are read by more people than may log in: what was sent and what was given stay out of them."""
    ci = plane.ci_token()
    token = plane.exchange(ci).json_body["access_token"]
    secret = plane.ask(token, "orders-dev", reason="reason-4711").json_body["connect"]["secret"]
    plane.ask(token, "payroll", reason="reason-4711")
    plane.exchange(ci)
    logged = plane.log.getvalue()
    assert logged.count('"answered"') == 4
    for planted in (ci, token, secret, "reason-4711", ci.split(".")[1], token.split(".")[1]):
        assert planted not in logged


def test_an_empty_health_check(plane: ControlPlane) -> None:
    """A balancer's question must cost no store and no key."""
    plane.stores.fail("chains", "sessions", "revocations", "once")
    assert plane.http.get("/healthz").json_body == {"status": "ok"}


def _post(plane: ControlPlane, token: str, body: bytes, content_type: str = "application/json") -> HTTPResponse:
    headers = {"authorization": f"Bearer {token}", "content-type": content_type}
    return plane.http.post("/v1/sessions", headers=headers, body=body)


def _same_words(answer: HTTPResponse) -> dict[str, str]:
    return {name: answer.json_body[name] for name in ("code", "message", "hint")}


def _salt(text: str) -> bytes:
    return base64.b64decode(text)


def _dies(*_: object) -> Any:
    raise RuntimeError("the function died here")
