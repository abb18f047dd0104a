"""Cedar, with the one kind of obligation: a ``forbid`` that can be met.

A decision is one evaluation with nothing met, which finds every forbid that applies, and, where all of them can be met,
a second with exactly those met, which must be a real Cedar Allow. So an obligation never permits anything by itself,
a hard forbid always wins, and what was met for one rule is never seen by another.

Fails closed: Cedar *skips* a forbid whose evaluation errors, which would make an Allow of it, so any error, and any
answer that is not a decision, is Deny. ``decide`` never raises.

Does not: read files, know who answered an Ask, mask or record anything.
Source: https://docs.cedarpolicy.com/auth/authorization.html ("skip on error"); ADR 0001.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import cedarpy

from chalicelib.domain.canonical import Json, digest, sha256_hex
from chalicelib.domain.errors import PolicyDenied
from chalicelib.domain.policy import Allow, Decision, Deny, Mention, NeedsApproval, PolicyQuestion
from chalicelib.domain.problem import Problem, configuration_invalid
from chalicelib.domain.requirement import REQUIREMENTS_VERSION, Bound, Durable, MaskWith, RecordFull, Requirement
from chalicelib.domain.session import ApprovalNeed
from chalicelib.policy.facts import SCHEMA, EntityShelf, common_context, resource
from chalicelib.policy.rules import Rule, read_rule, split
from chalicelib.policy.schema import CEDAR_SCHEMA

_Evaluate = Callable[[frozenset[str]], "_Answer"]

_NO_PERMIT: Final = Deny(rules=(), public="no rule permits this", hint=PolicyDenied.hint)
_FAILED: Final = Deny(
    rules=(),
    public="the policy could not be evaluated, so this is refused",
    hint="Give the request id to the operators.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answer:
    """What Cedar said: the ids of the permits that allow, or of the forbids (none: no permit) that deny."""

    allowed: bool
    rules: tuple[str, ...]


class _Undecided(Exception):
    """Cedar gave an error, or no decision: never an Allow."""


class CedarPolicy:
    """A validated policy set. Thread-safe: the parsed set, the schema and the rules never change."""

    def __init__(self, policies: cedarpy.PolicySet, rules: tuple[Rule, ...], policy_digest: str) -> None:
        """``rules`` are in the order of ``policies``; make one with :func:`compile_policy`."""
        self._policies = policies
        self._rules: Mapping[str, Rule] = {rule.id: rule for rule in rules}
        # Cedar names policies policy0, policy1, ... in the order of the text.
        self._ids: Mapping[str, str] = {f"policy{n}": rule.id for n, rule in enumerate(rules)}
        self._digest = policy_digest
        self._shelf = EntityShelf()

    @property
    def digest(self) -> str:
        """64 hexadecimal digits over the texts, the schema and the version of the list of requirements."""
        return self._digest

    @property
    def mentions(self) -> tuple[Mention, ...]:
        return tuple(mention for rule in self._rules.values() for mention in rule.mentions)

    def covers_session(self, rule: str) -> bool:
        """Whether a request's approval of ``rule`` counts for the session's operations. Pure."""
        known = self._rules.get(rule)
        return known is not None and known.covers_session

    def decide(self, question: PolicyQuestion) -> Decision:
        """Return the outcome. From memory, below 400 us; never raises: whatever fails is Deny."""
        try:
            return self._weigh(question, self._evaluator(question))
        except Exception:  # noqa: BLE001 - the contract: a failure of any kind is a refusal, never an Allow
            return _FAILED

    def _weigh(self, question: PolicyQuestion, evaluate: _Evaluate) -> Decision:
        first = evaluate(frozenset())
        if first.allowed:
            return _permitted(first.rules, ())
        if not first.rules:
            return _NO_PERMIT
        standing = [self._rules[rule] for rule in first.rules]
        hard = [rule for rule in standing if not rule.requirements]
        if hard:
            return _forbidden(hard)
        second = evaluate(frozenset(first.rules))
        if not second.allowed:
            return _NO_PERMIT
        needs = tuple(
            ApprovalNeed(rule=rule.id, approval=rule.approval, hint=rule.hint)
            for rule in standing
            if rule.approval is not None and rule.id not in question.met
        )
        if needs:
            return NeedsApproval(rules=tuple(need.rule for need in needs), needs=needs)
        return _permitted((*first.rules, *second.rules), (need for rule in standing for need in rule.requirements))

    def _evaluator(self, question: PolicyQuestion) -> _Evaluate:
        """Return a function from what is met to Cedar's answer, with all that stays the same built once."""
        entities = self._shelf.entities(question.chain.leaf, question.target)
        context: dict[str, Json] = {**question.context, **common_context(question)}
        request = {
            "principal": {"type": "Actor", "id": question.chain.leaf.actor.key},
            "action": {"type": "Action", "id": question.action},
            "resource": resource(question.target),
        }

        def evaluate(met: frozenset[str]) -> _Answer:
            asked = {**request, "context": json.dumps({**context, "met": sorted(met)})}
            result = cedarpy.is_authorized(asked, self._policies, entities, SCHEMA)
            if result.decision is cedarpy.Decision.NoDecision or result.diagnostics.errors:
                raise _Undecided
            rules = sorted(self._ids[policy] for policy in result.diagnostics.reasons)
            return _Answer(allowed=result.decision is cedarpy.Decision.Allow, rules=tuple(rules))

        return evaluate


def _permitted(rules: Iterable[str], requirements: Iterable[Requirement]) -> Allow:
    needs = tuple(requirements)
    masks = {mask for need in needs if isinstance(need, MaskWith) for mask in need.masks}
    return Allow(
        rules=tuple(sorted(set(rules))),
        masks=tuple(sorted(masks)),
        durable=Durable() in needs,
        record_full=RecordFull() in needs,
        bound=Bound() in needs,
    )


def _forbidden(hard: list[Rule]) -> Deny:
    ids = tuple(rule.id for rule in hard)
    hints = dict.fromkeys(rule.hint for rule in hard if rule.hint)
    return Deny(
        rules=ids, public=f"policy forbids this (rule {', '.join(ids)})", hint="; ".join(hints) or PolicyDenied.hint
    )


def compile_policy(texts: Mapping[str, str]) -> CedarPolicy:
    """Return the policy that ``texts`` (file name to Cedar text) state together. Pure.

    Raises ConfigurationInvalid that carries every problem (``chalicelib.domain.problem``), each with file, line of the
    policy and remedy.
    """
    sources = [source for file in sorted(texts) for source in split(file, texts[file])]
    if not sources:
        where = min(texts, default="policies")
        problem = Problem(
            file=where, line=0, message="there is no policy", remedy="Write one permit: what none permits is refused."
        )
        raise configuration_invalid((problem,))
    rules: list[Rule] = []
    problems: list[Problem] = []
    for source in sources:
        match read_rule(source):
            case Rule() as rule:
                rules.append(rule)
            case found:
                problems.extend(found)
    problems.extend(_repeated(rules))
    if problems:
        raise configuration_invalid(problems)
    together = "\n".join(rule.source.text for rule in rules)
    problems.extend(_schema_problems(together, rules))
    if problems:
        raise configuration_invalid(problems)
    return CedarPolicy(_parse_together(together, rules), tuple(rules), _digest(texts))


def _repeated(rules: list[Rule]) -> list[Problem]:
    first: dict[str, Rule] = {}
    problems = []
    for rule in rules:
        before = first.setdefault(rule.id, rule)
        if before is not rule:
            problems.append(
                rule.source.problem(
                    f"rule {rule.id} is already at {before.source.file}:{before.source.line}",
                    "Give each rule an @id of its own.",
                )
            )
    return problems


def _schema_problems(together: str, rules: list[Rule]) -> list[Problem]:
    checked = cedarpy.validate_policies(together, SCHEMA)
    names = {f"policy{n}": rule for n, rule in enumerate(rules)}
    problems = []
    for error in checked.errors:
        rule = names.get(error.policy_id, rules[0])
        said = error.error.replace(f"for policy `{error.policy_id}`, ", "").replace(f"`{error.policy_id}`", rule.id)
        problems.append(
            rule.source.problem(
                f"rule {rule.id} does not fit the schema: {said}",
                "Use the actions, entities and context that chalicelib/policy/schema.py declares.",
            )
        )
    if not checked and not problems:
        problems.append(rules[0].source.problem("Cedar refuses the policies without saying why", "Check each alone."))
    return problems


def _parse_together(together: str, rules: list[Rule]) -> cedarpy.PolicySet:
    """Parse all of them, and make sure that Cedar's numbering is ours: a reason that names the wrong rule would take
    a hard forbid for one that can be met."""
    policies = cedarpy.PolicySet.from_str(together)
    notes = {name: policy.annotations["id"] for name, policy in policies.to_pst().static_policies.items()}
    if notes != {f"policy{n}": rule.id for n, rule in enumerate(rules)}:
        problem = rules[0].source.problem("the policies do not parse the same together as alone", "Report this.")
        raise configuration_invalid((problem,))
    return policies


def _digest(texts: Mapping[str, str]) -> str:
    return digest(
        {
            "requirements": REQUIREMENTS_VERSION,
            "schema": sha256_hex(CEDAR_SCHEMA.encode()),
            "files": {file: sha256_hex(text.encode()) for file, text in texts.items()},
        }
    )
