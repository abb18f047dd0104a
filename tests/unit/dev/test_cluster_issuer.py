"""The local cluster's issuer: tokens of the shape that Kubernetes projects, whole or wrong exactly as asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from dev.cluster_issuer import LIFETIME_S, SERVICE_ACCOUNT_UID, ClusterIssuer, merged
from tests.fakes.clock import FakeClock
from tests.unit.dev.calling import call

API = "http://127.0.0.1:1"


@pytest.fixture
def issuer() -> Iterator[ClusterIssuer]:
    made = ClusterIssuer(FakeClock(), audience=API)
    made.start()
    yield made
    made.stop()


def claims_of(issuer: ClusterIssuer, asked: dict[str, Any]) -> dict[str, Any]:
    token = call(issuer.mint_url, asked)[1]["token"]
    keys = jwt.PyJWKSet.from_dict(call(f"{issuer.url}/openid/v1/jwks")[1])
    unchecked = dict.fromkeys(("verify_aud", "verify_exp", "verify_nbf", "verify_iat", "verify_iss"), False)
    key = keys[jwt.get_unverified_header(token)["kid"]].key
    return jwt.decode(token, key, ["RS256"], options=unchecked)  # type: ignore[arg-type]


def test_a_token_has_the_claims_of_a_pod(issuer: ClusterIssuer) -> None:
    """The declaration rests on these claims; a missing one would be refused for the wrong reason."""
    found = claims_of(issuer, {})
    assert (found["iss"], found["aud"]) == (issuer.url, [API])
    assert found["sub"] == "system:serviceaccount:deploy:schema-tool"
    assert found["exp"] - found["iat"] == LIFETIME_S
    bound = found["kubernetes.io"]
    assert bound["namespace"] == "deploy"
    assert bound["serviceaccount"] == {"name": "schema-tool", "uid": SERVICE_ACCOUNT_UID}
    assert set(bound["pod"]) == {"name", "uid"}


def test_each_token_is_of_a_new_pod(issuer: ClusterIssuer) -> None:
    """The pod is the run: with two tokens of one pod a test that mints twice would fail at its second redemption."""
    first, second = claims_of(issuer, {}), claims_of(issuer, {})
    assert first["kubernetes.io"]["pod"]["uid"] != second["kubernetes.io"]["pod"]["uid"]
    assert first["jti"] != second["jti"]


def test_what_is_asked_goes_deep_and_nothing_else_changes(issuer: ClusterIssuer) -> None:
    """A test of a bad token asks for exactly one thing to be wrong."""
    found = claims_of(issuer, {"kubernetes.io": {"serviceaccount": {"name": "other"}, "pod": None}, "jti": None})
    assert found["kubernetes.io"]["serviceaccount"] == {"name": "other", "uid": SERVICE_ACCOUNT_UID}
    assert found["sub"] == "system:serviceaccount:deploy:other"
    assert "pod" not in found["kubernetes.io"]
    assert "jti" not in found


def test_the_discovery_document_names_the_issuer_exactly(issuer: ClusterIssuer) -> None:
    """OpenID Connect Discovery 4.3: a client compares ``issuer`` with the address it asked."""
    assert call(f"{issuer.url}/.well-known/openid-configuration")[1]["issuer"] == issuer.url
    assert call(f"{issuer.url}/nothing")[0] == 404


def test_merging_leaves_what_it_was_given_as_it_is() -> None:
    """The defaults are shared by all calls."""
    base = {"a": {"b": 1, "c": 2}}
    assert merged(base, {"a": {"b": None, "d": 3}, "e": [1]}) == {"a": {"c": 2, "d": 3}, "e": [1]}
    assert base == {"a": {"b": 1, "c": 2}}
    assert merged({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
