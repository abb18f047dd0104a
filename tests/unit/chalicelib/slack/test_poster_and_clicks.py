"""The Slack edge on a real socket: what is sent to Slack, what a failure becomes, and where a person is answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.services.card import card_summary, render_card
from chalicelib.services.post_cards import CardPlace
from chalicelib.slack.poster import SlackPoster
from tests.fakes.control_plane import ControlPlane
from tests.fakes.samples import ask


class SlackServer:
    """Answers every POST with ``answer``; keeps what came."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []
        self.answer: bytes = b'{"ok": true, "channel": "C1", "ts": "1.2"}'
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                owner.seen.append((self.path, self.headers.get("authorization", ""), body))
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(owner.answer)

            def log_message(self, *_: Any) -> None:
                """Be quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def slack() -> Iterator[SlackServer]:
    made = SlackServer()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(made.server.serve_forever, 0.01)
        yield made
        made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def poster(slack: SlackServer) -> SlackPoster:
    return SlackPoster(api_url=f"{slack.url}/api", token=lambda: Secret("xoxb-1"), channel="C1")


AT = "https://approve.example.com"


def test_a_card_is_posted_and_changed(slack: SlackServer, poster: SlackPoster) -> None:
    """The real client, against the paths and the token of Slack's Web API."""
    made = ask()
    place = poster.post(card_summary(made), render_card(made, at=AT))
    poster.update(place, "done", [])
    assert place == CardPlace(channel="C1", ts="1.2")
    assert [path for path, _, _ in slack.seen] == ["/api/chat.postMessage", "/api/chat.update"]
    assert {authorization for _, authorization, _ in slack.seen} == {"Bearer xoxb-1"}
    sent = _sent(slack.seen[0][2])
    assert sent["channel"] == "C1"
    assert json.loads(sent["blocks"]) if isinstance(sent["blocks"], str) else sent["blocks"]


@pytest.mark.parametrize("answer", [b'{"ok": false, "error": "invalid_blocks"}', b"not json", b'{"ok": true}'])
def test_what_slack_did_not_take_is_unavailable(slack: SlackServer, poster: SlackPoster, answer: bytes) -> None:
    """The reconciler tries again only what is told to it as failed."""
    slack.answer = answer
    with pytest.raises(StoreUnavailable):
        poster.post("x", [])


def test_a_slack_that_is_not_there_is_unavailable() -> None:
    """One try, bounded: a stream must not wait for a dead host."""
    poster = SlackPoster(api_url="http://127.0.0.1:1/api/", token=lambda: Secret("x"), channel="C1")
    with pytest.raises(StoreUnavailable):
        poster.post("x", [])


@pytest.mark.parametrize(("user", "said"), [("UALICE", "Approved."), ("UDAVE", "Not counted (approver_not_eligible)")])
def test_who_clicked_is_told_and_nobody_else(slack: SlackServer, user: str, said: str) -> None:
    """Ephemeral, beside the card: a refusal must not shame anybody in the channel, nor replace the card."""
    plane = ControlPlane()
    plane.ask(plane.token(), "orders-prod")
    assert plane.click(plane.card(), user, response_url=f"{slack.url}/respond/1").status_code == 200
    ((path, _, body),) = slack.seen
    told = json.loads(body)
    assert path == "/respond/1"
    assert told["text"].startswith(said)
    assert (told["response_type"], told["replace_original"]) == ("ephemeral", False)


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "ftp://127.0.0.1/x", "file:///etc/passwd", 7, None])
def test_an_answer_goes_to_https_or_loopback_alone(url: Any) -> None:
    """A forged or leaked secret must not turn our answer into a request to an address of somebody's choice; the click
    counts all the same."""
    plane = ControlPlane()
    plane.ask(plane.token(), "orders-prod")
    assert plane.click(plane.card(), "UALICE", response_url=url).status_code == 200
    assert len(plane.stores.answers.rows) == 1


def test_an_answer_that_cannot_be_delivered_changes_nothing() -> None:
    """What was decided stands whether or not the person could be told."""
    plane = ControlPlane()
    plane.ask(plane.token(), "orders-prod")
    assert plane.click(plane.card(), "UALICE", response_url="http://127.0.0.1:1/x").status_code == 200
    assert len(plane.stores.answers.rows) == 1


def _sent(body: str) -> dict[str, Any]:
    if body.startswith("{"):
        return dict(json.loads(body))
    return {name: values[0] for name, values in parse_qs(body).items()}
