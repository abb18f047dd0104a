"""The hourly digests: every hour once and in order, empty ones too, made up when missed, copied, stopped by nothing."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from chalicelib.domain.audit import AuditEvent, AuditName
from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.digest import (
    DIGEST_SIGNATURE_TYPE,
    HOUR,
    V1_KINDS,
    Kind,
    digest_key,
    hour_of,
    last_settled_hour,
    parse_digest,
)
from chalicelib.domain.errors import ProofInvalid, StoreUnavailable
from chalicelib.domain.recording import merkle_root
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import sign_digest, verify_sha256
from chalicelib.services.archive_items import ArchiveItems, stream_changes
from chalicelib.services.digest_hour import MOST_HOURS, DigestHours
from chalicelib.services.event_objects import event_lines
from tests.fakes.clock import START
from tests.fakes.digested import HOUR_S, Digested

FIRST = "digests/v1/2026-11-02/09.json"
EVENT = "events/v1/date=2026-11-02/hour=09/api-01k0.ndjson.gz"


@pytest.fixture
def young() -> Digested:
    return Digested(young=True)


def test_an_hour_is_digested_when_it_is_over_and_settled(young: Digested) -> None:
    """Before that a change may still be on its way, and would be counted nowhere."""
    until_ten = (hour_of(START) + HOUR - young.clock.now()).total_seconds()
    young.clock.advance(until_ten + 599)
    assert young.digest() == []
    young.clock.advance(1)
    assert young.digest() == [FIRST]
    assert young.digest() == []


def test_what_a_digest_counts(young: Digested) -> None:
    """Every kind has its number and root, also those of which there is nothing; sessions and connections by name."""
    young.clock.advance(HOUR_S + 700)
    young.digest()
    found = parse_digest(young.stores.objects.get(FIRST))
    counts = {kind: tally.count for kind, tally in found.kinds.items() if tally.count}
    assert counts == {
        Kind.HOPS: 5,
        Kind.SESSIONS: 2,
        Kind.CONNECTIONS: 2,
        Kind.ASKS: 2,
        Kind.ANSWERS: 2,
        Kind.USES: 2,
        Kind.MANIFESTS: 2,
        Kind.ITEM_OBJECTS: 6,
    }
    assert set(found.kinds) == set(Kind)
    assert {tally.root for tally in found.kinds.values() if not tally.count} == {sha256_hex(b"")}
    archive = young.archive
    assert set(found.opened) == {archive.orders.session_id, archive.db.session_id}
    assert set(found.sealed) == {f"{on.session_id}/{on.row.id}" for on in (archive.orders, archive.db)}
    assert (found.unsealed, found.previous_sha256) == ((), "")
    verify_sha256(young.stores.keys, KeyPurpose.DIGEST, DIGEST_SIGNATURE_TYPE, found.signature, found.sha256())


def test_a_root_is_over_the_lines_of_its_kind(young: Digested) -> None:
    """Whoever has the lines of a kind can compute it with nothing of ours."""
    young.clock.advance(HOUR_S + 700)
    young.digest()
    found = parse_digest(young.stores.objects.get(FIRST))
    for kind, table in ((Kind.HOPS, "chains"), (Kind.USES, "uses"), (Kind.ANSWERS, "answers")):
        lines = gzip.decompress(young.stores.objects.get(young.items(table)[0])).splitlines(keepends=True)
        assert found.kinds[kind].root == merkle_root([sha256(line).digest() for line in lines]).hex()


def test_hours_that_were_missed_are_made_up_in_order(young: Digested) -> None:
    """The function was down for a day: no hour is left out, and each names the one before."""
    young.clock.advance(25 * HOUR_S)
    made = young.digest()
    assert made == [digest_key(hour_of(START) + number * HOUR) for number in range(len(made))]
    assert len(made) == 25
    stored = [young.stores.objects.get(key) for key in made]
    found = [parse_digest(one) for one in stored]
    assert [one.previous_sha256 for one in found] == ["", *(sha256_hex(one) for one in stored[:-1])]
    assert [one.kinds[Kind.SESSIONS].count for one in found] == [2, *[0] * 24]


def test_a_long_outage_is_made_up_in_several_runs(young: Digested) -> None:
    """A run ends before its function's time does; the next goes on where it stopped."""
    young.clock.advance((MOST_HOURS + 5) * HOUR_S)
    assert [len(young.digest()) for _ in range(3)] == [MOST_HOURS, 5, 0]
    assert young.verify().findings == ()


def test_a_change_that_comes_late_is_in_the_next_digest(young: Digested) -> None:
    """Lambda keeps a batch that failed for a day: its object lies under an hour that was digested already."""
    young.clock.advance(HOUR_S + 700)
    young.digest()
    young.stores.sessions.close(young.archive.db.session_id, "done", young.clock.now())
    late = young.clock.now()
    young.clock.advance(3 * HOUR_S)
    young.digest()
    for event in young.stores.rows.events(late):
        ArchiveItems(objects=young.stores.objects, audit=young.audit)(stream_changes(event, "cs"))
    assert young.verify().pending == 1
    young.clock.advance(HOUR_S)
    (made,) = young.digest()
    assert len(parse_digest(young.stores.objects.get(made)).items) == 1
    assert young.verify().findings == ()


def test_a_connection_that_stays_open_is_carried_on_until_it_is_sealed(young: Digested) -> None:
    """A broker that died leaves a recording that no digest forgets."""
    archive = young.archive
    session = archive.grant(archive.root, "orders-prod", "app", "again", rules=("pipeline-opens",))
    on = archive.connect(session, archive.root, "postgres")
    name = f"{session.id}/{on.row.id}"
    young.pump()
    young.clock.advance(2 * HOUR_S + 700)
    made = young.digest()
    assert [parse_digest(young.stores.objects.get(key)).unsealed for key in made] == [(name,), (name,)]
    young.stores.connections.seal(session.id, on.row.id, at=young.clock.now(), exit="lost", key="", sha256="")
    young.pump()
    young.clock.advance(HOUR_S)
    (last,) = young.digest()
    found = parse_digest(young.stores.objects.get(last))
    assert (found.unsealed, found.sealed, found.manifests) == ((), (name,), ())


def test_objects_of_others_are_listed_with_their_hashes(young: Digested) -> None:
    """Events, brokers' last numbers and sign-offs are put by others: an altered one must show, and a digest that counts
    what is no sign-off and no end makes it none."""
    told = AuditEvent(name=AuditName.TOKEN_REFUSED, at=START)
    bodies = {key: key.encode() for key in ("boots/v1/2026-11-02/b.json", "signoffs/v1/2026-11-02/s.json")}
    none = {key: ["altered"] for key in bodies}
    bodies[EVENT] = event_lines([told.row(writer="fn_1", number=0)])
    for key, body in bodies.items():
        young.stores.objects.put_new(key, body, content_type="text/plain")
    later = event_lines([told.row(writer="fn_1", number=1)])
    young.stores.objects.put_new("events/v1/date=2026-11-02/hour=11/x.ndjson.gz", later, content_type="text/plain")
    young.clock.advance(HOUR_S + 700)
    young.digest()
    found = parse_digest(young.stores.objects.get(FIRST))
    assert {one.key: one.sha256 for one in found.objects} == {key: sha256_hex(body) for key, body in bodies.items()}
    assert young.named() == none
    young.administrator.put_object(EVENT, b"other")
    assert young.named() == none | {EVENT: ["altered"], "fn_1": ["missing"]}
    young.administrator.delete_object(EVENT)
    assert young.named() == none | {EVENT: ["missing"], "fn_1": ["missing"]}


def test_an_object_of_rubbish_is_named_and_stops_nothing(young: Digested) -> None:
    """Whoever can put under items/ must not be able to end the digests."""
    key = "items/v1/uses/2026-11-02/09/01k00000000000000000000000.ndjson.gz"
    other = Digested(young=True)
    sound = gzip.decompress(other.stores.objects.get(other.items("uses")[0]))
    of_no_time = re.sub(rb'"at":"[^"]+"', b'"at":"0001-01-01T00:00:00.000+01:00"', sound)
    for body in (b"", b"no gzip", gzip.compress(b'{"v":1}\n'), gzip.compress(b"\xff" * 100), gzip.compress(of_no_time)):
        on = Digested(young=True)
        on.stores.objects.rows[key] = body
        on.clock.advance(HOUR_S + 700)
        assert on.digest() == [FIRST]
        assert parse_digest(on.stores.objects.get(FIRST)).unreadable == (key,)
        assert on.named() == {key: ["altered"]}


@pytest.mark.parametrize("manifest", ["\\ud800", "../x", "rec/v1/ses_1", "x" * 999])
def test_a_row_that_was_sealed_with_nonsense_stops_no_digest(young: Digested, manifest: str) -> None:
    """An administrator's edit is archived as what it is; it must not be the last thing that is."""
    row = young.archive.db.row
    key = f'{{"id":"{row.id}","session":"{row.session_id}"}}'
    doc = '{"id":"c","sealed_at":"2026","manifest_key":"' + manifest + '","manifest_sha256":"x","opened_at":"x"}'
    image = {"session": {"S": row.session_id}, "id": {"S": row.id}, "doc": {"S": doc}}
    record: Any = {
        "eventName": "MODIFY",
        "eventSourceARN": "arn:aws:dynamodb:x:1:table/cs-connections/stream/1",
        "dynamodb": {
            "Keys": {"session": {"S": row.session_id}, "id": {"S": row.id}},
            "NewImage": image,
            "OldImage": image,
            "SequenceNumber": "9999",
            "ApproximateCreationDateTime": young.clock.now().timestamp(),
        },
    }
    archive_items = ArchiveItems(objects=young.stores.objects, audit=young.audit)
    (change,) = stream_changes({"Records": [record]}, "cs")
    assert (change.key, archive_items([change])) == (key, 1)
    young.clock.advance(HOUR_S + 700)
    assert young.digest() == [FIRST]
    assert "altered" in young.named()[row.id]


def test_the_second_bucket_gets_every_digest_also_one_it_missed(young: Digested) -> None:
    """The other account's bucket was out of reach for an hour."""
    young.clock.advance(2 * HOUR_S + 700)
    young.digest()
    copies = young.stores.digest_copies.rows
    assert set(copies) == set(young.digests())
    missed = copies.pop(FIRST)
    young.digest()
    assert copies[FIRST] == missed == young.stores.objects.get(FIRST)


def test_a_run_that_lost_the_race_names_what_the_other_made(young: Digested) -> None:
    """Two runs at once: one digest of each hour, and the chain goes on from it."""
    young.clock.advance(HOUR_S + 700)
    young.digest()
    first = young.stores.objects.rows.pop(FIRST)
    listing = young.stores.objects.keys

    def blind(prefix: str) -> list[str]:  # this run looked before the other put
        young.stores.objects.keys = listing  # type: ignore[method-assign]
        young.stores.objects.rows[FIRST] = first
        return []

    young.stores.objects.keys = blind  # type: ignore[method-assign]
    young.clock.advance(HOUR_S)
    (made,) = young.digest()
    assert parse_digest(young.stores.objects.get(made)).previous_sha256 == sha256_hex(first)


def test_nothing_is_made_after_a_digest_that_cannot_be_read(young: Digested) -> None:
    """A digest that could not name the one before would look like a new beginning."""
    young.clock.advance(HOUR_S + 700)
    young.digest()
    young.administrator.put_object(FIRST, b"{}")
    young.clock.advance(HOUR_S)
    with pytest.raises(ProofInvalid):
        young.digest()
    young.stores.fail("objects")
    with pytest.raises(StoreUnavailable):
        young.digest()


def test_a_deployment_without_a_change_has_digests_too() -> None:
    """An empty hour is one of which somebody says that it was empty."""
    young = Digested(young=True)
    for key in list(young.stores.objects.rows):
        del young.stores.objects.rows[key]
    young.clock.advance(HOUR_S + 700)
    (made,) = young.digest()
    assert made == digest_key(last_settled_hour(young.clock.now()))
    young.clock.advance(timedelta(hours=1).total_seconds())
    assert len(young.digest()) == 1


def test_a_digest_says_which_code_ran(young: Digested) -> None:
    """security.md: code hash and image digest in the hourly digest: a change, and a change back, stand signed."""
    young.clock.advance(HOUR_S + 700)
    young.digest()
    young.running["function:mint"] = "b" * 64
    young.clock.advance(HOUR_S)
    young.digest()
    young.running = {"function:mint": "a" * 64, "task:broker:7/broker": "c" * 64}
    young.clock.advance(HOUR_S)
    (last,) = young.digest()
    assert parse_digest(young.stores.objects.get(last)).code == young.running
    found = young.verify()
    assert found.findings == ()
    assert [(one.digest[-7:], one.name, one.before[:1], one.after[:1]) for one in found.code] == [
        ("10.json", "function:mint", "a", "b"),
        ("11.json", "function:mint", "b", "a"),
        ("11.json", "task:broker:7/broker", "", "c"),
    ]


def test_code_in_a_digest_that_was_altered_is_found(young: Digested) -> None:
    """It is signed like all the rest."""
    young.clock.advance(HOUR_S + 700)
    young.digest()
    stored = young.stores.objects.get(FIRST)
    young.administrator.put_object(FIRST, stored.replace(b"a" * 64, b"b" * 64))
    assert FIRST in young.named()


def test_no_digest_is_made_while_nobody_can_say_what_runs(young: Digested) -> None:
    """The next run makes it up; a digest that names no code would pass for a deployment without any."""

    class Silent:
        def now(self) -> dict[str, str]:
            raise StoreUnavailable("a service could not be reached", service="lambda")

    young.clock.advance(HOUR_S + 700)
    made = DigestHours(
        objects=young.stores.objects,
        copies=None,
        signer=young.stores.signer("digest"),
        code=Silent(),
        clock=young.clock,
        audit=young.audit,
    )
    with pytest.raises(StoreUnavailable):
        made()
    assert young.digest() == [FIRST]


def test_a_digest_of_the_first_version_verifies_as_it_was(young: Digested) -> None:
    """It counted fewer kinds and named no code, and stays what it was for ever."""
    young.clock.advance(HOUR_S + 700)
    young.digest()
    found = parse_digest(young.stores.objects.get(FIRST))
    old = sign_digest(
        young.stores.signer("digest"),
        replace(found, version=1, code={}, kinds={kind: found.kinds[kind] for kind in V1_KINDS}),
    )
    assert b'"code"' not in old.stored()
    young.administrator.put_object(FIRST, old.stored())
    assert parse_digest(old.stored()).version == 1
    young.clock.advance(HOUR_S)
    young.digest()
    assert young.verify().findings == ()
    for wrong in (replace(old, version=3), replace(old, version=2), replace(found, version=1)):
        with pytest.raises(ProofInvalid):
            parse_digest(wrong.stored())


@pytest.mark.parametrize("day", ["0001-01-01", "2025-12-31", "2026-11-03", "9999-12-31"])
def test_an_hour_of_another_time_is_named_and_makes_no_verification_without_end(day: str) -> None:
    """Attack: one file in the year 1 or 9999, and who verifies looks for every hour from there to here."""
    digested = Digested()
    key = f"digests/v1/{day}/23.json"
    digested.administrator.put_object(key, digested.stores.objects.get(digested.digests()[0]))
    digested.administrator.put_object(f"items/v1/chains/{day}/23/{'0' * 26}.ndjson.gz", b"")
    assert digested.named()[key] == ["extra"]
