"""The identity provider's page, in a real browser: who you are is chosen, a code is confirmed or denied once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, sync_playwright

from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.identity import Person
from dev.people_issuer import CLIENT_ID, DEVICE_GRANT, PeopleIssuer
from dev.settings import SystemClock
from tests.unit.dev.calling import call

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.e2e, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine")]
HOSTILE = "<img src=x onerror=document.title='owned'>"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def person(name: str, shown: str) -> Person:
    return Person(id=PersonId(name), name=shown, groups=("security",), slack_team="T", slack_user="U", aliases=())


@pytest.fixture
def issuer() -> Iterator[PeopleIssuer]:
    made = PeopleIssuer(SystemClock(), people=[person("carol", "Carol Clark"), person("mallory", HOSTILE)])
    made.start()
    yield made
    made.stop()


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page()
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        yield opened
        assert [error for error in errors if "404" not in error] == []
        browser.close()


def begin(issuer: PeopleIssuer) -> dict[str, Any]:
    form = urlencode({"client_id": CLIENT_ID}).encode()
    return dict(call(f"{issuer.url}/device_authorization", form)[1])


def poll(issuer: PeopleIssuer, code: str) -> tuple[int, Any]:
    form = {"grant_type": DEVICE_GRANT, "device_code": code, "client_id": CLIENT_ID}
    return call(f"{issuer.url}/token", urlencode(form).encode())


def test_a_person_is_chosen_and_the_code_confirmed(issuer: PeopleIssuer, page: Page) -> None:
    """The whole of what somebody who tries `countersign login` does; a hostile name stays text."""
    told = begin(issuer)
    page.goto(told["verification_uri_complete"])
    assert page.input_value("#code") == told["user_code"]
    page.get_by_text("Carol Clark").click()
    assert page.get_by_text(HOSTILE).count() == 1
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("You are Carol Clark").wait_for()
    assert page.title() != "owned"
    assert poll(issuer, told["device_code"])[0] == 200


def test_a_wrong_code_is_told_and_can_be_corrected(issuer: PeopleIssuer, page: Page) -> None:
    """People mistype eight letters."""
    told = begin(issuer)
    page.goto(told["verification_uri"])
    page.fill("#code", "BBBB-BBBB")
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("no login waits for this code").wait_for()
    page.fill("#code", told["user_code"].lower())
    page.get_by_role("button", name="Deny").click()
    page.get_by_text("Denied.").wait_for()
    assert poll(issuer, told["device_code"]) == (400, {"error": "access_denied"})
