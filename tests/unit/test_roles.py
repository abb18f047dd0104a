"""The roles of the functions: each has what its work needs, and the rights that must be apart are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
POLICIES = {path.stem: json.loads(path.read_text()) for path in (ROOT / ".chalice/policies").glob("*.json")}
AUDITOR = json.loads((ROOT / "infra/policies/auditor.json").read_text())
_OWN = {"OwnLog", "OwnTraces"}
_VERIFY_ALL = {"ReadWitnessedKeys", "ScanTables", "ReadArchive", "ListDigestBucket"}


def allowed(role: str, action: str) -> set[str]:
    """Return the resources on which ``role`` may do ``action``."""
    found: set[str] = set()
    for statement in POLICIES[role]["Statement"]:
        if action in statement["Action"]:
            found |= {statement["Resource"]} if isinstance(statement["Resource"], str) else set(statement["Resource"])
    return found


def test_every_function_has_a_role_of_its_own_in_every_stage() -> None:
    """A function without an entry gets Chalice's default role, which is the API's."""
    names = set(
        re.findall(r'@app\.(?:lambda_function|schedule)\([^\n]*name="([a-z_]+)"', (ROOT / "app.py").read_text())
    )
    for stage in json.loads((ROOT / ".chalice/config.json").read_text())["stages"].values():
        entries: dict[str, Any] = stage["lambda_functions"]
        assert set(entries) == names | {"api_handler"}
        for name, entry in entries.items():
            role = "api" if name == "api_handler" else name
            assert entry["iam_policy_file"] == f"policies/{role}.json"
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
