"""All of a deployment in the emulator, by the operator's own command: a copy of the checkout, what an operator writes
for a stage, and ``python -m infra.deploy`` against an emulator that checks signatures and rights.

What the emulator lacks is made up for here and in the copy, never in the product: each with the reason beside it. The
functions run from the package under the roles that Terraform made; their API has no routes in the emulator, so the
stage's ``public_url`` is a front that makes API Gateway's events.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from boto3.session import Session

from dev.authority import make_server_identity
from dev.emulator import ROOT_KEY, start_ministack
from dev.loopback import LoopbackServer, Request, Response
from dev.roles import as_emulated
from dev.settings import ROOT, SystemClock, child_environment
from infra.deploy.tools import Done
from tests.e2e.deployed import FOR_THE_EMULATOR, copy_app, through_gateway
from tests.e2e.terraform import OVERRIDE, terraform_plugins

STAGE: Final = "test"
REGION: Final = "eu-west-1"
NAME: Final = f"countersign-{STAGE}"
STATE: Final = "terraform-state"
_WITHIN_S: Final = 1200.0  # about four minutes on two idle cores
# The functions run on the Python that deploys them; this one may be older than Lambda's, and the emulator has it.
_DEPLOY: Final = (
    "import sys; from functools import partial; import infra.deploy.__main__ as command; "
    "command.require_tools = partial(command.require_tools, version=(3, 12)); sys.exit(command.main(sys.argv[1:]))"
)
_KEY_PLACE: Final = re.compile(r"\$\{([A-Z_]+)_KEY\}")
_HTTP_ONLY: Final = re.compile(rb"<HealthCheckPath>[^<]*</HealthCheckPath>|<Matcher>.*?</Matcher>", re.DOTALL)


class Whole:
    """``with Whole(folder) as whole:`` starts the emulator and writes what an operator writes; :meth:`deploy` is the
    operator's command."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ending = ExitStack()
        self._plugins = terraform_plugins()

    def __enter__(self) -> Whole:
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

    def deploy(self, bundle: Path) -> Done:
        return self._command("deploy", "--config", str(bundle), "--broker-not-reached")

    def write_inputs(self, **more: object) -> None:
        """Write ``stages/test.tfvars`` as an operator does; ``more`` is what it says beside the least."""
        told = {
            "region": REGION,
            "slack_channel": "C0123456789",
            "broker_ca_pem": self._identity.authority_pem(),
            "broker_ssh_host_key": self._identity.ssh_public,
            "public_url": self.front.url,
            **more,
        }
        lines = [f"{name} = {json.dumps(value)}" for name, value in told.items()]
        (self._stages / f"{STAGE}.tfvars").write_text("\n".join(lines) + "\n")

    # Making it.

    def _start(self) -> None:
        self.emulator = start_ministack(self._folder / "emulator")
        self._ending.callback(self.emulator.stop)
        self.front = LoopbackServer("front", lambda request: through_gateway(self.client("lambda"), NAME, request))
        self._balancers = LoopbackServer("balancers", self._balancer)
        for server in (self.front, self._balancers):
            server.start()
            self._ending.callback(server.stop)
        self._identity = make_server_identity(self._folder / "authority", SystemClock())
        self.copy = self._copy(self._folder / "checkout")
        self._stages = self.copy / "infra" / "stages"
        self.client("s3").create_bucket(Bucket=STATE, CreateBucketConfiguration={"LocationConstraint": REGION})
        backend = {"bucket": STATE, "key": "countersign/test.tfstate", "region": REGION, "use_lockfile": True}
        emulated = {"use_path_style": True, "skip_credentials_validation": True, "skip_metadata_api_check": True}
        lines = [f"{name} = {json.dumps(value)}" for name, value in {**backend, **emulated}.items()]
        (self._stages / f"{STAGE}.backend.hcl").write_text("\n".join(lines) + "\n")
        self.write_inputs()

    def _copy(self, copy: Path) -> Path:
        copy_app(copy)
        ignored = shutil.ignore_patterns(
            ".terraform*", "*.tfstate*", "*.tfplan", "__pycache__", "*.deployed.tfvars.json"
        )
        shutil.copytree(ROOT / "infra", copy / "infra", ignore=ignored)
        shutil.copytree(ROOT / ".chalice" / "policies", copy / ".chalice" / "policies")
        (copy / "infra" / "override.tf.json").write_text(json.dumps({"provider": OVERRIDE["provider"]}))
        (copy / "infra" / "modules" / "broker" / "scaling.tf").unlink()  # ministack has no application autoscaling
        config = copy / ".chalice" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | FOR_THE_EMULATOR, indent=2) + "\n")
        for template in (copy / ".chalice" / "policies").glob("*.json"):
            template.write_text(json.dumps(as_emulated(json.loads(template.read_text()), _aliases(template))))
        return copy

    def _balancer(self, request: Request) -> Response:
        """Pass a call of the balancers' service on, and take from its answer what ministack says of a TCP health check
        and AWS does not (a path, a matcher): with them the provider refuses the second plan."""
        place = urlsplit(self.emulator.endpoint)
        passing = http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)
        try:
            passing.request(request.method, request.target, body=request.body, headers=dict(request.headers))
            answer = passing.getresponse()
            body = _HTTP_ONLY.sub(b"", answer.read())
        finally:
            passing.close()
        return Response(status=answer.status, body=body, content_type=answer.headers.get("Content-Type", "text/xml"))

    def _command(self, command: str, *more: str) -> Done:
        extra = {
            **self.emulator.environment(REGION),
            "AWS_ENDPOINT_URL_ELASTIC_LOAD_BALANCING_V2": self._balancers.url,
            "TF_CLI_CONFIG_FILE": "/dev/null",
            "TF_CLI_ARGS_init": f"-plugin-dir={self._plugins}",
            "TF_CLI_ARGS": "-no-color",
        }
        environment = child_environment(extra)
        environment.pop("PYTHONPATH")  # the copy's modules, as at an operator's
        done = subprocess.run(
            [sys.executable, "-c", _DEPLOY, command, STAGE, "--yes", *more],
            cwd=self.copy,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )
        (self._folder / f"{command}.log").write_text(done.stdout)
        return Done(code=done.returncode, said=done.stdout)


def _aliases(template: Path) -> dict[str, str]:
    """Return, for each place of a key in ``template``, its alias: what the emulator compares."""
    places = set(_KEY_PLACE.findall(template.read_text()))
    return {
        f"${{{place}_KEY}}": f"arn:aws:kms:${{REGION}}:${{ACCOUNT}}:alias/${{PREFIX}}-{place.lower().replace('_', '-')}"
        for place in places
    }
