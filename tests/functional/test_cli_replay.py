"""`countersign replay` on a copy of evidence: as a page, from a place, by words, by keys on a real terminal."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chalicelib.services.anchors import fingerprints, trust_text
from chalicelib.services.copy_evidence import copy_evidence
from chalicelib.store.folder_copy import FolderCopy
from countersign.__main__ import main
from dev.settings import ROOT, child_environment
from dev.web_player import find_player
from tests.fakes.archive import Archive
from tests.fakes.waiting_clock import WaitingClock
from tests.unit.countersign.test_replay_page import HOSTILE, Story


class Auditor:
    """A copy of a story, a file of fingerprints, and the command."""

    def __init__(self, folder: Path, archive: Archive) -> None:
        self.archive = archive
        self.copy = folder / "copy"
        self.trust = folder / "trust.txt"
        copy_evidence(archive.stores, archive.txn, FolderCopy(self.copy), archive.clock)
        self.trust.write_text(trust_text(fingerprints(archive.stores.keys), archive.clock.now()))

    def replay(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        given = ["replay", str(self.copy), "--trust", str(self.trust), *arguments]
        code = main(given, {}, out=out, err=err, clock=WaitingClock(self.archive.clock.now()))
        return code, out.getvalue(), err.getvalue()

    def json(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        code, out, _ = self.replay(*arguments, "--json")
        return code, json.loads(out)


@pytest.fixture
def auditor(tmp_path: Path) -> Auditor:
    return Auditor(tmp_path, Archive())


def test_a_page_of_a_copy(auditor: Auditor, tmp_path: Path) -> None:
    """One file that only its owner reads, which says what it is of, that nobody was told, and by whom what was
    approved; it is never written over another."""
    page = tmp_path / "replay.html"
    code, out, err = auditor.replay("--html", str(page))
    assert (code, out) == (0, "")
    assert "nobody is told that it is replayed" in err
    text = page.read_text()
    assert (page.stat().st_mode & 0o777, text[:15]) == (0o600, "<!doctype html>")
    for part in ("VERIFIED", "to nobody: it is a copy", "approved by alice at", "#MASKED:email#", "uptime"):
        assert part in text
    assert auditor.replay("--html", str(page))[0] == 64
    code, told = auditor.json("--html", str(tmp_path / "2.html"), "--connection", auditor.archive.db.row.id)
    assert (code, told["verified"], told["page"]) == (0, True, str(tmp_path / "2.html"))
    assert "orders-prod" not in (tmp_path / "2.html").read_text()


def test_a_page_says_what_does_not_verify(auditor: Auditor, tmp_path: Path) -> None:
    """By its exit code, at the top, and at its place: also what a review alone finds, as a forged answer."""
    answer = next((auditor.copy / "answers").rglob("*.json"))
    document = json.loads(answer.read_text())
    answer.write_text(json.dumps({**document, "signature": document["signature"][:-4] + "AAAA"}))
    page = tmp_path / "replay.html"
    code, _, err = auditor.replay("--html", str(page))
    assert code == 65
    assert "NOT VERIFIED" in page.read_text()
    assert "without the approvals" in err
    assert auditor.replay("--html", str(tmp_path / "2.html"))[0] == 65


def test_a_page_carries_the_player_that_was_named_and_no_other(tmp_path: Path) -> None:
    """The npm package as it is; anything else is refused before a page is written."""
    auditor = Auditor(tmp_path, Story())
    page = tmp_path / "replay.html"
    assert auditor.replay("--html", str(page), "--player", str(auditor.trust))[0] == 64
    assert not page.exists()
    auditor.replay("--html", str(page), "--player", str(find_player()))
    assert "AsciinemaPlayer" in page.read_text()
    assert auditor.replay("--player", str(find_player()))[0] == 64


def test_words_are_found_with_where_they_stand(auditor: Auditor) -> None:
    """Time, operation and line, so that `--from` goes there; in results and output, not in what was typed."""
    code, out, _ = auditor.replay("--find", "delete orders")
    (line,) = out.splitlines()
    assert (code, "op_3" in line, "DELETE FROM orders WHERE id = 7" in line) == (0, True, True)
    code, told = auditor.json("--find", "MASKED")
    assert (code, told["number"]) == (0, 2)
    assert [one["op"] for one in told["found"]] == ["op_1", "op_4"]
    assert told["found"][1]["line"] == "key #MASKED:aws_access_key#"
    code, out, err = auditor.replay("--find", "nowhere to be found")
    assert (code, out, "nothing holds these words" in err) == (0, "", True)


def test_a_search_runs_nothing_in_the_auditors_terminal(tmp_path: Path) -> None:
    """Attack: the line that is found is an escape sequence."""
    auditor = Auditor(tmp_path, Story())
    _, out, err = auditor.replay("--find", "document.title")
    assert HOSTILE[:20] in out
    assert not set(out + err) & set("\x1b\x07\u202e")
    assert "hunter2" not in auditor.replay("--find", "hunter2")[1]


@pytest.mark.parametrize("option", ["--from", "--at", "--op"])
def test_it_begins_where_it_is_told_to(auditor: Auditor, option: str) -> None:
    """At an operation, in whichever recording that is; what was before is not shown."""
    code, out, _ = auditor.replay(option, "op_3", "--speed", "1000")
    assert (code, "DROP TABLE" in out, "DELETE FROM" in out, "uptime" in out) == (0, False, True, True)
    code, out, _ = auditor.replay(option, "op_5", "--speed", "1000")
    assert (code, "orders-prod" in out, "uptime" in out, "cat /nowhere" in out) == (0, False, False, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "op_3", "--html", "x.html"],
        ["--from", "5m", "--find", "x"],
        ["--from", "5m", "--json"],
        ["--player", "x"],
        ["--from", "later"],
    ],
)
def test_what_is_whole_has_no_beginning(auditor: Auditor, arguments: list[str]) -> None:
    """What was told of as a part must not be the whole."""
    assert auditor.replay(*arguments)[0] == 64


def on_a_terminal(auditor: Auditor, typed: bytes, *arguments: str) -> tuple[int, str]:
    """Run the command itself on a pseudo-terminal, slowly, and type once it plays: the keys wait for each other there,
    and not for the machine."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "countersign", "replay", str(auditor.copy), "--trust", str(auditor.trust)]
    with subprocess.Popen(
        [*command, "--max-pause", "60s", "--speed", "0.1", *arguments],
        cwd=ROOT,
        env=child_environment({"TERM": "xterm"}),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    ) as child:
        os.close(slave)
        shown = ""
        while chunk := _read(master):
            shown += chunk
            if typed and "for acme/orders deploy" in shown:
                os.write(master, typed)
                typed = b""
        code = child.wait(timeout=30)
    os.close(master)
    return code, shown


def test_keys_on_a_real_terminal(auditor: Auditor) -> None:
    """The next that was stopped, a search, the end."""
    code, shown = on_a_terminal(auditor, b"N/uptime\n/delete\nq")
    assert code == 0
    places = [line for line in shown.splitlines() if "── 00:" in line]
    assert [line.partition("00:")[2][:6] for line in places] == ["01.000", "01.250"], "uptime is another recording's"
    assert "ended here; there is more" in shown
    assert "uptime" not in shown


def test_a_pause_does_not_spoil_a_recorded_screen(tmp_path: Path) -> None:
    """What we say while it stands still is taken away, and the screen is made anew."""
    auditor = Auditor(tmp_path, Story())
    code, shown = on_a_terminal(auditor, b"N  q", "--connection", auditor.archive.db.row.id)
    assert code == 0
    after = shown.partition("paused at")[2]
    assert after.index("\r\x1b[2K") < after.index("\x1b[2J")
    assert shown.count("hunter2") == 0


def _read(master: int) -> str:
    try:
        return os.read(master, 4096).decode("utf-8", "replace")
    except OSError:  # the other end was closed (EIO)
        return ""
