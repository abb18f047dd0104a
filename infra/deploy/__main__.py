"""``python -m infra.deploy deploy|destroy|package STAGE``: what ``make deploy``, ``destroy`` and ``package`` run.

Composition root: which tools, which account, which terminal. Exit code 0: done; 1: not, and the last line says why.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from chalicelib.domain.errors import AccessError
from chalicelib.services.legal_holds import read_holds
from chalicelib.settings import read_store_settings
from chalicelib.store.opened import Stores, open_stores
from infra.deploy.account import Account
from infra.deploy.configuration import SIGNED_WITH, Activated, activate_first, read_bundle
from infra.deploy.output import Terminal
from infra.deploy.package import with_names, zip_problems
from infra.deploy.settings import ROOT, SystemClock
from infra.deploy.smoke import Checked, smoke
from infra.deploy.stage import Outputs, check_stage_name, read_shared
from infra.deploy.steps import Deployment, deploy, destroy
from infra.deploy.tools import Chalice, Run, StepFailed, Terraform, require_tools, run_shown

AUTHOR = "the first deployment"


class AwsCloud(Account):
    """Implements ``steps.Cloud``: the account, and the stores that the functions use, under the operator's rights.
    ``reached`` is False where the broker cannot be reached from here."""

    def __init__(self, region: str, *, reached: bool) -> None:
        super().__init__(region)
        self._reached = reached

    def standing_holds(self, outputs: Outputs) -> int:
        return len(read_holds(_stores(outputs).objects).active)

    def activate(self, outputs: Outputs, files: dict[str, bytes]) -> Activated:
        stores = _stores(outputs)
        signer = stores.signer(SIGNED_WITH.value)
        return activate_first(files, stores.activations, stores.objects, signer, author=AUTHOR, clock=SystemClock())

    def smoke(self, outputs: Outputs, public_url: str) -> Iterable[Checked]:
        return smoke(public_url, f"{outputs.name}-", outputs.broker if self._reached else None, self)


def _stores(outputs: Outputs) -> Stores:
    return open_stores(read_store_settings({"AWS_REGION": outputs.region, **outputs.environment}))


class OwnTools:
    """Implements ``steps.Tools`` for one stage of this checkout."""

    def __init__(self, run: Run, stage: str, *, reached: bool, root: Path = ROOT) -> None:
        self._run = run
        self._stage = stage
        self._reached = reached
        self._root = root

    def chalice(self, region: str) -> Chalice:
        return Chalice(self._run, self._root, self._stage, region)

    def cloud(self, region: str) -> AwsCloud:
        return AwsCloud(region, reached=self._reached)


def package(stage: str, out: Path, region: str, run: Run = run_shown, root: Path = ROOT) -> None:
    """Write ``sam.json`` and ``deployment.zip`` for a pipeline. Raises StepFailed with what is wrong with them."""
    chalice = Chalice(run, root, stage, region)
    shared = read_shared(chalice.config)
    told = shared.get("stages", {}).get(stage, {})
    chalice.package(out)
    prefix = told.get("environment_variables", {}).get("COUNTERSIGN_FUNCTION_PREFIX", f"{shared['app_name']}-{stage}-")
    template = out / "sam.json"
    named = with_names(json.loads(template.read_text(encoding="utf-8")), prefix)
    template.write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    wrong = list(zip_problems(out / "deployment.zip", told.get("lambda_architecture", shared["lambda_architecture"])))
    if wrong:
        raise StepFailed("the package is not right:\n" + "\n".join(f"  - {one}" for one in wrong))


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m infra.deploy", description=__doc__)
    parser.add_argument("command", choices=("deploy", "destroy", "package"))
    parser.add_argument("stage")
    parser.add_argument("--yes", action="store_true", help="agree to what terraform shows, beforehand")
    parser.add_argument("--config", type=Path, help="the configuration bundle; needed by deploy")
    parser.add_argument("--region", default="us-east-1", help="for package: the region of the template")
    parser.add_argument("--out", type=Path, help="for package: where to write")
    parser.add_argument("--broker-not-reached", action="store_true", help="do not try the broker from here")
    return parser.parse_args(given)


def main(given: Sequence[str]) -> int:
    asked = _arguments(given)
    terminal = Terminal(agreed=asked.yes)
    try:
        stage = check_stage_name(asked.stage)
        if asked.command == "package":
            package(stage, asked.out or ROOT / ".cache" / "package" / stage, asked.region)
            return 0
        require_tools()
        tools = OwnTools(run_shown, stage, reached=not asked.broker_not_reached)
        terraform = Terraform(run_shown, ROOT / "infra", stage)
        deployment = Deployment(stage=stage, operator=terminal, terraform=terraform, tools=tools, clock=SystemClock())
        if asked.command == "destroy":
            destroy(deployment)
            return 0
        folder = asked.config or ROOT / "infra" / "stages" / stage
        return 0 if deploy(deployment, read_bundle(folder)) else 1
    except (StepFailed, AccessError) as error:
        terminal.tell(f"{asked.command}: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
