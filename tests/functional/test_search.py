"""`countersign search` over objects that the broker really wrote: by words, by fields, newest first, page by page."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from countersign import evidence_source
from countersign.__main__ import main
from tests.fakes.api_server import ID_TOKEN, ApiServer
from tests.functional.worked import CHILD, Archive, worked_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """What one broker wrote."""
    return worked_archive(tmp_path_factory.mktemp("bucket"))


def _run(archive: Archive, *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    given = ["search", "--local", str(archive.folder), *arguments]
    return main(given, {}, out=out, err=err, clock=cast(Any, archive.world.clock)), out.getvalue(), err.getvalue()


def _hits(archive: Archive, *arguments: str) -> Sequence[dict[str, Any]]:
    code, out, err = _run(archive, "--json", *arguments)
    assert code == 0, (out, err)
    return cast(Sequence[dict[str, Any]], json.loads(out)["hits"])


def _texts(archive: Archive, *arguments: str) -> list[str]:
    return [hit["text"] for hit in _hits(archive, *arguments)]


def test_words_newest_first_and_each_fact_once(archive: Archive) -> None:
    """Every object of events is there twice, as after a lost answer."""
    hits = _hits(archive, "drop", "TABLE")
    assert [(hit["text"], hit["verdict"]) for hit in hits] == [
        ("DROP TABLE orders", "forward"),
        ("DROP TABLE orders", "block"),
    ]
    assert _texts(archive, "table drop") == ["DROP TABLE orders"] * 2, "words may stand in any order"
    assert _texts(archive, '"table drop"') == [], "a phrase may not"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("verdict:block", ["DROP TABLE orders"]),
        ("verdict:held", ["DELETE FROM orders WHERE id = 1"]),
        ("approver:dora", ["DELETE FROM orders WHERE id = 1"]),
        ("table:customers", ["SELECT email FROM customers"]),
        ("table:public.orders class:read", ["SELECT id FROM orders"]),
        ("rule:break-glass-drop", ["DROP TABLE orders"]),
        ("class:write", ["DELETE FROM orders WHERE id = 1"]),
        ("class:sql:define verdict:forward", ["DROP TABLE orders"]),
        ("outcome:refused", ["DROP TABLE orders"]),
        ("orders -drop -class:read", ["DELETE FROM orders WHERE id = 1"]),
        ("target:elsewhere", []),
        ("originator:repo:acme/shop table:customers", ["SELECT email FROM customers"]),
        (f"actor:{CHILD} approver:dora", ["DELETE FROM orders WHERE id = 1"]),
        ("principal:app_rw delete", ["DELETE FROM orders WHERE id = 1"]),
        ("txn:01m6dshkc8w586sj5sp0arcw4h", []),
        ("session:ses_01m6dshkc8w586sj5sp0arcw4h", []),
        ("op:op_01m6dshkc8w586sj5sp0arcw4h", []),
    ],
)
def test_every_field(archive: Archive, asked: str, found: list[str]) -> None:
    """Each finds what it should and leaves out the rest; a minus turns it round."""
    assert _texts(archive, asked) == found


def test_a_hit_leads_to_its_frame_and_its_replay(archive: Archive) -> None:
    """What was found can be looked at: the very frame, and the command that plays from there."""
    (hit,) = _hits(archive, "table:customers")
    lines = gzip.decompress((archive.folder / hit["segment"]).read_bytes()).decode().splitlines()
    (frame,) = [line for line in map(json.loads, lines) if line.get("seq") == hit["frame"]]
    assert (frame["kind"], frame["text"]) == ("operation", hit["text"])
    assert hit["replay"] == f"countersign replay {archive.session} --op {hit['operation_id']}"
    assert json.loads(frame["meta"])["op"] == hit["operation_id"]


def test_pages_give_each_hit_once_and_in_order(archive: Archive) -> None:
    """Two of one millisecond must neither be shown twice nor fall between two pages."""
    whole = [hit["uid"] for hit in _hits(archive, "target:orders-prod")]
    assert len(whole) == 6
    for size in (1, 2, 4):
        found, after = list[str](), ""
        while True:
            code, out, _ = _run(archive, "--json", "target:orders-prod", "--limit", str(size), *after.split())
            told = json.loads(out)
            found += [hit["uid"] for hit in told["hits"]]
            assert (code, len(told["hits"]) <= size) == (0, True)
            if not told["after"]:
                break
            after = f"--after {told['after']}"
        assert found == whole


def test_a_period_bounds_what_is_found_by_the_events_own_time(archive: Archive) -> None:
    """Objects of two more days are read, since an event may be told late; what happened after is not shown."""
    last = _hits(archive, "target:orders-prod")[0]["at"]
    assert last not in [hit["at"] for hit in _hits(archive, "target:orders-prod", "--until", last)]
    assert {hit["at"] for hit in _hits(archive, "target:orders-prod", "--since", last)} == {last}


def test_the_match_is_marked_and_what_a_stranger_wrote_obeys_nothing(archive: Archive) -> None:
    """Attack: a statement with an escape sequence and a spreadsheet's formula is found by an auditor."""
    code, shown, _ = _run(archive, "pwned")
    assert (code, "«pwned»" in shown) == (0, True)
    assert not set(shown) & set("\x1b\x07")
    _, text, _ = _run(archive, "pwned", "--csv")
    header, row = list(csv.reader(io.StringIO(text)))
    assert not row[header.index("text")].startswith(("=", "+", "-", "@"))
    assert not set(text) & set("\x1b\x07")
    (hit,) = _hits(archive, "pwned")
    assert [part["text"] for part in hit["snippet"] if part["match"]] == ["pwned"]


@pytest.mark.parametrize(
    "asked", ["verdit:block", "verdict:maybe", "txn:x", "session:../..", 'a "b', "", "x" * 600, "op:1", "a\x1bb"]
)
def test_what_cannot_be_asked_is_refused_and_finds_not_nothing(archive: Archive, asked: str) -> None:
    """A misspelled field that silently matches nothing reads as "there was none"."""
    code, out, _ = _run(archive, asked)
    assert (code, out) == (64, "")


@pytest.mark.parametrize("word", ["' OR 1=1 --", "x') OR true --", "%", "_", "?"])
def test_a_word_is_never_a_part_of_the_statement(archive: Archive, word: str) -> None:
    """Attack: SQL, or a wildcard, in a word. It is compared, and matches nothing."""
    assert _texts(archive, f'"{word}"') == []


def test_a_damaged_object_stops_the_search(archive: Archive, tmp_path: Path) -> None:
    """Attack: damage an object, so that the facts in it are not found."""
    key = next(iter(archive.world.stores.objects.keys("events/")))
    path = tmp_path / key
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(b'{"v":1,"uid"\n'))
    assert _run(replace(archive, folder=tmp_path), "x")[0] == 65


def test_deep_finds_what_only_the_recording_has(archive: Archive) -> None:
    """What is behind an event's text is in its recording alone; fields hold there too."""
    assert [hit["where"] for hit in _hits(archive, "--deep", "drop", "verdict:block")] == ["statement"]
    assert {hit["uid"] for hit in _hits(archive, "--deep", "orders")} == {
        hit["uid"] for hit in _hits(archive, "orders")
    }
    whole = [hit["uid"] for hit in _hits(archive, "--deep", "orders")]
    code, out, _ = _run(archive, "--json", "--deep", "orders", "--limit", "2")
    told = json.loads(out)
    assert (code, [hit["uid"] for hit in told["hits"]]) == (0, whole[:2])
    assert [hit["uid"] for hit in _hits(archive, "--deep", "orders", "--after", told["after"])] == whole[2:]


def _in_the_bucket(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, *arguments: str, api: ApiServer | None
) -> tuple[int, str, str]:
    monkeypatch.setattr(evidence_source, "open_deployment", lambda _: archive.world.stores)
    environment = {"PATH": os.defpath, "HOME": "/nowhere"}
    if api is not None:
        environment |= {"COUNTERSIGN_API": api.url, "COUNTERSIGN_ID_TOKEN": ID_TOKEN, "XDG_STATE_HOME": api.state.name}
    out, err = io.StringIO(), io.StringIO()
    given = ["search", *arguments]
    code = main(given, environment, out=out, err=err, clock=cast(Any, archive.world.clock))
    return code, out.getvalue(), err.getvalue()


def test_the_bucket_itself_gives_what_a_copy_gives(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched with the caller's own rights, for the days asked for."""
    code, out, err = _in_the_bucket(archive, monkeypatch, "--json", "orders", api=None)
    assert (code, json.loads(out)["hits"]) == (0, _hits(archive, "orders")), err


def test_recorded_texts_are_told_to_the_service_before_one_is_shown(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attack: read recordings word by word with a search, and be in no log as whoever replays one is."""
    code, out, _ = _in_the_bucket(archive, monkeypatch, "--deep", "orders", api=None)
    assert (code, out) == (64, ""), "where nobody can be told, nothing is shown"
    with ApiServer() as api:
        code, out, err = _in_the_bucket(archive, monkeypatch, "--deep", "orders", api=api)
        assert (code, "orders" in out) == (0, True), err
        told = [json.loads(seen.body)["session_id"] for seen in api.calls("POST /v1/replays")]
        assert told == [archive.session]
        refusal = {"code": "policy_denied", "message": "no rule permits it", "hint": "", "request_id": "r"}
        api.answer("POST /v1/replays", status=403, body=refusal)
        code, out, _ = _in_the_bucket(archive, monkeypatch, "--deep", "orders", api=api)
        assert (code, out) == (77, ""), "a refusal shows nothing"
