"""`countersign doctor` on a deployment in an emulator: sound as infrastructure makes it, and each thing wrong once."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from boto3.session import Session

from chalicelib.config.files import bundle_digest
from chalicelib.domain.connection import Beat
from chalicelib.domain.key_history import PURPOSES
from chalicelib.services.rotate_key import RotateKey
from chalicelib.settings import StoreSettings
from chalicelib.store.keys import KmsKeyRing
from chalicelib.store.opened import Stores, open_stores
from countersign.doctor.checks import Status, Told, answer
from countersign.doctor.deployment import BUCKET_KEY, DENIES, EXPIRING, STREAMED, TABLES, DeploymentChecks
from countersign.doctor.working import FUNCTIONS, SCOPES, WorkChecks, targets_of
from dev.bucket import bucket_policy, places_of
from dev.configuration import read_configuration
from dev.emulator import Emulator, start_ministack
from dev.loopback import LoopbackServer, Request, Response
from dev.preparation import Order, activate_first
from dev.provision import BUCKET_KEY as MADE_BUCKET_KEY
from dev.provision import Provisioned, provision
from dev.settings import DEMO_BUNDLE, ROOT, SystemClock
from tests.conformance.backends import REGION, new_settings
from tests.fakes.clock import FakeClock
from tests.fakes.samples import activation, connection_row

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("doctor")]
TOKEN = "slack/bot-token"


class Deployed:
    """A deployment as ``infra/`` makes it, and the clients with which a test breaks it."""

    def __init__(self, settings: StoreSettings, made: Provisioned, account: str) -> None:
        self.settings = settings
        self.made = made
        self.account = account
        self.stores: Stores = open_stores(settings)
        session = Session(region_name=REGION)
        self.s3: Any = session.client("s3")
        self.dynamodb: Any = session.client("dynamodb")
        self.kms: Any = session.client("kms")
        self.functions: Any = session.client("lambda")
        self.logs: Any = session.client("logs")
        self.clock = FakeClock(SystemClock().now())
        self.told: dict[str, str] = {}

    def set_up(self) -> None:
        """Do what provisioning leaves to infrastructure."""
        for name in TABLES:
            table = f"{self.settings.prefix}-{name}"
            self.dynamodb.update_table(
                TableName=table, DeletionProtectionEnabled=True, SSESpecification={"Enabled": True, "SSEType": "KMS"}
            )
            self.backups(name, on=True)
        for key in (self.made.bucket_key, self.made.kept_key):
            self.kms.enable_key_rotation(KeyId=key)
        order = Order(
            store=self.settings,
            account=self.account,
            function_prefix=f"{self.settings.prefix}-",
            secrets={},
            files={name: body.decode() for name, body in read_configuration(DEMO_BUNDLE).files.items()},
            credentials=(),
        )
        activate_first(order, self.clock)
        self.set_up_bucket(self.settings.bucket)

    def set_up_bucket(self, bucket: str, *, mode: str = "COMPLIANCE", days: int = 1) -> None:
        rule = {"DefaultRetention": {"Mode": mode, "Days": days}}
        self.s3.put_object_lock_configuration(
            Bucket=bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": self.made.bucket_key}
        self.s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": default}]},
        )
        self.block(bucket, on=True)
        self.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(self.policy(bucket)))

    def policy(self, bucket: str) -> dict[str, Any]:
        return bucket_policy(
            places_of(
                account=self.account,
                function_prefix=f"{self.settings.prefix}-",
                bucket=bucket,
                bucket_key=self.made.bucket_key,
                lock_days=1,
            )
        )

    def block(self, bucket: str, *, on: bool) -> None:
        ways = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
        self.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=dict.fromkeys(ways, on))

    def backups(self, name: str, *, on: bool) -> None:
        self.dynamodb.update_continuous_backups(
            TableName=f"{self.settings.prefix}-{name}",
            PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": on},
        )

    def another_bucket(self, *, lock: bool = True) -> StoreSettings:
        """Return settings that name a new bucket, which no policy keeps from being changed."""
        bucket = new_settings().bucket
        self.s3.create_bucket(
            Bucket=bucket,
            ObjectLockEnabledForBucket=lock,
            CreateBucketConfiguration={"LocationConstraint": REGION},
        )
        return replace(self.settings, bucket=bucket)

    def deploy_functions(self) -> None:
        role = f"{self.settings.prefix}-function"
        trusted = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
        Session(region_name=REGION).client("iam").create_role(
            RoleName=role, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trusted]})
        )
        package = io.BytesIO()
        with zipfile.ZipFile(package, "w") as archive:
            archive.writestr("app.py", "def app(event, context): return {}\n")
        for name in FUNCTIONS:
            self.functions.create_function(
                FunctionName=self.function(name),
                Runtime="python3.12",
                Role=f"arn:aws:iam::{self.account}:role/{role}",
                Handler="app.app",
                Code={"ZipFile": package.getvalue()},
            )

    def function(self, name: str) -> str:
        return self.settings.prefix if name == "api" else f"{self.settings.prefix}-{name}"

    def found(self, name: str, settings: StoreSettings | None = None) -> list[Told]:
        """Return what the check of that name finds."""
        settings = settings or self.settings
        stores = open_stores(settings)
        work = WorkChecks(stores, self.told, self.clock, prefix=settings.prefix)
        checks = [*DeploymentChecks(stores, settings).checks(), *work.checks()]
        return list(answer(next(check for check in checks if check.name == name)))

    def faults(self, name: str, settings: StoreSettings | None = None) -> list[tuple[str, str]]:
        return [(told.status.value, told.what) for told in self.found(name, settings) if told.status is not Status.OK]


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    started = start_ministack(tmp_path_factory.mktemp("ministack"))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def shared(emulator: Emulator) -> Iterator[Deployed]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environment(REGION).items():
            patch.setenv(name, value)
        settings = replace(new_settings(), digest_bucket="")
        deployed = Deployed(settings, provision(settings), emulator.account)
        deployed.set_up()
        deployed.deploy_functions()
        yield deployed


@pytest.fixture
def deployed(shared: Deployed, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Deployed:
    for name, value in emulator.environment(REGION).items():
        monkeypatch.setenv(name, value)
    shared.clock = FakeClock(SystemClock().now())
    shared.told = {}
    return shared


def test_what_it_expects_is_what_infrastructure_makes() -> None:
    """Two lists of one thing drift apart: a table that is declared and never looked at, a Deny that nobody misses."""
    declared = json.loads((ROOT / "infra/tables.json").read_text())
    assert set(TABLES) == set(declared)
    assert {name for name, table in declared.items() if table.get("stream")} == STREAMED
    assert {name for name, table in declared.items() if table.get("expires")} == EXPIRING
    policy = json.loads((ROOT / "infra/bucket/policy.json").read_text())
    assert [statement["Sid"] for statement in policy["Statement"]] == list(DENIES)
    assert {path.stem for path in (ROOT / ".chalice/policies").glob("*.json")} == set(FUNCTIONS)
    manifest = json.loads((ROOT / "integrations/slack/manifest.json").read_text())
    assert set(manifest["oauth_config"]["scopes"]["bot"]) == SCOPES
    assert BUCKET_KEY == MADE_BUCKET_KEY


@pytest.mark.parametrize("name", ["tables", "bucket", "kms keys", "functions", "configuration"])
def test_a_deployment_as_infrastructure_makes_it(deployed: Deployed, name: str) -> None:
    """Nothing to say about what is right: a doctor that always finds something is read by nobody."""
    assert deployed.faults(name) == []
    assert deployed.found(name)[0].status is Status.OK


def test_tables_that_are_not_as_they_must_be(deployed: Deployed) -> None:
    """Each mode by itself: backups, protection, expiry, streams; and a table that is gone."""
    prefix = deployed.settings.prefix
    deployed.backups("chains", on=False)
    assert deployed.faults("tables") == [("wrong", "table chains: cannot be restored to a point in time")]
    deployed.backups("chains", on=True)
    for on in (False, True):
        deployed.dynamodb.update_table(TableName=f"{prefix}-asks", DeletionProtectionEnabled=on)
        assert deployed.faults("tables") == ([] if on else [("wrong", "table asks: one call deletes it")])
    for table, on, says in (("once", False, "never end"), ("chains", True, "end by themselves")):
        for state in (on, not on):
            deployed.dynamodb.update_time_to_live(
                TableName=f"{prefix}-{table}",
                TimeToLiveSpecification={"Enabled": state, "AttributeName": "expires"},
            )
            found = deployed.faults("tables")
            assert [(status, says in what) for status, what in found] == ([("wrong", True)] if state is on else [])
    (gone,) = deployed.faults("tables", replace(deployed.settings, prefix="nothing-here"))
    assert gone[0] == "wrong"
    assert gone[1].endswith(": not there")


def test_a_table_without_its_stream(deployed: Deployed) -> None:
    """Its changes are not archived, and nobody would miss them before the next digest."""
    table = f"{deployed.settings.prefix}-uses"
    deployed.dynamodb.update_table(TableName=table, StreamSpecification={"StreamEnabled": False})
    (found,) = deployed.faults("tables")
    assert found == ("wrong", "table uses: changes reach no stream: they are not archived, and no card is posted")
    deployed.dynamodb.update_table(
        TableName=table, StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    )


def test_a_bucket_that_was_opened(deployed: Deployed) -> None:
    """Attack: somebody with rights takes one statement of the policy away, or the block of public access."""
    settings = deployed.another_bucket()
    bucket = settings.bucket
    assert {status for status, _ in deployed.faults("bucket", settings)} == {"wrong"}, "a bare bucket is sound"
    deployed.set_up_bucket(bucket, mode="GOVERNANCE")
    (mode,) = deployed.faults("bucket", settings)
    assert (mode[0], "GOVERNANCE" in mode[1]) == ("warn", True)
    policy = deployed.policy(bucket)
    for sid in DENIES:
        kept = [statement for statement in policy["Statement"] if statement["Sid"] != sid]
        deployed.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({**policy, "Statement": kept}))
        assert ("wrong", f"its policy does not deny: {sid}") in deployed.faults("bucket", settings)
    everybody = {"Sid": "Open", "Effect": "Allow", "Principal": "*", "Action": "s3:GetObject"}
    opened = [*policy["Statement"], {**everybody, "Resource": f"arn:aws:s3:::{bucket}/*"}]
    deployed.block(bucket, on=False)
    deployed.s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps({**policy, "Statement": opened}))
    found = [what for _, what in deployed.faults("bucket", settings)]
    assert "its policy allows something to everybody" in found
    assert "public access is not blocked in all four ways" in found


def test_a_bucket_whose_lock_is_less_than_was_promised(deployed: Deployed) -> None:
    """Evidence that may be deleted tomorrow is none the day after."""
    settings = replace(deployed.another_bucket(), lock_days=30)
    deployed.set_up_bucket(settings.bucket)
    (found,) = deployed.faults("bucket", settings)
    assert found == ("wrong", "it locks objects for 1 day, where 30 are promised")
    without = deployed.another_bucket(lock=False)
    found_without = [what for _, what in deployed.faults("bucket", without)]
    assert "versions are off: what is overwritten is gone" in found_without
    assert "it has no Object Lock: evidence can be deleted" in found_without


def test_the_second_bucket(deployed: Deployed) -> None:
    """It is another account's: its lock is what its copies are worth."""
    settings = replace(deployed.settings, digest_bucket=deployed.another_bucket(lock=False).bucket)
    assert {status for status, _ in deployed.faults("digest bucket", settings)} == {"wrong"}


def test_keys_that_cannot_sign(deployed: Deployed) -> None:
    """A key that is disabled stops everything at once; one that is going to be deleted, next week and for ever."""
    key = deployed.made.keys["answer"]
    deployed.kms.disable_key(KeyId=key)
    assert deployed.faults("kms keys") == [("wrong", "the answer key is Disabled")]
    deployed.kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    (going,) = deployed.found("kms keys")
    assert (going.status, "going to be deleted" in going.what) == (Status.WRONG, True)
    assert "cancel-key-deletion" in going.fix
    deployed.kms.cancel_key_deletion(KeyId=key)
    deployed.kms.enable_key(KeyId=key)
    alias = f"alias/{deployed.settings.prefix}-copy"
    deployed.kms.update_alias(AliasName=alias, TargetKeyId=deployed.made.kept_key)
    assert deployed.faults("kms keys") == [("wrong", "the copy key is no P-256 signing key")]
    deployed.kms.update_alias(AliasName=alias, TargetKeyId=deployed.made.keys["copy"])
    deployed.kms.disable_key_rotation(KeyId=deployed.made.kept_key)
    assert [status for status, _ in deployed.faults("kms keys")] == ["warn"]
    deployed.kms.enable_key_rotation(KeyId=deployed.made.kept_key)
    assert deployed.faults("kms keys") == []


def test_functions_that_fail_or_are_not_there(deployed: Deployed) -> None:
    """How often and when, and never what a log says: it may hold what a client sent."""
    group = f"/aws/lambda/{deployed.function('decide')}"
    deployed.logs.create_log_group(logGroupName=group)
    deployed.logs.create_log_stream(logGroupName=group, logStreamName="s")
    at = int(deployed.clock.now().timestamp() * 1000)
    lines = ["START", '{"level":"ERROR","message":"tell-nobody"}', "[ERROR] tell-nobody"]
    deployed.logs.put_log_events(
        logGroupName=group, logStreamName="s", logEvents=[{"timestamp": at - 1000, "message": line} for line in lines]
    )
    (found,) = deployed.found("functions")
    assert found.status is Status.WARN
    assert found.what.startswith("function decide: logged 2 errors in the last hour")
    assert "tell-nobody" not in found.what + found.fix
    deployed.clock.advance(3700)
    assert deployed.faults("functions") == []
    deployed.functions.delete_function(FunctionName=deployed.function("sweep"))
    assert deployed.faults("functions") == [("wrong", "function sweep: not there")]


@pytest.mark.parametrize(
    ("body", "scopes", "status", "says"),
    [
        ('{"ok": true}', "chat:write", Status.OK, "takes the bot token"),
        ('{"ok": true}', "", Status.WRONG, "lacks chat:write"),
        ('{"ok": true}', "chat:write,channels:history", Status.WARN, "channels:history"),
        ('{"ok": false, "error": "token_revoked"}', "", Status.WRONG, "token_revoked"),
        ("<html>", "", Status.WRONG, "does not take"),
    ],
    ids=["sound", "too little", "too much", "revoked", "not Slack"],
)
def test_slack(deployed: Deployed, body: str, scopes: str, status: Status, says: str) -> None:
    """The token is used for one call, and is in nothing that is told."""
    value = "xoxb-tell-nobody"
    seen: list[Request] = []

    def slack(request: Request) -> Response:
        seen.append(request)
        return Response(body=body.encode(), headers={"x-oauth-scopes": scopes})

    secrets: Any = Session(region_name=REGION).client("secretsmanager")
    reference = f"{TOKEN}-{status.name}-{len(scopes)}-{len(body)}"
    secrets.create_secret(Name=reference, SecretString=value)
    server = LoopbackServer("slack", slack)
    server.start()
    deployed.told = {"COUNTERSIGN_SLACK_BOT_TOKEN": reference, "COUNTERSIGN_SLACK_API_URL": f"{server.url}/api/"}
    try:
        (told,) = deployed.found("slack")
    finally:
        server.stop()
    assert [request.path for request in seen] == ["/api/auth.test"]
    assert (told.status, says in told.what) == (status, True)
    assert value not in told.what + told.fix


def test_slack_that_nobody_named(deployed: Deployed) -> None:
    """Without the reference there is nothing to ask, and nothing is called sound."""
    assert [told.status for told in deployed.found("slack")] == [Status.UNKNOWN]


def test_issuers_that_are_down(deployed: Deployed) -> None:
    """The demo's are not started here: each of them is named."""
    found = deployed.faults("issuers")
    assert [status for status, _ in found] == ["wrong"] * 3
    assert all("shows no keys" in what for _, what in found)


def test_targets_are_those_of_the_active_configuration(deployed: Deployed) -> None:
    """Of the bundle that is active, and not of a file that somebody has here."""
    work = WorkChecks(deployed.stores, {}, deployed.clock, prefix=deployed.settings.prefix)
    assert [check.name for check in targets_of(work, {})] == ["target db-prod", "target orders-prod"]


def test_connections_that_dead_brokers_left(deployed: Deployed) -> None:
    """A sweeper that does not run is seen by nobody until somebody reviews."""
    now = deployed.clock.now()
    row = replace(connection_row(), opened_at=now - timedelta(hours=1))
    deployed.stores.connections.put(row)
    (found,) = deployed.faults("unsealed connections")
    assert (found[0], found[1].startswith("1 connection of dead brokers are not sealed")) == ("wrong", True)
    deployed.stores.beats.put(Beat(boot=row.boot, at=now))
    assert deployed.faults("unsealed connections") == []


def test_digests_that_stopped(deployed: Deployed) -> None:
    """Nothing commits to what is archived: fine in the first hour, and wrong ever after."""
    assert [told.status for told in deployed.found("hourly digests")] == [Status.OK]
    deployed.clock.advance(6 * 3600)
    (found,) = deployed.faults("hourly digests")
    assert (found[0], "nothing commits" in found[1]) == ("wrong", True)


def test_the_history_of_keys(deployed: Deployed) -> None:
    """Missing, sound, and with a key in it that nobody introduced."""
    assert [status for status, _ in deployed.faults("key history")] == ["warn"]
    ring = KmsKeyRing(deployed.stores.clients, deployed.stores.keys)
    keep = RotateKey(objects=deployed.stores.objects, ring=ring, clock=deployed.clock, by="operator")
    for purpose in PURPOSES:
        keep.begin(purpose)
    assert deployed.faults("key history") == []
    alias = f"alias/{deployed.settings.prefix}-record"
    other = deployed.kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    deployed.kms.update_alias(AliasName=alias, TargetKeyId=other)
    (found,) = deployed.faults("key history")
    assert (found[0], "record" in found[1]) == ("wrong", True)
    deployed.kms.update_alias(AliasName=alias, TargetKeyId=deployed.made.keys["record"])


def test_a_configuration_that_cannot_be_used(deployed: Deployed) -> None:
    """Attack: an activation that somebody wrote into the table; and a deployment without any."""
    before = deployed.stores.activations.latest()
    files = read_configuration(DEMO_BUNDLE).files
    assert before.bundle_digest == bundle_digest(files)
    forged = replace(activation(before.serial + 1, before.bundle_digest), activated_at=deployed.clock.now())
    deployed.stores.activations.put(forged)
    (found,) = deployed.faults("configuration")
    assert (found[0], found[1].startswith("configuration 2 cannot be used")) == ("wrong", True)
    settings = new_settings()
    provision(settings)
    assert deployed.faults("configuration", settings) == [("wrong", "no configuration was ever activated")]


def test_who_may_not_look_is_told_so(deployed: Deployed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without rights everything is unseen: not sound, not wrong, and no traceback."""
    iam: Any = Session(region_name=REGION).client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    for name in ("tables", "bucket", "kms keys", "functions", "hourly digests"):
        (told,) = deployed.found(name)
        assert (told.status, "may not look" in told.what) == (Status.UNKNOWN, True), name
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    (told,) = deployed.found("tables")
    assert (told.status, "NoCredentialsError" in told.what) == (Status.UNKNOWN, True)
