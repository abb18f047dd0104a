"""The order of a deployment, what happens after a failure, and that taking down never takes evidence with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.errors import ConfigurationInvalid
from infra.deploy.account import Kept
from infra.deploy.configuration import Activated
from infra.deploy.smoke import Checked
from infra.deploy.stage import Outputs, api_address, read_shared
from infra.deploy.steps import Deployment, deploy, destroy
from infra.deploy.tools import MISSING_WHEEL, Chalice, Done, StepFailed, Terraform
from tests.fakes.clock import FakeClock
from tests.unit.deploy.told import CONFIG, outputs_text

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
NOTHING = Kept(objects=0, more=False, mode="", locked_until=None, held=False)
OWN_ADDRESS = api_address("api1", "eu-west-1")


class World:
    """Terraform, Chalice and AWS as far as the steps see them; ``did`` is what was changed, in order."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.did: list[str] = []
        self.changes = True
        self.fails: set[str] = set()
        self.says = ""
        self.apis: list[str] = []
        self.policy_names: str | None = None
        self.kept_objects = NOTHING
        self.holds = 0
        self.answers = ""
        self._planned = ""
        self.empty: list[str] = []
        self.agreed = True
        (root / ".chalice").mkdir()
        (root / "infra" / "stages").mkdir(parents=True)
        (root / ".chalice" / "config.json").write_text(CONFIG.read_text())
        (root / "infra" / "stages" / "prod.tfvars").write_text("")

    def run(self, command: Sequence[str], *, cwd: Path, extra: Mapping[str, str], quiet: bool = False) -> Done:
        what = next(word for word in command if word in {"init", "plan", "apply", "output", "deploy", "delete"})
        if what in self.fails:
            return Done(code=1, said="it did not work")
        if what == "plan":
            self._planned = planned(command)
            return Done(code=2 if self.changes else 0, said="")
        if what == "output":
            return Done(code=0, said=outputs_text())
        if what == "apply":
            self.did.append(self._planned)
        if what == "deploy":
            self._deploys()
        if what == "delete":
            self.did.append("delete functions")
        return Done(code=0, said=self.says)

    def _deploys(self) -> None:
        stage = read_shared(self.root / ".chalice" / "config.json")["stages"]["prod"]
        self.did.append(f"chalice: {stage['environment_variables']['COUNTERSIGN_PUBLIC_URL']}")
        if "state" not in self.fails and not self.state.is_file():
            self.apis.append(f"api{len(self.apis) + 1}")
            self.state.parent.mkdir(exist_ok=True)
            url = f"{api_address(self.apis[-1], 'eu-west-1')}/"
            api = {"resource_type": "rest_api", "rest_api_id": self.apis[-1], "rest_api_url": url}
            self.state.write_text(json.dumps({"resources": [api]}))

    @property
    def state(self) -> Path:
        return self.root / ".chalice" / "deployed" / "prod.json"

    def deployment(self) -> Deployment:
        terraform = Terraform(self.run, self.root / "infra", "prod")
        return Deployment(stage="prod", operator=self, terraform=terraform, tools=self, clock=FakeClock(NOW))

    # The operator.

    def tell(self, text: str) -> None:
        """Nothing is looked at."""

    def agrees(self, question: str, word: str) -> bool:
        return self.agreed

    # The tools, and AWS.

    def chalice(self, region: str) -> Chalice:
        return Chalice(self.run, self.root, "prod", region)

    def cloud(self, region: str) -> World:
        return self

    def kept(self, bucket: str) -> Kept:
        return self.kept_objects

    def api_of(self, function: str) -> str | None:
        return self.policy_names

    def has_api(self, api: str) -> bool:
        return api in self.apis

    def without_value(self, secrets: Iterable[str]) -> list[str]:
        return [arn for arn in secrets if arn in self.empty]

    def standing_holds(self, outputs: Outputs) -> int:
        return self.holds

    def activate(self, outputs: Outputs, files: dict[str, bytes]) -> Activated:
        self.did.append("activate")
        return Activated.FIRST

    def smoke(self, outputs: Outputs, public_url: str) -> Iterable[Checked]:
        self.did.append(f"smoke {public_url}")
        return [Checked(what="it answers", wrong=self.answers)]


def planned(command: Sequence[str]) -> str:
    """Name what an apply of this plan would do. Each plan is of the stage that was asked for."""
    assert "-var=stage=prod" in command
    assert "-var-file=stages/prod.tfvars" in command
    if "-var=protect=false" in command:
        return "destroy" if "-destroy" in command else "apply leaving"
    return "apply with functions" if "-var-file=stages/prod.deployed.tfvars.json" in command else "apply"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_first_deployment_tells_the_functions_the_address_that_it_got(world: World) -> None:
    """API Gateway gives the address, and tokens name it as their issuer: nothing may be signed with another."""
    assert deploy(world.deployment(), {})
    assert world.did == [
        "apply",
        "chalice: https://not-deployed-yet.invalid",
        f"chalice: {OWN_ADDRESS}",
        "apply with functions",
        "activate",
        f"smoke {OWN_ADDRESS}",
    ]


def test_a_later_deployment_deploys_once_and_applies_what_changed(world: World) -> None:
    """The second run is the normal one: no step is done twice, and nothing is asked where nothing changes."""
    deploy(world.deployment(), {})
    world.did.clear()
    world.changes = world.agreed = False
    assert deploy(world.deployment(), {})
    assert world.did == [f"chalice: {OWN_ADDRESS}", "activate", f"smoke {OWN_ADDRESS}"]


@pytest.mark.parametrize("step", ["init", "plan", "apply", "output", "deploy"])
def test_a_step_that_fails_stops_there_and_the_next_run_goes_on(world: World, step: str) -> None:
    """What follows a failed step would be made of what the last deployment left."""
    world.fails = {step}
    with pytest.raises(StepFailed, match=step):
        deploy(world.deployment(), {})
    assert "activate" not in world.did
    world.fails = set()
    assert deploy(world.deployment(), {})


def test_nothing_is_changed_before_somebody_agreed(world: World) -> None:
    """A plan that nobody read may replace a table."""
    world.agreed = False
    with pytest.raises(StepFailed, match="nothing was changed"):
        deploy(world.deployment(), {})
    assert world.did == []


def test_a_package_without_a_wheel_fails_though_chalice_says_that_all_is_well(world: World) -> None:
    """Chalice prints it and exits 0; every function would fail at its first event."""
    world.says = f"{MISSING_WHEEL}: cedarpy. Your deployment will continue"
    with pytest.raises(StepFailed, match="no wheel"):
        deploy(world.deployment(), {})


def test_a_lost_record_of_the_api_is_made_again_and_not_a_second_api(world: World) -> None:
    """Chalice would make another API; pipelines would go on with the one that nobody deploys."""
    deploy(world.deployment(), {})
    world.state.unlink()
    world.policy_names = "api1"
    world.did.clear()
    assert deploy(world.deployment(), {})
    assert world.apis == ["api1"]
    assert f"chalice: {OWN_ADDRESS}" in world.did


def test_a_smoke_test_that_fails_is_no_success(world: World) -> None:
    """`make deploy` ends with 1, so that a pipeline stops."""
    world.answers = "store_unavailable"
    assert not deploy(world.deployment(), {})


def test_a_secret_without_a_value_stops_before_the_functions(world: World) -> None:
    """The broker would not start, and nobody would see why before its first session."""
    world.empty = ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:bot"]
    with pytest.raises(StepFailed, match=r"put-secret-value .*secret:bot"):
        deploy(world.deployment(), {})
    assert world.did == ["apply"]


def test_without_the_stages_inputs_nothing_begins(world: World) -> None:
    """Terraform would ask for each of them, or take another stage's."""
    (world.root / "infra" / "stages" / "prod.tfvars").unlink()
    with pytest.raises(ConfigurationInvalid, match=r"prod\.tfvars is missing"):
        deploy(world.deployment(), {})


def kept(**told: Any) -> Kept:
    facts: dict[str, Any] = {"objects": 7, "more": False, "mode": "", "locked_until": None, "held": False}
    return Kept(**(facts | told))


@pytest.mark.parametrize(
    ("left", "holds", "says"),
    [
        (kept(mode="COMPLIANCE", locked_until=NOW + timedelta(days=30)), 0, "COMPLIANCE lock holds 7.*2026-12-23"),
        (kept(), 0, "7 object versions are left"),
        (kept(mode="COMPLIANCE", locked_until=NOW - timedelta(days=1)), 0, "are left"),
        (kept(held=True), 0, "under a legal hold"),
        (kept(), 2, "2 legal holds stand"),
    ],
    ids=["compliance", "evidence", "lock is over", "held object", "standing holds"],
)
def test_destroy_refuses_while_evidence_is_there_and_says_what_holds_it(
    world: World, left: Kept, holds: int, says: str
) -> None:
    """Half a deployment taken down, with a bucket that cannot be, is the worst of both."""
    deploy(world.deployment(), {})
    world.did.clear()
    world.kept_objects, world.holds = left, holds
    with pytest.raises(StepFailed, match=f"(?s)nothing was changed.*{says}"):
        destroy(world.deployment())
    assert world.did == []
    assert world.state.is_file()


def test_destroy_takes_the_functions_first_and_forgets_the_stage(world: World) -> None:
    """Functions hold the roles and log groups that Terraform is about to delete."""
    deploy(world.deployment(), {})
    world.did.clear()
    destroy(world.deployment())
    assert world.did == ["apply leaving", "delete functions", "destroy"]
    assert "prod" not in read_shared(world.root / ".chalice" / "config.json")["stages"]
    assert not world.state.exists()
    assert sorted(path.name for path in (world.root / "infra" / "stages").iterdir()) == ["prod.tfvars"]


def test_destroy_asks_for_the_stages_own_name(world: World) -> None:
    """A yes is typed by habit."""
    deploy(world.deployment(), {})
    world.did.clear()
    world.agreed = False
    with pytest.raises(StepFailed):
        destroy(world.deployment())
    assert world.did == []
