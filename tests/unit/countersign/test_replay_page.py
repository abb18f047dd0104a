"""The replay as one page: that a recorded text is only ever text in it, what it says of each operation, what it leaves
out."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from chalicelib.domain.recording import FrameKind
from chalicelib.services.recordings import read_recording
from chalicelib.services.review import Review
from countersign import replay_page as page_module
from countersign.page_parts import About
from countersign.replay_page import Replayed, replay_page
from countersign.web_player import WebPlayer
from tests.fakes.archive import PEOPLE, Archive, Connected
from tests.fakes.clock import START

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> \x1b]0;x\x07 "
    "\u202egnp.exe & <svg onload=alert(2)> javascript:alert(3) -->]]> '\"` {{7*7}}"
)
PLAYER = WebPlayer(script="var AsciinemaPlayer = 1;", style=".ap-x { color: red; }", licence="Apache License")
ABOUT = About(
    title="Replay of 01j9",
    facts=(("told", "to nobody: it is a copy"),),
    command="countersign replay 01j9 --html FILE",
    anchored=True,
    reviewed_at=START,
)


class Page(HTMLParser):
    """What a browser would make of it, roughly: elements, attributes, texts; of scripts and styles how many."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.whole = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((name, dict(attributes)))
        self._inside = name

    def handle_endtag(self, name: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [own for _, own in self.elements if name in (own.get("class") or "").split()]


class Story(Archive):
    """The archive with a terminal on ``db``, and a statement and its answer that are attacks."""

    def _db(self) -> Connected:
        session = self.grant(self.tool, "db-prod", "deploy", "drift", rules=("opens",))
        on = self.connect(session, self.tool, "ssh", bound=True)
        shell: dict[str, Any] = {"rules": ["shell"], "actions": ["ssh:exec"]}
        self.operation(on, "op_7", "", "forward", **shell)
        self.frame(on, FrameKind.TERMINAL, op="op_7", term=HOSTILE, cols=80, rows=24)
        data: dict[str, Any] = {"op": "op_7", "encoding": "utf-8"}
        self.frame(on, FrameKind.DATA, text=f"$ {HOSTILE}\r\n", way="s2c", stream="stdout", **data)
        self.frame(on, FrameKind.DATA, text="hunter2", way="c2s", stream="stdin", **data)
        self.operation(on, "op_8", HOSTILE, "block", rules=[HOSTILE], actions=["ssh:exec"], binds=[HOSTILE])
        self.frame(on, FrameKind.ROWS, text=json.dumps([HOSTILE, None]), way="s2c", op="op_8", columns=[HOSTILE, "b"])
        self.frame(on, FrameKind.NOTICE, text=HOSTILE, way="s2c", op="op_8", severity=HOSTILE)
        self.frame(on, FrameKind.DATA, text="$ ", way="s2c", stream="stdout", **data)
        self.frame(on, FrameKind.CLOSE, exit="client")
        self.store(on)
        return on


def recordings(archive: Archive) -> list[Replayed]:
    stores = archive.stores
    review = Review(stores=stores, people=PEOPLE, clock=archive.clock)(archive.txn)
    every = {op.id: op for session in review.sessions for op in session.operations}
    found = []
    for on in (archive.orders, archive.db):
        (row,) = stores.connections.of_session(on.session_id)
        read = read_recording(stores.objects, stores.keys, row, on.hop.sha256())
        session = stores.sessions.get(on.session_id)
        found.append(Replayed(session=session, row=row, read=read, reviewed=every))
    return found


def made(archive: Archive, player: WebPlayer | None = PLAYER) -> Page:
    return Page(replay_page(ABOUT, recordings(archive), (), player))


@pytest.fixture(scope="module")
def story() -> Story:
    return Story()


def test_markup_in_a_recording_is_text_in_the_page_of_its_replay(story: Story) -> None:
    """Attack: a statement, a row, a column's name, a notice, a rule, a terminal's kind and its output are scripts."""
    page = made(story)
    names = [name for name, _ in page.elements]
    assert (names.count("script"), names.count("style"), names.count("img"), names.count("svg")) == (2, 2, 0, 0)
    for name, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), name
        assert not {"href", "src", "srcdoc", "action", "style"} & set(attributes), name
        assert not any("owned" in (value or "") or "gnp" in (value or "") for value in attributes.values()), name
    assert "document.title='owned'" in page.text
    assert not set(page.text) & {"\u202e", "\x1b", "\x07"}
    assert "<U+202E>gnp.exe" in page.text


def test_a_terminals_bytes_are_json_in_a_text_node(story: Story) -> None:
    """Attack: what a terminal printed ends the element that carries it, or reaches the player as another event."""
    page = made(story)
    (screen,) = page.with_class("screen")
    identifier = screen["data-cast"]
    at = page.whole.index(f'<pre id="{identifier}" hidden="hidden">')
    raw = page.whole[at:].partition(">")[2].partition("</pre>")[0]
    assert "<" not in raw
    (cast,) = [json.loads(text) for text in page.texts if text.startswith('[{"version":2')]
    assert [event[1] for event in cast[1:]] == ["o", "m", "o"]
    assert cast[1][2].startswith("$ </script><script>")
    assert "\x1b" not in cast[1][2], "the title that it would set is not in it"
    assert cast[2][2].startswith("blocked: </script>")
    assert "hunter2" not in page.whole


def test_each_operation_says_what_became_of_it_and_who_approved(story: Story) -> None:
    """As the review: by whom, when, on which rule; and what came back, masked, as a table."""
    page = made(story)
    words = page.text
    assert "approved by Alice (alice) at 2026-11-02 09:3" in words
    assert "allowed by works + pii, none required" in words
    assert [own["id"] for own in page.with_class("op")] == [f"o{number}" for number in range(5)]
    assert len(page.with_class("k-blocked")) == len(page.with_class("k-masked")) + 1 == 2
    assert len(page.with_class("masked")) == 1
    assert len(page.with_class("null")) == 2
    buttons = [own["data-to"] for name, own in page.elements if name == "button" and "data-to" in own]
    assert buttons == [f"o{number}" for number in range(5)]


def test_without_the_player_terminals_are_text_and_it_is_said(story: Story) -> None:
    """An installation that has it not still shows everything; one that has it says under which licence."""
    page = made(story, None)
    assert "Terminals are shown as text" in page.text
    assert "wasm" not in page.whole
    assert [name for name, _ in page.elements].count("script") == 1
    assert "Apache License" in made(story).text
    assert "$ </script>" in page.text


def test_a_page_without_a_terminal_carries_no_player(story: Story) -> None:
    """Nobody else's code where there is nothing for it to play."""
    page = Page(replay_page(ABOUT, recordings(story)[:1], (), PLAYER))
    assert [name for name, _ in page.elements].count("script") == 1
    assert "wasm" not in page.whole
    assert "Apache" not in page.text


def test_what_does_not_verify_is_said_at_its_place_on_the_page() -> None:
    """A recording without its manifest, an operation that no review has, and findings at the top."""
    archive = Story()
    del archive.stores.objects.rows[archive.orders.manifest_key]
    found = recordings(archive)
    first = replace(found[0], reviewed={})
    text = Page(replay_page(ABOUT, [first, *found[1:]], tuple(first.read.findings), PLAYER)).text
    assert text.count("NOT VERIFIED") == 1 + 1 + 3
    assert f"{archive.orders.manifest_key}\nis missing" in text


def test_what_a_page_leaves_out_is_counted(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is bounded, whatever was recorded."""
    monkeypatch.setattr(page_module, "MOST_OPERATIONS", 2)
    page = made(story)
    assert len(page.with_class("op")) == 2
    assert "Left out for their size: 3 operations." in page.text
    monkeypatch.setattr(page_module, "MOST_ROOM", 40)
    text = made(story).text
    assert "rows" in text.partition("Left out for their size:")[2]
    assert "characters" in text.partition("Left out for their size:")[2]
