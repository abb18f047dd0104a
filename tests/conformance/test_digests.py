"""Archived changes and digests over real streams, tables and buckets: what is tampered with is named there too."""

from __future__ import annotations

import gzip
import io
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from boto3.session import Session

from chalicelib.domain.canonical import canonical
from chalicelib.domain.digest import digest_key, hour_of, parse_digest
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.store import Stores
from chalicelib.identity.jws import sign_digest, sign_manifest
from chalicelib.services.archive_items import ArchiveItems, stream_changes
from chalicelib.services.digest_hour import DigestHours
from chalicelib.services.recordings import manifest_of
from chalicelib.store.deployed import open_running_code
from chalicelib.store.opened import open_stores
from countersign.__main__ import main
from dev.preparation import Order, Prepared, prepare
from dev.provision import BUCKET_KEY
from dev.settings import SystemClock
from tests.conformance.backends import REGION, Backend
from tests.conformance.emulated import Streams, digested_in_an_emulator, settings_with_copies
from tests.fakes.archive import ArchiveIn
from tests.fakes.broker import MemoryAudit
from tests.fakes.clock import FakeClock
from tests.fakes.digested import Digested, DigestedIn
from tests.fakes.signer import MemorySigner
from tests.fakes.waiting_clock import WaitingClock

ACCOUNT = "123456789012"
Tampered = dict[str, str]


@pytest.fixture
def digested(backend: Backend) -> DigestedIn[Any]:
    return Digested() if backend.name == "memory" else digested_in_an_emulator()


def test_what_the_streams_tell_is_archived_once_and_verifies(digested: DigestedIn[Any]) -> None:
    """Every row that was put is there, in the words in which the table has it; a second delivery adds nothing."""
    found = digested.verify(copies=True)
    assert (found.findings, found.counted.rows, found.counted.digests) == ((), 15, 2)
    assert found.counted.changes in (15, 17)  # a connection is put and sealed: a stream tells both, memory's the end
    assert digested.digest() == []
    rows = digested.stores.rows
    for table in ("chains", "sessions", "connections", "asks", "answers", "uses"):
        keys = list(rows.keys(table))
        assert keys
        assert set(rows.states(table, keys)) == set(keys)


def test_the_tamper_table(digested: DigestedIn[Any]) -> None:
    """Each tampering, one upon the other, is named by the key of what was tampered with, and nothing before it was."""
    archive, admin, objects = digested.archive, digested.administrator, digested.stores.objects
    orders, db = archive.orders, archive.db
    ask = digested.stores.sessions.get(orders.session_id).ask_id

    def expect(expected: dict[str, str], **how: Any) -> None:
        named = digested.named(**how)
        assert all(kind in named.get(name, []) for name, kind in expected.items()), named

    assert digested.named() == {}
    expect(tamper_with_recordings(digested))
    expect(tamper_with_items(digested))
    admin.edit_row("sessions", {"id": db.session_id}, lambda doc: doc["request"].update(reason="another"))
    expect({db.session_id: "altered"}, told=False)
    admin.delete_row("answers", {"ask": ask, "person": "alice"})
    admin.delete_row("sessions", {"id": orders.session_id})
    admin.delete_row("connections", {"session": orders.session_id, "id": orders.row.id})
    admin.delete_row("chains", {"txn": orders.hop.txn, "place": f"{orders.hop.depth:02d}#{orders.hop.id}"})
    for key in orders.segments:
        admin.delete_object(key)
    digested.pump()
    gone = (orders.session_id, orders.row.id, orders.hop.id, orders.manifest_key, f"{ask}#alice")
    expect({db.session_id: "altered", **dict.fromkeys(gone, "missing")})
    alarms = {event.subject for event in digested.audit.events if event.name.value == "row.tampered"}
    assert {f"sessions {db.session_id}", f"sessions {orders.session_id}", f"answers {ask}/alice"} <= alarms

    first, last = digested.digests()
    resigned = sign_digest(MemorySigner("another"), parse_digest(objects.get(last)))
    admin.put_object(last, resigned.stored())
    admin.delete_object(first)
    expect({last: "other_key", first: "missing"})
    expect({last: "replaced", first: "missing"}, copies=True)


def tamper_with_recordings(digested: DigestedIn[Any]) -> dict[str, str]:
    """Delete a manifest, and replace another by one that the broker's own key signed."""
    orders, db = digested.archive.orders, digested.archive.db
    digested.administrator.delete_object(orders.manifest_key)
    manifest = replace(manifest_of(digested.stores.objects.get(db.manifest_key)), exit="error")
    signed = sign_manifest(digested.stores.signer("record"), manifest)
    body = canonical({**signed.signed(), "signature": signed.signature})
    digested.administrator.put_object(db.manifest_key, body)
    return {orders.manifest_key: "missing", db.manifest_key: "replaced"}


def tamper_with_items(digested: DigestedIn[Any]) -> dict[str, str]:
    """Duplicate, truncate, alter and delete objects of archived changes."""
    admin, objects = digested.administrator, digested.stores.objects
    uses, sessions, answers = (digested.items(table)[0] for table in ("uses", "sessions", "answers"))
    twin = uses.replace(uses.rpartition("/")[2], "0" * 26 + ".ndjson.gz")
    admin.put_object(twin, objects.get(uses))
    admin.put_object(uses, objects.get(uses)[:-9])
    altered = gzip.decompress(objects.get(sessions)).replace(b"deploy 7", b"deploy 8")
    admin.put_object(sessions, gzip.compress(altered))
    admin.delete_object(answers)
    return {twin: "out_of_order", uses: "truncated", sessions: "altered", answers: "missing"}


# -- under the roles of a deployment ---------------------------------------------------------------------------------


class Deployed:
    """A prepared deployment, and stores that a role opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        unkeyed = settings_with_copies()
        self.settings = replace(unkeyed, bucket_key=f"alias/{unkeyed.prefix}-{BUCKET_KEY}")  # the bucket wants it
        self._environment = monkeypatch
        order = Order(
            store=self.settings,
            account=ACCOUNT,
            function_prefix=f"{self.settings.prefix}-",
            secrets={},
            files={"targets.yaml": ""},
            credentials=(),
        )
        self.prepared: Prepared = prepare(order, SystemClock())

    def become(self, role: str) -> Stores:
        for name, value in self.prepared.roles[role].environment().items():
            self._environment.setenv(name, value)
        return open_stores(self.settings)


@pytest.fixture
def deployed(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    if backend.name != "ministack":
        pytest.skip("only ministack evaluates policies")
    return Deployed(monkeypatch)


def test_each_part_does_its_work_under_its_own_role_and_no_other_work(deployed: Deployed) -> None:
    """The very policy files of a deployment: who archives puts items alone, who digests puts and signs digests alone,
    and an auditor verifies everything with the command line."""
    archive = ArchiveIn(open_stores(deployed.settings), FakeClock(SystemClock().now()))
    audit, prefix = MemoryAudit(), deployed.settings.prefix

    archiver = deployed.become("archive_items")
    streams = Streams(deployed.prepared.streams, Session(region_name=REGION).client("dynamodbstreams"))
    archived = [
        ArchiveItems(objects=archiver.objects, audit=audit)(stream_changes(event, prefix)) for event in streams()
    ]
    assert sum(archived) >= 15
    refused(archiver, "digests/v1/x.json", "rec/v1/x", "manifests/v1/x", "events/v1/x")

    digester = deployed.become("digest")
    clock = FakeClock(SystemClock().now() + timedelta(hours=2))
    signer = digester.signer("digest")
    hours = DigestHours(
        objects=digester.objects,
        copies=digester.digest_copies,
        signer=signer,
        code=open_running_code({}, "", REGION, clock),
        clock=clock,
        audit=audit,
    )
    made = list(hours())
    assert made[0] == digest_key(hour_of(archive.clock.now())) or len(made) == 2
    refused(digester, "items/v1/x", "rec/v1/x", "manifests/v1/x", "signoffs/v1/x")
    with pytest.raises(StoreUnavailable):
        digester.signer("record").sign("x+jws", b"{}")

    deployed.become("auditor")
    environment = {
        "COUNTERSIGN_PREFIX": prefix,
        "COUNTERSIGN_BUCKET": deployed.settings.bucket,
        "AWS_REGION": REGION,
        "COUNTERSIGN_DIGEST_BUCKET": deployed.settings.digest_bucket,
    }
    for period in (["--all"], ["--since", str(archive.clock.now().date())]):
        out, err = io.StringIO(), io.StringIO()
        code = main(["verify", *period, "--json"], environment, out=out, err=err, clock=WaitingClock(clock.now()))
        told = json.loads(out.getvalue())
        assert (code, told["findings"], err.getvalue()) == (0, [], "")
        assert (told["checked"]["digests"], told["checked"]["frames"]) == (len(made), 20)
    auditor = open_stores(deployed.settings)
    refused(auditor, "items/v1/x", "digests/v1/x.json")


def refused(stores: Stores, *keys: str) -> None:
    """Check that this role may put nothing under these keys."""
    for key in keys:
        with pytest.raises(StoreUnavailable):
            stores.objects.put_new(key, b"", content_type="text/plain")
