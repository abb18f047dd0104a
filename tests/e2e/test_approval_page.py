"""The approval page in a real browser, against the whole stack: a passkey is registered and approves what a rule marked
for one, in Chromium with a virtual authenticator (CDP), under the page's own policy.

Where there is a folder ``.cache/shots``, it gets screenshots, for somebody to look at.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import CDPSession, Page, sync_playwright

from dev.local_stack import Stack, StackOptions
from dev.settings import DEMO_BUNDLE, ROOT, child_environment
from tests.e2e.visitor import Visitor, card_with, connect
from tests.unit.dev.calling import call

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
AUTHENTICATOR: Final = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


class Browser:
    """A page, its authenticator, and all that it complained of or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("request", lambda request: self.requests.append(request.url))
        self._cdp: CDPSession = page.context.new_cdp_session(page)
        self._cdp.send("WebAuthn.enable")
        self._authenticator = self._cdp.send("WebAuthn.addVirtualAuthenticator", {"options": AUTHENTICATOR})[
            "authenticatorId"
        ]

    def verify_user(self, verified: bool) -> None:
        """Have the authenticator know its person from now on, or not."""
        self._cdp.send("WebAuthn.setUserVerified", {"authenticatorId": self._authenticator, "isUserVerified": verified})

    def credentials(self) -> list[dict[str, Any]]:
        found = self._cdp.send("WebAuthn.getCredentials", {"authenticatorId": self._authenticator})
        return list(found["credentials"])

    def forget(self) -> None:
        self._cdp.send("WebAuthn.clearCredentials", {"authenticatorId": self._authenticator})

    def register(self, at: str, person: str) -> str:
        """Make a passkey on the registration page; return the entry that it shows."""
        self.page.goto(f"{at}/v1/passkeys/register")
        self.page.get_by_label("Your id at the identity provider").fill(person)
        self.page.get_by_label("Which one this is").fill('Ada\'s "blue" key')
        self.page.get_by_role("button", name="Make a passkey").click()
        self.page.locator("#made").wait_for()
        return str(self.page.locator("#line").text_content())

    def open(self, url: str) -> None:
        self.page.goto(url)
        self.page.get_by_role("button", name="Approve with a passkey").wait_for()

    def press(self, button: str) -> str:
        """Press a button; return what the page then tells."""
        self.page.get_by_role("button", name=button).click()
        told = self.page.locator("#told").filter(has_text=re.compile(r"^(?!Waiting)."))
        told.wait_for()
        return str(told.text_content())

    def shot(self, name: str, shots: Path | None) -> None:
        if shots is not None:
            self.page.screenshot(path=shots / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def shots(request: pytest.FixtureRequest) -> Path | None:
    folder = request.config.rootpath / ".cache" / "shots"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield Browser(launched.new_page(viewport={"width": 900, "height": 900}))
        launched.close()


@pytest.fixture(scope="module")
def high(
    stack: Stack, browser: Browser, tmp_path_factory: pytest.TempPathFactory, shots: Path | None
) -> Iterator[Stack]:
    """A stack whose rules for production want a passkey, with the one that Alice made on the other stack's page: both
    are ``localhost`` to a browser, and the bundle is where it is registered."""
    entry = browser.register(stack.ready["approvals"], "alice")
    browser.shot("register", shots)
    bundle = tmp_path_factory.mktemp("high") / "bundle"
    shutil.copytree(DEMO_BUNDLE, bundle)
    approvers = bundle / "approvers.yaml"
    before = '    aliases: ["idp:sub:alice"]'
    text = approvers.read_text(encoding="utf-8")
    assert text.count(before) == 1
    approvers.write_text(text.replace(before, f"{entry}{before}"), encoding="utf-8")
    rules = bundle / "policies" / "2-approvals.cedar"
    marked = rules.read_text(encoding="utf-8").replace("approval:dba:1", "approval:dba:1:webauthn")
    rules.write_text(marked, encoding="utf-8")
    with Stack(StackOptions(config=bundle)) as running:
        yield running


def link_of(stack: Stack, mark: str) -> tuple[str, str]:
    """Return where the card that shows ``mark`` leads, and its Ask's id."""
    blocks = json.dumps(card_with(stack, mark).message["blocks"])
    found = re.search(r'"url": "(http://localhost:\d+/v1/asks/(ask_[0-9a-z]{26})/approve)"', blocks)
    assert found is not None, blocks
    return found[1], found[2]


def auditor(stack: Stack, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "countersign", *command],
        env=child_environment(stack.ready["aws"]["auditor"]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_session_and_a_statement_are_approved_with_a_passkey(
    high: Stack, browser: Browser, shots: Path | None
) -> None:
    """The whole way in a browser: the card's link, the card's own words, yes by a passkey; the session opens, a held
    UPDATE waits for a second yes and runs; and what is left of it verifies."""
    run = Visitor.of(high, run_id="passkey-1")
    status, asked = run.ask(reason="passkey session <b>7</b>", key="passkey-session")
    assert status == 202, asked
    url, _ = link_of(high, "passkey session")
    browser.complaints.clear()
    browser.requests.clear()
    browser.open(url)
    browser.shot("approve", shots)
    shown = str(browser.page.locator("#card").text_content())
    for words in (
        "Approval needed: session on orders-prod",
        "passkey session <b>7</b>",
        "1 person of dba with a passkey",
    ):
        assert words in shown
    assert browser.page.locator("#card b").count() == 0
    assert browser.press("Approve with a passkey").startswith("Approved.")
    browser.shot("approved", shots)
    assert browser.complaints == []
    assert {request.partition("/v1/")[0] for request in browser.requests} == {high.ready["approvals"]}
    status, granted = run.ask(reason="passkey session <b>7</b>", key="passkey-session")
    assert status == 201, granted
    with ThreadPoolExecutor(1) as pool, connect(high, granted) as held:
        waiting = pool.submit(held.execute, "DELETE FROM orders WHERE id = 3 AND 'held by passkey' <> ''")
        url, _ = link_of(high, "held by passkey")
        browser.open(url)
        browser.shot("statement", shots)
        assert "DELETE FROM orders WHERE id = 3 AND 'held by passkey' <> ''" in str(
            browser.page.locator("#card pre").first.text_content()
        )
        assert browser.press("Approve with a passkey").startswith("Approved.")
        assert waiting.result(timeout=20).rowcount == 1
    verified = auditor(high, "verify", str(granted["session_id"]))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_no_with_a_passkey_and_a_page_that_is_opened_afterwards(
    high: Stack, browser: Browser, shots: Path | None
) -> None:
    """A refusal ends it; whoever follows the link later sees that, and nothing of what was asked."""
    run = Visitor.of(high, run_id="passkey-2")
    run.ask(reason="passkey refusal", key="passkey-refusal")
    url, _ = link_of(high, "passkey refusal")
    browser.open(url)
    assert browser.press("Deny with a passkey") == "You refused it. Nothing will run."
    assert run.ask(reason="passkey refusal", key="passkey-refusal")[1]["code"] == "approval_denied"
    browser.page.goto(url)
    browser.page.get_by_text("This was refused.").wait_for()
    assert browser.page.get_by_role("button", name="Approve with a passkey").is_hidden()
    assert "passkey refusal" not in browser.page.content()
    browser.shot("closed", shots)


def test_an_authenticator_that_does_not_know_its_person_sends_nothing(high: Stack, browser: Browser) -> None:
    """A key that was left in its slot: the browser itself refuses, since the page demands that the user be verified."""
    Visitor.of(high, run_id="passkey-3").ask(reason="passkey unverified", key="passkey-unverified")
    url, ask_id = link_of(high, "passkey unverified")
    browser.open(url)
    browser.verify_user(False)
    try:
        assert browser.press("Approve with a passkey").startswith("Nothing was sent")
    finally:
        browser.verify_user(True)
    assert call(f"{high.ready['approvals']}/v1/asks/{ask_id}/card")[1]["status"] == "open"


def test_a_passkey_that_is_not_in_the_bundle(high: Stack, browser: Browser, shots: Path | None) -> None:
    """Anybody can make one on the registration page, in anybody's name: nobody is told of it, and it counts not."""
    Visitor.of(high, run_id="passkey-4").ask(reason="passkey stranger", key="passkey-stranger")
    url, _ = link_of(high, "passkey stranger")
    before = browser.credentials()
    browser.forget()
    browser.register(high.ready["approvals"], "alice")
    browser.open(url)
    assert browser.press("Approve with a passkey").startswith("Not counted (approver_not_eligible)")
    browser.shot("refused", shots)
    browser.forget()
    assert before


def test_the_slack_card_leads_to_the_page(high: Stack, browser: Browser, shots: Path | None) -> None:
    """The button is a link: it opens the page, and is no click that could be taken for an answer."""
    Visitor.of(high, run_id="passkey-5").ask(reason="passkey link", key="passkey-link")
    url, _ = link_of(high, "passkey link")
    browser.page.goto(high.ready["slack"]["page"])
    article = browser.page.locator("article", has_text="passkey link")
    article.get_by_role("button", name="Approve with a passkey").wait_for()
    browser.shot("slack", shots)
    assert article.get_by_role("button", name="Approve", exact=True).count() == 0
    with browser.page.context.expect_page() as opened:
        article.get_by_role("button", name="Approve with a passkey").click()
    assert opened.value.url == url
    opened.value.close()
