"""Verifies the evidence of a session or a chain, and says what was checked and under whose keys.

Everything that a review checks is checked (``services.review``), with nothing but public keys: signatures, links,
narrowness, digests, approvals and their uses, manifests, segments, frames, and rows against what is signed. On top of
that stands the question that a review leaves open, who vouches for the keys: AWS (they were read from KMS), a file of
fingerprints that the auditor holds, or nobody (UNANCHORED: never a success).

What it does not do: read files or AWS by itself (its stores do); prove that nothing was removed *whole*: a session with
its hops and rows leaves nothing here that names it. That takes the hourly digests, which are not built yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum

from chalicelib.domain.canonical import Json
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import NotFound
from chalicelib.domain.reading import EvidenceStores
from chalicelib.domain.store import Keys
from chalicelib.services.anchors import AnchoredKeys, Anchors, unlisted_keys
from chalicelib.services.review import Review
from chalicelib.services.reviewed import AccessReview, Finding, FindingKind


class Anchor(StrEnum):
    """Who vouches for the keys."""

    AWS = "aws"  # read from KMS just now
    FILE = "file"  # each has its fingerprint in the auditor's own file
    NOBODY = "nobody"  # they came with the evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """How much was looked at."""

    hops: int = 0
    sessions: int = 0
    connections: int = 0
    operations: int = 0
    asks: int = 0
    answers: int = 0
    manifests: int = 0
    segments: int = 0
    frames: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """``subject`` is a session's id or a txn. ``holds``: there is no finding, and somebody vouches for the keys."""

    subject: str
    anchor: Anchor
    checked: Checked
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        return not self.findings and self.anchor is not Anchor.NOBODY

    def as_json(self) -> Mapping[str, Json]:
        """Return it as JSON values. Pure."""
        return {
            "subject": self.subject,
            "verified": self.holds,
            "anchored_by": self.anchor.value,
            "checked": {field.name: getattr(self.checked, field.name) for field in fields(self.checked)},
            "findings": [{"key": one.key, "kind": one.kind.value, "what": one.what} for one in self.findings],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceSource:
    """The stores to verify in, what is wrong with them already (a copy's files), and who vouches for their keys where
    no file of fingerprints does."""

    stores: EvidenceStores
    faults: Sequence[Finding] = ()
    anchor: Anchor = Anchor.NOBODY


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustedKeys:
    """The keys that may have signed, who vouches for them, and a finding for each that the evidence holds besides."""

    keys: Keys
    anchor: Anchor
    findings: tuple[Finding, ...]


def trusted_keys(evidence: EvidenceSource, anchors: Anchors | None) -> TrustedKeys:
    """Return the keys of ``evidence`` that ``anchors`` list; all of them where nobody gave any."""
    keys: Keys = evidence.stores.keys
    if anchors is None:
        return TrustedKeys(keys=keys, anchor=evidence.anchor, findings=())
    return TrustedKeys(keys=AnchoredKeys(keys, anchors), anchor=Anchor.FILE, findings=unlisted_keys(keys, anchors))


def verify(subject: str, evidence: EvidenceSource, anchors: Anchors | None, clock: Clock) -> Verification:
    """Return what the evidence of ``subject`` shows. Idempotent, writes nothing.

    Raises StoreUnavailable; everything that is wrong with the evidence is a finding, a missing subject too.
    """
    trusted = trusted_keys(evidence, anchors)
    found = list(trusted.findings)
    checked = Checked()
    try:
        review = Review(stores=evidence.stores, people=(), clock=clock, keys=trusted.keys)(subject)
    except NotFound as error:
        found.append(Finding(key=subject, kind=FindingKind.MISSING, what=f"is missing: {error.public}"))
    else:
        found += review.findings
        checked = _checked(review)
    named = {finding.key for finding in found}
    # What the evidence itself shows of a thing says more than that its file is not the one that was copied.
    found += [fault for fault in evidence.faults if fault.key not in named]
    return Verification(subject=subject, anchor=trusted.anchor, checked=checked, findings=tuple(dict.fromkeys(found)))


def _checked(review: AccessReview) -> Checked:
    recordings = [recording for session in review.sessions for recording in session.recordings]
    operations = [operation for session in review.sessions for operation in session.operations]
    approvals = [one for session in review.sessions for one in session.approvals]
    approvals += [one for operation in operations for one in operation.approvals]
    return Checked(
        hops=len(review.hops),
        sessions=len(review.sessions),
        connections=len(recordings),
        operations=len(operations),
        asks=len({approval.ask_id for approval in approvals}),
        answers=len(approvals),
        manifests=sum(recording.manifest_key != "" for recording in recordings),
        segments=sum(recording.segments for recording in recordings),
        frames=sum(recording.frames for recording in recordings),
    )
