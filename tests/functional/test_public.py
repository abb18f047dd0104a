"""What anybody may read: keys, the target's authority, where people log in, and the contract itself."""

from __future__ import annotations

import base64

import pytest

from chalicelib.domain.signature import KeyPurpose
from tests.functional.world import CLIENT_ID, PEOPLE_ISSUER, World


@pytest.fixture
def world() -> World:
    return World()


def test_every_key_is_published_by_its_purpose(world: World) -> None:
    """An auditor verifies hops, answers, manifests and certificates with these, and no other."""
    answer = world.plane.http.get("/v1/keys")
    assert set(answer.json_body) == {purpose.value for purpose in KeyPurpose}
    for purpose, found in answer.json_body.items():
        (key,) = found["keys"]
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}, purpose
    assert answer.headers["Cache-Control"] == "max-age=300"
    assert answer.json_body["token"] == world.plane.http.get("/.well-known/jwks.json").json_body


def test_the_targets_authority_is_a_file_that_sshd_takes(world: World) -> None:
    """TrustedUserCAKeys names a file of such lines; another spelling and sshd trusts nobody, or refuses to start."""
    answer = world.plane.http.get("/.well-known/ssh-target-ca.pub")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    (line,) = answer.body.decode().splitlines()
    kind, blob, *comment = line.split(" ")
    assert kind == "ecdsa-sha2-nistp256"
    assert base64.b64decode(blob)[4 : 4 + len(kind)] == kind.encode()
    assert comment == ["countersign", "ssh-target-key-1"]


def test_people_are_told_where_they_log_in(world: World) -> None:
    """Issuers of people alone: a CI's issuer has no client that a person could use."""
    answer = world.plane.http.get("/v1/login")
    assert answer.json_body == {
        "issuers": [{"name": "people", "issuer": PEOPLE_ISSUER, "client_id": CLIENT_ID, "scope": "openid"}]
    }


def test_the_contract_is_served_without_a_store(world: World) -> None:
    """A generator of clients needs no deployment that works."""
    world.plane.stores.fail("chains", "sessions", "revocations", "once")
    answer = world.plane.http.get("/openapi.json")
    assert answer.json_body["openapi"] == "3.1.1"
    assert answer.headers["Cache-Control"] == "max-age=300"
    assert world.plane.http.get("/healthz").json_body == {"status": "ok"}
