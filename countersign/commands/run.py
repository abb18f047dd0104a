"""`countersign exec TARGET -- CMD...`: get a session, run the command with what its client needs, end the session."""

from __future__ import annotations

import argparse
import os
from typing import Final

from countersign.child import Meanwhile, find_command, run
from countersign.commands.asking import Invocation, add_asking, ask_and_wait
from countersign.environment import authority_file, child_environment, client_variables
from countersign.failures import Exit, Failure
from countersign.github_job import GithubJob
from countersign.sessions import Certificate, Connect, Granted, Sessions
from countersign.ssh_client import SshClient, ssh_client
from countersign.waiting import usable

_RENEWED_BEFORE_S: Final = 120.0  # a certificate lives 300 s: what opens a connection now has two minutes left at least
_TRIED_AGAIN_S: Final = 15.0  # where the service could not be reached: several times before the end
_LEAST_S: Final = 1.0  # between two renewals, whatever end the service names


def add(parser: argparse.ArgumentParser) -> None:
    add_asking(parser)
    parser.usage = "countersign exec TARGET [options] -- CMD [ARG...]"
    parser.epilog = (
        "For an ssh target, ssh (and what calls it by this name) reaches it under its own name, without a login: "
        "countersign exec db-prod -- ssh db-prod uptime"
    )


def execute(invocation: Invocation) -> int:
    """Return the command's own exit code. Raises Failure where it was not started."""
    command: list[str] = invocation.options.command
    if not command:
        raise Failure(Exit.USAGE, "there is no command", hint="countersign exec TARGET -- psql -c 'SELECT 1'")
    job = GithubJob(invocation.settings, invocation.output)
    target = invocation.options.target or invocation.options.session
    try:
        return _execute(invocation, command, job, target)
    except Failure as failure:
        job.refused(failure, target)
        raise


def _execute(invocation: Invocation, command: list[str], job: GithubJob, target: str) -> int:
    program = find_command(command, invocation.settings.inherited)
    sessions = invocation.sessions()
    granted = ask_and_wait(invocation, sessions)
    connect = usable(granted)  # somebody else has the secret where we have not: the session is theirs to close
    job.mask(connect)
    try:
        if connect.protocol == "ssh":
            code = _with_ssh(invocation, sessions, granted, connect)
        else:
            with authority_file(connect.ca_pem) as ca_file:
                variables = client_variables(connect, ca_file)
                code = run(program, command, child_environment(invocation.settings.inherited, granted, variables))
    finally:
        # The command is over, or was never started: a session that nobody uses is only there to be stolen.
        sessions.close(granted.session_id)
    job.ran(granted, target, command[0], code)
    told = {"session_id": granted.session_id, "txn": granted.txn, "exit": code}
    invocation.output.result(told, on_stderr=True)
    return code


def _with_ssh(invocation: Invocation, sessions: Sessions, granted: Granted, connect: Connect) -> int:
    """Run the command with our ssh in front of its PATH. The certificate is asked for when the session is granted: with
    the request a new key would make a repeat under one idempotency key another request."""
    inherited, command = invocation.settings.inherited, invocation.options.command
    path = inherited.get("PATH", os.defpath)
    with ssh_client() as client:
        certificate = sessions.certificate(granted.session_id, client.public_key)
        client.set_up(connect, invocation.options.target or granted.session_id, certificate, path)
        environment = child_environment(inherited, granted, client.variables(path))
        renewal = _Renewal(client, sessions, granted, certificate, invocation)
        meanwhile = Meanwhile(first_s=renewal.pause_s(), do=renewal)
        return run(find_command(command, environment), command, environment, meanwhile)


class _Renewal:
    """Replaces the certificate while the command runs, for the connections that it opens later."""

    def __init__(
        self, client: SshClient, sessions: Sessions, granted: Granted, first: Certificate, invocation: Invocation
    ) -> None:
        self._client = client
        self._sessions = sessions
        self._session_id = granted.session_id
        self._last = first
        self._output = invocation.output
        self._clock = invocation.clock
        self._told = False

    def pause_s(self) -> float:
        """Return in how many seconds the certificate is to be replaced."""
        left_s = (self._last.ends_at - self._clock.now()).total_seconds()
        return max(left_s - _RENEWED_BEFORE_S, _LEAST_S)

    def __call__(self) -> float | None:
        """Replace it and return when to come again; None where no later end is to be had: the grant ends then, or the
        service refused. Connections that are open are the broker's to end."""
        try:
            certificate = self._sessions.certificate(self._session_id, self._client.public_key, quick=True)
            self._client.renew(certificate)
        except Failure as failure:
            over = failure.exit_code is not Exit.UNREACHABLE
            if over or not self._told:
                self._output.say(f"no new certificate for ssh{'' if over else ' yet'}: {failure.message}")
                self._told = True
            return None if over else _TRIED_AGAIN_S
        later = certificate.ends_at > self._last.ends_at
        self._last, self._told = certificate, False
        return self.pause_s() if later else None
