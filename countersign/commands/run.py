"""`countersign exec TARGET -- CMD...`: get a session, run the command with what its client needs, end the session."""

from __future__ import annotations

import argparse

from countersign.child import find_command, run
from countersign.commands.asking import Invocation, add_asking, ask_and_wait
from countersign.environment import authority_file, child_environment, client_variables
from countersign.failures import Exit, Failure
from countersign.sessions import Sessions
from countersign.waiting import usable


def add(parser: argparse.ArgumentParser) -> None:
    add_asking(parser)
    parser.usage = "countersign exec TARGET [options] -- CMD [ARG...]"


def execute(invocation: Invocation) -> int:
    """Return the command's own exit code. Raises Failure where it was not started."""
    command: list[str] = invocation.options.command
    if not command:
        raise Failure(Exit.USAGE, "there is no command", hint="countersign exec TARGET -- psql -c 'SELECT 1'")
    program = find_command(command, invocation.settings.inherited)
    sessions = Sessions(invocation.settings, invocation.clock)
    granted = ask_and_wait(invocation, sessions)
    try:
        connect = usable(granted)
        with authority_file(connect.ca_pem) as ca_file:
            variables = client_variables(connect, ca_file)
            environment = child_environment(invocation.settings.inherited, granted, variables)
            code = run(program, command, environment)
    finally:
        # The command is over, or was never started: a session that nobody uses is only there to be stolen.
        sessions.close(granted.session_id)
    told = {"session_id": granted.session_id, "txn": granted.txn, "exit": code}
    invocation.output.result(told, on_stderr=True)
    return code
