"""Every role of the stack against the very policy files that are deployed, in the emulator that enforces them.

What no role may do is tried by each, on an object of every kind and on every table; what one role alone may do is tried
by all. The bucket's policy stands behind: the same is refused to somebody whose own policy allows everything.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

import pytest
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import ClientError

from chalicelib.domain.activation import bundle_key
from chalicelib.domain.audit import AuditEvent
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.identifiers import new_legal_hold_id
from chalicelib.domain.legal_hold import HeldKind, LegalHold, Lift, hold_key, lift_key
from chalicelib.domain.store import Stores
from chalicelib.services.legal_holds import read_holds
from chalicelib.services.retain import Retain
from chalicelib.settings import StoreSettings, SystemClock
from chalicelib.store.opened import open_stores
from dev.emulator import Emulator, start_ministack
from dev.preparation import Order, Prepared, prepare
from dev.provision import BUCKET_KEY
from dev.roles import policy_files
from dev.settings import DEMO_BUNDLE
from tests.conformance.backends import REGION, new_settings
from tests.fakes.archive import ArchiveIn
from tests.fakes.clock import FakeClock

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("rights")]

ROLES: Final = sorted(policy_files())
PREFIX: Final = "rights-"
KINDS: Final = {
    "rec": "rec/v1/ses_1/con_1/000000.ndjson.gz",
    "manifests": "manifests/v1/2026-11-02/ses_1/con_1.json",
    "events": "events/v1/date=2026-11-02/hour=09/a.ndjson.gz",
    "items": "items/v1/chains/2026-11-02/09/a.ndjson.gz",
    "digests": "digests/v1/2026-11-02/09.json",
    "boots": "boots/v1/2026-11-02/b.json",
    "signoffs": "signoffs/v1/2026-11-02/s.json",
    "kept": "kept/v1/t.json",
    "copies": "copies/v1/2026-11-02/c.json",
    "keys": "keys/v1/token/0001.json",
    "holds": "holds/v0/2026-11-02/h.json",
    "held": "held/v1/h/2026-11-02.json",
    "marked": "marked/v1/2026-11-02/1.json",
    "bundles": "bundles/v1/x.json",
}
TABLES: Final = (
    *("chains", "sessions", "connections", "beats", "asks", "answers", "uses", "revocations", "once", "activations"),
)
PUTTERS: Final = {  # who may put a new object of a kind; the architecture's table of writers, for the bucket
    "rec": {"broker", "sweep"},
    "manifests": {"broker", "sweep"},
    "events": {"broker", "events", "sweep"},
    "items": {"archive_items"},
    "digests": {"digest"},
    "boots": {"broker"},
    "signoffs": {"sign_off"},
    "kept": {"sign"},
    "copies": {"vouch_copy"},
    "keys": set[str](),
    "holds": {"hold"},
    "held": {"retain"},
    "marked": {"retain"},
    "bundles": set[str](),
}

WRITERS: Final = sorted({role for roles in PUTTERS.values() for role in roles})


@dataclass(frozen=True, kw_only=True, slots=True)
class Stood:
    """A deployment: its roles, and the administrator's clients."""

    settings: StoreSettings
    prepared: Prepared
    endpoint: str
    bucket_key: str
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, role: str) -> Any:
        if (service, role) not in self.clients:
            found = self.prepared.roles[role]
            self.clients[service, role] = self.made(service, found.access_key, found.secret_key.expose())
        return self.clients[service, role]

    def admin(self, service: str) -> Any:
        if (service, "") not in self.clients:
            self.clients[service, ""] = self.made(service, "test", "test")
        return self.clients[service, ""]

    def made(self, service: str, key: str, secret: str) -> Any:
        quick = Config(retries={"total_max_attempts": 1, "mode": "standard"}, max_pool_connections=2)
        session = Session(key, secret, region_name=REGION)
        return session.client(service, endpoint_url=self.endpoint, config=quick)

    def put(self, role: str, key: str, **more: Any) -> None:
        """Put as the product does."""
        self.client("s3", role).put_object(
            Bucket=self.settings.bucket,
            Key=key,
            Body=b"{}",
            IfNoneMatch="*",
            ServerSideEncryption="aws:kms",
            SSEKMSKeyId=self.bucket_key,
            **more,
        )


@pytest.fixture(scope="module")
def stood(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stood]:
    emulator = start_ministack(tmp_path_factory.mktemp("rights"))
    try:
        with pytest.MonkeyPatch.context() as patched:
            yield _prepared(emulator, patched)
    finally:
        emulator.stop()


def _prepared(emulator: Emulator, patched: pytest.MonkeyPatch) -> Stood:
    for name, value in emulator.environment(REGION).items():
        patched.setenv(name, value)
    named = new_settings()
    settings = StoreSettings(
        prefix=named.prefix,
        region=REGION,
        bucket=named.bucket,
        lock_days=1,
        digest_bucket=f"{named.prefix}-digests",
    )
    order = Order(
        store=settings,
        account=emulator.account,
        function_prefix=PREFIX,
        secrets={f"{named.prefix}/targets/db/app": "s"},
        files={path.name: path.read_text() for path in DEMO_BUNDLE.glob("*.yaml")},
        credentials=(),
    )
    prepared = prepare(order, SystemClock())
    alias = f"alias/{named.prefix}-{BUCKET_KEY}"
    stood = Stood(settings=settings, prepared=prepared, endpoint=emulator.endpoint, bucket_key=alias)
    for key in KINDS.values():
        stood.admin("s3").put_object(Bucket=settings.bucket, Key=key, Body=b"{}")
    return stood


def refused(call: Callable[..., object], *given: Any, **named: Any) -> bool:
    """Say whether a call was refused for want of a right. Anything else that goes wrong fails the test."""
    try:
        call(*given, **named)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("AccessDenied", "AccessDeniedException"):
            return True
        raise
    return False


def test_the_roles_are_those_of_the_files(stood: Stood) -> None:
    """A role that is not tried here is one that nobody knows the rights of."""
    assert set(stood.prepared.roles) == set(ROLES)


FORBIDDEN: Final[dict[str, Callable[[Any, str, str, str], object]]] = {
    "delete": lambda s3, bucket, key, _: s3.delete_object(Bucket=bucket, Key=key),
    "delete_version": lambda s3, bucket, key, version: s3.delete_object(Bucket=bucket, Key=key, VersionId=version),
    "delete_many": lambda s3, bucket, key, _: s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]}),
    "bypass": lambda s3, bucket, key, version: s3.delete_object(
        Bucket=bucket, Key=key, VersionId=version, BypassGovernanceRetention=True
    ),
    "shorten": lambda s3, bucket, key, _: s3.put_object_retention(
        Bucket=bucket,
        Key=key,
        BypassGovernanceRetention=True,
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": SystemClock().now() + timedelta(minutes=1)},
    ),
    "untag": lambda s3, bucket, key, _: s3.delete_object_tagging(Bucket=bucket, Key=key),
    "acl": lambda s3, bucket, key, _: s3.put_object_acl(Bucket=bucket, Key=key, ACL="public-read"),
}


SAMPLE: Final = ("rec", "items", "holds")  # what a session, a stream and a person make


def version_of(stood: Stood, key: str) -> str:
    return str(stood.admin("s3").head_object(Bucket=stood.settings.bucket, Key=key)["VersionId"])


@pytest.mark.parametrize("action", sorted(FORBIDDEN))
@pytest.mark.parametrize("role", ROLES)
def test_no_role_deletes_or_lets_go(stood: Stood, role: str, action: str) -> None:
    """Deletion is by lifecycle alone: a role that somebody takes over cannot remove what it did."""
    s3 = stood.client("s3", role)
    for key in (KINDS[kind] for kind in SAMPLE):
        assert refused(FORBIDDEN[action], s3, stood.settings.bucket, key, version_of(stood, key))


ON_BUCKET: Final[dict[str, Callable[[Any, str], object]]] = {
    "policy": lambda s3, bucket: s3.put_bucket_policy(Bucket=bucket, Policy="{}"),
    "no_policy": lambda s3, bucket: s3.delete_bucket_policy(Bucket=bucket),
    "lifecycle": lambda s3, bucket: s3.put_bucket_lifecycle_configuration(
        Bucket=bucket,
        LifecycleConfiguration={
            "Rules": [{"ID": "a", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]
        },
    ),
    "versioning": lambda s3, bucket: s3.put_bucket_versioning(
        Bucket=bucket, VersioningConfiguration={"Status": "Suspended"}
    ),
    "lock": lambda s3, bucket: s3.put_object_lock_configuration(
        Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    ),
    "bucket": lambda s3, bucket: s3.delete_bucket(Bucket=bucket),
    "encryption": lambda s3, bucket: s3.delete_bucket_encryption(Bucket=bucket),
    "public": lambda s3, bucket: s3.delete_public_access_block(Bucket=bucket),
}


@pytest.mark.parametrize("action", sorted(ON_BUCKET))
@pytest.mark.parametrize("role", ROLES)
def test_no_role_changes_the_bucket(stood: Stood, role: str, action: str) -> None:
    """A lifecycle of one day is a deletion by other means."""
    assert refused(ON_BUCKET[action], stood.client("s3", role), stood.settings.bucket)


@pytest.mark.parametrize("role", ROLES)
def test_who_puts_what(stood: Stood, role: str) -> None:
    """Each kind of object has its writers; evidence that another could make is worth less."""
    number = ROLES.index(role)
    for kind, key in KINDS.items():
        fresh = f"{key}.{number}"
        assert refused(stood.put, role, fresh) is (role not in PUTTERS[kind]), kind


@pytest.mark.parametrize("role", WRITERS)
def test_a_writer_replaces_nothing(stood: Stood, role: str) -> None:
    """The key is taken: S3 answers 412, whoever asks."""
    for kind, roles in PUTTERS.items():
        if role in roles:
            with pytest.raises(ClientError) as raised:
                stood.put(role, KINDS[kind])
            assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412


@pytest.mark.parametrize("role", WRITERS)
def test_what_is_not_encrypted_is_put_by_nobody(stood: Stood, role: str) -> None:
    """The bucket's policy refuses it, also to who may put there."""
    s3 = stood.client("s3", role)
    for key in (KINDS[kind] for kind in KINDS if role in PUTTERS[kind]):
        assert refused(s3.put_object, Bucket=stood.settings.bucket, Key=f"{key}.plain", Body=b"")


@pytest.mark.parametrize("role", ROLES)
def test_holds_and_marks_are_one_roles(stood: Stood, role: str) -> None:
    """Who could lift a hold or mark an object decides what is deleted."""
    s3, bucket = stood.client("s3", role), stood.settings.bucket
    tags = {"TagSet": [{"Key": "countersign-over", "Value": "no"}]}
    for kind in ("rec", "items"):
        key = KINDS[kind]
        for status in ("ON", "OFF"):
            held = refused(s3.put_object_legal_hold, Bucket=bucket, Key=key, LegalHold={"Status": status})
            assert held is (role != "retain")
        assert refused(s3.put_object_tagging, Bucket=bucket, Key=key, Tagging=tags) is (role != "retain")


@pytest.mark.parametrize("role", ROLES)
def test_a_lock_is_lengthened_by_who_seals_and_by_nobody_else(stood: Stood, role: str) -> None:
    """A target may ask for more than the default; nobody asks for less, and no other role for anything."""
    s3, bucket = stood.client("s3", role), stood.settings.bucket
    longer = {"Mode": "GOVERNANCE", "RetainUntilDate": SystemClock().now() + timedelta(days=30)}
    for kind, key in KINDS.items():
        may = role in ("broker", "sweep") and kind in ("rec", "manifests")
        assert refused(s3.put_object_retention, Bucket=bucket, Key=key, Retention=longer) is (not may)
    shorter = {"Mode": "GOVERNANCE", "RetainUntilDate": SystemClock().now() + timedelta(days=2)}
    assert refused(s3.put_object_retention, Bucket=bucket, Key=KINDS["rec"], Retention=shorter)


@pytest.mark.parametrize("role", ROLES)
def test_no_role_deletes_a_row_or_a_table(stood: Stood, role: str) -> None:
    """Facts are append-only, and what shows that one is missing is in the same tables."""
    dynamodb = stood.client("dynamodb", role)
    keys = {
        **{table: {"id": {"S": "x"}} for table in TABLES},
        "chains": {"txn": {"S": "x"}, "place": {"S": "x"}},
        "connections": {"session": {"S": "x"}, "id": {"S": "x"}},
        "answers": {"ask": {"S": "x"}, "person": {"S": "x"}},
        "uses": {"ask": {"S": "x"}, "n": {"N": "1"}},
        "activations": {"line": {"S": "x"}, "serial": {"N": "1"}},
    }
    for table, key in keys.items():
        name = f"{stood.settings.prefix}-{table}"
        assert refused(dynamodb.delete_item, TableName=name, Key=key)
    name = f"{stood.settings.prefix}-answers"
    request = {"DeleteRequest": {"Key": keys["answers"]}}
    assert refused(dynamodb.batch_write_item, RequestItems={name: [request]})
    assert refused(dynamodb.delete_table, TableName=name)
    specification = {"Enabled": True, "AttributeName": "x"}
    assert refused(dynamodb.update_time_to_live, TableName=name, TimeToLiveSpecification=specification)


UPDATERS: Final = {"sessions": {"api"}, "connections": {"broker", "sweep"}}


@pytest.mark.parametrize("role", ROLES)
def test_only_sessions_and_connections_are_updated_and_by_whom(stood: Stood, role: str) -> None:
    """An update of an answer would be an answer that nobody gave."""
    dynamodb = stood.client("dynamodb", role)
    for table in ("sessions", "connections", "asks", "revocations", "once"):
        key = {"session": {"S": "x"}, "id": {"S": "x"}} if table == "connections" else {"id": {"S": "x"}}
        assert refused(
            dynamodb.update_item,
            TableName=f"{stood.settings.prefix}-{table}",
            Key=key,
            UpdateExpression="SET x = :x",
            ExpressionAttributeValues={":x": {"S": "x"}},
        ) is (role not in UPDATERS.get(table, set()))


def test_the_buckets_policy_stops_whom_no_role_stops(stood: Stood) -> None:
    """Attack: somebody gives a role s3:*; the bucket still refuses what nobody may do."""
    iam = stood.admin("iam")
    iam.create_user(UserName="wide")
    everything = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    iam.put_user_policy(
        UserName="wide", PolicyName="all", PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": everything})
    )
    made = iam.create_access_key(UserName="wide")["AccessKey"]
    s3 = stood.made("s3", made["AccessKeyId"], made["SecretAccessKey"])
    bucket, key = stood.settings.bucket, KINDS["rec"]
    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == b"{}", "it has rights, or this proves nothing"
    version = version_of(stood, key)
    assert all(refused(call, s3, bucket, key, version) for call in FORBIDDEN.values())
    assert all(refused(call, s3, bucket) for call in ON_BUCKET.values())
    assert refused(s3.put_object_legal_hold, Bucket=bucket, Key=key, LegalHold={"Status": "OFF"})
    assert refused(s3.put_object, Bucket=bucket, Key="rec/v1/plain", Body=b"")


@pytest.fixture
def as_role(stood: Stood, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Stores]:
    """Return the stores of the deployment with a role's own credentials; with all rights for the empty name."""

    def opened(role: str) -> Stores:
        found = stood.prepared.roles[role] if role else None
        monkeypatch.setenv("AWS_ENDPOINT_URL", stood.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", found.access_key if found else "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", found.secret_key.expose() if found else "test")
        return open_stores(replace(stood.settings, bucket_key=stood.bucket_key))

    return opened


class Told:
    """An AuditLog that keeps what it is told."""

    def __init__(self) -> None:
        self.seen: list[AuditEvent] = []

    def record(self, event: AuditEvent) -> None:
        self.seen.append(event)


def test_holds_are_carried_out_and_lifted_under_retains_own_role(
    stood: Stood, as_role: Callable[[str], Stores]
) -> None:
    """What its policy lacks fails here; what it has besides is tried above."""
    archive = ArchiveIn(as_role(""), FakeClock(SystemClock().now()))
    now = SystemClock().now()
    hold = LegalHold(
        id=new_legal_hold_id(now),
        kind=HeldKind.CHAIN,
        subject=archive.txn,
        since=now.date(),
        reason="case 7",
        by="x",
        hop="h",
        at=now,
    )
    as_role("hold").objects.put_new(hold_key(hold), hold.stored(), content_type="application/json")
    told, stores = Told(), as_role("retain")
    done = Retain(stores=stores, clock=SystemClock(), audit=told, workers=4)()
    assert (done.failed, done.ended) == (0, True), [event.why for event in told.seen]
    keys = [*archive.orders.segments, archive.orders.manifest_key, *archive.db.segments]
    s3 = stood.admin("s3")
    for key in keys:
        head = s3.head_object(Bucket=stood.settings.bucket, Key=key)
        assert head["ObjectLockLegalHoldStatus"] == "ON"
        with pytest.raises(ClientError, match="AccessDenied"):
            s3.delete_object(
                Bucket=stood.settings.bucket, Key=key, VersionId=head["VersionId"], BypassGovernanceRetention=True
            )
    lift = Lift(id=hold.id, reason="over", by="x", hop="h", at=SystemClock().now())
    as_role("hold").objects.put_new(lift_key(lift), lift.stored(), content_type="application/json")
    done = Retain(stores=as_role("retain"), clock=SystemClock(), audit=told, workers=4)()
    assert done.failed == 0, [event.why for event in told.seen]
    assert {stores.locks.facts(key).held for key in keys} == {False}


def test_the_hold_function_reads_what_it_verifies_under_its_own_role(
    stood: Stood, as_role: Callable[[str], Stores]
) -> None:
    """Callers, rules and subjects are read by it, and it can touch no object that is held."""
    archive = ArchiveIn(as_role(""), FakeClock(SystemClock().now()))
    stores = as_role("hold")
    assert stores.chains.hops(archive.txn)
    assert stores.sessions.get(archive.orders.session_id).txn == archive.txn
    assert stores.revocations.any_of(frozenset({"txn:none"})) is None
    assert stores.objects.get(bundle_key(stores.activations.latest().bundle_digest))
    assert stores.keys.public_keys("token")
    read_holds(stores.objects)
    for change in (stores.locks.mark, lambda key: stores.objects.put_new(f"{key}.x", b"", content_type="text/plain")):
        with pytest.raises(StoreUnavailable):
            change(archive.orders.segments[0])
