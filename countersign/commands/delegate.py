"""`countersign delegate --name N (--key THUMBPRINT | --issuer URL --claim NAME=VALUE...)`: a ticket for one child."""

from __future__ import annotations

import argparse

from countersign.api import text_of
from countersign.commands.asking import Invocation, limited_s
from countersign.delegations import HOP_S, TICKET_S, Delegation, checked_name, checked_scope, redeemer_of, ticket_for
from countersign.failures import Exit
from countersign.printable import moment


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print a ticket for one child: short, used once, and only by whom it names. The child redeems it with "
        "`countersign agent -- COMMAND` (COUNTERSIGN_TICKET, or --ticket-file)."
    )
    parser.add_argument("--name", required=True, help="what the chain calls the child: deploy-svc")
    add_limits(parser)
    parser.add_argument("--key", default="", metavar="THUMBPRINT", help="who proves this key (`countersign key`)")
    parser.add_argument("--issuer", default="", metavar="URL", help="whoever this declared issuer says has ...")
    parser.add_argument("--claim", action="append", default=[], metavar="NAME=VALUE", help="... each of these claims")
    parser.add_argument("--ttl", default="", metavar="TIME", help="the ticket is good for: 60s (default) to 15m")


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add what makes a child's authority less than its parent's."""
    parser.add_argument(
        "--scope", default="", metavar="WORDS", help="what it may do: db-prod/deploy#ssh:exec (else all)"
    )
    parser.add_argument("--duration", default="", metavar="TIME", help="its hop ends after: 15m, 1h (else with ours)")
    parser.add_argument("--max-depth", type=int, default=None, metavar="N", help="how deep the chain may grow below it")


def delegate(invocation: Invocation) -> int:
    """Print the ticket alone on stdout; what it is for on stderr. Raises Failure."""
    options, output = invocation.options, invocation.output
    wanted = Delegation(
        redeemer=redeemer_of(options.key, options.issuer, options.claim),
        name=checked_name(options.name),
        scope=checked_scope(options.scope),
        duration_s=limited_s(options.duration, "--duration", HOP_S),
        max_depth=options.max_depth,
        ticket_ttl_s=limited_s(options.ttl, "--ttl", TICKET_S),
    )
    handed = ticket_for(invocation.service(), wanted)
    output.result(handed.told)
    output.line(handed.ticket.expose())
    if not output.as_json:
        scope, ends = text_of(handed.told, "scope"), text_of(handed.told, "expires_at")
        output.say(f"a ticket for {wanted.name} ({scope}), to be redeemed by {moment(ends)}")
    return Exit.DONE
