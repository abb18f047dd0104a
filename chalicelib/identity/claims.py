"""Where a claim is in a token: the names of a declaration, looked up in one way.

A name is the way to a claim: the members' names from the outside in, with ``/`` between them. Inside a member's own
name ``/`` is written ``~1`` and ``~`` is written ``~0`` (RFC 6901 section 3, without its first slash). So
``repository_id`` is a claim of the token, ``kubernetes.io/serviceaccount/uid`` one three levels in, and
``oidc.circleci.com~1org-id`` a claim whose own name has a slash. Dots mean nothing. Lists are not entered.

Rule: one name leads to one place. A lookup that tried the whole name first, and then its parts, would let an issuer's
tenant who can add a claim put one in front of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

SEPARATOR: Final = "/"


def claim_at(claims: Mapping[str, object], name: str) -> object:
    """Return the value that ``name`` leads to, or None where there is none. Pure."""
    found: object = claims
    for part in name.split(SEPARATOR):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


def unknown_claims(claims: Mapping[str, object], known: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the claims that are not among ``known``, sorted. An object is looked into where ``known`` has
    a claim inside it, and is one claim otherwise. Pure."""
    return tuple(sorted(_unknown(claims, frozenset(known), "")))


def _unknown(claims: Mapping[str, object], known: frozenset[str], way: str) -> Iterator[str]:
    for member, value in claims.items():
        name = way + member.replace("~", "~0").replace("/", "~1")
        inside = name + SEPARATOR
        if name in known:
            continue
        if isinstance(value, Mapping) and any(other.startswith(inside) for other in known):
            yield from _unknown(value, known, inside)
        else:
            yield name
