"""`countersign targets`: what this caller may ask for; `targets enroll NAME` is in ``enroll``."""

from __future__ import annotations

import argparse

from countersign.api import text_of
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.printable import padded, safe_line, width

_COLUMNS = ("name", "protocol", "environment", "description")


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the targets that a request of yours would not be refused for at once. `enroll NAME` is for operators: it "
        "changes a target's credential, and shows that the former one is refused."
    )
    parser.add_argument("what", nargs="?", default="", choices=("", "enroll"), metavar="enroll", help="for operators")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="after enroll: a name of targets.yaml")
    parser.add_argument("--principal", default="", help="enroll: this login alone (all of the target's where left out)")
    parser.add_argument(
        "--old-identity", default="", metavar="FILE", help="enroll, ssh: the private key that was used before"
    )
    parser.add_argument("--reason", default="enrolling the target", help="enroll, ssh: why; approvers read it")
    parser.add_argument("--wait", default="", metavar="TIME", help="enroll, ssh: wait no longer than this for approval")


def targets(invocation: Invocation) -> int:
    """Print the list, or enroll one. Raises Failure, AccessError."""
    if invocation.options.what:
        from countersign.commands.enroll import enroll

        if not invocation.options.name:
            raise Failure(Exit.USAGE, "enroll what?", hint="countersign targets enroll NAME")
        return enroll(invocation)
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
