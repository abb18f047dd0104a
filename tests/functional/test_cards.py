"""Cards follow the facts: one for each Ask, changed by each Answer, and none held back by a bad record."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalicelib.domain.audit import AuditName
from chalicelib.domain.identifiers import AskId
from chalicelib.services.functions import stream_records
from chalicelib.services.post_cards import AnswerPut, AskPut, Unreadable
from tests.fakes.control_plane import ControlPlane


def record(table: str, keys: Any, event: str = "INSERT") -> dict[str, Any]:
    arn = f"arn:aws:dynamodb:eu-central-1:123456789012:table/cs-{table}/stream/2026-11-02T00:00:00.000"
    return {"eventName": event, "eventSourceARN": arn, "dynamodb": {"Keys": keys, "SequenceNumber": "1"}}


def test_stream_records_name_their_asks() -> None:
    """Only keys are read: whatever else a record holds, what is shown comes from the table."""
    event = {
        "Records": [
            record("asks", {"id": {"S": "ask_1"}}),
            record("answers", {"ask": {"S": "ask_2"}, "person": {"S": "alice"}}),
            record("asks", {"id": {"S": "ask_3"}}, "MODIFY"),
            record("asks", {"id": {"S": "ask_4"}}, "REMOVE"),
        ]
    }
    assert stream_records(event) == [AskPut(ask_id=AskId("ask_1")), AnswerPut(ask_id=AskId("ask_2"))]


POISON: dict[str, Any] = {
    "nothing": {},
    "text": "x",
    "null": None,
    "no key": record("asks", {}),
    "a number for a key": record("asks", {"id": {"N": "1"}}),
    "an endless key": record("asks", {"id": {"S": "x" * 10_000}}),
    "keys are text": record("asks", "x"),
    "another table": record("uses", {"ask": {"S": "ask_1"}}),
    "no table": record("asks", {"id": {"S": "x"}}) | {"eventSourceARN": "arn"},
}


@pytest.mark.parametrize("name", POISON)
def test_a_poison_record_does_not_block_the_cards_behind_it(plane: ControlPlane, name: str) -> None:
    """Attack: one record that cannot be handled is retried by Lambda for a day, and no card is posted meanwhile."""
    plane.ask(plane.token(run_id="5002"), "orders-prod")
    event = {"Records": [POISON[name], record("asks", {"id": {"S": plane.the_ask().id}})]}
    assert plane.poster(stream_records(event)) == 1
    assert len(plane.workspace.cards) == 1
    failed = [event for event in plane.events.seen if event.name is AuditName.CARD_FAILED]
    assert [event.code for event in failed] == ["bad_request"]


def test_an_ask_that_breaks_the_renderer_does_not_block_the_next(plane: ControlPlane) -> None:
    """A bug of ours in one card must cost that card, an alarm, and no other."""
    token = plane.token()
    plane.ask(token, "orders-prod")
    broken = plane.the_ask().id
    plane.stores.asks.rows[broken] = None  # type: ignore[assignment] # a row that nothing can render
    plane.ask(token, "orders-prod", reason="second")
    assert plane.poster([AskPut(ask_id=ask_id) for ask_id in plane.stores.asks.rows]) == 1
    assert len(plane.workspace.cards) == 1
    assert [event.code for event in plane.events.seen if event.name is AuditName.CARD_FAILED] == ["internal"]


def test_a_record_delivered_twice_makes_one_card(plane: ControlPlane) -> None:
    """Streams deliver at least once, and the reconciler looks too: nobody is asked twice."""
    plane.ask(plane.token(run_id="5002"), "orders-prod")
    for _ in range(3):
        plane.pump()
        plane.poster.reconcile()
    assert len(plane.workspace.cards) == 1


def test_racing_posters_make_one_card(plane: ControlPlane) -> None:
    """Stream and schedule may run in the same second."""
    plane.ask(plane.token(run_id="5002"), "orders-prod")
    ask_id = plane.the_ask().id
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: plane.poster([AskPut(ask_id=ask_id)]), range(16)))
    assert len(plane.workspace.cards) == 1


def test_a_second_poster_while_slack_takes_its_time(plane: ControlPlane) -> None:
    """Between asking Slack and hearing of it seconds may pass, in which the schedule fires."""
    plane.ask(plane.token(run_id="5002"), "orders-prod")
    again: list[int] = []

    def reconcile() -> None:
        if not again:
            again.append(1)
            plane.poster.reconcile()

    plane.workspace.while_posting = reconcile
    plane.pump()
    assert (again, len(plane.workspace.cards)) == ([1], 1)


def test_slack_was_down_and_the_card_comes_a_minute_later(plane: ControlPlane) -> None:
    """A card that failed must not be lost: a pipeline waits for somebody who was never asked."""
    plane.ask(plane.token(run_id="5002"), "orders-prod")
    plane.workspace.down = True
    assert plane.pump() == 1
    plane.workspace.down = False
    plane.clock.advance(60)
    assert plane.poster.reconcile() == 0
    assert len(plane.workspace.cards) == 1


def test_a_record_that_was_lost_is_reconciled(plane: ControlPlane) -> None:
    """Nobody delivered the stream's record at all."""
    plane.ask(plane.token(run_id="5002"), "orders-prod")
    assert plane.poster.reconcile() == 0
    assert plane.card().is_open


def test_what_is_decided_expired_or_withdrawn_gets_no_late_card(plane: ControlPlane) -> None:
    """A card for what needs nobody any more asks people in vain."""
    token = plane.token()
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    plane.close(token, session_id)
    plane.poster.reconcile()
    plane.ask(plane.token(run_id="5002"), "orders-prod")
    plane.clock.advance(900)
    plane.poster.reconcile()
    plane.pump()
    assert plane.workspace.cards == []


@pytest.mark.parametrize(("action", "word"), [("approve", "Approved by alice"), ("deny", "Refused by alice")])
def test_an_answer_closes_the_card(plane: ControlPlane, action: str, word: str) -> None:
    """Buttons that do nothing any more must go, and the channel must see who answered."""
    plane.ask(plane.token(run_id="5002"), "orders-prod")
    card = plane.card()
    plane.click(card, "UALICE", action)
    plane.pump()
    assert not card.is_open
    assert word in json.dumps(card.blocks)


def test_an_unreadable_record_is_kept_in_the_audit(plane: ControlPlane) -> None:
    """The dead letter is the audit event: what was dropped can be counted and alarmed on."""
    assert plane.poster([Unreadable(what="x")]) == 1
    assert plane.events.names() == ["card.failed"]
