"""The composition root and its roles: importable without a setting, and no role with more than it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
POLICIES = {path.stem: path for path in (ROOT / ".chalice" / "policies").glob("*.json")}
INFRA = {path.stem: path for path in (ROOT / "infra" / "policies").glob("*.json")}
FUNCTIONS = {
    *("hold", "retain"),
    *("sign", "decide", "mint", "review", "watch_targets", "watch_cloud", "post_cards", "reconcile"),
    *("sweep", "sign_off", "vouch_copy", "events", "archive_items", "digest", "open_token"),
}


def statements(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text())
    assert found["Version"] == "2012-10-17"
    return list(found["Statement"])


def allowed(path: Path, action: str) -> set[str]:
    """The resources on which a policy allows an action."""
    return {
        resource
        for statement in statements(path)
        if action in statement["Action"]
        for resource in ([statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"])
    }


def test_importing_reads_no_setting_and_opens_nothing() -> None:
    """`chalice package` imports the app where it has none of its settings; Slack and Cedar would cost a cold start."""
    code = (
        "import sys, app; "
        "print(sorted(app.app.handler_map)); "
        "print([name for name in ('slack_bolt', 'slack_sdk', 'cedarpy', 'boto3', 'pynamodb') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, env={}, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    names, loaded = ran.stdout.splitlines()
    assert set(FUNCTIONS) <= set(json.loads(names.replace("'", '"')))
    assert loaded == "[]"


def test_the_digest_asks_for_the_code_of_every_function() -> None:
    """One that is left out could be replaced without a word in any digest. Chalice names the API's by the stage."""
    told = {
        *("COUNTERSIGN_PREFIX=cs", "AWS_REGION=eu-west-1", "COUNTERSIGN_BUCKET=b", "COUNTERSIGN_STAGE=dev"),
        *("COUNTERSIGN_PUBLIC_URL=https://api.example", "COUNTERSIGN_BROKER_HOST=b", "COUNTERSIGN_SLACK_CHANNEL=c"),
        *("COUNTERSIGN_BROKER_POSTGRES_PORT=1", "COUNTERSIGN_BROKER_CA_PEM=x", "COUNTERSIGN_SLACK_SIGNING_SECRET=s"),
        *("COUNTERSIGN_SLACK_BOT_TOKEN=t", "COUNTERSIGN_FUNCTION_PREFIX=countersign-dev-"),
    }
    code = "import app, json; print(json.dumps(app.running_code()._functions))"
    environment = dict(one.split("=", 1) for one in told)
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    expected = {name: f"countersign-dev-{name}" for name in FUNCTIONS}
    assert json.loads(ran.stdout) == {**expected, "api": "countersign-dev"}


def test_chalice_makes_no_role_and_hides_no_functions_settings() -> None:
    """A role that Chalice made would have every right that it saw used; one for all would give the API the keys of
    ``sign``, ``decide`` and ``mint``. What a stage says for all functions hides what the top level says for each."""
    config = json.loads((ROOT / ".chalice" / "config.json").read_text())
    assert (config["autogen_policy"], config["manage_iam_role"]) == (False, False)
    assert config["api_gateway_endpoint_type"] == "REGIONAL"
    assert set(config["lambda_functions"]) == FUNCTIONS | {"api_handler"}
    each = {key for told in config["lambda_functions"].values() for key in told}
    for stage in config["stages"].values():
        assert not each & set(stage)


SIGNERS = {
    "sign": {"TOKEN", "SSH_USER"},
    "decide": {"ANSWER"},
    "mint": {"SSH_TARGET"},
    "sweep": {"SWEEP"},
    "sign_off": {"SIGNOFF"},
    "vouch_copy": {"COPY"},
    "digest": {"DIGEST"},
}


@pytest.mark.parametrize("role", sorted(POLICIES))
def test_a_role_signs_with_its_own_keys_alone(role: str) -> None:
    """The token key in the API's hands would make the separate functions theatre."""
    assert allowed(POLICIES[role], "kms:Sign") == {f"${{{key}_KEY}}" for key in SIGNERS.get(role, set())}


def test_only_the_broker_signs_records_and_only_mint_reads_credentials() -> None:
    """The broker may invoke ``mint`` and has no right to a target's secret."""
    assert allowed(INFRA["broker"], "kms:Sign") == {"${RECORD_KEY}"}
    assert allowed(INFRA["broker"], "secretsmanager:GetSecretValue") == set()
    assert allowed(INFRA["broker"], "lambda:InvokeFunction") == {
        "arn:aws:lambda:${REGION}:${ACCOUNT}:function:${FUNCTION_PREFIX}mint"
    }
    holders = {
        role
        for role, path in (POLICIES | INFRA).items()
        if any("targets" in resource for resource in allowed(path, "secretsmanager:GetSecretValue"))
    }
    assert holders == {"mint"}


WRITERS = {
    "chains": {"sign", "broker"},
    "sessions": {"api"},
    "connections": {"broker"},
    "beats": {"broker"},
    "asks": {"api", "broker"},
    "answers": {"decide"},
    "uses": {"api", "broker"},
    "revocations": {"api"},
    "once": {"api", "sign", "decide", "mint", "post_cards", "reconcile"},
    "activations": set(),
}


@pytest.mark.parametrize("table", WRITERS)
def test_a_table_has_the_writers_that_the_architecture_names(table: str) -> None:
    """Each table names its writer, and no other role has a right to write it."""
    resource = f"arn:aws:dynamodb:${{REGION}}:${{ACCOUNT}}:table/${{PREFIX}}-{table}"
    writers = {role for role, path in (POLICIES | INFRA).items() if resource in allowed(path, "dynamodb:PutItem")}
    assert writers == WRITERS[table]


def test_nobody_updates_what_is_append_only_and_nobody_deletes() -> None:
    """Hops, asks, answers, uses and revocations are facts; a right to change one would make them opinions."""
    for role, path in (POLICIES | INFRA).items():
        updated = {resource.rpartition("-")[2] for resource in allowed(path, "dynamodb:UpdateItem")}
        assert updated == {"api": {"sessions"}, "broker": {"connections"}, "sweep": {"connections"}}.get(role, set())
        actions = {action for statement in statements(path) for action in statement["Action"]}
        assert not any("Delete" in action or "*" in action for action in actions)
        assert not any("Batch" in action and "Write" in action for action in actions)


def test_who_seals_a_proof_cannot_open_it_and_who_opens_seals_none() -> None:
    """A token that lives is worth stealing: ``sign`` seals what it was shown, and ``open_token`` alone may decrypt."""
    roles = POLICIES | INFRA
    for action, holder in (("kms:GenerateDataKey", "sign"), ("kms:Decrypt", "open_token")):
        assert {role for role, path in roles.items() if "${KEPT_KEY}" in allowed(path, action)} == {holder}
    kept = "arn:aws:s3:::${BUCKET}/kept/*"
    assert {role for role, path in roles.items() if kept in allowed(path, "s3:PutObject")} == {"sign"}


OBJECTS = {"archive_items": {"items"}, "digest": {"digests"}}


@pytest.mark.parametrize("role", sorted(OBJECTS))
def test_who_archives_and_who_digests_put_nothing_else(role: str) -> None:
    """What counts the evidence must not be able to make any, nor the other way round."""
    put = {resource.rpartition("}/")[2].partition("/")[0] for resource in allowed(POLICIES[role], "s3:PutObject")}
    assert put == OBJECTS[role]
    others = {
        name
        for name, path in (POLICIES | INFRA).items()
        if name not in OBJECTS
        and any(
            resource.rpartition("}/")[2].partition("/")[0] in ("items", "digests", "*")
            for resource in allowed(path, "s3:PutObject")
        )
    }
    assert others == set()


def test_no_role_has_a_service_without_a_resource() -> None:
    """``Resource: *`` is for what AWS has no narrower name for."""
    for path in (POLICIES | INFRA).values():
        for statement in statements(path):
            if statement["Resource"] == "*":
                narrowed = statement["Sid"] == "ListTasks" and "ArnLike" in statement["Condition"]
                assert narrowed or statement["Sid"] in ("OwnTraces", "FindStreams", "LogIntoRegistry")
