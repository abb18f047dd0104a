"""What was signed, checked: the hops of a chain, the answers to an ask, and which rules those answers meet.

Rules: nothing read from a table counts before its signature verified, under the key of the one purpose that may sign
it; an answer that does not verify is left out and told of in the log, since one forged row must not undo the true
ones beside it. Does not read a table and does not decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chalicelib.config.bundle import Bundle
from chalicelib.domain.ask import Answer, raise_unknown_trigger
from chalicelib.domain.chain import Chain, Hop, chain_to
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import HopId, PersonId, Txn
from chalicelib.domain.session import ApprovalNeed
from chalicelib.services.access import as_registered, people_meet, trigger_known

_logger = logging.getLogger(__name__)


class Evidence:
    """Verifies with the public keys of each purpose. Thread-safe where the functions are."""

    def __init__(self, *, verify_hop: Callable[[Hop], None], verify_answer: Callable[[Answer], None]) -> None:
        """Both raise ProofInvalid, or StoreUnavailable where the keys cannot be read: ``identity.jws``, with keys."""
        self._verify_hop = verify_hop
        self._verify_answer = verify_answer

    def chain(self, txn: Txn, hops: Mapping[HopId, Hop], leaf: HopId) -> Chain:
        """Return the chain of ``txn`` that ends at ``leaf``, every link and signature checked. Raises ProofInvalid, or
        StoreUnavailable where the keys cannot be read."""
        chain = chain_to(hops, leaf)
        if chain.txn != txn:
            raise ProofInvalid("the chain of identities is another one", txn=txn)
        for hop in chain.hops:
            self._verify_hop(hop)
        return chain

    def answers(self, answers: Iterable[Answer]) -> tuple[Answer, ...]:
        """Return those whose signature verifies. Raises StoreUnavailable where the keys cannot be read."""
        return tuple(answer for answer in answers if self._verifies(answer))

    def _verifies(self, answer: Answer) -> bool:
        try:
            self._verify_answer(answer)
        except ProofInvalid:
            _logger.exception("an answer does not verify", extra={"ask_id": answer.ask_id})
            return False
        return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Approvals:
    """What people said to one ask: ``rules`` are those that its question named, ``answers`` verified ones that count.

    An answer meets only what its question asked: the same people saying yes to rule A say nothing of rule B.
    """

    rules: frozenset[str]
    answers: tuple[Answer, ...]

    def met(self, needs: Sequence[ApprovalNeed]) -> frozenset[str]:
        """Return the rules of which every one of ``needs`` is met. Pure."""
        missing = frozenset(need.rule for need in needs if not self._meets(need))
        return frozenset(need.rule for need in needs) - missing

    def _meets(self, need: ApprovalNeed) -> bool:
        return need.rule in self.rules and people_meet(need, self.answers)


NO_APPROVALS: Final = Approvals(rules=frozenset(), answers=())


def asked_of_people(bundle: Bundle, chain: Chain, needs: Sequence[ApprovalNeed]) -> tuple[ApprovalNeed, ...]:
    """Return how many people really have to answer: twice as sure where nobody knows who is behind the run. Pure."""
    return tuple(needs) if trigger_known(bundle, chain) else raise_unknown_trigger(needs)


def still_eligible(bundle: Bundle, answers: Sequence[Answer], excluded: Iterable[PersonId]) -> tuple[Answer, ...]:
    """Return the answers of people who are in ``bundle``, as it lets them count now (``access.as_registered``), and who
    are not ``excluded``. Pure."""
    barred = set(excluded)
    held = (as_registered(bundle, answer) for answer in answers if answer.person not in barred)
    return tuple(answer for answer in held if answer is not None)
