"""`countersign verify FOLDER --all`: a downloaded bucket, on a machine that reaches nothing of ours."""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.archived_item import items_of
from chalicelib.domain.canonical import canonical, timestamp
from chalicelib.domain.digest import parse_digest
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import sign_digest, sign_manifest
from chalicelib.services.anchors import EVIDENCE_PURPOSES, fingerprints, trust_text
from chalicelib.services.recordings import manifest_of
from countersign.__main__ import main
from tests.fakes.digested import Digested
from tests.fakes.memory import MemoryObjects
from tests.fakes.signer import MemorySigner
from tests.fakes.waiting_clock import WaitingClock
from tests.functional.archive import copy_bucket


class Downloaded:
    """A bucket, its second one, the keys and the fingerprints, as an auditor downloads them."""

    def __init__(self, folder: Path) -> None:
        self.on = Digested()
        self.folder, self.second = folder / "bucket", folder / "second"
        self.trust, self.keys = folder / "trust.txt", folder / "keys.json"
        self.download()
        known = self.on.stores.keys
        self.trust.write_text(trust_text(fingerprints(known), self.on.clock.now()))
        told = {one.value: list(known.public_keys(one.value).values()) for one in EVIDENCE_PURPOSES}
        self.keys.write_text(json.dumps({purpose: {"keys": keys} for purpose, keys in told.items()}))

    def download(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        copy_bucket(self.on.stores.objects, self.folder)
        assert isinstance(self.on.stores.digest_copies, MemoryObjects)
        copy_bucket(self.on.stores.digest_copies, self.second)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = main(list(arguments), {}, out=out, err=err, clock=WaitingClock(self.on.clock.now()))
        return code, out.getvalue(), err.getvalue()

    def verify(self, *more: str) -> tuple[int, dict[str, Any]]:
        common = ("--keys", str(self.keys), "--trust", str(self.trust), "--json")
        code, out, err = self.run("verify", str(self.folder), *(more or ("--all",)), *common)
        assert out, err
        return code, json.loads(out)

    def named(self, *more: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for finding in self.verify(*more)[1]["findings"]:
            found.setdefault(finding["key"], []).append(finding["kind"])
        return found

    def path(self, key: str) -> Path:
        return self.folder / key


@pytest.fixture
def bucket(tmp_path: Path) -> Downloaded:
    return Downloaded(tmp_path)


def test_a_downloaded_bucket_verifies_and_says_what_was_not_looked_at(bucket: Downloaded) -> None:
    """Rows are rebuilt from the archive: the same chains, recordings and digests, and no live table."""
    code, told = bucket.verify()
    assert (code, told["findings"], told["tables_compared"], told["anchored_by"]) == (0, [], False, "file")
    checked = told["checked"]
    assert [checked[name] for name in ("chains", "hops", "frames", "answers", "digests")] == [1, 5, 20, 2, 2]
    online = bucket.on.verify().as_json()["checked"]
    assert isinstance(online, dict)
    assert {name: value for name, value in checked.items() if name != "rows"} == {
        name: value for name, value in online.items() if name != "rows"
    }
    given = ("--keys", str(bucket.keys), "--trust", str(bucket.trust))
    code, out, _ = bucket.run("verify", str(bucket.folder), "--all", *given)
    assert (code, out.split()[0]) == (0, "VERIFIED")
    assert "the live tables were not looked at" in out
    day = str(bucket.on.archive.clock.now().date())
    assert bucket.verify("--since", day)[0] == 0
    assert bucket.verify("--all", "--digests", str(bucket.second))[0] == 0


def test_the_last_digest_that_was_written_down(bucket: Downloaded) -> None:
    """It is a finding like any other where the bucket has another one."""
    head = bucket.on.verify().head_sha256
    assert bucket.verify("--all", "--head", head)[0] == 0
    code, told = bucket.verify("--all", "--head", "0" * 64)
    assert (code, [one["key"] for one in told["findings"]]) == (65, ["digests/v1/"])


def test_keys_that_nobody_vouches_for_are_no_success(bucket: Downloaded) -> None:
    """Attack: the bucket and the keys come from one hand."""
    code, out, _ = bucket.run("verify", str(bucket.folder), "--all", "--keys", str(bucket.keys))
    assert (code, out.split()[0]) == (78, "UNANCHORED")
    assert "VERIFIED" not in out
    assert bucket.run("verify", str(bucket.folder), "--all", "--trust", str(bucket.trust))[0] == 65, "no keys at all"


def test_a_bucket_that_was_downloaded_a_while_ago(bucket: Downloaded) -> None:
    """The hours since have no digest in it: that is a finding, unless the auditor says when it was downloaded."""
    downloaded = bucket.on.clock.now()
    bucket.on.clock.advance(30 * 3600)
    assert "missing" in next(iter(bucket.named().values()))
    assert bucket.named("--all", "--as-of", timestamp(downloaded)) == {}
    later = timestamp(downloaded + timedelta(hours=12))
    assert bucket.named("--all", "--as-of", later) != {}, "the last digests are missed all the same"


Tamper = Callable[[Downloaded], dict[str, str]]


def flip_a_segment(on: Downloaded) -> dict[str, str]:
    key = on.on.archive.db.segments[0]
    body = bytearray(on.path(key).read_bytes())
    body[30] ^= 1
    on.path(key).write_bytes(bytes(body))
    return {key: "altered"}


def flip_an_archived_change(on: Downloaded) -> dict[str, str]:
    key = on.on.items("sessions")[0]
    raw = gzip.decompress(on.path(key).read_bytes()).replace(b"deploy 7", b"deploy 8")
    on.path(key).write_bytes(gzip.compress(raw))
    return {key: "altered"}


def truncate_an_archived_object(on: Downloaded) -> dict[str, str]:
    key = on.on.items("uses")[0]
    on.path(key).write_bytes(on.path(key).read_bytes()[:-9])
    return {key: "truncated"}


def truncate_a_segment(on: Downloaded) -> dict[str, str]:
    key = on.on.archive.orders.segments[1]
    on.path(key).write_bytes(on.path(key).read_bytes()[:-20])
    return {key: "truncated"}


def reorder_two_segments(on: Downloaded) -> dict[str, str]:
    one, other = on.on.archive.db.segments
    ours, theirs = on.path(one).read_bytes(), on.path(other).read_bytes()
    on.path(one).write_bytes(theirs)
    on.path(other).write_bytes(ours)
    return {one: "out_of_order", other: "out_of_order"}


def duplicate_an_archived_object(on: Downloaded) -> dict[str, str]:
    key = on.on.items("uses")[0]
    twin = key.replace(key.rpartition("/")[2], "0" * 26 + ".ndjson.gz")
    on.path(twin).write_bytes(on.path(key).read_bytes())
    return {twin: "out_of_order"}


def duplicate_a_segment(on: Downloaded) -> dict[str, str]:
    key = on.on.archive.db.segments[1]
    twin = key.replace("000001", "000002")
    on.path(twin).write_bytes(on.path(key).read_bytes())
    return {twin: "extra"}


def delete_a_segment(on: Downloaded) -> dict[str, str]:
    key = on.on.archive.db.segments[1]
    on.path(key).unlink()
    return {key: "missing"}


def delete_an_archived_object(on: Downloaded) -> dict[str, str]:
    key = on.on.items("answers")[0]
    on.path(key).unlink()
    return {key: "missing"}


def swap_segments_between_sessions(on: Downloaded) -> dict[str, str]:
    one, other = on.on.archive.orders.segments[0], on.on.archive.db.segments[0]
    ours, theirs = on.path(one).read_bytes(), on.path(other).read_bytes()
    on.path(one).write_bytes(theirs)
    on.path(other).write_bytes(ours)
    return {one: "swapped", other: "swapped"}


def replace_a_manifest(on: Downloaded) -> dict[str, str]:
    """By one that the broker's own key signed."""
    key = on.on.archive.db.manifest_key
    again = replace(manifest_of(on.path(key).read_bytes()), exit="error")
    signed = sign_manifest(on.on.stores.signer("record"), again)
    on.path(key).write_bytes(canonical({**signed.signed(), "signature": signed.signature}))
    return {key: "replaced"}


def sign_a_manifest_with_another_key(on: Downloaded) -> dict[str, str]:
    key = on.on.archive.db.manifest_key
    forged = sign_manifest(MemorySigner("another", KeyPurpose.RECORD), manifest_of(on.path(key).read_bytes()))
    on.path(key).write_bytes(canonical({**forged.signed(), "signature": forged.signature}))
    return {key: "other_key"}


def sign_a_digest_with_another_key(on: Downloaded) -> dict[str, str]:
    key = on.on.digests()[0]
    forged = sign_digest(MemorySigner("another", KeyPurpose.DIGEST), parse_digest(on.path(key).read_bytes()))
    on.path(key).write_bytes(forged.stored())
    return {key: "other_key"}


def drop_a_digest(on: Downloaded) -> dict[str, str]:
    key = on.on.digests()[0]
    on.path(key).unlink()
    return {key: "missing"}


def drop_the_last_digest(on: Downloaded) -> dict[str, str]:
    on.on.clock.advance(2 * 3600)
    key = on.on.digests()[-1]
    on.path(key).unlink()
    return {key: "missing"}


def remove_a_whole_session(on: Downloaded) -> dict[str, str]:
    """With its recording and every change of every row that names it: nothing is left but what the digests counted."""
    orders = on.on.archive.orders
    ask = on.on.stores.sessions.get(orders.session_id).ask_id
    gone = [orders.session_id, orders.row.id, orders.hop.id, str(ask)]
    touched = {}
    for path in (on.folder / "items").rglob("*.gz"):
        body = path.read_bytes()
        changes, _ = items_of(body)
        kept = [one for one in changes if not any(name.encode() in one.line() for name in gone)]
        if len(kept) == len(changes):
            continue
        touched[str(path.relative_to(on.folder))] = "altered" if kept else "missing"
        if kept:
            path.write_bytes(gzip.compress(b"".join(one.line() for one in kept)))
        else:
            path.unlink()
    shutil.rmtree(on.folder / "rec/v1" / orders.session_id)
    on.path(orders.manifest_key).unlink()
    assert touched
    return touched


@pytest.mark.parametrize(
    "tamper",
    [
        flip_a_segment,
        flip_an_archived_change,
        truncate_a_segment,
        truncate_an_archived_object,
        reorder_two_segments,
        duplicate_a_segment,
        duplicate_an_archived_object,
        delete_a_segment,
        delete_an_archived_object,
        swap_segments_between_sessions,
        replace_a_manifest,
        sign_a_manifest_with_another_key,
        sign_a_digest_with_another_key,
        drop_a_digest,
        drop_the_last_digest,
        remove_a_whole_session,
    ],
)
def test_the_tamper_table_of_a_downloaded_bucket(bucket: Downloaded, tamper: Tamper) -> None:
    """Attack: whoever keeps the download changes it. Each thing that was touched is named, by its key."""
    expected = tamper(bucket)
    found = bucket.named()
    for key, kind in expected.items():
        assert kind in found.get(key, []), found


@pytest.mark.parametrize("left", ["items/v1/sessions/x", "digests/v1/x"])
def test_a_bucket_that_was_emptied_is_not_a_young_one(bucket: Downloaded, left: str) -> None:
    """Attack: whoever keeps the download removes all of it but a stray file. There is nothing that could be wrong, and
    that must not be VERIFIED."""
    shutil.rmtree(bucket.folder)
    bucket.path(left).parent.mkdir(parents=True)
    bucket.path(left).write_bytes(b"")
    assert bucket.named()["digests/v1/"] == ["missing"]


def test_a_session_that_was_removed_from_the_tables_is_still_in_the_archive(bucket: Downloaded) -> None:
    """Attack: an administrator deletes rows. Their removal is archived too, and the download says so."""
    admin, orders = bucket.on.administrator, bucket.on.archive.orders
    admin.delete_row("sessions", {"id": orders.session_id})
    bucket.on.pump()
    bucket.download()
    assert "missing" in bucket.named()[orders.session_id]


def test_a_link_in_a_downloaded_bucket_is_not_followed(bucket: Downloaded, tmp_path: Path) -> None:
    """Attack: a download with a link in it makes the verifier read the auditor's own files."""
    key = bucket.on.archive.db.segments[0]
    elsewhere = tmp_path / "elsewhere"
    shutil.move(bucket.path(key), elsewhere)
    bucket.path(key).symlink_to(elsewhere)
    assert bucket.named()[key] == ["missing"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "{empty}", "--all"],
        ["verify", "no-such-folder", "--all"],
        ["verify", "{folder}", "--all", "--keys", "no-such-file"],
        ["verify", "{folder}", "--all", "--since", "2026-11-01"],
        ["verify", "{folder}", "--all", "--as-of", "once"],
        ["verify", "{folder}", "--since", "2030-01-01"],
        ["verify", "{folder}", "--since", "2026-11-02", "--as-of", "2026-11-01T09:00:00Z"],
        ["verify", "{folder}", "--all", "--digests", "no-such-folder"],
        ["verify", "{folder}"],
        ["verify", "--all", "--keys", "{keys}"],
    ],
)
def test_a_wrong_call_says_what_is_wrong(bucket: Downloaded, tmp_path: Path, arguments: list[str]) -> None:
    """Never a verdict: an empty folder must not look like a bucket in which nothing ever happened."""
    empty = tmp_path / "empty"
    empty.mkdir()
    told = {"empty": str(empty), "folder": str(bucket.folder), "keys": str(bucket.keys)}
    code, out, err = bucket.run(*[argument.format(**told) for argument in arguments])
    assert (code, out) == (64, "")
    assert err.startswith("countersign: ")


def test_a_refusal_that_was_saved_in_the_place_of_keys_is_no_file_of_keys(bucket: Downloaded) -> None:
    """`curl` without -f saves the service's refusal: that is a call to change, and no finding at every signature."""
    bucket.keys.write_text(json.dumps({"code": "store_unavailable", "message": "a service could not be reached"}))
    code, out, err = bucket.run("verify", str(bucket.folder), "--all", "--keys", str(bucket.keys))
    assert (code, out) == (64, "")
    assert "has no key in it" in err
    assert "curl -fsS" in err
