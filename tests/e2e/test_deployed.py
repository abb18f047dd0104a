"""The deployed package itself: what ``chalice deploy`` made answers, by API, by click, by stream and by schedule.

The emulator runs each function from the zip (and the layer) that Chalice built, under its own role's deployed policy.
What it cannot show: API Gateway's own behaviour, Lambda's operating system and the speed of either.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chalicelib.store.approvals import ANSWERS, ASKS
from dev.demo.slack import Approvers
from dev.emulator import ACCOUNT
from dev.part_settings import BUCKET, FUNCTION_PREFIX, PREFIX, REGION, STAGE
from dev.processes import Child
from dev.pump import scheduled_event
from dev.settings import SystemClock, child_environment
from infra.deploy.smoke import smoke
from infra.deploy.stage import deployed_api
from infra.deploy.tools import StepFailed
from tests.e2e.deployed import API_FUNCTION, Deployed

pytestmark = [pytest.mark.e2e, pytest.mark.emulator, pytest.mark.soak, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """One deployment for all of them: Chalice builds the package and makes eighteen functions."""
    with Deployed(tmp_path_factory.mktemp("deployed")) as running:
        running.chalice.deploy()
        running.map_streams()
        yield running


def tick(name: str) -> Mapping[str, Any]:
    """Return the event of a schedule."""
    return scheduled_event(SystemClock(), f"{FUNCTION_PREFIX}{name}", ACCOUNT, REGION)


def test_every_function_is_there_under_its_own_role(deployed: Deployed) -> None:
    """They find each other by name; a function under another's role has another's rights."""
    functions = deployed.client("lambda")
    for role, arn in deployed.roles.items():
        name = API_FUNCTION if role == "api" else f"{FUNCTION_PREFIX}{role}"
        told = functions.get_function_configuration(FunctionName=name)
        assert told["Role"] == arn
        assert told["TracingConfig"]["Mode"] == "Active"
        assert told["Environment"]["Variables"]["COUNTERSIGN_PREFIX"] == PREFIX


def test_the_smoke_test_of_a_deployment_finds_it_well(deployed: Deployed) -> None:
    """It is what tells the operator that the second command worked."""
    checks = list(smoke(deployed.front.url, FUNCTION_PREFIX, None, deployed))
    assert [check for check in checks if check.wrong] == []
    assert len(checks) == 6


def test_a_session_is_asked_for_clicked_and_granted_by_the_package(deployed: Deployed, tmp_path: Path) -> None:
    """API, sign, the stream to post_cards, Slack, decide: each from the zip, each with its own rights alone."""
    places = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path), "COUNTERSIGN_API": deployed.front.url}
    asking = Child(
        "request",
        [
            *(sys.executable, "-m", "countersign", "request", "orders-prod", "--json"),
            *("--reason", "the package", "--wait", "90s"),
        ],
        environment=child_environment({**places, "COUNTERSIGN_ID_TOKEN": deployed.github_token()}),
        log=tmp_path / "request.log",
        cwd=tmp_path,
    )
    try:
        slack = {"messages": f"{deployed.slack.url}/messages", "click": f"{deployed.slack.url}/click"}
        approvers = Approvers(slack, SystemClock())
        card = approvers.next_card()
        assert "the package" in card.text()
        approvers.click(card, "approve", "UALICE")
        assert asking.wait(60.0) == 0, asking.log_tail()
    finally:
        asking.stop()
    assert '"granted"' in asking.log_tail()
    for table in (ASKS, ANSWERS):
        assert deployed.client("dynamodb").scan(TableName=f"{PREFIX}-{table}")["Count"] == 1


def test_a_scheduled_function_is_run_as_its_rule_names_it(deployed: Deployed) -> None:
    """The sweeper that nobody calls, or that may not read what it sweeps, leaves what dead brokers left."""
    events = deployed.client("events")
    rules = {rule["Name"]: rule for rule in events.list_rules()["Rules"]}
    named = {name: events.list_targets_by_rule(Rule=name)["Targets"][0]["Arn"] for name in rules}
    sweep = next(name for name, arn in named.items() if arn.endswith(f":{FUNCTION_PREFIX}sweep"))
    assert rules[sweep]["ScheduleExpression"] == "rate(2 minutes)"
    assert deployed.invoke("sweep", tick("sweep"))["sealed"] == 0
    assert deployed.invoke("reconcile", tick("reconcile")) == {"failed": 0}


def test_deploying_again_changes_no_address(deployed: Deployed) -> None:
    """A second API would have another address, and every pipeline would talk to the one that nobody deploys."""
    before = deployed_api(deployed.chalice.state, REGION)
    deployed.chalice.deploy()
    assert deployed_api(deployed.chalice.state, REGION) == before
    assert len(deployed.client("apigateway").get_rest_apis()["items"]) == 1


def test_without_its_rights_a_deployed_function_fails(deployed: Deployed) -> None:
    """All of the above is worth nothing in an emulator that asks for no right."""
    iam, role = deployed.client("iam"), f"{FUNCTION_PREFIX}sweep"
    nothing = {"Effect": "Deny", "Action": "*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [nothing]})
    assert deployed.invoke("sweep", tick("sweep"))["sealed"] == 0
    iam.put_role_policy(RoleName=role, PolicyName="nothing", PolicyDocument=document)
    try:
        with pytest.raises(StepFailed, match="sweep failed"):
            deployed.invoke("sweep", tick("sweep"))
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="nothing")


def test_deleting_leaves_nothing_of_chalices_and_all_of_terraforms(deployed: Deployed) -> None:
    """The last of this file. What is deployed can be taken down; tables and bucket are not Chalice's to delete."""
    deployed.chalice.delete()
    left = [one["FunctionName"] for one in deployed.client("lambda").list_functions()["Functions"]]
    assert left == []
    assert deployed.client("apigateway").get_rest_apis()["items"] == []
    assert deployed.client("s3").head_bucket(Bucket=BUCKET)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert STAGE in deployed.chalice.config.read_text()
