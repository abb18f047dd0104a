"""From Terraform's outputs to Chalice's stage: whole, or refused with what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chalice.config import Config

from chalicelib.domain.errors import ConfigurationInvalid
from infra.deploy.stage import (
    api_address,
    chalice_stage,
    check_stage_name,
    deployed_api,
    read_outputs,
    read_shared,
    write_stage,
)
from tests.unit.deploy.told import CONFIG, ROLES, outputs_text, told


def test_each_function_gets_its_own_role_and_all_get_the_environment() -> None:
    """What Chalice then reads for a function is what Terraform made for it, and what is checked in."""
    stage = chalice_stage(read_shared(CONFIG), read_outputs(outputs_text()), "https://api.example")
    disk = {**read_shared(CONFIG), "stages": {"prod": stage}}
    for function in disk["lambda_functions"]:
        config = Config(chalice_stage="prod", function_name=function, config_from_disk=disk)
        assert config.iam_role_arn == ROLES["api" if function == "api_handler" else function]
        assert config.manage_iam_role is False
        assert config.lambda_timeout == disk["lambda_functions"][function]["lambda_timeout"]
        assert config.environment_variables["COUNTERSIGN_PUBLIC_URL"] == "https://api.example"
        assert (config.lambda_architecture, config.xray_enabled) == ("arm64", True)


@pytest.mark.parametrize("missing", ["functions", "bucket", "broker", "region", "lock_mode", "public_url"])
def test_an_output_that_is_missing_is_named(missing: str) -> None:
    """Before the first apply there are none, and a half applied module has some."""
    found = told()
    del found[missing]
    with pytest.raises(ConfigurationInvalid, match=missing):
        read_outputs(json.dumps({name: {"value": value} for name, value in found.items()}))


def wrong_role(found: dict[str, Any]) -> None:
    found["functions"]["roles"]["mint"] = "countersign-prod-mint"


def shared_role(found: dict[str, Any]) -> None:
    found["functions"]["roles"]["mint"] = ROLES["decide"]


def no_role(found: dict[str, Any]) -> None:
    del found["functions"]["roles"]["mint"]


def other_prefix(found: dict[str, Any]) -> None:
    found["functions"]["environment"]["COUNTERSIGN_FUNCTION_PREFIX"] = "other-prod-"


def no_channel(found: dict[str, Any]) -> None:
    del found["functions"]["environment"]["COUNTERSIGN_SLACK_CHANNEL"]


def too_long(found: dict[str, Any]) -> None:
    found["functions"]["environment"]["COUNTERSIGN_BROKER_CA_PEM"] = "x" * 3900


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (wrong_role, "no role's ARN for mint"),
        (shared_role, "share one role"),
        (no_role, "no role for the function mint"),
        (other_prefix, "FUNCTION_PREFIX"),
        (no_channel, "COUNTERSIGN_SLACK_CHANNEL"),
        (too_long, "Lambda takes"),
    ],
)
def test_what_would_fail_after_the_deployment_is_refused_before(break_it: Any, says: str) -> None:
    """A function that starts without a setting fails at its first event, in a log that nobody reads yet."""
    found = told()
    break_it(found)
    with pytest.raises(ConfigurationInvalid, match=says):
        chalice_stage(read_shared(CONFIG), read_outputs(outputs_text(found)), "https://api.example")


def test_writing_a_stage_leaves_the_rest_and_is_idempotent(tmp_path: Path) -> None:
    """The file is checked in, and the next release changes it: only the stage is ours to write."""
    config = tmp_path / "config.json"
    config.write_text(CONFIG.read_text())
    before = read_shared(config)
    assert write_stage(config, "prod", {"environment_variables": {}})
    assert not write_stage(config, "prod", {"environment_variables": {}})
    after = read_shared(config)
    assert after["stages"].pop("prod") == {"environment_variables": {}}
    assert after == before
    assert write_stage(config, "prod", None)
    assert config.read_text() == CONFIG.read_text()
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize("name", ["", "Prod", "1prod", "prod-1", "../x", "p" * 17, "prod\n", "-help"])
def test_a_stages_name_is_no_path_and_no_option(name: str) -> None:
    """It becomes part of file names and arguments."""
    with pytest.raises(ConfigurationInvalid):
        check_stage_name(name)


def test_a_record_of_another_region_is_refused(tmp_path: Path) -> None:
    """With the wrong profile Chalice would make everything a second time."""
    state = tmp_path / "prod.json"
    assert deployed_api(state, "eu-west-1") is None
    api = {"resource_type": "rest_api", "rest_api_id": "abc", "rest_api_url": api_address("abc", "eu-west-1")}
    state.write_text(json.dumps({"resources": [{"resource_type": "lambda_function"}, api]}))
    assert deployed_api(state, "eu-west-1") == "abc"
    with pytest.raises(ConfigurationInvalid, match="another region"):
        deployed_api(state, "eu-west-2")
