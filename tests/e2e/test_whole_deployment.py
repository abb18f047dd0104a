"""``python -m infra.deploy`` once, whole: Terraform's root module, Chalice with Terraform's own roles, what calls the
functions, the first Activation, the smoke test; and a second run. In the order in which they stand.

What it does not show: what the emulator lacks (``tests/e2e/whole.py`` says each), the broker, which ECS would run, and
taking it down, which ``tests/unit/deploy`` shows with stand-ins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pytest

from dev.settings import DEMO_BUNDLE
from infra.deploy.tools import Done
from tests.e2e.whole import Whole

pytestmark = [pytest.mark.e2e, pytest.mark.emulator, pytest.mark.soak, pytest.mark.timeout(2400)]
# What ministack forgets, so that every plan may have it again: an alarm's text and dimensions, a trail's tags, whether
# the service spreads over zones, the firewall's body limit, and that a rule which lets everything out is ours.
FORGOTTEN: Final = re.compile(
    r"module\.(alarms\.aws_cloudwatch_metric_alarm\.this|audit\.aws_cloudtrail\.this|broker\.aws_ecs_service\.broker"
    r"|network\.aws_vpc_security_group_egress_rule\.broker|edge\[0\]\.aws_wafv2_web_acl\.api)(\[.*\])?"
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    with Whole(tmp_path_factory.mktemp("whole")) as running:
        yield running


@pytest.fixture(scope="module")
def deployed(whole: Whole) -> Done:
    """The first deployment. ministack says that a secret without a value has one, so that it does not stop there."""
    return whole.deploy(DEMO_BUNDLE)


def changed(said: str) -> set[str]:
    """Return the addresses that Terraform's plans would change."""
    return set(re.findall(r"^  # (\S+) (?:will be (?:created|updated|destroyed)|must be replaced)", said, re.MULTILINE))


def test_one_command_makes_all_of_it_and_it_answers(whole: Whole, deployed: Done) -> None:
    """Each part has its test; that one's outputs are the next one's inputs is shown here alone."""
    assert deployed.code == 0, deployed.said[-4000:]
    assert "it is active: serial 1" in deployed.said
    assert len(re.findall(r"^        ok ", deployed.said, re.MULTILINE)) == 6
    assert "WRONG" not in deployed.said


def test_again_changes_nothing(whole: Whole, deployed: Done) -> None:
    """Whoever runs it after a failure must find what is there, and not a second of it."""
    assert deployed.code == 0
    apis = whole.client("apigateway").get_rest_apis()["items"]
    again = whole.deploy(DEMO_BUNDLE)
    assert again.code == 0, again.said[-4000:]
    assert [address for address in changed(again.said) if not FORGOTTEN.fullmatch(address)] == []
    assert "it is active already" in again.said
    assert whole.client("apigateway").get_rest_apis()["items"] == apis
