"""CloudTrail's record of credentials against connections: one that was made beside us is named, in whatever way."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.config.files import bundle_digest, encode_bundle
from chalicelib.domain.activation import Activation, bundle_key
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import Limited
from chalicelib.domain.signoff import Period
from chalicelib.domain.target import CERTIFICATE
from chalicelib.services import cloud_witness
from chalicelib.services.cloud_witness import (
    Accounted,
    Credentials,
    account,
    accounted_json,
    credentials_of,
    read_trail,
    trail_period,
)
from chalicelib.services.reconcile import connections_of
from tests.fakes.archive import Archive, Connected
from tests.fakes.clock import START
from tests.fakes.cloud import ADMIN, MINT, record

HOUR = Period(since=START - timedelta(minutes=5), until=START + timedelta(minutes=55))
KEY = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY_ARN = f"arn:aws:kms:eu-west-1:111122223333:key/{KEY}"
SECRET = "countersign/targets/orders-prod/app"
SECRET_ARN = f"arn:aws:secretsmanager:eu-west-1:111122223333:secret:{SECRET}-AbC123"
CREDENTIALS = Credentials(
    of={("orders-prod", "app"): frozenset({SECRET}), ("db-prod", "deploy"): frozenset({CERTIFICATE})},
    keys=frozenset({KEY}),
    secrets="countersign/targets/",
    mint="countersign-mint",
)
BUNDLE = Path(__file__).parents[4] / "dev" / "demo" / "bundle"


def sign(
    at: datetime, key: str = "alias/countersign-ssh-target", *, arn: str = KEY_ARN, **other: Any
) -> dict[str, Any]:
    request = {"keyId": key, "messageType": "RAW", "signingAlgorithm": "ECDSA_SHA_256"}
    return record("kms", "Sign", request, at=at, who=other.pop("who", MINT), read_only=True, resources=(arn,), **other)


def read_secret(at: datetime, name: str = SECRET, **other: Any) -> dict[str, Any]:
    request = {"secretId": name}
    return record(
        "secretsmanager", "GetSecretValue", request, at=at, who=other.pop("who", MINT), read_only=True, **other
    )


def after(on: Connected, seconds: int = 1) -> datetime:
    return on.row.opened_at + timedelta(seconds=seconds)


def quiet(archive: Archive) -> list[dict[str, Any]]:
    """What a day on which all came through us leaves."""
    return [read_secret(after(archive.orders)), sign(after(archive.db))]


def accounted(archive: Archive, *records: object, rows: list[ConnectionRow] | None = None) -> Accounted:
    trail = read_trail(((f"file#{place}", one) for place, one in enumerate(records)), CREDENTIALS)
    found = list(connections_of(archive.stores, "", HOUR)) if rows is None else rows
    return account(HOUR, trail, found, CREDENTIALS)


def test_every_credential_is_a_connections_and_every_connection_has_one() -> None:
    """The quiet day."""
    archive = Archive()
    found = accounted(archive, *quiet(archive))
    assert found.holds
    assert {row.id for _, row in found.matched} == {archive.orders.row.id, archive.db.row.id}
    assert accounted_json(found)["credentials_without_connection"] == []


def test_a_credential_without_a_connection_row_is_named() -> None:
    """security.md: a connection that never got a row: AWS saw what was made for it."""
    archive = Archive()
    of_orders = [row for row in connections_of(archive.stores, "", HOUR) if row.target == "orders-prod"]
    found = accounted(archive, *quiet(archive), rows=of_orders)
    assert [(one.made.value, one.call.who) for one in found.strangers] == [("signature", MINT["arn"])]
    assert not found.holds


BESIDE = {
    "another signature": [sign(START + timedelta(minutes=20))],
    "by the key's own id": [sign(START + timedelta(minutes=20), KEY, who=ADMIN)],
    "by an alias of one's own": [sign(START + timedelta(minutes=20), "alias/mine", who=ADMIN)],
    "by somebody else, at the very moment": [sign(START, who=ADMIN), sign(START, who=ADMIN), sign(START, who=ADMIN)],
    "a secret once more": [read_secret(START + timedelta(minutes=20), who=ADMIN)],
    "a secret by its ARN": [read_secret(START + timedelta(minutes=20), SECRET_ARN, who=ADMIN)],
    "a secret that no bundle names": [read_secret(START, "countersign/targets/orders-prod/root", who=ADMIN)],
    "several secrets at once": [record("secretsmanager", "BatchGetSecretValue", {"secretIdList": [SECRET_ARN]})],
    "secrets by a filter": [record("secretsmanager", "BatchGetSecretValue", {"filters": [{"key": "all"}]})],
    "a role, by mint's own session": [record("sts", "AssumeRole", {"roleArn": "arn:aws:iam::1:role/db"}, who=MINT)],
}


@pytest.mark.parametrize("calls", BESIDE.values(), ids=BESIDE)
def test_a_credential_that_was_made_beside_us_is_named(calls: list[dict[str, Any]]) -> None:
    """By another name, by another caller, at the same moment: it is the key and the secret that count."""
    archive = Archive()
    found = accounted(archive, *quiet(archive), *calls)
    assert len(found.strangers) >= 1
    assert not found.holds


def test_what_is_anothers_is_none_of_ours() -> None:
    """An account has other keys, secrets and roles."""
    archive = Archive()
    others = [
        sign(START, "alias/other", arn="arn:aws:kms:eu-west-1:111122223333:key/other"),
        read_secret(START, "other/secret"),
        record("secretsmanager", "BatchGetSecretValue", {"secretIdList": ["other/secret"]}),
        record("sts", "AssumeRole", {"roleArn": "arn:aws:iam::1:role/x"}, who=ADMIN),
        record("kms", "Verify", {"keyId": KEY}),
    ]
    assert accounted(archive, *quiet(archive), *others).holds


def test_a_secret_is_the_same_by_name_and_by_arn() -> None:
    """A bundle may give the ARN and a caller the name, or the other way round."""
    archive = Archive()
    assert accounted(archive, read_secret(after(archive.orders), SECRET_ARN), sign(after(archive.db))).holds
    by_arn = replace(CREDENTIALS, of={**CREDENTIALS.of, ("orders-prod", "app"): frozenset({f"{SECRET}-AbC123"})})
    trail = read_trail([("x", one) for one in quiet(archive)], by_arn)
    assert account(HOUR, trail, connections_of(archive.stores, "", HOUR), by_arn).holds


def test_one_connection_takes_one_credential_and_only_in_its_time() -> None:
    """A row a day old accounts for nothing that is made today, and no row for two."""
    archive = Archive()
    twice = accounted(archive, *quiet(archive), sign(after(archive.db, 2)))
    assert len(twice.strangers) == 1
    late = accounted(archive, read_secret(after(archive.orders)), sign(after(archive.db, 91)))
    assert [one.made.value for one in late.strangers] == ["signature"]
    assert [row.id for row in late.unseen] == [archive.db.row.id]
    assert accounted(archive, read_secret(after(archive.orders)), sign(after(archive.db, 89))).holds


def test_a_connection_of_which_the_trail_shows_nothing_is_named() -> None:
    """A record of what did not happen, or a trail from which a call was taken."""
    archive = Archive()
    found = accounted(archive, read_secret(after(archive.orders)))
    assert ([row.id for row in found.unseen], found.holds) == ([archive.db.row.id], False)
    assert "ssh certificates: the trail has no call of KMS at all" in found.not_covered[0]


def test_what_was_opened_as_the_files_end_is_in_the_next_ones() -> None:
    """CloudTrail delivers within fifteen minutes."""
    archive = Archive()
    ends = Period(since=HOUR.since, until=archive.db.row.opened_at + timedelta(minutes=1))
    trail = read_trail([("x", read_secret(after(archive.orders)))], CREDENTIALS)
    assert account(ends, trail, connections_of(archive.stores, "", ends), CREDENTIALS).unseen == ()


def test_a_connection_that_never_reached_its_target_needs_none() -> None:
    """Refused before anything was minted; where it was minted after all, that is its own."""
    archive = Archive()
    rows = [replace(row, exit="policy_denied") for row in connections_of(archive.stores, "", HOUR)]
    found = accounted(archive, rows=rows)
    assert (found.unseen, len(found.ended_before), found.holds) == ((), 2, True)
    assert len(accounted(archive, *quiet(archive), rows=rows).matched) == 2


def test_a_call_that_aws_refused_made_nothing_and_is_told() -> None:
    """Trying is worth knowing."""
    archive = Archive()
    found = accounted(archive, *quiet(archive), read_secret(START, who=ADMIN, error="AccessDeniedException"))
    assert (found.holds, [one.call.who for one in found.refused]) == (True, [ADMIN["arn"]])


@pytest.mark.parametrize("poison", [None, 7, {}, {"eventVersion": "9.9"}, {**sign(START), "eventTime": "x"}])
def test_a_record_that_cannot_be_read_is_a_finding(poison: object) -> None:
    """It may be the one; the others are read all the same."""
    archive = Archive()
    found = accounted(archive, poison, *quiet(archive))
    assert (found.unreadable, len(found.matched), found.holds) == (("file#0",), 2, False)


def test_a_record_that_is_there_twice_counts_once() -> None:
    """Files overlap where a trail was copied twice."""
    archive = Archive()
    once = quiet(archive)
    assert accounted(archive, *once, *once).holds


def test_what_this_witness_cannot_see_is_said() -> None:
    """A tool that passes for more than it is would be worse than none."""
    said = " ".join(accounted(Archive()).not_covered)
    for words in ("RDS IAM tokens", "read once", "other regions", "validate-logs"):
        assert words in said


def test_a_trail_of_millions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An auditor's memory is bounded, and nothing is left out silently."""
    monkeypatch.setattr(cloud_witness, "MAX_WITNESSES", 2)
    with pytest.raises(Limited):
        read_trail([("x", sign(START)) for _ in range(3)], CREDENTIALS)


def test_a_trails_own_times_are_the_period_where_none_is_given() -> None:
    """The file says what it covers."""
    trail = read_trail([("x", sign(START)), ("y", sign(START + timedelta(minutes=3)))], CREDENTIALS)
    assert trail_period(trail) == (START, START + timedelta(minutes=3, seconds=1))
    assert trail_period(read_trail([], CREDENTIALS)) == ()


def test_every_bundle_that_was_ever_active_says_what_a_credential_is() -> None:
    """A secret that a bundle of last month named was in use last month."""
    archive = Archive()
    files = {path.relative_to(BUNDLE).as_posix(): path.read_bytes() for path in BUNDLE.rglob("*") if path.is_file()}
    newer = {**files, "targets.yaml": files["targets.yaml"].replace(b"/orders_app\n", b"/orders_app2\n")}
    previous = ""
    for serial, one in enumerate((files, newer), 1):
        digest = bundle_digest(one)
        archive.stores.objects.put_new(bundle_key(digest), encode_bundle(one), content_type="application/json")
        archive.stores.activations.put(
            Activation(serial=serial, bundle_digest=digest, previous_digest=previous, author="x", activated_at=START)
        )
        previous = digest
    lost = Activation(serial=3, bundle_digest="f" * 64, previous_digest=previous, author="x", activated_at=START)
    archive.stores.activations.put(lost)
    found = credentials_of(
        archive.stores.rows,
        archive.stores.objects,
        keys=[KEY],
        prefix="countersign-local",
        mint="countersign-local-mint",
    )
    secret = "countersign-local/targets/orders-prod/orders_app"
    assert found.of["orders-prod", "orders_app"] == {secret, f"{secret}2"}
    assert found.of["db-prod", "deploy"] == {CERTIFICATE}
    assert (found.unread, found.keys) == (("f" * 64,), frozenset({KEY}))
    said = accounted_json(account(HOUR, read_trail([], found), [], found))
    assert "the secrets that the bundle ffffffffffff names" in json.dumps(said)


def test_a_login_that_no_bundle_names_is_listed_apart() -> None:
    """Nobody knows which credential would have been its own."""
    archive = Archive()
    rows = [replace(row, principal="gone") for row in connections_of(archive.stores, "", HOUR)]
    found = accounted(archive, rows=rows)
    assert (found.unseen, len(found.unknown)) == ((), 2)
