"""`countersign verify`, `review` and `replay` on a copy of evidence: on a machine with nothing but the command line."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.canonical import sha256_hex
from chalicelib.services.anchors import fingerprints, trust_text
from chalicelib.services.copy_evidence import copy_evidence
from chalicelib.store.folder_copy import FolderCopy
from chalicelib.store.folder_files import MANIFEST, FileEntry, manifest_bytes
from countersign.__main__ import main
from tests.fakes.archive import Archive
from tests.fakes.waiting_clock import WaitingClock


class Auditor:
    """A copy, a file of fingerprints, and the commands."""

    def __init__(self, folder: Path) -> None:
        self.archive = Archive()
        self.copy = folder / "copy"
        self.trust = folder / "trust.txt"
        _, self.sha256 = copy_evidence(self.archive.stores, self.archive.txn, FolderCopy(self.copy), self.archive.clock)
        self.trust.write_text(trust_text(fingerprints(self.archive.stores.keys), self.archive.clock.now()))

    def run(self, *arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = main(list(arguments), {}, out=out, err=err, clock=WaitingClock())
        return code, out.getvalue(), err.getvalue()

    def told(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        code, out, _ = self.run(*arguments, "--json")
        return code, json.loads(out)


@pytest.fixture
def auditor(tmp_path: Path) -> Auditor:
    return Auditor(tmp_path)


def test_verify_passes_and_then_names_what_was_changed_and_what_was_removed(auditor: Auditor) -> None:
    """The demo's fifth point: a byte of a copied segment is changed and a segment removed, and both are named."""
    known = ("--trust", str(auditor.trust), "--sha256", auditor.sha256)
    code, out, _ = auditor.run("verify", str(auditor.copy), *known)
    assert code == 0
    assert out.startswith(f"VERIFIED  {auditor.archive.txn}\n")
    for part in ("5 hops", "2 sessions, 2 connections", "2 answers to 2 asks", "4 segments, 20 frames", "in your file"):
        assert part in out
    changed, removed = auditor.archive.db.segments[0], auditor.archive.orders.segments[1]
    path = auditor.copy / "objects" / changed
    body = bytearray(path.read_bytes())
    body[30] ^= 1
    path.write_bytes(bytes(body))
    (auditor.copy / "objects" / removed).unlink()
    code, out, _ = auditor.run("verify", str(auditor.copy), "--trust", str(auditor.trust))
    assert code == 65
    assert out.startswith("NOT VERIFIED")
    assert f"altered  {changed} was changed" in out
    assert f"missing  {removed} is missing" in out


def test_without_fingerprints_the_answer_is_unanchored(auditor: Auditor) -> None:
    """Attack: a whole forged archive brings its own keys; nothing must look like success."""
    code, out, err = auditor.run("verify", str(auditor.copy))
    assert (code, out.split()[0]) == (78, "UNANCHORED")
    assert "VERIFIED" not in out
    assert "--trust FILE" in err
    code, told = auditor.told("verify", str(auditor.copy))
    assert (code, told["verified"], told["anchored_by"], told["findings"]) == (78, False, "nobody", [])


def test_a_plain_copy_is_no_proof_that_it_is_all(auditor: Auditor) -> None:
    """Attack: whoever keeps a plain copy takes a whole session out of it and lists its files anew. Nothing in it names
    what is gone, so nothing but the hash that was written down makes it VERIFIED; and of an altered one it says so."""
    trust = ("--trust", str(auditor.trust))
    code, out, err = auditor.run("verify", str(auditor.copy), *trust)
    assert (code, out.split()[0]) == (78, "UNANCHORED")
    assert "VERIFIED" not in out
    assert "nothing shows that this is all" in out
    assert "--sha256 HASH" in err
    orders = auditor.archive.orders
    asks = [ask.id for ask in auditor.archive.stores.asks.rows.values() if ask.question.session_id == orders.session_id]
    names = (orders.session_id, orders.row.id, orders.hop.id, *asks)
    for path in [path for path in auditor.copy.rglob("*") if path.is_file() and path.name != MANIFEST]:
        if any(name in str(path) for name in names):
            path.unlink()
    listed = [path for path in auditor.copy.rglob("*") if path.is_file() and path.name != MANIFEST]
    files = [
        FileEntry(
            path=str(path.relative_to(auditor.copy)), bytes=len(body := path.read_bytes()), sha256=sha256_hex(body)
        )
        for path in listed
    ]
    for version in (1, 0, 3):
        again, sha256 = manifest_bytes(auditor.archive.txn, auditor.archive.clock.now(), files, version)
        (auditor.copy / MANIFEST).write_bytes(again)
        code, told = auditor.told("verify", str(auditor.copy), *trust)
        assert (code, told["verified"]) == ((78, False) if version == 1 else (65, False))
        code, told = auditor.told("verify", str(auditor.copy), *trust, "--sha256", auditor.sha256)
        assert (code, told["findings"][0]["key"], told["findings"][0]["kind"]) == (65, MANIFEST, "replaced")
    assert sha256 != auditor.sha256


def test_fingerprints_of_another_deployment(auditor: Auditor) -> None:
    """Each key that is not trusted is named, and so is what it signed."""
    auditor.trust.write_text(trust_text(fingerprints(Archive().stores.keys), auditor.archive.clock.now()))
    code, told = auditor.told("verify", str(auditor.copy), "--trust", str(auditor.trust))
    assert code == 65
    kinds = {finding["key"]: finding["kind"] for finding in told["findings"]}
    assert kinds["keys/record.json"] == kinds[auditor.archive.db.manifest_key] == "other_key"


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify"],
        ["verify", "no-such-folder"],
        ["verify", ".", "--write-trust", "x"],
        ["verify", "{copy}", "--trust", "no-such-file"],
        ["verify", "ses_01m6dsg7e0fwejtv7egfb0rbxm"],
        ["verify", "--write-trust", "x"],
        ["verify", "--all"],
        ["verify", "--all", "--since", "2026-11-01"],
        ["verify", "{copy}", "--all"],
        ["verify", "{copy}", "--sha256", "abc"],
        ["verify", "{copy}", "--all", "--sha256", "0" * 64],
        ["verify", "--all", "--sha256", "0" * 64],
        ["verify", "ses_01m6dsg7e0fwejtv7egfb0rbxm", "--sha256", "0" * 64],
        ["verify", "--since", "yesterday"],
        ["verify", "--all", "--head", "abc"],
        ["verify", "{copy}", "--head", "0" * 64],
        ["review", "{copy}", "--brief"],
        ["review", "{copy}", "--target", "orders-prod"],
        ["review", "--since", "1d", "--processes", "0"],
        ["review", "--since", "1d", "--processes", "many"],
        ["verify", "--all", "--write-trust", "x"],
        ["evidence", "x", "y"],
        ["evidence", "01m6dsg7e0fwejtv7egfb0rbxm", "y"],
        ["replay", "{copy}", "--speed", "fast"],
        ["replay", "{copy}", "--speed", "nan"],
        ["replay", "{copy}", "--max-pause", "never"],
        ["replay", "{copy}", "--connection", "con_x"],
        ["replay", "{copy}", "--at", "op_01j9z3k4m5n6p7q8r9s0t1v2w3"],
    ],
)
def test_a_wrong_call_says_what_is_wrong(auditor: Auditor, arguments: list[str]) -> None:
    """Exit code 64 and one sentence; never a stack trace, never a verdict."""
    code, out, err = auditor.run(*[argument.format(copy=auditor.copy) for argument in arguments])
    assert (code, out) == (64, "")
    assert err.startswith("countersign: ")


def test_a_folder_that_is_no_copy(auditor: Auditor, tmp_path: Path) -> None:
    """It must not look like evidence that lacks everything, nor like evidence that holds."""
    code, out, err = auditor.run("verify", str(tmp_path))
    assert (code, out) == (64, "")
    assert "no folder of evidence" in err
    assert "Name the folder that `countersign evidence` wrote" in err


def test_review_reads_a_copy(auditor: Auditor) -> None:
    """The same tree, on the machine of somebody who may read nothing of ours."""
    code, out, err = auditor.run("review", str(auditor.copy), "--trust", str(auditor.trust))
    assert code == 0
    assert "└─ schema-tool  attested" in out
    assert "this is a copy made at 2026-11-02" in err
    assert "nothing in it shows that it is all" in err
    next(auditor.copy.glob("uses/*/1.json")).write_text("{}")
    code, told = auditor.told("review", str(auditor.copy))
    assert (code, told["verified"]) == (65, False)
    assert any(finding["key"].startswith("uses/") for finding in told["findings"])


@pytest.mark.parametrize("command", ["verify", "review", "replay"])
def test_a_forged_archive_with_keys_of_its_own_is_never_called_verified(auditor: Auditor, command: str) -> None:
    """Attack: whoever keeps the archive signs all of it anew. A reader of any screen of it must see that."""
    code, out, _ = auditor.run(command, str(auditor.copy))
    assert code == 78
    assert "UNANCHORED" in out
    assert "VERIFIED" not in out
    assert auditor.told(command, str(auditor.copy))[1]["verified"] is False
    auditor.trust.write_text(trust_text(fingerprints(Archive().stores.keys), auditor.archive.clock.now()))
    code, out, _ = auditor.run(command, str(auditor.copy), "--trust", str(auditor.trust))
    assert code == 65
    assert "NOT VERIFIED" in out


def test_replay_plays_a_copy(auditor: Auditor) -> None:
    """Both connections, the older one first; one alone where it is named."""
    trust = ("--trust", str(auditor.trust))
    code, out, _ = auditor.run("replay", str(auditor.copy), "--speed", "10", *trust)
    assert code == 0
    assert "verified" in out.splitlines()[0]
    assert out.index("app on orders-prod") < out.index("deploy on db-prod")
    assert "#MASKED:aws_access_key#\n  exit 0" in out
    code, out, _ = auditor.run("replay", str(auditor.copy), "--connection", auditor.archive.db.row.id, *trust)
    assert (code, "orders-prod" in out) == (0, False)
    code, told = auditor.told("replay", str(auditor.copy))
    assert [len(recording["frames"]) for recording in told["recordings"]] == [11, 9]


def test_replay_says_what_does_not_verify_and_plays_it_all_the_same(auditor: Auditor) -> None:
    """What can be read is evidence too; that it is not whole is said first, and by the exit code."""
    removed = auditor.archive.db.segments[1]
    (auditor.copy / "objects" / removed).unlink()
    code, out, err = auditor.run("replay", str(auditor.copy), "--connection", auditor.archive.db.row.id)
    assert code == 65
    assert f"{removed} is missing" in err
    assert "NOT VERIFIED" in out
    assert "uptime" in out


def test_a_file_name_with_escapes_in_it_does_not_run_in_the_terminal(auditor: Auditor) -> None:
    """Attack: a copy holds a file whose name is an escape sequence, and a row whose texts are."""
    os.mkdir(auditor.copy / "\x1b]0;pwned\x07")
    (auditor.copy / "\x1b]0;pwned\x07.json").write_text("x")
    session = next(auditor.copy.glob("sessions/*.json"))
    document = json.loads(session.read_text())
    document["request"]["reason"] = "\x1b]0;pwned\x07"
    session.write_text(json.dumps(document))
    for command in ("verify", "review", "replay"):
        code, out, err = auditor.run(command, str(auditor.copy))
        assert code == 65
        assert not set(out + err) & set("\x1b\x07")
