"""Blocks as Slack takes and keeps them."""

from __future__ import annotations

from typing import Any

import pytest

from dev.slack_blocks import InvalidBlocks, buttons, escaped, stored_blocks


def _section(text: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def _actions(*action_ids: str) -> dict[str, Any]:
    word = {"type": "plain_text", "text": "Approve"}
    return {"type": "actions", "elements": [{"type": "button", "action_id": name, "text": word} for name in action_ids]}


def test_what_is_stored_differs_from_what_was_sent_as_it_does_at_slack() -> None:
    """A check that compares the card byte for byte would pass without this and fail at Slack."""
    (stored,) = stored_blocks([_section("a & b < c &amp; <@U1>")])
    assert stored["text"] == {"type": "mrkdwn", "text": "a &amp; b &lt; c &amp; <@U1>", "verbatim": False}
    assert stored["block_id"]


@pytest.mark.parametrize(
    "blocks",
    [
        "text",
        [_section("x")] * 51,
        [_section("")],
        [_section("x" * 3001)],
        [{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}],
        [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}],
        [{"type": "section"}],
        [{"type": "image"}],
        [_actions("a", "a")],
        [_section("x") | {"block_id": "b"}, _section("y") | {"block_id": "b"}],
        [{"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "x" * 76}}]}],
    ],
)
def test_a_card_that_slack_refuses_is_refused(blocks: Any) -> None:
    """The limits of the Block Kit reference: a card over one of them would never reach an approver."""
    with pytest.raises(InvalidBlocks):
        stored_blocks(blocks)


def test_buttons_are_found_in_actions_and_beside_sections() -> None:
    """A click names an action id alone; it must be found wherever a button may stand."""
    beside = _section("x") | {"accessory": _actions("one")["elements"][0]}
    found = [item["action_id"] for _, item in buttons(stored_blocks([beside, _actions("two", "three")]))]
    assert found == ["one", "two", "three"]


@pytest.mark.parametrize(("sent", "kept"), [("<https://x|y>", "<https://x|y>"), ("1 < 2 > 1", "1 &lt; 2 &gt; 1")])
def test_only_control_sequences_keep_their_brackets(sent: str, kept: str) -> None:
    """SQL on a card is full of angle brackets that are no links."""
    assert escaped(sent) == kept
