"""Policy templates: rendered whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.signature import KeyPurpose
from dev.roles import as_emulated, make_roles, policy_files, render_policy

PLACES = {
    name: f"<{name}>"
    for name in (
        *("ACCOUNT", "REGION", "PREFIX", "BUCKET", "DIGEST_BUCKET", "DATABASE", "FUNCTION_PREFIX"),
        *("BUCKET_KEY", "KEPT_KEY"),
        *(f"{purpose.name}_KEY" for purpose in KeyPurpose),
    )
}


class Iam:
    """Keeps the contract of the three calls: a user has one policy and one key."""

    def __init__(self) -> None:
        self.policies: dict[str, Any] = {}

    def create_user(self, *, UserName: str) -> Any:  # noqa: N803
        assert UserName not in self.policies
        self.policies[UserName] = None
        return {}

    def put_user_policy(self, *, UserName: str, PolicyName: str, PolicyDocument: str) -> Any:  # noqa: N803
        self.policies[UserName] = json.loads(PolicyDocument)
        return {}

    def create_access_key(self, *, UserName: str) -> Any:  # noqa: N803
        return {"AccessKey": {"AccessKeyId": f"AKIA{UserName}", "SecretAccessKey": f"secret of {UserName}"}}


def test_every_policy_of_the_product_renders() -> None:
    """A place that nobody fills would leave a right on a resource that does not exist: everything with it is denied."""
    for path in policy_files().values():
        assert "${" not in json.dumps(render_policy(path, PLACES))


def test_each_role_gets_its_own_user_policy_and_key() -> None:
    """Two parts that share a key share their rights."""
    iam = Iam()
    roles = make_roles(iam, PLACES, {}, prefix="cs-")
    assert set(iam.policies) == {f"cs-{name}" for name in policy_files()}
    assert all(iam.policies[f"cs-{name}"] == as_emulated(role.policy, {}) for name, role in roles.items())
    assert len({role.access_key for role in roles.values()}) == len(roles)


def test_the_emulators_other_resources_widen_no_other_right() -> None:
    """Only a stream's calls lose their resource, and a key gains no alias but its own."""
    stream = {"Effect": "Allow", "Action": "dynamodb:GetRecords", "Resource": ["arn:table/a/stream/*"]}
    key = {"Effect": "Allow", "Action": "kms:Sign", "Resource": "arn:key/1"}
    table = {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": "arn:table/a"}
    found = as_emulated(
        {"Statement": [stream, key, table]}, {"arn:key/1": "arn:alias/one", "arn:key/2": "arn:alias/two"}
    )
    assert [statement["Resource"] for statement in found["Statement"]] == [
        "*",
        ["arn:key/1", "arn:alias/one"],
        ["arn:table/a"],
    ]


@pytest.mark.parametrize(
    "text",
    ['{"Version": "${WHAT}"}', "{", "[]", '{"Version": "2012-10-17"}', '{"Version": "2008-10-17", "Statement": [1]}'],
)
def test_a_template_that_is_wrong_names_its_file(tmp_path: Path, text: str) -> None:
    """The start ends there, not at the first call that a part makes."""
    path = tmp_path / "sign.json"
    path.write_text(text)
    with pytest.raises(ConfigurationInvalid, match=r"sign\.json"):
        render_policy(path, PLACES)
