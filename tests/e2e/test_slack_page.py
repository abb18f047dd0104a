"""The Slack stand-in's page, in a real browser: cards are drawn, people switch, a button is a signed click."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import pytest
from playwright.sync_api import Page, sync_playwright
from slack_sdk import WebClient

from chalicelib.domain.secret import Secret
from dev.loopback import LoopbackServer, Request, Response
from dev.settings import SystemClock
from dev.slack_standin import CHANNEL, Member, SlackStandin

pytestmark = pytest.mark.e2e
CHROMIUM = shutil.which("chromium")
HOSTILE = "<img src=x onerror=document.title='owned'> & DELETE FROM t WHERE a < 1"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
CARD: list[dict[str, Any]] = [
    {"type": "header", "text": {"type": "plain_text", "text": "Approval needed"}},
    {"type": "section", "text": {"type": "plain_text", "text": "by gh:lock:7", "emoji": False}},
    {
        "type": "rich_text",
        "elements": [{"type": "rich_text_preformatted", "elements": [{"type": "text", "text": HOSTILE}]}],
    },
    {
        "type": "actions",
        "elements": [
            {
                "type": "button",
                "action_id": "approve",
                "text": {"type": "plain_text", "text": "Approve"},
                "value": "ask_1",
            }
        ],
    },
]


class App:
    """The app's side: keeps the clicks, and closes the card as ours does."""

    def __init__(self) -> None:
        self.clicks: list[dict[str, Any]] = []
        self.client: WebClient | None = None

    def answer(self, request: Request) -> Response:
        payload = json.loads(parse_qs(request.body.decode())["payload"][0])
        self.clicks.append(payload)
        if self.client is not None:
            self.client.chat_update(channel=CHANNEL, ts=payload["message"]["ts"], text="done", blocks=CARD[:1])
        return Response()


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def slack(app: App) -> Iterator[SlackStandin]:
    server = LoopbackServer("app", app.answer)
    server.start()
    people = [
        Member(user_id="UALICE", team="T1", name="Alice", groups=("dba",)),
        Member(user_id="UBOB", team="T1", name="Bob"),
    ]
    made = SlackStandin(SystemClock(), members=people, bot_token=Secret("xoxb"), signing_secret=Secret("s"))
    made.send_clicks_to(f"{server.url}/slack/events")
    made.start()
    app.client = WebClient(token="xoxb", base_url=made.api_url)
    yield made
    made.stop()
    server.stop()


@pytest.fixture
def page(slack: SlackStandin) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("NOT TESTED: the Slack stand-in's page, since there is no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(slack.url)
        yield page
        browser.close()


def test_a_card_appears_by_itself_and_hostile_text_stays_text(slack: SlackStandin, page: Page, app: App) -> None:
    """What will run is shown exactly, nothing of it runs in the browser, and no name in it becomes a picture."""
    page.get_by_text("No card yet").wait_for()
    assert app.client is not None
    app.client.chat_postMessage(channel=CHANNEL, text="x", blocks=CARD)
    page.locator("article pre").wait_for()
    assert page.locator("article pre").text_content() == HOSTILE
    assert page.get_by_text("by gh:lock:7").count() == 1
    assert page.locator("article img").count() == 0
    assert "owned" not in page.title()


def test_a_button_is_a_click_of_who_you_are(slack: SlackStandin, page: Page, app: App) -> None:
    """`make demo INTERACTIVE=1` rests on it: the person chosen on the left is the one in the payload."""
    assert app.client is not None
    app.client.chat_postMessage(channel=CHANNEL, text="x", blocks=CARD)
    page.get_by_role("radio", name="Bob").click()
    page.get_by_role("button", name="Approve", exact=True).click()
    page.get_by_role("button", name="Approve", exact=True).wait_for(state="detached")
    assert [(click["user"]["id"], click["actions"][0]["value"]) for click in app.clicks] == [("UBOB", "ask_1")]
