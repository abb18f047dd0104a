"""``POST /v1/revocations``: who may end what, and that what was ended is ended."""

from __future__ import annotations

import pytest
from chalice.test import HTTPResponse

from chalicelib.domain.audit import AuditName
from chalicelib.services.identify import Caller
from tests.functional.world import Holder, World

UNKNOWN = {
    "hop": "hop_01m6dsg7e0fwejtv7egfb0rbxm",
    "session": "ses_01m6dsg7e0fwejtv7egfb0rbxm",
    "txn": "01m6dsg7e0fwejtv7egfb0rbxm",
}


@pytest.fixture
def world() -> World:
    return World().everybody()


def code(answer: HTTPResponse) -> tuple[int, str]:
    return answer.status_code, str(answer.json_body.get("code", ""))


def test_a_parent_ends_the_hop_that_it_let_in_and_all_below_it(world: World) -> None:
    """The story's own: deploy-svc is revoked, and so is what schema-tool does under it; ci-runner and its other child
    go on."""
    answer = world.revoke(world.runner, "hop", world.hop(world.agent))
    assert answer.status_code == 201
    assert set(answer.json_body) == {"key", "number", "at"}
    assert answer.json_body["key"] == f"hop:{world.hop(world.agent)}"
    for ended in (world.agent, world.tool):
        assert code(world.get(ended, "/v1/targets")) == (403, "grant_revoked")
    for alive in (world.runner, world.sibling, world.stranger):
        assert world.get(alive, "/v1/targets").status_code == 200


@pytest.mark.parametrize(
    ("who", "whose"),
    [("tool", "agent"), ("agent", "runner"), ("sibling", "agent"), ("sibling", "tool"), ("stranger", "agent")],
)
def test_a_sibling_a_child_and_a_stranger_end_nothing(world: World, who: str, whose: str) -> None:
    """Attack: a tool of the job stops another, or its parent, or somebody's run. It gets the answer for what is not
    there, and the try is on the record."""
    by: Holder = getattr(world, who)
    of: Holder = getattr(world, whose)
    session = world.session(of)
    before = world.plane.snapshot()["revocations"]
    for kind, id_ in (("hop", world.hop(of)), ("session", session), ("txn", world.txn(of))):
        answer, missing = world.revoke(by, kind, id_), world.revoke(by, kind, UNKNOWN[kind])
        assert code(answer) == code(missing) == (404, "not_found")
        assert [answer.json_body[name] for name in ("message", "hint")] == [
            missing.json_body[name] for name in ("message", "hint")
        ]
    assert world.plane.snapshot()["revocations"] == before
    assert world.plane.events.names()[-6:] == [AuditName.REVOCATION_REFUSED.value] * 6
    assert world.get(of, "/v1/targets").status_code == 200


def test_a_session_is_ended_by_whoever_is_above_it(world: World) -> None:
    """The run that started the agent that started the tool ends the tool's session, and nothing else."""
    session = world.session(world.tool)
    assert world.revoke(world.runner, "session", session).status_code == 201
    path = f"/v1/sessions/{session}"
    assert code(world.get(world.tool, path)) == (403, "grant_revoked")
    assert world.get(world.tool, "/v1/targets").status_code == 200


def test_a_session_that_waits_for_people_is_ended_too(world: World) -> None:
    """Whoever waits is told at once, and a click that comes afterwards opens nothing."""
    session = world.session(world.tool, "orders-prod")
    card = world.plane.card()
    assert world.revoke(world.agent, "session", session).status_code == 201
    for _ in range(2):
        assert code(world.get(world.tool, f"/v1/sessions/{session}")) == (403, "grant_revoked")
    world.plane.click(card, "UALICE")
    assert code(world.get(world.tool, f"/v1/sessions/{session}")) == (403, "grant_revoked")
    assert not world.plane.stores.uses.rows


def test_the_root_ends_its_whole_chain_and_itself(world: World) -> None:
    """The last thing that a cancelled pipeline does."""
    assert world.revoke(world.runner, "txn", world.txn(world.runner)).status_code == 201
    for ended in (world.runner, world.agent, world.tool, world.sibling):
        assert code(world.get(ended, "/v1/targets")) == (403, "grant_revoked")
    assert world.get(world.stranger, "/v1/targets").status_code == 200


def test_security_ends_anything_by_a_rule(world: World) -> None:
    """Carol's team may; Dave, who logged in at the same place, may not."""
    agent = world.plane.plane.services.chains(_caller(world, world.runner), world.txn(world.runner))[1].hop
    wanted = {
        "hop": world.hop(world.tool),
        "session": world.session(world.tool),
        "target": "orders-dev",
        "identity": agent.actor.key,
        "issuer": "https://token.actions.githubusercontent.com",
        "txn": world.txn(world.runner),
    }
    for kind, id_ in wanted.items():
        assert code(world.revoke(world.dave, kind, id_)) == (404, "not_found")
        assert world.revoke(world.carol, kind, id_).status_code == 201
    assert code(world.revoke(world.carol, "target", "no-such-target")) == (404, "not_found")
    assert code(world.get(world.stranger, "/v1/targets")) == (403, "grant_revoked")
    assert world.get(world.carol, "/v1/targets").status_code == 200


def test_a_revoked_target_takes_no_session(world: World) -> None:
    """An incident at one target closes it for everybody, in the words of a target that there is not."""
    world.revoke(world.carol, "target", "orders-dev")
    assert code(world.plane.ask(world.runner.token, "orders-dev", by=world.runner.key)) == (403, "policy_denied")


def test_a_revocation_may_be_repeated(world: World) -> None:
    """A caller that lost the answer asks again, and nothing is numbered twice."""
    first = world.revoke(world.runner, "hop", world.hop(world.agent), why="one")
    second = world.revoke(world.runner, "hop", world.hop(world.agent), why="two")
    assert first.json_body == second.json_body


@pytest.mark.parametrize(
    ("kind", "id_", "why"),
    [
        ("connection", "con_1", "x"),
        ("hop", "agent", "x"),
        ("session", UNKNOWN["hop"], "x"),
        ("target", "Orders", "x"),
        ("identity", "carol", "x"),
        ("target", "orders-dev", ""),
        ("target", "orders-dev", "a\u202eb"),
        ("target", "orders-dev", "x" * 201),
        ("token", "eyJhbGciOiJFUzI1NiJ9.e30.c2ln", "x"),
    ],
)
def test_what_names_nothing_that_could_be_ended(world: World, kind: str, id_: str, why: str) -> None:
    """A mistake in a script at three in the morning must not look like something that was ended."""
    before = world.plane.snapshot()["revocations"]
    assert code(world.revoke(world.carol, kind, id_, why)) == (400, "bad_request")
    assert world.plane.snapshot()["revocations"] == before


def test_an_unread_table_ends_nothing_and_says_so(world: World) -> None:
    """Nothing is guessed: neither that it was ended, nor that there is nothing to end."""
    session = world.session(world.tool)
    world.plane.stores.fail("sessions")
    assert code(world.revoke(world.runner, "session", session)) == (503, "store_unavailable")


def _caller(world: World, holder: Holder) -> Caller:
    presented = world.plane.presented(holder.token, "GET", "/v1/targets", holder.key)
    return world.plane.plane.services.identify(presented)
