"""`countersign login`: a person logs in at their identity provider, and is a chain's origin from then on.

What is kept is our own token, bound to a key made here, in the identity file; the provider's token is exchanged at
once. In a CI nobody logs in: a job is itself, and what somebody left on a runner's disk is never used there.
"""

from __future__ import annotations

import argparse

from chalicelib.domain.canonical import timestamp
from countersign.commands.asking import Invocation
from countersign.device_login import DeviceLogin, Invitation, provider_of
from countersign.failures import Exit, Failure
from countersign.printable import moment


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Log in from a terminal (RFC 8628): open the address that it shows, and type the code."
    parser.add_argument("--issuer", default="", metavar="NAME", help="which provider, where there are several")


def login(invocation: Invocation) -> int:
    """Return 0 once the service knows the person. Raises Failure."""
    output, settings = invocation.output, invocation.settings
    if settings.in_ci:
        raise Failure(Exit.USAGE, "nobody logs in in a CI: the job has a token of its own", hint="See `--help`.")
    service = invocation.service()
    provider = provider_of(service.public("/v1/login").body.get("issuers"), invocation.options.issuer)

    def show(invitation: Invitation) -> None:
        output.say(f"open {invitation.address} and type the code {invitation.code}")
        if invitation.complete:
            output.say(f"or open {invitation.complete} and compare the code")

    held = service.tokens.begin(DeviceLogin(provider, invocation.clock).log_in(show))
    ends = "" if held.hop_ends_at is None else timestamp(held.hop_ends_at)
    output.result({"txn": held.txn, "hop": held.hop, "hop_expires_at": ends, "thumbprint": held.key.thumbprint})
    output.line(f"{output.paint('logged in', 'green')}  chain {held.txn}  until {moment(ends)}")
    return Exit.DONE
