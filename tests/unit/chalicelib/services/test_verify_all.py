"""The tamper table over a whole archive: what is altered, removed, moved, made up or left out is named by its key."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.domain.archived_item import items_of
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.connection import BootEnd, boot_end_key
from chalicelib.domain.digest import parse_digest
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.recording import FrameKind, manifest_key
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import SessionStatus
from chalicelib.domain.verifier import verifier_of
from chalicelib.identity.jws import sign_boot_end, sign_digest, sign_manifest
from chalicelib.services.anchors import fingerprints
from chalicelib.services.recordings import manifest_of
from chalicelib.services.verify import Anchor
from tests.fakes import samples
from tests.fakes.digested import HOUR_S, Digested, signed_activation
from tests.fakes.signer import MemorySigner


@pytest.fixture
def digested() -> Digested:
    return Digested()


def first_ask(on: Digested) -> str:
    return min(on.archive.stores.asks.rows)


def flip(body: bytes, at: int = -1) -> bytes:
    changed = bytearray(body)
    changed[len(changed) // 2 if at < 0 else at] ^= 1
    return bytes(changed)


def body(on: Digested, key: str) -> bytes:
    return on.stores.objects.get(key)


def test_a_sound_archive_verifies_and_says_what_was_checked(digested: Digested) -> None:
    """A verifier that had looked at nothing would pass as well, so it must count."""
    found = digested.verify(copies=True)
    assert (found.holds, found.findings, found.pending, found.open) == (True, (), 0, 0)
    assert found.as_json()["checked"] == {
        "digests": 2,
        "objects": 6,
        "changes": 15,
        "rows": 15,
        "events": 0,
        "chains": 1,
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
    }
    head = digested.digests()[-1]
    assert (found.head, found.head_sha256) == (head, sha256_hex(body(digested, head)))


# -- objects ---------------------------------------------------------------------------------------------------------

Tamper = Callable[[Digested], dict[str, str]]  # tampers, and returns what must be named, and as what


def flip_an_archived_change(on: Digested) -> dict[str, str]:
    key = on.items("sessions")[0]
    raw = gzip.decompress(body(on, key)).replace(b"deploy 7", b"deploy 8")
    on.administrator.put_object(key, gzip.compress(raw, mtime=0))
    return {key: "altered"}


def truncate_an_archived_object(on: Digested) -> dict[str, str]:
    key = on.items("chains")[0]
    on.administrator.put_object(key, body(on, key)[:-20])
    return {key: "truncated"}


def reorder_two_archived_objects(on: Digested) -> dict[str, str]:
    one, other = on.items("asks")[0], on.items("answers")[0]
    ours, theirs = body(on, one), body(on, other)
    on.administrator.put_object(one, theirs)
    on.administrator.put_object(other, ours)
    return {one: "altered", other: "altered"}


def reorder_changes_in_an_object(on: Digested) -> dict[str, str]:
    key = on.items("chains")[0]
    lines = gzip.decompress(body(on, key)).splitlines(keepends=True)
    on.administrator.put_object(key, gzip.compress(b"".join(reversed(lines)), mtime=0))
    return {key: "altered"}


def duplicate_an_archived_object(on: Digested) -> dict[str, str]:
    key = on.items("uses")[0]
    twin = key.replace(key.rpartition("/")[2], "0" * 26 + ".ndjson.gz")
    on.administrator.put_object(twin, body(on, key))
    return {twin: "out_of_order"}


def delete_an_archived_object(on: Digested) -> dict[str, str]:
    key = on.items("answers")[0]
    on.administrator.delete_object(key)
    return {key: "missing"}


def make_up_an_archived_object(on: Digested) -> dict[str, str]:
    """Of an hour that is long digested: whoever could put under items/ would add what never happened."""
    on.clock.advance(4 * 24 * HOUR_S)
    on.digest()
    change = items_of(body(on, on.items("uses")[0]))[0][0]
    made_up = replace(change, sequence="9", key=change.key.replace('"n":1', '"n":2'))
    key = on.items("uses")[0][:-37] + "01k00000000000000000000000.ndjson.gz"
    on.administrator.put_object(key, gzip.compress(made_up.line(), mtime=0))
    return {key: "extra"}


def flip_a_segment(on: Digested) -> dict[str, str]:
    key = on.archive.db.segments[0]
    on.administrator.put_object(key, flip(body(on, key), 30))
    return {key: "altered"}


def swap_segments_between_sessions(on: Digested) -> dict[str, str]:
    one, other = on.archive.orders.segments[0], on.archive.db.segments[0]
    ours, theirs = body(on, one), body(on, other)
    on.administrator.put_object(one, theirs)
    on.administrator.put_object(other, ours)
    return {one: "missing", other: "swapped"}


def replace_a_manifest(on: Digested) -> dict[str, str]:
    """By another one that the broker's own key signed."""
    key = on.archive.db.manifest_key
    manifest = replace(manifest_of(body(on, key)), exit="error")
    signed = sign_manifest(on.stores.signer("record"), manifest)
    on.administrator.put_object(key, canonical({**signed.signed(), "signature": signed.signature}))
    return {key: "replaced"}


def resign_a_manifest_with_another_key(on: Digested) -> dict[str, str]:
    key = on.archive.db.manifest_key
    signed = sign_manifest(MemorySigner("record-key-1"), manifest_of(body(on, key)))
    on.administrator.put_object(key, canonical({**signed.signed(), "signature": signed.signature}))
    return {key: "other_key"}


def put_a_manifest_that_no_row_names(on: Digested) -> dict[str, str]:
    stranger = samples.connection_row()
    key = manifest_key(stranger.session_id, stranger.id, on.archive.clock.now())
    on.administrator.put_object(key, body(on, on.archive.db.manifest_key))
    return {key: "extra"}


def delete_a_manifest(on: Digested) -> dict[str, str]:
    on.administrator.delete_object(on.archive.db.manifest_key)
    return {on.archive.db.manifest_key: "missing"}


def record_what_nobody_asked_for(on: Digested) -> dict[str, str]:
    stranger = samples.session()
    on.administrator.put_object(f"rec/v1/{stranger.id}/con_1/000000.ndjson.gz", b"")
    return {stranger.id: "extra"}


@pytest.mark.parametrize(
    "tamper",
    [
        flip_an_archived_change,
        truncate_an_archived_object,
        reorder_two_archived_objects,
        reorder_changes_in_an_object,
        duplicate_an_archived_object,
        delete_an_archived_object,
        make_up_an_archived_object,
        flip_a_segment,
        replace_a_manifest,
        resign_a_manifest_with_another_key,
        put_a_manifest_that_no_row_names,
        delete_a_manifest,
        record_what_nobody_asked_for,
    ],
)
def test_each_tampering_with_an_object_is_named(digested: Digested, tamper: Tamper) -> None:
    """Flip, truncate, reorder, duplicate, delete, replace, re-sign, make up: by the key of what was tampered with."""
    for key, kind in tamper(digested).items():
        named = digested.named()
        assert kind in named.get(key, []), named


def test_segments_that_were_swapped_between_sessions_are_both_named(digested: Digested) -> None:
    """Each hashes to what its own manifest says, in the other's place."""
    expected = swap_segments_between_sessions(digested)
    assert set(expected) <= set(digested.named())


@pytest.mark.parametrize("told", [True, False], ids=["streamed", "past the stream"])
def test_a_manifest_that_was_replaced_with_its_row_is_named(digested: Digested, *, told: bool) -> None:
    """Signed by the broker's own key, and the row says its hash: only the digest still knows the other one."""
    on = digested.archive.db
    replace_a_manifest(digested)
    sha256 = manifest_of(body(digested, on.manifest_key)).sha256()
    key = {"session": on.row.session_id, "id": on.row.id}
    digested.administrator.edit_row("connections", key, lambda doc: doc.update(manifest_sha256=sha256, exit="error"))
    named = digested.named(told=told)
    assert "altered" in named[on.row.id]
    assert "replaced" in named[on.manifest_key]


# -- rows ------------------------------------------------------------------------------------------------------------


def edit_a_session(on: Digested) -> str:
    session = on.archive.orders.session_id
    on.administrator.edit_row("sessions", {"id": session}, lambda doc: doc["request"].update(reason="other"))
    return session


def remove_a_verifier(on: Digested) -> str:
    """No re-issue leaves a session without one."""
    session = on.archive.orders.session_id
    on.administrator.edit_row("sessions", {"id": session}, lambda doc: doc.update(verifier=None))
    return session


def delete_an_answer(on: Digested) -> str:
    ask = first_ask(on)
    on.administrator.delete_row("answers", {"ask": ask, "person": "alice"})
    return f"{ask}#alice"


def edit_a_use(on: Digested) -> str:
    ask = first_ask(on)
    on.administrator.edit_row("uses", {"ask": ask, "n": 1}, lambda doc: doc.update(by="session:another"))
    return f"{ask}#1"


def edit_a_sealed_connection(on: Digested) -> str:
    row = on.archive.db.row
    key = {"session": row.session_id, "id": row.id}
    on.administrator.edit_row("connections", key, lambda doc: doc.update(peer="10.9.9.9"))
    return row.id


def delete_a_hop(on: Digested) -> str:
    hop = on.archive.deploy
    on.administrator.delete_row("chains", {"txn": hop.txn, "place": f"{hop.depth:02d}#{hop.id}"})
    return hop.id


ROWS = [edit_a_session, remove_a_verifier, delete_an_answer, edit_a_use, edit_a_sealed_connection, delete_a_hop]


@pytest.mark.parametrize("told", [True, False], ids=["streamed", "past the stream"])
@pytest.mark.parametrize("tamper", ROWS)
def test_a_row_that_an_administrator_touched_is_named(
    digested: Digested, tamper: Callable[[Digested], str], *, told: bool
) -> None:
    """Whether the stream told of it, so that the archive has what may not be, or somebody stopped the stream first."""
    name = tamper(digested)
    named = digested.named(told=told)
    assert {"altered", "missing"} & set(named.get(name, [])), named


def test_a_verifier_that_was_replaced_past_the_stream_is_named(digested: Digested) -> None:
    """Whoever knows the secret of a new verifier is the pipeline; the archive knows the old one by its hash alone."""
    session = digested.archive.orders.session_id
    rows = digested.stores.sessions.rows
    rows[session] = replace(rows[session], verifier=verifier_of(Secret("another")))
    findings = digested.findings(told=False)
    assert [(one.key, one.kind.value) for one in findings] == [(session, "altered")]
    assert "verifier_sha256" in findings[0].what


def test_a_change_that_may_not_be_is_an_alarm_at_once(digested: Digested) -> None:
    """Nobody has to run a verification to hear of it."""
    edit_a_session(digested)
    delete_an_answer(digested)
    digested.pump()
    alarms = [(event.subject, event.code) for event in digested.audit.events if event.name.value == "row.tampered"]
    assert alarms == [
        (f"answers {first_ask(digested)}/alice", "remove"),
        (f"sessions {digested.archive.orders.session_id}", "modify"),
    ] or alarms == [
        (f"sessions {digested.archive.orders.session_id}", "modify"),
        (f"answers {first_ask(digested)}/alice", "remove"),
    ]


@pytest.mark.parametrize("told", [True, False], ids=["streamed", "past the stream"])
def test_a_whole_session_that_was_removed_with_its_hops_and_rows_is_found(digested: Digested, *, told: bool) -> None:
    """What no signature can show: there is nothing left in the tables and among the recordings that names it."""
    on = digested.archive.db
    row, admin = on.row, digested.administrator
    for key in (*on.segments, on.manifest_key):
        admin.delete_object(key)
    admin.delete_row("connections", {"session": row.session_id, "id": row.id})
    admin.delete_row("sessions", {"id": row.session_id})
    for hop in (on.hop, digested.archive.tool):
        admin.delete_row("chains", {"txn": hop.txn, "place": f"{hop.depth:02d}#{hop.id}"})
    named = digested.named(told=told)
    gone = (row.session_id, row.id, on.hop.id, digested.archive.tool.id, on.manifest_key)
    assert all("missing" in named.get(name, []) for name in gone), named
    assert digested.named(told=told, since=digested.clock.now() - timedelta(hours=6)).keys() >= set(gone)


def test_a_row_that_was_never_archived_is_named(digested: Digested) -> None:
    """Somebody stopped the streams and put a session of their own."""
    stranger = samples.session(digested.archive.root)
    digested.stores.sessions.rows[stranger.id] = stranger
    assert "extra" in digested.named(told=False)[stranger.id]


def test_a_connection_that_was_never_made_shows_by_its_number() -> None:
    """Its credential was minted, and the broker's next row says that one is missing."""
    digested = Digested(young=True)
    archive = digested.archive
    session = archive.grant(archive.root, "orders-prod", "app", "again", rules=("pipeline-opens",))
    archive.rows += 1
    on = archive.connect(session, archive.root, "postgres")
    archive.frame(on, FrameKind.CLOSE, exit="client")
    archive.store(on)
    digested.stores.once.claim(
        "mint", "con_unknown", "", expires_at=archive.clock.now() + timedelta(hours=1), now=archive.clock.now()
    )
    digested.pump()
    named = digested.named()
    assert named["boot boot-1"] == ["missing"]
    assert named["con_unknown"] == ["missing"]


def test_a_boots_signed_end_counts_the_rows_after_the_last(digested: Digested) -> None:
    """The last connection of a broker has no next row that would name it: the broker's own last number does."""
    row = digested.archive.db.row
    end = BootEnd(boot=row.boot, last=row.number + 1, last_sha256="ab" * 32, closed_at=digested.clock.now())
    signed = sign_boot_end(digested.stores.signer("record"), end)
    key = boot_end_key(row.boot, end.closed_at)
    digested.stores.objects.rows[key] = canonical({**signed.signed(), "signature": signed.signature})
    assert digested.named() == {row.boot: ["missing"]}


def test_a_change_on_its_way_is_no_finding(digested: Digested) -> None:
    """A live service changes rows while an auditor looks: what the stream is about to tell is waited for."""
    session = digested.archive.orders.session_id
    digested.stores.sessions.close(session, "done", digested.clock.now())
    found = digested.verify()
    assert (found.findings, found.pending) == ((), 1)
    digested.clock.advance(HOUR_S)
    digested.digest()
    assert (digested.verify().findings, digested.verify().pending) == ((), 0)


def test_a_connection_that_runs_is_no_finding_until_its_grant_has_ended() -> None:
    """`verify --all` on a service in use must not cry, and must on what a dead broker left."""
    digested = Digested(young=True)
    archive = digested.archive
    session = archive.grant(archive.root, "orders-prod", "app", "again", rules=("pipeline-opens",))
    on = archive.connect(session, archive.root, "postgres")
    digested.pump()
    found = digested.verify()
    assert (found.findings, found.open) == ((), 1)
    digested.clock.advance(HOUR_S)
    digested.digest()
    assert digested.named() == {on.row.id: ["unsealed"]}


# -- digests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_digest_that_was_removed_is_named(digested: Digested, at: int) -> None:
    """The first, one in the middle, and the last: the hour after it names it, or the clock misses it."""
    digested.clock.advance(HOUR_S)
    digested.digest()
    key = digested.digests()[at]
    digested.administrator.delete_object(key)
    digested.clock.advance(HOUR_S)
    assert digested.named() == {key: ["missing"]}


def test_all_digests_removed_is_named(digested: Digested) -> None:
    """An archive without digests must not look like a young one."""
    for key in digested.digests():
        digested.administrator.delete_object(key)
    digested.clock.advance(HOUR_S)
    assert "missing" in digested.named()["digests/v1/"]
    assert set(digested.named(copies=True)) == {"digests/v1/2026-11-02/09.json", "digests/v1/2026-11-02/10.json"}


def test_the_hours_before_a_deployment_began_have_no_digest() -> None:
    """``verify --since TODAY`` on the first day: midnight is before anything was, and that is no false alarm."""
    young = Digested(young=True)
    midnight = young.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    assert "digests/v1/" not in young.named(since=midnight)
    young.clock.advance(3 * HOUR_S)
    assert "missing" in young.named(since=midnight)["digests/v1/"]


def test_a_digest_that_was_altered_or_signed_by_another_is_named(digested: Digested) -> None:
    """A count that was lowered; and the same, signed with a key that is not the digest key."""
    key = digested.digests()[0]
    stored = body(digested, key)
    digested.administrator.put_object(key, stored.replace(b'"count":5', b'"count":4'))
    assert set(digested.named()) == {key}
    forged = replace(parse_digest(stored), opened=())
    digested.administrator.put_object(key, sign_digest(MemorySigner("digest-key-1"), forged).stored())
    assert digested.named()[key][0] == "other_key"


def test_a_digest_that_its_own_key_signed_anew_is_named_by_the_next_and_by_the_second_bucket(
    digested: Digested,
) -> None:
    """Whoever takes over the function can sign; the hash in the next digest, and another account, it cannot change."""
    first, last = digested.digests()
    for key in (first, last):
        stored = body(digested, key)
        forged = replace(parse_digest(stored), opened=(), signature="")
        digested.administrator.put_object(key, sign_digest(digested.stores.signer("digest"), forged).stored())
    assert "replaced" in digested.named()[first]
    assert "replaced" in digested.named(copies=True)[last]


def test_the_hash_that_somebody_kept_shows_what_whoever_has_every_key_rewrote(digested: Digested) -> None:
    """Attack: our keys and both buckets in one hand, and every digest made anew. A line in an auditor's notebook, of an
    earlier `verify --all`, is what that hand does not reach; it holds when there are newer digests too."""
    kept = digested.verify().head_sha256
    digested.clock.advance(HOUR_S)
    digested.digest()
    assert digested.named(head=kept, copies=True) == {}
    previous = ""
    for key in digested.digests():
        forged = replace(parse_digest(body(digested, key)), opened=(), previous_sha256=previous, signature="")
        stored = sign_digest(digested.stores.signer("digest"), forged).stored()
        for bucket in (digested.stores.objects, digested.stores.digest_copies):
            bucket.rows[key] = stored
        previous = sha256_hex(stored)
    assert "digests/v1/" not in digested.named(copies=True)
    assert digested.named(head=kept, copies=True)["digests/v1/"] == ["replaced"]


def test_a_digest_that_counts_wrongly_is_named(digested: Digested) -> None:
    """Signed by the right key and linked: what it says must still follow from what it lists."""
    key = digested.digests()[-1]
    forged = replace(parse_digest(body(digested, key)), sealed=("ses_x/con_x",), signature="")
    digested.administrator.put_object(key, sign_digest(digested.stores.signer("digest"), forged).stored())
    assert digested.named() == {key: ["altered"]}


def test_digests_that_changed_places_are_named(digested: Digested) -> None:
    """Each verifies, and is of another hour."""
    first, last = digested.digests()
    ours, theirs = body(digested, first), body(digested, last)
    digested.administrator.put_object(first, theirs)
    digested.administrator.put_object(last, ours)
    named = digested.named()
    assert "out_of_order" in named[first]
    assert "out_of_order" in named[last]


def test_what_lies_among_the_digests_and_is_none_is_named(digested: Digested) -> None:
    """A name beside the hours could be taken for one by somebody else's reader."""
    digested.administrator.put_object("digests/v1/2026-11-02/09.json.old", b"")
    assert digested.named() == {"digests/v1/2026-11-02/09.json.old": ["extra"]}


def test_a_copy_that_is_missing_is_named(digested: Digested) -> None:
    """Nobody notices by themselves that the second account gets nothing any more."""
    key = digested.digests()[0]
    digested.administrator.delete_object(key, copies=True)
    assert digested.named(copies=True) == {key: ["missing"]}
    assert digested.named() == {}


# -- who vouches, and what cannot be read ----------------------------------------------------------------------------


def test_fingerprints_of_other_keys_vouch_for_nothing(digested: Digested) -> None:
    """The auditor's own list decides whose digests these are."""
    known = fingerprints(Digested().stores.keys)

    class Listed:
        def holds(self, purpose: str, thumbprint: str) -> bool:
            return thumbprint in known.get(purpose, ())

    found = digested.verify(anchors=Listed())
    assert found.anchor is Anchor.FILE
    assert {"keys/digest.json", *digested.digests()} <= {finding.key for finding in found.findings}


@pytest.mark.parametrize("store", ["objects", "chains"])
def test_an_outage_is_no_verdict(digested: Digested, store: str) -> None:
    """An archive that could not be read must not pass for one that holds, nor for one that does not."""
    digested.stores.fail(store)
    with pytest.raises(StoreUnavailable):
        digested.verify()


def test_since_looks_at_that_period_alone_and_links_it_to_the_hour_before(digested: Digested) -> None:
    """What is outside is not looked at; that the period hangs on what was before it, is."""
    digested.clock.advance(24 * HOUR_S)
    digested.stores.activations.put(signed_activation(digested))
    digested.pump()
    digested.clock.advance(HOUR_S)
    digested.digest()
    since = digested.clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    edit_a_session(digested)
    found = digested.verify(told=False, since=since)
    assert (found.findings, found.counted.changes, found.counted.chains) == ((), 1, 0)
    before = [key for key in digested.digests() if key < f"digests/v1/{since.date()}"][-1]
    forged = replace(parse_digest(body(digested, before)), made_at=digested.clock.now(), signature="")
    digested.administrator.put_object(before, sign_digest(digested.stores.signer("digest"), forged).stored())
    assert "replaced" in digested.named(told=False, since=since)[before]


def test_a_session_that_was_closed_and_is_granted_again_is_named(digested: Digested) -> None:
    """A closed session that an administrator opens anew is nobody's decision."""
    session = digested.archive.orders.session_id
    digested.stores.sessions.close(session, "done", digested.clock.now())
    digested.pump()

    def reopen(doc: dict[str, Any]) -> None:
        doc.update(status=SessionStatus.GRANTED.value, closed_at=None, close_reason="")

    digested.administrator.edit_row("sessions", {"id": session}, reopen)
    assert "altered" in digested.named()[session]
