"""CloudTrail's files as an auditor has them: whoever made the folder does not choose what is read, or how much."""

from __future__ import annotations

import gzip
import json
from datetime import timedelta
from pathlib import Path

import pytest

from chalicelib.services.cloud_witness import account, read_trail
from chalicelib.services.reconcile import connections_of
from countersign import trail_files
from countersign.failures import Failure
from countersign.reconcile_screen import trail_screen
from countersign.trail_files import trail_records
from tests.fakes.archive import Archive
from tests.fakes.cloud import ADMIN
from tests.unit.chalicelib.services.test_cloud_witness import CREDENTIALS, HOUR, quiet, read_secret, sign


def stored(*records: object) -> bytes:
    return gzip.compress(json.dumps({"Records": records}).encode())


def test_a_folder_as_the_bucket_has_it_is_read_whole(tmp_path: Path) -> None:
    """By region and day, beside AWS's digests, which are no records."""
    archive = Archive()
    day = tmp_path / "AWSLogs/111122223333/CloudTrail/eu-west-1/2026/11/02"
    day.mkdir(parents=True)
    for place, one in enumerate(quiet(archive)):
        (day / f"{place}.json.gz").write_bytes(stored(one))
    digests = tmp_path / "AWSLogs/111122223333/CloudTrail-Digest/eu-west-1"
    digests.mkdir(parents=True)
    (digests / "x.json.gz").write_bytes(b"anything")
    (day / "notes.txt").write_text("anything")
    found = list(trail_records(str(tmp_path)))
    assert [place.rpartition("/")[2] for place, _ in found] == ["0.json.gz#1", "1.json.gz#1"]
    plain = tmp_path / "one.json"
    plain.write_text(json.dumps({"Records": quiet(archive)}))
    assert len(list(trail_records(str(plain)))) == 2


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A link in a copied folder leads to the auditor's own files."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.json").write_text('{"Records":[1]}')
    folder = tmp_path / "trail"
    folder.mkdir()
    (folder / "link.json").symlink_to(outside / "x.json")
    (folder / "below").symlink_to(outside)
    with pytest.raises(Failure, match="no files"):
        list(trail_records(str(folder)))


BAD = {
    "no json": b"{",
    "no records": b"{}",
    "records of another kind": b'{"Records":{}}',
    "deep": b'{"Records":' + b"[" * 200_000,
    "cut": stored(1)[:-4],
    "no gzip": b"\x1f\x8bxxxx",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
def test_a_file_that_is_none_of_cloudtrails_is_never_passed_over(tmp_path: Path, body: bytes) -> None:
    """What it would have said is unknown: the answer must not be that all is well."""
    (tmp_path / "a.json.gz").write_bytes(body)
    with pytest.raises(Failure):
        list(trail_records(str(tmp_path)))


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bytes of gzip are gigabytes."""
    monkeypatch.setattr(trail_files, "MAX_UNPACKED", 1000)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"Records":["' + b"x" * 10_000 + b'"]}'))
    with pytest.raises(Failure, match="larger"):
        list(trail_records(str(tmp_path)))
    monkeypatch.setattr(trail_files, "MAX_STORED", 10)
    (tmp_path / "a.json.gz").write_bytes(b'{"Records":[]}')
    with pytest.raises(Failure, match="larger"):
        list(trail_records(str(tmp_path)))


def test_a_folder_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded, like every reading."""
    monkeypatch.setattr(trail_files, "MAX_FILES", 1)
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text('{"Records":[]}')
    with pytest.raises(Failure, match="more than 1 files"):
        list(trail_records(str(tmp_path)))


def plain(text: str, *_styles: str) -> str:
    return text


def test_the_screen_names_what_has_no_counterpart_and_what_is_not_covered() -> None:
    """Whoever called chose the names in a record: nothing in them takes effect in a terminal."""
    archive = Archive()
    who = {**ADMIN, "arn": "arn:\x1b[2Jmallory\n\u202e"}
    calls = [read_secret(archive.orders.row.opened_at), sign(HOUR.since + timedelta(minutes=40), who=who)]
    trail = read_trail([("f#1", one) for one in calls], CREDENTIALS)
    found = account(HOUR, trail, connections_of(archive.stores, "", HOUR), CREDENTIALS)
    text = "\n".join(trail_screen(found, trail, plain, 200))
    assert text.startswith("NOT RECONCILED")
    assert "CREDENTIALS WITHOUT A CONNECTION: 1" in text
    assert "CONNECTIONS OF WHICH THE TRAIL SHOWS NO CREDENTIAL: 1" in text
    assert archive.db.row.id in text
    assert "RDS IAM tokens" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    quiet_trail = read_trail([("f#1", one) for one in quiet(archive)], CREDENTIALS)
    good = account(HOUR, quiet_trail, connections_of(archive.stores, "", HOUR), CREDENTIALS)
    assert next(trail_screen(good, quiet_trail, plain, 200)) == "EVERY CREDENTIAL IS OURS"
