"""The package that goes to Lambda: it imports where nothing else is installed, and pipelines get a template that holds.

One of each architecture; ``tests/e2e/test_deployed.py`` (soak) deploys it and asks it for a session.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from dev.settings import ROOT, child_environment
from infra.deploy.__main__ import package
from infra.deploy.package import with_names, zip_problems
from infra.deploy.tools import Done, StepFailed

pytestmark = pytest.mark.e2e
CFN_LINT: Final = Path(sys.prefix) / "emulator" / "bin" / "cfn-lint"
# What the functions import late: each of them is native, or is imported by a route alone.
_IMPORTS: Final = (
    "app, boto3, cedarpy, cryptography.hazmat.bindings._rust, fido2, jwt, pydantic_core, pynamodb, slack_bolt"
)


def quietly(command: Sequence[str], *, cwd: Path, extra: Mapping[str, str], quiet: bool = False) -> Done:
    environment = child_environment(extra)
    environment.pop("PYTHONPATH")
    done = subprocess.run(list(command), cwd=cwd, env=environment, capture_output=True, text=True, timeout=110)
    return Done(code=done.returncode, said=done.stdout + done.stderr)


def packaged(folder: Path, architecture: str) -> Path:
    """Package a copy of the app and return where."""
    copy = folder / "app"
    (copy / ".chalice").mkdir(parents=True)
    for name in ("app.py", "requirements.txt"):
        shutil.copy(ROOT / name, copy / name)
    shutil.copytree(ROOT / "chalicelib", copy / "chalicelib", ignore=shutil.ignore_patterns("__pycache__"))
    config = json.loads((ROOT / ".chalice" / "config.json").read_text()) | {"lambda_architecture": architecture}
    (copy / ".chalice" / "config.json").write_text(json.dumps(config))
    package("dev", folder / "out", "eu-west-1", run=quietly, root=copy)
    return folder / "out"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For this machine's processor, so that it can be imported. Chalice is asked once for all tests here."""
    return packaged(tmp_path_factory.mktemp("package"), "x86_64")


def test_a_bare_interpreter_imports_everything(built: Path, tmp_path: Path) -> None:
    """What is missing from the zip is found in every developer's environment, and by no function."""
    with zipfile.ZipFile(built / "deployment.zip") as package:
        package.extractall(tmp_path)
    bare = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    if not bare.is_file():
        pytest.skip(f"NOT CHECKED: there is no {bare} without packages to import the zip with")
    where = "import sys; sys.path[:] = [sys.argv[1], *(one for one in sys.path if 'site-packages' not in one)]"
    told = f"{where}; import {_IMPORTS}; print(sorted(app.app.handler_map), boto3.__file__)"
    done = subprocess.run(
        [str(bare), "-I", "-S", "-c", told, str(tmp_path)], env={}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "'sweep'" in done.stdout
    assert str(tmp_path) in done.stdout


def test_the_template_is_clean_and_names_the_functions_as_they_call_each_other(built: Path) -> None:
    """Without names CloudFormation makes some up, and the API would find no ``sign``."""
    template: dict[str, Any] = json.loads((built / "sam.json").read_text())
    found = [each for each in template["Resources"].values() if each["Type"] == "AWS::Serverless::Function"]
    names = {each["Properties"]["FunctionName"] for each in found}
    handlers = re.findall(r'@app\.(?:lambda_function|schedule)\([^\n]*name="([a-z_]+)"', (ROOT / "app.py").read_text())
    assert names == {"countersign-dev", *(f"countersign-dev-{name}" for name in handlers)}
    assert all(each["Properties"]["Tracing"] == "Active" for each in found)
    assert template["Resources"]["RestAPI"]["Properties"]["EndpointConfiguration"] == "REGIONAL"
    done = subprocess.run([str(CFN_LINT), "sam.json"], cwd=built, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_library_of_another_architecture_and_a_missing_one_are_found(built: Path, tmp_path: Path) -> None:
    """On Lambda it is an import error at the first event of whatever function needs it."""
    whole = built / "deployment.zip"
    assert list(zip_problems(whole, "x86_64")) == []
    assert any(problem.endswith(".so is not for arm64") for problem in zip_problems(whole, "arm64"))
    poor = tmp_path / "poor.zip"
    with zipfile.ZipFile(whole) as package, zipfile.ZipFile(poor, "w") as thinner:
        for name in package.namelist():
            if not name.startswith("pydantic_core/"):
                thinner.writestr(name, package.read(name))
    assert "it has no pydantic_core/__init__.py" in list(zip_problems(poor, "x86_64"))


def test_a_template_with_roles_of_chalices_own_is_refused() -> None:
    """A stage that was never written would get roles whose policies are templates with their places unfilled."""
    role = {"Type": "AWS::IAM::Role", "Properties": {}}
    with pytest.raises(StepFailed, match="no role for SignRole"):
        with_names({"Resources": {"SignRole": role}}, "countersign-dev-")


@pytest.mark.soak
def test_the_package_for_arm64_has_libraries_for_arm64_alone(tmp_path: Path) -> None:
    """It is what is deployed; no machine of ours may be able to run it."""
    whole = packaged(tmp_path, "arm64") / "deployment.zip"
    assert list(zip_problems(whole, "arm64")) == []
    assert whole.stat().st_size > 10_000_000
