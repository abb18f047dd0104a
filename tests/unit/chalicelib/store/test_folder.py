"""A folder of evidence is somebody else's: nothing in it is followed, believed or read without bound."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from chalicelib.domain.canonical import canonical
from chalicelib.domain.errors import AlreadyExists, NotFound
from chalicelib.services.copy_evidence import copy_evidence
from chalicelib.store import folder_files
from chalicelib.store.folder import FolderStores, open_folder
from chalicelib.store.folder_copy import FolderCopy
from chalicelib.store.folder_files import MANIFEST
from tests.fakes.archive import Archive


@pytest.fixture
def archive() -> Archive:
    return Archive()


@pytest.fixture
def folder(archive: Archive, tmp_path: Path) -> Path:
    copy_evidence(archive.stores, archive.txn, FolderCopy(tmp_path / "copy"), archive.clock)
    return tmp_path / "copy"


def faults(folder: Path) -> dict[str, str]:
    return {fault.key: fault.kind for fault in open_folder(folder)[1]}


def test_what_is_no_copy_is_said(tmp_path: Path) -> None:
    """A wrong path must not look like evidence that lacks everything."""
    for wrong in (tmp_path / "nothing", tmp_path):
        with pytest.raises(NotFound):
            open_folder(wrong)


def test_a_copy_is_made_into_an_empty_folder_only(folder: Path) -> None:
    """Two copies in one folder are evidence of neither."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(AlreadyExists):
        FolderCopy(folder)
    with pytest.raises(AlreadyExists):
        FolderCopy(folder / MANIFEST)
    assert sorted(folder.rglob("*")) == before


def test_a_copy_is_its_owners_alone(folder: Path) -> None:
    """Statements and names of people are in it."""
    assert folder.stat().st_mode & 0o077 == 0


def test_a_copy_that_broke_off_is_none(archive: Archive, tmp_path: Path) -> None:
    """The list of files is last: without it a half copy would be one that lacks much."""
    out = FolderCopy(tmp_path / "half")
    out.hop(archive.root)
    with pytest.raises(NotFound):
        open_folder(tmp_path / "half")


def test_a_link_or_a_device_in_the_copy_is_not_followed(folder: Path, archive: Archive, tmp_path: Path) -> None:
    """Attack: a copy holds a link to a file of the auditor's, or a pipe that never ends."""
    (tmp_path / "theirs").write_bytes((folder / "objects" / archive.db.segments[0]).read_bytes())
    linked = folder / "objects" / archive.db.segments[0]
    linked.unlink()
    linked.symlink_to(tmp_path / "theirs")
    os.mkfifo(folder / "sessions/pipe.json")
    (folder / "chains/elsewhere").symlink_to(tmp_path)
    stores, _ = open_folder(folder)
    found = faults(folder)
    assert found[archive.db.segments[0]] == "extra"
    assert found["sessions/pipe.json"] == "extra"
    assert found["chains/elsewhere"] == "extra"
    with pytest.raises(NotFound):
        stores.objects.get(archive.db.segments[0])


@pytest.mark.parametrize("key", ["../MANIFEST.json", "/etc/passwd", "rec/../../MANIFEST.json", "", "rec", "\x00"])
def test_a_key_leads_out_of_the_folder(folder: Path, key: str) -> None:
    """Attack: a manifest names a segment elsewhere on the auditor's disk."""
    stores, _ = open_folder(folder)
    with pytest.raises(NotFound):
        stores.objects.get(key)


def test_a_file_without_end(folder: Path, archive: Archive) -> None:
    """Attack: a file that is larger than the auditor's memory. It is sparse: it takes no room on the disk."""
    os.truncate(folder / "objects" / archive.db.segments[0], folder_files.MAX_FILE + 1)
    assert faults(folder)[archive.db.segments[0]] == "altered"


@pytest.mark.parametrize("text", ["", "{}", "[]", "x", '{"files": [1]}', '{"files": {}, "sha256": 1}', "[" * 100_000])
def test_a_list_of_files_that_is_none(folder: Path, text: str) -> None:
    """Whatever stands there, it is a finding and no crash."""
    (folder / MANIFEST).write_text(text)
    assert faults(folder)[MANIFEST] == "altered"


def test_a_space_in_the_list_of_files_is_found(folder: Path) -> None:
    """Its bytes have one form, so that its hash stands for them too."""
    document = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(document))
    assert faults(folder) == {MANIFEST: "altered"}
    (folder / MANIFEST).write_bytes(canonical(document))
    assert faults(folder) == {}


def _tampered(folder: Path, path: Path, body: bytes) -> tuple[FolderStores, dict[str, str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    stores, found = open_folder(folder)
    return stores, {fault.key: fault.kind for fault in found}


@pytest.mark.parametrize("body", [b"", b"{}", b"null", b"\xff", b"[" * 100_000])
def test_a_row_that_cannot_be_read_is_named_and_left_out(folder: Path, archive: Archive, body: bytes) -> None:
    """What is left out silently would be one answer or one revocation less."""
    path = next(folder.glob("answers/*/*.json"))
    stores, found = _tampered(folder, path, body)
    assert found == {str(path.relative_to(folder)): "altered"}
    count = sum(len(stores.answers.of_ask(ask_id)) for ask_id in archive.stores.asks.rows)
    assert count == 1


def test_a_row_under_another_ones_name_is_nobodys(folder: Path, archive: Archive) -> None:
    """Attack: a session's file is copied under a second name, and counts twice."""
    own = (folder / f"sessions/{archive.db.session_id}.json").read_bytes()
    stores, found = _tampered(folder, folder / f"sessions/{archive.orders.session_id}.json", own)
    assert found == {f"sessions/{archive.orders.session_id}.json": "altered"}
    assert len(stores.sessions.of_txn(archive.txn)) == 1


@pytest.mark.parametrize("body", [b"[]", b'{"keys": [1]}', b'{"keys": [{"kty": "EC"}]}', b"\xff"])
def test_keys_that_are_none(folder: Path, body: bytes) -> None:
    """Nothing is trusted then, so that nothing verifies."""
    stores, found = _tampered(folder, folder / "keys/record.json", body)
    assert found == {"keys/record.json": "altered"}
    assert stores.keys.public_keys("record") == {}
