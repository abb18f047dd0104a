"""Archiving changes: every one once, under a key that its first change names, without a secret, and an alarm for what
may not be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from chalicelib.domain.activation import Activation
from chalicelib.domain.archived_item import Change, item_key, items_of
from chalicelib.domain.audit import AuditName
from chalicelib.domain.errors import BadRequest, StoreUnavailable
from chalicelib.services.archive_items import ArchiveItems, stream_changes
from tests.fakes.archive import SECRET, Archive
from tests.fakes.broker import MemoryAudit
from tests.fakes.clock import START
from tests.fakes.tables import PREFIX


class Archiving:
    """An archive whose streams are delivered to the service, and told again."""

    def __init__(self) -> None:
        self.archive = Archive()
        self.stores = self.archive.stores
        self.audit = MemoryAudit()
        self.service = ArchiveItems(objects=self.stores.objects, audit=self.audit)
        self.events: list[dict[str, Any]] = list(self.stores.rows.events(self.archive.clock.now()))

    def deliver(self, events: Sequence[dict[str, Any]]) -> int:
        return sum(self.service(stream_changes(event, PREFIX)) for event in events)

    def objects(self) -> dict[str, bytes]:
        return {key: body for key, body in self.stores.objects.rows.items() if key.startswith("items/")}

    def of(self, table: str) -> dict[str, Any]:
        return next(event for event in self.events if f"-{table}/" in event["Records"][0]["eventSourceARN"])


@pytest.fixture
def archiving() -> Archiving:
    return Archiving()


def test_every_table_has_its_object_and_every_row_its_line(archiving: Archiving) -> None:
    """A table without a stream is one whose rows an administrator may edit unseen."""
    assert archiving.deliver(archiving.events) == 15
    tables = {key.split("/")[2] for key in archiving.objects()}
    assert tables == {"chains", "sessions", "connections", "asks", "answers", "uses"}
    for key, body in archiving.objects().items():
        found, whole = items_of(body)
        assert whole
        assert key == item_key(found[0].table, found[0].sequence, found[0].at)
        assert key.startswith(f"items/v1/{found[0].table}/2026-11-02/09/")
        assert [item.change for item in found] == [Change.INSERT] * len(found)


def test_no_secret_and_no_verifier_is_archived(archiving: Archiving) -> None:
    """The archive is read by more people than the tables: a verifier in it would let them pass for the broker."""
    stores, now = archiving.stores, archiving.archive.clock.now()
    for kind in ("ticket", "redeemed", "token", "mint", "idem", "run", "dpop", "slack", "wait", "card"):
        stores.once.claim(kind, f"{kind}-value", f"{kind}-payload", expires_at=now.replace(hour=23), now=now)
    archiving.deliver([*archiving.events, *stores.rows.events(now)])
    lines = [item.line().decode() for body in archiving.objects().values() for item in items_of(body)[0]]
    text = "\n".join(lines)
    assert SECRET not in text
    for session in stores.sessions.rows.values():
        assert session.verifier is not None
        for secret in (session.verifier.salt, session.verifier.stored_key, session.verifier.server_key):
            assert str(secret) not in text
    assert 'payload"' not in text
    assert "-payload" not in text
    claims = [line for line in lines if '"table":"once"' in line]
    assert sorted(json.loads(json.loads(line)["attributes"])["kind"] for line in claims) == sorted(
        ("ticket", "redeemed", "token", "mint")
    )


def test_a_batch_that_comes_again_puts_nothing_twice(archiving: Archiving) -> None:
    """Lambda delivers at least once."""
    archiving.deliver(archiving.events)
    before = archiving.objects()
    assert archiving.deliver(archiving.events) == 0
    assert archiving.objects() == before


@pytest.mark.parametrize("first", [1, 3, 5])
def test_a_batch_that_comes_in_other_parts_is_whole_and_nothing_is_twice(archiving: Archiving, first: int) -> None:
    """After an error Lambda may split a batch in halves, or join what it had split."""
    whole = archiving.of("chains")
    part = {"Records": whole["Records"][:first]}
    assert archiving.deliver([part]) == first
    assert archiving.deliver([whole]) == 5 - first
    assert archiving.deliver([whole, part, {"Records": whole["Records"][first:]}]) == 0
    lines = [item.line() for body in archiving.objects().values() for item in items_of(body)[0]]
    assert len(lines) == len(set(lines)) == 5


def test_what_cannot_be_put_fails_the_batch(archiving: Archiving) -> None:
    """A change that is dropped is one that nobody can show: Lambda keeps it until it is taken."""
    archiving.stores.fail("objects")
    with pytest.raises(StoreUnavailable):
        archiving.deliver(archiving.events)
    archiving.stores.heal("objects")
    assert archiving.deliver(archiving.events) == 15


def test_an_alarm_that_cannot_be_told_fails_the_batch_and_is_told_with_the_next(archiving: Archiving) -> None:
    """The object is there by then: what is delivered again must still raise the alarm."""
    archiving.deliver(archiving.events)
    archiving.stores.answers.rows.clear()
    told = archiving.stores.rows.events(archiving.archive.clock.now())
    archiving.audit.error = StoreUnavailable("the log is full")
    with pytest.raises(StoreUnavailable):
        archiving.deliver(told)
    archiving.audit.error = None
    assert archiving.deliver(told) == 0
    assert archiving.audit.names() == ["row.tampered", "row.tampered"]
    assert {event.code for event in archiving.audit.events} == {"remove"}


def test_somebody_elses_object_under_a_batchs_key_is_not_taken_for_it(archiving: Archiving) -> None:
    """Whoever puts an empty object first would swallow the changes behind it."""
    event = archiving.of("uses")
    change = stream_changes(event, PREFIX)[0]
    archiving.stores.objects.rows[item_key("uses", change.sequence, change.at)] = b""
    with pytest.raises(StoreUnavailable):
        archiving.deliver([event])


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"eventName": "TRUNCATE", "eventSourceARN": "arn:x:table/cs-asks/stream/1", "dynamodb": {}},
        {"eventName": "INSERT", "eventSourceARN": "arn:x:table/cs-asks/stream/1", "dynamodb": {"Keys": {}}},
        {
            "eventName": "INSERT",
            "eventSourceARN": "arn:x:table/cs-asks/stream/1",
            "dynamodb": {"Keys": {"id": {"S": "a"}}, "SequenceNumber": "1"},
        },
    ],
)
def test_a_record_that_is_none_does_not_pass_unarchived(record: dict[str, Any]) -> None:
    """A shape that we do not know may be a change that nobody would ever hear of."""
    with pytest.raises(BadRequest):
        stream_changes({"Records": [record]}, PREFIX)


@pytest.mark.parametrize(
    "doc",
    [
        "",
        "no json",
        "[1,2]",
        '"text"',
        '{"verifier": 1',
        "NaN",
        "[" * 2000,
        '{"a":' * 60 + "1" + "}" * 60,
        '{"x":"\\ud800"}',
        '{"n":' + "9" * 5000 + "}",
        '{"verifier":{"salt":"s3cret"},"x":1.5}',
    ],
)
def test_a_row_that_nobody_of_ours_wrote_is_archived_without_its_text(archiving: Archiving, doc: str) -> None:
    """An administrator's row may be anything: it stops no batch, and a secret put there does not travel."""
    image = {
        "id": {"S": "ses_x"},
        "doc": {"S": doc},
        "secret": {"S": "s3cret"},
        "blob": {"B": "AAE="},
        "set": {"SS": []},
    }
    record = {
        "eventName": "INSERT",
        "eventSourceARN": f"arn:aws:dynamodb:x:1:table/{PREFIX}-sessions/stream/1",
        "dynamodb": {
            "Keys": {"id": {"S": "ses_x"}},
            "NewImage": image,
            "SequenceNumber": "7",
            "ApproximateCreationDateTime": START.timestamp(),
        },
    }
    assert archiving.deliver([{"Records": [record]}]) == 1
    (body,) = archiving.objects().values()
    (item,), whole = items_of(body)
    assert whole
    assert b"s3cret" not in item.line()
    assert {"secret", "blob", "set"} <= set(item.state.rest())


def test_expiry_of_a_claim_is_told_with_who_did_it(archiving: Archiving) -> None:
    """DynamoDB removes what lapsed under its own name: nobody else may remove anything."""
    record: Any = {
        "eventName": "REMOVE",
        "eventSourceARN": f"arn:aws:dynamodb:x:1:table/{PREFIX}-once/stream/1",
        "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
        "dynamodb": {
            "Keys": {"id": {"S": "token#ab"}},
            "OldImage": {"id": {"S": "token#ab"}, "payload": {"S": ""}, "expires": {"N": "1"}},
            "SequenceNumber": "8",
            "ApproximateCreationDateTime": START.timestamp(),
        },
    }
    (item,) = stream_changes({"Records": [record]}, PREFIX)
    assert (item.by, item.fault, item.change) == ("dynamodb.amazonaws.com", "", Change.REMOVE)


def test_a_configuration_that_is_made_active_is_told(archiving: Archiving) -> None:
    """security.md: activation changes become AuditEvents: by our own stream, so whoever put it; once however often it
    is delivered, and after the change is archived."""
    first = Activation(serial=1, bundle_digest="b" * 64, previous_digest="", author="ops", activated_at=START)
    archiving.stores.activations.put(first)
    events = archiving.stores.rows.events(START)
    archiving.deliver(events)
    archiving.deliver(events)
    told = [event for event in archiving.audit.events if event.name is AuditName.ACTIVATION_PUT]
    assert [(event.configuration_serial, event.why) for event in told] == [(1, f"bundle {'b' * 64} by ops")] * 2
    assert told[0].uid() == told[1].uid()
    assert archiving.audit.names() == ["activation.put"] * 2


@pytest.mark.parametrize("doc", ["", '{"serial":"x"}', '{"serial":-1}', '{"serial":99999999999999999999}', "[1]", "x"])
def test_a_row_of_activations_that_nobody_of_ours_wrote_stops_nothing(archiving: Archiving, doc: str) -> None:
    """An administrator may put anything: it is archived and told, with what can be said of it."""
    archiving.stores.activations.put(
        Activation(serial=1, bundle_digest="b" * 64, previous_digest="", author="ops", activated_at=START)
    )
    events: list[dict[str, Any]] = list(archiving.stores.rows.events(START))
    (event,) = [one for one in events if "-activations/" in str(one)]
    for record in event["Records"]:
        record["dynamodb"]["NewImage"]["doc"] = {"S": doc}
    archiving.deliver([event])
    assert archiving.audit.names() == ["activation.put"]
    assert archiving.audit.events[0].configuration_serial == 0
