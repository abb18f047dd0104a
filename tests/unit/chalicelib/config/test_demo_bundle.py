"""The demo's rules decide what its comments and the story of `make demo` say."""

from __future__ import annotations

from pathlib import Path

import pytest

from chalicelib.config.bundle import Bundle
from chalicelib.config.files import read_directory
from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Chain
from chalicelib.domain.policy import Allow, Deny, NeedsApproval
from chalicelib.domain.requirement import Approval
from tests.unit.chalicelib.config.bundles import load
from tests.unit.chalicelib.policy.questions import ask, hop


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return load(read_directory(Path(__file__).parents[4] / "dev/demo/bundle"))


@pytest.mark.parametrize(("action", "rule"), [("session:open", "prod-open"), ("sql:write", "prod-write")])
def test_opening_and_writing_need_a_dba(demo: Bundle, action: str, rule: str) -> None:
    """One click each, and then it runs."""
    outcome = demo.policy.decide(ask(action, on=demo.targets["orders-prod"]))
    assert isinstance(outcome, NeedsApproval)
    assert [(need.rule, need.approval) for need in outcome.needs] == [(rule, Approval(group="dba", count=1))]
    assert outcome.needs[0].hint
    met = ask(action, on=demo.targets["orders-prod"], met=frozenset({rule}))
    assert isinstance(demo.policy.decide(met), Allow)


def test_an_approved_session_approves_no_statement(demo: Bundle) -> None:
    """Neither rule covers the session."""
    outcome = demo.policy.decide(ask("sql:write", on=demo.targets["orders-prod"], met=frozenset({"prod-open"})))
    assert isinstance(outcome, NeedsApproval)


@pytest.mark.parametrize("action", ["sql:read", "sql:session"])
def test_what_comes_back_is_masked_and_recorded(demo: Bundle, action: str) -> None:
    """No person is asked."""
    outcome = demo.policy.decide(ask(action, on=demo.targets["orders-prod"]))
    assert isinstance(outcome, Allow)
    assert outcome.masks == ("card_number", "email")
    assert outcome.record_full


@pytest.mark.parametrize(
    ("action", "context", "says"),
    [
        ("sql:define", {"statement": "DROP TABLE"}, "migration window"),
        ("sql:write", {"statement": "DELETE", "has_where": False}, "WHERE"),
        ("sql:read", {"masked_outside_output": True, "reads_masked": True}, "select the masked column"),
        ("sql:derives_masked", {}, "copied"),
        ("sql:privilege", {}, "administrators"),
        ("sql:opaque", {}, "owners"),
    ],
)
def test_refusals_say_what_to_do(demo: Bundle, action: str, context: dict[str, Json], says: str) -> None:
    """No approval gets past them."""
    everything = frozenset({"prod-open", "prod-write", "pii", "prod-record"})
    outcome = demo.policy.decide(ask(action, on=demo.targets["orders-prod"], context=context, met=everything))
    assert isinstance(outcome, Deny)
    assert says in outcome.hint


def test_another_repository_gets_nothing(demo: Bundle) -> None:
    """Only the team that issuers.yaml makes of acme/orders."""
    stranger = Chain(hops=(hop(teams=()),))
    for action in ("session:open", "sql:read"):
        assert isinstance(
            demo.policy.decide(ask(action, on=demo.targets["orders-prod"], chain=stranger)),
            (Deny, NeedsApproval),
        )
