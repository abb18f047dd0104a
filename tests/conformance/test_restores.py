"""Tables that are put back as they were, in real stores: the archive of their own streams has what the restore took
back."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from boto3.session import Session

from chalicelib.domain.activation import Activation
from chalicelib.domain.epoch import epoch_key
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Stores
from chalicelib.identity.jws import sign_activation, verify_activation
from chalicelib.services.archive_items import ArchiveItems, stream_changes
from chalicelib.services.raise_epoch import RaiseEpoch
from chalicelib.settings import SystemClock
from chalicelib.store.opened import open_stores
from countersign.__main__ import main
from dev.provision import provision
from tests.conformance.backends import Backend, new_settings
from tests.conformance.emulated import Streams
from tests.fakes.broker import MemoryAudit
from tests.fakes.clock import START


def rows_of(table: Any) -> list[dict[str, Any]]:
    return list(table.scan(ConsistentRead=True)["Items"])


def put_back(table: Any, rows: list[dict[str, Any]]) -> None:
    """What a restore to another moment leaves: the rows of then and no others."""
    names = [key["AttributeName"] for key in table.key_schema]
    for row in rows_of(table):
        table.delete_item(Key={name: row[name] for name in names})
    for row in rows:
        table.put_item(Item=row)


def activate(stores: Stores, serial: int, previous: str) -> str:
    bundle = f"{serial:064x}"
    unsigned = Activation(
        serial=serial, bundle_digest=bundle, previous_digest=previous, author="ops", activated_at=START
    )
    stores.activations.put(sign_activation(stores.signer(KeyPurpose.ACTIVATION.value), unsigned))
    return bundle


def test_what_a_restore_took_back_is_put_again_from_the_archive(backend: Backend) -> None:
    """Revoked keys are revoked again under their own numbers, the activation that was lost is the same one, and whoever
    reads feed and activations from before meets neither hole nor a step back."""
    if backend.name == "memory":
        pytest.skip("memory has no streams; tests/functional/test_restores.py")
    settings = new_settings()
    made = provision(settings)
    stores = open_stores(settings)
    resource: Any = Session(region_name=settings.region).resource("dynamodb")
    tables = [resource.Table(f"{settings.prefix}-{name}") for name in ("revocations", "activations")]
    first = activate(stores, 1, "")
    kept = stores.revocations.revoke("session:a", by="ada", why="leaked", at=START)
    backup = [rows_of(table) for table in tables]
    lost = [stores.revocations.revoke(key, by="bob", why="left", at=START) for key in ("hop:b", "txn:c")]
    second = activate(stores, 2, first)
    archive = ArchiveItems(objects=stores.objects, audit=MemoryAudit())
    for event in Streams({name: made.streams[name] for name in ("revocations", "activations")})():
        archive(stream_changes(event, settings.prefix))
    for table, rows in zip(tables, backup, strict=True):
        put_back(table, rows)
    assert (stores.revocations.epoch(), stores.activations.latest().serial) == (1, 1)

    raised = RaiseEpoch(
        activations=stores.activations,
        revocations=stores.revocations,
        objects=stores.objects,
        signer=stores.signer(KeyPurpose.ACTIVATION.value),
        verify=lambda one: verify_activation(one, stores.keys),
        clock=SystemClock(),
    )(by="ops", why="restored")
    assert (raised.revocations, raised.activations, raised.unreadable) == (2, 1, ())
    feed = list(stores.revocations.since(0))
    assert [(one.key, one.number) for one in feed[:3]] == [("session:a", 1), ("hop:b", 2), ("txn:c", 3)]
    assert [feed[0], *feed[1:3]] == [kept, *lost]
    assert [one.key for one in feed[3:]] == [epoch_key("")]
    latest = stores.activations.latest()
    verify_activation(latest, stores.keys)
    assert (latest.serial, latest.bundle_digest, latest.epoch_at) == (3, second, raised.epoch_at)


def test_the_operators_commands_on_a_deployment(backend: Backend) -> None:
    """The keys' history is begun, shown and carried on, and the epoch raised, as the runbooks have it; twice is no
    harm."""
    if backend.name == "memory":
        pytest.skip("the commands change a deployment")
    settings = new_settings()
    provision(settings)
    stores = open_stores(settings)
    activate(stores, 1, "")
    environment = {
        "COUNTERSIGN_PREFIX": settings.prefix,
        "COUNTERSIGN_BUCKET": settings.bucket,
        "AWS_REGION": settings.region,
    }

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        out = io.StringIO()
        code = main([*arguments, "--json"], environment, out=out, err=io.StringIO())
        return code, json.loads(out.getvalue() or "{}")

    assert run("keys", "show") == (0, {"keys": {}, "findings": []})
    begun = run("keys", "begin", "--by", "ops")
    assert begun == run("keys", "begin", "--by", "ops")
    kms = Session().client("kms", region_name=settings.region)
    key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    code, told = run("keys", "rotate", "activation", "--to", key, "--by", "ops")
    assert (code, told["number"], told["kid"]) == (0, 2, key)
    assert run("keys", "rotate", "ssh-user", "--to", key, "--by", "ops")[0] == 64
    assert len(run("keys", "show")[1]["keys"]["activation"]) == 2
    for serial in (2, 3):
        code, told = run("restore-epoch", "--by", "ops", "--why", "restored")
        assert (code, told["serial"], told["revocations"], told["unreadable"]) == (0, serial, 0, [])
    verify_activation(stores.activations.latest(), open_stores(settings).keys)
