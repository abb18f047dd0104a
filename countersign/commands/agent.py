"""`countersign agent -- CMD...`: run a command as a hop of its own, with none of the job's credentials.

With a ticket (``COUNTERSIGN_TICKET``, ``--ticket-file``) it is the hop that the ticket's parent let in; with ``--name``
it is a new one below the caller's own. Its key is made here, in a private folder that goes with the command, but where
the ticket names the key of COUNTERSIGN_IDENTITY (``countersign key``). What the command gets is an allow-list
(``environment.agent_environment``): a credential that we never heard of is gone as well.

What it does not do: separate users. A process of the same user can read what its parent can, so what must not be able
to act as the parent runs as another user or in a container, with a ticket.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Final

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.delegation import ByKey
from chalicelib.domain.secret import Secret
from countersign.child import find_command, run
from countersign.commands.asking import Invocation, limited_s
from countersign.commands.delegate import add_limits
from countersign.delegations import HOP_S, Delegation, checked_name, checked_scope, checked_ticket, ticket_for
from countersign.environment import agent_environment
from countersign.failures import Exit, Failure
from countersign.identities import Held, IdentityFile, file_named
from countersign.printable import moment
from countersign.proofs import OwnKey
from countersign.service import Service
from countersign.settings import CI_CREDENTIALS, Settings
from countersign.tokens import redeemed
from countersign.vouching import actor_token

_MOST_TICKET: Final = 1024
_NOT_REDEEMED: Final = (
    "It is used once, and soon. Where it names a key, COUNTERSIGN_IDENTITY must name the file that `countersign key` "
    "made; where it names an issuer, this workload's own token must come with it: --actor-token-file."
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.usage = "countersign agent [--name NAME | --ticket-file PATH] [options] -- CMD [ARG...]"
    parser.add_argument("--name", default="", help="a new hop below this caller's, and its name in the chain")
    add_limits(parser)
    parser.add_argument("--ticket-file", default="", metavar="PATH", help="the ticket (else COUNTERSIGN_TICKET)")
    parser.add_argument(
        "--actor-token-file",
        default="",
        metavar="PATH",
        help="this workload's own token, for a ticket that names an issuer (else COUNTERSIGN_ACTOR_TOKEN_FILE)",
    )
    parser.add_argument("--pass", dest="passed", action="append", default=[], metavar="NAME", help="hand a variable on")
    parser.add_argument("--keep-identity", action="store_true", help="leave the CI's own credentials to the command")


def agent(invocation: Invocation) -> int:
    """Return the command's own exit code. Raises Failure where it was not started."""
    options, settings, output = invocation.options, invocation.settings, invocation.output
    command: list[str] = options.command
    if not command:
        raise Failure(Exit.USAGE, "there is no command", hint="countersign agent --name deploy-svc -- ./deploy.sh")
    program = find_command(command, settings.inherited)
    with tempfile.TemporaryDirectory(prefix="countersign-") as folder:
        file = IdentityFile(Path(folder, "identity.json"))
        own = {"COUNTERSIGN_API": settings.api, "COUNTERSIGN_IDENTITY": str(file.path)}
        # A name that may not be passed is refused before a ticket is used up.
        environment = agent_environment(settings.inherited, options.passed, own, keep_identity=options.keep_identity)
        held = _identity(invocation)
        with file.locked(invocation.clock):
            file.write(held)
        _tell(invocation, held, sorted(set(CI_CREDENTIALS) & set(environment)))
        code = run(program, command, environment)
    told = {"txn": held.txn, "hop": held.hop, "thumbprint": held.key.thumbprint, "exit": code}
    output.result(told, on_stderr=True)
    return code


def _identity(invocation: Invocation) -> Held:
    """Return the hop that the command will be. Raises Failure."""
    options, settings = invocation.options, invocation.settings
    ticket = _ticket(options.ticket_file, settings)
    if (ticket is None) == (not options.name):
        raise Failure(
            Exit.USAGE,
            "say which hop the command is: --name NAME for a new one, or a ticket, and not both",
            hint="A parent makes a ticket with `countersign delegate`; it comes in COUNTERSIGN_TICKET.",
        )
    if ticket is None:
        return _new_child(invocation)
    if options.scope or options.duration or options.max_depth is not None:
        raise Failure(Exit.USAGE, "a ticket says already what its hop may do: no --scope, --duration or --max-depth")
    service = Service(settings, invocation.clock)
    path = options.actor_token_file or settings.actor_token_file
    actor = actor_token(path) if path else None
    try:
        return redeemed(service.http, invocation.clock, _key(settings, service), ticket, actor)
    except Failure as failure:
        if failure.code == "ticket_invalid":  # the service does not say why: a thief would learn from it
            failure.hint = _NOT_REDEEMED
        raise


def _new_child(invocation: Invocation) -> Held:
    options, clock = invocation.options, invocation.clock
    service, key = invocation.service(), OwnKey.new()
    wanted = Delegation(
        redeemer=ByKey(thumbprint=key.thumbprint),
        name=checked_name(options.name),
        scope=checked_scope(options.scope),
        duration_s=limited_s(options.duration, "--duration", HOP_S),
        max_depth=options.max_depth,
    )
    return redeemed(service.http, clock, key, ticket_for(service, wanted).ticket, None)


def _key(settings: Settings, service: Service) -> OwnKey:
    """Return the key that redeems: the caller's where it has one that is no hop's yet (the ticket names it then), else
    a new one. Raises Failure."""
    held = file_named(settings.identity).read() if settings.identity else service.tokens.unused()
    if held is not None and held.token is None and held.api == service.address.origin:
        return held.key
    return OwnKey.new()


def _ticket(path: str, settings: Settings) -> Secret | None:
    if not path:
        return None if settings.ticket is None else checked_ticket(settings.ticket.expose())
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            text = file.read(_MOST_TICKET + 1).decode("ascii", "replace").strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no path"
        raise Failure(Exit.USAGE, f"the ticket {path} cannot be read: {why}") from error
    return checked_ticket(text)


def _tell(invocation: Invocation, held: Held, kept: list[str]) -> None:
    output, options = invocation.output, invocation.options
    ends = "" if held.hop_ends_at is None else f", until {moment(timestamp(held.hop_ends_at))}"
    output.say(f"{options.name or 'agent'}: {held.hop} of chain {held.txn}{ends}")
    if options.keep_identity:
        what = ", ".join(kept) or "none is set"
        output.say(f"--keep-identity: the command can speak as this job at the CI service ({what})")
