"""Reads sign-offs back: those that were made of one population, each with its signature checked.

A sign-off of another digest is of another population, and is not shown as this one's; one that does not verify is a
finding. Writes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from chalicelib.domain.canonical import canonical
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.identifiers import PersonId, SignoffId
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.signoff import (
    SIGNOFF_SIGNATURE_TYPE,
    SIGNOFFS,
    Period,
    Ruling,
    Selection,
    Signoff,
    signoff_key,
)
from chalicelib.domain.store import Keys
from chalicelib.services.population import Population
from chalicelib.services.reviewed import Finding, FindingKind
from chalicelib.services.signatures import signature_finding


def signoffs_of(
    objects: ReadObjects, keys: Keys, population: Population, now: datetime
) -> tuple[tuple[Signoff, ...], tuple[Finding, ...]]:
    """Return the sign-offs of this very population, oldest first, and what is wrong with any that was put since its
    period ended. Raises StoreUnavailable."""
    signed: list[Signoff] = []
    faults: list[Finding] = []
    if now <= population.period.until:
        return (), ()
    for day in Period(since=population.period.until, until=now + timedelta(milliseconds=1)).days():
        for key in objects.keys(f"{SIGNOFFS}{day.isoformat()}/"):
            found = read_signoff(objects, keys, key)
            if isinstance(found, Finding):
                faults.append(found)
            elif found.population_sha256 == population.sha256:
                signed.append(found)
    return tuple(sorted(signed, key=lambda one: (one.signed_at, one.id))), tuple(faults)


def signoff_of(stored: bytes) -> Signoff:
    """Return the sign-off that an object holds. Raises ProofInvalid where it is not one, byte for byte. Pure."""
    try:
        said: Mapping[str, Any] = json.loads(stored)
        found = Signoff(
            id=SignoffId(said["id"]),
            reviewer=PersonId(said["reviewer"]),
            reviewer_identity=said["reviewer_identity"],
            hop=said["hop"],
            period=Period(since=datetime.fromisoformat(said["since"]), until=datetime.fromisoformat(said["until"])),
            selection=Selection(target=said["target"], pipeline=said["pipeline"]),
            population_sha256=said["population_sha256"],
            sessions=said["sessions"],
            unknown_triggers=said["unknown_triggers"],
            rulings=tuple(
                Ruling(identity=identity, name=name, keep=word == "keep") for identity, name, word in said["rulings"]
            ),
            note=said["note"],
            signed_at=datetime.fromisoformat(said["signed_at"]),
            signature=said["signature"],
        )
        same = canonical({**found.signed(), "signature": found.signature}) == stored
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ProofInvalid("is no sign-off") from error
    if not same:
        raise ProofInvalid("is not what the service wrote")
    return found


def read_signoff(objects: ReadObjects, keys: Keys, key: str) -> Signoff | Finding:
    """Return the sign-off at ``key``, or what is wrong with it. Raises StoreUnavailable."""
    try:
        found = signoff_of(objects.get(key))
    except NotFound:
        return Finding(key=key, kind=FindingKind.MISSING, what="is missing")
    except ProofInvalid as error:
        return Finding(key=key, kind=FindingKind.ALTERED, what=error.public)
    if signoff_key(found.id, found.signed_at) != key:
        return Finding(key=key, kind=FindingKind.SWAPPED, what=f"is the sign-off {found.id}, and not where it belongs")
    fault = signature_finding(key, keys, KeyPurpose.SIGNOFF, SIGNOFF_SIGNATURE_TYPE, found.signature, found.sha256())
    return found if fault is None else fault
