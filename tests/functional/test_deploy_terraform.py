"""The real Terraform, driven as a deployment drives it, on a module that needs no provider and no account."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from infra.deploy.tools import Done, StepFailed, Terraform, run_shown

MODULE = """
variable "stage" { type = string }
variable "protect" {
  type    = bool
  default = true
}
variable "functions_deployed" {
  type    = bool
  default = false
}
variable "api_id" { default = "" }
variable "api_stage" { default = "" }
resource "terraform_data" "table" { input = "${var.stage} ${var.protect}" }
resource "terraform_data" "rule" {
  count = var.functions_deployed ? 1 : 0
  input = var.api_id
}
output "made" { value = { stage = var.stage, rules = length(terraform_data.rule) } }
"""


def without_registry(command: Sequence[str], *, cwd: Path, extra: Mapping[str, str], quiet: bool = False) -> Done:
    return run_shown(command, cwd=cwd, extra={**extra, "TF_CLI_CONFIG_FILE": "/dev/null"}, quiet=True)


@pytest.fixture
def terraform(tmp_path: Path) -> Terraform:
    """The stage ``prod`` of a module in a folder of its own."""
    if shutil.which("terraform") is None:
        pytest.skip("NOT CHECKED: there is no terraform on the path")
    (tmp_path / "main.tf").write_text(MODULE)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "prod.tfvars").write_text('stage = "copied-from-another"\n')
    made = Terraform(without_registry, tmp_path, "prod")
    made.init()
    return made


def made(terraform: Terraform) -> object:
    return json.loads(terraform.outputs())["made"]["value"]


def test_what_was_shown_is_applied_and_a_second_plan_is_empty(terraform: Terraform, tmp_path: Path) -> None:
    """An apply without its plan makes what nobody saw; a plan that is never empty is one that nobody reads."""
    assert terraform.plan()
    terraform.apply()
    assert made(terraform) == {"stage": "prod", "rules": 0}
    assert not terraform.plan()
    assert terraform.tell_deployed("abc", "api")
    assert not terraform.tell_deployed("abc", "api")
    assert terraform.plan()
    terraform.apply()
    assert made(terraform) == {"stage": "prod", "rules": 1}
    assert list(tmp_path.glob("*.tfplan")) == []


def test_leaving_takes_what_needs_the_functions_before_the_rest(terraform: Terraform) -> None:
    """A stream that is mapped to a function keeps it from being deleted, and a protected table keeps itself."""
    terraform.tell_deployed("abc", "api")
    terraform.plan()
    terraform.apply()
    assert terraform.plan(leaving=True)
    terraform.apply()
    assert made(terraform) == {"stage": "prod", "rules": 0}
    assert terraform.plan(leaving=True, destroy=True)
    terraform.apply()
    assert json.loads(terraform.outputs()) == {}


def test_a_module_that_does_not_plan_fails_the_step(terraform: Terraform, tmp_path: Path) -> None:
    """Exit code 1 is not 2: an error must not read as a change."""
    (tmp_path / "main.tf").write_text(MODULE + 'resource "terraform_data" "table" {}\n')
    with pytest.raises(StepFailed, match=r"plan failed \(1\)"):
        terraform.plan()
