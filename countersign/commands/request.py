"""`countersign request TARGET`: ask for a session and say what became of it, without running anything."""

from __future__ import annotations

import argparse

from countersign.commands.asking import Invocation, add_asking, ask, most_wait_s
from countersign.failures import Exit
from countersign.output import Output
from countersign.printable import moment, safe_line
from countersign.sessions import Granted, Pending, State, still_pending
from countersign.waiting import granted_session


def add(parser: argparse.ArgumentParser) -> None:
    add_asking(parser)
    parser.description = "Ask for a session. Without --wait it says at once what became of the request."


def request(invocation: Invocation) -> int:
    """Return 0 when granted, 75 while people are asked. Raises Failure where it is refused."""
    sessions = invocation.sessions()
    options = invocation.options
    most_s = most_wait_s(options)
    state = ask(sessions, options)
    if most_s:
        name = options.target or "session"
        state = granted_session(sessions, state, name, most_s=most_s, output=invocation.output, clock=invocation.clock)
    return show(state, invocation.output)


def show(state: State, output: Output) -> int:
    """Print ``state``; the secret only as JSON, for programs: a terminal's scroll-back keeps what it shows."""
    match state:
        case Granted():
            output.result(dict(state.told))
            output.line(
                f"{output.paint('granted', 'green')}  {state.session_id}  until {safe_line(moment(state.expires_at))}"
            )
            output.line(f"chain    {safe_line(state.txn)}")
            if state.connect is not None:
                connect = state.connect
                where = f"{connect.protocol} {connect.host}:{connect.port} as {connect.user}"
                output.line(f"connect  {safe_line(where)}")
                output.line(f"         {safe_line(connect.command)}")
                output.line("The secret is not shown here: use `countersign env` or `countersign exec`, or --json.")
            return Exit.DONE
        case Pending():
            failure = still_pending(state)
            told = {"session_id": state.session_id, "status": "pending", "poll": state.poll}
            approval = {"id": state.ask_id, "needs": list(state.needs), "expires_at": state.expires_at}
            output.result({**told, "approval": approval})
            output.line(
                f"{output.paint('pending', 'yellow')}  {state.session_id}  until {safe_line(moment(state.expires_at))}"
            )
            for need in state.needs:
                output.line(f"needs    {safe_line(need)}")
            output.line(safe_line(failure.hint))
            return Exit.PENDING
