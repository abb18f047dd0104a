"""Properties of decide: a forbid never allows, and what is met never widens beyond its own rule."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.policy import Allow, Decision, Deny, NeedsApproval
from chalicelib.policy.engine import compile_policy
from tests.unit.chalicelib.policy.questions import ask

ACTIONS = ("session:open", "sql:read", "sql:write", "sql:define", "sql:opaque")
SCOPES = ("action", 'action in Action::"sql"', *(f'action == Action::"{action}"' for action in ACTIONS))
WHENS = ("true", "context.depth == 0", "context.depth > 3", "context.trigger_known", 'resource in Env::"prod"')
REQUIRES = ("", "approval:dba:1", "approval:security:2;durable", "mask:email", "record:full", "bound")


@st.composite
def forbid(draw: st.DrawFn) -> tuple[str, str]:
    """A forbid without its id, and what it requires."""
    return (
        f"forbid (principal, {draw(st.sampled_from(SCOPES))}, resource) when {{ {draw(st.sampled_from(WHENS))} }}",
        draw(st.sampled_from(REQUIRES)),
    )


permit = st.builds(
    "permit (principal, {0}, resource) when {{ {1} }};".format, st.sampled_from(SCOPES), st.sampled_from(WHENS)
)
permits = st.lists(permit, min_size=1, max_size=3)
forbids = st.lists(forbid(), max_size=4)


def text(allow: list[str], refuse: list[tuple[str, str]]) -> str:
    lines = [f'@id("p{number}") {policy}' for number, policy in enumerate(allow)]
    for number, (policy, requires) in enumerate(refuse):
        note, gate = (
            (f'@requires("{requires}")', f'unless {{ context.met.contains("f{number}") }}') if requires else ("", "")
        )
        lines.append(f'@id("f{number}") {note} {policy} {gate};')
    return "\n".join(lines)


def rank(outcome: Decision) -> int:
    match outcome:
        case Allow():
            return 2
        case NeedsApproval():
            return 1
        case Deny():
            return 0


@settings(max_examples=60, deadline=None)
@given(permits, forbids, forbid(), st.sampled_from(ACTIONS), st.sets(st.sampled_from(["f0", "f1", "f2", "f3", "p0"])))
def test_adding_a_forbid_never_allows_more(
    allow: list[str], refuse: list[tuple[str, str]], added: tuple[str, str], action: str, met: set[str]
) -> None:
    """Whatever it requires and whatever is met: from refused stays refused, from held is never allowed."""
    question = ask(action, met=frozenset(met))
    before = compile_policy({"a.cedar": text(allow, refuse)}).decide(question)
    after = compile_policy({"a.cedar": text(allow, [*refuse, added])}).decide(question)
    assert rank(after) <= rank(before)
    if isinstance(before, Allow) and isinstance(after, Allow):
        assert set(before.masks) <= set(after.masks)
        assert (before.durable, before.record_full, before.bound) <= (after.durable, after.record_full, after.bound)


@settings(max_examples=60, deadline=None)
@given(permits, forbids, st.sampled_from(ACTIONS), st.sets(st.sampled_from(["f0", "f1", "f2", "f3", "p0", "x"])))
def test_met_never_widens_beyond_the_annotated_rule(
    allow: list[str], refuse: list[tuple[str, str]], action: str, met: set[str]
) -> None:
    """Met rules take away their own need and nothing else: obligations stay, hard forbids stay, no permit appears."""
    rules = compile_policy({"a.cedar": text(allow, refuse)})
    bare, given_met = rules.decide(ask(action)), rules.decide(ask(action, met=frozenset(met)))
    if isinstance(bare, NeedsApproval):
        left = tuple(need for need in bare.needs if need.rule not in met)
        if left:
            assert given_met == NeedsApproval(rules=tuple(need.rule for need in left), needs=left)
        else:
            assert isinstance(given_met, Allow)
            assert set(bare.rules) <= set(given_met.rules)
    else:
        assert given_met == bare
