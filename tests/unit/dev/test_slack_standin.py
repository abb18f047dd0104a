"""The Slack stand-in: what the app calls, what a click sends, what the page may do."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.signature import SignatureVerifier

from chalicelib.domain.secret import Secret
from dev.loopback import LoopbackServer, Request, Response
from dev.settings import SystemClock
from dev.slack_standin import CHANNEL, Member, SlackStandin
from tests.unit.dev.calling import call

TOKEN, SIGNING = Secret("xoxb-test"), Secret("signing-test")
MEMBERS = [
    Member(user_id="UALICE", team="T1", name="Alice Adams", groups=("dba",)),
    Member(user_id="UBOB", team="T2", name="Bob"),
]


class Events:
    """The app's side: keeps what arrived."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def answer(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(body=b"thanks", content_type="text/plain")


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def slack(events: Events) -> Iterator[SlackStandin]:
    app = LoopbackServer("app", events.answer)
    made = SlackStandin(SystemClock(), members=MEMBERS, bot_token=TOKEN, signing_secret=SIGNING)
    made.send_clicks_to(f"{app.url}/slack/events")
    app.start()
    made.start()
    yield made
    made.stop()
    app.stop()


@pytest.fixture
def client(slack: SlackStandin) -> WebClient:
    return WebClient(token=TOKEN.expose(), base_url=slack.api_url)


CARD: list[dict[str, Any]] = [
    {"type": "section", "text": {"type": "mrkdwn", "text": "DELETE < 1"}},
    {
        "type": "actions",
        "block_id": "answers",
        "elements": [
            {
                "type": "button",
                "action_id": "approve",
                "value": "ask_1",
                "text": {"type": "plain_text", "text": "Approve"},
            }
        ],
    },
]


def _click(slack: SlackStandin, ts: str, action: str = "approve", user: str = "UALICE") -> tuple[int, Any]:
    return call(f"{slack.url}/click", {"message_ts": ts, "action_id": action, "user_id": user})


def test_a_click_arrives_as_slack_sends_it(slack: SlackStandin, client: WebClient, events: Events) -> None:
    """The real verifier accepts the signature, and the payload holds the message that was stored, not the click's."""
    ts = client.chat_postMessage(channel=CHANNEL, text="held", blocks=CARD)["ts"]
    status, told = _click(slack, ts)
    assert (status, told["status"], told["body"]) == (200, 200, "thanks")
    (request,) = events.requests
    assert SignatureVerifier(SIGNING.expose()).is_valid_request(request.body, dict(request.headers))
    payload = json.loads(parse_qs(request.body.decode())["payload"][0])
    assert payload["type"] == "block_actions"
    assert payload["user"] == {"id": "UALICE", "username": "alice.adams", "name": "alice.adams", "team_id": "T1"}
    assert payload["message"]["blocks"][0]["text"]["text"] == "DELETE &lt; 1"
    assert [(item["action_id"], item["block_id"], item["value"]) for item in payload["actions"]] == [
        ("approve", "answers", "ask_1")
    ]


def test_a_wrong_token_is_refused_as_slack_does(slack: SlackStandin) -> None:
    """The app must read its bot token from the secret store: any other one fails here as at Slack."""
    with pytest.raises(SlackApiError, match="invalid_auth"):
        WebClient(token="xoxb-other", base_url=slack.api_url).chat_postMessage(channel=CHANNEL, text="x")


def test_blocks_that_slack_refuses_are_refused_and_nothing_is_posted(slack: SlackStandin, client: WebClient) -> None:
    """A card past a limit must fail in the tests, not in front of an approver."""
    with pytest.raises(SlackApiError, match="invalid_blocks"):
        client.chat_postMessage(channel=CHANNEL, text="x", blocks=[{"type": "section"}])
    assert slack.messages() == []


def test_an_update_replaces_the_card_and_closes_it(slack: SlackStandin, client: WebClient) -> None:
    """An answered card has no button left, so that a second click finds nothing to press."""
    ts = client.chat_postMessage(channel=CHANNEL, text="held", blocks=CARD)["ts"]
    assert slack.messages()[0]["state"] == "open"
    client.chat_update(channel=CHANNEL, ts=ts, text="approved", blocks=CARD[:1])
    (message,) = slack.messages()
    assert (message["state"], message["text"], message["edited"]) == ("closed", "approved", True)
    status, told = _click(slack, ts)
    assert (status, told["offered"]) == (404, [])


def test_the_response_url_takes_five_answers_and_no_more(
    slack: SlackStandin, client: WebClient, events: Events
) -> None:
    """Slack's own bound; an app that talks more than that loses the rest there too."""
    ts = client.chat_postMessage(channel=CHANNEL, text="held", blocks=CARD)["ts"]
    _click(slack, ts)
    url = json.loads(parse_qs(events.requests[0].body.decode())["payload"][0])["response_url"]
    for _ in range(5):
        assert call(url, {"response_type": "ephemeral", "replace_original": False, "text": "not you"})[0] == 200
    assert call(url, {"text": "again"})[0] == 404
    assert [(one["user"], one["text"]) for one in slack.messages()[0]["ephemerals"]] == [("UALICE", "not you")] * 5


def test_an_ephemeral_is_seen_below_the_message(slack: SlackStandin, client: WebClient) -> None:
    """The page shows it to one person alone; tests read it from /messages."""
    client.chat_postMessage(channel=CHANNEL, text="held", blocks=CARD)
    client.chat_postEphemeral(channel=CHANNEL, user="UBOB", text="you may not")
    assert slack.messages()[0]["ephemerals"][0]["user"] == "UBOB"


def test_an_app_that_does_not_answer_is_told_to_the_clicker(slack: SlackStandin, client: WebClient) -> None:
    """Slack shows a warning then; the contract's `click` says what came back, here nothing."""
    slack.send_clicks_to("http://127.0.0.1:9/slack/events")
    ts = client.chat_postMessage(channel=CHANNEL, text="held", blocks=CARD)["ts"]
    status, told = _click(slack, ts)
    assert (status, told["ok"], told["status"]) == (200, False, 0)


def test_every_call_that_is_not_known_says_so(client: WebClient) -> None:
    """A method that Slack has and the stand-in lacks must not look like a success."""
    with pytest.raises(SlackApiError, match="unknown_method"):
        client.conversations_list()


def test_the_page_lets_nothing_foreign_or_inline_run(slack: SlackStandin) -> None:
    """Cards carry a stranger's text; the policy holds even if a text node were ever missed."""
    with urllib.request.urlopen(slack.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    script = call(f"{slack.url}/page.js")[1]
    for parser in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert parser not in script
