"""Two releases beside each other: what a former one left is read by today's code, and what a later one may add is left
alone or refused, never read as something else. The rule is ``docs/upgrades.md``.

``tests/vectors/vX.Y`` is made by the release that it is named for (``tests.vectors.make_release``).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import pytest

from chalicelib.domain.activation import Activation
from chalicelib.domain.archived_item import TABLE_KEYS, Change, state_of
from chalicelib.domain.ask import Answer, Ask, Use
from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.chain import HOP_VERSION, Hop
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.digest import parse_digest
from chalicelib.domain.errors import BadRequest, GrantRevoked, ProofInvalid, StoreUnavailable
from chalicelib.domain.kept_proof import read_kept
from chalicelib.domain.legal_hold import read_stored
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.row_change import change_fault
from chalicelib.domain.session import Session, SessionStatus
from chalicelib.identity.jws import sign_hop, verify_hop
from chalicelib.services.boots import boot_end_of
from chalicelib.services.event_objects import checked_row
from chalicelib.services.functions import answered, mint_handler
from chalicelib.services.operations import operations_of
from chalicelib.services.recordings import manifest_of
from chalicelib.services.stored_segments import unpacked
from chalicelib.store.documents import from_document, revised_document, to_document
from chalicelib.store.plain_documents import read_document
from chalicelib.store.sessions import SessionRow
from countersign.__main__ import main
from tests.fakes import samples
from tests.fakes.broker import MINT, World
from tests.fakes.memory import MemoryStores
from tests.fakes.waiting_clock import WaitingClock

VECTORS: Final = Path(__file__).parents[1] / "vectors"
RELEASES: Final = sorted(folder.name for folder in VECTORS.glob("v*") if folder.is_dir())
KINDS: Final[Mapping[str, type]] = {
    "chains": Hop,
    "sessions": Session,
    "connections": ConnectionRow,
    "asks": Ask,
    "answers": Answer,
    "uses": Use,
    "activations": Activation,
    "revocations": Revocation,
}
LATER: Final = "added_by_a_later_release"
every_release = pytest.mark.parametrize("release", RELEASES)


@cache
def left(release: str, name: str) -> Any:
    return json.loads((VECTORS / release / name).read_text(encoding="utf-8"))


@cache
def bucket(release: str) -> Mapping[str, bytes]:
    with zipfile.ZipFile(VECTORS / release / "bucket.zip") as kept:
        return {name: kept.read(name) for name in kept.namelist()}


def under(release: str, prefix: str) -> bytes:
    """Return the first object with that prefix."""
    return next(body for key, body in bucket(release).items() if key.startswith(prefix))


def rows(release: str) -> Iterator[tuple[type, str]]:
    for table, documents in left(release, "rows.json").items():
        for text in documents:
            yield KINDS[table], text


def with_members(value: Any) -> Any:
    """Return ``value`` with a member more in every object of it."""
    if isinstance(value, dict):
        return {name: with_members(part) for name, part in value.items()} | {LATER: {"x": [1, "y"]}}
    return [with_members(part) for part in value] if isinstance(value, list) else value


def test_there_is_a_release_to_compare_with() -> None:
    """Without one every test here passes."""
    assert RELEASES
    assert all(set(left(release, "rows.json")) == set(KINDS) for release in RELEASES)


@every_release
def test_the_bucket_of_a_former_release_verifies(release: str, tmp_path: Path) -> None:
    """Evidence is kept for years: hops, rows, recordings, digests, answers, events, holds of then, with the keys and
    the fingerprints that auditors were given then."""
    for key, body in bucket(release).items():
        path = tmp_path / "bucket" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    known = ("--keys", str(VECTORS / release / "keys.json"), "--trust", str(VECTORS / release / "trust.txt"))
    out, err = io.StringIO(), io.StringIO()
    now = datetime.fromisoformat(left(release, "now.json")["now"])
    given = ["verify", str(tmp_path / "bucket"), "--all", *known, "--json"]
    code = main(given, {}, out=out, err=err, clock=WaitingClock(now))
    told = json.loads(out.getvalue())
    assert (code, told["findings"]) == (0, []), err.getvalue()
    assert all(told["checked"][name] for name in ("chains", "hops", "frames", "answers", "digests"))


@every_release
def test_every_row_of_a_former_release_is_read_and_says_the_same(release: str) -> None:
    """Tables outlive releases: a field without a default in today's shape makes every row of before unreadable."""
    for kind, text in rows(release):
        found: Any = from_document(kind, text)
        assert read_document(kind, text) == found
        again = json.loads(to_document(found))
        assert {name: again[name] for name in json.loads(text)} == json.loads(text)
        if isinstance(found, Ask):
            assert found.question.digest() == found.digest, "answers of before are to this digest"


@every_release
def test_what_a_later_release_adds_to_a_row_is_left_alone(release: str) -> None:
    """Brokers are replaced for hours: the old one reads what the new control plane writes meanwhile, and the other way
    round."""
    for kind, text in rows(release):
        more = json.dumps(with_members(json.loads(text)))
        assert from_document(kind, more) == read_document(kind, more) == from_document(kind, text)


@every_release
def test_an_attribute_beside_the_document_is_left_alone(release: str) -> None:
    """A later release's index has an attribute of its own on each row."""
    text = left(release, "rows.json")["sessions"][0]
    session = from_document(Session, text)
    raw: dict[str, Any] = {
        "id": {"S": session.id},
        "txn": {"S": session.txn},
        "day": {"S": "2026-11-02"},
        "doc": {"S": text},
    }
    row = SessionRow()
    row.deserialize({**raw, "revision": {"N": "0"}, LATER: {"S": "x"}})
    assert from_document(Session, row.doc) == session


@pytest.mark.parametrize(
    ("kind", "member", "word"),
    [(Session, "status", "suspended"), (Hop, "kind", "observer"), (Use, "kind", "postponed")],
    ids=["session", "hop", "use"],
)
def test_a_word_of_a_later_release_is_refused(kind: type, member: str, word: str) -> None:
    """What it means is not known here, and it may be the one that says no: fail closed."""
    table = next(table for table, found in KINDS.items() if found is kind)
    text = json.dumps(json.loads(left(RELEASES[-1], "rows.json")[table][0]) | {member: word})
    for read in (from_document, read_document):
        with pytest.raises(StoreUnavailable):
            read(kind, text)


def test_a_hop_that_hashes_more_than_we_know_is_refused() -> None:
    """A later version of a hop says more than we read: with its signature over that, ours does not hold, and the chain
    is refused and not cut down to what we understand."""

    class LaterHop(Hop):
        def hashed(self) -> Mapping[str, Json]:
            return {**Hop.hashed(self), "limits": ["read only"]}

    stores = MemoryStores()
    fields = {name: getattr(samples.origin(), name) for name in Hop.__dataclass_fields__}
    later = sign_hop(stores.signer("token"), LaterHop(**(fields | {"version": HOP_VERSION + 1})))
    verify_hop(later, stores.keys)
    read = from_document(Hop, json.dumps(json.loads(to_document(Hop(**_fields(later)))) | {"limits": ["read only"]}))
    assert read.version == HOP_VERSION + 1
    with pytest.raises(ProofInvalid):
        verify_hop(read, stores.keys)


def _fields(hop: Hop) -> dict[str, Any]:
    return {name: getattr(hop, name) for name in Hop.__dataclass_fields__}


SIGNED: Final[Mapping[str, Callable[[bytes], object]]] = {
    "manifests/": manifest_of,
    "digests/": parse_digest,
    "boots/": boot_end_of,
    "kept/": read_kept,
}


@every_release
@pytest.mark.parametrize("prefix", SIGNED)
def test_a_signed_object_with_a_member_more_is_refused(release: str, prefix: str) -> None:
    """Signatures cover what a version has; what they do not cover anybody may have written. A later release that has
    more to say gives the object a later version, and this one says that it cannot read it."""
    body = under(release, prefix)
    SIGNED[prefix](body)
    for changed in ({LATER: "x"}, {"v": 99}):
        with pytest.raises(ProofInvalid):
            SIGNED[prefix](canonical(json.loads(body) | changed))


@every_release
def test_a_hold_of_a_later_version_is_no_hold_that_we_misread(release: str) -> None:
    """What is held must not be deleted since an older function took its hold for another one."""
    body = under(release, "holds/")
    assert read_stored(canonical(json.loads(body) | {LATER: "x"})) == read_stored(body)
    with pytest.raises(ProofInvalid, match="version"):
        read_stored(canonical(json.loads(body) | {"v": 2}))


@every_release
def test_a_row_of_another_release_is_changed_in_what_was_to_be_changed_alone(release: str) -> None:
    """A session that one release made and the other closes: a member that is lost on the way, or that comes in with its
    default, is a change of evidence which nobody made, and an alarm at night."""
    now = datetime.fromisoformat(left(release, "now.json")["now"])
    for text in left(release, "rows.json")["sessions"]:
        for written in (text, _without(text, "epoch"), json.dumps(with_members(json.loads(text)))):
            session = from_document(Session, written)
            if session.status is not SessionStatus.CLOSED:
                after = replace(session, status=SessionStatus.CLOSED, closed_at=now, close_reason="done")
                assert _fault("sessions", written, revised_document(written, session, after)) == ""
    for text in left(release, "rows.json")["connections"]:
        open_row = json.dumps(with_members(json.loads(text) | {"sealed_at": None, "exit": ""}))
        row = from_document(ConnectionRow, open_row)
        sealed = revised_document(open_row, row, replace(row, sealed_at=now + timedelta(seconds=1), exit="client"))
        assert _fault("connections", open_row, sealed) == ""
        assert json.loads(sealed)[LATER] == {"x": [1, "y"]}


def _without(text: str, member: str) -> str:
    return json.dumps({name: value for name, value in json.loads(text).items() if name != member})


def _fault(table: str, before: str, after: str) -> str:
    keys: dict[str, Json] = dict.fromkeys(TABLE_KEYS[table], "x")
    states = []
    for revision, text in ((0, before), (1, after)):
        image = {name: {"S": "x"} for name in keys} | {"doc": {"S": text}, "revision": {"N": str(revision)}}
        state = state_of(table, TABLE_KEYS[table], image)
        assert state is not None
        states.append(state)
    return change_fault(table, keys, Change.MODIFY, *states)


def test_a_changed_row_with_what_no_release_wrote_is_refused() -> None:
    """NaN is no JSON, and one of two readers takes it: a row is not written back with it."""
    session = samples.session()
    text = to_document(session)[:-1] + f',"{LATER}":NaN}}'
    with pytest.raises(StoreUnavailable):
        revised_document(text, session, replace(session, close_reason="x"))


@every_release
def test_frames_of_a_kind_that_a_later_broker_records_are_passed_over(release: str) -> None:
    """A review by the older command line shows the operations that it knows, and takes nothing else for one."""
    row = next(from_document(ConnectionRow, text) for text in left(release, "rows.json")["connections"])
    raw, _ = unpacked(under(release, f"rec/v1/{row.session_id}/{row.id}/000000"))
    frames = [json.loads(line) for line in raw.splitlines()[1:]]
    more = [frame | {LATER: "x"} for frame in frames]
    strange = {**frames[0], "kind": "hologram", "meta": '{"op":"op_1"}'}
    assert operations_of(row, [strange, *more], recorded=True) == operations_of(row, frames, recorded=True)


@every_release
def test_events_of_a_former_release_are_still_events(release: str) -> None:
    """Columns are only ever added: a query over years reads both."""
    raw, _ = unpacked(under(release, "events/"))
    for line in raw.splitlines():
        checked_row(json.loads(line))
        with pytest.raises(BadRequest, match="no column"):  # so a column is in the schema before anything writes it
            checked_row(json.loads(line) | {LATER: "x"})


@every_release
def test_the_former_brokers_requests_are_understood_by_mint(release: str) -> None:
    """An old broker asks the new function, and a new broker the old one, which does not know what else it says."""
    asked: list[tuple[str, str, str]] = []

    def mint(session_id: str, connection_id: str, public_key: str) -> object:
        asked.append((session_id, connection_id, public_key))
        raise GrantRevoked("the session was revoked", session=session_id)

    told = left(release, "mint.json")
    handler: Any = mint_handler(mint)  # type: ignore[arg-type]  # it asks for no more than to be called
    for request in told["requests"]:
        for sent in (request, with_members(request)):
            refused: Any = answered(handler, sent)["refused"]
            assert refused["code"] == told["refused"]["code"]
            expected = (request["session_id"], request["connection_id"], request.get("public_key", ""))
            assert asked.pop() == expected


def _said(answer: Mapping[str, Json], _payload: Mapping[str, Json]) -> Mapping[str, Json]:
    return answer


@every_release
def test_the_former_mints_answers_are_understood_by_the_broker(release: str) -> None:
    """The same, the other way round."""
    for answer in left(release, "mint.json")["answers"]:
        for said in (answer, with_members(answer), {name: text for name, text in answer.items() if text}):
            world = World()
            world.stores.functions.register(MINT, partial(_said, said))
            credential = world.connect().credential
            assert (credential.kind, credential.login) == (answer["kind"], answer["login"])
            assert (credential.secret.expose(), credential.certificate) == (answer["secret"], answer["certificate"])
