"""An approval over any history: answers, removals of approvers, expiries, retries and withdrawals in any order.

The model keeps what the rules say in plain sets; the fold, with what services ask beside it (``approvers_stand``), must
never grant where the model does not.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Final

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chalicelib.domain.ask import Answer, Approved, Ask, Spent, Use, UseKind, fold_approval
from chalicelib.domain.errors import AlreadyDecided, AlreadyUsed
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.requirement import Approval
from chalicelib.domain.session import ApprovalNeed
from tests.fakes import samples
from tests.fakes.clock import START
from tests.fakes.memory import MemoryStores

PEOPLE: Final = tuple(PersonId(f"okta|{name}") for name in ("ada", "ben", "cy", "dee"))
RUNNER: Final = PersonId("okta|runner")  # samples.ask excludes them: they started the run
GROUPS: Final = ("dba", "security")


class AnApproval(RuleBasedStateMachine):
    """One ask, its answers and its use, through the stores' own rules."""

    def __init__(self) -> None:
        super().__init__()
        self.stores = MemoryStores()
        self.now: datetime = START
        self.ran = 0
        self.removed: set[PersonId] = set()
        self.yes: dict[str, set[PersonId]] = {group: set() for group in GROUPS}
        self.no: set[PersonId] = set()
        self.taken = False
        self.ask: Ask = samples.ask()

    @initialize(dba=st.integers(1, 3), security=st.integers(0, 2))
    def what_is_needed(self, dba: int, security: int) -> None:
        counts = {"dba": dba, "security": security}
        needs = [
            ApprovalNeed(rule=f"needs-{group}", approval=Approval(group=group, count=count), hint="")
            for group, count in counts.items()
            if count
        ]
        self.ask = samples.ask(*needs)
        self.stores.asks.put(self.ask)

    @rule(
        person=st.sampled_from((*PEOPLE, RUNNER)),
        approved=st.booleans(),
        groups=st.sets(st.sampled_from(GROUPS), max_size=2),
        for_this=st.booleans(),
    )
    def answers(self, person: PersonId, approved: bool, groups: set[str], for_this: bool) -> None:
        """A click, whoever's: ``decide`` writes what it was for and in which groups the person was then."""
        answer = dataclasses.replace(
            samples.answer(self.ask, person),
            approved=approved,
            groups=tuple(sorted(groups)),
            digest=self.ask.digest if for_this else "00" * 32,
            answered_at=self.now,
        )
        try:
            self.stores.answers.put(answer)
        except AlreadyDecided:
            return  # a retry, or a second thought: the first answer stands
        if not for_this or person == RUNNER or self.now > self.ask.expires_at:
            return
        if approved:
            for group in groups:
                self.yes[group].add(person)
        else:
            self.no.add(person)

    @rule(person=st.sampled_from(PEOPLE))
    def is_removed_from_the_approvers(self, person: PersonId) -> None:
        self.removed.add(person)

    @rule(seconds=st.sampled_from((1, 60, 299, 300, 301)))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(kind=st.sampled_from(list(UseKind)))
    def somebody_uses_or_withdraws_it(self, kind: UseKind) -> None:
        """Both planes do this, and retry: the use only where it is approved and its approvers still are."""
        if kind is UseKind.RAN and not (isinstance(self.folded(), Approved) and self.stand()):
            return
        use = Use(ask_id=self.ask.id, n=1, kind=kind, by="broker", why="", at=self.now)
        try:
            self.stores.uses.put(use)
        except AlreadyUsed:
            assert self.taken
            return
        assert not self.taken
        if kind is UseKind.RAN:
            assert self.permitted()
            assert not self.no
            self.ran += 1
        self.taken = True

    def folded(self) -> object:
        answers = list(self.stores.answers.of_ask(self.ask.id))
        return fold_approval(self.ask, reversed(answers), self.stores.uses.of_ask(self.ask.id), self.now)

    def stand(self) -> bool:
        """What ``services.access.approvers_stand`` asks: the counted approvers who are still in their groups."""
        state = self.folded()
        counted: tuple[Answer, ...] = state.answers if isinstance(state, Approved) else ()
        for need in self.ask.question.needs:
            able = {
                answer.person
                for answer in counted
                if need.approval.group in answer.groups and answer.person not in self.removed
            }
            if len(able) < need.approval.count:
                return False
        return True

    def permitted(self) -> bool:
        """What the rules say, by the model alone."""
        return all(
            len(self.yes[need.approval.group] - self.removed) >= need.approval.count for need in self.ask.question.needs
        )

    @invariant()
    def it_never_grants_what_the_rules_do_not(self) -> None:
        state = self.folded()
        enough = all(len(self.yes[need.approval.group]) >= need.approval.count for need in self.ask.question.needs)
        if isinstance(state, Approved):
            assert enough
            assert not self.no
            assert not self.taken
            assert RUNNER not in {answer.person for answer in state.answers}
        assert isinstance(state, Spent) is self.taken
        if enough and not self.no and not self.taken:
            assert isinstance(state, Approved)  # and what the rules grant is not refused either

    @invariant()
    def it_runs_at_most_once(self) -> None:
        assert self.ran <= 1


AnApproval.TestCase.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
TestAnApproval = AnApproval.TestCase
