"""``POST /v1/replays``: a replay is told before a byte is shown, and told of whoever may not."""

from __future__ import annotations

from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.domain.audit import AuditEvent, ocsf
from chalicelib.domain.errors import StoreUnavailable
from tests.functional.world import Holder, World

OP = "op_01j9z3k4m5n6p7q8r9s0t1v2w3"


@pytest.fixture
def world() -> World:
    return World()


def told(world: World, name: str) -> list[AuditEvent]:
    return [event for event in world.plane.events.seen if event.name.value == name]


def replay(world: World, holder: Holder, session: str, **more: Any) -> HTTPResponse:
    return world.post(holder, "/v1/replays", **{"session_id": session, "form": "terminal", **more})


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, "the whole"),
        ({"form": "page"}, "the whole"),
        ({"begin": "90 s"}, "from 90 s"),
        ({"begin": OP, "form": "json", "connection_id": "con_01j9z3k4m5n6p7q8r9s0t1v2w3"}, f"from {OP}"),
    ],
)
def test_a_replay_is_told_with_who_of_which_session_and_which_part(
    world: World, more: dict[str, str], why: str
) -> None:
    """Somebody reads what others did: who, as what hop, of which session, whole or from where."""
    session_id = world.session(world.runner)
    answer = replay(world, world.carol, session_id, **more)
    assert answer.status_code == 201, answer.json_body
    (event,) = told(world, "recording.replayed")
    carol = world.plane.stores.chains.rows
    own = next(hop for hop in carol.values() if hop.id == world.hop(world.carol))
    assert (event.actor, event.acting.hop, event.session_id) == (own.actor.key, own.id, session_id)
    assert (event.target, event.code, event.subject) == ("orders-dev", "", more.get("form", "terminal"))
    assert event.why.startswith(f"{why}, by a caller of {own.txn}")
    assert event.connection_id == more.get("connection_id", "")
    assert event.txn != own.txn, "it is found under the chain that was looked at"
    assert ocsf(event) == (6003, 2)


@pytest.mark.parametrize("who", ["runner", "agent", "stranger", "dave"])
def test_who_may_not_is_told_nothing_and_is_told_of(world: World, who: str) -> None:
    """Attack: a pipeline reads what another did, or its own masked results again from the archive."""
    session_id = world.session(world.runner)
    answer = replay(world, getattr(world, who), session_id)
    assert (answer.status_code, answer.json_body["code"]) == (404, "not_found")
    assert told(world, "recording.replayed") == []
    (event,) = told(world, "recording.replay_refused")
    assert (event.session_id, event.code, event.target) == (session_id, "not_found", "")


def test_what_is_not_there_and_what_one_may_not_see_are_one_answer(world: World) -> None:
    """Attack: sessions are looked for by their ids."""
    there, absent = world.session(world.runner), "ses_01m6dsg7e0fwejtv7egfb0rbxm"
    bodies = [
        replay(world, holder, session_id).json_body
        for holder, session_id in ((world.carol, absent), (world.stranger, there), (world.stranger, absent))
    ]
    assert len({(body["code"], body["message"], body["hint"]) for body in bodies}) == 1
    assert len(told(world, "recording.replay_refused")) == 3


@pytest.mark.parametrize(
    "body",
    [
        {"session_id": "ses_x"},
        {"form": "video"},
        {"begin": "whenever"},
        {"begin": "op_\x1b[2J"},
        {"connection_id": "con_../../rec"},
        {"reason": "curious"},
    ],
)
def test_a_wrong_call_is_no_replay(world: World, body: dict[str, str]) -> None:
    """What an event names is an id of ours, or the event is not made."""
    answer = replay(world, world.carol, world.session(world.runner), **body)
    assert (answer.status_code, answer.json_body["code"]) == (400, "bad_request")
    assert told(world, "recording.replayed") == []


def test_where_nobody_can_be_told_it_is_refused(world: World) -> None:
    """A replay that no auditor could see is none: the log is full, the store is down."""
    session_id = world.session(world.runner)
    assert world.carol.token
    world.plane.stores.fail("sessions")
    assert replay(world, world.carol, session_id).status_code == 503
    assert told(world, "recording.replayed") == []


def test_an_audit_that_cannot_write_is_a_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event comes first: without it there is no 201, and the command line shows nothing."""
    session_id = world.session(world.runner)
    assert world.carol.token

    def failing(event: AuditEvent) -> None:
        raise StoreUnavailable("the log is full")

    monkeypatch.setattr(world.plane.events, "record", failing)
    assert replay(world, world.carol, session_id).status_code == 503
