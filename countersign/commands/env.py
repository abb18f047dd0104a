"""`countersign env TARGET --format shell|dotenv|github`: the session's variables, for a shell or for later steps.

What reads them holds a secret that any process of the job can read, so the session's assurance is ``bearer``; where one
command is enough, `countersign exec` keeps it to that command.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from countersign.commands.asking import Invocation, add_asking, ask_and_wait
from countersign.environment import (
    as_lines,
    as_shell,
    checked_authority,
    client_variables,
    kept_authority_file,
    write_private,
)
from countersign.failures import Exit, Failure
from countersign.sessions import Connect
from countersign.waiting import usable


def add(parser: argparse.ArgumentParser) -> None:
    add_asking(parser)
    parser.add_argument(
        "--format",
        choices=("shell", "dotenv", "github"),
        default="shell",
        help="who will read them (default: a shell, with eval)",
    )
    parser.add_argument(
        "--ca-file", default="", metavar="PATH", help="where to put the broker's authority (a new file)"
    )


def env(invocation: Invocation) -> int:
    """Print the variables, or, for GitHub Actions, append them to the job's file. Raises Failure."""
    options, settings, output = invocation.options, invocation.settings, invocation.output
    if options.ca_file and os.path.lexists(options.ca_file):  # before anybody is asked to approve
        raise Failure(
            Exit.USAGE, f"--ca-file {options.ca_file} is there already", hint="Name a new file, or remove it."
        )
    sessions = invocation.sessions()
    granted = ask_and_wait(invocation, sessions)
    connect = usable(granted)  # somebody else has the secret where we have not: the session is theirs to close
    try:
        _refuse_ssh(connect)
        ca_file = _authority(connect, options.ca_file, settings.runner_temp)
        variables = {**client_variables(connect, ca_file), "COUNTERSIGN_SESSION": granted.session_id}
    except BaseException:
        sessions.close(granted.session_id)  # nobody got what is needed to use it
        raise
    if output.as_json:
        told = {"session_id": granted.session_id, "txn": granted.txn, "expires_at": granted.expires_at}
        output.result({**told, "env": variables})
    elif options.format == "github":
        _github(invocation, variables, settings.github_env)
    else:
        output.raw((as_shell(variables) if options.format == "shell" else as_lines(variables)).rstrip("\n"))
    return Exit.DONE


def _refuse_ssh(connect: Connect) -> None:
    if connect.protocol == "ssh":
        raise Failure(
            Exit.USAGE,
            "variables alone set up no ssh client",
            hint="countersign exec TARGET -- ssh TARGET COMMAND: its certificate is renewed while it runs.",
            session_id=connect.user,
        )


def _authority(connect: Connect, wanted: str, folder: str) -> Path:
    if not wanted:
        return kept_authority_file(connect.ca_pem, folder)
    path = Path(wanted).absolute()
    write_private(path, checked_authority(connect.ca_pem))
    return path


def _github(invocation: Invocation, variables: Mapping[str, str], github_env: str) -> None:
    """Set the variables for the job's later steps; without ``$GITHUB_ENV`` print the lines that would go there.

    The mask comes first: a secret that a later step prints is then starred out in the log. Source: docs.github.com
    "Workflow commands", sections "Setting an environment variable" and "Masking a value".
    """
    output = invocation.output
    if not github_env:
        output.raw(as_lines(variables).rstrip("\n"))
        return
    output.raw(f"::add-mask::{variables['PGPASSWORD']}")
    try:
        descriptor = os.open(github_env, os.O_WRONLY | os.O_APPEND)
    except OSError as error:
        raise Failure(Exit.USAGE, f"GITHUB_ENV cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(as_lines(variables))
    output.say(f"{len(variables)} variables are set for the job's later steps")
