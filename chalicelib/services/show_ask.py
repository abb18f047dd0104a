"""What the approval page shows of an Ask: the card's very blocks, and what a passkey signs for yes and for no.

Rules: whoever has the link may read it, as everybody in the channel may read the card (an Ask's id has 80 random bits);
what is answered, expired or withdrawn shows nothing of the question any more. A question whose digest does not fit is
not shown. Decides nothing and writes nothing: ``decide`` renders the card again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import assert_never

from chalicelib.domain.ask import ApprovalState, Approved, Expired, Refused, Spent, UseKind, Waiting, fold_approval
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import AskId
from chalicelib.domain.passkey import answer_challenge
from chalicelib.domain.store import Asks, Uses
from chalicelib.services.card import Block, render_card
from chalicelib.services.evidence import Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownCard:
    """An open Ask's card. ``approve`` and ``deny`` are the challenges, 32 bytes each."""

    blocks: list[Block]
    card_sha256: str
    approve: bytes
    deny: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownAsk:
    """``status``: open, approved, refused, expired or withdrawn; ``card`` is there while it is open."""

    ask_id: AskId
    status: str
    expires_at: datetime
    card: ShownCard | None = None


class ShowAsk:
    """Reads Asks for the approval page."""

    def __init__(self, *, asks: Asks, uses: Uses, evidence: Evidence, approval_url: str, clock: Clock) -> None:
        self._asks = asks
        self._uses = uses
        self._evidence = evidence
        self._approval_url = approval_url
        self._clock = clock

    def __call__(self, ask_id: AskId) -> ShownAsk:
        """Return the Ask as the page shows it. Raises NotFound, ProofInvalid, StoreUnavailable."""
        ask = self._asks.get(ask_id)
        if ask.question.digest() != ask.digest:
            raise ProofInvalid("the request for approval was changed after it was made", ask=ask.id)
        answers = self._evidence.answers(ask.id)
        state = fold_approval(ask, answers, self._uses.of_ask(ask.id), self._clock.now())
        if not isinstance(state, Waiting):
            return ShownAsk(ask_id=ask.id, status=_status(state), expires_at=ask.expires_at)
        blocks = render_card(ask, state.answers, at=self._approval_url)
        card_sha256 = sha256_hex(canonical(blocks))
        approve, deny = (
            answer_challenge(ask.id, ask.digest, card_sha256, approved=approved) for approved in (True, False)
        )
        card = ShownCard(blocks=blocks, card_sha256=card_sha256, approve=approve, deny=deny)
        return ShownAsk(ask_id=ask.id, status="open", expires_at=ask.expires_at, card=card)


def _status(state: ApprovalState) -> str:
    match state:
        case Approved():
            return "approved"
        case Refused():
            return "refused"
        case Expired():
            return "expired"
        case Spent(use=use):
            return "approved" if use.kind is UseKind.RAN else "withdrawn"
        case Waiting():
            return "open"
        case _:
            assert_never(state)
