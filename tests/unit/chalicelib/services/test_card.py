"""The card: complete or not at all, hostile text kept harmless, and recognisable when it comes back in a click."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from chalicelib.domain.ask import Approved, Ask, Question, Refused, Stage, Waiting
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.requirement import Approval
from chalicelib.domain.session import ApprovalNeed
from chalicelib.services.card import (
    MAX_CARD_TEXT,
    card_summary,
    fits_card,
    render_card,
    render_decided,
    same_card,
    visible,
)
from tests.fakes.control_plane import stored
from tests.fakes.samples import BEN, NEED, answer, ask

AT = "https://approve.example.com"


def asking(**changed: Any) -> Ask:
    """An ask whose question is changed."""
    made = ask()
    question = replace(made.question, **changed)
    return replace(made, question=question, digest=question.digest())


def texts(node: Any) -> Iterator[dict[str, Any]]:
    """Every text object and text element."""
    if isinstance(node, list):
        for item in node:
            yield from texts(item)
    if isinstance(node, dict):
        if isinstance(node.get("text"), str):
            yield node
        for value in node.values():
            yield from texts(value)


def test_a_card_says_who_what_where_why_how_long_and_who_may() -> None:
    """An approver who has to ask around approves blindly next time."""
    shown = json.dumps(render_card(asking(reason="deploy 7", chain=("ci-runner · iss#1", "agent · iss#2")), at=AT))
    for part in (
        *(
            "orders-prod",
            "app",
            "deploy 7",
            "1. ci-runner · iss#1",
            "2. agent · iss#2",
            "prod-write",
            "this operation, once",
        ),
        *(
            "DELETE FROM orders WHERE id = 7",
            "1 person of dba",
            "ask the dba on call",
            "database: orders",
            "Expires 2026",
        ),
    ):
        assert part.replace("·", "\\u00b7") in shown


def test_values_and_hidden_literals_are_named() -> None:
    """``WHERE tenant = ANY($1)`` says nothing without $1; a hidden literal is named by kind and length."""
    made = asking(binds=("$1 = 'acme'", "$2 = (card_number, 16 characters)"), literals=("card_number, 16 characters",))
    shown = json.dumps(render_card(made, at=AT))
    assert "$1 = 'acme'" in shown
    assert "Hidden in the text above: card_number, 16 characters" in shown


def test_a_session_says_how_long() -> None:
    """An hour and a minute are different requests."""
    request = {"stage": Stage.REQUEST, "text": "open a session"}
    assert "15 minutes" in json.dumps(render_card(asking(duration_s=900, **request), at=AT))
    assert "1 minute 30 s" in json.dumps(render_card(asking(duration_s=90, **request), at=AT))


def test_an_unknown_trigger_is_said() -> None:
    """Two people are asked, and must know why."""
    assert "Trigger unknown" in json.dumps(render_card(asking(trigger_known=False), at=AT))
    assert "Trigger unknown" not in json.dumps(render_card(asking(), at=AT))


def test_a_button_carries_the_asks_id_alone() -> None:
    """What a button carries comes back from a client: a digest or a right in it would be theirs to choose."""
    made = ask()
    blocks: list[Any] = list(render_card(made, at=AT))
    buttons = [item for block in blocks if block["type"] == "actions" for item in block["elements"]]
    assert [(button["action_id"], button["value"]) for button in buttons] == [("approve", made.id), ("deny", made.id)]


HOSTILE = "*bold* <!channel> <https://evil.example|click> &lt; `x` _y_ :tada:"


def test_hostile_text_stands_where_slack_reads_no_markup() -> None:
    """A reason with a link, a mention or an emoji must not become one."""
    made = asking(
        reason=HOSTILE, text=HOSTILE, chain=(HOSTILE,), binds=(HOSTILE,), literals=(HOSTILE,), state=(("s", HOSTILE),)
    )
    for node in texts(render_card(made, at=AT)):
        if "bold" in node["text"]:
            assert node["type"] in ("plain_text", "text")
    assert "evil" not in card_summary(made)


def test_no_text_hides_or_turns_round() -> None:
    """A right-to-left override shows DROP as something else; a zero-width space hides a word's end."""
    assert visible("a\u202eb\u200bc\x1b[2J\r\u00a0d\te\nf") == "a\\u{202e}b\\u{200b}c\\u{1b}[2J\\u{d}\\u{a0}d\te\nf"


@given(text=st.text(max_size=200), reason=st.text(max_size=100))
def test_any_question_is_shown_whole_and_within_slacks_limits(text: str, reason: str) -> None:
    """Whatever is asked: the card is one that Slack takes, and no character of it is invisible."""
    made = asking(text=text, reason=reason)
    if not fits_card(made.question):
        assert not text
        return
    blocks = render_card(made, at=AT)
    assert visible(text) in [node["text"] for node in texts(blocks)]
    assert len(json.dumps(blocks)) < 13_000
    for block in Block.parse_all(blocks):
        block.validate_json()
    for node in texts(blocks):
        assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in node["text"] if char not in "\n\t")


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "x" * (MAX_CARD_TEXT + 1)},
        {"text": "\u202e" * 1000},
        {"text": ""},
        {"chain": tuple("i" * 300 for _ in range(11))},
        {"binds": ("b" * 6001,)},
        {"text": "x" * 5900, "binds": ("b" * 5900,)},
    ],
    ids=["long text", "text that is long when written out", "nothing", "long chain", "long binds", "long together"],
)
def test_what_does_not_fit_is_never_shown_in_part(changed: dict[str, Any]) -> None:
    """An approver who sees the first 3,000 characters approves the rest unseen."""
    made = asking(**changed)
    assert not fits_card(made.question)
    with pytest.raises(BadRequest):
        render_card(made, at=AT)


def test_the_longest_text_fits() -> None:
    """The bound that the broker uses must not refuse what a card could show."""
    assert fits_card(asking(text="x" * MAX_CARD_TEXT).question)


def test_a_full_card_still_fits_when_nine_have_answered() -> None:
    """The card grows with each answer; the last of nine must still be able to click it."""
    need = ApprovalNeed(rule="r", approval=Approval(group="dba", count=9), hint="")
    made = asking(text="x" * MAX_CARD_TEXT, needs=(need,))
    assert render_card(made, [answer(made, PersonId(f"okta|person-{n}")) for n in range(8)], at=AT)


def test_slacks_own_additions_are_the_same_card() -> None:
    """Slack gives blocks back with ids, flags and escapes; that must not stop an approver."""
    made = asking(text="SELECT 1 < 2 && '&amp;'", reason="<b> & co")
    assert same_card(stored(render_card(made, at=AT)), made, [], at=AT)


@given(st.data())
def test_any_other_text_is_another_card(data: st.DataObject) -> None:
    """Whatever text on the card is changed, it is not this Ask's any more."""
    made = ask()
    blocks = stored(render_card(made, at=AT))
    nodes = list(texts(blocks))
    node = data.draw(st.sampled_from(nodes))
    node["text"] += data.draw(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5))
    assert not same_card(blocks, made, [], at=AT)


@pytest.mark.parametrize("clicked", [None, [], "x", {}, [None], [[]]])
def test_what_is_no_card_is_not_this_one(clicked: Any) -> None:
    """The comparison meets whatever a payload holds."""
    assert not same_card(clicked, ask(), [], at=AT)


def test_the_card_after_an_answer_is_this_asks_too() -> None:
    """The second approver clicks the card as it was, or as it is; both are this Ask's."""
    need = ApprovalNeed(rule="r", approval=Approval(group="dba", count=2), hint="")
    made = asking(needs=(need,))
    first = answer(made)
    assert same_card(stored(render_card(made, at=AT)), made, [first], at=AT)
    assert same_card(stored(render_card(made, [first], at=AT)), made, [first], at=AT)
    assert not same_card(stored(render_card(made, [first], at=AT)), made, [], at=AT)


def test_the_decided_card_says_who_and_has_no_buttons() -> None:
    """What is over must look over, and say by whom."""
    made = ask()
    yes, no = answer(made), replace(answer(made, BEN), approved=False)
    approved = render_decided(made, Approved(answers=(yes,)), [yes])
    refused = render_decided(made, Refused(by=BEN), [yes, no])
    assert "Approved by okta|ada" in json.dumps(approved)
    assert "Refused by okta|ben" in json.dumps(refused)
    assert not any(block["type"] == "actions" for block in (*approved, *refused))
    waiting = render_decided(made, Waiting(missing=((NEED, 1),), answers=()), [])
    assert "1 more of dba" in json.dumps(waiting)


def test_a_question_has_one_rendering() -> None:
    """``decide`` recomputes what was shown: a rendering that differed by the clock or by chance would refuse clicks."""
    made = ask()
    assert render_card(made, at=AT) == render_card(made, at=AT)
    assert isinstance(made.question, Question)
