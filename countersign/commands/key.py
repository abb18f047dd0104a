"""`countersign key`: the thumbprint of this caller's key, which a parent names in a ticket. Makes the key where there
is none; nothing is asked of the service."""

from __future__ import annotations

import argparse

from countersign.commands.asking import Invocation
from countersign.failures import Exit


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print the thumbprint of this caller's key (RFC 7638), for `countersign delegate --key`."


def key(invocation: Invocation) -> int:
    """Print it. Raises Failure."""
    thumbprint = invocation.service().tokens.thumbprint()
    invocation.output.result({"thumbprint": thumbprint})
    invocation.output.line(thumbprint)
    return Exit.DONE
