"""``POST /v1/token``: what the form asks for, and which kind of exchange answers it. Runs in the ``sign`` function.

A subject token is an issuer's (``root``), a delegation ticket (``redeem``) or one of our own (``refresh``). Rules:
there is no client authentication, the subject token and the proof of a key say who asks; an actor token goes with a
ticket and with nothing else. Every refusal is an audit event.

Source: RFC 8693 sections 2.1, 2.2 and 3; RFC 8707 section 2; RFC 9449 section 5. Deviation: RFC 6749 section 3.2
ignores parameters that are not known; we refuse them, since what a caller believes it asked for and was not read is a
mistake worth telling.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, BadRequest, InvalidTarget, Unauthenticated, UnsupportedGrantType
from chalicelib.domain.scope import parse_scope
from chalicelib.services.issue import Issued
from chalicelib.services.proofs import Proofs
from chalicelib.services.redeem import RedeemTicket
from chalicelib.services.refresh import RefreshToken
from chalicelib.services.root import BeginRun

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"
TICKET_TYPE: Final = "urn:countersign:params:oauth:token-type:delegation-ticket"
ISSUER_TOKEN_TYPES: Final = frozenset(
    {"urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt"}
)
_REPEATABLE: Final = frozenset({"audience", "resource"})
_ACTOR: Final = frozenset({"actor_token", "actor_token_type"})
_KNOWN: Final = (
    _REPEATABLE
    | _ACTOR
    | {"grant_type", "subject_token", "subject_token_type", "requested_token_type", "scope", "client_id"}
)
_CLIENT_AUTHENTICATION: Final = frozenset({"client_secret", "client_assertion", "client_assertion_type"})
_PARAMETER: Final = re.compile(r"[a-z_]{1,64}\Z")  # what is said back to the caller of what it sent


class SubjectKind(StrEnum):
    """What the subject token is."""

    ISSUER_TOKEN = "issuer_token"
    TICKET = "ticket"
    OWN_TOKEN = "own_token"


_KINDS: Final[Mapping[str, SubjectKind]] = {
    **dict.fromkeys(ISSUER_TOKEN_TYPES, SubjectKind.ISSUER_TOKEN),
    TICKET_TYPE: SubjectKind.TICKET,
    ACCESS_TOKEN_TYPE: SubjectKind.OWN_TOKEN,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a form asks for. ``scope`` None: all that there is."""

    kind: SubjectKind
    subject_token: str
    actor_token: str | None
    scope: tuple[str, ...] | None


class Exchange:
    """Answers the form. ``audiences`` are the names under which a caller may ask for a token for us."""

    def __init__(
        self,
        *,
        begin_run: BeginRun,
        redeem: RedeemTicket,
        refresh: RefreshToken,
        proofs: Proofs,
        audiences: frozenset[str],
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._begin_run = begin_run
        self._redeem = redeem
        self._refresh = refresh
        self._proofs = proofs
        self._audiences = audiences
        self._clock = clock
        self._audit = audit

    def __call__(self, form: Mapping[str, Sequence[str]], proof: str = "") -> Issued:
        """Return the token for a form of RFC 8693 parameters, each with its values, and the ``DPoP`` header or nothing.

        Raises BadRequest, UnsupportedGrantType, InvalidTarget, Unauthenticated, KeyProofInvalid, and what the kind of
        exchange raises.
        """
        kind = None
        try:
            asked = asked_of(form, self._audiences)
            kind = asked.kind
            return self._answer(asked, proof)
        except AccessError as error:
            if kind is not SubjectKind.TICKET:  # whose refusals ``redeem`` tells, with what it knows of the ticket
                self._refused(error)
            raise

    def _answer(self, asked: Asked, proof: str) -> Issued:
        match asked.kind:
            case SubjectKind.ISSUER_TOKEN:
                proved = self._proofs.at_token_endpoint(proof) if proof else None
                return self._begin_run(asked.subject_token, proved, asked.scope)
            case SubjectKind.TICKET:
                return self._redeem(asked.subject_token, asked.actor_token, proof, asked.scope)
            case SubjectKind.OWN_TOKEN:
                return self._refresh(asked.subject_token, self._proofs.at_token_endpoint(proof), asked.scope)
            case _:
                assert_never(asked.kind)

    def _refused(self, error: AccessError) -> None:
        self._audit.record(
            AuditEvent(
                name=AuditName.TOKEN_REFUSED,
                at=self._clock.now(),
                code=error.code,
                txn=str(error.detail.get("txn", "")),
                actor=str(error.detail.get("actor", "")),
            )
        )


def asked_of(form: Mapping[str, Sequence[str]], audiences: frozenset[str]) -> Asked:
    """Return what a form asks for where that is given here, else raise saying what is not. Pure."""
    _check_names(form)
    if _one(form, "grant_type") != GRANT_TYPE:
        raise UnsupportedGrantType("grant_type is not token exchange")
    kind = _kind(_one(form, "subject_token_type"))
    if form.get("requested_token_type", [ACCESS_TOKEN_TYPE])[0] != ACCESS_TOKEN_TYPE:
        raise BadRequest("requested_token_type is not access_token")
    wanted = (*form.get("audience", ()), *form.get("resource", ()))
    if any(name.rstrip("/") not in audiences for name in wanted):
        raise InvalidTarget("audience or resource names another service")
    return Asked(
        kind=kind,
        subject_token=_one(form, "subject_token"),
        actor_token=_actor_token(form, kind),
        scope=parse_scope(form["scope"][0]) if "scope" in form else None,
    )


def _check_names(form: Mapping[str, Sequence[str]]) -> None:
    for name, values in form.items():
        if name in _CLIENT_AUTHENTICATION:
            raise Unauthenticated("clients are not authenticated here: the subject token says who asks")
        if name not in _KNOWN:
            shown = name if _PARAMETER.match(name) else "a parameter"
            raise BadRequest(f"{shown} is not one of RFC 8693's parameters that are taken here")
        if len(values) != 1 and name not in _REPEATABLE:
            raise BadRequest(f"{name} is there more than once")


def _kind(subject_token_type: str) -> SubjectKind:
    kind = _KINDS.get(subject_token_type)
    if kind is None:
        raise BadRequest("subject_token_type is not id_token, jwt, access_token or a delegation ticket's")
    return kind


def _actor_token(form: Mapping[str, Sequence[str]], kind: SubjectKind) -> str | None:
    given = _ACTOR & set(form)
    if not given:
        return None
    if kind is not SubjectKind.TICKET:
        raise BadRequest("actor_token goes with a delegation ticket and with nothing else")
    if _one(form, "actor_token_type") not in ISSUER_TOKEN_TYPES:
        raise BadRequest("actor_token_type is not id_token or jwt")
    return _one(form, "actor_token")


def _one(form: Mapping[str, Sequence[str]], name: str) -> str:
    value = form.get(name, [""])[0]
    if not value:
        raise BadRequest(f"{name} is missing")
    return value
