"""Policy files to rules: each policy with its place, its annotations, and proof that it obeys the one obligation.

Rules enforced here, on the parsed policy and never on its text:

- every policy has an ``@id``; the other annotations are ``@requires``, ``@hint`` and ``@covers``, on a ``forbid``;
- a ``forbid`` with ``@requires`` has exactly one clause ``unless { context.met.contains("<its id>") }``;
- ``context.met`` is read nowhere else, and ``context`` never as a whole, so that no policy can be met by another's
  approval and no permit can rest on one;
- templates are refused: nothing links them, so one would be a rule that never applies.

Several requirements in one ``@requires`` are separated by ``;``, each kind once: two approvals are two rules, since
what is met is met by rule.

Not here: what the schema allows (Cedar's validator, in ``engine``) and names that other files define (``config``).
Source: https://docs.cedarpolicy.com/policies/syntax-grammar.html (a policy ends with ``;``, comments are ``//``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Final

import cedarpy
from cedarpy import pst

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.policy import Mention, MentionKind
from chalicelib.domain.problem import Problem
from chalicelib.domain.requirement import Approval, MaskWith, Requirement, parse_requirement
from chalicelib.policy.schema import SERVICE

MAX_HINT: Final = 200  # it travels in a protocol's error message and on a card, where a paragraph is cut off
_RULE_ID: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_ANNOTATIONS: Final = frozenset({"id", "requires", "hint", "covers"})
# Comments and strings are skipped whole, so that a semicolon inside one does not end a policy.
_TOKEN: Final = re.compile(r'//[^\n]*|"(?:[^"\\]|\\.)*"?|;|\s+|.', re.DOTALL)
_KINDS: Final[Mapping[str, MentionKind]] = {
    "Env": MentionKind.ENVIRONMENT,
    "Target": MentionKind.TARGET,
    "Team": MentionKind.TEAM,
    "Issuer": MentionKind.ISSUER,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One policy's text and where it starts."""

    file: str
    line: int
    text: str

    def problem(self, message: str, remedy: str) -> Problem:
        return Problem(file=self.file, line=self.line, message=message, remedy=remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One policy. ``requirements`` is empty for a permit and for a forbid that nothing meets."""

    id: str
    permits: bool
    requirements: tuple[Requirement, ...]
    hint: str
    covers_session: bool
    mentions: tuple[Mention, ...]
    source: Source

    @property
    def approval(self) -> Approval | None:
        """The approval that it requires, if it requires one: there is at most one."""
        return next((need for need in self.requirements if isinstance(need, Approval)), None)


def split(file: str, text: str) -> list[Source]:
    """Return the policies of ``text``, each with the line on which it starts (its first annotation). Pure.

    Only finds where policies end; what each means is Cedar's to parse. A wrong cut could only fail to parse.
    """
    found: list[Source] = []
    start: int | None = None
    for token in _TOKEN.finditer(text):
        if start is None and not token[0].isspace() and not token[0].startswith("//"):
            start = token.start()
        if token[0] == ";" and start is not None:
            found.append(_source(file, text, start, token.end()))
            start = None
    if start is not None:
        found.append(_source(file, text, start, len(text)))
    return found


def _source(file: str, text: str, start: int, end: int) -> Source:
    return Source(file=file, line=text.count("\n", 0, start) + 1, text=text[start:end])


def read_rule(source: Source) -> Rule | list[Problem]:
    """Return the rule that ``source`` states, or everything that is wrong with it. Pure."""
    try:
        parsed = cedarpy.PolicySet.from_str(source.text).to_pst()
    except ValueError as error:
        return [source.problem(f"Cedar cannot read this policy: {error}", "Correct the policy that starts here.")]
    if len(parsed.static_policies) != 1 or parsed.templates:
        return [
            source.problem("it is not one policy without slots", "Write principal and resource out; end it with `;`.")
        ]
    template = next(iter(parsed.static_policies.values()))
    rule_id = template.annotations.get("id", "")
    if not _RULE_ID.match(rule_id):
        return [
            source.problem(
                "the policy has no valid @id",
                'Add @id("a-name"): a letter, then at most 62 letters, digits, "-" or "_", in lower case.',
            )
        ]
    problems: list[Problem] = []
    requirements = _requirements(source, rule_id, template, problems)
    problems.extend(_annotation_problems(source, rule_id, template, requirements))
    problems.extend(_gate_problems(source, rule_id, template))
    problems.extend(_service_problems(source, rule_id, template))
    if problems:
        return problems
    return Rule(
        id=rule_id,
        permits=template.effect == "permit",
        requirements=requirements,
        hint=template.annotations.get("hint", ""),
        covers_session="covers" in template.annotations,
        mentions=_mentions(source, template, requirements),
        source=source,
    )


def _annotation_problems(
    source: Source, rule_id: str, template: pst.Template, requirements: tuple[Requirement, ...]
) -> Iterator[Problem]:
    notes = template.annotations
    for name in sorted(set(notes) - _ANNOTATIONS):
        yield source.problem(
            f"rule {rule_id}: nobody knows the annotation @{name}", "Use @id, @requires, @hint and @covers only."
        )
    if template.effect == "permit":
        for name in sorted(set(notes) & _ANNOTATIONS - {"id"}):
            yield source.problem(
                f"rule {rule_id}: @{name} on a permit says nothing",
                "Put it on a forbid: only a forbid can require, and only a refusal has a hint.",
            )
    hint = notes.get("hint")
    if hint is not None and not (0 < len(hint) <= MAX_HINT and hint.isprintable()):
        yield source.problem(
            f"rule {rule_id}: the hint cannot be shown", f"Write one printable line of at most {MAX_HINT} characters."
        )
    approvals = any(isinstance(need, Approval) for need in requirements)
    if "covers" in notes and (notes["covers"] != "session" or not approvals):
        yield source.problem(
            f'rule {rule_id}: @covers says something other than "session" of an approval',
            'Write @covers("session") beside @requires("approval:GROUP:COUNT"), or remove it.',
        )


def _requirements(
    source: Source, rule_id: str, template: pst.Template, problems: list[Problem]
) -> tuple[Requirement, ...]:
    if "requires" not in template.annotations:
        return ()
    found: list[Requirement] = []
    for part in template.annotations["requires"].split(";"):
        try:
            found.append(parse_requirement(part))
        except ConfigurationInvalid as error:
            problems.append(source.problem(f"rule {rule_id}: {error.public}", "Correct the @requires annotation."))
    if len({type(need) for need in found}) != len(found):
        problems.append(
            source.problem(
                f"rule {rule_id}: one kind of requirement is named twice",
                "Name each kind once; two approvals are two rules, each with its own @id.",
            )
        )
    return tuple(found)


def _gate_problems(source: Source, rule_id: str, template: pst.Template) -> Iterator[Problem]:
    """The obligation itself: met by its own id and by nothing else, and nobody else looks."""
    gate = pst.Unless(
        expr=pst.BinaryOp(
            op="contains", left=pst.GetAttr(base=pst.Var(name="context"), attr="met"), right=pst.StringLit(rule_id)
        )
    )
    obligation = template.effect == "forbid" and "requires" in template.annotations
    gates = sum(clause == gate for clause in template.clauses) if obligation else 0
    if obligation and gates != 1:
        yield source.problem(
            f"rule {rule_id}: a forbid with @requires must test exactly its own id, once",
            f'End it with: unless {{ context.met.contains("{rule_id}") }};',
        )
    others = tuple(clause for clause in template.clauses if not (obligation and clause == gate))
    if any(_reads_met(node) for clause in others for node in _nodes(clause)):
        yield source.problem(
            f"rule {rule_id}: it reads context.met (or context as a whole) outside its own unless clause",
            "Read context.met only in the unless clause of the forbid whose @id it names.",
        )


def _service_problems(source: Source, rule_id: str, template: pst.Template) -> Iterator[Problem]:
    """There is one service: a rule about another would never apply, and no other file could say so."""
    for uid in sorted(pst.entity_uids(template), key=str):
        if str(uid.type) == "Service" and uid.id != SERVICE:
            yield source.problem(
                f"rule {rule_id}: there is no service {uid.id!r}", f'Write Service::"{SERVICE}", or `resource` alone.'
            )


def _reads_met(node: object) -> bool:
    match node:
        case pst.GetAttr(base=pst.Var(name="context"), attr=attr):
            return attr == "met"
        case pst.HasAttr(base=pst.Var(name="context"), attrs=attrs):
            return "met" in attrs
        case pst.Var(name="context"):  # compared, stored in a record or passed on: `met` would go with it
            return True
        case _:
            return False


def _nodes(root: object) -> Iterator[object]:
    """Yield every node under ``root``, except the ``context`` that an attribute is read from: that one is judged with
    its attribute. A stack, not recursion: a policy may nest 100 levels."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, Mapping):
            stack.extend(node.values())
        elif isinstance(node, tuple):
            stack.extend(node)
        elif is_dataclass(node) and not isinstance(node, type):
            below = [getattr(node, field.name) for field in fields(node)]
            if isinstance(node, pst.GetAttr | pst.HasAttr):
                below = [value for value in below if value != pst.Var(name="context")]
            stack.extend(below)


def _mentions(source: Source, template: pst.Template, requirements: tuple[Requirement, ...]) -> tuple[Mention, ...]:
    def mention(kind: MentionKind, name: str, people: int = 0) -> Mention:
        return Mention(kind=kind, name=name, people=people, file=source.file, line=source.line)

    found = [
        mention(_KINDS[str(uid.type)], uid.id)
        for uid in sorted(pst.entity_uids(template), key=str)
        if str(uid.type) in _KINDS
    ]
    for need in requirements:
        match need:
            case Approval():
                kind = MentionKind.GROUP_WITH_PASSKEYS if need.webauthn else MentionKind.GROUP
                found.append(mention(kind, need.group, need.count))
            case MaskWith():
                found.extend(mention(MentionKind.MASK, name) for name in need.masks)
            case _:
                pass
    return tuple(found)
