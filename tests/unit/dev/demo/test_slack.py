"""The approvers of the demo: cards as lines, clicks by label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from slack_sdk import WebClient

from chalicelib.domain.secret import Secret
from dev.demo.slack import Approvers, plain
from dev.demo.waiting import DemoBroken
from dev.settings import SystemClock
from dev.slack_standin import CHANNEL, Member, SlackStandin

CARD: list[dict[str, Any]] = [
    {"type": "header", "text": {"type": "plain_text", "text": "Held"}},
    {"type": "section", "fields": [{"type": "mrkdwn", "text": "*Why*"}, {"type": "plain_text", "text": "a < b"}]},
    {
        "type": "rich_text",
        "elements": [{"type": "rich_text_preformatted", "elements": [{"type": "text", "text": "DELETE 1"}]}],
    },
    {
        "type": "actions",
        "elements": [{"type": "button", "action_id": "yes", "text": {"type": "plain_text", "text": "Approve"}}],
    },
]


@pytest.fixture
def slack() -> Iterator[SlackStandin]:
    members = [Member(user_id="UALICE", team="T1", name="Alice")]
    made = SlackStandin(SystemClock(), members=members, bot_token=Secret("xoxb"), signing_secret=Secret("s"))
    made.send_clicks_to("http://127.0.0.1:9/")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def approvers(slack: SlackStandin) -> Approvers:
    where = {"page": slack.url, "messages": f"{slack.url}/messages", "click": f"{slack.url}/click"}
    return Approvers(where, SystemClock())


def test_a_card_is_read_whole_and_returned_once(slack: SlackStandin, approvers: Approvers) -> None:
    """The second card of the story must not be the first one again."""
    client = WebClient(token="xoxb", base_url=slack.api_url)
    client.chat_postMessage(channel=CHANNEL, text="x", blocks=CARD)
    first = approvers.next_card()
    assert first.lines == ("Held", "Why     a < b", "    DELETE 1", "[ Approve ]")
    client.chat_postMessage(channel=CHANNEL, text="y", blocks=[CARD[2], CARD[3]])
    assert approvers.next_card().ts != first.ts


def test_a_button_that_is_not_there_breaks_the_story(slack: SlackStandin, approvers: Approvers) -> None:
    """It must not click another one instead."""
    WebClient(token="xoxb", base_url=slack.api_url).chat_postMessage(channel=CHANNEL, text="x", blocks=CARD)
    card = approvers.next_card()
    with pytest.raises(DemoBroken, match="Refuse"):
        approvers.click(card, "Refuse", "UALICE")


@pytest.mark.parametrize(
    ("mrkdwn", "shown"),
    [("*Why*", "Why"), ("`a_b` &lt; 1", "a_b < 1"), ("<https://x|here>", "here"), (":lock: 2 * 3 * 4", "2 * 3 * 4")],
)
def test_markup_is_taken_off_and_sql_is_left_alone(mrkdwn: str, shown: str) -> None:
    """An asterisk or underscore inside a statement is part of it."""
    assert plain(mrkdwn) == shown
