"""An access review as CSV: a row a step, for a spreadsheet.

Rules: recorded texts are hostile to spreadsheets as they are to terminals: a cell that a program could take for a
formula begins with an apostrophe, and so does what stands behind a semicolon in it, where programs of other countries
begin a cell; nothing in a cell is a control character. So a cell is what a person may read; what a program reads is
``--json``. Source: RFC 4180; OWASP, "CSV Injection".
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from datetime import UTC
from typing import TYPE_CHECKING, Final, TextIO

from countersign.printable import safe_line

if TYPE_CHECKING:
    from countersign.review_steps import Step

COLUMNS: Final = (
    "at",
    "kind",
    "initiator",
    "behind it",
    "through",
    "actor",
    "actor id",
    "assurance",
    "target",
    "principal",
    "what",
    "verdict",
    "outcome",
    "allowed",
    "rules",
    "session",
    "connection",
    "chain",
    "id",
    "verified",
)
MOST_CELL: Final = 32_000  # a spreadsheet's cell holds 32,767 characters
# What begins a formula in Excel, LibreOffice or Google Sheets, full-width forms included, whatever stands before it
# that they skip.
_FORMULA: Final = re.compile(r"(^|;)([\s\"'\ufeff]*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")


def write_csv(steps: Iterable[Step], file: TextIO) -> int:
    """Write a line of names and a row for each step; return how many steps that was."""
    writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    number = 0
    for step in steps:
        writer.writerow([cell(text) for text in _row(step)])
        number += 1
    return number


def cell(text: str) -> str:
    """Return ``text`` as a cell that no program runs. Pure."""
    return _FORMULA.sub(r"\1\2'", safe_line(text, MOST_CELL))


def _row(step: Step) -> tuple[str, ...]:
    return (
        step.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"),
        step.kind,
        step.initiator,
        step.accountable or "unknown",
        " > ".join(step.chain),
        step.actor,
        step.actor_key,
        step.assurance,
        step.target,
        step.principal,
        step.what,
        step.verdict,
        step.outcome,
        step.allowed,
        " + ".join(step.rules),
        step.session,
        step.connection,
        step.txn,
        step.id,
        "yes" if step.verified else "NO",
    )
