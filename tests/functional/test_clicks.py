"""``POST /slack/events`` and ``decide``: which clicks count, and that no other does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.errors import (
    AccessError,
    AlreadyDecided,
    ApprovalExpired,
    ApprovalWithdrawn,
    ApproverNotEligible,
    BadRequest,
    ProofInvalid,
    Unauthenticated,
)
from chalicelib.identity.jws import verify_answer
from chalicelib.services.decide import SlackRequest
from tests.fakes.control_plane import SIGNING_SECRET, Card, ControlPlane


@pytest.fixture
def token(plane: ControlPlane) -> str:
    return plane.token()


@pytest.fixture
def card(plane: ControlPlane, token: str) -> Card:
    """The open card of a session that waits for one dba."""
    assert plane.ask(token, "orders-prod").status_code == 202
    return plane.card()


def decide(plane: ControlPlane, payload: dict[str, Any], **how: Any) -> str:
    """Call ``decide`` itself, as its invoker would, with Slack's request."""
    body = urlencode({"payload": json.dumps(payload)})
    headers = plane.signed(body, **how)
    return plane.decide(
        SlackRequest(body=body, timestamp=headers["x_slack_request_timestamp"], signature=headers["x_slack_signature"])
    )


def test_a_click_becomes_a_signed_answer(plane: ControlPlane, card: Card) -> None:
    """The answer must show later what the person saw, where they were, and that only ``decide`` could write it."""
    assert plane.click(card, "UALICE").status_code == 200
    (answer,) = plane.stores.answers.rows.values()
    verify_answer(answer, plane.stores.keys)
    assert (answer.person, answer.approved, answer.groups) == ("alice", True, ("dba",))
    assert answer.digest == plane.the_ask().digest
    assert answer.card_sha256 == sha256_hex(answer.card.encode())
    assert answer.via == f"slack:T0ACME/UALICE/{card.place.channel}/{card.place.ts}"
    assert "open a postgres session to orders-prod as app" in answer.card


def test_the_person_is_told(plane: ControlPlane, card: Card) -> None:
    """A click without a word back is clicked again."""
    assert decide(plane, plane.payload(card, "UALICE")).startswith("Approved.")


def test_the_developer_who_triggered_it_approves_it(plane: ControlPlane, card: Card) -> None:
    """Attack: Dave started the run (gh:actor_id:1001) and is a dba; his own click must not count."""
    with pytest.raises(ApproverNotEligible, match="behind this run"):
        decide(plane, plane.payload(card, "UDAVE"))
    assert not plane.stores.answers.rows


def test_the_excluded_are_found_again_from_the_chain(plane: ControlPlane, card: Card) -> None:
    """Attack: whoever can write the asks table empties ``excluded``; the signed hop still names who started it."""
    plane.replace_ask(excluded=())
    with pytest.raises(ApproverNotEligible, match="behind this run"):
        decide(plane, plane.payload(card, "UDAVE"))


def test_a_person_who_is_an_actor_in_the_chain(plane: ControlPlane, card: Card) -> None:
    """An actor of the chain may not approve it, under whatever alias the bundle knows them."""
    alias = "https://token.actions.githubusercontent.com#9001:700"
    people = plane.bundles.files["approvers.yaml"].replace("user: UALICE}}", f'user: UALICE}}, aliases: ["{alias}"]}}')
    plane.bundles.activate(approvers=people)
    with pytest.raises(ApproverNotEligible, match="behind this run"):
        decide(plane, plane.payload(card, "UALICE"))


REFUSED: dict[str, tuple[Callable[[ControlPlane, Card], dict[str, Any]], type[AccessError]]] = {
    "somebody of another group": (lambda plane, card: plane.payload(card, "UCAROL"), ApproverNotEligible),
    "a stranger": (lambda plane, card: plane.payload(card, "UMALLORY"), ApproverNotEligible),
    "a look-alike of another team": (
        lambda plane, card: plane.payload(card, "UALICE") | {"team": {"id": "T0EVIL"}, "user": {"id": "UALICE"}},
        ApproverNotEligible,
    ),
    "a guest from another workspace": (
        lambda plane, card: plane.payload(card, "UALICE") | {"user": {"id": "UALICE", "team_id": "T0EVIL"}},
        ApproverNotEligible,
    ),
    "another action": (lambda plane, card: plane.payload(card, "UALICE", "approve_all"), BadRequest),
    "no action": (lambda plane, card: plane.payload(card, "UALICE", actions=[]), BadRequest),
    "two actions": (
        lambda plane, card: plane.payload(card, "UALICE", actions=plane.payload(card, "UALICE")["actions"] * 2),
        BadRequest,
    ),
    "another kind of payload": (lambda plane, card: plane.payload(card, "UALICE", type="view_submission"), BadRequest),
    "no blocks": (lambda plane, card: plane.payload(card, "UALICE", message={"ts": "1.1"}), BadRequest),
    "a card that says something else": (
        lambda plane, card: plane.payload(card, "UALICE", message={"ts": "1.1", "blocks": _reworded(card)}),
        ProofInvalid,
    ),
    "a card with a block less": (
        lambda plane, card: plane.payload(card, "UALICE", message={"ts": "1.1", "blocks": card.blocks[:-3]}),
        ProofInvalid,
    ),
    "a card with a block more": (
        lambda plane, card: plane.payload(
            card, "UALICE", message={"ts": "1.1", "blocks": [*card.blocks, {"type": "divider"}]}
        ),
        ProofInvalid,
    ),
    "buttons that were swapped": (
        lambda plane, card: plane.payload(card, "UALICE", message={"ts": "1.1", "blocks": _swapped(card)}),
        ProofInvalid,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_click_that_must_not_count(plane: ControlPlane, card: Card, name: str) -> None:
    """Each is signed by Slack and still not an answer: wrong person, wrong button, or not what was shown."""
    payload, kind = REFUSED[name]
    with pytest.raises(kind):
        decide(plane, payload(plane, card))
    assert not plane.stores.answers.rows


@pytest.mark.parametrize(
    "changed",
    [{"chain": ("release-bot · https://token.actions.githubusercontent.com#9001:1",)}, {"trigger_known": True}],
    ids=["the name of somebody else", "a trigger that nobody knows"],
)
def test_a_card_that_lies_about_who_asks_is_not_answered(plane: ControlPlane, changed: dict[str, Any]) -> None:
    """Attack: whoever can put an Ask (a stolen API or broker role) writes a card that people would approve, for a hop
    that they would not. The card is whole and its digest fits; the signed chain says otherwise."""
    assert plane.ask(plane.token(event_name="schedule"), "orders-prod").status_code == 202
    question = replace(plane.the_ask().question, **changed)
    plane.replace_ask(question=question, digest=question.digest())
    card = plane.card()
    with pytest.raises(ProofInvalid):
        decide(plane, plane.payload(card, "UALICE"))
    assert not plane.stores.answers.rows


def test_a_question_that_was_changed_after_it_was_asked(plane: ControlPlane, card: Card) -> None:
    """Attack: the ask's row is rewritten between card and click, in what the card does not show and then in what it
    does, with the digest and without."""
    plane.replace_ask(question=replace(plane.the_ask().question, commitment="0" * 64))
    with pytest.raises(ProofInvalid, match="was changed"):
        decide(plane, plane.payload(card, "UALICE"))
    plane.replace_ask(question=replace(plane.the_ask().question, duration_s=43_200))
    changed = plane.the_ask().question
    plane.replace_ask(digest=changed.digest())
    with pytest.raises(ProofInvalid, match="does not show"):
        decide(plane, plane.payload(card, "UALICE"))
    assert not plane.stores.answers.rows


# -- Slack's signature ---------------------------------------------------------------------------------------------


def test_a_replayed_slack_payload(plane: ControlPlane, card: Card) -> None:
    """Attack: the same signed request twice within its five minutes, at the edge and at ``decide``."""
    payload = plane.payload(card, "UCAROL")
    body = urlencode({"payload": json.dumps(payload)})
    headers = plane.signed(body)
    request = SlackRequest(
        body=body, timestamp=headers["x_slack_request_timestamp"], signature=headers["x_slack_signature"]
    )
    with pytest.raises(ApproverNotEligible):
        plane.decide(request)
    plane.bundles.activate(approvers=plane.bundles.files["approvers.yaml"].replace("[release]", "[dba]"))
    with pytest.raises(Unauthenticated, match="delivered before"):
        plane.decide(request)
    assert not plane.stores.answers.rows


@pytest.mark.parametrize(("age_s", "status"), [(300, 200), (301, 401), (-301, 401)])
def test_a_click_that_is_301_seconds_old(plane: ControlPlane, card: Card, age_s: float, status: int) -> None:
    """Attack: a request that was held back. 300 seconds is Slack's own bound; neither side of it may slip."""
    assert plane.send(plane.payload(card, "UALICE"), age_s=age_s).status_code == status
    assert len(plane.stores.answers.rows) == (status == 200)


def test_an_altered_body(plane: ControlPlane, card: Card) -> None:
    """Attack: deny becomes approve on the way."""
    body = urlencode({"payload": json.dumps(plane.payload(card, "UALICE", "deny"))})
    headers = plane.signed(body)
    before = plane.snapshot()
    answer = plane.post_form("/slack/events", body.replace("deny", "approve"), **headers)
    assert (answer.status_code, answer.json_body["code"]) == (401, "unauthenticated")
    assert plane.snapshot() == before


UNSIGNED: dict[str, dict[str, str]] = {
    "nothing": {},
    "no signature": {"x_slack_request_timestamp": "1793611800"},
    "no timestamp": {"x_slack_signature": "v0=" + "0" * 64},
    "a timestamp that is no number": {"x_slack_request_timestamp": "now", "x_slack_signature": "v0=" + "0" * 64},
    "a timestamp in other digits": {"x_slack_request_timestamp": "١٢٣", "x_slack_signature": "v0=" + "0" * 64},
    "another version": {"x_slack_request_timestamp": "1793611800", "x_slack_signature": "v1=" + "0" * 64},
    "bolt's own dispatch": {"x_slack_bolt_lazy_only": "1", "x_slack_bolt_lazy_function_name": "approve"},
}


@pytest.mark.parametrize("name", UNSIGNED)
def test_what_slack_did_not_sign_is_refused(plane: ControlPlane, card: Card, name: str) -> None:
    """Whoever finds the URL can post to it; without the secret nothing goes further, and nothing is written."""
    before = plane.snapshot()
    body = urlencode({"payload": json.dumps(plane.payload(card, "UALICE"))})
    answer = plane.post_form("/slack/events", body, **UNSIGNED[name])
    assert (answer.status_code, answer.json_body["code"]) == (401, "unauthenticated")
    assert plane.snapshot() == before


def test_another_apps_secret(plane: ControlPlane, card: Card) -> None:
    """Another Slack app's requests are signed too, by another secret."""
    assert plane.send(plane.payload(card, "UALICE"), secret="x" + SIGNING_SECRET).status_code == 401


@pytest.mark.parametrize(
    "body",
    [
        "ssl_check=1",
        "payload=",
        "payload=%7B%7D",
        "payload=[[[[",
        "payload=1",
        "payload=[]",
        "payload=" + "[" * 20_000,
        "command=%2Fdrop",
    ],
)
def test_a_signed_request_that_is_no_click(plane: ControlPlane, body: str) -> None:
    """Slack sends other things too, and an app's secret may leak: what is not a click changes nothing."""
    before = plane.snapshot()
    answer = plane.post_form("/slack/events", body, **plane.signed(body))
    assert answer.status_code in (400, 404)
    assert plane.snapshot() == before


@pytest.mark.parametrize(
    ("content_type", "size", "status"),
    [("application/json", 10, 415), ("application/x-www-form-urlencoded", 70_000, 413)],
)
def test_a_body_of_the_wrong_kind_or_size(plane: ControlPlane, content_type: str, size: int, status: int) -> None:
    """Before the signature is even computed."""
    body = "x" * size
    answer = plane.post_form("/slack/events", body, content_type=content_type, **plane.signed(body))
    assert answer.status_code == status
    assert not plane.stores.once.rows


def test_invoking_decide_is_no_authority(plane: ControlPlane, card: Card) -> None:
    """Attack: the API's role invokes ``decide`` with a click that it made up."""
    body = urlencode({"payload": json.dumps(plane.payload(card, "UALICE"))})
    stamp = str(int(plane.clock.now().timestamp()))
    with pytest.raises(Unauthenticated):
        plane.stores.functions.invoke("decide", {"body": body, "timestamp": stamp, "signature": "v0=" + "0" * 64})
    assert not plane.stores.answers.rows


# -- one effect ----------------------------------------------------------------------------------------------------


def test_fifty_racing_clicks_are_one_answer(plane: ControlPlane, token: str, card: Card) -> None:
    """An impatient person, and everybody's phone at once: one answer, one use, one grant."""
    bodies = [plane.payload(card, "UALICE") for _ in range(50)]
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda payload: _tried(plane, payload), bodies))
    assert told.count("") == 1
    assert set(told) == {"", "already_decided"}
    assert len(plane.stores.answers.rows) == 1
    (ask,) = plane.stores.asks.rows.values()
    assert plane.poll(token, ask.question.session_id).status_code == 200
    assert len(plane.stores.uses.rows) == 1


def test_one_person_is_not_two(plane: ControlPlane) -> None:
    """Where two must approve, one who clicks twice is one."""
    token = plane.token(event_name="schedule")
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    card = plane.card()
    assert decide(plane, plane.payload(card, "UALICE")).endswith("1 more is needed.")
    with pytest.raises(AlreadyDecided):
        decide(plane, plane.payload(card, "UALICE"))
    assert plane.poll(token, session_id).status_code == 202


def test_the_second_of_two_may_click_the_card_as_it_was_or_as_it_is(plane: ControlPlane) -> None:
    """The card changes when the first has answered; whoever has not seen that yet is still looking at this Ask."""
    token = plane.token(event_name="schedule")
    session_id = plane.ask(token, "orders-prod").json_body["session_id"]
    card = plane.card()
    old = plane.payload(card, "UBOB", message={"ts": card.place.ts, "blocks": copy.deepcopy(card.blocks)})
    decide(plane, plane.payload(card, "UALICE"))
    plane.pump()
    assert "Approved by alice" in json.dumps(card.blocks)
    decide(plane, old)
    assert plane.poll(token, session_id).status_code == 200


@pytest.mark.parametrize("first", ["approve", "deny"])
def test_a_click_on_what_is_decided(plane: ControlPlane, card: Card, first: str) -> None:
    """The first answer stands; a later one says so instead of adding a second."""
    old = plane.payload(card, "UBOB")
    decide(plane, plane.payload(card, "UALICE", first))
    with pytest.raises(AlreadyDecided):
        decide(plane, old)
    assert len(plane.stores.answers.rows) == 1


def test_a_click_on_what_expired(plane: ControlPlane, card: Card) -> None:
    """To the second: what has expired is not approved by a fresh click on an old card."""
    plane.clock.advance(900)
    with pytest.raises(ApprovalExpired):
        decide(plane, plane.payload(card, "UALICE"))


def test_a_click_on_what_was_withdrawn(plane: ControlPlane, token: str, card: Card) -> None:
    """The pipeline was cancelled; the person must hear that, and nothing is written."""
    plane.close(token, plane.the_ask().question.session_id)
    with pytest.raises(ApprovalWithdrawn):
        decide(plane, plane.payload(card, "UALICE"))
    assert not plane.stores.answers.rows


def _tried(plane: ControlPlane, payload: dict[str, Any]) -> str:
    try:
        decide(plane, payload)
    except AccessError as error:
        return error.code
    return ""


def _reworded(card: Card) -> list[dict[str, Any]]:
    blocks = copy.deepcopy(card.blocks)
    for block in blocks:
        if block["type"] == "rich_text":
            block["elements"][0]["elements"][0]["text"] = "open a postgres session to orders-dev as app"
    return blocks


def _swapped(card: Card) -> list[dict[str, Any]]:
    blocks = copy.deepcopy(card.blocks)
    buttons = next(block["elements"] for block in blocks if block["type"] == "actions")
    buttons[0]["text"], buttons[1]["text"] = buttons[1]["text"], buttons[0]["text"]
    return blocks
