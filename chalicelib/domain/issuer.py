"""The declaration of an issuer: which claims must hold, which identify the run immutably, which are kept or ignored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class TeamRule:
    """Puts an identity in ``team`` when every claim of ``when`` equals its value exactly; a list does where it holds
    the value (the groups of a person)."""

    team: str
    when: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Issuer:
    """One issuer of ours. ``url`` is compared with ``iss`` exactly; keys come from ``jwks_uri`` and from nowhere else.

    ``require``: claim to the values of which one must be equal. ``forbid``: claim to values that refuse. ``subject``:
    the claims whose values, joined with ``:``, are the immutable subject, without the run. ``run``: those that name
    the run and job. ``accountable``: (alias prefix, claim) of the people behind it; ``unknown_trigger``: claim to
    values where those people are not known (a schedule, a re-run). ``keep``: claims kept as attributes; ``ignore``:
    claims known and not used; any other claim is reported. ``many_tenants``: it serves the world, so ``require`` must
    hold one of ``tenant_claims``. ``max_lifetime_s`` caps ``exp - iat``; ``max_age_s`` is how long after ``iat`` one is
    taken whatever its ``exp``, 0 for until then. ``client_id``: people log in at this issuer with that public client
    (``countersign login``); empty where it vouches for no people.

    A claim inside another is named with ``/`` between the members' names (``kubernetes.io/serviceaccount/uid``); the
    whole rule is in ``identity.claims``.
    """

    name: str
    url: str
    jwks_uri: str
    algorithms: tuple[str, ...]
    audience: str
    many_tenants: bool
    tenant_claims: tuple[str, ...]
    require: tuple[tuple[str, tuple[str, ...]], ...]
    forbid: tuple[tuple[str, tuple[str, ...]], ...]
    subject: tuple[str, ...]
    run: tuple[str, ...]
    display: tuple[str, ...]
    accountable: tuple[tuple[str, str], ...]
    unknown_trigger: tuple[tuple[str, tuple[str, ...]], ...]
    keep: tuple[str, ...]
    ignore: tuple[str, ...]
    teams: tuple[TeamRule, ...]
    max_lifetime_s: int
    max_age_s: int = 0
    client_id: str = ""
