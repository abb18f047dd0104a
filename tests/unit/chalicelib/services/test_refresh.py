"""A token of one's own becomes the next one, for whoever has the key, while the hop lives."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.control_plane import ControlPlane
from tests.fakes.keys import Key


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


def test_an_expired_token_is_renewed_with_its_key(plane: ControlPlane) -> None:
    """A migration takes an hour and a token five minutes; the run's hop is the same."""
    key = Key()
    token = plane.token(key=key)
    plane.clock.advance(3600)
    answer = plane.refresh(token, key=key)
    assert answer.status_code == 200
    body = answer.json_body
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("DPoP", 300, "*")
    (hop,) = plane.stores.chains.rows.values()
    assert (body["txn"], body["hop"]) == (hop.txn, hop.id)
    assert plane.ask(body["access_token"], "orders-dev", by=key).status_code == 201


def test_a_renewed_token_never_outlives_its_hop(plane: ControlPlane) -> None:
    """Nor is one renewed after it."""
    key = Key()
    token = plane.token(key=key)
    plane.clock.advance(8 * 3600 - 100)
    assert plane.refresh(token, key=key).json_body["expires_in"] == 100
    plane.clock.advance(100)
    assert plane.refresh(token, key=key).json_body["code"] == "token_expired"


def test_a_narrow_token_is_not_renewed_into_a_wide_one(plane: ControlPlane) -> None:
    """Attack: a token that was narrowed for a step is exchanged for all that its hop has."""
    key = Key()
    token = plane.exchange(plane.ci_token(), key=key, scope="orders-dev payroll").json_body["access_token"]
    assert plane.refresh(token, key=key).json_body["scope"] == "orders-dev payroll"
    assert plane.refresh(token, key=key, scope="orders-dev").json_body["scope"] == "orders-dev"
    assert plane.refresh(token, key=key, scope="*").json_body["code"] == "invalid_scope"


@pytest.mark.parametrize(
    ("key", "code"),
    [(None, "invalid_dpop_proof"), (Key(), "invalid_dpop_proof")],
    ids=["without a proof", "with another key's"],
)
def test_a_stolen_token_is_not_renewed(plane: ControlPlane, key: Key | None, code: str) -> None:
    """Attack: five minutes become eight hours."""
    token = plane.token(key=Key())
    answer = plane.refresh(token, key=key)
    assert (answer.status_code, answer.json_body["code"]) == (400, code)
    assert plane.events.seen[-1].name.value == "token.refused"


def test_a_token_without_a_key_is_not_renewed(plane: ControlPlane) -> None:
    """A bearer's token must end by itself: nobody could tell its owner from a thief."""
    answer = plane.refresh(plane.token(), key=Key())
    assert answer.json_body["code"] == "token_invalid"


def test_a_replayed_proof_renews_nothing(plane: ControlPlane) -> None:
    """Attack: the request is sent again by who saw it, for a token of their own."""
    key = Key()
    token, proof = plane.token(key=key), key.proof(plane.clock, "POST", "/v1/token")
    changed: dict[str, Any] = {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    assert plane.exchange(token, proof=proof, **changed).status_code == 200
    assert plane.exchange(token, proof=proof, **changed).json_body["code"] == "invalid_dpop_proof"


def test_a_revoked_hop_is_not_renewed(plane: ControlPlane) -> None:
    """Its own hop, and any above it."""
    parent, child = Key(), Key()
    token = plane.child(plane.token(key=parent), child, by=parent)
    root = next(hop for hop in plane.stores.chains.rows.values() if hop.depth == 0)
    plane.stores.revocations.revoke(f"hop:{root.id}", by="ops", why="leak", at=plane.clock.now())
    assert plane.refresh(token, key=child).json_body["code"] == "grant_revoked"


def test_an_issuers_token_is_not_one_of_ours(plane: ControlPlane) -> None:
    """The type of a subject token is what it says it is, and nothing is tried as something else."""
    assert plane.refresh(plane.ci_token(), key=Key()).json_body["code"] == "token_invalid"
    key = Key()
    assert plane.exchange(plane.token(key=key), key=key).json_body["code"] in {"unknown_issuer", "token_invalid"}
