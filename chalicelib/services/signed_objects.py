"""Checks the objects that the service signs one by one and that no row names: sign-offs and statements of copies.

A digest counts whatever lies in their place, and its hash says nothing of who put it: so who can write the bucket, and
has no key, could add a review that nobody signed. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from chalicelib.domain.copy_statement import COPIES, COPY_SIGNATURE_TYPE, copy_key, parse_statement
from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.signoff import SIGNOFFS
from chalicelib.domain.store import Keys
from chalicelib.services.reviewed import Finding, FindingKind
from chalicelib.services.signatures import signature_finding
from chalicelib.services.signoffs import read_signoff


def signed_object_findings(met: Iterable[str], objects: ReadObjects, keys: Keys) -> Iterator[Finding]:
    """Give what does not hold of the sign-offs and statements among ``met``, keys of objects. What is not there is left
    to whoever lists it. Raises StoreUnavailable."""
    for key in sorted(met):
        found: Finding | None = None
        if key.startswith(SIGNOFFS):
            signoff = read_signoff(objects, keys, key)
            found = signoff if isinstance(signoff, Finding) and signoff.kind is not FindingKind.MISSING else None
        elif key.startswith(COPIES):
            found = _statement(key, objects, keys)
        if found is not None:
            yield found


def _statement(key: str, objects: ReadObjects, keys: Keys) -> Finding | None:
    try:
        stated = parse_statement(objects.get(key))
    except NotFound:
        return None
    except ProofInvalid as error:
        return Finding(key=key, kind=FindingKind.ALTERED, what=error.public)
    if copy_key(stated.id, stated.stated_at) != key:
        return Finding(key=key, kind=FindingKind.SWAPPED, what=f"is the statement {stated.id}, and not in its place")
    return signature_finding(key, keys, KeyPurpose.COPY, COPY_SIGNATURE_TYPE, stated.signature, stated.digest())
