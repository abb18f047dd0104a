"""The roles of the functions: each has what its work needs, and the rights that must be apart are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
POLICIES = {path.stem: json.loads(path.read_text()) for path in (ROOT / ".chalice/policies").glob("*.json")}
AUDITOR = json.loads((ROOT / "infra/policies/auditor.json").read_text())
OTHERS = {path.stem: json.loads(path.read_text()) for path in (ROOT / "infra/policies").glob("*.json")}
KEY_ARN = "arn:aws:kms:eu-west-1:111111111111:key/00000000-0000-0000-0000-000000000000"
_OWN = {"OwnLog", "OwnTraces"}
_VERIFY_ALL = {"ReadWitnessedKeys", "ScanTables", "ReadArchive", "ListDigestBucket"}


def allowed(role: str, action: str) -> set[str]:
    """Return the resources on which ``role`` may do ``action``."""
    found: set[str] = set()
    for statement in POLICIES[role]["Statement"]:
        if action in statement["Action"]:
            found |= {statement["Resource"]} if isinstance(statement["Resource"], str) else set(statement["Resource"])
    return found


def test_every_function_has_settings_and_a_policy_of_its_own() -> None:
    """A function without an entry would get no role when a stage is written (``infra.deploy.stage``)."""
    names = set(
        re.findall(r'@app\.(?:lambda_function|schedule)\([^\n]*name="([a-z_]+)"', (ROOT / "app.py").read_text())
    )
    entries: dict[str, Any] = json.loads((ROOT / ".chalice/config.json").read_text())["lambda_functions"]
    assert set(entries) == names | {"api_handler"}
    assert set(POLICIES) == names | {"api"}


def test_the_review_function_has_an_auditors_rights_and_no_more() -> None:
    """It is invoked by the function that strangers call: a right to write would be theirs. It reviews by key: listing
    whole tables, and the archive under them, is for the auditor alone."""
    own = [statement for statement in POLICIES["review"]["Statement"] if statement["Sid"] not in _OWN]
    assert own == [statement for statement in AUDITOR["Statement"] if statement["Sid"] not in _VERIFY_ALL]


def test_who_watches_targets_reads_and_writes_nothing_of_ours() -> None:
    """What comes in a target's log is written by whoever tried to log in there."""
    assert {statement["Sid"] for statement in POLICIES["watch_targets"]["Statement"]} == _OWN


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("SWEEP_KEY", "sweep"),
        ("DIGEST_KEY", "digest"),
        ("TOKEN_KEY", "sign"),
        ("SSH_USER_KEY", "sign"),
        ("ANSWER_KEY", "decide"),
        ("SSH_TARGET_KEY", "mint"),
        ("SIGNOFF_KEY", "sign_off"),
        ("COPY_KEY", "vouch_copy"),
    ],
)
def test_each_key_signs_for_one_role(key: str, role: str) -> None:
    """Authority lives where the key is: the API function, above all, signs nothing."""
    assert {name for name in POLICIES if f"${{{key}}}" in allowed(name, "kms:Sign")} == {role}


def test_the_api_invokes_sign_decide_and_review_alone() -> None:
    """`mint` hands out targets' credentials: it is the broker's to call, never the edge's."""
    invoked = {resource.rpartition("}")[2] for resource in allowed("api", "lambda:InvokeFunction")}
    assert invoked == {"hold", "sign", "decide", "review", "sign_off", "vouch_copy", "open_token"}
    assert not any(allowed(name, "lambda:InvokeFunction") for name in POLICIES if name != "api")


# Why each is there is told in docs/permissions.md: AWS knows no resource for these calls.
NO_RESOURCE = {
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
    "dynamodb:ListStreams",
    "ecr:GetAuthorizationToken",
    "ecs:ListTasks",
}


def test_no_right_has_a_wildcard_that_is_not_written_down() -> None:
    """A `*` is a right on what nobody has thought of yet."""
    for name, policy in (POLICIES | OTHERS).items():
        for statement in policy["Statement"]:
            actions = set(statement["Action"])
            assert statement["Effect"] == "Allow", name
            assert not any("*" in action for action in actions), name
            assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement), name
            if statement["Resource"] == "*":
                assert actions <= NO_RESOURCE, (name, actions)
            else:
                assert all(resource.count(":") >= 5 or resource.startswith("${") for resource in statement["Resource"])


@pytest.mark.parametrize(
    ("action", "roles"),
    [
        ("secretsmanager:GetSecretValue", {"api", "decide", "mint", "post_cards", "reconcile", "execution"}),
        ("lambda:InvokeFunction", {"api", "broker"}),
        ("dynamodb:DeleteItem", set[str]()),
        ("dynamodb:BatchWriteItem", set[str]()),
        ("s3:DeleteObject", set[str]()),
        ("s3:DeleteObjectVersion", set[str]()),
        ("s3:BypassGovernanceRetention", set[str]()),
        ("sts:AssumeRole", set[str]()),
        ("iam:PassRole", set[str]()),
        ("kms:CreateGrant", set[str]()),
        ("ecs:ExecuteCommand", set[str]()),
        ("logs:CreateLogGroup", set[str]()),
    ],
)
def test_who_may_at_all(action: str, roles: set[str]) -> None:
    """What nobody has cannot be taken over with a role."""
    every = POLICIES | OTHERS
    assert {
        name for name, policy in every.items() if any(action in one["Action"] for one in policy["Statement"])
    } == roles


def test_each_function_writes_its_own_log_and_no_other() -> None:
    """Audit events come out of logs: who could write into another's log could say what it never did."""
    for name, policy in POLICIES.items():
        (own,) = (one for one in policy["Statement"] if one["Sid"] == "OwnLog")
        group = "${PREFIX}" if name == "api" else f"${{FUNCTION_PREFIX}}{name}"
        assert own["Resource"] == [f"arn:aws:logs:${{REGION}}:${{ACCOUNT}}:log-group:/aws/lambda/{group}:*"]


def test_targets_credentials_are_mints_alone() -> None:
    """The broker, whoever starts it and the API read no target's secret; Slack's are read by who needs them."""
    found = {
        (name, resource.rpartition("secret:${PREFIX}/")[2])
        for name, policy in (POLICIES | OTHERS).items()
        for statement in policy["Statement"]
        if "secretsmanager:GetSecretValue" in statement["Action"]
        for resource in statement["Resource"]
    }
    assert found == {
        ("mint", "targets/*"),
        ("execution", "broker/*"),
        ("api", "slack/signing-secret*"),
        ("decide", "slack/signing-secret*"),
        ("post_cards", "slack/bot-token*"),
        ("reconcile", "slack/bot-token*"),
    }


def test_the_other_accounts_policy_allows_what_the_roles_use_of_it() -> None:
    """Across accounts both must allow: what is missing in theirs is found at the first hour, by an alarm."""
    theirs = json.loads((ROOT / "infra/bucket/digest_copy.json").read_text())
    allowed_there = {
        (statement["Condition"]["ArnEquals"]["aws:PrincipalArn"].rpartition("-")[2], action, resource)
        for statement in theirs["Statement"]
        if statement["Effect"] == "Allow"
        for action in statement["Action"]
        for resource in statement["Resource"]
    }
    used = {
        (role, action, resource)
        for role, policy in (("digest", POLICIES["digest"]), ("auditor", AUDITOR))
        for statement in policy["Statement"]
        for action in statement["Action"]
        for resource in statement["Resource"]
        if "${DIGEST_BUCKET}" in resource
    }
    assert allowed_there == used


def test_an_iam_linter_knows_every_action(tmp_path: Path) -> None:
    """An action that AWS does not know is a right that nobody has, found at the first call in production."""
    linter = Path(sys.prefix) / "emulator" / "bin" / "cfn-lint"
    every = POLICIES | OTHERS
    filled = {
        name: json.loads(re.sub(r"\$\{[A-Z_]+_KEY\}", KEY_ARN, json.dumps(policy)).replace("${ACCOUNT}", "1" * 12))
        for name, policy in every.items()
    }
    plain = {name: json.loads(re.sub(r"\$\{[A-Z_]+\}", "x", json.dumps(policy))) for name, policy in filled.items()}
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Resources": {
            f"P{number}": {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {"PolicyDocument": policy, "Description": name},
            }
            for number, (name, policy) in enumerate(sorted(plain.items()))
        },
    }
    path = tmp_path / "policies.json"
    path.write_text(json.dumps(template))
    command = [str(linter), "--region", "eu-west-1", "--", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
