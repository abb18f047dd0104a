"""Cards follow the facts: a new Ask gets a card, a new Answer changes it, and a minute later whatever was missed.

Runs on the streams of asks and answers, and on a schedule. Rules: a record only says *which* Ask; the Ask is read from
its table. Each record is handled on its own: one that cannot be handled is audited (``card.failed``, the alarm's
signal) and the next goes on, since a poison record would otherwise hold back every card behind it. An Ask gets one
card, whatever is delivered twice; only a process that dies between Slack's answer and its own note makes a second.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeAlias, assert_never

from chalicelib.domain.ask import Waiting, fold_approval
from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, BadRequest
from chalicelib.domain.identifiers import AskId
from chalicelib.domain.store import Asks, Once, Uses
from chalicelib.services.card import Block, card_summary, render_card, render_decided
from chalicelib.services.evidence import Evidence

# Posting takes at most the client's bounded retries; after this a dead poster's Ask is another's to post.
_LEASE: Final = timedelta(seconds=30)
_LOOK_BACK: Final = timedelta(minutes=20)  # no Ask lives longer than 15 minutes at its request, 10 to be used later
_REMEMBER: Final = timedelta(days=1)  # longer than a stream's record may be delivered again


@dataclass(frozen=True, kw_only=True, slots=True)
class CardPlace:
    """Where a card is in Slack."""

    channel: str
    ts: str


class CardPoster(Protocol):
    """Slack's side of a card. Raises StoreUnavailable where Slack did not take it."""

    def post(self, text: str, blocks: Sequence[Block]) -> CardPlace: ...

    def update(self, place: CardPlace, text: str, blocks: Sequence[Block]) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AskPut:
    ask_id: AskId


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerPut:
    ask_id: AskId


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """A record that says nothing we know: kept in the audit, never in the way."""

    what: str


Record: TypeAlias = AskPut | AnswerPut | Unreadable


class PostCards:
    """Posts and changes cards."""

    def __init__(
        self,
        *,
        asks: Asks,
        uses: Uses,
        once: Once,
        evidence: Evidence,
        poster: CardPoster,
        approval_url: str,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        """``approval_url`` is where the approval page is, for cards that link to it."""
        self._asks = asks
        self._uses = uses
        self._once = once
        self._evidence = evidence
        self._poster = poster
        self._approval_url = approval_url
        self._clock = clock
        self._audit = audit

    def __call__(self, records: Iterable[Record]) -> int:
        """Handle each record and return how many failed. Raises nothing that a record can cause."""
        return sum(not self._handled(record) for record in records)

    def reconcile(self) -> int:
        """Post a card for every Ask that waits for people and has none. Returns how many failed."""
        now = self._clock.now()
        return self(AskPut(ask_id=ask.id) for ask in self._asks.since(now - _LOOK_BACK) if ask.expires_at > now)

    def _handled(self, record: Record) -> bool:
        ask_id = "" if isinstance(record, Unreadable) else record.ask_id
        try:
            self._handle(record)
        except AccessError as error:
            self._failed(ask_id, error.code)
            return False
        except Exception:  # noqa: BLE001 - whatever a record can break, the cards behind it must still come
            self._failed(ask_id, "internal")
            return False
        return True

    def _handle(self, record: Record) -> None:
        match record:
            case AskPut():
                self._post(record.ask_id)
            case AnswerPut():
                self._update(record.ask_id)
            case Unreadable():
                raise BadRequest(record.what)
            case _:
                assert_never(record)

    def _post(self, ask_id: AskId) -> None:
        if self._place(ask_id) is not None or not self._leased(ask_id) or self._place(ask_id) is not None:
            return  # looked at twice: another may have posted between the first look and the lease
        ask = self._asks.get(ask_id)
        answers = self._evidence.answers(ask.id)
        state = fold_approval(ask, answers, self._uses.of_ask(ask.id), self._clock.now())
        if not isinstance(state, Waiting):
            return  # answered, expired or withdrawn before its card came: nobody is asked in vain
        place = self._poster.post(card_summary(ask), render_card(ask, state.answers, at=self._approval_url))
        now = self._clock.now()
        self._once.claim("card", ask_id, f"{place.channel}/{place.ts}", expires_at=now + _REMEMBER, now=now)
        asked = ask.question
        self._audit.record(
            AuditEvent(
                name=AuditName.CARD_POSTED,
                at=now,
                ask_id=ask_id,
                txn=asked.txn,
                session_id=asked.session_id,
                connection_id=asked.connection_id,
                operation_id=asked.operation_id,
                target=asked.target,
                principal=asked.principal,
                rules=asked.rules,
                policy_digest=asked.policy_digest,
                configuration_serial=asked.configuration_serial,
            )
        )

    def _update(self, ask_id: AskId) -> None:
        place = self._place(ask_id)
        if place is None:
            return
        ask = self._asks.get(ask_id)
        answers = self._evidence.answers(ask.id)
        state = fold_approval(ask, answers, self._uses.of_ask(ask.id), self._clock.now())
        if isinstance(state, Waiting):
            blocks = render_card(ask, state.answers, at=self._approval_url)
        else:
            blocks = render_decided(ask, state, answers)
        self._poster.update(place, card_summary(ask), blocks)

    def _leased(self, ask_id: AskId) -> bool:
        """Return whether this call, and no other for now, posts the Ask's card."""
        now = self._clock.now()
        mine = secrets.token_hex(8)
        held = self._once.claim("card-lease", ask_id, mine, expires_at=now + _LEASE, now=now)
        return held in (None, mine)  # mine: the claim's own retry met it

    def _place(self, ask_id: AskId) -> CardPlace | None:
        held = self._once.held("card", ask_id, now=self._clock.now())
        if held is None:
            return None
        channel, _, ts = held.partition("/")
        return CardPlace(channel=channel, ts=ts)

    def _failed(self, ask_id: str, code: str) -> None:
        self._audit.record(AuditEvent(name=AuditName.CARD_FAILED, at=self._clock.now(), ask_id=ask_id, code=code))
