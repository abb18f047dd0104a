"""The review's page in a real browser, offline, as an auditor opens it from a folder: nothing that was recorded runs,
nothing is fetched, the filters work, and it prints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Page, sync_playwright

from chalicelib.services.reviewed import AccessReview
from countersign.markup import page as markup_page
from countersign.markup import tag
from countersign.review_page import review_page
from tests.unit.countersign.test_review_page import ABOUT, STORY, hostile

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


class Opened:
    """A page in the browser, and all that it did there."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self._folder = folder
        self.requests: list[str] = []
        self.blocked: dict[str, str | None] = {}
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("requestfailed", lambda request: self.blocked.update({request.url: request.failure}))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text))
        page.on("dialog", self._dismiss)

    def _dismiss(self, dialog: Dialog) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def open(self, text: str) -> str:
        path = self._folder / "review.html"
        path.write_text(text, encoding="utf-8")
        self.page.goto(path.as_uri())
        return path.as_uri()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(offline=True)
        yield Opened(context.new_page(), tmp_path)
        browser.close()


def shown(review: AccessReview) -> str:
    return review_page(ABOUT, [review], review.findings)


def test_recorded_markup_runs_nothing_and_fetches_nothing(opened: Opened) -> None:
    """Attack: statements, names, rules and keys are scripts, images and links. The page is one file, the browser
    complains of nothing, and what was recorded stands there to be read."""
    url = opened.open(shown(hostile()))
    page = opened.page
    assert page.title() == ABOUT.title
    assert (opened.requests, opened.errors, opened.dialogs) == ([url], [], [])
    assert page.locator("img, iframe, object, embed, link, a").count() == 0
    assert page.locator("script").count() == 1
    assert page.locator("#steps pre").first.text_content()
    assert "document.title='owned'" in str(page.locator("#steps").text_content())


def test_what_got_in_would_not_run(opened: Opened) -> None:
    """The second wall: were a text of theirs ever markup, the page's own policy stops scripts, handlers, styles and
    loads. Put in by hand here, past the first wall."""
    planted = markup_page("t", "p {}", "document.body.dataset.ours = 'ran';", [tag("p", "PLACE")])
    theirs = (
        "<script>document.title='owned'</script>"
        "<img src='https://evil.example.com/x' onerror=\"document.title='owned'\">"
        "<style>body{background:url(https://evil.example.com/y)}</style><p style='color:red'>x</p>"
        "<base href='https://evil.example.com/'><form action='https://evil.example.com/'></form>"
        "<iframe src='https://evil.example.com/z'></iframe>"
    )
    url = opened.open(planted.replace("PLACE", theirs))
    page = opened.page
    assert page.evaluate("document.body.dataset.ours") == "ran"
    assert page.title() == "t"
    # Chromium tells of a load that the policy stopped before it was sent; offline would be another reason.
    assert set(opened.blocked.values()) <= {"csp"}
    assert set(opened.requests) - opened.blocked.keys() == {url}
    assert any("Content Security Policy" in error for error in opened.errors)
    assert page.evaluate("document.baseURI") == url


def test_filters_leave_what_was_asked_for_and_count_it(opened: Opened) -> None:
    """By words, by kind, by target, and what people or rules had a say in."""
    opened.open(shown(STORY))
    page = opened.page
    rows, count = page.locator("#steps tr.step"), page.locator("#count")
    everything = rows.count()
    assert count.text_content() == f"{everything} steps"
    page.fill("#words", "delete alice")
    assert page.locator("#steps tr.step:visible").count() == 1
    assert "DELETE FROM orders" in str(page.locator("#steps tr.step:visible").text_content())
    page.fill("#words", "")
    page.select_option("#kind", label="delegations")
    assert page.locator("#steps tr.step:visible").count() == 2
    page.select_option("#kind", label="every kind")
    page.select_option("#target", label="orders-prod")
    page.check("#telling")
    visible = page.locator("#steps tr.step:visible").count()
    assert 0 < visible < everything
    assert count.text_content() == f"{visible} of {everything} steps"
    page.fill("#words", "no such word")
    assert page.locator("#steps tr.step:visible").count() == 0
    page.locator("#words").press("Enter")
    assert (page.url.endswith("review.html"), opened.errors) == (True, [])


def test_a_target_of_markup_can_be_chosen(opened: Opened) -> None:
    """Its name is an option's text and never its value."""
    opened.open(shown(hostile()))
    page = opened.page
    page.select_option("#target", index=1)
    assert page.locator("#steps tr.step:visible").count() > 0
    assert opened.errors == []


def test_it_prints_without_filters_and_with_everything(opened: Opened, tmp_path: Path) -> None:
    """An auditor files paper: every step, its verdict in words, and the head of the table on each sheet."""
    opened.open(shown(STORY))
    page = opened.page
    page.emulate_media(media="print")
    assert page.locator(".filters").is_hidden()
    assert page.locator("#steps tr.step:visible").count() == page.locator("#steps tr.step").count()
    assert page.evaluate("getComputedStyle(document.querySelector('#steps thead')).display") == "table-header-group"
    page.pdf(path=tmp_path / "review.pdf", prefer_css_page_size=True)
    assert (tmp_path / "review.pdf").read_bytes().startswith(b"%PDF")


def test_without_a_script_everything_is_there(tmp_path: Path) -> None:
    """A reader that runs none (a mail program, an archive) hides nothing."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(offline=True, java_script_enabled=False)
        page = context.new_page()
        path = tmp_path / "review.html"
        path.write_text(shown(STORY), encoding="utf-8")
        page.goto(path.as_uri())
        assert page.locator("#steps tr.step:visible").count() == page.locator("#steps tr.step").count() > 5
        assert page.locator("svg").count() == 2
        browser.close()


def test_a_page_of_thousands_of_steps_opens_and_filters(opened: Opened) -> None:
    """A review of a month is a large page: it must answer within the time that people wait."""
    session = STORY.sessions[0]
    many = tuple(replace(session.operations[0], id=f"op_{n}", text=f"SELECT {n}") for n in range(5000))
    opened.open(shown(replace(STORY, sessions=(replace(session, operations=many),))))
    page = opened.page
    page.set_default_timeout(20_000)
    page.fill("#words", "SELECT 4242")
    page.wait_for_function("document.getElementById('count').textContent.startsWith('1 of ')")
    assert json.loads(page.evaluate("JSON.stringify(performance.getEntriesByType('resource').length)")) == 0
