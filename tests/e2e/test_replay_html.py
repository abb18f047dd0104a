"""The replay's page in a real browser, offline, with the real player: nothing that was recorded runs or is fetched,
verdicts are jumped to, words are found, a terminal plays."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Page, expect, sync_playwright

from countersign.replay_page import replay_page
from countersign.web_player import WebPlayer, read_player
from dev.web_player import find_player
from tests.unit.countersign.test_replay_page import ABOUT, Story, recordings

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


class Opened:
    """A page in the browser, and all that it did there."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("dialog", self._dismiss)
        page.goto(url)

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def current(self) -> str | None:
        """The operation that was jumped to."""
        return self.page.locator("nav button[aria-current]").get_attribute("data-to")

    def silent(self) -> bool:
        return (self.requests, self.errors, self.dialogs) == ([self.url], [], [])


@pytest.fixture(scope="module")
def player() -> WebPlayer:
    found = read_player(find_player())
    assert found is not None
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, player: WebPlayer) -> str:
    path = tmp_path_factory.mktemp("page") / "replay.html"
    path.write_text(replay_page(ABOUT, recordings(Story()), (), player), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(written: str) -> Iterator[Opened]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield Opened(browser.new_context(offline=True).new_page(), written)
        browser.close()


def test_recorded_markup_runs_nothing_in_a_replay_and_fetches_nothing(opened: Opened) -> None:
    """Attack: what a terminal printed and a database answered is scripts, images and links. The browser complains of
    nothing, the player draws it as text, and the page's title is its own."""
    page = opened.page
    page.locator(".screen").scroll_into_view_if_needed()
    page.locator(".ap-player").wait_for()
    assert page.title() == ABOUT.title
    assert page.locator("img, iframe, object, embed, link, a").count() == 0
    assert "document.title='owned'" in str(page.locator("#o4 .statement").text_content())
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0
    assert opened.silent(), (opened.requests, opened.errors, opened.dialogs)


def test_verdicts_are_jumped_to_by_key_and_by_click(opened: Opened) -> None:
    """n and p: operations; N and P: those that people or rules had a say in; and every one in the list."""
    page = opened.page
    for key, at in (("n", "o0"), ("n", "o1"), ("p", "o0"), ("N", "o1"), ("N", "o2"), ("N", "o4"), ("P", "o2")):
        page.keyboard.press(key)
        assert opened.current() == at, key
    assert page.evaluate("document.activeElement.id") == "o2"
    page.locator("nav button[data-to=o4]").click()
    assert opened.current() == "o4"
    page.locator("button[data-jump=previous]").click()
    assert opened.current() == "o3"
    page.locator("#words").focus()
    page.keyboard.type("nP")
    assert (opened.current(), page.input_value("#words")) == ("o3", "nP"), "what is typed into a field is no key"
    assert opened.silent()


def test_words_and_filters_leave_what_was_asked_for(opened: Opened) -> None:
    """In statements, in rows, in what a terminal printed; marked where they stand; and the list at the side follows."""
    page = opened.page
    page.keyboard.press("/")
    page.keyboard.type("masked:email")
    assert page.locator("article.op:visible").count() == page.locator("nav button:visible").count() == 1
    assert page.locator("#count").text_content() == "1 of 5 steps"
    assert page.evaluate("CSS.highlights.get('found').size") == 1
    page.keyboard.press("Enter")
    assert opened.current() == "o0"
    page.fill("#words", "$ script>")
    assert page.locator("article.op:visible").count() == 1
    page.fill("#words", "")
    page.select_option("#kind", label="blocked")
    assert page.locator("article.op:visible").count() == 2
    page.select_option("#target", label="deploy on db-prod")
    assert page.locator("article.op:visible").count() == 1
    page.keyboard.press("Escape")
    page.locator("header h1").click()
    page.keyboard.press("n")
    assert opened.current() == "o4", "what is hidden is passed over"
    assert opened.silent()


def test_a_terminal_plays_offline_under_the_pages_own_policy(opened: Opened) -> None:
    """asciinema-player compiles its WebAssembly from the page itself; its speed can be changed while it plays."""
    page = opened.page
    page.locator(".screen").scroll_into_view_if_needed()
    page.locator(".ap-player").wait_for()
    page.locator(".ap-player").click()
    expect(page.locator(".ap-term")).to_contain_text("document.title", timeout=20_000)
    page.select_option(".screen-tools select", "16")
    expect(page.locator(".ap-term")).to_contain_text("document.title", timeout=20_000)
    assert page.locator(".ap-player").count() == 1
    policy = str(page.locator("meta[http-equiv]").get_attribute("content"))
    assert "'wasm-unsafe-eval'" in policy
    assert not re.search(r"'unsafe-(inline|eval)'|https?:|\*|data:|blob:", policy)
    assert opened.silent(), opened.errors


def test_it_prints_and_without_a_script_everything_is_there(written: str, tmp_path: Path) -> None:
    """On paper there are no bars and no players, and a reader that runs no script hides nothing."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_context(offline=True, java_script_enabled=False).new_page()
        page.goto(written)
        assert page.locator("article.op:visible").count() == 5
        page.emulate_media(media="print")
        assert page.locator(".bar").is_hidden()
        assert page.locator("nav").is_hidden()
        assert "$ </script>" in str(page.locator("#o3 .printed").text_content())
        page.pdf(path=tmp_path / "replay.pdf", prefer_css_page_size=True)
        browser.close()
    assert (tmp_path / "replay.pdf").read_bytes().startswith(b"%PDF")
