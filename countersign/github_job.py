"""What a step of a GitHub Actions job says to its runner: the secret to mask, the refusal, outputs and summary.

The attack: a text of others (a target's name, the service's message) that the runner takes for a command of its own, or
that draws something else into the summary. So a command is one line whose text is made safe and escaped as the runner
undoes it, outputs are values of fixed grammars, and the summary shows others' text as code that nothing closes.

Rules: all of it only where ``GITHUB_ACTIONS`` is ``true``; commands go to stderr, which the runner reads as it reads
stdout, since stdout belongs to the started command (``exec ... > rows.csv``). No secret is printed where stderr is a
file: nobody stars it out there. A file of the runner's that cannot be written is said, and never fails the command:
what it did is done. Source: docs.github.com "Workflow commands for GitHub Actions", sections "Masking a value in a
log", "Setting an error message", "Setting an output parameter", "Adding a job summary" (1 MiB a step); the escaping is
that of actions/toolkit's ``command.ts``.
"""

from __future__ import annotations

import os
import re
from typing import Final

from chalicelib.domain.identifiers import SESSION_ID, TXN
from countersign.failures import Exit, Failure
from countersign.output import Output
from countersign.printable import moment, safe_line
from countersign.sessions import Connect, Granted
from countersign.settings import Settings

_LONGEST: Final = 500  # of one text of others: a reason or a message is a sentence
_TICKS: Final = re.compile("`+")
# Answers of people and rules; anything else went wrong, and its title says only that.
_DENIALS: Final = frozenset({Exit.DENIED, Exit.PENDING})


class GithubJob:
    """The runner of this step; says nothing where there is none."""

    def __init__(self, settings: Settings, output: Output) -> None:
        self._settings = settings
        self._output = output

    def mask(self, connect: Connect) -> None:
        """Have the runner star the session's secret out of the log, before anything can print it."""
        secret = connect.secret.expose()
        if self._settings.in_github and secret and not self._output.kept_in_file:
            self._output.command(f"::add-mask::{_data(secret)}")

    def refused(self, failure: Failure, target: str) -> None:
        """Show the refusal on the run's page and in the summary."""
        if not self._settings.in_github:
            return
        denied = failure.exit_code in _DENIALS
        title = "Access denied" if failure.exit_code is Exit.DENIED else "Access pending" if denied else "countersign"
        what = failure.message + (f" [{failure.code}]" if failure.code else "")
        self._output.command(f"::error title={_property(title)}::{_data(f'{what} {failure.hint}'.strip())}")
        rows = [("target", target), ("why", what), ("what to do", failure.hint)]
        rows += [("session", failure.session_id), ("request", failure.request_id)]
        self._summary(title, rows)

    def ran(self, granted: Granted, target: str, command: str, code: int) -> None:
        """Say in the summary and the outputs which session the command ran in, and how a reviewer looks at it."""
        if not self._settings.in_github:
            return
        if SESSION_ID.match(granted.session_id) and TXN.match(granted.txn):
            self._append(
                self._settings.github_output, f"session={granted.session_id}\ntxn={granted.txn}\n", "GITHUB_OUTPUT"
            )
        rows = [("target", target), ("command", command), ("exit code", str(code)), ("session", granted.session_id)]
        rows += [("granted until", moment(granted.expires_at)), ("review", f"countersign review {granted.session_id}")]
        self._summary("Access recorded", rows)

    def _summary(self, title: str, rows: list[tuple[str, str]]) -> None:
        lines = [f"| {name} | {_code(value)} |" for name, value in rows if value]
        table = "\n".join(["", f"### Countersign: {title}", "", "| | |", "|---|---|", *lines, ""])
        self._append(self._settings.github_summary, table, "GITHUB_STEP_SUMMARY")

    def _append(self, path: str, text: str, name: str) -> None:
        """Append to a file that the runner made for this step; a link is not followed, nor a file made."""
        if not path:
            return
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            self._output.say(f"{name} cannot be written: {error.strerror}")


def _data(text: str) -> str:
    """Return ``text`` as the data of a workflow command: on one line already, so ``%`` is all that is left. Pure."""
    return safe_line(text, _LONGEST).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _code(text: str) -> str:
    """Return ``text`` as one table cell of code (GFM: a fence longer than any run of ticks inside; ``\\|`` for the bar,
    which ends a cell inside code too). Pure."""
    line = safe_line(text, _LONGEST).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in _TICKS.findall(line)), default=0))
    padded = f" {line} " if line[:1] == "`" or line[-1:] == "`" else line
    return f"{fence}{padded}{fence}"
