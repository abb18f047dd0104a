"""`countersign status SESSION`: what a session is now. It never takes the secret from whoever waits for it."""

from __future__ import annotations

import argparse

from countersign.commands.asking import Invocation
from countersign.commands.request import show


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("session", metavar="SESSION", help="the session's id (ses_...)")


def status(invocation: Invocation) -> int:
    """Return 0 where it is granted, 75 while it is pending. Raises Failure where it is refused or closed."""
    sessions = invocation.sessions()
    return show(sessions.look(invocation.options.session), invocation.output)
