"""One person's click, or their passkey's assertion, becomes one signed Answer. Runs in the ``decide`` function, which
alone can use the answer key.

Being invoked is no authority. A click: Slack's signature over the raw body is verified here again, each delivery counts
once, and the person is looked up in the active bundle by team and user id. An assertion (``services.page_answer``): the
passkey says who, by the bundle. Of both: the people behind the run are found anew from the signed chain, the Ask's
digest is recomputed, and what was answered must be a card that this Ask renders. Where a rule needs a passkey, a click
may refuse and not approve. An Answer is put once per person; a later one changes nothing.

Source: https://docs.slack.dev/authentication/verifying-requests-from-slack (version v0), block_actions payloads.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, assert_never
from urllib.parse import parse_qs, urlsplit

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.ask import Answer, Approved, Ask, Expired, Refused, Spent, UseKind, Waiting, fold_approval
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import Json, canonical, sha256_hex
from chalicelib.domain.chain import Chain
from chalicelib.domain.clock import Clock
from chalicelib.domain.epoch import is_of_before
from chalicelib.domain.errors import (
    AccessError,
    AlreadyDecided,
    AlreadyUsed,
    ApprovalExpired,
    ApprovalWithdrawn,
    ApproverNotEligible,
    BadRequest,
    PasskeyRequired,
    ProofInvalid,
    Unauthenticated,
)
from chalicelib.domain.identifiers import AskId
from chalicelib.domain.identity import Person
from chalicelib.domain.store import Answers, Asks, Once, Signer, Uses
from chalicelib.identity.jws import sign_answer
from chalicelib.services.access import chain_lines, excluded_people, trigger_known
from chalicelib.services.card import APPROVE, DENY, Block, cards_so_far, render_card, same_card
from chalicelib.services.evidence import Evidence
from chalicelib.services.page_answer import PageAnswer, PasskeyCheck

MAX_BODY: Final = 64 * 1024  # a click on our largest card is under 20 KB, form-encoded under 50
# Twice the 5 minutes for which Slack's signature is good, so that no delivery outlives the memory of it.
_REPLAY_MEMORY: Final = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlackRequest:
    """A request as Slack sent it: the body's exact text, and what signs it."""

    body: str
    timestamp: str
    signature: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Click:
    """What one click says. ``blocks`` are the message's as the person saw them."""

    ask_id: AskId
    approved: bool
    team: str
    user: str
    channel: str
    message_ts: str
    blocks: Json

    @property
    def via(self) -> str:
        return f"slack:{self.team}/{self.user}/{self.channel}/{self.message_ts}"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Given:
    """Who answers what, established, before it is known whether they may. ``card`` returns the blocks that they saw,
    and raises where those are not this Ask's; ``verified`` adds the passkey's assertion, where there is one."""

    ask_id: AskId
    approved: bool
    person: Person
    via: str
    card: Callable[[Ask, tuple[Answer, ...]], list[Block]]
    verified: Callable[[Answer], Answer]


class Decide:
    """Turns a click or an assertion into an Answer. ``verify_slack`` says whether the signature is Slack's and at most
    300 s old."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        asks: Asks,
        uses: Uses,
        once: Once,
        evidence: Evidence,
        verify_slack: Callable[[SlackRequest], bool],
        passkeys: PasskeyCheck,
        approval_url: str,
        answers: Answers,
        signer: Signer,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        """``signer`` is the answer key's."""
        self._bundles = bundles
        self._asks = asks
        self._uses = uses
        self._once = once
        self._evidence = evidence
        self._verify_slack = verify_slack
        self._passkeys = passkeys
        self._approval_url = approval_url
        self._answers = answers
        self._signer = signer
        self._clock = clock
        self._audit = audit

    @property
    def host(self) -> str:
        """The approval page's host."""
        return urlsplit(self._approval_url).hostname or ""

    def __call__(self, request: SlackRequest) -> str:
        """Return the text to tell the person who clicked.

        Raises Unauthenticated (not Slack's, too old, or seen before), BadRequest, NotFound, ApproverNotEligible,
        PasskeyRequired, AlreadyDecided, AlreadyUsed, ApprovalWithdrawn, ApprovalExpired, ProofInvalid,
        StoreUnavailable.
        """
        if len(request.body) > MAX_BODY or not self._verify_slack(request):
            raise Unauthenticated("this request is not signed by Slack, or it is too old")
        now = self._clock.now()
        seen = sha256_hex(request.signature.encode())
        if self._once.claim("slack", seen, "", expires_at=now + _REPLAY_MEMORY, now=now) is not None:
            raise Unauthenticated("this click was delivered before")
        click = parse_click(request.body)
        try:
            bundle = self._bundles.current()
            answer, missing = self._answer(bundle, self._clicked(bundle, click))
        except AccessError as error:
            self._refused(click.ask_id, f"slack:{click.team}/{click.user}", error.code)
            raise
        return _told(answer, missing)

    def on_page(self, given: PageAnswer) -> str:
        """Return the text to tell the person who answered on the approval page.

        Raises as a call does, but PasskeyRequired; ProofInvalid where the assertion is not of this answer, or its
        counter went back.
        """
        try:
            bundle = self._bundles.current()
            answer, missing = self._answer(bundle, self._asserted(bundle, given))
        except AccessError as error:
            self._refused(given.ask_id, given.via, error.code)
            raise
        return _told(answer, missing)

    def _clicked(self, bundle: Bundle, click: Click) -> _Given:
        person = bundle.person_in_slack(click.team, click.user)
        if person is None:
            raise ApproverNotEligible("you are not known here as an approver")

        def card(ask: Ask, so_far: tuple[Answer, ...]) -> list[Block]:
            if ask.question.needs_passkey and click.approved:
                raise PasskeyRequired("this is approved with a passkey: a click does not count", ask=ask.id)
            if not same_card(click.blocks, ask, so_far, at=self._approval_url):
                raise ProofInvalid("the card that was clicked does not show this request", ask=ask.id)
            return render_card(ask, so_far, at=self._approval_url)

        return _Given(
            ask_id=click.ask_id,
            approved=click.approved,
            person=person,
            via=click.via,
            card=card,
            verified=lambda answer: answer,
        )

    def _asserted(self, bundle: Bundle, given: PageAnswer) -> _Given:
        found = bundle.person_with_passkey(given.passkey_id)
        if found is None:
            raise ApproverNotEligible("this passkey is not registered here", hint="Have it added to approvers.yaml.")
        person, passkey = found

        def card(ask: Ask, so_far: tuple[Answer, ...]) -> list[Block]:
            for shown in cards_so_far(ask, so_far, at=self._approval_url):
                if sha256_hex(canonical(shown)) == given.card_sha256:
                    return shown
            raise ProofInvalid("the page did not show this request", ask=ask.id)

        return _Given(
            ask_id=given.ask_id,
            approved=given.approved,
            person=person,
            via=given.via,
            card=card,
            verified=lambda answer: self._passkeys(answer, given, passkey, bundle),
        )

    def _answer(self, bundle: Bundle, given: _Given) -> tuple[Answer, int]:
        person = given.person
        ask = self._asks.get(given.ask_id)
        if ask.question.digest() != ask.digest:
            raise ProofInvalid("the request for approval was changed after it was made", ask=ask.id)
        if is_of_before(ask.created_at, bundle.epoch_at):
            hint = "Whoever needs it asks anew."
            raise ApprovalWithdrawn("this was asked before the store was restored", hint=hint, ask=ask.id)
        so_far = self._evidence.answers(ask.id)
        self._require_open(ask, person, so_far)
        chain = self._require_eligible(bundle, ask, person)
        card = canonical(given.card(ask, so_far))
        now = self._clock.now()
        unsigned = Answer(
            ask_id=ask.id,
            person=person.id,
            approved=given.approved,
            digest=ask.digest,
            groups=person.groups,
            card_sha256=sha256_hex(card),
            card=card.decode(),
            via=given.via,
            answered_at=now,
        )
        answer = sign_answer(self._signer, given.verified(unsigned))
        self._answers.put(answer)
        self._given(answer, ask, chain)
        state = fold_approval(ask, (*so_far, answer), (), now)
        return answer, sum(count for _, count in state.missing) if isinstance(state, Waiting) else 0

    def _require_open(self, ask: Ask, person: Person, so_far: tuple[Answer, ...]) -> None:
        if any(answer.person == person.id for answer in so_far):
            raise AlreadyDecided("you have answered this already", ask=ask.id)
        state = fold_approval(ask, so_far, self._uses.of_ask(ask.id), self._clock.now())
        match state:
            case Waiting():
                return
            case Approved() | Refused():
                raise AlreadyDecided("this has been answered already", ask=ask.id)
            case Expired():
                raise ApprovalExpired("this has expired", ask=ask.id)
            case Spent(use=use) if use.kind is UseKind.WITHDRAWN:
                raise ApprovalWithdrawn("this was withdrawn by who asked", ask=ask.id)
            case Spent():
                raise AlreadyUsed("this was approved and used already", ask=ask.id)
            case _:
                assert_never(state)

    def _require_eligible(self, bundle: Bundle, ask: Ask, person: Person) -> Chain:
        """Return the chain that asks."""
        if not any(need.approval.group in person.groups for need in ask.question.needs):
            groups = ", ".join(sorted({need.approval.group for need in ask.question.needs}))
            raise ApproverNotEligible(f"only people of {groups} may answer this", ask=ask.id)
        # Who put the Ask named the excluded; the signed chain is asked again, since a table can be written.
        chain = self._evidence.chain_by_hash(ask.question.txn, ask.question.leaf_hop_sha256)
        if person.id in ask.excluded or person.id in excluded_people(bundle, chain):
            raise ApproverNotEligible("you are behind this run, so somebody else must answer", ask=ask.id)
        # Whoever can put an Ask writes the card: it may not name others than who asks, or people who are not known.
        hides = ask.question.trigger_known and not trigger_known(bundle, chain)
        if ask.question.chain != chain_lines(bundle, chain) or hides:
            raise ProofInvalid("the card does not say who asks: it must be asked again", ask=ask.id)
        return chain

    def _refused(self, ask_id: AskId, actor: str, code: str) -> None:
        self._audit.record(
            AuditEvent(
                name=AuditName.ANSWER_REFUSED,
                at=self._clock.now(),
                ask_id=ask_id,
                actor=actor,
                code=code,
            )
        )

    def _given(self, answer: Answer, ask: Ask, chain: Chain) -> None:
        asked = ask.question
        self._audit.record(
            AuditEvent(
                name=AuditName.ANSWER_GIVEN,
                at=answer.answered_at,
                txn=asked.txn,
                session_id=asked.session_id,
                connection_id=asked.connection_id,
                operation_id=asked.operation_id,
                ask_id=ask.id,
                actor=answer.person,
                target=asked.target,
                acting=Acting.of(chain),
                principal=asked.principal,
                verdict="forward" if answer.approved else "block",
                rules=asked.rules,
                people=(answer.person,),
                policy_digest=asked.policy_digest,
                configuration_serial=asked.configuration_serial,
                why="approved" if answer.approved else "refused",
            )
        )


def parse_click(body: str) -> Click:
    """Return the one click of a form-encoded ``block_actions`` body. Raises BadRequest, NotFound. Pure.

    Where the payload names the team twice (the app's, the person's) both must be one: a guest in a shared channel is a
    stranger with a look-alike id.
    """
    try:
        (payload,) = parse_qs(body, strict_parsing=True, max_num_fields=8)["payload"]
        said = json.loads(payload)
        (action,) = said["actions"]
        team, user = said["team"]["id"], said["user"]
        click = Click(
            ask_id=AskId(action["value"]),
            approved=action["action_id"] == APPROVE,
            team=team,
            user=user["id"],
            channel=said["channel"]["id"],
            message_ts=said["message"]["ts"],
            blocks=said["message"]["blocks"],
        )
        known = said["type"] == "block_actions" and action["action_id"] in (APPROVE, DENY)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise BadRequest("this is not a click on one of our cards") from error
    texts = (click.ask_id, click.team, click.user, click.channel, click.message_ts)
    if not known or not all(isinstance(text, str) and 0 < len(text) <= 255 for text in texts):
        raise BadRequest("this is not a click on one of our cards")
    if user.get("team_id", team) != team:
        raise ApproverNotEligible("you belong to another Slack workspace")
    return click


def _told(answer: Answer, missing: int) -> str:
    if not answer.approved:
        return "You refused it. Nothing will run."
    if missing:
        return f"Your approval is recorded. {missing} more {'is' if missing == 1 else 'are'} needed."
    return "Approved. Your answer is signed and recorded; it counts once, for exactly what the card shows."
