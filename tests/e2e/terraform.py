"""Terraform against an emulator: the tree's own ``infra/``, with a provider that speaks to it and a state of its own.

Rules: the provider comes from a folder of this machine (``TF_PLUGIN_DIR``, else ``/opt/tf-plugins``), never from a
registry; where Terraform or that folder is absent, what needs it is skipped and says so. The copy is what runs, so that
nothing is written into the tree.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from dev.settings import ROOT, child_environment

STAGE: Final = "test"
_PLUGINS: Final = "/opt/tf-plugins"
_WITHIN_S: Final = 300.0
# Emulators know no other way to name a bucket than by path, and an unknown call must fail, not be tried for minutes.
_PROVIDER: Final = {
    "access_key": "test",
    "secret_key": "test",
    "s3_use_path_style": True,
    "skip_credentials_validation": True,
    "skip_metadata_api_check": True,
    "max_retries": 2,
}
OVERRIDE: Final = {
    "terraform": {"backend": {"local": {}}},
    "provider": {
        "aws": [
            {"region": "eu-west-1", **_PROVIDER},
            {"region": "us-east-1", "alias": "global", **_PROVIDER},
        ]
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Terraform:
    """A copy of ``infra/``, and the emulator's endpoint, empty where none is asked."""

    folder: Path
    plugins: str
    endpoint: str = ""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        extra = {"TF_CLI_CONFIG_FILE": "/dev/null", "TF_IN_AUTOMATION": "1", "AWS_EC2_METADATA_DISABLED": "true"}
        if self.endpoint:
            extra["AWS_ENDPOINT_URL"] = self.endpoint
        return subprocess.run(
            ["terraform", *arguments],
            cwd=self.folder,
            env=child_environment(extra),
            capture_output=True,
            text=True,
            timeout=_WITHIN_S,
            check=False,
        )

    def done(self, *arguments: str) -> str:
        """Run it and return what it said. Fails the test where it fails."""
        ended = self.run(*arguments, "-no-color")
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
        return ended.stdout

    def outputs(self) -> dict[str, Any]:
        return {name: told["value"] for name, told in json.loads(self.done("output", "-json")).items()}


def terraform_plugins() -> str:
    """Return the provider's folder. Skips the test where there is no Terraform, or no provider."""
    plugins = os.environ.get("TF_PLUGIN_DIR", _PLUGINS)  # noqa: TID251 - the machine's own, no setting of ours
    if shutil.which("terraform") is None or not Path(plugins).is_dir():
        pytest.skip("no Terraform with the AWS provider's folder here (TF_PLUGIN_DIR)")
    return plugins


def terraform_in(folder: Path, endpoint: str = "", **variables: object) -> Terraform:
    """Copy ``infra/`` with what it reads into ``folder`` and make it ready. Skips the test where there is no
    Terraform, or no provider."""
    plugins = terraform_plugins()
    ignored = shutil.ignore_patterns(".terraform*", "*.tfstate*", "__pycache__", "stages")
    shutil.copytree(ROOT / "infra", folder / "infra", ignore=ignored)
    shutil.copytree(ROOT / ".chalice" / "policies", folder / ".chalice" / "policies")
    infra = folder / "infra"
    (infra / "override.tf.json").write_text(json.dumps(OVERRIDE))
    (infra / "test.auto.tfvars.json").write_text(json.dumps(variables))
    found = Terraform(folder=infra, plugins=plugins, endpoint=endpoint)
    found.done("init", "-input=false", f"-plugin-dir={plugins}")
    return found
