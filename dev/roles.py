"""The roles of the stack: each part runs with credentials of its own, under the very policies that a deployment uses.

Rules: a policy file is a template with ``${NAME}`` places and nothing else; a place that nobody fills, or a file that
is no policy, stops the start. Each role is an IAM user with that one inline policy in the emulator, which evaluates it
on every call: a part that lacks a right fails here before it fails in AWS. (In AWS they are roles; the emulator's
session tokens would end after an hour, and this stack may run for a day.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, Final, Protocol

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.secret import Secret
from dev.settings import ROOT

_FOLDERS: Final = (ROOT / ".chalice" / "policies", ROOT / "infra" / "policies")


class Iam(Protocol):
    """What is used of boto3's IAM client."""

    def create_user(self, *, UserName: str) -> Any: ...  # noqa: N803 - boto3's names

    def put_user_policy(self, *, UserName: str, PolicyName: str, PolicyDocument: str) -> Any: ...  # noqa: N803

    def create_access_key(self, *, UserName: str) -> Any: ...  # noqa: N803


@dataclass(frozen=True, kw_only=True, slots=True)
class Role:
    """One part's credentials, and the policy that they are under."""

    name: str
    access_key: str
    secret_key: Secret
    policy: Mapping[str, Any]

    def environment(self) -> dict[str, str]:
        """Return what botocore reads."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key.expose()}


def policy_files() -> dict[str, Path]:
    """Return the policy templates by role name. Raises ConfigurationInvalid where two have one name."""
    found: dict[str, Path] = {}
    for path in sorted(path for folder in _FOLDERS for path in folder.glob("*.json")):
        if path.stem in found:
            raise ConfigurationInvalid(f"{path} and {found[path.stem]} are policies of one name")
        found[path.stem] = path
    return found


def render_policy(path: Path, places: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the policy of the template ``path``. Raises ConfigurationInvalid naming the file and what is wrong."""
    try:
        policy = json.loads(Template(path.read_text()).substitute(places))
    except (KeyError, ValueError) as error:
        raise ConfigurationInvalid(f"{path}: not a policy template: {error}") from error
    if not isinstance(policy, dict) or policy.get("Version") != "2012-10-17" or not policy.get("Statement"):
        raise ConfigurationInvalid(f"{path}: not a policy of version 2012-10-17")
    return policy


def make_roles(iam: Iam, places: Mapping[str, str], aliases: Mapping[str, str], *, prefix: str) -> dict[str, Role]:
    """Create every role in the emulator and return them by name. ``aliases`` is each key's ARN to its alias's. Not
    idempotent: one emulator, one start."""
    rendered = {name: render_policy(path, places) for name, path in policy_files().items()}
    return {name: _make(iam, name, f"{prefix}{name}", policy, aliases) for name, policy in rendered.items()}


def as_emulated(policy: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Return ``policy`` with the resources that the emulator compares where AWS compares others. Pure.

    ministack 1.5 takes a key that is named by its alias for a resource of that name, where AWS takes the key; and knows
    no resource for calls on a stream, where AWS takes the stream's ARN.
    """
    return {**policy, "Statement": [_statement(statement, aliases) for statement in policy["Statement"]]}


def _statement(statement: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    named = statement["Resource"]
    resources: list[str] = named if isinstance(named, list) else [named]
    if all("/stream/" in resource for resource in resources):
        return {**statement, "Resource": "*"}
    return {**statement, "Resource": [*resources, *(aliases[found] for found in resources if found in aliases)]}


def _make(iam: Iam, name: str, user: str, policy: Mapping[str, Any], aliases: Mapping[str, str]) -> Role:
    iam.create_user(UserName=user)
    document = json.dumps(as_emulated(policy, aliases))
    iam.put_user_policy(UserName=user, PolicyName=name, PolicyDocument=document)
    key = iam.create_access_key(UserName=user)["AccessKey"]
    return Role(name=name, access_key=key["AccessKeyId"], secret_key=Secret(key["SecretAccessKey"]), policy=policy)
