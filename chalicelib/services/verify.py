"""Verifies the evidence of a session or a chain, and says what was checked and under whose keys.

Everything that a review checks is checked (``services.review``), with nothing but public keys: signatures, links,
narrowness, digests, approvals and their uses, manifests, segments, frames, and rows against what is signed. On top of
that stands the question that a review leaves open, who vouches for the keys: AWS (they were read from KMS), a file of
fingerprints that the auditor holds, or nobody (UNANCHORED: never a success).

Around it stands what no signature of its own covers: whether hourly digests counted it, whether its brokers' counts
hold, and of a copy who made it (``services.around``).

What it does not do: read files or AWS by itself (its stores do); prove that nothing was removed *whole*: a session with
its hops and rows leaves nothing here that names it. ``services.verify_all`` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import NotFound, RowUnreadable
from chalicelib.domain.identifiers import Txn
from chalicelib.domain.reading import EvidenceStores
from chalicelib.domain.store import Keys
from chalicelib.services.anchors import AnchoredKeys, Anchors, unlisted_keys
from chalicelib.services.around import Around, LookedAround
from chalicelib.services.kept_check import kept_findings
from chalicelib.services.key_history import HistoryKeys, IntroducedAnchors, read_history, unintroduced_keys
from chalicelib.services.review import Review
from chalicelib.services.reviewed import AccessReview, Finding, FindingKind, unreadable


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
    tokens_kept: int = 0
    tokens_opened: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """``subject`` is a session's id or a txn. ``complete`` as in :class:`EvidenceSource`. ``holds``: there is no
    finding, and somebody vouches for the keys and for that this is all."""

    subject: str
    anchor: Anchor
    checked: Checked
    findings: tuple[Finding, ...]
    around: LookedAround | None = None
    complete: bool = True

    @property
    def holds(self) -> bool:
        return not self.findings and self.anchor is not Anchor.NOBODY and self.complete

    def as_json(self) -> Mapping[str, Json]:
        """Return it as JSON values. Pure."""
        return {
            "subject": self.subject,
            "verified": self.holds,
            "anchored_by": self.anchor.value,
            "complete": self.complete,
            "checked": {field.name: getattr(self.checked, field.name) for field in fields(self.checked)},
            "findings": [{"key": one.key, "kind": one.kind.value, "what": one.what} for one in self.findings],
            **({} if self.around is None else {"around": self.around.as_json()}),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceSource:
    """The stores to verify in, what is wrong with them already (a copy's files), and who vouches for their keys where
    no file of fingerprints does. ``opened`` are the issuers' proofs that a copy holds in the clear, by txn;
    ``around`` is where to look besides, None where there is nothing. ``complete``: something outside the evidence says
    that this is all of it (our tables, the service's statement over a copy, a copy's hash that somebody kept)."""

    stores: EvidenceStores
    faults: Sequence[Finding] = ()
    opened: Mapping[str, bytes] = field(default_factory=dict)
    around: Around | None = None
    anchor: Anchor = Anchor.NOBODY
    complete: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class TrustedKeys:
    """The keys that may have signed, who vouches for them, and a finding for each that the evidence holds besides."""

    keys: Keys
    anchor: Anchor
    findings: tuple[Finding, ...]


def trusted_keys(evidence: EvidenceSource, anchors: Anchors | None) -> TrustedKeys:
    """Return the keys of ``evidence`` that ``anchors`` list, and those that their history connects with one of them;
    all of them where nobody gave any. Raises StoreUnavailable."""
    history = read_history(evidence.stores.objects)
    keys: Keys = HistoryKeys(evidence.stores.keys, history)
    if anchors is None:
        found = (*history.findings, *unintroduced_keys(evidence.stores.keys, history))
        return TrustedKeys(keys=keys, anchor=evidence.anchor, findings=found)
    introduced = IntroducedAnchors(anchors, history)
    found = (*history.findings, *unlisted_keys(keys, introduced))
    return TrustedKeys(keys=AnchoredKeys(keys, introduced), anchor=Anchor.FILE, findings=found)


def verify(
    subject: str,
    evidence: EvidenceSource,
    anchors: Anchors | None,
    clock: Clock,
    trusted: TrustedKeys | None = None,
) -> Verification:
    """Return what the evidence of ``subject`` shows. ``trusted`` is what :func:`trusted_keys` returned, where it was
    asked before. Idempotent, writes nothing.

    Raises StoreUnavailable; everything that is wrong with the evidence is a finding, a missing subject too.
    """
    trusted = trusted if trusted is not None else trusted_keys(evidence, anchors)
    found = list(trusted.findings)
    checked = Checked()
    around: LookedAround | None = None
    try:
        review = Review(stores=evidence.stores, people=(), clock=clock, keys=trusted.keys)(subject)
    except RowUnreadable as error:
        found.append(unreadable(subject, error))
    except NotFound as error:
        found.append(Finding(key=subject, kind=FindingKind.MISSING, what=f"is missing: {error.public}"))
    else:
        found += review.findings
        roots = _roots(evidence.stores, review)
        found += kept_findings(roots, evidence.stores.objects, evidence.opened)
        checked = replace(
            _checked(review),
            tokens_kept=sum(hop.evidence.kept_sha256 != "" for hop in roots),
            tokens_opened=sum(hop.txn in evidence.opened for hop in roots),
        )
        if evidence.around is not None:
            around = evidence.around.look(review, trusted.keys, clock.now())
            found += around.findings
    named = {finding.key for finding in found}
    # What the evidence itself shows of a thing says more than that its file is not the one that was copied.
    found += [fault for fault in evidence.faults if fault.key not in named]
    findings = tuple(dict.fromkeys(found))
    return Verification(
        subject=subject,
        anchor=trusted.anchor,
        checked=checked,
        findings=findings,
        around=around,
        complete=evidence.complete,
    )


def _roots(stores: EvidenceStores, review: AccessReview) -> list[Hop]:
    hops = stores.chains.hops(Txn(review.txn))
    return [hop for hop in hops.values() if hop.kind is HopKind.ORIGIN]


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
