"""The steps of a deployment and of its reverse, in their order.

Rules: nothing is changed before the operator has seen the plan and agreed. Each step finds what an earlier run did, so
that the command is run again after a failure, and says what it does. Taking down deletes no evidence: it refuses while
the bucket holds anything, and says what holds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import ConfigurationInvalid
from infra.deploy.account import Kept
from infra.deploy.configuration import Activated
from infra.deploy.output import Operator
from infra.deploy.smoke import Checked
from infra.deploy.stage import (
    API_STAGE,
    NOT_YET,
    Outputs,
    api_address,
    chalice_stage,
    deployed_api,
    read_outputs,
    read_shared,
    replace_text,
    write_stage,
)
from infra.deploy.tools import Chalice, StepFailed, Terraform

_APPLY: Final = "apply"


class Cloud(Protocol):
    """What is asked of AWS (``account``), and what is done with the stores behind it."""

    def kept(self, bucket: str) -> Kept: ...

    def api_of(self, function: str) -> str | None: ...

    def has_api(self, api: str) -> bool: ...

    def without_value(self, secrets: Iterable[str]) -> list[str]: ...

    def standing_holds(self, outputs: Outputs) -> int:
        """Return how many legal holds stand."""

    def activate(self, outputs: Outputs, files: dict[str, bytes]) -> Activated: ...

    def smoke(self, outputs: Outputs, public_url: str) -> Iterable[Checked]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """One stage, and what it is deployed with; ``tools`` makes the rest for the region that Terraform names."""

    stage: str
    operator: Operator
    terraform: Terraform
    tools: Tools
    clock: Clock


class Tools(Protocol):
    def chalice(self, region: str) -> Chalice: ...

    def cloud(self, region: str) -> Cloud: ...


def deploy(deployment: Deployment, files: dict[str, bytes]) -> bool:
    """Bring the stage up to this checkout; return whether it answers as it should. Raises StepFailed and
    ConfigurationInvalid; run it again then."""
    told, terraform = deployment.operator.tell, deployment.terraform
    if not terraform.inputs.is_file():
        raise ConfigurationInvalid(f"{terraform.inputs} is missing: copy stages/example.tfvars and fill it in")
    told("1 of 6  state, keys, rights and the broker: terraform")
    terraform.init()
    _apply(deployment)
    outputs = _made(deployment)
    _require_values(deployment, outputs)
    told("2 of 6  functions and API: chalice deploy")
    public_url, api = _functions(deployment, outputs)
    told("3 of 6  what needs the functions: terraform")
    terraform.tell_deployed(api, API_STAGE)
    _apply(deployment)
    told("4 of 6  the configuration")
    cloud = deployment.tools.cloud(outputs.region)
    told(f"        {cloud.activate(outputs, files).value}")
    told("5 of 6  does it answer")
    well = _answers(deployment, cloud.smoke(outputs, public_url))
    told("6 of 6  what is left to do")
    told(_left(deployment.stage, outputs, public_url))
    return well


def _apply(deployment: Deployment) -> None:
    if not deployment.terraform.plan():
        deployment.operator.tell("        nothing to change")
        return
    if not deployment.operator.agrees("This is what terraform would do.", _APPLY):
        raise StepFailed("nothing was changed in this step")
    deployment.terraform.apply()


def _made(deployment: Deployment) -> Outputs:
    outputs = read_outputs(deployment.terraform.outputs())
    if not outputs.name.endswith(f"-{deployment.stage}"):
        raise ConfigurationInvalid(f"terraform made {outputs.name}, which is not of the stage {deployment.stage}")
    return outputs


def _require_values(deployment: Deployment, outputs: Outputs) -> None:
    """Terraform makes the secrets without a value, which would be in its state; a person puts them in. Without them the
    broker does not start and no card is posted."""
    empty = deployment.tools.cloud(outputs.region).without_value(outputs.secrets.values())
    if empty:
        commands = "\n".join(
            f"  aws secretsmanager put-secret-value --region {outputs.region} --secret-id {arn} --secret-string file://..."
            for arn in empty
        )
        raise StepFailed(f"these secrets have no value yet; put them in and run this again:\n{commands}")


def _functions(deployment: Deployment, outputs: Outputs) -> tuple[str, str]:
    """Deploy the functions and return the API's address and id. An API of API Gateway's own address is deployed twice
    the first time: its functions are told the address, which nobody knows before it is there."""
    chalice = deployment.tools.chalice(outputs.region)
    shared = read_shared(chalice.config)
    known = _known_api(deployment, chalice, outputs)
    address = api_address(known, outputs.region) if known else NOT_YET
    write_stage(chalice.config, deployment.stage, chalice_stage(shared, outputs, outputs.public_url or address))
    chalice.deploy()
    api = deployed_api(chalice.state, outputs.region)
    if api is None:
        raise StepFailed("chalice deployed no API")
    public_url = outputs.public_url or api_address(api, outputs.region)
    if write_stage(chalice.config, deployment.stage, chalice_stage(shared, outputs, public_url)):
        deployment.operator.tell(f"        the API is {public_url}: the functions are told")
        chalice.deploy()
    return public_url, api


def _known_api(deployment: Deployment, chalice: Chalice, outputs: Outputs) -> str | None:
    """Return the API that is there. Where Chalice's record is lost, or was not written because the first deployment
    failed on the way, it is made again from the function's own policy: else there would be a second API, with another
    address, and every pipeline would talk to the one that nobody deploys any more."""
    cloud = deployment.tools.cloud(outputs.region)
    recorded = deployed_api(chalice.state, outputs.region)
    if recorded is not None and cloud.has_api(recorded):
        return recorded
    found = cloud.api_of(outputs.name)
    if found is None or not cloud.has_api(found):
        return None
    deployment.operator.tell(f"        {chalice.state.name} did not know the API {found}: it does again")
    resource = {
        "name": "rest_api",
        "resource_type": "rest_api",
        "rest_api_id": found,
        "rest_api_url": f"{api_address(found, outputs.region)}/",
    }
    chalice.state.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(chalice.state.read_text(encoding="utf-8"))["resources"] if chalice.state.is_file() else []
    others = [each for each in kept if each["resource_type"] != "rest_api"]
    record = {"resources": [*others, resource], "schema_version": "2.0", "backend": "api"}
    replace_text(chalice.state, json.dumps(record, indent=2) + "\n")
    return found


def _answers(deployment: Deployment, checks: Iterable[Checked]) -> bool:
    well = True
    for check in checks:
        deployment.operator.tell(f"        {'ok   ' if not check.wrong else 'WRONG'} {check.what}")
        if check.wrong:
            deployment.operator.tell(f"              {check.wrong}")
            well = False
    return well


def _left(stage: str, outputs: Outputs, public_url: str) -> str:
    return (
        f"        keep .chalice/config.json and .chalice/deployed/{stage}.json with your configuration: the next\n"
        f"        deployment needs them. From now on `chalice deploy --stage {stage}` alone deploys the code.\n"
        f"        Slack: set the app's interactivity address to {public_url}/slack/events\n"
        f"        Pipelines: COUNTERSIGN_API={public_url}\n"
        f"        Clients of the broker: {outputs.broker.host}:{outputs.broker.postgres_port}\n"
        f"        Check it at any time: countersign doctor"
    )


# The reverse.


def destroy(deployment: Deployment) -> None:
    """Take the stage down. Raises StepFailed where evidence is still there, and says what holds it; nothing is changed
    then. Run it again after a failure."""
    told, terraform = deployment.operator.tell, deployment.terraform
    terraform.init()
    text = terraform.outputs()
    if not json.loads(text):
        told("terraform knows of nothing: there is nothing to take down")
        return
    outputs = read_outputs(text)
    cloud = deployment.tools.cloud(outputs.region)
    reasons = list(_holding(outputs, cloud, deployment.clock.now()))
    if reasons:
        raise StepFailed("it stays, and nothing was changed:\n" + "\n".join(f"  - {reason}" for reason in reasons))
    terraform.plan(leaving=True, destroy=True)
    if not deployment.operator.agrees("All of this would be gone, the functions as well.", deployment.stage):
        raise StepFailed("nothing was changed")
    if terraform.plan(leaving=True):
        terraform.apply()
    chalice = deployment.tools.chalice(outputs.region)
    if chalice.state.is_file():
        chalice.delete()
        chalice.state.unlink(missing_ok=True)
    if terraform.plan(leaving=True, destroy=True):
        terraform.apply()
    terraform.deployed.unlink(missing_ok=True)
    write_stage(chalice.config, deployment.stage, None)
    told(f"{outputs.name} is gone. KMS deletes its keys after their waiting time: until then they can be had back.")


def _holding(outputs: Outputs, cloud: Cloud, now: datetime) -> Iterable[str]:
    """Say what holds the evidence: nothing, where there is none left."""
    bucket = outputs.bucket  # the digests' copies are another account's: nothing of theirs is taken down
    kept = cloud.kept(bucket)
    if not kept.objects:
        return
    count = f"{kept.objects}{' or more' if kept.more else ''}"
    if kept.mode == "COMPLIANCE" and kept.locked_until is not None and kept.locked_until > now:
        until = kept.locked_until.date().isoformat()
        yield f"{bucket}: a COMPLIANCE lock holds {count} object versions, some until {until}; nobody can end it"
    else:
        yield (
            f"{bucket}: {count} object versions are left; copy them, then empty the "
            "bucket as the break-glass role (docs/runbooks/leave.md)"
        )
    if kept.held:
        yield f"{bucket}: an object is under a legal hold of S3"
    holds = cloud.standing_holds(outputs)
    if holds:
        yield f"{bucket}: {holds} legal hold{'s stand' if holds > 1 else ' stands'} (`countersign hold list`)"
