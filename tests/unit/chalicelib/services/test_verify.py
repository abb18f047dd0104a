"""Verification of a copy: every kind of tampering is named by the key of what was tampered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.ask import Answer
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.chain import Hop
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.identity.compact import take_apart
from chalicelib.identity.jws import sign_answer, sign_hop
from chalicelib.services.anchors import fingerprints
from chalicelib.services.copy_evidence import copy_evidence
from chalicelib.services.reviewed import Finding, FindingKind
from chalicelib.services.verify import Anchor, EvidenceSource, Verification, verify
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.folder import open_folder
from chalicelib.store.folder_copy import FolderCopy
from chalicelib.store.folder_files import MANIFEST, FileEntry, manifest_bytes
from tests.fakes.archive import Archive
from tests.fakes.clock import START, FakeClock


@dataclass(frozen=True)
class Fingerprints:
    """Implements ``Anchors`` with what KMS gave at onboarding."""

    found: frozenset[tuple[str, str]]

    def holds(self, purpose: str, thumbprint: str) -> bool:
        return (purpose, thumbprint) in self.found


def anchors_of(archive: Archive) -> Fingerprints:
    known = fingerprints(archive.stores.keys)
    return Fingerprints(frozenset((purpose, one) for purpose, ones in known.items() for one in ones))


@lru_cache(1)
def original() -> tuple[Archive, Path]:
    """One sound archive and its copy, for all tests: each copies the folder before it tampers."""
    archive = Archive()
    folder = Path(mkdtemp(prefix="countersign-evidence-")) / "copy"
    archive.stores.revocations.revoke(f"hop:{archive.deploy.id}", by="carol", why="image", at=archive.clock.now())
    copy_evidence(archive.stores, archive.txn, FolderCopy(folder), archive.clock)
    return archive, folder


@pytest.fixture(scope="module", autouse=True)
def _swept() -> Iterator[None]:
    yield
    shutil.rmtree(original()[1].parent)
    original.cache_clear()


@dataclass(frozen=True)
class Copy:
    """A copy of the archive that a test may tamper with."""

    archive: Archive
    folder: Path

    def path(self, key: str) -> Path:
        return self.folder / "objects" / key

    def verify(self, *, anchored: bool = True) -> Verification:
        return verified(self.folder, anchors_of(self.archive) if anchored else None)

    def findings(self) -> list[Finding]:
        return list(self.verify().findings)

    def adapt_manifest(self) -> None:
        """List the files anew: what whoever tampered with a whole copy would do, since nobody signs the list."""
        listed = [path for path in self.folder.rglob("*") if path.is_file() and path.name != MANIFEST]
        files = [
            FileEntry(
                path=str(path.relative_to(self.folder)),
                bytes=path.stat().st_size,
                sha256=sha256_hex(path.read_bytes()),
            )
            for path in listed
        ]
        (self.folder / MANIFEST).write_bytes(manifest_bytes(self.archive.txn, START, files)[0])


def verified(folder: Path, anchors: Fingerprints | None) -> Verification:
    stores, faults = open_folder(folder)
    found = [Finding(key=fault.key, kind=FindingKind(fault.kind), what=fault.what) for fault in faults]
    return verify(stores.subject, EvidenceSource(stores=stores, faults=found), anchors, FakeClock())


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    archive, folder = original()
    return Copy(archive, Path(shutil.copytree(folder, tmp_path / "copy")))


def flip(path: Path, at: int = -1) -> None:
    """Change one byte, in the middle where nobody says otherwise."""
    body = bytearray(path.read_bytes())
    body[len(body) // 2 if at < 0 else at] ^= 1
    path.write_bytes(bytes(body))


def test_a_sound_copy_verifies_and_says_what_was_checked(copy: Copy) -> None:
    """A verifier that had looked at nothing would pass as well, so it must count."""
    found = copy.verify()
    assert found.findings == ()
    assert found.holds
    assert found.as_json() == {
        "subject": copy.archive.txn,
        "verified": True,
        "anchored_by": "file",
        "complete": True,
        "checked": {
            "hops": 5,
            "sessions": 2,
            "connections": 2,
            "operations": 6,
            "asks": 2,
            "answers": 2,
            "manifests": 2,
            "segments": 4,
            "frames": 20,
            "tokens_kept": 1,
            "tokens_opened": 0,
        },
        "findings": [],
    }


def test_keys_that_only_the_copy_vouches_for_are_no_success(copy: Copy) -> None:
    """Attack: everything is signed again with other keys, and those are put into the copy."""
    found = copy.verify(anchored=False)
    assert (found.holds, found.anchor, found.findings) == (False, Anchor.NOBODY, ())


def test_one_byte_and_one_segment_are_both_named(copy: Copy) -> None:
    """The demo's own question: one byte of a copied segment is changed, another segment is removed."""
    changed, removed = copy.archive.db.segments[0], copy.archive.orders.segments[1]
    flip(copy.path(changed))
    copy.path(removed).unlink()
    found = {finding.key: finding.kind for finding in copy.findings()}
    assert found[changed] is FindingKind.ALTERED
    assert found[removed] is FindingKind.MISSING


def _truncate(copy: Copy) -> str:
    key = copy.archive.orders.segments[1]
    copy.path(key).write_bytes(copy.path(key).read_bytes()[:-20])
    return key


def _reorder(copy: Copy) -> str:
    first, second = (copy.path(key) for key in copy.archive.orders.segments)
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    return copy.archive.orders.segments[0]


def _duplicate(copy: Copy) -> str:
    key = copy.archive.orders.segments[1]
    again = key.replace("000001", "000002")
    shutil.copy(copy.path(key), copy.path(again))
    return again


def _swap(copy: Copy) -> str:
    key = copy.archive.orders.segments[0]
    shutil.copy(copy.path(copy.archive.db.segments[0]), copy.path(key))
    return key


def _swap_manifests(copy: Copy) -> str:
    key = copy.archive.orders.manifest_key
    shutil.copy(copy.path(copy.archive.db.manifest_key), copy.path(key))
    return key


def _cut_manifest(copy: Copy) -> str:
    key = copy.archive.orders.manifest_key
    document = json.loads(copy.path(key).read_bytes())
    document["segments"].pop()
    copy.path(key).write_bytes(canonical(document))
    return key


def _other_manifest(copy: Copy) -> str:
    """Put a whole manifest, signed by the real broker, of another closing of the same connection."""
    archive, on = copy.archive, copy.archive.orders
    other = Archive()
    other.stores.keys = archive.stores.keys
    other.txn = archive.txn
    segments = other.stores.objects.rows
    other.stores.connections.rows[on.session_id, on.row.id] = replace(on.row, sealed_at=None)
    own = replace(on, manifest_key="")
    other.seal(own, ())
    copy.path(on.manifest_key).write_bytes(segments[own.manifest_key])
    return on.manifest_key


def _resign_hop(copy: Copy) -> str:
    """Change a hop and sign it with a key of one's own."""
    archive = copy.archive
    path = next(copy.folder.glob(f"chains/*/*{archive.deploy.id}.json"))
    hop = replace(from_document(Hop, path.read_text()), scope=("*",))
    path.write_text(to_document(sign_hop(Archive().stores.signer("token"), hop)))
    return archive.deploy.id


def _resign_answer(copy: Copy) -> str:
    path = next(copy.folder.glob("answers/*/*.json"))
    answer = from_document(Answer, path.read_text())
    path.write_text(to_document(sign_answer(Archive().stores.signer("answer"), answer)))
    return f"{answer.ask_id}#{answer.person}"


def _token_key_answers(copy: Copy) -> str:
    """Sign an answer with another purpose's key, which is a trusted one."""
    path = next(copy.folder.glob("answers/*/*.json"))
    answer = from_document(Answer, path.read_text())
    path.write_text(to_document(sign_answer(copy.archive.stores.signer("token"), answer)))
    return f"{answer.ask_id}#{answer.person}"


def _other_keys(copy: Copy) -> str:
    path = copy.folder / "keys/record.json"
    path.write_bytes(canonical({"keys": [dict(Archive().stores.signer("record").jwk())]}))
    return "keys/record.json"


def _remove_session(copy: Copy) -> str:
    """Remove a session with its connections and recordings; its target hop is left, since others hang in the chain."""
    session = copy.archive.db.session_id
    (copy.folder / f"sessions/{session}.json").unlink()
    shutil.rmtree(copy.folder / f"connections/{session}")
    shutil.rmtree(copy.folder / f"objects/rec/v1/{session}")
    shutil.rmtree(copy.folder / f"objects/manifests/v1/2026-11-02/{session}")
    return copy.archive.db.hop.id


def _remove_connection(copy: Copy) -> str:
    on = copy.archive.db
    (copy.folder / f"connections/{on.session_id}/{on.row.id}.json").unlink()
    return on.hop.id


def _alter_row(copy: Copy) -> str:
    on = copy.archive.orders
    path = copy.folder / f"connections/{on.session_id}/{on.row.id}.json"
    path.write_text(path.read_text().replace("10.0.3.17", "10.0.9.99"))
    return on.row.id


def _delete_answer(copy: Copy) -> str:
    session_id = copy.archive.orders.session_id
    ask_id = copy.archive.stores.sessions.rows[session_id].ask_id
    next(copy.folder.glob(f"answers/{ask_id}/*.json")).unlink()
    return session_id


def _flip(copy: Copy) -> str:
    flip(copy.path(copy.archive.db.segments[1]))
    return copy.archive.db.segments[1]


# What is done, and what the finding on the key that it returns must be: each with the copy's own list of files adapted,
# so that it is the signatures that speak.
TAMPERED: dict[str, tuple[Callable[[Copy], str], FindingKind]] = {
    "flip a byte of a segment": (_flip, FindingKind.ALTERED),
    "truncate a segment": (_truncate, FindingKind.TRUNCATED),
    "put segments in another order": (_reorder, FindingKind.ORDER),
    "duplicate a segment": (_duplicate, FindingKind.EXTRA),
    "swap a segment with another session's": (_swap, FindingKind.SWAPPED),
    "swap a manifest with another session's": (_swap_manifests, FindingKind.SWAPPED),
    "cut a manifest": (_cut_manifest, FindingKind.ALTERED),
    "replace a manifest by another that is signed": (_other_manifest, FindingKind.REPLACED),
    "sign a hop again with another key": (_resign_hop, FindingKind.OTHER_KEY),
    "sign an answer again with another key": (_resign_answer, FindingKind.OTHER_KEY),
    "sign an answer with another purpose's key": (_token_key_answers, FindingKind.OTHER_KEY),
    "put other keys in": (_other_keys, FindingKind.OTHER_KEY),
    "remove a whole session": (_remove_session, FindingKind.MISSING),
    "remove a connection's row": (_remove_connection, FindingKind.MISSING),
    "alter a connection's row": (_alter_row, FindingKind.ALTERED),
    "delete an answer": (_delete_answer, FindingKind.UNAPPROVED),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_each_tampering_is_named_by_its_key(name: str, copy: Copy) -> None:
    """Attack: a copy is tampered with by somebody who lists its files anew; an auditor must learn *what* it was."""
    tamper, kind = TAMPERED[name]
    key = tamper(copy)
    copy.adapt_manifest()
    found = copy.findings()
    assert kind in {finding.kind for finding in found if finding.key == key}, found


def test_resigning_everything_with_a_new_key_is_found_by_the_fingerprints(tmp_path: Path) -> None:
    """Attack: whoever keeps the archive makes a whole other one, sound under keys of their own."""
    forged = Archive()
    copy_evidence(forged.stores, forged.txn, FolderCopy(tmp_path / "copy"), forged.clock)
    found = verified(tmp_path / "copy", anchors_of(original()[0]))
    assert not found.holds
    named = {finding.key for finding in found.findings if finding.kind is FindingKind.OTHER_KEY}
    assert {"keys/token.json", "keys/answer.json", "keys/record.json", forged.orders.manifest_key} <= named
    assert verified(tmp_path / "copy", None).findings == (), "the copy itself holds: that is the attack"


def _files() -> list[str]:
    folder = original()[1]
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_single_changed_byte_in_any_file_is_a_finding(data: st.DataObject) -> None:
    """The copy's own list covers every byte, its own among them; nothing is irrelevant, not even a space."""
    archive, folder = original()
    path = data.draw(st.sampled_from(_files()))
    body = bytearray((folder / path).read_bytes())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    altered = Path(mkdtemp(prefix="countersign-flip-"))
    try:
        shutil.copytree(folder, altered / "copy")
        (altered / "copy" / path).write_bytes(bytes(body))
        found = verified(altered / "copy", anchors_of(archive)).findings
    finally:
        shutil.rmtree(altered)
    assert found, (path, at)
    if path.startswith("objects/"):
        assert path.removeprefix("objects/") in {finding.key for finding in found}


def _says(kind: type[Hop] | type[Answer], text: str) -> object:
    """Return what a row says that its signature covers, and the signature's bytes; None where it says nothing."""
    try:
        row = from_document(kind, text)
    except StoreUnavailable:
        return None
    try:
        signature = take_apart(row.signature)
    except ValueError:
        return None
    covered = row.hashed() if isinstance(row, Hop) else {**row.signed(), "card": row.card}
    return canonical(covered), signature.header, signature.payload


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_single_changed_byte_of_a_signed_row_is_a_finding_or_changes_nothing_that_is_said(
    data: st.DataObject,
) -> None:
    """With the list of files adapted only signatures speak. What they do not cover, and so may differ unseen: spaces
    between members, how JSON spells a character, digits below a millisecond, and the unused bits of base64's last
    character: in each case the row still says what was signed."""
    archive, folder = original()
    path = data.draw(st.sampled_from([path for path in _files() if path.startswith(("chains/", "answers/"))]))
    body = bytearray((folder / path).read_bytes())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] = data.draw(st.sampled_from(b'0123456789abcdefABCDEF "{}[],:.-_TZ\\\n\xff'))
    altered = Path(mkdtemp(prefix="countersign-flip-"))
    try:
        copied = Copy(archive, Path(shutil.copytree(folder, altered / "copy")))
        (copied.folder / path).write_bytes(bytes(body))
        copied.adapt_manifest()
        found = copied.findings()
    finally:
        shutil.rmtree(altered)
    if not found:
        kind = Hop if path.startswith("chains/") else Answer
        assert _says(kind, body.decode()) == _says(kind, (folder / path).read_text()), (path, at)


def test_a_subject_that_is_not_there_is_a_finding(copy: Copy) -> None:
    """Attack: the list of files names another subject, and nothing is left to be wrong with."""
    files: list[FileEntry] = []
    (copy.folder / MANIFEST).write_bytes(manifest_bytes("01m6dsg7e0pbvvkxmpvansh0q7", START, files)[0])
    assert FindingKind.MISSING in {finding.kind for finding in copy.findings()}


def test_a_session_alone_is_copied_with_the_hops_above_it(tmp_path: Path) -> None:
    """Evidence of one session shows nothing of its siblings, and verifies by itself."""
    archive = original()[0]
    _, sha256 = copy_evidence(archive.stores, archive.db.session_id, FolderCopy(tmp_path / "one"), archive.clock)
    found = verified(tmp_path / "one", anchors_of(archive))
    assert (found.holds, found.checked.sessions, found.checked.hops, len(sha256)) == (True, 1, 4, 64)
    text = b"".join(path.read_bytes() for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert archive.orders.session_id.encode() not in text


def test_no_copy_holds_a_verifier(copy: Copy) -> None:
    """A copy travels: what lets somebody try a session's secret stays where it is."""
    archive = copy.archive
    verifier = archive.stores.sessions.rows[archive.db.session_id].verifier
    assert verifier is not None
    text = b"".join(path.read_bytes() for path in copy.folder.rglob("*") if path.is_file())
    assert verifier.stored_key.encode() not in text
    assert verifier.salt.encode() not in text


def test_what_is_broken_is_copied_as_it_is(tmp_path: Path) -> None:
    """A copy that mended, or refused what does not hold, would hide it."""
    archive = Archive()
    archive.stores.objects.rows.pop(archive.db.segments[1])
    archive.change_answers(via="slack:x")
    review, _ = copy_evidence(archive.stores, archive.txn, FolderCopy(tmp_path / "copy"), archive.clock)
    found = verified(tmp_path / "copy", anchors_of(archive)).findings
    assert {(one.key, one.kind) for one in found} == {(one.key, one.kind) for one in review.findings}
    assert archive.db.segments[1] in {one.key for one in found}
