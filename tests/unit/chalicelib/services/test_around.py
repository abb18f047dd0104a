"""A whole copy: what no signature of its own covers is covered all the same, and each tampering is named."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

from chalicelib.domain.archived_item import item_of_line
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.copy_statement import parse_statement, stored_statement
from chalicelib.domain.digest import parse_digest
from chalicelib.identity.jws import sign_copy, sign_digest
from chalicelib.services.around import DeploymentAround
from chalicelib.services.verify import Anchor, EvidenceSource, verify
from chalicelib.store.archive_file import write_archive
from chalicelib.store.folder_files import MANIFEST, STATEMENT, WHOLE_VERSION, FileEntry, manifest_bytes
from tests.fakes.digested import HOUR_S, Digested
from tests.fakes.signer import MemorySigner
from tests.fakes.whole_copy import WholeCopy, surround


@lru_cache(1)
def original() -> WholeCopy:
    return WholeCopy(Path(mkdtemp(prefix="countersign-whole-")))


@pytest.fixture(scope="module", autouse=True)
def _swept() -> Iterator[None]:
    yield
    shutil.rmtree(original().folder.parent)
    original.cache_clear()


class Tampered:
    """A copy that may be tampered with, and packed anew."""

    def __init__(self, folder: Path) -> None:
        self.whole = original()
        self.archive = self.whole.digested.archive
        self.folder = Path(shutil.copytree(self.whole.folder, folder / "copy"))
        self._file = folder / "evidence.tar"

    def path(self, key: str) -> Path:
        return self.folder / "objects" / key

    def edit(self, pattern: str, change: Callable[[dict[str, Any]], object]) -> str:
        path = next(iter(sorted(self.folder.glob(pattern))))
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document, separators=(",", ":")))
        return path.stem

    def listed_anew(self, *, stated: bool = False) -> Tampered:
        """List the files anew, as whoever keeps a copy can; ``stated``: by somebody who had the service sign that."""
        listed = [path for path in self.folder.rglob("*") if path.is_file() and path.name not in (MANIFEST, STATEMENT)]
        files = [
            FileEntry(
                path=str(path.relative_to(self.folder)),
                bytes=path.stat().st_size,
                sha256=sha256_hex(path.read_bytes()),
            )
            for path in listed
        ]
        made = self.whole.digested.clock.now()
        body, sha256 = manifest_bytes(self.whole.subject, made, files, WHOLE_VERSION)
        (self.folder / MANIFEST).write_bytes(body)
        if stated:
            statement = self.whole.stated(sha256, len(files), sum(file.bytes for file in files))
            (self.folder / STATEMENT).write_bytes(stored_statement(statement))
        return self

    def named(self) -> dict[str, list[str]]:
        write_archive(self.folder, self._file)
        found: dict[str, list[str]] = {}
        for finding in self.whole.verify(self._file).findings:
            found.setdefault(finding.key, []).append(finding.kind.value)
        return found


@pytest.fixture
def copy(tmp_path: Path) -> Tampered:
    return Tampered(tmp_path)


def test_a_sound_archive_verifies_and_says_what_was_looked_at(copy: Tampered) -> None:
    """A verifier that had looked at nothing would pass as well, so it must count; the folder in it says the same."""
    for path in (copy.whole.archive, copy.whole.folder):
        found = copy.whole.verify(path)
        assert (found.findings, found.anchor, found.holds) == ((), Anchor.FILE, True)
        assert found.around is not None
        told = dict(found.around.as_json())
        statement = told.pop("statement")
        assert told == {
            "digests": 1,
            "rows_counted": 15,
            "rows_pending": 0,
            "boots": 1,
            "configurations": 1,
            "events": 6,
        }
        assert isinstance(statement, dict)
        assert (statement["subject"], statement["copied_by"]) == (copy.whole.subject, "https://idp.example.com#carol")


def test_one_copy_has_one_archive_byte_for_byte(tmp_path: Path) -> None:
    """Two people who copy the same folder hold the same file, so that one hash names it."""
    whole = original()
    again = tmp_path / "again.tar"
    write_archive(Path(shutil.copytree(whole.folder, tmp_path / "elsewhere")), again)
    assert again.read_bytes() == whole.archive.read_bytes()


# -- by whoever keeps a copy -----------------------------------------------------------------------------------------

Tamper = Callable[[Tampered], dict[str, str]]  # tampers, and returns what must be named, and as what


def flip_a_segment(on: Tampered) -> dict[str, str]:
    key = on.archive.db.segments[0]
    body = bytearray(on.path(key).read_bytes())
    body[30] ^= 1
    on.path(key).write_bytes(bytes(body))
    return {key: "altered"}


def truncate_a_segment(on: Tampered) -> dict[str, str]:
    key = on.archive.orders.segments[1]
    on.path(key).write_bytes(on.path(key).read_bytes()[:-20])
    return {key: "truncated"}


def reorder_two_segments(on: Tampered) -> dict[str, str]:
    one, other = on.archive.db.segments
    ours, theirs = on.path(one).read_bytes(), on.path(other).read_bytes()
    on.path(one).write_bytes(theirs)
    on.path(other).write_bytes(ours)
    return {one: "out_of_order", other: "out_of_order"}


def duplicate_a_segment(on: Tampered) -> dict[str, str]:
    twin = on.archive.db.segments[1].replace("000001", "000002")
    on.path(twin).write_bytes(on.path(on.archive.db.segments[1]).read_bytes())
    return {twin: "extra"}


def delete_a_segment(on: Tampered) -> dict[str, str]:
    key = on.archive.db.segments[1]
    on.path(key).unlink()
    return {key: "missing"}


def swap_segments_between_sessions(on: Tampered) -> dict[str, str]:
    one, other = on.archive.orders.segments[0], on.archive.db.segments[0]
    ours, theirs = on.path(one).read_bytes(), on.path(other).read_bytes()
    on.path(one).write_bytes(theirs)
    on.path(other).write_bytes(ours)
    return {one: "swapped", other: "swapped"}


def replace_a_manifest(on: Tampered) -> dict[str, str]:
    key = on.archive.db.manifest_key
    on.path(key).write_bytes(on.path(on.archive.orders.manifest_key).read_bytes())
    return {key: "swapped"}


def remove_a_whole_session(on: Tampered) -> dict[str, str]:
    """With its row, connection, recording, ask, answer, use, target hop and all that tells of them."""
    session, orders = on.archive.orders.session_id, on.archive.orders
    ask = json.loads((on.folder / f"sessions/{session}.json").read_text())["ask_id"]
    gone = [f"sessions/{session}.json", f"connections/{session}", f"objects/rec/v1/{session}", f"asks/{ask}.json"]
    gone += [f"answers/{ask}", f"uses/{ask}", f"objects/{orders.manifest_key}"]
    for path in gone:
        found = on.folder / path
        shutil.rmtree(found) if found.is_dir() else found.unlink()
    next(on.folder.glob(f"chains/*/*{orders.hop.id}.json")).unlink()
    for name in ("inclusions.ndjson", "events.ndjson"):
        lines = (on.folder / name).read_text().splitlines(keepends=True)
        ids = (session, ask, orders.row.id, orders.hop.id)
        (on.folder / name).write_text("".join(line for line in lines if not any(one in line for one in ids)))
    return {MANIFEST: "replaced"}


def drop_a_digest(on: Tampered) -> dict[str, str]:
    key = on.whole.digested.digests()[0]
    on.path(key).unlink()
    return {on.archive.db.session_id: "missing", on.archive.root.id: "missing"}


def drop_the_statement(on: Tampered) -> dict[str, str]:
    (on.folder / STATEMENT).unlink()
    return {STATEMENT: "missing"}


def sign_the_statement_with_another_key(on: Tampered) -> dict[str, str]:
    statement = parse_statement((on.folder / STATEMENT).read_bytes())
    forged = sign_copy(MemorySigner("another"), replace(statement, copied_by="https://idp.example.com#mallory"))
    (on.folder / STATEMENT).write_bytes(stored_statement(forged))
    return {STATEMENT: "other_key"}


def say_that_somebody_else_copied_it(on: Tampered) -> dict[str, str]:
    on.edit(STATEMENT, lambda said: said.update(copied_by="https://idp.example.com#mallory"))
    return {STATEMENT: "altered"}


def sign_a_digest_with_another_key(on: Tampered) -> dict[str, str]:
    key = on.whole.digested.digests()[0]
    forged = sign_digest(MemorySigner("another"), replace(parse_digest(on.path(key).read_bytes()), opened=()))
    on.path(key).write_bytes(forged.stored())
    return {key: "other_key"}


def change_the_configuration(on: Tampered) -> dict[str, str]:
    bundle = next(on.folder.glob("objects/bundles/v1/*.json"))
    bundle.write_text(bundle.read_text().replace("permit", "forbid"))
    return {f"bundles/v1/{bundle.name}": "altered"}


def drop_the_configuration(on: Tampered) -> dict[str, str]:
    next(on.folder.glob("activations/*.json")).unlink()
    return {"activations/00000001.json": "missing"}


def tell_of_an_operation_that_never_was(on: Tampered) -> dict[str, str]:
    path = on.folder / "events.ndjson"
    line = path.read_text().splitlines()[0]
    operation = json.loads(line)["operation_id"]
    path.write_text(path.read_text() + line.replace(operation, "op_never") + "\n")
    return {"op_never": "extra"}


def drop_the_events(on: Tampered) -> dict[str, str]:
    (on.folder / "events.ndjson").unlink()
    return {"events.ndjson": "missing"}


def tell_that_an_operation_was_blocked(on: Tampered) -> dict[str, str]:
    path = on.folder / "events.ndjson"
    lines = path.read_text().splitlines()
    number, told = next((n, json.loads(line)) for n, line in enumerate(lines) if '"operation.ran"' in line)
    lines[number] = json.dumps({**told, "name": "operation.refused", "verdict": "block"})
    path.write_text("\n".join(lines) + "\n")
    return {told["operation_id"]: "altered"}


def change_the_boots_end(on: Tampered) -> dict[str, str]:
    path = next(on.folder.glob("objects/boots/v1/*/*.json"))
    path.write_text(path.read_text().replace('"last":2', '"last":1'))
    return {str(path.relative_to(on.folder / "objects")): "altered"}


def change_an_inclusion(on: Tampered) -> dict[str, str]:
    """A row and the change that made it, edited alike: the path then leads to another root."""
    session = on.edit("sessions/*.json", lambda said: said["request"].update(reason="another"))
    path = on.folder / "inclusions.ndjson"
    lines = path.read_bytes().splitlines(keepends=True)
    for at, line in enumerate(lines):
        said = json.loads(line)
        change = item_of_line(said["line"].encode())
        assert change is not None
        if change.table == "sessions" and session in change.key:
            document = {**change.state.document()}
            document["request"] = {**document["request"], "reason": "another"}  # type: ignore[dict-item] # a row's own
            made = replace(change, state=replace(change.state, item=json.dumps(document, separators=(",", ":"))))
            lines[at] = canonical({**said, "line": made.line().decode()}) + b"\n"
    path.write_bytes(b"".join(lines))
    return {session: "missing", f"sessions {session}": "altered"}


TAMPERINGS = [
    flip_a_segment,
    truncate_a_segment,
    reorder_two_segments,
    duplicate_a_segment,
    delete_a_segment,
    swap_segments_between_sessions,
    replace_a_manifest,
    remove_a_whole_session,
    drop_a_digest,
    sign_a_digest_with_another_key,
    change_the_configuration,
    drop_the_configuration,
    drop_the_events,
    tell_of_an_operation_that_never_was,
    tell_that_an_operation_was_blocked,
    change_the_boots_end,
    change_an_inclusion,
]


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_the_tamper_table_of_an_archive(copy: Tampered, tamper: Tamper) -> None:
    """Attack: whoever keeps an archive changes it and lists its files anew. What was touched is named, and that the
    list is not the one that the service signed."""
    expected = tamper(copy)
    found = copy.listed_anew().named()
    for key, kind in {**expected, MANIFEST: "replaced"}.items():
        assert kind in found.get(key, []), found


@pytest.mark.parametrize("day", ["0001-01-01", "9999-12-31"])
def test_a_copy_of_another_time_makes_no_verification_without_end(copy: Tampered, day: str) -> None:
    """Attack: a copy with one digest of the year 1 or 9999, that says it was made then, and that nobody vouches for:
    who verifies it would look for every hour from there to here."""
    key = f"digests/v1/{day}/23.json"
    copy.path(key).parent.mkdir()
    copy.path(key).write_bytes(copy.path(copy.whole.digested.digests()[0]).read_bytes())
    copy.listed_anew()
    made = copy.folder / MANIFEST
    made.write_text(re.sub(r'"made_at":"[0-9-]+', f'"made_at":"{day}', made.read_text()))
    (copy.folder / STATEMENT).unlink()
    assert copy.named()[key] == ["extra"]


@pytest.mark.parametrize(
    "tamper", [drop_the_statement, sign_the_statement_with_another_key, say_that_somebody_else_copied_it]
)
def test_the_tamper_table_of_a_statement(copy: Tampered, tamper: Tamper) -> None:
    """Attack: an archive that nobody vouches for, or another than the one who made it."""
    expected = tamper(copy)
    assert copy.named() == {key: [kind] for key, kind in expected.items()}


def test_a_file_that_is_changed_without_a_new_list_is_named(copy: Tampered) -> None:
    """The list's own hashes find it before anything else does."""
    path = copy.folder / "README.txt"
    path.write_text(path.read_text().replace("Evidence", "evidence"))
    assert copy.named() == {"README.txt": ["altered"]}


# -- by whoever has the service sign what was tampered with ------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "change"),
    [
        ("sessions/*.json", lambda row: row["request"].update(reason="routine")),
        ("uses/*/*.json", lambda row: row.update(by="somebody else")),
        ("asks/*.json", lambda row: row.update(created_at="2026-11-02T09:30:00Z")),
        ("connections/*/*.json", lambda row: row.update(boot="boot-2")),
    ],
)
def test_what_no_signature_covers_is_covered_by_the_digest_that_counted_it(
    copy: Tampered, pattern: str, change: Callable[[dict[str, Any]], object]
) -> None:
    """Attack: an administrator edits a row in the table and then has a copy made and stated, as anybody may."""
    copy.edit(pattern, change)
    found = copy.listed_anew(stated=True).named()
    assert [kinds for kinds in found.values() if "altered" in kinds], found
    assert MANIFEST not in found


def test_a_young_copy_says_what_waits(tmp_path: Path) -> None:
    """An hour that is not over has no digest: that is no finding, and it is not passed over in silence either."""
    found = WholeCopy(tmp_path, young=True).verify()
    assert found.findings == ()
    assert found.around is not None
    assert (found.around.counted, found.around.pending) == (0, 15)


def test_a_session_alone_brings_the_digests_and_nothing_of_its_siblings(tmp_path: Path) -> None:
    """Attack: a copy of one session is a way to read the others."""
    whole = WholeCopy(tmp_path)
    archive = whole.digested.archive
    alone = tmp_path / "alone"
    alone.mkdir()
    whole.subject, other = archive.db.session_id, archive.orders
    whole.copy(alone / "copy")
    found = whole.verify(alone / "copy")
    assert found.findings == ()
    texts = [path.read_bytes() for path in (alone / "copy").rglob("*") if path.is_file() and "digests" not in str(path)]
    assert not any(other.session_id.encode() in text or b"DELETE FROM" in text for text in texts)


# -- online ------------------------------------------------------------------------------------------------------------


def online(on: Digested, subject: str) -> set[tuple[str, str]]:
    source = EvidenceSource(
        stores=on.stores, anchor=Anchor.AWS, around=DeploymentAround(on.stores, on.stores.connections)
    )
    return {(finding.key, finding.kind.value) for finding in verify(subject, source, None, on.clock).findings}


@pytest.fixture
def digested() -> Digested:
    on = Digested(young=True)
    surround(on)
    on.pump()
    on.clock.advance(HOUR_S + 700)
    on.digest()
    on.clock.advance(2 * HOUR_S)
    on.digest()
    return on


def test_a_session_is_verified_with_its_brokers_numbers_and_its_hours_digests(digested: Digested) -> None:
    """What its own signatures leave open: that a connection row was taken away beside it, that nothing counted it."""
    session = digested.archive.db.session_id
    assert online(digested, session) == set()
    digests, rows = digested.digests(), digested.stores.connections.rows
    orders = digested.archive.orders
    kept = rows.pop((orders.session_id, orders.row.id))
    assert online(digested, session) == {("boot-1", "missing")}
    rows[orders.session_id, orders.row.id] = kept
    digested.administrator.delete_object(digests[0])
    assert (digests[0], "missing") in online(digested, session)


def test_a_session_that_no_digest_counted_is_named(digested: Digested) -> None:
    """Attack: a session is put into the tables after the fact, past the streams, on a hop that a thief signed."""
    archive = digested.archive
    session = archive.grant(archive.root, "orders-prod", "app", "made up", rules=("pipeline-opens",))
    assert (session.id, "missing") not in online(digested, session.id), "its hour is not over"
    digested.clock.advance(3 * HOUR_S)
    digested.digest()
    assert (session.id, "missing") in online(digested, session.id)
