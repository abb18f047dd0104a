"""``POST /v1/token``: the exchange, one root for a run, and every way of asking wrongly."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from chalicelib.domain.chain import HopKind
from chalicelib.identity.jws import verify_hop
from chalicelib.identity.tokens import verify_access_token
from tests.fakes.control_plane import AUDIENCE, PUBLIC_URL, ControlPlane


def test_an_issuers_token_becomes_ours_and_the_first_hop(plane: ControlPlane) -> None:
    """The chain begins here: what is signed must be what the issuer said, and verify with the published keys."""
    answer = plane.exchange(plane.ci_token())
    assert answer.status_code == 200
    body = answer.json_body
    assert body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 300, "*")
    assert answer.headers["Cache-Control"] == "no-store"
    said = verify_access_token(
        body["access_token"], keys=plane.stores.keys, issuer_url=PUBLIC_URL, audience=AUDIENCE, clock=plane.clock
    )
    (hop,) = plane.stores.chains.rows.values()
    verify_hop(hop, plane.stores.keys)
    assert (said.txn, said.hop, body["txn"]) == (hop.txn, hop.id, hop.txn)
    assert hop.kind is HopKind.ORIGIN
    assert hop.accountable == ("gh:actor_id:1001",)
    assert hop.actor.subject == "9001:700"


def test_the_published_keys_verify_the_token(plane: ControlPlane) -> None:
    """A verifier elsewhere has nothing but the JWKS: without it our tokens are opaque to everybody."""
    token = plane.token()
    listed = plane.http.get("/.well-known/jwks.json")
    assert listed.headers["Cache-Control"] == "max-age=300"
    (key,) = listed.json_body["keys"]
    assert (key["use"], key["alg"], key["kty"]) == ("sig", "ES256", "EC")
    claims = jwt.decode(
        token, jwt.PyJWK(key).key, algorithms=["ES256"], audience=AUDIENCE, options={"verify_exp": False}
    )
    assert claims["iss"] == PUBLIC_URL
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


def test_a_token_of_ours_never_outlives_the_issuers(plane: ControlPlane) -> None:
    """Else a stolen CI token of one second is five minutes of access."""
    now = int(plane.clock.now().timestamp())
    assert plane.exchange(plane.ci_token(exp=now + 40)).json_body["expires_in"] == 40


def test_a_later_exchange_of_the_run_continues_its_chain(plane: ControlPlane) -> None:
    """A run has one root: otherwise any process in the job could fetch the token again and leave its hop behind."""
    first = plane.exchange(plane.ci_token()).json_body
    plane.clock.advance(600)
    second = plane.exchange(plane.ci_token()).json_body
    assert second["txn"] == first["txn"]
    assert len(plane.stores.chains.rows) == 1
    other = plane.exchange(plane.ci_token(run_id="5002")).json_body
    assert other["txn"] != first["txn"]


@pytest.mark.parametrize(
    "changed",
    [{"actor_id": "2002"}, {"event_name": "schedule"}, {"repository_id": "701"}],
    ids=["other people behind it", "nobody named behind it", "another identity"],
)
def test_a_run_that_began_otherwise_is_not_continued(plane: ControlPlane, changed: dict[str, str]) -> None:
    """A token of the same run that says more, or other people, must not borrow the first one's chain: whoever started
    the re-run could approve it, as the hop excludes somebody else."""
    plane.token()
    before = plane.snapshot()
    answer = plane.exchange(plane.ci_token(**changed))
    assert (answer.status_code, answer.json_body["code"]) == (400, "token_invalid")
    assert plane.snapshot()["chains"] == before["chains"]


def test_a_run_gets_no_more_than_its_eight_hours(plane: ControlPlane) -> None:
    """A job that runs for days must not keep a chain alive by asking again and again."""
    plane.token()
    plane.clock.advance(8 * 3600)
    answer = plane.exchange(plane.ci_token())
    assert (answer.status_code, answer.json_body["code"]) == (400, "grant_expired")


def test_racing_first_exchanges_make_one_root(plane: ControlPlane) -> None:
    """Two jobs' steps that start together must not make two chains of one run."""
    tokens = [plane.ci_token() for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(
                lambda token: plane.stores.functions.invoke("sign", {"form": _form(token)}),
                tokens,
            )
        )
    assert len({answer["txn"] for answer in answers}) == 1
    assert len(plane.stores.chains.rows) == 1


def test_a_root_whose_maker_died_is_made_by_the_next(plane: ControlPlane) -> None:
    """Between claiming the run and putting its hop a function may die: the run must not be locked out for 40 days."""
    plane.stores.fail("chains")
    assert plane.exchange(plane.ci_token()).status_code == 503
    plane.stores.heal("chains")
    assert plane.exchange(plane.ci_token()).status_code == 200
    assert len(plane.stores.chains.rows) == 1


def test_a_replayed_issuers_token(plane: ControlPlane) -> None:
    """Attack: a token from a log, or from another process of the job, is exchanged a second time."""
    token = plane.ci_token()
    assert plane.exchange(token).status_code == 200
    before = plane.snapshot()
    answer = plane.exchange(token)
    assert answer.status_code == 400
    assert answer.json_body["error"] == "invalid_request"
    assert answer.json_body["code"] == "token_replayed"
    assert plane.snapshot() == before


def test_a_token_without_a_jti_is_replayed_no_better(plane: ControlPlane) -> None:
    """Where the issuer names no id, the token's own hash must do, or such a token could be used for ever."""
    token = plane.ci_token(jti=None)
    assert plane.exchange(token).status_code == 200
    assert plane.exchange(token).json_body["code"] == "token_replayed"


Forge = Callable[[ControlPlane], str]


def _unsigned(plane: ControlPlane) -> str:
    return jwt.encode(plane.claims(), "", algorithm="none", headers={"kid": "ci-1"})


def _strangers_key(plane: ControlPlane) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(plane.claims(), key, algorithm="RS256", headers={"kid": "ci-1"})


def _altered(plane: ControlPlane) -> str:
    head, body, signature = plane.ci_token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["repository_id"] = "999"
    return ".".join([head, base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode(), signature])


BAD_TOKENS: dict[str, tuple[Forge, str]] = {
    "unsigned": (_unsigned, "token_invalid"),
    "signed by a stranger": (_strangers_key, "token_invalid"),
    "altered after signing": (_altered, "token_invalid"),
    "expired": (lambda plane: plane.ci_token(iat=1, nbf=1, exp=301), "token_expired"),
    "not yet valid": (lambda plane: plane.ci_token(nbf=int(plane.clock.now().timestamp()) + 900), "token_invalid"),
    "for another audience": (lambda plane: plane.ci_token(aud="https://elsewhere.example.com"), "token_invalid"),
    "of another issuer": (lambda plane: plane.ci_token(iss="https://evil.example.com"), "unknown_issuer"),
    "of another organisation": (lambda plane: plane.ci_token(repository_owner_id="6666"), "token_invalid"),
    "without the tenant's claim": (lambda plane: plane.ci_token(repository_owner_id=None), "token_invalid"),
    "of a pull request": (lambda plane: plane.ci_token(event_name="pull_request_target"), "token_invalid"),
    "not a token": (lambda plane: "x" * 40, "token_invalid"),
    "larger than any token": (lambda plane: "a." * 10_000 + "b", "token_invalid"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_bad_token_is_refused_and_nothing_is_written(plane: ControlPlane, name: str) -> None:
    """Each is an attack on who may begin a chain; a row that it left behind would be a foothold or a denial."""
    forge, code = BAD_TOKENS[name]
    answer = plane.exchange(forge(plane))
    assert (answer.status_code, answer.json_body["error"], answer.json_body["code"]) == (400, "invalid_request", code)
    assert set(answer.json_body) == {"error", "error_description", "code"}
    assert not any(plane.snapshot().values())


BAD_FORMS: dict[str, tuple[dict[str, str | None], int, str, str]] = {
    "no grant_type": ({"grant_type": None}, 400, "invalid_request", "bad_request"),
    "another grant_type": ({"grant_type": "password"}, 400, "unsupported_grant_type", "unsupported_grant_type"),
    "no subject_token": ({"subject_token": None}, 400, "invalid_request", "bad_request"),
    "empty subject_token": ({"subject_token": ""}, 400, "invalid_request", "bad_request"),
    "no subject_token_type": ({"subject_token_type": None}, 400, "invalid_request", "bad_request"),
    "another subject_token_type": (
        {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"},
        400,
        "invalid_request",
        "bad_request",
    ),
    "an actor token": ({"actor_token": "x"}, 400, "invalid_request", "bad_request"),
    "another requested type": (
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        400,
        "invalid_request",
        "bad_request",
    ),
    "another audience": ({"audience": "https://elsewhere.example.com"}, 400, "invalid_target", "invalid_target"),
    "another resource": ({"resource": "https://elsewhere.example.com"}, 400, "invalid_target", "invalid_target"),
    "a wider scope": ({"scope": "admin"}, 400, "invalid_scope", "invalid_scope"),
    "a client secret": ({"client_secret": "x"}, 401, "invalid_client", "unauthenticated"),
    "an unknown field": ({"colour": "red"}, 400, "invalid_request", "bad_request"),
}


@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_bad_form_is_refused_and_nothing_is_written(plane: ControlPlane, name: str) -> None:
    """RFC 8693's parameters, each wrong once: the error is the RFC's, the good token stays unused."""
    changed, status, word, code = BAD_FORMS[name]
    token = plane.ci_token()
    answer = plane.exchange(token, **changed)
    assert (answer.status_code, answer.json_body["error"], answer.json_body["code"]) == (status, word, code)
    assert not any(plane.snapshot().values())
    assert plane.exchange(token).status_code == 200


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"content_type": "application/json"}, "{}", 415, "unsupported_media_type"),
        ({"content_type": "text/plain"}, "a=b", 415, "unsupported_media_type"),
        ({}, "x=" + "y" * 70_000, 413, "body_too_large"),
        ({}, "grant_type", 400, "bad_request"),
        ({}, "grant_type=a&grant_type=b", 400, "bad_request"),
        ({}, "grant_type=%ff", 400, "bad_request"),
        ({}, "&".join(f"a{n}=b" for n in range(100)), 400, "bad_request"),
        ({"authorization": "Basic eA=="}, "grant_type=a", 401, "unauthenticated"),
    ],
    ids=["json", "text", "oversize", "no form", "repeated", "not UTF-8", "too many fields", "client authentication"],
)
def test_what_is_not_a_form_is_refused(
    plane: ControlPlane, headers: dict[str, str], body: str, status: int, code: str
) -> None:
    """What the parser cannot read must be told as such, in the endpoint's own error shape, and leave nothing."""
    answer = plane.post_form("/v1/token", body, **headers)
    assert (answer.status_code, answer.json_body["code"]) == (status, code)
    assert "error" in answer.json_body
    assert not any(plane.snapshot().values())


def test_a_revoked_identity_gets_no_token(plane: ControlPlane) -> None:
    """Revoking a pipeline must stop its next run too, not only the chains that it has."""
    plane.stores.revocations.revoke(
        "identity:https://token.actions.githubusercontent.com#9001:700", by="ops", why="left", at=plane.clock.now()
    )
    answer = plane.exchange(plane.ci_token())
    assert (answer.status_code, answer.json_body["error"]) == (400, "access_denied")
    assert answer.json_body["code"] == "grant_revoked"
    assert not plane.stores.chains.rows


def _form(token: str) -> dict[str, Any]:
    return {
        "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "subject_token": [token],
        "subject_token_type": ["urn:ietf:params:oauth:token-type:id_token"],
    }
