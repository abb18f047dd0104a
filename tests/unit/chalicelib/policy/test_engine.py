"""What CedarPolicy.decide answers: permits, forbids, obligations, and every way in which it could fail open."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from chalicelib.domain.chain import Chain
from chalicelib.domain.identity import Assurance
from chalicelib.domain.policy import Allow, Decision, Deny, NeedsApproval
from chalicelib.policy.engine import CedarPolicy, compile_policy
from tests.unit.chalicelib.policy.questions import ask, hop, target

PERMIT = '@id("works") permit (principal in Team::"orders-pipeline", action, resource);\n'
DBA = """@id("dba") @requires("approval:dba:2") @hint("ask the dba")
forbid (principal, action == Action::"sql:write", resource) unless { context.met.contains("dba") };\n"""
SECURITY = """@id("sec") @requires("approval:security:1;durable;record:full")
forbid (principal, action == Action::"sql:write", resource) unless { context.met.contains("sec") };\n"""
PII = """@id("pii") @requires("mask:email,card_number")
forbid (principal, action in Action::"sql", resource) unless { context.met.contains("pii") };\n"""
NOTES = """@id("notes") @requires("mask:note,email;bound")
forbid (principal, action in Action::"sql", resource) unless { context.met.contains("notes") };\n"""
HARD = """@id("frozen") @hint("it is frozen until Monday")
forbid (principal, action == Action::"sql:write", resource);\n"""


def policy(*texts: str) -> CedarPolicy:
    return compile_policy({f"{number}.cedar": text for number, text in enumerate(texts)})


def test_what_no_rule_permits_is_refused() -> None:
    """The default is no: an actor outside the team gets nothing."""
    outcome = policy(PERMIT).decide(ask(chain=Chain(hops=(hop(teams=()),))))
    assert outcome == Deny(rules=(), public="no rule permits this", hint="Ask the owners of the target for access.")


def test_a_permit_is_named() -> None:
    """The record says by which rule something was allowed."""
    assert policy(PERMIT).decide(ask()) == Allow(
        rules=("works",), masks=(), durable=False, record_full=False, bound=False
    )


def test_what_we_do_ourselves_is_met_by_doing_it_and_all_of_it_is_told() -> None:
    """Masks are the union of the rules that apply; a mask that is not told would not be applied."""
    outcome = policy(PERMIT, PII, NOTES).decide(ask())
    assert outcome == Allow(
        rules=("notes", "pii", "works"),
        masks=("card_number", "email", "note"),
        durable=False,
        record_full=False,
        bound=True,
    )


def test_a_rule_that_does_not_apply_obliges_to_nothing() -> None:
    """The write rule's record and durability must not leak onto reads."""
    assert policy(PERMIT, SECURITY).decide(ask("sql:read")) == Allow(
        rules=("works",), masks=(), durable=False, record_full=False, bound=False
    )


def test_an_approval_is_needed_until_its_own_rule_is_met() -> None:
    """Both rules stand in the way; the second still does once the first is met."""
    rules = policy(PERMIT, DBA, SECURITY, PII)
    outcome = rules.decide(ask("sql:write"))
    assert isinstance(outcome, NeedsApproval)
    assert [(need.rule, need.approval.group, need.approval.count, need.hint) for need in outcome.needs] == [
        ("dba", "dba", 2, "ask the dba"),
        ("sec", "security", 1, ""),
    ]
    half = rules.decide(ask("sql:write", met=frozenset({"dba"})))
    assert isinstance(half, NeedsApproval)
    assert half.rules == ("sec",)
    assert rules.decide(ask("sql:write", met=frozenset({"dba", "sec"}))) == Allow(
        rules=("dba", "pii", "sec", "works"),
        masks=("card_number", "email"),
        durable=True,
        record_full=True,
        bound=False,
    )


def test_a_hard_forbid_wins_over_every_approval_and_gives_its_hint() -> None:
    """Nobody is asked for what would be refused anyway, and no approval gets past it."""
    for met in (frozenset[str](), frozenset({"dba", "frozen"})):
        assert policy(PERMIT, DBA, HARD).decide(ask("sql:write", met=met)) == Deny(
            rules=("frozen",), public="policy forbids this (rule frozen)", hint="it is frozen until Monday"
        )


def test_a_hard_forbid_without_a_hint_has_the_general_one() -> None:
    """A client is always told what to do next."""
    outcome = policy(PERMIT, '@id("no") forbid (principal, action, resource);').decide(ask())
    assert isinstance(outcome, Deny)
    assert outcome.hint


def test_an_approval_never_stands_for_a_permit() -> None:
    """Without any permit there is nothing to approve: no card is posted, and no answer helps."""
    for met in (frozenset[str](), frozenset({"dba"})):
        outcome = policy(DBA, PERMIT).decide(ask("sql:write", met=met, chain=Chain(hops=(hop(teams=("other",)),))))
        assert outcome == Deny(rules=(), public="no rule permits this", hint="Ask the owners of the target for access.")


def test_approve_with_less_widens() -> None:
    """security.md: an approval satisfies its rule and never widens: what was met for one rule, for a mask, for an
    unknown rule or for a permit changes nothing elsewhere."""
    rules = policy(PERMIT, DBA, SECURITY, HARD.replace("sql:write", "sql:define"))
    everything = frozenset({"dba", "works", "frozen", "pii", "nobody", ""})
    assert isinstance(rules.decide(ask("sql:write", met=everything)), NeedsApproval)
    assert isinstance(rules.decide(ask("sql:define", met=everything)), Deny)
    outsider = Chain(hops=(hop(teams=()),))
    assert isinstance(rules.decide(ask("sql:read", met=everything, chain=outsider)), Deny)
    masked = policy(PERMIT, PII).decide(ask(met=frozenset({"pii"})))
    assert isinstance(masked, Allow)
    assert masked.masks == ("card_number", "email"), "saying that the mask rule is met must not switch the masks off"


def test_the_requesters_own_text_lowers_a_threshold() -> None:
    """security.md: a reason never counts. It is not in the schema, so a policy cannot read it and a question that
    carries it is refused; nor can a caller's context replace what was verified."""
    with pytest.raises(Exception, match="reason"):
        policy('@id("a") permit (principal, action, resource) when { context.reason == "incident" };')
    assert isinstance(policy(PERMIT).decide(ask(context={"reason": "incident"})), Deny)
    trusting = '@id("a") permit (principal, action, resource) when { context.trigger_known && context.depth == 7 };'
    assert isinstance(policy(trusting).decide(ask(context={"trigger_known": True, "depth": 7})), Deny)
    gated = policy(PERMIT, DBA).decide(ask("sql:write", context={"met": ["dba"]}))
    assert isinstance(gated, NeedsApproval)


def test_a_forbid_that_errors_is_a_refusal() -> None:
    """The fail-open trap: Cedar skips a forbid whose evaluation errors and answers Allow."""
    overflow = """@id("overflow") forbid (principal, action, resource)
        when { context.depth + 9223372036854775807 > 0 };"""
    rules = policy(PERMIT, overflow)
    deep = Chain(hops=(hop(), hop(depth=1)))
    outcome = rules.decide(ask(chain=deep))
    assert isinstance(outcome, Deny)
    assert "could not be evaluated" in outcome.public


def test_a_permit_that_errors_is_a_refusal_even_beside_one_that_allows() -> None:
    """An error anywhere means that the rules were not what their author thought."""
    overflow = '@id("o") permit (principal, action, resource) when { context.depth + 9223372036854775807 > 0 };'
    assert isinstance(policy(PERMIT, overflow).decide(ask(chain=Chain(hops=(hop(), hop(depth=1))))), Deny)


def test_an_unknown_action_is_refused() -> None:
    """Cedar answers NoDecision; the group of actions is not one to ask about either."""
    for action in ("sql:unknown", "sql", "ssh", "chain", "ssh:exec:x", "", "unmask"):
        assert isinstance(policy(PERMIT).decide(ask(action)), Deny)


def test_a_context_that_does_not_fit_the_schema_is_refused() -> None:
    """Missing, of another type, or of another action: the parser and the policy disagree about what was parsed."""
    question = ask()
    without = {key: value for key, value in question.context.items() if key != "tables"}
    assert isinstance(policy(PERMIT).decide(replace(question, context=without)), Deny)
    assert isinstance(policy(PERMIT).decide(ask(context={"has_where": "yes"})), Deny)
    assert isinstance(policy(PERMIT).decide(ask("session:open", context={"statement": "SELECT"})), Deny)
    assert isinstance(policy(PERMIT).decide(ask("ssh:exec", context={"terminal": "yes"})), Deny)
    assert isinstance(policy(PERMIT).decide(ask("chain:revoke", context={"id": "x"})), Deny)


def test_decide_never_raises() -> None:
    """Whoever calls it has no except clause: a broken question is a refusal."""
    rules = policy(PERMIT)
    twice = hop(attributes=(("ref", "a"), ("ref", "b")))
    assert isinstance(rules.decide(ask(chain=Chain(hops=(twice,)))), Deny)
    assert isinstance(rules.decide(ask(chain=Chain(hops=()))), Deny)
    assert isinstance(rules.decide(ask(context={"tables": ["\ud800"]})), Deny)


def test_names_with_quotes_stay_names() -> None:
    """An identity whose subject looks like Cedar text is no other identity, and no member of a team."""
    forged = hop(subject='x" in Team::"orders-pipeline', teams=('a"', 'Team::"orders-pipeline"'))
    assert isinstance(policy(PERMIT).decide(ask(chain=Chain(hops=(forged,)))), Deny)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ('principal.hasTag("ref") && principal.getTag("ref") == "refs/heads/main"', True),
        ('principal.hasTag("ref") && principal.getTag("ref") == "refs/heads/dev"', False),
        ('principal.hasTag("environment") && principal.getTag("environment") == "prod"', False),
        ('principal.assurance == "vouched" && principal.depth == 1', True),
        ('context.min_assurance == "bearer"', True),
        ("context.trigger_known", True),
        ("context.depth == 1", True),
        ('context.originator == "https://issuer.example#9001:700100200"', True),
        ('context.chain.contains("https://issuer.example#tool")', True),
        ('context.chain.contains("https://issuer.example#other")', False),
        ('principal in Issuer::"https://issuer.example"', True),
        ('resource in Env::"prod"', True),
        ('resource.tags.contains("team=orders")', True),
        ('resource.protocol == "postgres"', True),
        ('context.principal == "orders_app"', True),
        ("context.time.hour == 23 && context.time.weekday == 7", True),
    ],
)
def test_policy_sees_the_facts(condition: str, expected: bool) -> None:
    """Each fact that the schema promises is the one that was verified: the weakest assurance, UTC, the leaf's tags."""
    chain = Chain(
        hops=(
            hop(assurance=Assurance.BEARER),
            hop(depth=1, subject="tool", assurance=Assurance.VOUCHED),
        )
    )
    sunday_night = datetime(2026, 11, 8, 23, 59, tzinfo=UTC)
    outcome = policy(f'@id("a") permit (principal, action, resource) when {{ {condition} }};').decide(
        ask(chain=chain, now=sunday_night)
    )
    assert isinstance(outcome, Allow) is expected


def test_an_unknown_trigger_is_seen() -> None:
    """Nobody accountable: a rule may ask for more."""
    rules = policy('@id("a") permit (principal, action, resource) unless { context.trigger_known };')
    assert isinstance(rules.decide(replace(ask(), trigger_known=False)), Allow)
    assert isinstance(rules.decide(ask()), Deny)


ON_SSH = {"ssh:exec", "ssh:shell", "ssh:opaque"}
ON_SERVICE = {"chain:delegate", "chain:revoke", "chain:review"}
ON_EVIDENCE = {"evidence:hold", "evidence:lift"}  # in no group: a permit for all of "chain" lets no evidence go


@pytest.mark.parametrize(
    ("scope", "condition", "expected"),
    [
        ('action == Action::"ssh:exec", resource', 'context.program == "cat"', {"ssh:exec"}),
        ('action == Action::"ssh:exec", resource', 'context.command like "cat /var/log/*"', {"ssh:exec"}),
        ('action == Action::"ssh:exec", resource', 'context.arguments.contains("/var/log/syslog")', {"ssh:exec"}),
        ('action == Action::"ssh:exec", resource', "context.terminal", set()),
        ('action == Action::"ssh:exec", resource', 'context.program == "rm"', set()),
        ('action == Action::"ssh:shell", resource', "true", {"ssh:shell"}),
        ('action in Action::"ssh", resource in Env::"prod"', "true", ON_SSH),
        ('action in Action::"ssh", resource in Env::"test"', "true", set()),
        ('action in Action::"sql", resource', "true", set()),
        ('action in Action::"chain", resource', "true", ON_SERVICE),
        ('action in Action::"chain", resource == Service::"countersign"', 'context.what == "hop"', ON_SERVICE),
        ('action == Action::"chain:review", resource', 'context.what == "session"', set()),
        ('action == Action::"evidence:hold", resource', "true", {"evidence:hold"}),
        ('action == Action::"evidence:lift", resource', "true", {"evidence:lift"}),
        ('action, resource == Target::"orders-prod"', "true", ON_SSH),
    ],
)
def test_what_is_permitted_on_a_shell_and_on_the_service(scope: str, condition: str, expected: set[str]) -> None:
    """Each action is its own: who may run a command has no shell, who may review does not revoke, and a permit for a
    target says nothing about the service."""
    rules = policy(f'@id("a") permit (principal in Team::"orders-pipeline", {scope}) when {{ {condition} }};')
    assert {
        action for action in ON_SSH | ON_SERVICE | ON_EVIDENCE if isinstance(rules.decide(ask(action)), Allow)
    } == expected


def test_a_rule_for_every_resource_reads_the_services_attributes() -> None:
    """A forbid by tags was valid before there was a service to ask about: it stays so, and does not reach it."""
    tagged = '@id("t") forbid (principal, action, resource) when { resource.tags.contains("team=orders") };'
    assert isinstance(policy(PERMIT, tagged).decide(ask("chain:review")), Allow)
    assert isinstance(policy(PERMIT, tagged).decide(ask("sql:read")), Deny)


def test_an_action_is_asked_about_its_own_kind_of_resource() -> None:
    """A caller that asks about a command on the service, or a revocation of a target, made a mistake: no Allow."""
    assert isinstance(policy(PERMIT).decide(replace(ask("ssh:exec"), target=None)), Deny)
    assert isinstance(policy(PERMIT).decide(replace(ask("chain:revoke"), target=target())), Deny)


def test_an_approval_of_an_opaque_line_and_masks_of_what_comes_back() -> None:
    """Obligations are the same for every protocol: people first, then what we do ourselves."""
    held = """@id("opaque") @requires("approval:dba:1;record:full") @hint("say what it does")
    forbid (principal, action == Action::"ssh:opaque", resource) unless { context.met.contains("opaque") };
    @id("keys") @requires("mask:credentials;durable")
    forbid (principal, action in Action::"ssh", resource) unless { context.met.contains("keys") };"""
    rules = policy(PERMIT, held)
    assert isinstance(rules.decide(ask("ssh:opaque")), NeedsApproval)
    outcome = rules.decide(ask("ssh:opaque", met=frozenset({"opaque"})))
    assert isinstance(outcome, Allow)
    assert (outcome.masks, outcome.durable, outcome.record_full) == (("credentials",), True, True)


def test_kept_entities_are_those_of_the_question() -> None:
    """Entities are kept parsed: another actor, or the same target in another environment, must not get them."""
    rules = policy('@id("a") permit (principal in Team::"orders-pipeline", action, resource in Env::"prod");')
    expected: list[Decision] = [rules.decide(ask()) for _ in range(2)]
    assert all(isinstance(outcome, Allow) for outcome in expected)
    assert isinstance(rules.decide(ask(chain=Chain(hops=(hop(teams=()),)))), Deny)
    assert isinstance(rules.decide(ask(on=target(environment="test"))), Deny)
    for number in range(600):  # past what is kept, so that the oldest goes
        rules.decide(ask(chain=Chain(hops=(hop(subject=f"s{number}"),))))
    assert isinstance(rules.decide(ask()), Allow)


def test_covers_session_only_where_the_rule_says_so() -> None:
    """An approval of a request counts for operations by annotation alone."""
    covering = DBA.replace('@hint("ask the dba")', '@covers("session")')
    assert policy(PERMIT, covering).covers_session("dba")
    assert not policy(PERMIT, DBA).covers_session("dba")
    assert not policy(PERMIT, covering).covers_session("works")
    assert not policy(PERMIT, covering).covers_session("nobody")


def test_the_digest_is_of_names_and_texts() -> None:
    """Every verdict names it: the same texts, the same digest, and one changed byte another."""
    assert policy(PERMIT, DBA).digest == policy(PERMIT, DBA).digest
    assert policy(PERMIT, DBA).digest != policy(PERMIT, DBA + " ").digest
    assert policy(PERMIT, DBA).digest != policy(DBA, PERMIT).digest


def test_reasons_are_matched_to_rules_past_ten_policies() -> None:
    """Cedar numbers policies, and policy10 sorts before policy2: a wrong match would hide a hard forbid."""
    more = "".join(f'@id("p{n}") permit (principal == Actor::"x{n}", action, resource);\n' for n in range(15))
    assert isinstance(policy(more, PERMIT, DBA).decide(ask("sql:write")), NeedsApproval)
    outcome = policy(more, PERMIT, HARD, DBA).decide(ask("sql:write"))
    assert isinstance(outcome, Deny)
    assert outcome.rules == ("frozen",)


def test_a_decision_costs_less_than_a_statement_can_wait() -> None:
    """Two evaluations with obligations stay far below a millisecond (aim: 400 us; the bound has room for a busy CI)."""
    rules = policy(PERMIT, DBA, SECURITY, PII, NOTES)
    question = ask("sql:write", met=frozenset({"dba", "sec"}))
    rules.decide(question)
    took = []
    for _ in range(200):
        started = time.perf_counter()
        rules.decide(question)
        took.append(time.perf_counter() - started)
    assert sorted(took)[100] < 0.002


EVERY_SQL = """@id("every")
permit (principal, action in Action::"sql", resource);"""
LESS = """@id("less")
permit (principal, action == Action::"sql:record_less", resource) when {
    context.statement == "SELECT" && context.tables.contains("public.events")
};"""


def test_a_permit_for_everything_does_not_permit_recording_less() -> None:
    """Leaving results out is no kind of statement: whoever permits all of sql has not said so."""
    assert policy(EVERY_SQL).decide(ask(action="sql:read")) != _NO_PERMIT
    assert policy(EVERY_SQL).decide(ask(action="sql:record_less")) == _NO_PERMIT


def test_recording_less_is_permitted_by_what_the_statement_reads() -> None:
    """The same context as the statement's own."""
    asked = ask(action="sql:record_less")
    assert isinstance(
        policy(LESS).decide(replace(asked, context={**asked.context, "tables": ["public.events"]})), Allow
    )
    assert policy(LESS).decide(asked) == _NO_PERMIT


_NO_PERMIT = Deny(rules=(), public="no rule permits this", hint="Ask the owners of the target for access.")
