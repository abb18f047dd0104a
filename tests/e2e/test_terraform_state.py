"""What Terraform makes of state and rights: valid as text, and in an emulator as it says, read back through APIs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from boto3.session import Session

from chalicelib.domain.signature import KeyPurpose
from dev.bucket import LIFECYCLE, POLICY
from dev.emulator import ACCOUNT, start_ministack
from dev.provision import declared_tables
from dev.roles import policy_files, render_policy
from tests.e2e.terraform import STAGE, Terraform, terraform_in

REGION: Final = "eu-west-1"
NAME: Final = f"countersign-{STAGE}"
BUCKET: Final = f"{NAME}-{ACCOUNT}"
ROLES: Final = f"arn:aws:iam::{ACCOUNT}:role/{NAME}-"
TOLD: Final[dict[str, object]] = {
    "region": REGION,
    "stage": STAGE,
    "broker_ca_pem": "x",
    "slack_channel": "C1",
    "auditors": [f"arn:aws:iam::{ACCOUNT}:root"],
}
OURS: Final = tuple(f"-target=module.{module}" for module in ("network", "roles", "keys", "data"))
# ministack 1.5 gives every security group a rule that lets everything out, as AWS does, and takes ours for that one.
FORGOTTEN: Final = {"module.network.aws_vpc_security_group_egress_rule.broker"}
SIGNS: Final = {
    KeyPurpose.TOKEN: "sign",
    KeyPurpose.SSH_USER: "sign",
    KeyPurpose.ANSWER: "decide",
    KeyPurpose.SSH_TARGET: "mint",
    KeyPurpose.RECORD: "broker",
    KeyPurpose.SWEEP: "sweep",
    KeyPurpose.SIGNOFF: "sign_off",
    KeyPurpose.DIGEST: "digest",
    KeyPurpose.COPY: "vouch_copy",
}


@pytest.mark.e2e
def test_it_is_valid_and_formatted(tmp_path: Path) -> None:
    """A fault here would be met by whoever deploys, halfway."""
    terraform = terraform_in(tmp_path)
    assert terraform.run("fmt", "-check", "-recursive", "-no-color").stdout == ""
    assert "Success!" in terraform.done("validate")


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("stage", "Prod", "A stage is"),
        ("lock_mode", "NONE", "GOVERNANCE or COMPLIANCE"),
        ("lock_mode", "COMPLIANCE", "needs a break_glass_role"),
        ("lock_days", 0, "Whole days"),
        ("subnet_ids", ["subnet-1"], "two subnets"),
    ],
)
@pytest.mark.soak
def test_a_wrong_input_is_told_before_anything_is_made(tmp_path: Path, variable: str, value: object, told: str) -> None:
    """A lock mode or a stage that is wrong is a bucket that cannot be taken back."""
    terraform = terraform_in(tmp_path, "http://127.0.0.1:9", **{**TOLD, variable: value})
    ended = terraform.run("plan", "-input=false", "-no-color")
    assert ended.returncode == 1
    assert told in ended.stderr


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """What stands in the emulator, and what Terraform says of it."""

    terraform: Terraform
    endpoint: str
    outputs: dict[str, Any]

    def client(self, service: str) -> Any:
        return Session("test", "test", region_name=REGION).client(service, endpoint_url=self.endpoint)

    def key(self, alias: str) -> str:
        return str(self.client("kms").describe_key(KeyId=f"alias/{NAME}-{alias}")["KeyMetadata"]["Arn"])


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applied]:
    emulator = start_ministack(tmp_path_factory.mktemp("emulator"))
    try:
        terraform = terraform_in(tmp_path_factory.mktemp("terraform"), emulator.endpoint, **TOLD)
        terraform.done("apply", "-input=false", "-auto-approve", *OURS)
        yield Applied(terraform=terraform, endpoint=emulator.endpoint, outputs=terraform.outputs())
        terraform.done("apply", "-input=false", "-auto-approve", "-var=protect=false", *OURS)
        terraform.done("destroy", "-input=false", "-auto-approve", "-var=protect=false", *OURS)
    finally:
        emulator.stop()


def places(applied: Applied) -> dict[str, str]:
    keys = {f"{purpose.name}_KEY": applied.key(purpose.value) for purpose in KeyPurpose}
    return {
        "ACCOUNT": ACCOUNT,
        "REGION": REGION,
        "PREFIX": NAME,
        "FUNCTION_PREFIX": f"{NAME}-",
        "BUCKET": BUCKET,
        "DIGEST_BUCKET": BUCKET,
        "DATABASE": NAME.replace("-", "_"),
        "BUCKET_KEY": applied.key("bucket"),
        "KEPT_KEY": applied.key("kept"),
        **keys,
    }


@pytest.mark.soak
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_a_second_plan_changes_nothing(applied: Applied) -> None:
    """A deployment that is never the same as it is described hides the change that matters."""
    plan = applied.terraform.folder / "again"
    applied.terraform.done("plan", "-input=false", f"-out={plan}", *OURS)
    told = json.loads(applied.terraform.done("show", "-json", str(plan)))
    changed = {
        one["address"] for one in told["resource_changes"] if one["change"]["actions"] not in (["no-op"], ["read"])
    }
    assert changed <= FORGOTTEN


@pytest.mark.soak
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_tables_are_as_declared(applied: Applied) -> None:
    """Without recovery, protection and a key of its own a table is as good as its last writer."""
    dynamodb = applied.client("dynamodb")
    for name, declared in declared_tables().items():
        table = dynamodb.describe_table(TableName=f"{NAME}-{name}")["Table"]
        assert [key["AttributeName"] for key in table["KeySchema"]] == [attribute for attribute, _ in declared.key]
        assert {index["IndexName"] for index in table.get("GlobalSecondaryIndexes", [])} == set(declared.indexes)
        assert (table.get("StreamSpecification", {}).get("StreamViewType") == "NEW_AND_OLD_IMAGES") is declared.streamed
        assert table["SSEDescription"]["KMSMasterKeyArn"] == applied.key("tables")
        assert table["DeletionProtectionEnabled"]
        assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        backups = dynamodb.describe_continuous_backups(TableName=f"{NAME}-{name}")["ContinuousBackupsDescription"]
        assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
        ttl = dynamodb.describe_time_to_live(TableName=f"{NAME}-{name}")["TimeToLiveDescription"]
        assert (ttl["TimeToLiveStatus"] == "ENABLED") is declared.expires
    assert set(applied.outputs["streams"]) == {name for name, table in declared_tables().items() if table.streamed}


@pytest.mark.soak
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_the_bucket_locks_encrypts_and_is_nobodys(applied: Applied) -> None:
    """What it does not refuse itself is left to every policy of the account."""
    s3 = applied.client("s3")
    lock = s3.get_object_lock_configuration(Bucket=BUCKET)["ObjectLockConfiguration"]
    assert lock["Rule"]["DefaultRetention"] == {"Mode": "GOVERNANCE", "Days": 365}
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    rule = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"][0]
    default = rule["ApplyServerSideEncryptionByDefault"]
    assert default == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": applied.key("bucket")}
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert {rule["ID"] for rule in rules} == {rule["ID"] for rule in json.loads(LIFECYCLE.read_text())["Rules"]}
    filled = {
        "BUCKET": BUCKET,
        "BUCKET_KEY": applied.key("bucket"),
        "LOCK_DAYS": "365",
        "FUNCTION_PREFIX": f"{NAME}-",
        "PRINCIPALS": f"arn:aws:iam::{ACCOUNT}:role/",
        "BROKER": f"{ROLES}broker",
        "BREAK_GLASS": f"arn:aws:iam::{ACCOUNT}:root",
    }
    assert json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"]) == render_policy(POLICY, filled)


@pytest.mark.soak
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_each_role_has_its_template_and_no_more(applied: Applied) -> None:
    """The tests of rights try the templates: a role that has something else was tried by nobody."""
    iam, filled = applied.client("iam"), places(applied)
    made = {name: path for name, path in policy_files().items() if name not in ("compaction", "forward_events")}
    for name, path in made.items():
        role = f"{NAME}-{name}"
        assert iam.list_role_policies(RoleName=role)["PolicyNames"] == [name]
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        assert document == render_policy(path, filled)
        (trusted,) = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]["Statement"]
        people = {"auditor": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "query": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}
        tasks = {role: {"Service": "ecs-tasks.amazonaws.com"} for role in ("broker", "execution")}
        assert trusted["Principal"] == {**people, **tasks}.get(name, {"Service": "lambda.amazonaws.com"})
    found = {role["RoleName"] for role in iam.list_roles(PathPrefix="/", MaxItems=1000)["Roles"]}
    assert {role for role in found if role.startswith(f"{NAME}-")} - {f"{NAME}-compaction"} == {
        f"{NAME}-{name}" for name in made
    }


@pytest.mark.soak
@pytest.mark.e2e
@pytest.mark.timeout(400)
def test_each_key_lets_in_its_own_role(applied: Applied) -> None:
    """A role's policy that somebody widens must widen nothing alone; and nobody ends a key."""
    kms = applied.client("kms")
    for alias in (*(purpose.value for purpose in KeyPurpose), "bucket", "tables", "kept"):
        policy = json.loads(kms.get_key_policy(KeyId=applied.key(alias), PolicyName="default")["Policy"])
        said = {one["Sid"]: one for one in policy["Statement"]}
        assert said["NobodyElseEnds"]["Effect"] == "Deny"
        assert "Condition" not in said["NobodyElseEnds"]
        assert not {"kms:Sign", "kms:Decrypt", "kms:GenerateDataKey", "kms:*"} & set(said["Manage"]["Action"])
        if alias in SIGNS:
            role = f"{ROLES}{SIGNS[KeyPurpose(alias)]}"
            assert said["SignAsItsOwner"]["Principal"] == {"AWS": role}
            assert said["NobodyElseSigns"]["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": role}}
        elif alias == "kept":
            assert said["Seal"]["Principal"] == {"AWS": f"{ROLES}sign"}
            assert said["Open"]["Principal"] == {"AWS": f"{ROLES}open_token"}
    for alias in ("bucket", "tables", "kept"):
        assert kms.get_key_rotation_status(KeyId=applied.key(alias))["KeyRotationEnabled"]
