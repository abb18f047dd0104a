"""What holds at every endpoint alike: who shows no good token, and what is no good body, changes nothing anywhere.

Each test runs over the declarations, so that a new endpoint is tested before anybody writes a test for it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from chalice.test import HTTPResponse

from chalicelib.api.endpoint import Endpoint, TokenCheck
from chalicelib.api.openapi import ENDPOINTS
from tests.fakes.control_plane import issuer_key
from tests.fakes.keys import PUBLIC_URL, Key
from tests.functional.world import Holder, World, ssh_key

SESSION = "ses_01m6dsg7e0fwejtv7egfb0rbxm"
TXN = "01m6dsg7e0fwejtv7egfb0rbxm"
IDS = {
    "{session_id}": SESSION,
    "{txn}": TXN,
    "{subject}": SESSION,
    "{hold_id}": "hld_01m6dsg7e0fwejtv7egfb0rbxm",
    "{ask_id}": "ask_01m6dsg7e0fwejtv7egfb0rbxm",
}

WITH_TOKEN = [one for one in ENDPOINTS if one.token is not TokenCheck.NONE]
WITH_JSON = [one for one in ENDPOINTS if one.body is not None and not one.form]
BODIES: dict[str, dict[str, Any]] = {
    "delegate": {"redeemer": {"key": "A" * 43}, "name": "deploy-svc"},
    "request_session": {"target": "orders-dev", "reason": "deploy 7"},
    "certify_key": {"ssh_public_key": ssh_key()},
    "revoke": {"kind": "session", "id": SESSION, "why": "over"},
    "hold_evidence": {"subject": SESSION, "reason": "case 7"},
    "lift_hold": {"reason": "case 7 is closed"},
    "tell_replay": {"session_id": SESSION, "form": "terminal"},
    "answer_with_passkey": {
        "approved": True,
        "card_sha256": "0" * 64,
        "passkey_id": "A" * 22,
        "client_data": "e30",
        "authenticator_data": "AAAA",
        "signature": "AAAA",
    },
    "copy_evidence": {"subject": SESSION, "sha256": "0" * 64, "files": 1, "bytes": 1},
    "sign_review": {
        "since": "2026-11-01T00:00:00.000Z",
        "until": "2026-11-02T00:00:00.000Z",
        "population_sha256": "0" * 64,
    },
}


def named(endpoint: Endpoint) -> str:
    return endpoint.name


def path_of(endpoint: Endpoint) -> str:
    path = endpoint.path
    for name, value in IDS.items():
        path = path.replace(name, value)
    return path


def send(
    world: World,
    endpoint: Endpoint,
    headers: dict[str, str],
    *,
    body: bytes | None = None,
    content_type: str = "application/json",
    query: str = "",
) -> HTTPResponse:
    given = {"content-type": content_type, **headers}
    sent = json.dumps(BODIES[endpoint.name]).encode() if body is None and endpoint.body is not None else body or b""
    return world.plane.http.request(endpoint.method, path_of(endpoint) + query, headers=given, body=sent)


def authorized(world: World, endpoint: Endpoint, holder: Holder) -> dict[str, str]:
    return world.plane.authorized(holder.token, endpoint.method, path_of(endpoint), holder.key)


def refused(answer: HTTPResponse, status: int, code: str) -> None:
    assert (answer.status_code, answer.json_body["code"]) == (status, code), answer.json_body
    assert set(answer.json_body) == {"code", "message", "hint", "request_id"}
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.fixture
def world() -> World:
    return World()


Forged = Callable[[World, Endpoint], tuple[dict[str, str], str]]


def _nothing(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    return {}, "unauthenticated"


def _another_scheme(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    return {"authorization": "Basic eA=="}, "unauthenticated"


def _no_token(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    return {"authorization": "Bearer"}, "token_invalid"


def _issuers(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    return {"authorization": f"Bearer {world.plane.ci_token(run_id='1')}"}, "token_invalid"


def _unsigned(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    claims = jwt.decode(world.carol.token, options={"verify_signature": False})
    unsigned = jwt.encode(claims, "", algorithm="none", headers={"typ": "at+jwt"})
    return {"authorization": f"Bearer {unsigned}"}, "token_invalid"


def _strangers_key(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    claims = jwt.decode(world.carol.token, options={"verify_signature": False})
    forged = jwt.encode(claims, issuer_key(), algorithm="RS256", headers={"typ": "at+jwt", "kid": "token-key-1"})
    return {"authorization": f"Bearer {forged}"}, "token_invalid"


def _another_audience(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    claims = jwt.decode(world.carol.token, options={"verify_signature": False}) | {
        "aud": "https://elsewhere.example.com"
    }
    token = world.plane.stores.signer("token").sign("at+jwt", json.dumps(claims).encode())
    return {"authorization": f"Bearer {token}"}, "token_invalid"


def _expired(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    headers = authorized(world, endpoint, world.carol)
    world.plane.clock.advance(301)
    return headers, "token_expired"


def _bound_as_bearer(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    return {"authorization": f"Bearer {world.runner.token}"}, "invalid_dpop_proof"


def _bound_without_proof(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    return {"authorization": f"DPoP {world.runner.token}"}, "invalid_dpop_proof"


def _proof_of_another_key(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    return authorized(world, endpoint, Holder(token=world.runner.token, key=Key())), "invalid_dpop_proof"


def _proof_for_another_path(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    assert world.runner.key is not None
    proof = world.runner.key.proof(world.plane.clock, endpoint.method, "/v1/elsewhere", world.runner.token)
    return {"authorization": f"DPoP {world.runner.token}", "dpop": proof}, "invalid_dpop_proof"


def _proof_of_another_method(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    assert world.runner.key is not None
    proof = world.runner.key.proof(world.plane.clock, "PATCH", path_of(endpoint), world.runner.token)
    return {"authorization": f"DPoP {world.runner.token}", "dpop": proof}, "invalid_dpop_proof"


def _proof_with_another_token(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    assert world.runner.key is not None
    proof = world.runner.key.proof(world.plane.clock, endpoint.method, path_of(endpoint), world.agent.token)
    return {"authorization": f"DPoP {world.runner.token}", "dpop": proof}, "invalid_dpop_proof"


def _proof_at_another_service(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    assert world.runner.key is not None
    htu = f"https://elsewhere.example.com{path_of(endpoint)}"
    proof = world.runner.key.proof(world.plane.clock, endpoint.method, "", world.runner.token, htu=htu)
    return {"authorization": f"DPoP {world.runner.token}", "dpop": proof}, "invalid_dpop_proof"


def _old_proof(world: World, endpoint: Endpoint) -> tuple[dict[str, str], str]:
    headers = authorized(world, endpoint, world.runner)
    world.plane.clock.advance(120)
    return headers, "invalid_dpop_proof"


FORGED: dict[str, Forged] = {
    "no header": _nothing,
    "another scheme": _another_scheme,
    "no token": _no_token,
    "the issuer's token": _issuers,
    "an unsigned token": _unsigned,
    "a token of a stranger's key": _strangers_key,
    "a token for another audience": _another_audience,
    "an expired token": _expired,
    "a bound token as Bearer": _bound_as_bearer,
    "a bound token without a proof": _bound_without_proof,
    "a proof of another key": _proof_of_another_key,
    "a proof for another path": _proof_for_another_path,
    "a proof of another method": _proof_of_another_method,
    "a proof made with another token": _proof_with_another_token,
    "a proof made for another service": _proof_at_another_service,
    "a proof of two minutes ago": _old_proof,
}


@pytest.mark.parametrize("endpoint", WITH_TOKEN, ids=named)
@pytest.mark.parametrize("name", FORGED)
def test_whoever_shows_no_good_token_changes_nothing(world: World, endpoint: Endpoint, name: str) -> None:
    """Each is an attack on who calls; each is told apart only in its code and challenge, and writes nothing."""
    headers, code = FORGED[name](world, endpoint)
    before = world.plane.snapshot()
    answer = send(world, endpoint, headers)
    refused(answer, 401, code)
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith("DPoP") == (code == "invalid_dpop_proof")
    assert "DPoP algs=" in challenge
    assert world.plane.snapshot() == before


@pytest.mark.parametrize("endpoint", WITH_TOKEN, ids=named)
def test_a_proof_that_was_seen_before_is_none(world: World, endpoint: Endpoint) -> None:
    """Attack: a request is recorded and sent again. The second is refused, whatever became of the first."""
    headers = authorized(world, endpoint, world.runner)
    assert send(world, endpoint, headers).status_code != 401
    refused(send(world, endpoint, headers), 401, "invalid_dpop_proof")


@pytest.mark.parametrize("endpoint", WITH_TOKEN, ids=named)
def test_two_headers_of_one_name_are_no_header(world: World, endpoint: Endpoint) -> None:
    """Attack: whoever filters in front of us reads the first of two, and API Gateway hands on the last."""
    for name in ("authorization", "dpop"):
        headers = authorized(world, endpoint, world.runner)
        event = _event(endpoint, headers, {name: [headers[name], headers[name]]})
        answer = _invoke(world, event)
        assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (400, "bad_request")


@pytest.mark.parametrize("endpoint", [one for one in ENDPOINTS if not one.fixed], ids=named)
def test_an_unknown_query_parameter(world: World, endpoint: Endpoint) -> None:
    """What nobody reads must not be believed to work."""
    headers = authorized(world, endpoint, world.carol) if endpoint.token is not TokenCheck.NONE else {}
    before = world.plane.snapshot()
    body = b"a=b" if endpoint.form else None
    content_type = "application/x-www-form-urlencoded" if endpoint.form else "application/json"
    answer = send(world, endpoint, headers, query="?colour=red", body=body, content_type=content_type)
    assert (answer.status_code, answer.json_body["code"]) == (400, "bad_request")
    assert world.plane.snapshot() == before


@pytest.mark.parametrize("endpoint", WITH_JSON, ids=named)
@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("text/plain", None, 415, "unsupported_media_type"),
        ("application/x-www-form-urlencoded", None, 415, "unsupported_media_type"),
        ("application/jsonp", None, 415, "unsupported_media_type"),
        ("", None, 415, "unsupported_media_type"),
        ("application/json", b" " * 70_000, 413, "body_too_large"),
        ("application/json", b"", 400, "bad_request"),
        ("application/json", b"{", 400, "bad_request"),
        ("application/json", b"[]", 400, "bad_request"),
        ("application/json", b"null", 400, "bad_request"),
        ("application/json", b"{}", 400, "bad_request"),
        ("application/json", b"\xff\xfe", 400, "bad_request"),
        ("application/json", b"[" * 20_000, 400, "bad_request"),
    ],
    ids=[
        "text",
        "a form",
        "a look-alike type",
        "no type",
        "oversize",
        "empty",
        "cut",
        "a list",
        "null",
        "no field",
        "not UTF-8",
        "deep",
    ],
)
def test_what_is_no_json_object_of_the_endpoints(
    world: World, endpoint: Endpoint, content_type: str, body: bytes | None, status: int, code: str
) -> None:
    """The parser's refusals are told in our one shape, and nothing is written."""
    headers = authorized(world, endpoint, world.carol)
    before = world.plane.snapshot()
    refused(send(world, endpoint, headers, body=body, content_type=content_type), status, code)
    assert world.plane.snapshot() == before


@pytest.mark.parametrize("endpoint", WITH_JSON, ids=named)
def test_each_field_missing_twice_null_or_of_another_type(world: World, endpoint: Endpoint) -> None:
    """Readers differ in what they make of such a field: it is refused by its name, and nothing is written."""
    headers = authorized(world, endpoint, world.carol)
    before = world.plane.snapshot()
    good = BODIES[endpoint.name]
    bad = [json.dumps({**good, secrets.token_hex(4): 1})]
    for name in good:
        bad.append(json.dumps({other: value for other, value in good.items() if other != name}))
        bad.append(json.dumps({**good, name: None}))
        bad.append(json.dumps({**good, name: "7" if type(good[name]) is int else 7}))
        bad.append(json.dumps(good)[:-1] + f", {json.dumps(name)}: {json.dumps(good[name])}" + "}")
    for body in bad:
        answer = send(world, endpoint, headers, body=body.encode())
        refused(answer, 400, "bad_request")
    assert world.plane.snapshot() == before


@pytest.mark.parametrize("endpoint", [one for one in WITH_TOKEN if one.answers], ids=named)
@pytest.mark.parametrize("store", ["chains", "revocations"])
def test_an_outage_is_told_as_one(world: World, endpoint: Endpoint, store: str) -> None:
    """Nobody is taken for anybody while the hops, or what was revoked, cannot be read."""
    headers = authorized(world, endpoint, world.carol)
    world.plane.stores.fail(store)
    answer = send(world, endpoint, headers)
    refused(answer, 503, "store_unavailable")
    assert answer.headers["Retry-After"] == "5"


def _event(endpoint: Endpoint, headers: dict[str, str], several: dict[str, list[str]]) -> dict[str, Any]:
    """Return the event of API Gateway's REST API with both forms of its headers (docs: "Input format of a Lambda
    function for proxy integration")."""
    parameters = {name.strip("{}"): value for name, value in IDS.items() if name in endpoint.path}
    given = {"content-type": "application/json", **headers}
    return {
        "requestContext": {
            "resourcePath": endpoint.path,
            "httpMethod": endpoint.method,
            "path": path_of(endpoint),
            "requestId": "r1",
        },
        "headers": given,
        "multiValueHeaders": {name: [value] for name, value in given.items()} | several,
        "pathParameters": parameters or None,
        "multiValueQueryStringParameters": None,
        "stageVariables": None,
        "isBase64Encoded": False,
        "body": json.dumps(BODIES.get(endpoint.name, {})),
        "path": path_of(endpoint),
        "httpMethod": endpoint.method,
    }


def _invoke(world: World, event: dict[str, Any]) -> dict[str, Any]:
    app: Any = world.plane.app
    context = SimpleNamespace(
        function_name="api_handler", memory_limit_in_mb=1024, invoked_function_arn="arn", aws_request_id="r1"
    )
    answer: dict[str, Any] = app(event, context)
    return answer


def test_the_service_is_the_one_that_proofs_are_for(world: World) -> None:
    """The address of these tests is the service's: else every proof would be refused for the wrong reason."""
    assert world.plane.parts.public_url == PUBLIC_URL
    assert world.get(world.runner, "/v1/targets").status_code == 200
