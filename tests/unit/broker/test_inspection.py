"""What may be kept of a decision, and for whom."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.evidence import NO_APPROVALS, Approvals
from broker.inspection import MAX_KEPT, Inspection, Inspector, Subject
from chalicelib.domain.canonical import Json
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.operation import Act
from chalicelib.domain.policy import Allow, Decision, Deny, NeedsApproval
from chalicelib.domain.target import RecordMode
from tests.fakes.broker import DBA, PERMITTED, REFUSED, World


def subject(world: World, **fields: Any) -> Subject:
    plain = Subject(
        chain=world.chain, target="orders-prod", principal="app_rw", approvals=NO_APPROVALS, key_bound=False
    )
    return replace(plain, **fields)


def inspection(world: World, **fields: Any) -> Inspection:
    return Inspector(world.configuration).inspect(subject(world, **fields))


def act(action: str = "sql:read", **context: Any) -> Act:
    return Act(action=action, context=tuple(context.items()))


def test_the_same_facts_are_asked_once() -> None:
    """A decision costs 100 us and a warm statement runs a thousand times."""
    world = World()
    one = inspection(world)
    for _ in range(3):
        assert isinstance(one.judge([act(tables=("a",))], world.clock.now()).outcome, Allow)
    assert len(world.policy.asked) == 1


def test_allow_of_one_caller_is_not_kept_for_the_next() -> None:
    """security.md: a decision is kept only within one connection."""
    world = World()
    inspection(world).judge([act()], world.clock.now())
    inspection(world).judge([act()], world.clock.now())
    assert len(world.policy.asked) == 2


def test_facts_that_python_takes_for_equal_and_policy_does_not_are_kept_apart() -> None:
    """True == 1 == 1.0 to a dictionary: the key is the canonical text, which tells them apart."""
    world = World()
    one = inspection(world)
    facts: list[Json] = [True, 1, "1", "True", None, "None", ("1",), ("1", ""), ("1, ",), "('1',)", "\\'", "\\\\'"]
    for fact in (*facts, *[(fact,) for fact in facts[:4]]):
        one.judge([act(x=fact)], world.clock.now())
        one.judge([act(x=fact)], world.clock.now())
    assert len(world.policy.asked) == len(facts) + 3  # ("1",) is there twice


def test_the_next_minute_is_asked_again() -> None:
    """A rule may read the time; no decision outlives the minute that it was made in."""
    world = World()
    one = inspection(world)
    one.judge([act()], world.clock.now())
    world.clock.advance(60)
    world.configuration.step()
    one.judge([act()], world.clock.now())
    assert len(world.policy.asked) == 2


def test_a_new_serial_is_asked_again_though_the_policy_is_the_same() -> None:
    """The registry may have changed the target's tags, which policy reads."""
    world = World()
    one = inspection(world)
    one.judge([act()], world.clock.now())
    world.activate()
    assert one.judge([act()], world.clock.now()).ruling.configuration_serial == 4
    assert len(world.policy.asked) == 2


def test_what_rests_on_an_approval_is_never_kept() -> None:
    """architecture, "Policy": one that used an approval is not cached."""
    world = World()
    world.policy.covers = frozenset({"prod-delete"})
    ask = world.ask_for_session((DBA,))
    given = Approvals(rules=frozenset({"prod-delete"}), answers=(world.answer(ask, "dora"),))
    one = inspection(world, approvals=given)
    for count in (2, 3):
        assert isinstance(one.judge([act("sql:write")], world.clock.now()).outcome, Allow)
        assert len(world.policy.asked) == count
    assert [question.met for question in world.policy.asked] == [
        frozenset(),
        frozenset({"prod-delete"}),
        frozenset({"prod-delete"}),
    ]


def test_the_number_of_kept_decisions_is_bounded() -> None:
    """A client that never sends the same thing twice must not fill our memory."""
    world = World()
    one = inspection(world)
    for number in range(MAX_KEPT + 1):
        one.judge([act(n=number)], world.clock.now())
    one.judge([act(n=0)], world.clock.now())
    assert len(world.policy.asked) == MAX_KEPT + 2


def test_policy_is_asked_with_the_registry_of_now() -> None:
    """What the target is comes from the bundle that judges, not from the one that opened the connection."""
    world = World()
    one = inspection(world)
    world.activate(targets={"orders-prod": replace(world.bundle.targets["orders-prod"], tags=(("pci", "yes"),))})
    one.judge([act()], world.clock.now())
    asked = world.policy.asked[-1].target
    assert asked is not None
    assert asked.tags == (("pci", "yes"),)


def test_a_target_or_login_that_left_the_registry_is_refused() -> None:
    """Removing a target stops its open connections at the next operation."""
    world = World()
    one = inspection(world)
    world.activate(targets={"orders-prod": replace(world.bundle.targets["orders-prod"], principals=())})
    assert isinstance(one.judge([act()], world.clock.now()).outcome, Deny)
    world.activate(targets={})
    assert isinstance(one.judge([act()], world.clock.now()).outcome, Deny)
    assert world.policy.asked == []


def test_a_rule_of_two_needs_is_met_only_by_both() -> None:
    """Two groups in one rule: one of them is not enough."""
    world = World()
    both = (DBA, replace(DBA, approval=replace(DBA.approval, group="sec")))
    world.policy.outcomes["sql:write"] = NeedsApproval(rules=("prod-delete",), needs=both)
    ask = world.ask_for_session(both)
    answer = world.answer(ask, "dora")
    one = inspection(world)
    asked = frozenset({"prod-delete"})
    half = Approvals(rules=asked, answers=(answer,))
    whole = Approvals(rules=asked, answers=(answer, replace(answer, groups=("sec",))))
    bundle = world.configuration.current()
    assert isinstance(one.judge_again(bundle, [act("sql:write")], half, world.clock.now()).outcome, NeedsApproval)
    assert isinstance(one.judge_again(bundle, [act("sql:write")], whole, world.clock.now()).outcome, Allow)


def test_one_person_counts_once_and_a_no_does_not_count() -> None:
    """Two answers of one person are one person."""
    world = World()
    two = replace(DBA, approval=replace(DBA.approval, count=2))
    answer = world.answer(world.ask_for_session((two,)), "dora")
    rules = frozenset({"prod-delete"})
    assert Approvals(rules=rules, answers=(answer, answer)).met([two]) == frozenset()
    eve = replace(answer, person=PersonId("eve"))
    assert Approvals(rules=rules, answers=(answer, replace(eve, approved=False))).met([two]) == frozenset()
    assert Approvals(rules=rules, answers=(answer, eve)).met([two]) == rules


def test_a_key_bound_subject_may_do_what_a_rule_wants_a_key_for() -> None:
    """`bound` is met by how the session was proved."""
    world = World()
    world.policy.outcomes["sql:read"] = replace(PERMITTED, bound=True)
    assert isinstance(inspection(world, key_bound=True).judge([act()], world.clock.now()).outcome, Allow)
    assert isinstance(inspection(world).judge([act()], world.clock.now()).outcome, Deny)


def test_a_child_writes_although_only_reading_was_delegated() -> None:
    """P9, by action: policy permits writing to the parent's team, and the child was handed down less. Policy is not
    even asked, so that neither an approval nor a rule's mistake makes it more."""
    world = World()
    world.policy.outcomes["sql:write"] = PERMITTED
    world.delegate("orders-prod#sql:read")
    one = inspection(world)
    refused = one.judge([act("sql:write")], world.clock.now()).outcome
    assert isinstance(refused, Deny)
    assert "delegated" in refused.public
    assert isinstance(one.judge([act("sql:read")], world.clock.now()).outcome, Allow)
    assert isinstance(one.judge([act("sql:read"), act("sql:write")], world.clock.now()).outcome, Deny)
    assert [question.action for question in world.policy.asked] == ["sql:read"]


def test_an_approval_does_not_widen_what_was_delegated() -> None:
    """Evaluated again after people said yes: what was not handed down is still refused."""
    world = World()
    world.delegate("orders-prod#sql:read")
    ask = world.ask_for_session((DBA,))
    given = Approvals(rules=frozenset({"prod-delete"}), answers=(world.answer(ask, "dora"),))
    bundle = world.configuration.current()
    judged = inspection(world).judge_again(bundle, [act("sql:write")], given, world.clock.now())
    assert isinstance(judged.outcome, Deny)


@pytest.mark.parametrize(
    ("scope", "action", "allowed"),
    [
        ("orders-prod#sql", "sql:read", True),
        ("orders-prod#sql", "ssh:exec", False),
        ("orders-prod/app_rw#sql:read", "sql:read", True),
        ("orders-prod/other#sql:read", "sql:read", False),
        ("other#sql:read", "sql:read", False),
        ("*", "ssh:shell", True),
        ("orders-prod#ssh:exec", "ssh:shell", False),
        ("orders-prod#ssh:exec", "ssh:opaque", False),
    ],
)
def test_the_scope_of_every_hop_is_asked_for_every_act(scope: str, action: str, allowed: bool) -> None:
    """Target, login and action of the scope, each of them: a shell is not one of the commands that were delegated."""
    world = World()
    world.policy.outcomes[action] = PERMITTED
    world.delegate(scope)
    assert isinstance(inspection(world).judge([act(action)], world.clock.now()).outcome, Allow) is allowed


@pytest.mark.parametrize(
    ("action", "durable"),
    [("ssh:exec", False), ("ssh:shell", True), ("ssh:opaque", True), ("sql:opaque", True), ("sql:read", False)],
)
def test_a_shell_and_what_cannot_be_read_are_durable_before_they_run(action: str, durable: bool) -> None:
    """What a shell will do is in no record but what comes of it: that record must be there."""
    world = World()
    world.policy.outcomes[action] = PERMITTED
    assert inspection(world).judge([act(action)], world.clock.now()).durable is durable


def test_rules_of_every_act_are_in_the_ruling() -> None:
    """A review shows on what the whole rests, whatever the verdict."""
    world = World()
    world.policy.outcomes["sql:define"] = REFUSED
    judged = inspection(world).judge([act(), act("sql:define")], world.clock.now())
    assert judged.ruling.rules == ("no-drop", "read")


def statements_only(world: World, **outcomes: Decision) -> Inspection:
    """An inspection of a target that says ``record: statements``; ``outcomes`` by action, sql__read for sql:read."""
    target = replace(world.bundle.targets["orders-prod"], record=RecordMode.STATEMENTS)
    world.activate(targets={"orders-prod": target})
    world.policy.outcomes |= {action.replace("__", ":"): outcome for action, outcome in outcomes.items()}
    return inspection(world)


def recorded_whole(one: Inspection, world: World, *acts: Act) -> bool:
    outcome = one.judge(acts or (act(),), world.clock.now()).outcome
    assert isinstance(outcome, Allow), outcome
    return outcome.record_full


def test_results_are_left_out_where_the_target_says_so_and_policy_permits_it() -> None:
    """record: statements, the control of the tests below."""
    world = World()
    one = statements_only(world, sql__record_less=PERMITTED)
    assert not recorded_whole(one, world, act(tables=("a",)))
    assert world.policy.asked[-1].context == {"tables": ("a",)}, "the permit may tell tables apart"


@pytest.mark.parametrize(
    "said",
    [
        None,
        REFUSED,
        NeedsApproval(rules=("prod-delete",), needs=(DBA,)),
        replace(PERMITTED, record_full=True),
        replace(PERMITTED, bound=True),
    ],
    ids=["nothing", "refused", "approval", "full", "bound"],
)
def test_a_recording_is_thinned_out_without_a_permit(said: Decision | None) -> None:
    """Nothing relaxes by what a target says: what is not permitted as it stands is recorded whole."""
    world = World()
    one = statements_only(world, **({} if said is None else {"sql__record_less": said}))
    assert recorded_whole(one, world)


def test_a_permit_alone_leaves_nothing_out() -> None:
    """Both are needed: a target whose owner wants it whole is recorded whole."""
    world = World()
    world.policy.outcomes["sql:record_less"] = PERMITTED
    assert recorded_whole(inspection(world), world)


def test_record_full_wins_over_a_permit_to_record_less() -> None:
    """A rule that requires record:full for one act has it for the whole operation."""
    world = World()
    full = replace(PERMITTED, record_full=True)
    one = statements_only(world, sql__record_less=PERMITTED, sql__define=full)
    assert recorded_whole(one, world, act(), act("sql:define"))


@pytest.mark.parametrize("action", ["sql:opaque", "ssh:opaque", "ssh:shell"])
def test_what_cannot_be_read_beforehand_is_recorded_whole(action: str) -> None:
    """What a shell did shows in its output alone."""
    world = World()
    permits = dict.fromkeys(("sql__record_less", "ssh__record_less", action.replace(":", "__")), PERMITTED)
    assert recorded_whole(statements_only(world, **permits), world, act(action))


def test_an_approved_operation_may_be_recorded_less_too() -> None:
    """What people approved is the statement; whether its rows are kept is the same question again."""
    world = World()
    one = statements_only(world, sql__record_less=PERMITTED)
    need = Approvals(rules=frozenset({"prod-delete"}), answers=())
    world.policy.outcomes["sql:write"] = PERMITTED
    outcome = one.judge_again(world.bundles.bundle, [act("sql:write")], need, world.clock.now()).outcome
    assert isinstance(outcome, Allow)
    assert not outcome.record_full
