"""`countersign targets`: what this caller may ask for."""

from __future__ import annotations

import argparse

from countersign.api import text_of
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.printable import padded, safe_line, width

_COLUMNS = ("name", "protocol", "environment", "description")


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the targets that a request of yours would not be refused for at once."


def targets(invocation: Invocation) -> int:
    """Print the list. Raises Failure."""
    answer = invocation.sessions().targets()
    found = answer.body.get("targets")
    if not isinstance(found, list) or not all(isinstance(target, dict) for target in found):
        raise Failure(Exit.UNREACHABLE, "the service's answer makes no sense: targets")
    output = invocation.output
    output.result({"targets": found})
    rows = [tuple(safe_line(text_of(target, name), 80) for name in _COLUMNS) for target in found]
    if not rows:
        output.line("There is nothing that you may ask for.")
        return Exit.DONE
    table = [tuple(name.upper() for name in _COLUMNS), *rows]
    widths = [max(width(row[column]) for row in table) for column in range(len(_COLUMNS))]
    for number, row in enumerate(table):
        line = "  ".join(padded(cell, widths[column]) for column, cell in enumerate(row)).rstrip()
        output.line(output.paint(line, "bold") if number == 0 else line)
    return Exit.DONE
