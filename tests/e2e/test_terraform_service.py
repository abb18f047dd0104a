"""The broker's service, what is audited, the alarms and the edge, as Terraform makes them: planned, and every value
that a rule rests on looked at; and (soak) applied to ministack, read back through AWS's APIs, and destroyed.

What it does not prove: that AWS takes it. ministack has no application autoscaling, so that is planned alone; it tells
a TCP health check's matcher, which the provider refuses, and forgets the firewall's body limit: a second plan is
therefore empty for the module ``audit`` alone.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import sqlglot
from boto3.session import Session
from sqlglot import exp

from countersign.named_queries import names, read_query
from dev.emulator import Emulator, start_ministack
from dev.settings import child_environment

ROOT: Final = Path(__file__).resolve().parents[2]
REGION: Final = "eu-west-1"
NAME: Final = "cs-t"
FUNCTIONS: Final = sorted(path.stem for path in (ROOT / ".chalice/policies").glob("*.json"))
TABLES: Final[dict[str, Any]] = json.loads((ROOT / "infra/tables.json").read_text())
STREAMED: Final = sorted(table for table, told in TABLES.items() if told.get("stream"))
PLUGINS: Final = Path(child_environment({}).get("TF_PLUGIN_DIR", "/opt/tf-plugins"))
MAX_PATTERN: Final = 2048  # EventBridge's quota of a pattern's characters

pytestmark = [
    pytest.mark.skipif(shutil.which("terraform") is None, reason="there is no terraform on this machine"),
    pytest.mark.skipif(not PLUGINS.is_dir(), reason="TF_PLUGIN_DIR names no folder with the AWS provider"),
]


class Terraform:
    """One working folder: the modules' copy and the state."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        self.folder = folder
        # The provider's children are found by nothing of ours; a configuration of the machine's must not be found.
        self._environment = child_environment({"TF_CLI_CONFIG_FILE": "/dev/null", **emulator.environment(REGION)})
        for part in ("modules", "athena", "events", "policies", "alarms"):
            shutil.copytree(ROOT / "infra" / part, folder / "infra" / part)
        shutil.copy(Path(__file__).with_name("terraform_bed.tf"), folder / "main.tf")

    def __call__(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        done = subprocess.run(
            ["terraform", *words], cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=900
        )
        assert done.returncode in codes, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def start(self, variables: Mapping[str, Any]) -> None:
        (self.folder / "terraform.tfvars.json").write_text(json.dumps(dict(variables)))
        self("init", "-input=false", "-no-color", f"-plugin-dir={PLUGINS}")


VARIABLES: Final[dict[str, Any]] = {
    "name": NAME,
    "functions": FUNCTIONS,
    "bucket_key": f"arn:aws:kms:{REGION}:123456789012:key/00000000-0000-0000-0000-000000000000",
    "roles": {role: f"arn:aws:iam::123456789012:role/{NAME}-{role}" for role in ("broker", "execution")},
    "vpc_id": "vpc-1",
    "subnet_ids": ["subnet-1", "subnet-2"],
    "groups": {"balancer": "sg-1", "broker": "sg-2"},
    "streams": {table: f"arn:aws:dynamodb:{REGION}:123456789012:table/{NAME}-{table}/stream/x" for table in STREAMED},
    "api_id": "abcdef1234",
}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    started = start_ministack(tmp_path_factory.mktemp("ministack"))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def planned(emulator: Emulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Every resource that a first apply would make: its values by its address."""
    terraform = Terraform(tmp_path_factory.mktemp("plan"), emulator)
    terraform.start(VARIABLES)
    terraform("plan", "-input=false", "-no-color", "-out=plan")
    modules = json.loads(terraform("show", "-json", "plan"))["planned_values"]["root_module"]["child_modules"]
    resources = [found for module in modules for found in module["resources"]]
    return {found["address"]: found.get("values", {}) for found in resources}


def test_the_brokers_container_can_do_no_more_than_it_must(planned: Mapping[str, dict[str, Any]]) -> None:
    """Whoever gets into the broker finds no shell door, no root, and nothing to write into but the spool."""
    task = planned["module.broker.aws_ecs_task_definition.broker"]
    container = json.loads(task["container_definitions"])[0]
    assert container["readonlyRootFilesystem"] is True
    assert container["user"] == "10001:10001"
    assert container["linuxParameters"]["capabilities"] == {"add": [], "drop": ["ALL"]}
    assert [mount["containerPath"] for mount in container["mountPoints"]] == ["/spool"]
    assert container["stopTimeout"] == 120
    assert not any(found["name"].endswith("_PEM") for found in container["environment"])
    assert {found["name"] for found in container["secrets"]} == {
        *("COUNTERSIGN_TLS_CERTIFICATE_PEM", "COUNTERSIGN_TLS_KEY_PEM", "COUNTERSIGN_SSH_HOST_KEY_PEM")
    }
    service = planned["module.broker.aws_ecs_service.broker"]
    assert service["enable_execute_command"] is False
    assert service["deployment_minimum_healthy_percent"] == 100
    assert service["deployment_circuit_breaker"] == [{"enable": True, "rollback": True}]
    assert planned["module.broker.aws_ecr_repository.broker"]["image_tag_mutability"] == "IMMUTABLE"


def test_the_balancer_tells_who_connects_and_outlasts_a_drain(planned: Mapping[str, dict[str, Any]]) -> None:
    """Without the PROXY header every session comes from the balancer; with a short delay a drain is cut off."""
    drain = {
        found["name"]: found["value"]
        for found in json.loads(planned["module.broker.aws_ecs_task_definition.broker"]["container_definitions"])[0][
            "environment"
        ]
    }
    assert drain["COUNTERSIGN_PROXY_PROTOCOL"] == "v2"
    for protocol, listen, target in (("postgres", 5432, 5432), ("ssh", 22, 2222)):
        group = planned[f'module.broker.aws_lb_target_group.broker["{protocol}"]']
        assert (group["protocol"], group["port"], group["target_type"]) == ("TCP", target, "ip")
        assert group["proxy_protocol_v2"] is True
        assert int(group["deregistration_delay"]) >= int(drain["COUNTERSIGN_DRAIN_S"]) + 25
        listener = planned[f'module.broker.aws_lb_listener.broker["{protocol}"]']
        assert (listener["protocol"], listener["port"]) == ("TCP", listen)
        assert listener["tcp_idle_timeout_seconds"] == 3600


def test_athenas_tables_are_those_that_the_ddl_declares(planned: Mapping[str, dict[str, Any]]) -> None:
    """Terraform reads the DDL by its form: a column in another form would be missing from the table, unseen. sqlglot,
    which knows the language, reads it here."""
    for path in (ROOT / "infra/athena/tables").glob("*.sql"):
        table = planned[f'module.audit.aws_glue_catalog_table.this["{path.stem}"]']
        declared = sqlglot.parse_one(path.read_text(), read="athena")
        schema = declared.this
        columns = [(column.name, column.args["kind"].sql("hive").lower()) for column in schema.find_all(exp.ColumnDef)]
        own = [(found["name"], found["type"]) for found in table["storage_descriptor"][0]["columns"]]
        partitions = [(found["name"], found["type"]) for found in table["partition_keys"]]
        assert own == [column for column in columns if column not in partitions]
        assert partitions
        text = path.read_text()
        assert {name: table["parameters"][name] for name in re.findall(r"'(projection[^']*)' =", text)} == dict(
            re.findall(r"'(projection[^']*)' = '([^']*)'", text)
        )
        for location in (table["storage_descriptor"][0]["location"], table["parameters"]["storage.location.template"]):
            assert location.startswith((f"s3://{NAME}-recordings/", "s3://cs-t-recordings-index/"))
            assert "BUCKET" not in location


def test_a_query_may_read_so_much_and_puts_its_result_where_it_must(planned: Mapping[str, dict[str, Any]]) -> None:
    """Whoever asks chooses neither; and the console's questions are the command line's, place for place."""
    for part, gib in (("queries", 10), ("compaction", 100)):
        told = planned[f'module.audit.aws_athena_workgroup.this["{part}"]']["configuration"][0]
        assert told["enforce_workgroup_configuration"] is True
        assert told["bytes_scanned_cutoff_per_query"] == gib * 1024**3
        assert told["result_configuration"][0]["output_location"] == f"s3://{NAME}-recordings-queries/{part}/"
        assert told["result_configuration"][0]["encryption_configuration"][0]["encryption_option"] == "SSE_KMS"
    for name in names():
        assert planned[f'module.audit.aws_athena_named_query.this["{name}"]']["query"] == read_query(name).text


def test_a_day_is_compacted_once_and_two_days_late(planned: Mapping[str, dict[str, Any]]) -> None:
    """Scheduler may start twice: the token is the day's. Its attribute must stand in the text unescaped."""
    schedule = planned["module.audit.aws_scheduler_schedule.compaction"]["target"][0]
    request = json.loads(schedule["input"])
    assert "<aws.scheduler.scheduled-time>" in schedule["input"]
    assert request["ClientRequestToken"] == "countersign-compact-<aws.scheduler.scheduled-time>"
    text = request["QueryString"].replace("<aws.scheduler.scheduled-time>", "2026-11-02T02:00:00Z")
    day = re.findall(r"WHERE day = (CAST\(.*\))\n", text)[0]
    parsed = sqlglot.parse_one(f"SELECT {day}", read="athena")
    assert parsed.find(exp.DateAdd) is not None
    assert ":day" not in text
    assert "-2, from_iso8601_date(substr('2026-11-02T02:00:00Z', 1, 10))" in day


def test_no_rule_of_the_firewall_refuses_by_what_a_body_says(planned: Mapping[str, dict[str, Any]]) -> None:
    """A click's body is the card, and a card shows what somebody asks to run: he would make it undeniable. And no
    sample of requests is kept: it has bearer tokens."""
    acl = planned["module.edge.aws_wafv2_web_acl.api"]
    assert all(rule["visibility_config"][0]["sampled_requests_enabled"] is False for rule in acl["rule"])
    managed = {
        rule["name"]: rule["statement"][0]["managed_rule_group_statement"][0]
        for rule in acl["rule"]
        if rule["statement"][0]["managed_rule_group_statement"]
    }
    counted = {
        name: {one["name"] for one in group["rule_action_override"] if one["action_to_use"][0]["count"]}
        for name, group in managed.items()
    }
    # AWS's list of these groups' rules that look into the body.
    assert counted["AWSManagedRulesCommonRuleSet"] >= {
        *("SizeRestrictions_BODY", "GenericLFI_BODY", "GenericRFI_BODY", "CrossSiteScripting_BODY"),
        "EC2MetaDataSSRF_BODY",
    }
    assert counted["AWSManagedRulesKnownBadInputsRuleSet"] >= {"JavaDeserializationRCE_BODY", "Log4JRCE_BODY"}


def test_streams_reach_their_functions_and_what_fails_is_set_aside(planned: Mapping[str, dict[str, Any]]) -> None:
    """A change that is not archived is gone after a day; a card that waits behind a poison record is late."""
    for table in STREAMED:
        mapping = planned[f'module.edge.aws_lambda_event_source_mapping.archive["{table}"]']
        assert mapping["starting_position"] == "TRIM_HORIZON"
        assert mapping["maximum_retry_attempts"] == -1
        assert mapping["bisect_batch_on_function_error"] is True
        assert mapping["maximum_record_age_in_seconds"] < 24 * 3600
    for table in ("asks", "answers"):
        mapping = planned[f'module.edge.aws_lambda_event_source_mapping.cards["{table}"]']
        assert json.loads(mapping["filter_criteria"][0]["filter"][0]["pattern"]) == {"eventName": ["INSERT"]}


def test_events_come_from_every_log_but_their_own(planned: Mapping[str, dict[str, Any]]) -> None:
    """A function that its own log calls never ends."""
    prefix = "module.edge.aws_cloudwatch_log_subscription_filter.told"
    told = {values["log_group_name"] for address, values in planned.items() if address.startswith(prefix)}
    own = {f"/aws/lambda/{NAME}-{name}" for name in FUNCTIONS if name not in ("api", "events")}
    assert told == own | {f"/aws/lambda/{NAME}", f"/countersign/broker/{NAME}"}


def test_rules_of_the_cloud_are_whole_and_short_enough(planned: Mapping[str, dict[str, Any]]) -> None:
    """A pattern with a place left open matches nothing, and one past the quota is refused at the first deploy."""
    for path in (ROOT / "infra/events").glob("*.json"):
        rule = planned[f'module.edge.aws_cloudwatch_event_rule.cloud["{path.stem}"]']["event_pattern"]
        assert len(rule) <= MAX_PATTERN
        assert "${" not in rule
        assert "$$" not in rule
        assert planned[f'module.edge.aws_lambda_permission.cloud["{path.stem}"]']["principal"] == "events.amazonaws.com"
    # IAM's calls are told in us-east-1, and must come from there.
    assert "module.edge.aws_cloudwatch_event_target.roles[0]" in planned


def beside(emulator: Emulator) -> dict[str, Any]:
    """Make what other modules and Chalice make, and return the variables that name it."""
    session = Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)

    def client(service: str) -> Any:
        made: Any = session.client(service, endpoint_url=emulator.endpoint)
        return made

    iam, ec2, functions, api = client("iam"), client("ec2"), client("lambda"), client("apigateway")
    roles = {}
    for role, service in (("broker", "ecs-tasks"), ("execution", "ecs-tasks"), ("function", "lambda")):
        trust = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": f"{service}.amazonaws.com"}}
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        roles[role] = iam.create_role(RoleName=f"{NAME}-{role}", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_role_policy(RoleName=f"{NAME}-function", PolicyName="any", PolicyDocument=json.dumps(anything))
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("app.py", "def handle(event, context):\n    return {}\n")
    for name in FUNCTIONS:
        functions.create_function(
            FunctionName=NAME if name == "api" else f"{NAME}-{name}",
            Runtime="python3.12",
            Role=roles["function"],
            Handler="app.handle",
            Code={"ZipFile": packed.getvalue()},
        )
    rest = api.create_rest_api(name="countersign")["id"]
    root = api.get_resources(restApiId=rest)["items"][0]["id"]
    api.put_method(restApiId=rest, resourceId=root, httpMethod="GET", authorizationType="NONE")
    api.put_integration(restApiId=rest, resourceId=root, httpMethod="GET", type="MOCK")
    api.create_deployment(restApiId=rest, stageName="api")
    client("logs").create_log_group(logGroupName="/countersign/targets/orders-prod")
    return {
        **VARIABLES,
        "bucket_key": client("kms").create_key()["KeyMetadata"]["Arn"],
        "roles": roles,
        "vpc_id": vpc,
        "subnet_ids": [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24")["Subnet"]["SubnetId"] for number in (0, 1)
        ],
        "groups": {
            group: ec2.create_security_group(GroupName=group, Description=group, VpcId=vpc)["GroupId"]
            for group in ("balancer", "broker")
        },
        "streams": {table: _stream(client("dynamodb"), table) for table in STREAMED},
        "api_id": rest,
    }


def _stream(dynamodb: Any, table: str) -> str:
    key = TABLES[table]["key"]
    made = dynamodb.create_table(
        TableName=f"{NAME}-{table}",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[
            {"AttributeName": name, "KeyType": kind} for (name, _), kind in zip(key, ("HASH", "RANGE"), strict=False)
        ],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in key],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    return str(made["TableDescription"]["LatestStreamArn"])


@pytest.mark.soak
def test_it_is_applied_read_back_and_destroyed(emulator: Emulator, tmp_path: Path) -> None:
    """A plan is what Terraform believes: an API that refuses a value says so only when it gets it."""
    terraform = Terraform(tmp_path, emulator)
    (tmp_path / "infra/modules/broker/scaling.tf").unlink()  # ministack has no application autoscaling
    terraform.start(beside(emulator))
    terraform("apply", "-input=false", "-no-color", "-auto-approve")
    read_back(emulator)
    again = terraform("plan", "-input=false", "-no-color", "-target=module.audit", "-detailed-exitcode")
    assert "No changes." in again
    # A refresh would meet the matcher that ministack tells of TCP health checks.
    assert "Destroy complete!" in terraform("destroy", "-refresh=false", "-no-color", "-auto-approve")


def read_back(emulator: Emulator) -> None:
    session = Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
    place = {"endpoint_url": emulator.endpoint}
    alarms = session.client("cloudwatch", **place).describe_alarms(AlarmNamePrefix=f"{NAME}-", MaxRecords=100)
    told = {alarm["AlarmName"]: alarm for alarm in alarms["MetricAlarms"]}
    assert told[f"{NAME}-digests-missing"]["TreatMissingData"] == "breaching"
    assert told[f"{NAME}-decide-slow"]["ExtendedStatistic"] == "p99"
    assert told[f"{NAME}-functions-failed-api"]["Dimensions"] == [{"Name": "FunctionName", "Value": NAME}]
    filters = session.client("logs", **place).describe_metric_filters()["metricFilters"]
    declared = json.loads((ROOT / "infra/alarms/log_metrics.json").read_text())
    assert {found["filterName"]: found["filterPattern"] for found in filters} == {
        name: metric["pattern"] for name, metric in declared.items()
    }
    service = session.client("ecs", **place).describe_services(cluster=NAME, services=["broker"])["services"][0]
    assert service["desiredCount"] == 2
    tables = session.client("glue", **place).get_tables(DatabaseName="cs_t")["TableList"]
    assert {table["Name"] for table in tables} == {path.stem for path in (ROOT / "infra/athena/tables").glob("*.sql")}
    mappings = session.client("lambda", **place).list_event_source_mappings()["EventSourceMappings"]
    mapped = {(one["EventSourceArn"].split("/")[1], one["FunctionArn"].rpartition(":")[2]) for one in mappings}
    assert mapped == {(f"{NAME}-{table}", f"{NAME}-archive_items") for table in STREAMED} | {
        (f"{NAME}-{table}", f"{NAME}-post_cards") for table in ("asks", "answers")
    }
    targets = session.client("events", **place).list_targets_by_rule(Rule=f"{NAME}-keys")["Targets"]
    assert targets[0]["DeadLetterConfig"]["Arn"].endswith(f":{NAME}-watch-cloud-failed")
