"""The bucket's policy, statement by statement, with the values that S3 gives its conditions.

Judged by ministack's evaluator of policies, in its own environment: the emulator itself has no value for some of the
conditions, so that those statements are tried here and nowhere else. The rest is tried live, by every role, in
``tests/conformance/test_rights.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest

from dev.bucket import LIFECYCLE, UNJUDGED, as_judged, bucket_policy, condition_keys, places_of

KEY_ARN: Final = "arn:aws:kms:eu-west-1:123456789012:key/1"
PLACES: Final = places_of(account="123456789012", function_prefix="cs-", bucket="b", bucket_key=KEY_ARN, lock_days=30)
OBJECT: Final = "arn:aws:s3:::b/rec/v1/s/c/000000.ndjson.gz"
BROKER: Final = "arn:aws:iam::123456789012:user/cs-broker"
RETAIN: Final = "arn:aws:iam::123456789012:user/cs-retain"
OTHER: Final = "arn:aws:iam::123456789012:user/cs-api"
# What S3 puts into the context of the product's own put.
GOOD: Final = {
    "s3:if-none-match": "*",
    "s3:x-amz-server-side-encryption": "aws:kms",
    "s3:x-amz-server-side-encryption-aws-kms-key-id": KEY_ARN,
}
Judge: TypeAlias = Callable[[list[dict[str, Any]]], list[str]]

_SCRIPT: Final = """
import json, sys
from ministack.core import iam_evaluator as judge
policy, asked = json.load(sys.stdin)
told = []
for one in asked:
    context = judge.EvalContext(
        principal_arn=one["who"], principal_type="User", principal_account="123456789012",
        action=one["action"], resource_arn=one["resource"], region="eu-west-1",
        service_context={key.lower(): value for key, value in one["context"].items()},
    )
    context.secure_transport = one["tls"]
    found = judge.evaluate_resource_policy(policy, context)
    told.append(found.matched_sid if found.decision == "Deny" else "")
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def judge() -> Judge:
    def ask(asked: list[dict[str, Any]]) -> list[str]:
        ran = subprocess.run(
            [str(Path(sys.prefix) / "emulator" / "bin" / "python"), "-c", _SCRIPT],
            input=json.dumps([bucket_policy(PLACES), asked]),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        return list(json.loads(ran.stdout))

    return ask


def put(who: str = BROKER, *, action: str = "s3:PutObject", tls: bool = True, **context: str | None) -> dict[str, Any]:
    """A put as the product makes it, but for what is given (None leaves a value out)."""
    named = {key: value for key, value in (GOOD | _spelled(context)).items() if value is not None}
    return {"who": who, "action": action, "resource": OBJECT, "context": named, "tls": tls}


def _spelled(context: dict[str, str | None]) -> dict[str, str | None]:
    names = {
        "match": "s3:if-none-match",
        "sse": "s3:x-amz-server-side-encryption",
        "key": "s3:x-amz-server-side-encryption-aws-kms-key-id",
        "days": "s3:object-lock-remaining-retention-days",
    }
    return {names[name]: value for name, value in context.items()}


CASES: Final = [
    ("", put()),
    ("", put(days="400")),
    ("TlsOnly", put(tls=False)),
    ("NothingIsReplaced", put(match=None)),
    ("EverythingIsEncrypted", put(sse=None)),
    ("EverythingIsEncrypted", put(sse="AES256")),
    ("WithOurKey", put(key=None)),
    ("WithOurKey", put(key="arn:aws:kms:eu-west-1:666666666666:key/theirs")),
    ("NoLockBelowTheDefault", put(days="29")),
    ("NoLockBelowTheDefault", put(action="s3:PutObjectRetention", days="29")),
    ("NoLockForEver", put(days="36500")),
    ("", put(action="s3:PutObjectRetention", days="400")),
    ("LocksByWhoSeals", put(OTHER, action="s3:PutObjectRetention", days="400")),
    ("HoldsByRetain", put(BROKER, action="s3:PutObjectLegalHold")),
    ("", put(RETAIN, action="s3:PutObjectLegalHold")),
    ("MarksByRetain", put(BROKER, action="s3:PutObjectTagging")),
    ("", put(RETAIN, action="s3:PutObjectTagging")),
    ("NothingIsDeleted", put(RETAIN, action="s3:DeleteObject")),
    ("NothingIsDeleted", put(action="s3:DeleteObjectVersion")),
    ("LocksAreNotBypassed", put(action="s3:BypassGovernanceRetention")),
    ("TheBucketStaysAsItIs", put(action="s3:PutObjectAcl")),
    ("", put(action="s3:GetObject")),
]


def test_each_statement_denies_what_it_is_for_and_nothing_else(judge: Judge) -> None:
    """A condition on a key that is misspelt denies everything or nothing; only S3 would show it."""
    assert judge([asked for _, asked in CASES]) == [sid for sid, _ in CASES]
    assert {sid for sid, _ in CASES if sid} == {one["Sid"] for one in bucket_policy(PLACES)["Statement"]}


def test_every_statement_denies() -> None:
    """What a role may do is in its own policy: the bucket's gives nothing to anybody."""
    assert {one["Effect"] for one in bucket_policy(PLACES)["Statement"]} == {"Deny"}


def test_the_emulator_gets_all_but_what_it_cannot_judge() -> None:
    """Each that is left out is tried above; one more would be a hole that nobody sees."""
    everything, judged = bucket_policy(PLACES)["Statement"], as_judged(bucket_policy(PLACES))["Statement"]
    left_out = [one for one in everything if one not in judged]
    assert {one["Sid"] for one in left_out} == {
        *("TlsOnly", "NothingIsReplaced", "WithOurKey", "NoLockBelowTheDefault", "NoLockForEver"),
    }
    assert set[str]().union(*(condition_keys(one) for one in left_out)) == UNJUDGED


def test_the_lifecycle_deletes_by_the_mark_alone() -> None:
    """S3 puts a delete marker on a locked and on a held object too: by age or prefix it would hide evidence."""
    for rule in json.loads(LIFECYCLE.read_text())["Rules"]:
        if {"Expiration", "NoncurrentVersionExpiration", "Transitions"} & set(rule):
            assert rule["Filter"] == {"Tag": {"Key": "countersign-over", "Value": "yes"}}
