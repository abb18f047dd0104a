"""Waits for people, and says so: a live line on a terminal; else one line at the start, one a minute, one at the end.

A pipeline's log is read by people after the fact, so it gets few lines; a person at a terminal sees who must approve
and how long it has been. What is open when a signal comes is closed, so that nobody approves what nobody waits for.
"""

from __future__ import annotations

from typing import Final

from countersign.api import Clock
from countersign.child import Stopped, stopping
from countersign.failures import Exit, Failure
from countersign.output import Output
from countersign.printable import moment
from countersign.sessions import Connect, Granted, Pending, Sessions, State

_EVERY_S: Final = 60.0


class Progress:
    """Tells of one wait."""

    def __init__(self, target: str, output: Output, clock: Clock) -> None:
        self._target = target
        self._output = output
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._told_s: float | None = None

    def tell(self, pending: Pending) -> None:
        """Say who must approve, as often as the output's kind wants it."""
        now_s = self._clock.monotonic_s()
        waited_s = int(now_s - self._started_s)
        who = "; ".join(pending.needs) or "an approver"
        text = f"{self._target}: waiting for {who}"
        if self._output.live and self._told_s is not None:
            self._output.rewrite(f"{text} · {waited_s // 60}:{waited_s % 60:02d} · Ctrl-C withdraws")
        elif self._told_s is None:
            self._output.say(f"{text} · {pending.session_id}, until {moment(pending.expires_at)}")
            self._told_s = now_s
        elif now_s - self._told_s >= _EVERY_S:
            self._output.say(f"{text} ({waited_s // 60} min so far)")
            self._told_s = now_s

    def granted(self, granted: Granted) -> None:
        waited_s = int(self._clock.monotonic_s() - self._started_s)
        after = f" after {waited_s} s" if self._told_s is not None else ""
        self._output.say(f"{self._target}: granted{after} · {granted.session_id}, until {moment(granted.expires_at)}")


def granted_session(
    sessions: Sessions, state: State, target: str, *, most_s: float | None, output: Output, clock: Clock
) -> Granted:
    """Return the session once it is granted. Raises Failure: refused, or pending for longer than ``most_s``. A signal
    meanwhile closes the session and ends the command with 128 + its number."""
    progress = Progress(target, output, clock)
    if isinstance(state, Pending):
        try:
            with stopping():
                state = sessions.wait(state, most_s=most_s, tell=progress.tell)
        except Stopped as stopped:
            output.say(f"{target}: withdrawn")
            sessions.close(state.session_id)
            raise SystemExit(128 + stopped.number) from None
    progress.granted(state)
    return state


def usable(granted: Granted) -> Connect:
    """Return how to connect. Raises Failure where the secret was given out before: it is shown once."""
    if granted.connect is None:
        raise Failure(
            Exit.DENIED,
            "the session's secret was given out already",
            hint="Ask for a new session, or repeat the call with the same --idempotency-key.",
            session_id=granted.session_id,
        )
    return granted.connect
