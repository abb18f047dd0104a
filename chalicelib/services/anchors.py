"""Trust anchors: the fingerprints of our keys that an auditor got before, from outside the evidence.

Why: whoever can replace a whole archive can replace the keys in it, sign everything anew, and every signature verifies.
So keys that came with the evidence prove nothing by themselves; a list of their fingerprints, written when the auditor
was taken on and kept where the archive's keepers cannot write, does. The file is text, so that two people can compare
it over a telephone: a line a key, its purpose and its RFC 7638 thumbprint (SHA-256, base64url). Source: RFC 7638
section 3. Pure but for the keys that are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import KeyProofInvalid, NotFound
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Keys
from chalicelib.identity.dpop import thumbprint
from chalicelib.services.reviewed import Finding, FindingKind

# Those that sign what an evidence folder holds, and the one that says which configuration was active.
EVIDENCE_PURPOSES: Final = (
    KeyPurpose.TOKEN,
    KeyPurpose.ANSWER,
    KeyPurpose.RECORD,
    KeyPurpose.SWEEP,
    KeyPurpose.SIGNOFF,
    KeyPurpose.ACTIVATION,
    KeyPurpose.DIGEST,
    KeyPurpose.COPY,
)


class Anchors(Protocol):
    """What an auditor trusts, however it is kept."""

    def holds(self, purpose: str, thumbprint: str) -> bool:
        """Return whether the key with this thumbprint may sign for ``purpose``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownKeys:
    """Implements ``Keys`` with what others gave once, by purpose: for a review of thousands of signatures, and to be
    sent to another process. A purpose that had no key has none."""

    by_purpose: Mapping[str, Mapping[str, Mapping[str, str]]]

    def public_keys(self, purpose: str) -> Mapping[str, Mapping[str, str]]:
        return self.by_purpose.get(purpose, {})


def known_keys(keys: Keys) -> KnownKeys:
    """Return the keys of every purpose of evidence, as they are now. Raises StoreUnavailable."""
    found: dict[str, Mapping[str, Mapping[str, str]]] = {}
    for purpose in EVIDENCE_PURPOSES:
        with suppress(NotFound):  # not every deployment has every key: what nobody can have signed does not verify
            found[purpose.value] = {kid: dict(jwk) for kid, jwk in keys.public_keys(purpose.value).items()}
    return KnownKeys(by_purpose=found)


class AnchoredKeys:
    """Implements ``Keys`` with those of ``keys`` that ``anchors`` list: what another key signed does not verify."""

    def __init__(self, keys: Keys, anchors: Anchors) -> None:
        self._keys = keys
        self._anchors = anchors
        self._seen: dict[str, tuple[Mapping[str, Mapping[str, str]], Mapping[str, Mapping[str, str]]]] = {}

    def public_keys(self, purpose: str) -> Mapping[str, Mapping[str, str]]:
        known = self._keys.public_keys(purpose)
        before, listed = self._seen.get(purpose, ({}, {}))
        if before != known:  # a review asks once a signature: thumbprints are made once a key
            listed = {kid: jwk for kid, jwk in known.items() if self._anchors.holds(purpose, key_thumbprint(jwk))}
            self._seen[purpose] = known, listed
        return listed


def key_thumbprint(jwk: Mapping[str, str]) -> str:
    """Return a key's thumbprint, 43 characters; empty where it is no public P-256 key. Pure."""
    try:
        return thumbprint(jwk)
    except KeyProofInvalid:
        return ""


def unlisted_keys(keys: Keys, anchors: Anchors) -> tuple[Finding, ...]:
    """Return a finding for each key of the evidence that the anchors do not list."""
    return tuple(
        Finding(
            key=f"keys/{purpose.value}.json",
            kind=FindingKind.OTHER_KEY,
            what=f"holds a key that is not trusted: {found}",
        )
        for purpose in EVIDENCE_PURPOSES
        for jwk in keys.public_keys(purpose.value).values()
        if not anchors.holds(purpose.value, found := key_thumbprint(jwk) or "not a P-256 key")
    )


def fingerprints(keys: Keys) -> Mapping[str, tuple[str, ...]]:
    """Return purpose to the thumbprints of its keys now. Raises NotFound, StoreUnavailable."""
    return {
        purpose.value: tuple(sorted(key_thumbprint(jwk) for jwk in keys.public_keys(purpose.value).values()))
        for purpose in EVIDENCE_PURPOSES
    }


def trust_text(found: Mapping[str, tuple[str, ...]], at: datetime) -> str:
    """Return a trust file's text (``countersign/trust.py`` reads it). Pure."""
    lines = [
        f"# Fingerprints of Countersign's signing keys (RFC 7638, SHA-256), read at {timestamp(at)}.",
        "# Keep this where nobody who keeps the evidence can write. A new key is a new line; take none away.",
    ]
    lines += [f"{purpose:<12}{thumbprint}" for purpose, thumbprints in found.items() for thumbprint in thumbprints]
    return "\n".join(lines) + "\n"
