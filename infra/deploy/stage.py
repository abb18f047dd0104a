"""What Terraform made, as the stage of ``.chalice/config.json`` that Chalice deploys. Pure but for the files it names.

Rules: what all stages share (memory, timeout, concurrency of each function) is checked in at the file's top level,
once; a stage has what differs: roles and environment. Chalice reads no other file, so the stage is written into this
one, and the rest of it is left as it was. No secret's value is among it: secrets are named.
Source: Chalice 1.34, ``chalice.config.Config._chain_lookup``: a stage's function, the stage, the top level's function,
the top level; the stage's own values therefore hide the functions' of the top level, and a stage sets none of those.
AWS Lambda quotas: all environment variables of a function, 4 KB.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.settings import read_settings

API_FUNCTION: Final = "api_handler"  # Chalice's name of the API's function; its role is ``api``
API_ROLE: Final = "api"
API_STAGE: Final = "api"  # as ``api_gateway_stage`` of the checked-in file
STAGE_NAME: Final = re.compile(r"[a-z][a-z0-9]{1,15}\Z")
# Until API Gateway has given the API an id its address is unknown; .invalid resolves nowhere (RFC 2606 section 2).
NOT_YET: Final = "https://not-deployed-yet.invalid"
_ENVIRONMENT_BYTES: Final = 3900  # of Lambda's 4096: X-Ray and the runtime add a little of their own
_ROLE_ARN: Final = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class BrokerAddress:
    """Where clients reach the broker; ``ssh_port`` is 0 where it serves no ssh. ``ca_pem`` vouches for its
    certificate."""

    host: str
    postgres_port: int
    ssh_port: int
    ca_pem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What the root module of ``infra`` says it made. ``roles`` are ARNs by the name of the role's policy file;
    ``environment`` is what every function is told, without the API's own address. ``public_url`` is empty where the API
    keeps the address that API Gateway gives it. ``secrets`` are the ARNs of those that a person puts values in."""

    name: str
    region: str
    bucket: str
    digest_bucket: str
    lock_mode: str
    roles: Mapping[str, str]
    environment: Mapping[str, str]
    public_url: str
    approval_url: str
    broker: BrokerAddress
    secrets: Mapping[str, str]


def check_stage_name(stage: str) -> str:
    """Return ``stage``. Raises ConfigurationInvalid: it becomes part of names, paths and arguments."""
    if not STAGE_NAME.match(stage):
        raise ConfigurationInvalid("a stage's name is 2 to 16 small letters and digits, and begins with a letter")
    return stage


def read_outputs(text: str) -> Outputs:
    """Return what ``terraform output -json`` printed. Raises ConfigurationInvalid naming the output that is missing or
    of another type: before the first apply there is none."""
    try:
        told = {name: each["value"] for name, each in json.loads(text).items()}
        functions, broker = told["functions"], told["broker"]
        found = Outputs(
            name=_text(told, "name"),
            region=_text(told, "region"),
            bucket=_text(told, "bucket"),
            digest_bucket=_text(told, "digest_bucket"),
            lock_mode=_text(told, "lock_mode"),
            roles={name: _text(functions["roles"], name) for name in functions["roles"]},
            environment={name: _text(functions["environment"], name) for name in functions["environment"]},
            public_url=_text(told, "public_url").rstrip("/"),
            approval_url=_text(told, "approval_url").rstrip("/"),
            broker=BrokerAddress(
                host=_text(broker, "host"),
                postgres_port=int(broker["postgres_port"]),
                ssh_port=int(broker["ssh_port"]),
                ca_pem=_text(broker, "ca_pem"),
            ),
            secrets={name: _text(told["secrets"], name) for name in told["secrets"]},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationInvalid(f"terraform's outputs are not those of infra/outputs.tf: {error}") from error
    wrong = sorted(name for name, arn in found.roles.items() if not _ROLE_ARN.match(arn))
    if wrong:
        raise ConfigurationInvalid(f"terraform's output functions.roles has no role's ARN for {', '.join(wrong)}")
    return found


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told[name]
    if not isinstance(value, str):
        raise TypeError(f"{name} is not text")
    return value


def function_environment(outputs: Outputs, public_url: str) -> dict[str, str]:
    """Return the environment of every function. Raises ConfigurationInvalid where the app would not start with it, or
    Lambda not take it: found here, and not in a function's log after the deployment."""
    approval = {"COUNTERSIGN_APPROVAL_URL": outputs.approval_url} if outputs.approval_url else {}
    environment = {**outputs.environment, "COUNTERSIGN_PUBLIC_URL": public_url, **approval}
    settings = read_settings({"AWS_REGION": outputs.region, **environment})
    if settings.function_prefix != f"{outputs.name}-":
        raise ConfigurationInvalid("COUNTERSIGN_FUNCTION_PREFIX is not what Chalice names the functions by")
    size = sum(len(name) + len(value) for name, value in environment.items())
    if size > _ENVIRONMENT_BYTES:
        raise ConfigurationInvalid(f"the functions' environment has {size} bytes, Lambda takes {_ENVIRONMENT_BYTES}")
    return environment


def chalice_stage(shared: Mapping[str, Any], outputs: Outputs, public_url: str) -> dict[str, Any]:
    """Return the stage for the checked-in settings ``shared``: a role of its own for each function that they list.
    Raises ConfigurationInvalid where Terraform made no role for one."""
    roles: dict[str, dict[str, str]] = {}
    for function in shared["lambda_functions"]:
        role = outputs.roles.get(API_ROLE if function == API_FUNCTION else function)
        if role is None:
            raise ConfigurationInvalid(f"terraform made no role for the function {function}")
        roles[function] = {"iam_role_arn": role}
    if len({each["iam_role_arn"] for each in roles.values()}) != len(roles):
        raise ConfigurationInvalid("two functions share one role")
    return {"environment_variables": function_environment(outputs, public_url), "lambda_functions": roles}


def read_shared(config: Path) -> dict[str, Any]:
    """Return ``.chalice/config.json``. Raises ConfigurationInvalid."""
    try:
        found: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationInvalid(f"{config} cannot be read: {error}") from error
    return found


def write_stage(config: Path, stage: str, entry: Mapping[str, Any] | None) -> bool:
    """Make ``entry`` the stage of that name in ``config``, or take the stage out for None; return whether that changed
    the file. It is replaced at once: an interrupted run leaves the old one or the new one."""
    told = read_shared(config)
    stages = {name: each for name, each in told.get("stages", {}).items() if name != stage}
    changed = told | {"stages": stages | ({} if entry is None else {stage: dict(entry)})}
    text = json.dumps(changed, indent=2) + "\n"
    if config.read_text(encoding="utf-8") == text:
        return False
    replace_text(config, text)
    return True


def replace_text(path: Path, text: str) -> None:
    """Write a file that is never half written: beside it, then renamed over it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def deployed_api(state: Path, region: str) -> str | None:
    """Return the id of the API that Chalice deployed, by its own record, or None before it did. Raises
    ConfigurationInvalid for a record of another region: the credentials or the stage are the wrong ones."""
    if not state.is_file():
        return None
    for resource in json.loads(state.read_text(encoding="utf-8"))["resources"]:
        if resource["resource_type"] == "rest_api":
            if f".{region}." not in resource["rest_api_url"]:
                raise ConfigurationInvalid(f"{state} is of another region than {region}")
            return str(resource["rest_api_id"])
    return None


def api_address(api_id: str, region: str) -> str:
    """Return the address that API Gateway gives an API's stage. Pure."""
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://{api_id}.execute-api.{region}.{suffix}/{API_STAGE}"
