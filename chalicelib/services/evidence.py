"""Reads what was signed, and believes only what verifies.

Rules: a chain is believed when every link and every signature holds; an answer that does not verify is no answer. What
a table holds is never authority by itself: whoever can write a table cannot sign.
"""

from __future__ import annotations

from chalicelib.domain.ask import Answer
from chalicelib.domain.chain import Chain, chain_to
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import AskId, HopId, Txn
from chalicelib.domain.store import Answers, Chains, Keys
from chalicelib.identity.jws import verify_answer, verify_hop


class Evidence:
    """Verified reads. Thread-safe where the stores are."""

    def __init__(self, *, chains: Chains, answers: Answers, keys: Keys) -> None:
        self._chains = chains
        self._answers = answers
        self._keys = keys

    def chain(self, txn: Txn, leaf: HopId) -> Chain:
        """Return the chain that ends at ``leaf``. Raises ProofInvalid where a hop is missing, changed or not signed."""
        chain = chain_to(self._chains.hops(txn), leaf)
        for hop in chain.hops:
            verify_hop(hop, self._keys)
        if chain.txn != txn:
            raise ProofInvalid("the chain of identities is another one", txn=txn)
        return chain

    def chain_by_hash(self, txn: Txn, leaf_sha256: str) -> Chain:
        """Return the chain whose leaf has this hash, as :meth:`chain` does."""
        for hop in self._chains.hops(txn).values():
            if hop.sha256() == leaf_sha256:
                return self.chain(txn, hop.id)
        raise ProofInvalid("the chain of identities is not complete", txn=txn)

    def answers(self, ask_id: AskId) -> tuple[Answer, ...]:
        """Return the answers to an Ask that verify."""
        return tuple(answer for answer in self._answers.of_ask(ask_id) if self._holds(answer))

    def _holds(self, answer: Answer) -> bool:
        try:
            verify_answer(answer, self._keys)
        except ProofInvalid:
            return False
        return True
