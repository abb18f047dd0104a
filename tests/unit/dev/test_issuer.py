"""The local issuer: tokens of GitHub's shape, whole or wrong exactly as asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from dev.issuer import Issuer
from tests.fakes.clock import FakeClock
from tests.unit.dev.calling import call

API = "http://127.0.0.1:1"
_NO_TIMES = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}  # the clock is a fake


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer(FakeClock(), audience=API)
    made.start()
    yield made
    made.stop()


def _claims(issuer: Issuer, asked: dict[str, Any]) -> dict[str, Any]:
    status, told = call(issuer.mint_url, asked)
    assert status == 200
    keys = jwt.PyJWKSet.from_dict(call(issuer.jwks_uri)[1])
    kid = jwt.get_unverified_header(told["token"])["kid"]
    unchecked = {
        "verify_aud": False,
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
        "verify_iss": False,
    }
    return jwt.decode(told["token"], keys[kid].key, ["RS256"], options=unchecked)  # type: ignore[arg-type]


def test_a_token_verifies_with_the_published_key_and_has_the_claims_of_a_job(issuer: Issuer) -> None:
    """The exchange rests on these claims; a missing one would be refused for the wrong reason."""
    found = _claims(issuer, {})
    assert found["iss"] == issuer.url
    assert found["aud"] == API
    assert found["sub"] == "repo:acme/orders:ref:refs/heads/main"
    assert {"repository_id", "repository_owner_id", "run_id", "run_attempt", "actor_id", "event_name", "ref"} <= set(
        found
    )
    assert found["exp"] - found["iat"] == 300


def test_each_token_is_of_a_new_run(issuer: Issuer) -> None:
    """A run has one root: two tokens of one run would make the second exchange fail in every test that mints twice."""
    first, second = _claims(issuer, {}), _claims(issuer, {})
    assert first["run_id"] != second["run_id"]
    assert first["jti"] != second["jti"]


def test_the_runner_gives_new_tokens_of_one_run_for_the_audience_that_is_asked(issuer: Issuer) -> None:
    """A shell's second command would else be refused: a token is accepted once, and a session belongs to its run."""
    url = f"{issuer.runner_url()}&audience=https%3A%2F%2Fapi.test"
    keys = jwt.PyJWKSet.from_dict(call(issuer.jwks_uri)[1])
    found = []
    for _ in range(2):
        token = call(url)[1]["value"]
        key = keys[jwt.get_unverified_header(token)["kid"]].key
        found.append(jwt.decode(token, key, ["RS256"], audience="https://api.test", options=_NO_TIMES))  # type: ignore[arg-type]
    assert found[0]["run_id"] == found[1]["run_id"]
    assert found[0]["jti"] != found[1]["jti"]
    assert call(f"{issuer.url}/runner")[0] == 400


def test_what_the_caller_gives_is_kept_and_null_leaves_a_claim_out(issuer: Issuer) -> None:
    """Tests of bad tokens ask for exactly one thing to be wrong."""
    found = _claims(issuer, {"exp": 1, "aud": "somebody-else", "jti": None, "repository": "acme/other"})
    assert (found["exp"], found["aud"]) == (1, "somebody-else")
    assert "jti" not in found
    assert found["sub"] == "repo:acme/other:ref:refs/heads/main"


def test_the_discovery_document_names_the_issuer_exactly_and_where_the_keys_are(issuer: Issuer) -> None:
    """OpenID Connect Discovery 4.3: a client compares ``issuer`` with the address it asked."""
    status, found = call(f"{issuer.url}/.well-known/openid-configuration")
    assert (status, found["issuer"], found["jwks_uri"]) == (200, issuer.url, issuer.jwks_uri)


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff"])
def test_a_body_that_is_no_object_is_refused(issuer: Issuer, body: bytes) -> None:
    """The stand-in answers a mistake with a sentence, not with a dropped connection."""
    assert call(issuer.mint_url, body)[0] == 400
