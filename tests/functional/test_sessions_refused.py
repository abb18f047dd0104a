"""``/v1/sessions``: what is refused, and what happens when something is down."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from chalice.test import Client, HTTPResponse

from chalicelib.api.application import application
from tests.fakes.control_plane import ROOT, ControlPlane
from tests.functional.session_answers import refused

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
