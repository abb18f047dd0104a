"""``connect`` of an ssh session, and its certificates: over HTTP. What a certificate holds is the services' test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.identity.ssh_certificates import verify_certificate
from tests.fakes.control_plane import BROKER
from tests.functional.world import World, ssh_key


@pytest.fixture
def world() -> World:
    return World()


def test_an_ssh_session_comes_with_all_that_ssh_needs(world: World) -> None:
    """The contract, field by field: what verifies the broker, the login, and a certificate on the key that was sent."""
    answer = world.plane.ask(world.tool.token, "db-dev", by=world.tool.key, ssh_public_key=ssh_key())
    assert answer.status_code == 201, answer.json_body
    connect, session = answer.json_body["connect"], answer.json_body["session_id"]
    assert set(connect) == {
        "protocol",
        "host",
        "port",
        "known_hosts",
        "user",
        "env",
        "command",
        "secret",
        "certificate",
    }
    assert connect["known_hosts"] == f"[broker.example.com]:2222 {BROKER.ssh_host_key}\n"
    assert (connect["user"], connect["env"]) == (session, {})
    assert connect["command"] == f"ssh -p 2222 -l {session} broker.example.com"
    authorities = world.plane.stores.keys.public_keys("ssh-user")
    said = verify_certificate(connect["certificate"], authorities, now=world.plane.clock.now(), login=session)
    assert said.key_id.startswith(f"txn:{world.txn(world.tool)} ses:{session} hop:")


def test_a_session_without_a_key_gets_its_certificate_later(world: World) -> None:
    """A certificate lives for minutes: a long session asks for the next one, without its secret."""
    session = world.session(world.tool, "db-dev")
    shown = world.get(world.tool, f"/v1/sessions/{session}").json_body["connect"]
    assert {"secret", "certificate"}.isdisjoint(shown)
    answer = world.post(world.tool, f"/v1/sessions/{session}/certificate", ssh_public_key=ssh_key())
    assert answer.status_code == 200
    assert set(answer.json_body) == {"certificate", "expires_at"}
    assert answer.json_body["expires_at"] == "2026-11-02T09:35:00.000Z"


@pytest.mark.parametrize("who", ["runner", "agent", "sibling", "stranger", "carol"])
def test_nobody_else_certifies_a_key_for_a_session(world: World, who: str) -> None:
    """Attack: a parent, a sibling or an auditor enters by somebody's session. To them it is not there."""
    session = world.session(world.tool, "db-dev")
    for subject in (session, "ses_01m6dsg7e0fwejtv7egfb0rbxm", "x"):
        answer = world.post(getattr(world, who), f"/v1/sessions/{subject}/certificate", ssh_public_key=ssh_key())
        assert (answer.status_code, answer.json_body["code"]) == (404, "not_found")


def test_a_postgresql_session_has_no_certificate(world: World) -> None:
    """Nothing else than ssh takes one; a key that was sent with the request is not used."""
    answer = world.plane.ask(world.tool.token, "orders-dev", by=world.tool.key, ssh_public_key=ssh_key())
    assert answer.status_code == 201
    assert "certificate" not in answer.json_body["connect"]
    path = f"/v1/sessions/{answer.json_body['session_id']}/certificate"
    assert world.post(world.tool, path, ssh_public_key=ssh_key()).status_code == 400


def test_a_broker_without_ssh_serves_none(world: World) -> None:
    """A deployment that was not told of a port and a host key must not send clients to a host that nothing verifies."""
    session = world.session(world.tool, "db-dev")
    world.plane.plane = replace(world.plane.plane, broker=replace(BROKER, ssh_port=0, ssh_host_key=""))
    answer = world.get(world.tool, f"/v1/sessions/{session}")
    assert (answer.status_code, answer.json_body["code"]) == (502, "target_unavailable")


def test_on_the_usual_port_the_host_is_named_as_ssh_looks_for_it(world: World) -> None:
    """sshd(8): brackets and port stand where the port is not 22; ssh would not find the line otherwise."""
    session = world.session(world.tool, "db-dev")
    world.plane.plane = replace(world.plane.plane, broker=replace(BROKER, ssh_port=22))
    connect = world.get(world.tool, f"/v1/sessions/{session}").json_body["connect"]
    assert connect["known_hosts"].startswith("broker.example.com ssh-ed25519 ")
