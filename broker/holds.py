"""Holding one operation until people answered: the ten steps, and the thread that looks for answers.

Rules: Held is durable before the Ask is put; only verified answers count, and only for this very question; everything
is read and judged again once they are in; the Use is put before the Verdict is durable before the operation goes;
whatever goes wrong refuses. An approval is used once, whoever races: the slot of a use and of a withdrawal is one. The
exact bytes and the salt never leave this process, only a commitment to them does. A process that dies after the Use
leaves no outcome frame, which a review tells as ``unknown``; nothing here ever runs an operation again.
Does not: talk to a client (an engine's HoldClient does), wait (the driver does), put Answers (``decide`` alone does).
Source: architecture, "Holding".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, assert_never

from broker.admission import Admission
from broker.evidence import Approvals, Evidence, still_eligible
from broker.inspection import Inspection, Judgement
from broker.recorder import Recorder, Recording
from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.ask import (
    Answer,
    ApprovalState,
    Approved,
    Ask,
    Expired,
    Refused,
    Spent,
    Use,
    UseKind,
    Waiting,
    fold_approval,
)
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import (
    AccessError,
    AlreadyUsed,
    ApprovalDenied,
    ApprovalExpired,
    ApprovalWithdrawn,
    ApproverNotEligible,
    BodyTooLarge,
    ConfigurationInvalid,
    GrantExpired,
    GrantRevoked,
    Limited,
    PolicyDenied,
    ProofInvalid,
    StoreUnavailable,
)
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.operation import Block, Forward, Operation, Ruling, verdict_word
from chalicelib.domain.policy import Allow
from chalicelib.domain.recording import FrameKind
from chalicelib.domain.session import SessionStatus
from chalicelib.domain.store import Answers, Asks, Revocations, Sessions, Uses
from chalicelib.domain.target import RecordMode
from chalicelib.services.access import excluded_people
from chalicelib.services.card import fits_card

USE_SLOT: Final = 1  # one slot: a use and a withdrawal exclude each other (the same for a session's ask)
MAX_HELD: Final = (
    256  # in one broker: two reads each, twice a second, is what one polling thread manages at 1 ms a read
)
UNREADABLE_S: Final = 30.0  # answers that cannot be read for this long refuse, as the feed of revocations does

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class HoldStores:
    """What holding reads and writes, shared by every connection of this broker."""

    sessions: Sessions
    revocations: Revocations
    asks: Asks
    answers: Answers
    uses: Uses
    bundles: Bundles
    evidence: Evidence
    recorder: Recorder
    poller: HoldPoller
    clock: Clock


class Held:
    """One operation that waits for people. :meth:`state`, :attr:`ready` and :attr:`notice` are memory; the rest blocks.

    ``Connection.hold`` makes one. Thread-safe: settling and withdrawing may race, and the store lets one of them win.
    """

    def __init__(
        self,
        *,
        stores: HoldStores,
        admission: Admission,
        inspection: Inspection,
        recording: Recording,
        op: Operation,
        ask: Ask,
    ) -> None:
        self.ask = ask
        self._stores = stores
        self._admission = admission
        self._inspection = inspection
        self._recording = recording
        self._op = op
        self._lock = threading.Lock()
        self._state: ApprovalState = Waiting(missing=(), answers=())
        self._failure: AccessError | None = None
        self._wake: Callable[[], None] | None = None

    @property
    def notice(self) -> str:
        """What the waiting client may read: who must answer, under which id, until when."""
        needs = ", ".join(f"{need.approval.phrase} (rule {need.rule})" for need in self.ask.question.needs)
        return f"waiting for approval by {needs}; {self.ask.id}, until {timestamp(self.ask.expires_at)}"

    @property
    def ready(self) -> bool:
        """Whether waiting is over: :meth:`settle` tells how."""
        with self._lock:
            return self._failure is not None or not isinstance(self._state, Waiting)

    def state(self) -> ApprovalState:
        """Return what was seen last, of verified answers only."""
        with self._lock:
            return self._state

    def on_ready(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called, in any thread, once :attr:`ready` is true; at once where it is already."""
        with self._lock:
            self._wake = wake
        if self.ready:
            wake()

    def saw(self, state: ApprovalState) -> None:
        """Take what the poller read."""
        with self._lock:
            self._state = state
        self._wake_if_ready()

    def give_up(self, failure: AccessError) -> None:
        """Take it that answers cannot be read any more."""
        with self._lock:
            self._failure = failure
        self._wake_if_ready()

    def _wake_if_ready(self) -> None:
        wake = self._wake
        if wake is not None and self.ready:
            wake()

    # -- steps 2 and 3 ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make Held durable, then put the Ask. Raises AccessError, recorded as the verdict; an Ask that may exist all
        the same is withdrawn, so that nobody approves what nobody waits for."""
        question = self.ask.question
        needs: Json = [need.told() for need in question.needs]
        asked = False
        try:
            if not fits_card(question):
                raise BodyTooLarge("the operation is too long to be shown to an approver", hint="Split it up.")
            self._stores.poller.add(self)
            self._record(FrameKind.HELD, digest=self.ask.digest, needs=needs)
            self._stores.recorder.make_durable(self._recording)
            asked = True
            self._stores.asks.put(self.ask)
        except AccessError as error:
            self._stores.poller.remove(self)
            if asked:
                self._free_slot("the ask could not be put")
            self._refused(error)
            raise

    # -- steps 5 to 8 ----------------------------------------------------------------------------------------------

    def settle(self) -> Forward | Block:
        """Return Forward where everything still holds and the approval was ours to use, else why not. Never raises.

        A Forward is durable already and is given at most once for an Ask, whoever else settles it.
        """
        try:
            return self._settled()
        except AlreadyUsed as error:
            return self._block(error)  # who used it recorded what became of it
        except AccessError as error:
            refusal = error
        except Exception:
            _logger.exception("settling failed", extra={"ask_id": self.ask.id})
            refusal = AccessError("the operation could not be judged")
        finally:
            self._stores.poller.remove(self)
        self._free_slot(refusal.public)
        return self._refused(refusal)

    def withdraw(self, why: str) -> None:
        """Take the operation back: no approval of it can be used any more. Idempotent; never raises."""
        self._stores.poller.remove(self)
        if self._free_slot(why):
            self._answered("withdrawn", ())
            self._refused(ApprovalWithdrawn(why))

    def _settled(self) -> Forward:
        now = self._stores.clock.now()
        answers = self._approved(now)
        self._check_standing(now)
        bundle = self._newest()
        chain = self._admission.chain
        excluded = (*self.ask.excluded, *excluded_people(bundle, chain))
        eligible = still_eligible(bundle, answers, excluded)
        asked = Approvals(rules=frozenset(need.rule for need in self.ask.question.needs), answers=eligible)
        if asked.met(self.ask.question.needs) != asked.rules:
            raise ApproverNotEligible("who approved may not approve this any more", ask=self.ask.id)
        judged = self._inspection.judge_again(bundle, self._op.acts, asked, now)
        if not isinstance(judged.outcome, Allow):
            raise PolicyDenied("the rules changed while this waited", rules=judged.outcome.rules, ask=self.ask.id)
        self._answered("approved", tuple(answer.person for answer in answers))
        self._stores.uses.put(self._use(UseKind.RAN, "approved"))
        return self._forward(judged, judged.outcome)

    def _approved(self, now: datetime) -> tuple[Answer, ...]:
        """Return the answers that count, read and verified now. Raises the AccessError that any other state is."""
        if self._failure is not None:
            raise self._failure
        if self.ask.question.digest() != self.ask.digest:
            raise ProofInvalid("the question is not what was asked", ask=self.ask.id)
        state = self._stores.poller.read(self.ask, now)
        match state:
            case Approved():
                return state.answers
            case Refused():
                self._answered("refused", (state.by,))
                raise ApprovalDenied("an approver refused this", ask=self.ask.id)
            case Expired() | Waiting():
                self._answered("expired", ())
                raise ApprovalExpired("nobody who may approve this did so in time", ask=self.ask.id)
            case Spent():
                if state.use.kind is UseKind.WITHDRAWN:
                    raise ApprovalWithdrawn("this was withdrawn", ask=self.ask.id)
                raise AlreadyUsed("the approval was used already", ask=self.ask.id)
            case _:
                assert_never(state)

    def _check_standing(self, now: datetime) -> None:
        grant = self._admission.grant
        if self._stores.revocations.any_of(self._admission.liveness) is not None:
            raise GrantRevoked("the session was revoked while this waited", ask=self.ask.id)
        if self._stores.sessions.get(self._admission.session.id).status is not SessionStatus.GRANTED:
            raise GrantRevoked("the session was closed while this waited", ask=self.ask.id)
        if now >= min(grant.expires_at, self._admission.chain.leaf.expires_at):
            raise GrantExpired("the session ended while this waited", ask=self.ask.id)

    def _newest(self) -> Bundle:
        bundle = self._stores.bundles.current()
        if bundle.serial < self.ask.question.configuration_serial:
            raise ConfigurationInvalid("the configuration went back to an earlier one", serial=bundle.serial)
        return bundle

    def _forward(self, judged: Judgement, outcome: Allow) -> Forward:
        forward = Forward(ruling=judged.ruling, masks=outcome.masks, durable=True, record_full=outcome.record_full)
        more: dict[str, Json] = {"masks": list(forward.masks)} if forward.masks else {}
        if not forward.record_full:
            more["recorded"] = RecordMode.STATEMENTS.value
        self._record(FrameKind.VERDICT, verdict=verdict_word(forward), **_ruling_meta(judged.ruling), **more)
        self._stores.recorder.make_durable(self._recording)
        return forward

    # -- what is told and put --------------------------------------------------------------------------------------

    def _refused(self, error: AccessError) -> Block:
        block = self._block(error)
        self._try_record(FrameKind.VERDICT, verdict="block", code=block.code, **_ruling_meta(block.ruling))
        return block

    def _block(self, error: AccessError) -> Block:
        question = self.ask.question
        ruling = Ruling(
            rules=question.rules,
            policy_digest=question.policy_digest,
            configuration_serial=question.configuration_serial,
        )
        return Block(ruling=ruling, code=error.code, public=error.public, hint=error.next_step)

    def _answered(self, state: str, people: tuple[PersonId, ...]) -> None:
        self._try_record(FrameKind.ANSWERED, state=state, people=list(people))

    def _try_record(self, kind: FrameKind, **meta: Json) -> None:
        """Record what changes nothing any more: a recording that fails here cannot make a refusal less refused, and an
        approval is used only once its verdict is durable."""
        try:
            self._record(kind, **meta)
        except AccessError:
            _logger.warning("a hold ends unrecorded", extra={"ask_id": self.ask.id, "frame": kind.value})

    def _record(self, kind: FrameKind, **meta: Json) -> None:
        self._recording.accept(kind, "ctl", meta=(("op", self._op.id), ("ask", self.ask.id), *meta.items()))

    def _free_slot(self, why: str) -> bool:
        """Put the withdrawal; return whether the slot is withdrawn by this call, or may be (the store is silent)."""
        try:
            self._stores.uses.put(self._use(UseKind.WITHDRAWN, why))
        except AlreadyUsed:
            return False
        except AccessError:
            _logger.warning("a withdrawal could not be put", extra={"ask_id": self.ask.id})
        return True

    def _use(self, kind: UseKind, why: str) -> Use:
        by = f"connection:{self.ask.question.connection_id}"
        return Use(ask_id=self.ask.id, n=USE_SLOT, kind=kind, by=by, why=why, at=self._stores.clock.now())


class HoldPoller:
    """Looks for the answers to every open Ask of this broker; :meth:`step` is called twice a second by one thread."""

    def __init__(self, *, answers: Answers, uses: Uses, evidence: Evidence, clock: Clock) -> None:
        self._answers = answers
        self._uses = uses
        self._evidence = evidence
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[Held, float | None] = {}  # to the time since which it could not be read

    def add(self, held: Held) -> None:
        """Poll for ``held`` from now on. Raises Limited where too many wait."""
        with self._lock:
            if len(self._open) >= MAX_HELD:
                raise Limited("too many operations wait for approval here")
            self._open[held] = None

    def remove(self, held: Held) -> None:
        """Poll for it no more. Idempotent."""
        with self._lock:
            self._open.pop(held, None)

    def read(self, ask: Ask, now: datetime) -> ApprovalState:
        """Return the state of ``ask`` as the tables have it, of verified answers only. Blocks."""
        answers = self._evidence.answers(self._answers.of_ask(ask.id))
        return fold_approval(ask, answers, self._uses.of_ask(ask.id), now)

    def step(self) -> None:
        """Read every open Ask once, and tell whoever waits for it. Never raises an AccessError."""
        with self._lock:
            waiting = tuple(self._open)
        for held in waiting:
            try:
                state = self.read(held.ask, self._clock.now())
            except AccessError as error:
                self._unreadable(held, error)
                continue
            self._mark(held, None)
            if not isinstance(state, Waiting):
                self.remove(held)  # nothing that people do changes it any more
            held.saw(state)

    def _unreadable(self, held: Held, error: AccessError) -> None:
        now_s = self._clock.monotonic_s()
        with self._lock:
            since_s = self._open.get(held)
        if since_s is None:
            self._mark(held, now_s)
        elif now_s - since_s >= UNREADABLE_S:
            _logger.error("answers cannot be read", extra={"ask_id": held.ask.id, "code": error.code})
            held.give_up(StoreUnavailable("the answers to this could not be read", ask=held.ask.id))

    def _mark(self, held: Held, since_s: float | None) -> None:
        with self._lock:
            if held in self._open:
                self._open[held] = since_s


def _ruling_meta(ruling: Ruling) -> dict[str, Json]:
    return {
        "rules": list(ruling.rules),
        "policy_digest": ruling.policy_digest,
        "configuration_serial": ruling.configuration_serial,
    }
