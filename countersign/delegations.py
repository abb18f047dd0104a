"""Asks for a ticket: what the caller hands to whoever it lets in below itself, in place of its own token.

A ticket names its redeemer, so that one that was stolen is of no use. What may be asked for is the service's to say: a
child has no more than its parent. The contract is ``docs/http_api.md``, POST /v1/delegations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.delegation import ByIssuer, ByKey, Redeemer
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.scope import parse_scope
from chalicelib.domain.secret import Secret
from countersign.api import text_of
from countersign.failures import Exit, Failure
from countersign.service import Service

# What the service takes, in the words of docs/http_api.md: said here so that the answer names the option.
HOP_S: Final = (60, 28_800)
TICKET_S: Final = (10, 900)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_TICKET: Final = re.compile(r"[A-Za-z0-9_-]{20,256}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegation:
    """What is asked for. ``scope`` empty, ``duration_s``, ``ticket_ttl_s`` 0 and ``max_depth`` None: the service's own
    defaults, which are the parent's scope and end."""

    redeemer: Redeemer
    name: str
    scope: str = ""
    duration_s: int = 0
    max_depth: int | None = None
    ticket_ttl_s: int = 0

    def body(self) -> Mapping[str, object]:
        match self.redeemer:
            case ByKey(thumbprint=thumbprint):
                redeemer: Mapping[str, object] = {"key": thumbprint}
            case ByIssuer(issuer=issuer, claims=claims):
                redeemer = {"issuer": issuer, "claims": dict(claims)}
        optional = {
            "scope": self.scope or None,
            "duration_s": self.duration_s or None,
            "max_depth": self.max_depth,
            "ticket_ttl_s": self.ticket_ttl_s or None,
        }
        told = {name: value for name, value in optional.items() if value is not None}
        return {"redeemer": redeemer, "name": self.name, **told}


@dataclass(frozen=True, kw_only=True, slots=True)
class Handed:
    """A ticket, and the service's whole answer with it (``told``, which holds the ticket's text too)."""

    ticket: Secret
    told: Mapping[str, object]


def ticket_for(service: Service, wanted: Delegation) -> Handed:
    """Return a new ticket under the caller's hop. Raises Failure: refused (``invalid_scope`` where it is more than the
    caller has), or what the service said makes no sense."""
    answer = service.post("/v1/delegations", wanted.body(), repeatable=False)
    ticket = text_of(answer.body, "ticket")
    if not _TICKET.match(ticket):
        raise Failure(Exit.UNREACHABLE, "the service's answer makes no sense: ticket")
    return Handed(ticket=Secret(ticket), told=answer.body)


def checked_name(text: str) -> str:
    """Return ``text`` if it can be a child's name. Raises Failure (usage)."""
    if not _NAME.match(text):
        raise Failure(
            Exit.USAGE, "a name has 1 to 63 small letters, digits and . _ -, and begins with one of the first"
        )
    return text


def checked_scope(text: str) -> str:
    """Return the scope that ``text`` states in its one spelling, empty for none. Raises Failure (usage)."""
    if not text:
        return ""
    try:
        return " ".join(parse_scope(" ".join(text.split())))
    except BadRequest as error:
        raise Failure(
            Exit.USAGE, f"--scope: {error.public}", hint="db-prod, orders-prod/reader, db-prod/deploy#ssh:exec"
        ) from error


def checked_ticket(text: str) -> Secret:
    """Return ``text`` if it can be a ticket. Raises Failure (usage); the message never holds it."""
    if not _TICKET.match(text):
        raise Failure(Exit.USAGE, "what was given as a ticket is none", hint="`countersign delegate` prints one.")
    return Secret(text)


def redeemer_of(key: str, issuer: str, claims: Sequence[str]) -> Redeemer:
    """Return who may redeem the ticket: a key, or an issuer's claims, written ``name=value``. Raises Failure."""
    if bool(key) == bool(issuer):
        raise Failure(
            Exit.USAGE,
            "say who may redeem the ticket: --key THUMBPRINT, or --issuer URL with --claim NAME=VALUE",
            hint="The child prints its thumbprint with `countersign key`.",
        )
    if key:
        if claims or not _THUMBPRINT.match(key):
            raise Failure(Exit.USAGE, "--key is a thumbprint of 43 characters, and goes without --claim")
        return ByKey(thumbprint=key)
    pairs = [claim.partition("=") for claim in claims]
    if not pairs or not all(name and equals and value for name, equals, value in pairs):
        raise Failure(Exit.USAGE, "--issuer goes with at least one --claim NAME=VALUE that says who the child is")
    named = {name: value for name, _, value in pairs}
    if len(named) != len(pairs):
        raise Failure(Exit.USAGE, "a claim is named twice")
    return ByIssuer(issuer=issuer, claims=tuple(named.items()))
