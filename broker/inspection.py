"""What policy says of an operation, from memory: every Act is decided, the worst outcome wins, and within one
connection an outcome is kept by the facts that policy was given.

Rules: an exception anywhere is a refusal; so is an act that some hop of the chain was not handed down, whatever policy
permits to its actor; an evaluation that used an approval is never kept; what was decided under one bundle is never used
under another; a session's own approval counts for an operation only where the rule covers the session. Does not parse,
record, wait or ask anybody.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol, TypeAlias, assert_never

from broker.evidence import NO_APPROVALS, Approvals, asked_of_people
from chalicelib.config.bundle import Bundle
from chalicelib.domain.canonical import canonical
from chalicelib.domain.chain import Chain
from chalicelib.domain.operation import Act, Ruling
from chalicelib.domain.policy import Allow, Decision, Deny, NeedsApproval, PolicyQuestion
from chalicelib.domain.session import ApprovalNeed
from chalicelib.domain.target import RecordMode
from chalicelib.services.access import trigger_known

MAX_KEPT: Final = 1024  # outcomes in one connection, about 1 KiB each; a client that varies its acts pays for it alone
# Classes that are durable before they are forwarded (architecture, "Accepted and durable"): what changes definitions,
# what cannot be read (a shell least of all), and what changes who may do what.
DURABLE_CLASSES: Final = frozenset({"define", "opaque", "privilege", "shell"})
# What cannot be read beforehand: its output alone shows what it did, so that it is recorded whatever policy permits.
UNREAD_CLASSES: Final = frozenset({"opaque", "shell"})
RECORD_LESS: Final = "record_less"

_Key: TypeAlias = tuple[str, int, str, bytes, str, int]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """Who and what one connection is, as far as policy reads it. ``approvals``: what was given for its session."""

    chain: Chain
    target: str
    principal: str
    approvals: Approvals
    key_bound: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What becomes of all Acts of one operation. ``outcome``'s rules, masks and needs are the union over the Acts."""

    outcome: Decision
    ruling: Ruling
    durable: bool


class Configuration(Protocol):
    """Gives the active bundle from memory: ``broker.configuration.ActiveConfiguration``."""

    def current(self) -> Bundle:
        """Return the bundle. Raises ConfigurationInvalid or StoreUnavailable; never blocks."""
        ...


class Inspector:
    """Makes an :class:`Inspection` for each connection. Thread-safe."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def inspect(self, subject: Subject) -> Inspection:
        """Return the inspection of one connection."""
        return Inspection(self._configuration, subject)


class Inspection:
    """Policy for one connection, with its kept outcomes. Thread-safe; never blocks."""

    def __init__(self, configuration: Configuration, subject: Subject) -> None:
        self._configuration = configuration
        self._subject = subject
        self._lock = threading.Lock()
        self._kept: OrderedDict[_Key, Decision] = OrderedDict()

    def judge(self, acts: Sequence[Act], now: datetime) -> Judgement:
        """Return what the active bundle says of ``acts``. Raises ConfigurationInvalid or StoreUnavailable where there
        is no bundle to judge by."""
        bundle = self._configuration.current()
        outcomes = []
        for act in acts:
            outcome = self._kept_or_decided(bundle, act, now)
            covered = self._met(bundle, outcome, NO_APPROVALS)
            outcomes.append(decide(bundle, self._subject, act, covered, now) if covered else outcome)
        less = self._less(bundle, acts, lambda act: self._kept_or_decided(bundle, act, now))
        return judgement(bundle, self._subject, acts, outcomes, less=less)

    def judge_again(self, bundle: Bundle, acts: Sequence[Act], approvals: Approvals, now: datetime) -> Judgement:
        """Return what ``bundle`` says of ``acts`` now that ``approvals`` were given; nothing is kept, and what is
        required is read from ``bundle``, not from the ask: a rule that wants more people by now is not met."""
        outcomes = []
        for act in acts:
            outcome = decide(bundle, self._subject, act, frozenset(), now)
            met = self._met(bundle, outcome, approvals)
            outcomes.append(decide(bundle, self._subject, act, met, now) if met else outcome)
        less = self._less(bundle, acts, lambda act: decide(bundle, self._subject, act, frozenset(), now))
        return judgement(bundle, self._subject, acts, outcomes, less=less)

    def _less(self, bundle: Bundle, acts: Sequence[Act], decided: Callable[[Act], Decision]) -> bool:
        """Whether what comes back may be left out of the record: the target says that statements are enough, and policy
        permits it, for each act. Anything else, an approval that would be needed too, records it whole."""
        target = bundle.targets.get(self._subject.target)
        if target is None or target.record is not RecordMode.STATEMENTS:
            return False
        for act in acts:
            family, _, name = act.action.rpartition(":")
            if name in UNREAD_CLASSES:
                return False
            match decided(replace(act, action=f"{family}:{RECORD_LESS}")):
                case Allow() as allowed if not allowed.record_full and (self._subject.key_bound or not allowed.bound):
                    continue
                case _:
                    return False
        return True

    def _met(self, bundle: Bundle, outcome: Decision, approvals: Approvals) -> frozenset[str]:
        if not isinstance(outcome, NeedsApproval):
            return frozenset()
        needs = asked_of_people(bundle, self._subject.chain, outcome.needs)
        session = self._subject.approvals
        covered = frozenset(rule for rule in session.met(needs) if bundle.policy.covers_session(rule))
        return covered | approvals.met(needs)

    def _kept_or_decided(self, bundle: Bundle, act: Act, now: datetime) -> Decision:
        # Canonical bytes, not the Act itself: to Python True equals 1, to a policy it does not. The minute is the
        # finest time that may be kept; the target is in the serial, which changes with the registry.
        key = (
            bundle.policy.digest,
            bundle.serial,
            act.action,
            canonical(dict(act.context)),
            self._subject.principal,
            int(now.timestamp() // 60),
        )
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._kept.move_to_end(key)
                return kept
        outcome = decide(bundle, self._subject, act, frozenset(), now)  # no approval in it: that is never kept
        with self._lock:
            self._kept[key] = outcome
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return outcome


def decide(bundle: Bundle, subject: Subject, act: Act, met: frozenset[str], now: datetime) -> Decision:
    """Return what ``bundle`` says of one Act: Deny on any failure, where target or principal are gone, and outside what
    the chain was handed down."""
    target = bundle.targets.get(subject.target)
    if target is None or target.principal(subject.principal) is None:
        return Deny(rules=(), public="the target is not open to you any more", hint="Ask its owners.")
    if not subject.chain.allows(subject.target, subject.principal, act.action):
        return _NOT_DELEGATED
    try:
        return bundle.policy.decide(
            PolicyQuestion(
                chain=subject.chain,
                target=target,
                principal=subject.principal,
                action=act.action,
                context=dict(act.context),
                trigger_known=trigger_known(bundle, subject.chain),
                now=now,
                met=met,
            )
        )
    except Exception:
        _logger.exception("policy raised, which its contract rules out", extra={"policy_digest": bundle.policy.digest})
        return Deny(rules=(), public="policy could not be evaluated", hint="Give the time to the operators.")


def judgement(
    bundle: Bundle, subject: Subject, acts: Sequence[Act], outcomes: Sequence[Decision], *, less: bool
) -> Judgement:
    """Return the worst of ``outcomes`` (refused, held, permitted), with everything that the milder ones require too.
    ``less``: whether results may be left out of the record, unless one of them requires them.

    No acts at all is a refusal: what nobody could name nobody may run. Pure.
    """
    rules: set[str] = set()
    masks: set[str] = set()
    needs: list[ApprovalNeed] = []
    refused: Deny | None = None
    durable = full = False
    for outcome in outcomes:
        rules |= set(outcome.rules)
        match outcome:
            case Deny():
                refused = refused or outcome
            case NeedsApproval():
                needs += [need for need in outcome.needs if need not in needs]
            case Allow():
                masks |= set(outcome.masks)
                durable |= outcome.durable
                full |= outcome.record_full
                if outcome.bound and not subject.key_bound:
                    refused = refused or _NOT_BOUND
            case _:
                assert_never(outcome)
    ordered = tuple(sorted(rules))
    target = bundle.targets.get(subject.target)
    result: Decision
    if refused is not None or not outcomes:
        refused = refused or _NOT_UNDERSTOOD
        result = Deny(rules=ordered, public=refused.public, hint=refused.hint)
    elif needs:
        result = NeedsApproval(rules=ordered, needs=asked_of_people(bundle, subject.chain, needs))
    else:
        full = full or not less
        result = Allow(rules=ordered, masks=tuple(sorted(masks)), durable=durable, record_full=full, bound=False)
    return Judgement(
        outcome=result,
        ruling=Ruling(rules=ordered, policy_digest=bundle.policy.digest, configuration_serial=bundle.serial),
        durable=durable
        or any(act.action.rpartition(":")[2] in DURABLE_CLASSES for act in acts)
        or (target is not None and target.durable),
    )


_NOT_UNDERSTOOD: Final = Deny(
    rules=(), public="the operation could not be understood", hint="Rewrite it in a simpler form."
)
_NOT_DELEGATED: Final = Deny(
    rules=(),
    public="this is outside the scope that was delegated",
    hint="Ask whoever delegated to you for a ticket that includes it.",
)
_NOT_BOUND: Final = Deny(
    rules=(),
    public="a rule requires a session that is bound to a key of yours",
    hint="Ask for a key-bound session.",
)
