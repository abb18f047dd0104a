"""A control plane that ``chalice deploy`` made, in the emulator: its zip, its roles, its streams; and a front for its
API.

What it is for: the tests of the deployed package. Everything that Terraform would make is made as the local stack makes
it (``dev.preparation``); then the functions come from the package that Chalice built and run, in the emulator's own
workers, with the sessions of roles that hold the deployed policies. The emulator makes an API without its paths, so a
small front turns HTTP into the events of API Gateway's Lambda proxy integration.
Source: docs.aws.amazon.com, "Lambda proxy integrations in API Gateway" (input and output format).
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from boto3.session import Session

from chalicelib.domain.secret import Secret
from chalicelib.settings import StoreSettings
from chalicelib.store.approvals import ANSWERS, ASKS
from chalicelib.store.vault import KEPT_KEY
from dev.authority import make_server_identity
from dev.bucket import guard
from dev.configuration import API, Configuration, Served, read_configuration, with_addresses
from dev.emulator import ROOT_KEY, start_ministack
from dev.issuers import Issuers
from dev.loopback import LoopbackServer, Request, Response
from dev.part_settings import (
    BOT_TOKEN,
    BUCKET,
    FUNCTION_PREFIX,
    PREFIX,
    REGION,
    SIGNING_SECRET,
    STAGE,
    Doors,
    plane_settings,
)
from dev.preparation import Order, Prepared, read_prepared
from dev.provision import BUCKET_KEY
from dev.roles import as_emulated
from dev.settings import DEMO_BUNDLE, ROOT, SystemClock, child_environment
from dev.slack_standin import Member, SlackStandin
from infra.deploy.stage import BrokerAddress, Outputs, chalice_stage, read_shared, write_stage
from infra.deploy.tools import Chalice, Done, StepFailed

SLACK_TOKEN: Final = "xoxb-of-a-test"
SLACK_SIGNING: Final = "signing-secret-of-a-test-of-the-package"
API_FUNCTION: Final = FUNCTION_PREFIX.rstrip("-")
_TRUST: Final = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}
# What the emulator wants otherwise than AWS. It runs on this machine's processor; reads "no compression", which
# Chalice sets, as no number; and takes half a minute longer for twenty uploads of the libraries than for one layer.
FOR_THE_EMULATOR: Final = {
    "lambda_architecture": "x86_64",
    "minimum_compression_size": 10 * 1024 * 1024,
    "automatic_layer": True,
}


class Deployed:
    """``with Deployed(folder) as deployed:`` makes all of it, but for :meth:`chalice`'s own steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ending = ExitStack()
        self._clock = SystemClock()

    def __enter__(self) -> Deployed:
        try:
            self._start()
        except BaseException:
            self._ending.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def client(self, service: str) -> Any:
        """Return boto3's, with the rights of an operator."""
        session = Session(ROOT_KEY, ROOT_KEY, region_name=REGION)
        return session.client(service, endpoint_url=self.emulator.endpoint)

    def outputs(self) -> Outputs:
        """Return what Terraform would say of it."""
        return Outputs(
            name=PREFIX,
            region=REGION,
            bucket=BUCKET,
            digest_bucket="",
            lock_mode="GOVERNANCE",
            roles=self.roles,
            environment={name: value for name, value in self._told.items() if name.startswith("COUNTERSIGN_")},
            public_url=self.front.url,
            approval_url="",
            broker=BrokerAddress(host="localhost", postgres_port=self._doors.postgres, ssh_port=0, ca_pem=""),
            secrets={},
        )

    def run_tool(self, command: Sequence[str], *, cwd: Path, extra: Mapping[str, str], quiet: bool = False) -> Done:
        """Implements ``infra.deploy.tools.Run``, against the emulator."""
        environment = child_environment({**self.emulator.environment(REGION), **extra})
        environment.pop("PYTHONPATH")  # the app is the copy's, as it is at an operator's
        done = subprocess.run(
            list(command), cwd=cwd, env=environment, capture_output=True, text=True, timeout=500, check=False
        )
        return Done(code=done.returncode, said=done.stdout + done.stderr)

    def write_stage(self) -> None:
        """Write the stage as the deployment does, with what the emulator wants."""
        shared = read_shared(self.chalice.config)
        entry = chalice_stage(shared, self.outputs(), self.front.url)
        entry["environment_variables"] |= {"COUNTERSIGN_SLACK_API_URL": self.slack.api_url}
        write_stage(self.chalice.config, STAGE, entry | FOR_THE_EMULATOR)

    def map_streams(self) -> None:
        """Map the streams of asks and answers to ``post_cards``, as Terraform does after the functions are there."""
        for table in (ASKS, ANSWERS):
            self.client("lambda").create_event_source_mapping(
                EventSourceArn=self.prepared.streams[table],
                FunctionName=f"{FUNCTION_PREFIX}post_cards",
                StartingPosition="TRIM_HORIZON",
            )

    def invoke(self, name: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Invoke a deployed function. Raises StepFailed where it fails."""
        payload: dict[str, Any] = self.answer_of(f"{FUNCTION_PREFIX}{name}", event)
        return payload

    def answer_of(self, function: str, event: Mapping[str, Any]) -> Any:
        """Implements ``infra.deploy.smoke.Invokes``."""
        told = self.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
        payload = json.loads(told["Payload"].read())
        if "FunctionError" in told:
            raise StepFailed(f"{function} failed: {str(payload)[:300]}")
        return payload

    def github_token(self) -> str:
        request = urllib.request.Request(self.issuers.ci.mint_url, data=b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(json.load(answer)["token"])

    # Making it.

    def _start(self) -> None:
        self.emulator = start_ministack(self._folder / "emulator")
        self._ending.callback(self.emulator.stop)
        self.front = LoopbackServer(
            "front", lambda request: through_gateway(self.client("lambda"), API_FUNCTION, request)
        )
        self.front.start()
        self._ending.callback(self.front.stop)
        written = read_configuration(DEMO_BUNDLE)
        self.issuers = Issuers(self._clock, api=self.front.url, people=written.bundle.people)
        self.issuers.start()
        self._ending.callback(self.issuers.stop)
        self.configuration = with_addresses(
            written, Served(places={API: self.front.url, **self.issuers.places()}, targets={})
        )
        self.slack = self._start_slack(self.configuration)
        self.prepared = self._prepare(self.configuration)
        identity = make_server_identity(self._folder / "authority", self._clock)
        self._doors = Doors(postgres=5432, ssh=0)
        self._told = plane_settings(self.front.url, self._doors, identity, self.slack)
        self._told["COUNTERSIGN_BUCKET_KEY"] = self._keys()[f"alias/{PREFIX}-{BUCKET_KEY}"]
        self._told |= {"COUNTERSIGN_SLACK_API_URL": self.slack.api_url}
        self._told.pop("COUNTERSIGN_PUBLIC_URL")
        self._told.pop("COUNTERSIGN_APPROVAL_URL")
        self.roles = self._make_roles()
        self._guard()
        self.chalice = Chalice(self.run_tool, copy_app(self._folder / "app"), STAGE, REGION)
        self.write_stage()

    def _start_slack(self, configuration: Configuration) -> SlackStandin:
        members = [
            Member(user_id=person.slack_user, team=person.slack_team, name=person.name, groups=person.groups)
            for person in configuration.bundle.people
        ]
        token, signing = Secret(SLACK_TOKEN), Secret(SLACK_SIGNING)
        slack = SlackStandin(self._clock, members=members, bot_token=token, signing_secret=signing)
        slack.send_clicks_to(f"{self.front.url}/slack/events")
        slack.start()
        self._ending.callback(slack.stop)
        return slack

    def _prepare(self, configuration: Configuration) -> Prepared:
        order = Order(
            store=StoreSettings(prefix=PREFIX, region=REGION, bucket=BUCKET, lock_days=1),
            account=self.emulator.account,
            function_prefix=FUNCTION_PREFIX,
            secrets={BOT_TOKEN: SLACK_TOKEN, SIGNING_SECRET: SLACK_SIGNING},
            files={name: content.decode() for name, content in configuration.files.items()},
            credentials=(),
        )
        done = subprocess.run(
            [sys.executable, "-m", "dev.preparation"],
            input=order.text(),
            env=child_environment(self.emulator.environment(REGION)),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return read_prepared(done.stdout)

    def _keys(self) -> dict[str, str]:
        """Return the aliases' keys, by alias."""
        account = f"arn:aws:kms:{REGION}:{self.emulator.account}:key/"
        listed = self.client("kms").list_aliases(Limit=100)["Aliases"]
        return {one["AliasName"]: f"{account}{one['TargetKeyId']}" for one in listed if "TargetKeyId" in one}

    def _make_roles(self) -> dict[str, str]:
        """Make a role for each function that has the deployed policy, and nothing beside it."""
        iam = self.client("iam")
        aliases = {key: f"arn:aws:kms:{REGION}:{self.emulator.account}:{name}" for name, key in self._keys().items()}
        assert f"alias/{PREFIX}-{KEPT_KEY}" in self._keys()
        arns: dict[str, str] = {}
        for path in sorted((ROOT / ".chalice" / "policies").glob("*.json")):
            name = f"{FUNCTION_PREFIX}{path.stem}"
            made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))
            document = json.dumps(as_emulated(self.prepared.roles[path.stem].policy, aliases))
            iam.put_role_policy(RoleName=name, PolicyName=path.stem, PolicyDocument=document)
            arns[path.stem] = made["Role"]["Arn"]
        return arns

    def _guard(self) -> None:
        """Give the bucket its policy again, with roles for principals as a deployment has it."""
        roles = f"arn:aws:iam::{self.emulator.account}:role/"
        places = {
            "BUCKET": BUCKET,
            "BUCKET_KEY": self._told["COUNTERSIGN_BUCKET_KEY"],
            "LOCK_DAYS": "1",
            "PRINCIPALS": roles,
            "FUNCTION_PREFIX": FUNCTION_PREFIX,
            "BROKER": f"{roles}{FUNCTION_PREFIX}broker",
            "BREAK_GLASS": f"{roles}{FUNCTION_PREFIX}break-glass",
        }
        guard(self.client("s3"), BUCKET, places)


def copy_app(copy: Path) -> Path:
    """Copy what Chalice packages into ``copy``, and return it: Chalice's state must not come into the checkout."""
    (copy / ".chalice").mkdir(parents=True)
    for name in ("app.py", "requirements.txt", ".chalice/config.json"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "chalicelib", copy / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    return copy


# The front.


def through_gateway(functions: Any, function: str, request: Request) -> Response:
    """Answer ``request`` as API Gateway would, by invoking the API's ``function`` with boto3's ``functions``."""
    event = proxy_event(request, _resource(request.path))
    answer = functions.invoke(FunctionName=function, Payload=json.dumps(event).encode())
    told = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        return Response(status=502, body=json.dumps(told).encode())
    body = base64.b64decode(told["body"]) if told.get("isBase64Encoded") else told["body"].encode()
    headers = {name: values[0] for name, values in told.get("multiValueHeaders", {}).items()} | told["headers"]
    kind = headers.pop("Content-Type", "application/json")
    return Response(status=told["statusCode"], body=body, content_type=kind, headers=headers)


def _resource(path: str) -> str:
    """Return the route that ``path`` is of, as API Gateway names it. Its own routes have no regular expressions."""
    document = json.loads((ROOT / "docs" / "openapi.json").read_text())
    asked = path.strip("/").split("/")
    for route in sorted(document["paths"], key=lambda one: one.count("{")):
        parts = route.strip("/").split("/")
        if len(parts) == len(asked) and all(a == b or a.startswith("{") for a, b in zip(parts, asked, strict=True)):
            return str(route)
    return path


def proxy_event(request: Request, resource: str) -> dict[str, Any]:
    """Return the event that API Gateway makes of ``request``. Pure."""
    parts = zip(resource.strip("/").split("/"), request.path.strip("/").split("/"), strict=True)
    query = parse_qs(urlsplit(request.target).query, keep_blank_values=True)
    return {
        "resource": resource,
        "path": request.path,
        "httpMethod": request.method,
        "headers": dict(request.headers),
        "multiValueHeaders": {name: [value] for name, value in request.headers.items()},
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": {name[1:-1]: value for name, value in parts if name.startswith("{")} or None,
        "stageVariables": None,
        "requestContext": {
            "resourcePath": resource,
            "httpMethod": request.method,
            "path": request.path,
            "stage": "api",
            "requestId": "a-test",
            "identity": {"sourceIp": "127.0.0.1"},
        },
        "body": base64.b64encode(request.body).decode() if request.body else None,
        "isBase64Encoded": bool(request.body),
    }
