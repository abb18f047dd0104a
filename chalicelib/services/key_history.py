"""The history of signing keys, read and checked: which keys follow from which.

Rules: of each purpose the entries are numbered without holes from 1, each is signed by its own key and, after the
first, by the key before, and names the hash of the entry before. What follows an entry that does not hold is not
believed, and is a finding. A key is *connected* to another of its purpose where both are in that unbroken line: who
trusts one trusts the other, since the earlier introduced the later, and the later names the entry of the earlier. A key
that is in no history stands for itself alone. Reads objects; writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chalicelib.domain.errors import NotFound, ProofInvalid
from chalicelib.domain.key_history import (
    KEY_SIGNATURE_TYPE,
    KEYS,
    PURPOSES,
    KeyEntry,
    entry_key,
    entry_place,
    read_entry,
)
from chalicelib.domain.reading import ReadObjects
from chalicelib.domain.signature import KeyPurpose, signed_payload
from chalicelib.domain.store import Keys
from chalicelib.identity.compact import Malformed, verified_payload
from chalicelib.services.anchors import Anchors, key_thumbprint
from chalicelib.services.reviewed import Finding, FindingKind


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyHistory:
    """The entries that hold, by purpose, in order, and what is wrong with the others."""

    entries: Mapping[str, tuple[KeyEntry, ...]]
    findings: tuple[Finding, ...]

    def of(self, purpose: str) -> tuple[KeyEntry, ...]:
        return self.entries.get(purpose, ())

    def connected(self, purpose: str, key: str) -> frozenset[str]:
        """Return the thumbprints of the keys that stand and fall with the one of thumbprint ``key``, itself
        included."""
        line = frozenset(entry_thumbprint(entry) for entry in self.of(purpose))
        return line if key in line else frozenset({key})


class HistoryKeys:
    """Implements ``Keys``: those of ``keys``, and those that are connected to one of them by their history. So what an
    earlier key signed verifies where a store knows the one of now alone."""

    def __init__(self, keys: Keys, history: KeyHistory) -> None:
        self._keys = keys
        self._history = history

    def public_keys(self, purpose: str) -> Mapping[str, Mapping[str, str]]:
        known = dict(self._keys.public_keys(purpose))
        entries = self._history.of(purpose)
        prints = {entry_thumbprint(entry) for entry in entries}
        if any(key_thumbprint(jwk) in prints for jwk in known.values()):
            known |= {entry.jwk["kid"]: entry.jwk for entry in entries if entry.jwk["kid"] not in known}
        return known


class IntroducedAnchors:
    """Implements ``Anchors``: the keys that ``anchors`` list, and those that their history connects with one of
    them."""

    def __init__(self, anchors: Anchors, history: KeyHistory) -> None:
        self._anchors = anchors
        self._history = history

    def holds(self, purpose: str, thumbprint: str) -> bool:
        return any(self._anchors.holds(purpose, one) for one in self._history.connected(purpose, thumbprint) if one)


def unintroduced_keys(keys: Keys, history: KeyHistory) -> tuple[Finding, ...]:
    """Return a finding for each key of a purpose that has a history in which it is not. Raises StoreUnavailable."""
    return tuple(
        Finding(
            key=f"{KEYS}/{purpose}",
            kind=FindingKind.OTHER_KEY,
            what=f"does not have a key that signs: {key_thumbprint(jwk)}",
        )
        for purpose, entries in history.entries.items()
        if entries
        for jwk in keys.public_keys(purpose).values()
        if key_thumbprint(jwk) not in {entry_thumbprint(entry) for entry in entries}
    )


def read_history(objects: ReadObjects) -> KeyHistory:
    """Return the history of every purpose. Raises StoreUnavailable."""
    held: dict[str, tuple[KeyEntry, ...]] = {}
    keys = sorted(objects.keys(f"{KEYS}/"))
    found = [
        Finding(key=key, kind=FindingKind.EXTRA, what="is no place of a key's history")
        for key in keys
        if entry_place(key) is None
    ]
    for purpose in PURPOSES:
        numbers = sorted(place[1] for key in keys if (place := entry_place(key)) is not None and place[0] is purpose)
        held[purpose.value] = _line(purpose, numbers, objects, found)
    return KeyHistory(entries=held, findings=tuple(found))


def _line(
    purpose: KeyPurpose, numbers: Sequence[int], objects: ReadObjects, found: list[Finding]
) -> tuple[KeyEntry, ...]:
    line: list[KeyEntry] = []
    for number in range(1, max(numbers, default=0) + 1):
        key = entry_key(purpose, number)
        try:
            entry = read_entry(objects.get(key))
            fault = _fault(entry, purpose, number, line[-1] if line else None)
        except NotFound:
            found.append(Finding(key=key, kind=FindingKind.MISSING, what="is missing: a later key is there"))
            return tuple(line)
        except ProofInvalid as error:
            fault = (FindingKind.ALTERED, error.public)
        if fault is not None:
            found.append(Finding(key=key, kind=fault[0], what=fault[1]))
            return tuple(line)
        line.append(entry)
    return tuple(line)


def _fault(
    entry: KeyEntry, purpose: KeyPurpose, number: int, before: KeyEntry | None
) -> tuple[FindingKind, str] | None:
    if (entry.purpose, entry.number) != (purpose, number):
        return FindingKind.SWAPPED, "is another entry than its name says"
    if entry.previous_sha256 != (before.sha256() if before is not None else ""):
        return FindingKind.ALTERED, "names another entry before it"
    if not _holds(entry.signed_by_itself, entry, entry.jwk):
        return FindingKind.OTHER_KEY, "is not signed by the key that it introduces"
    if before is None:
        return (FindingKind.ALTERED, "is the first, and signed by one before it") if entry.signed_by_previous else None
    if not _holds(entry.signed_by_previous, entry, before.jwk):
        return FindingKind.OTHER_KEY, "is not signed by the key before it"
    return None


def _holds(signature: str, entry: KeyEntry, jwk: Mapping[str, str]) -> bool:
    try:
        payload = verified_payload(signature, KEY_SIGNATURE_TYPE, {jwk["kid"]: jwk})
    except Malformed:
        return False
    return payload == signed_payload(entry.sha256())


def entry_thumbprint(entry: KeyEntry) -> str:
    """Return the thumbprint of an entry's key; empty where it is no public P-256 key. Pure."""
    return key_thumbprint(entry.jwk)
