"""A sign-off as JSON comes and goes: what the reviewer sends, and what they get back.

What comes in is checked for its shape here, for whoever invokes the function: being invoked is no authority.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.signoff import Period, Selection, Signoff, signoff_key
from chalicelib.services.form import text_of
from chalicelib.services.sign_off import SignoffWanted

MAX_NAMED: Final = 500  # identities in one request; more of them are kept by keep_others, or revoked one by one
MAX_IDENTITY: Final = 1024  # as in ``revoke``
MAX_NAME: Final = 200


def read_signoff(told: Json | None) -> SignoffWanted:
    """Return what a request says. Raises BadRequest naming the member. Pure."""
    if not isinstance(told, Mapping):
        raise BadRequest("signoff is missing")
    return SignoffWanted(
        period=_period(told),
        selection=Selection(target=text_of(told, "target", MAX_NAME), pipeline=text_of(told, "pipeline", MAX_IDENTITY)),
        population_sha256=text_of(told, "population_sha256", 64),
        keep=_named(told, "keep"),
        revoke=_named(told, "revoke"),
        keep_others=told.get("keep_others") is True,
        note=text_of(told, "note", MAX_IDENTITY),
    )


def told_signoff(signed: Signoff) -> Mapping[str, Json]:
    """Return what the reviewer gets back: the identities that are to be revoked by their keys, the others counted."""
    revoked = [ruling.identity for ruling in signed.rulings if not ruling.keep]
    return {
        "id": signed.id,
        "key": signoff_key(signed.id, signed.signed_at),
        "reviewer": signed.reviewer,
        "signed_at": timestamp(signed.signed_at),
        "population_sha256": signed.population_sha256,
        "sessions": signed.sessions,
        "unknown_triggers": signed.unknown_triggers,
        "kept": len(signed.rulings) - len(revoked),
        "revoked": revoked,
    }


def _period(told: Mapping[str, Any]) -> Period:
    try:
        since, until = (datetime.fromisoformat(text_of(told, name, 40)) for name in ("since", "until"))
        return Period(since=since, until=until)
    except ValueError as error:
        raise BadRequest(f"since and until are no period: {error}") from error


def _named(told: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = told.get(name, ())
    if not isinstance(value, list | tuple) or len(value) > MAX_NAMED:
        raise BadRequest(f"{name} is no list of at most {MAX_NAMED} identities")
    if not all(isinstance(one, str) and 0 < len(one) <= MAX_IDENTITY for one in value):
        raise BadRequest(f"{name} holds something that is no identity")
    return tuple(dict.fromkeys(value))
