"""Files to a Bundle: read, typed, checked against each other; or everything that is wrong, at once.

Policy is compiled by a function that the caller gives, since configuration and policy are siblings: ``policy`` knows
Cedar, and this module knows which names the other files define. A name in a policy that nobody defines is refused,
because a ``forbid`` on a misspelt environment is a rule that never applies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from chalicelib.config.approvers import ApproversFile
from chalicelib.config.bundle import Bundle
from chalicelib.config.document import Document, read_document, read_text
from chalicelib.config.files import (
    APPROVERS,
    ISSUERS,
    MASKING,
    TARGETS,
    bundle_digest,
    is_policy,
    name_problems,
)
from chalicelib.config.issuers import IssuersFile
from chalicelib.config.masking import MaskingFile
from chalicelib.config.model import BundleFile, read_model
from chalicelib.config.targets import TargetsFile
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.policy import CompiledPolicy, Mention, MentionKind
from chalicelib.domain.problem import Problem, configuration_invalid, problems_of

CompilePolicy: TypeAlias = Callable[[Mapping[str, str]], CompiledPolicy]


_Model = TypeVar("_Model", bound=BundleFile)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """What could be read; None where it could not."""

    targets: TargetsFile | None
    issuers: IssuersFile | None
    approvers: ApproversFile | None
    masking: MaskingFile | None
    policy: CompiledPolicy | None


def load_bundle(files: Mapping[str, bytes], compile_policy: CompilePolicy, *, serial: int = 0) -> Bundle:
    """Return the bundle that ``files`` (name to content) are; ``serial`` is its Activation's. Pure.

    Raises ConfigurationInvalid that carries every problem (``chalicelib.domain.problem.problems_of``).
    """
    problems = list(name_problems(files))
    found = _Read(
        targets=_read(TARGETS, TargetsFile, files, problems),
        issuers=_read(ISSUERS, IssuersFile, files, problems),
        approvers=_read(APPROVERS, ApproversFile, files, problems),
        masking=_read(MASKING, MaskingFile, files, problems),
        policy=_compile(files, compile_policy, problems),
    )
    problems.extend(_across(found, files))
    match found:
        case _Read(
            targets=TargetsFile() as targets,
            issuers=IssuersFile() as issuers,
            approvers=ApproversFile() as approvers,
            masking=MaskingFile() as masking,
            policy=policy,
        ) if policy is not None and not problems:
            return Bundle(
                digest=bundle_digest(files),
                serial=serial,
                targets=targets.domain(),
                issuers=issuers.domain(),
                people=approvers.domain(),
                masks=masking.domain(),
                policy=policy,
            )
        case _:
            raise configuration_invalid(problems)


def _read(name: str, model: type[_Model], files: Mapping[str, bytes], problems: list[Problem]) -> _Model | None:
    if name not in files:
        return None
    document = read_document(name, files[name])
    if isinstance(document, Problem):
        problems.append(document)
        return None
    found, untyped = read_model(model, document)
    problems.extend(untyped)
    if found is not None:
        problems.extend(_located(document, found))
    return found


def _located(document: Document, model: BundleFile) -> Iterator[Problem]:
    for finding in model.findings():
        yield document.problem(finding.path, finding.message, finding.remedy)


def _compile(
    files: Mapping[str, bytes], compile_policy: CompilePolicy, problems: list[Problem]
) -> CompiledPolicy | None:
    texts: dict[str, str] = {}
    unread = []
    for name in filter(is_policy, sorted(files)):
        text = read_text(name, files[name])
        if isinstance(text, Problem):
            unread.append(text)
        else:
            texts[name] = text
    problems.extend(unread)
    if unread or not texts:
        return None
    try:
        return compile_policy(texts)
    except ConfigurationInvalid as error:
        problems.extend(problems_of(error, file="policies"))
        return None


def _across(found: _Read, files: Mapping[str, bytes]) -> Iterator[Problem]:
    """Yield what is wrong between files, as far as both sides could be read."""
    if found.targets is not None and found.masking is not None:
        document = read_document(MASKING, files[MASKING])
        if isinstance(document, Document):  # it was read before, to find what it says
            yield from _mask_targets(document, found.masking, found.targets)
    if found.policy is not None:
        defined = _defined(found)
        for mention in found.policy.mentions:
            yield from _mention(mention, defined)


def _mask_targets(document: Document, masking: MaskingFile, targets: TargetsFile) -> Iterator[Problem]:
    for name, entry in masking.masks.items():
        for target in sorted(set(entry.targets) - set(targets.targets)):
            yield document.problem(
                ("masks", name, "targets"),
                f"mask {name} covers the target {target!r}, which targets.yaml does not have",
                "Correct the name, or remove it.",
            )


def _defined(found: _Read) -> Mapping[MentionKind, Mapping[str, int]]:
    """Return the names of each kind that the readable files define; of groups, how many people are in each."""
    defined: dict[MentionKind, dict[str, int]] = {}
    if found.targets is not None:
        defined[MentionKind.TARGET] = dict.fromkeys(found.targets.targets, 0)
        defined[MentionKind.ENVIRONMENT] = {entry.environment: 0 for entry in found.targets.targets.values()}
    if found.issuers is not None:
        declared = found.issuers.domain()
        defined[MentionKind.ISSUER] = {issuer.url: 0 for issuer in declared}
        defined[MentionKind.TEAM] = {rule.team: 0 for issuer in declared for rule in issuer.teams}
    if found.approvers is not None:
        people = found.approvers.people.values()
        defined[MentionKind.GROUP] = {
            group: sum(group in person.groups for person in people) for group in found.approvers.groups
        }
        defined[MentionKind.GROUP_WITH_PASSKEYS] = {
            group: sum(group in person.groups and bool(person.passkeys) for person in people)
            for group in found.approvers.groups
        }
    if found.masking is not None:
        defined[MentionKind.MASK] = dict.fromkeys(found.masking.masks, 0)
    return defined


_WHERE: Mapping[MentionKind, str] = {
    MentionKind.TARGET: TARGETS,
    MentionKind.ENVIRONMENT: TARGETS,
    MentionKind.ISSUER: ISSUERS,
    MentionKind.TEAM: ISSUERS,
    MentionKind.GROUP: APPROVERS,
    MentionKind.GROUP_WITH_PASSKEYS: APPROVERS,
    MentionKind.MASK: MASKING,
}


def _mention(mention: Mention, defined: Mapping[MentionKind, Mapping[str, int]]) -> Iterator[Problem]:
    names = defined.get(mention.kind)
    if names is None:  # its file could not be read, and said so itself
        return
    where = _WHERE[mention.kind]
    if mention.name not in names:
        known = ", ".join(sorted(names)) or "none"
        yield Problem(
            file=mention.file,
            line=mention.line,
            message=f"the policy names the {mention.kind.value} {mention.name!r}, which {where} does not define",
            remedy=f"Define it there, or use one of: {known}.",
        )
    elif names[mention.name] < mention.people:
        people = names[mention.name]
        with_what = " with a passkey" if mention.kind is MentionKind.GROUP_WITH_PASSKEYS else ""
        yield Problem(
            file=mention.file,
            line=mention.line,
            message=f"the policy needs {mention.people} people of {mention.name!r}{with_what}, "
            f"and {where} has {people}",
            remedy=f"Add people{with_what} to the group, or require fewer.",
        )
