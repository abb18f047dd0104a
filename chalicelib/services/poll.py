"""The caller looks at its own session, and may wait a few seconds for people.

Rule: a waiter holds a slot, and there are few: whoever finds none is answered at once and told when to come back, so
that waiting pipelines never use up the function that takes the approvers' clicks. A slot is a row that expires, so the
bound holds over all processes of the function, and a dead one gives its slot back by itself.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.store import Once, Sessions
from chalicelib.services.identify import Caller
from chalicelib.services.settle import Settle, Take
from chalicelib.services.standing import Pending, Standing, no_access, owned

MAX_WAIT_S: Final = 5  # Slack wants its answer in 3 s: a waiter must never be what a click waits behind for long
_LOOK_EVERY_S: Final = 0.5  # people answer in seconds: ten reads of a row per call, and nobody notices the half second
_RETRY_FROM_S: Final = 2  # where there was no room to wait: sooner than the longest wait would have ended
_RETRY_SPREAD_S: Final = 4  # pipelines that were started by one push must not come back in one second


class WaitingRoom:
    """A bound on how many callers wait at once, over all processes. ``places`` of 0 lets nobody wait."""

    def __init__(self, *, once: Once, places: int, clock: Clock) -> None:
        self._once = once
        self._places = places
        self._clock = clock

    def enter(self, wait_s: int) -> bool:
        """Return whether a place was free; it is held until ``wait_s`` have passed."""
        if self._places == 0 or wait_s == 0:
            return False
        now = self._clock.now()
        place = secrets.randbelow(self._places)
        until = now + timedelta(seconds=wait_s)
        return self._once.claim("wait", str(place), "", expires_at=until, now=now) is None


class PollSession:
    """Answers how the caller's session stands, waiting at most ``MAX_WAIT_S``."""

    def __init__(
        self,
        *,
        sessions: Sessions,
        settle: Settle,
        room: WaitingRoom,
        clock: Clock,
        pause: Callable[[float], None],
    ) -> None:
        self._sessions = sessions
        self._settle = settle
        self._room = room
        self._clock = clock
        self._pause = pause

    def __call__(self, caller: Caller, session_id: str, *, wait_s: int = 0, take: Take = Take.FIRST) -> Standing:
        """Return the standing; raises what :class:`Settle` does, NotFound for what is not the caller's,
        PolicyDenied for what its token does not cover, BadRequest."""
        if not 0 <= wait_s <= MAX_WAIT_S:
            raise BadRequest(f"wait_s is a whole number from 0 to {MAX_WAIT_S}")
        standing = self._look(caller, session_id, take)
        if not isinstance(standing, Pending) or not self._room.enter(wait_s):
            return standing
        until = self._clock.monotonic_s() + wait_s
        while isinstance(standing, Pending) and (left := until - self._clock.monotonic_s()) > 0:
            self._pause(min(_LOOK_EVERY_S, left))
            standing = self._look(caller, session_id, take)
        return standing

    def _look(self, caller: Caller, session_id: str, take: Take) -> Standing:
        session = owned(self._sessions, caller, session_id)
        # A session is its hop's; a token of the hop for less must not take the secret of what it could not ask for.
        if not caller.may_open(session.request.target, session.request.principal):
            raise no_access(session=session.id)
        return self._settle(caller, session, take)


def retry_after_s() -> int:
    """Return in how many seconds to poll again, spread so that callers do not come back together."""
    return _RETRY_FROM_S + secrets.randbelow(_RETRY_SPREAD_S)
