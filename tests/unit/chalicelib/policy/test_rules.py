"""Which bundles compile: one obligation, in one form, each refusal naming file, line and remedy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.policy import Deny, MentionKind
from chalicelib.domain.problem import Problem, problems_of
from chalicelib.policy.engine import compile_policy
from chalicelib.policy.rules import split
from tests.unit.chalicelib.policy.questions import ask

OWN = '@id("x") @requires("durable") forbid (principal, action, resource)'
PERMIT = '@id("works") permit (principal, action, resource);\n'


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationInvalid) as caught:
        compile_policy({"policies/a.cedar": text})
    return problems_of(caught.value, file="?")


def obligation(requires: str, *, rule: str = "rule", notes: str = "", unless: str | None = None) -> str:
    gate = f'context.met.contains("{rule}")' if unless is None else unless
    return f"""@id("{rule}") @requires("{requires}") {notes}
forbid (principal, action, resource) unless {{ {gate} }};\n"""


@pytest.mark.parametrize(
    "requires",
    [
        "approval:dba:1",
        "approval:dba:9",
        "mask:email",
        "mask:email,card_number",
        "durable",
        "record:full",
        "bound",
        "approval:dba:1;durable;record:full;bound;mask:a",
        " durable ; bound ",
    ],
)
def test_every_requirement_of_the_list_compiles(requires: str) -> None:
    """The list is closed; these are in it."""
    compile_policy({"a.cedar": PERMIT + obligation(requires)})


@pytest.mark.parametrize(
    "requires",
    [
        "",
        ";",
        "durable;",
        "approval",
        "approval:dba",
        "approval:dba:0",
        "approval:dba:10",
        "approval:dba:-1",
        "approval:dba:1:1",
        "approval::1",
        "approval:DBA:1",
        "approval:dba:²",
        "mask",
        "mask:",
        "mask:a,,b",
        "mask:A",
        "durable:yes",
        "record",
        "record:none",
        "bound:key",
        "nobody-knows",
        "approval:dba:1;approval:security:1",
        "mask:a;mask:b",
    ],
)
def test_an_unknown_or_malformed_requirement_refuses_the_bundle(requires: str) -> None:
    """One that nobody knows would be one that nobody meets, or that everybody does."""
    found = problems(PERMIT + obligation(requires))
    assert all(problem.file == "policies/a.cedar" and problem.line == 2 and problem.remedy for problem in found)


@pytest.mark.parametrize(
    "unless",
    [
        'context.met.contains("other")',
        'context.met.contains("rule") && true',
        'context.met.contains("rule") || context.depth == 0',
        '!context.met.contains("rule")',
        'context.met.containsAny(["rule"])',
        'context.met.containsAll(["rule"])',
        'context has met && context.met.contains("rule")',
        'context["met"].contains("other")',
        "true",
        "context.depth == 0",
        'context.chain.contains("rule")',
        '["rule"].contains("rule")',
        'if true then context.met.contains("rule") else true',
    ],
)
def test_an_unless_that_does_not_test_exactly_its_own_id_refuses_the_bundle(unless: str) -> None:
    """Anything else could be met by something that is not this rule's approval."""
    assert problems(PERMIT + obligation("approval:dba:1", unless=unless))


def test_the_indexed_form_is_the_same_test() -> None:
    """Judged as parsed, not by text: white space, comments and ["met"] do not matter."""
    compile_policy({"a.cedar": PERMIT + obligation("durable", unless='context["met"] // why\n .contains ( "rule" )')})


@pytest.mark.parametrize(
    "policy",
    [
        '@id("x") permit (principal, action, resource) when { context.met.contains("works") };',
        '@id("x") forbid (principal, action, resource) unless { context.met.contains("x") };',
        '@id("x") forbid (principal, action, resource) when { context.met.isEmpty() };',
        '@id("x") permit (principal, action, resource) when { context has met };',
        '@id("x") permit (principal, action, resource) when { {"c": context} has c };',
        '@id("x") permit (principal, action, resource) when { context == context };',
        '@id("x") permit (principal, action, resource) when { (if true then context else context).met.isEmpty() };',
        OWN + ' when { context.met.contains("x") } unless { context.met.contains("x") };',
        OWN + ' unless { context.met.contains("x") } unless { context.met.contains("x") };',
        OWN + ' unless { context.met.contains("x") } unless { context.met.contains("works") };',
        '@id("x") @requires("durable") forbid (principal, action, resource);',
        '@id("x") @requires("durable") forbid (principal, action, resource) when { context.met.contains("x") };',
    ],
)
def test_met_is_read_nowhere_else(policy: str) -> None:
    """A permit on met would let an approval allow, a second test would let one rule's approval meet another."""
    assert problems(PERMIT + policy)


def test_an_obligation_may_have_other_conditions() -> None:
    """They narrow when it applies; only its own unless meets it."""
    text = '@id("x") @requires("durable") forbid (principal, action, resource) when { context.depth > 0 } \
        unless { context.met.contains("x") } unless { context.trigger_known };'
    compile_policy({"a.cedar": PERMIT + text})


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("permit (principal, action, resource);", "no valid @id"),
        ('@id("") permit (principal, action, resource);', "no valid @id"),
        ('@id("Upper") permit (principal, action, resource);', "no valid @id"),
        ('@id("works") permit (principal, action, resource);', "already at policies/a.cedar:1"),
        ('@id("x") @advice("y") permit (principal, action, resource);', "nobody knows the annotation @advice"),
        ('@id("x") @requires("durable") permit (principal, action, resource);', "@requires on a permit"),
        ('@id("x") @hint("y") permit (principal, action, resource);', "@hint on a permit"),
        ('@id("x") @covers("session") permit (principal, action, resource);', "@covers on a permit"),
        ('@id("x") @hint("") forbid (principal, action, resource);', "hint cannot be shown"),
        ('@id("x") @hint("a\\nb") forbid (principal, action, resource);', "hint cannot be shown"),
        (f'@id("x") @hint("{"y" * 201}") forbid (principal, action, resource);', "hint cannot be shown"),
        ('@id("x") @covers("session") forbid (principal, action, resource);', "@covers says something other"),
        (obligation("durable", notes='@covers("session")'), "@covers says something other"),
        (obligation("approval:dba:1", notes='@covers("week")'), "@covers says something other"),
        ('@id("x") permit (principal == ?principal, action, resource);', "without slots"),
        ('@id("x") permit (principal, action, resource)', "cannot read"),
        ('@id("x") permit (principal, action, resource) when { "', "cannot read"),
        ("nonsense;", "cannot read"),
        ('@id("x") permit (principal, action == Action::"sql:red", resource);', "does not fit the schema"),
        ('@id("x") permit (principal, action == Action::"ssh:exce", resource);', "does not fit the schema"),
        ('@id("x") forbid (principal, action, resource == Service::"other");', "there is no service 'other'"),
        ('@id("x") forbid (principal, action, resource) when { resource == Service::"" };', "there is no service ''"),
        ('@id("x") permit (principal, action, resource) when { context.tables.isEmpty() };', "does not fit the schema"),
        ('@id("x") permit (principal, action, resource) when { principal.getTag("ref") == "a" };', "does not fit"),
        ('@id("x") permit (principal in Group::"a", action, resource);', "does not fit the schema"),
        ('@id("x") permit (principal, action, resource) when { principal.name == "root" };', "does not fit the schema"),
    ],
)
def test_a_wrong_policy_refuses_the_bundle_with_its_place(policy: str, says: str) -> None:
    """Line 2 is where each of them starts."""
    found = problems(PERMIT + policy)
    assert any(says in problem.message and problem.line == 2 for problem in found), [p.text() for p in found]


def test_every_problem_is_told_at_once() -> None:
    """Authors correct a bundle in one go."""
    found = problems("permit (principal, action, resource);\n\n" + obligation("nobody-knows") + "\nnonsense;")
    assert [problem.line for problem in found] == [1, 3, 6]


@pytest.mark.parametrize("texts", [{}, {"a.cedar": ""}, {"a.cedar": "// permit (principal, action, resource);\n"}])
def test_no_policy_at_all_refuses_the_bundle(texts: dict[str, str]) -> None:
    """It would refuse everything, which is more likely a mistake than a wish."""
    with pytest.raises(ConfigurationInvalid, match="no policy"):
        compile_policy(texts)


def test_a_rule_is_unique_over_all_files() -> None:
    """Two files with one id could be met by one approval."""
    with pytest.raises(ConfigurationInvalid, match=r"b\.cedar:1: rule works is already at a\.cedar:1"):
        compile_policy({"a.cedar": PERMIT, "b.cedar": PERMIT})


def test_policies_are_found_past_comments_and_strings() -> None:
    """A semicolon in a comment or a string ends nothing, and the line is that of the first annotation."""
    text = '// a; comment\n\n@id("a;b") // c;\npermit (principal, action, resource); @id("c")\npermit'
    assert [(source.line, source.text.count(";")) for source in split("f", text)] == [(3, 3), (4, 0)]


def test_a_comment_at_the_end_of_a_file_does_not_swallow_the_next_file() -> None:
    """The files are joined: a forbid behind another file's unfinished comment would vanish."""
    forbid = '@id("no") forbid (principal, action, resource);'
    policy = compile_policy({"a.cedar": PERMIT + "// end", "b.cedar": forbid})
    assert isinstance(policy.decide(ask()), Deny)
    with pytest.raises(ConfigurationInvalid):
        compile_policy({"a.cedar": PERMIT + '@id("open', "b.cedar": '") forbid (principal, action, resource);'})


def test_mentions_name_what_other_files_must_define() -> None:
    """The loader refuses a forbid on a misspelt environment; it can, because each name is told with its place."""
    text = """
@id("a") permit (principal in Team::"t", action, resource == Target::"x") when { principal in Issuer::"https://i" };
@id("b") @requires("approval:dba:2;mask:m,n") forbid (principal, action, resource in Env::"prod")
when { resource != Target::"y" } unless { context.met.contains("b") };"""
    found = {(m.kind, m.name, m.people, m.line) for m in compile_policy({"p.cedar": text}).mentions}
    assert found == {
        (MentionKind.TEAM, "t", 0, 2),
        (MentionKind.TARGET, "x", 0, 2),
        (MentionKind.ISSUER, "https://i", 0, 2),
        (MentionKind.ENVIRONMENT, "prod", 0, 3),
        (MentionKind.TARGET, "y", 0, 3),
        (MentionKind.GROUP, "dba", 2, 3),
        (MentionKind.MASK, "m", 0, 3),
        (MentionKind.MASK, "n", 0, 3),
    }


@given(st.text(alphabet=st.sampled_from(list('permitforbid@()"\\;/ \n{}id,actionresourceprincipal')), max_size=200))
def test_junk_gives_only_the_configuration_error(text: str) -> None:
    """A pushed bundle is input like any other."""
    with pytest.raises(ConfigurationInvalid):
        compile_policy({"a.cedar": text})


@given(st.text(max_size=300))
def test_splitting_loses_no_policy_text(text: str) -> None:
    """What is left out is white space and comments only: a forbid must not fall between two pieces."""
    kept = "".join(source.text for source in split("f", text))
    assert text.count(";") == 0 or kept.count(";") + text.count("//") * len(text) >= text.count(";")
    if "//" not in text:
        assert "".join(kept.split()) == "".join(text.split())
