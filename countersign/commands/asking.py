"""What `exec`, `env` and `request` share: the arguments that say what is asked for, and the asking itself."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import Final

from countersign.api import Clock
from countersign.failures import Exit, Failure
from countersign.output import Output
from countersign.service import Service
from countersign.sessions import Granted, Sessions, State, Wish, checked_key, new_key
from countersign.settings import Settings
from countersign.waiting import granted_session

_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})(s|m|h)?\Z")
_SESSION_S: Final = (60, 43_200)  # as docs/http_api.md has it: the target may cap it further
NO_REASON: Final = "no reason given"  # the service wants one, and approvers should see that nobody gave it
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, None: 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Invocation:
    """What every command gets: its arguments, and the outside world."""

    options: argparse.Namespace
    settings: Settings
    output: Output
    clock: Clock

    def service(self) -> Service:
        """Return the service that the caller named. Raises Failure (usage)."""
        return Service(self.settings, self.clock)

    def sessions(self) -> Sessions:
        """Return the caller's sessions there. Raises Failure (usage)."""
        return Sessions(self.service())


def add_asking(parser: argparse.ArgumentParser) -> None:
    """Add TARGET or --session, and what belongs to an access request."""
    parser.add_argument("target", nargs="?", default="", metavar="TARGET", help="what to reach: a name of targets.yaml")
    parser.add_argument("--session", default="", metavar="ID", help="go on with a session that was asked for before")
    parser.add_argument("--reason", default=NO_REASON, help="why; approvers read it")
    parser.add_argument(
        "--duration", default="", metavar="TIME", help="for how long: 900, 15m, 1h (capped by the target)"
    )
    parser.add_argument("--principal", default="", help="the login on the target (its default where left out)")
    parser.add_argument(
        "--wait", default="", metavar="TIME", help="wait no longer than this for approval; 0: not at all"
    )
    parser.add_argument("--idempotency-key", default="", metavar="KEY", help="asking twice with one key is asking once")


def seconds_of(text: str, what: str) -> int:
    """Return the seconds that ``text`` (900, 15m, 1h) states. Raises Failure (usage). Pure."""
    found = _DURATION.match(text)
    if found is None:
        raise Failure(Exit.USAGE, f"{what} is a whole number of seconds, or one with s, m or h: 900, 15m, 1h")
    return int(found[1]) * _UNITS[found[2]]


def limited_s(text: str, what: str, limits: tuple[int, int]) -> int:
    """Return the seconds that the option ``what`` states, 0 where it was left out. Raises Failure (usage): outside
    ``limits`` the service would refuse too, but names its field and not the option. Pure."""
    if not text:
        return 0
    seconds, (least, most) = seconds_of(text, what), limits
    if not least <= seconds <= most:
        raise Failure(Exit.USAGE, f"{what} is from {least} to {most} seconds")
    return seconds


def ask(sessions: Sessions, options: argparse.Namespace) -> State:
    """Ask for what ``options`` say, or take up the session that they name. Raises Failure."""
    if bool(options.target) == bool(options.session):
        raise Failure(Exit.USAGE, "give a target, or --session ID", hint="`countersign targets` lists the targets.")
    if options.session:
        return sessions.resume(options.session)
    return sessions.open(
        Wish(
            target=options.target,
            principal=options.principal,
            reason=options.reason,
            duration_s=limited_s(options.duration, "--duration", _SESSION_S),
            idempotency_key=checked_key(options.idempotency_key) if options.idempotency_key else new_key(),
        )
    )


def most_wait_s(options: argparse.Namespace) -> float | None:
    """Return the longest wait that ``options`` allow; None: as long as the service keeps the question open."""
    if not options.wait:
        return None
    return 0.0 if options.wait == "0" else float(seconds_of(options.wait, "--wait"))


def ask_and_wait(invocation: Invocation, sessions: Sessions) -> Granted:
    """Return the granted session. Raises Failure; SystemExit where a signal ended the wait."""
    options = invocation.options
    most_s = most_wait_s(options)  # a wrong --wait is said before anybody is asked
    state = ask(sessions, options)
    return granted_session(
        sessions,
        state,
        options.target or "session",
        most_s=most_s,
        output=invocation.output,
        clock=invocation.clock,
    )
