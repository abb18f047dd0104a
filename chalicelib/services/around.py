"""What stands around the evidence of a session or chain, checked: what its own signatures and hashes cannot say.

In a copy: that this service stated it (``domain.copy_statement``), that hourly digests counted every row, that the ends
of its brokers' boots fit, under which configuration it was decided, and that its events tell what its recordings hold.
Online: the digests of its hours by name, and the whole count of each broker boot that it went through. Everything that
does not hold is a finding by its key. Pure but for the stores that are given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from chalicelib.domain.activation import Activation
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.connection import BOOTS, ConnectionRow
from chalicelib.domain.copy_statement import COPY_SIGNATURE_TYPE, CopyStatement, parse_statement
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import SessionId
from chalicelib.domain.reading import EvidenceStores, ReadObjects
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Beats, Keys
from chalicelib.identity.jws import verify_boot_end
from chalicelib.services.boots import RowsOfBoot, boot_end_of, boot_findings
from chalicelib.services.configurations import configuration_findings
from chalicelib.services.copied_rows import Row
from chalicelib.services.copy_around import INCLUSIONS, TOLD, serials_of
from chalicelib.services.digest_cover import Cover, included_cover, read_cover
from chalicelib.services.operations import json_object
from chalicelib.services.reviewed import AccessReview, Finding, FindingKind, ReviewedOperation
from chalicelib.services.signatures import signature_finding

MANIFEST: Final = "MANIFEST.json"
STATEMENT: Final = "STATEMENT.json"
_TELL: Final = frozenset({"operation.ran", "operation.refused"})


@dataclass(frozen=True, kw_only=True, slots=True)
class LookedAround:
    """What was looked at. ``statement`` is the one that holds; None online, and where none does. ``pending`` rows wait
    for a digest that is not due yet."""

    digests: int
    counted: int
    pending: int
    boots: int
    configurations: int
    events: int
    statement: CopyStatement | None
    findings: tuple[Finding, ...]

    def as_json(self) -> Mapping[str, Json]:
        """Return it as JSON values, without the findings. Pure."""
        said: dict[str, Json] = {
            "digests": self.digests,
            "rows_counted": self.counted,
            "rows_pending": self.pending,
            "boots": self.boots,
            "configurations": self.configurations,
            "events": self.events,
        }
        if self.statement is not None:
            said["statement"] = self.statement.signed()
        return said


class Around(Protocol):
    """Where a verification looks besides what it verifies."""

    def look(self, review: AccessReview, keys: Keys, now: datetime) -> LookedAround:
        """Raises StoreUnavailable."""
        ...


class LiveStores(EvidenceStores, Protocol):
    """A deployment's own, as far as this looks."""

    @property
    def beats(self) -> Beats: ...


class DeploymentAround:
    """Implements ``Around`` online. ``boots`` gives a boot's connection rows: the connections table."""

    def __init__(self, stores: LiveStores, boots: RowsOfBoot) -> None:
        self._stores = stores
        self._boots = boots

    def look(self, review: AccessReview, keys: Keys, now: datetime) -> LookedAround:
        ids = [SessionId(session.id) for session in review.sessions]
        connections = [row for one in ids for row in self._stores.connections.of_session(one)]
        rows: list[Row] = [*self._stores.sessions.get_many(ids), *connections]
        cover = read_cover(self._stores.objects, keys, rows, now)
        boots = sorted({row.boot for row in connections})
        found = [
            finding
            for boot in boots
            for finding in boot_findings(
                self._boots, self._stores.objects, keys, boot, beats=self._stores.beats, now=now
            )
            if finding.kind is not FindingKind.UNSEALED  # a broker that died has no last word; its rows are digested
        ]
        return _looked(cover, boots=len(boots), configurations=0, events=0, statement=None, findings=found)


@dataclass(frozen=True, kw_only=True, slots=True)
class CopiedAround:
    """Implements ``Around`` with what a copy holds. ``files`` and ``bytes`` are those that its list names, ``sha256``
    the list's own hash; a file that is not there is None."""

    subject: str
    made_at: str
    sha256: str
    files: int
    size: int
    rows: Sequence[Row]
    activations: Sequence[Activation]
    objects: ReadObjects
    inclusions: bytes | None
    events: bytes | None
    statement: bytes | None

    def look(self, review: AccessReview, keys: Keys, now: datetime) -> LookedAround:
        findings: list[Finding] = []
        statement = self._statement(keys, findings)
        # Whoever made the copy says when: no digest is due later than now.
        made = min(now, statement.stated_at if statement is not None else _moment(self.made_at, now))
        cover = included_cover(self.objects, keys, self.rows, self.inclusions or b"", made, INCLUSIONS)
        boots = list(self._boots(keys, findings))
        findings += self._configurations(review, keys)
        if self.events is None:
            what = "is missing: every whole copy has it, with what was told of it"
            findings.append(Finding(key=TOLD, kind=FindingKind.MISSING, what=what))
        told = list(_told(self.events or b"", findings))
        findings += _events(told, review)
        return _looked(
            cover,
            boots=len(boots),
            configurations=len(self.activations),
            events=len(told),
            statement=statement,
            findings=findings,
        )

    def _statement(self, keys: Keys, findings: list[Finding]) -> CopyStatement | None:
        """Return the statement where it holds and is of this copy."""
        if self.statement is None:
            what = "is missing: nothing shows who made this copy, nor that nothing was left out of it since"
            findings.append(Finding(key=STATEMENT, kind=FindingKind.MISSING, what=what))
            return None
        try:
            found = parse_statement(self.statement)
        except ProofInvalid as error:
            findings.append(Finding(key=STATEMENT, kind=FindingKind.ALTERED, what=error.public))
            return None
        fault = signature_finding(
            STATEMENT, keys, KeyPurpose.COPY, COPY_SIGNATURE_TYPE, found.signature, found.digest()
        )
        if fault is not None:
            findings.append(fault)
            return None
        if found.subject != self.subject:
            what = f"is of a copy of {found.subject}"
            findings.append(Finding(key=STATEMENT, kind=FindingKind.SWAPPED, what=what))
            return None
        if (found.sha256, found.files, found.bytes) != (self.sha256, self.files, self.size):
            what = f"is not the list of files that {found.id} states: files were changed, added or left out since"
            findings.append(Finding(key=MANIFEST, kind=FindingKind.REPLACED, what=what))
            return None
        return found

    def _boots(self, keys: Keys, findings: list[Finding]) -> Iterator[str]:
        """Give the boots whose end the copy holds, and check each against the rows that it holds of it."""
        last: dict[str, ConnectionRow] = {}
        for row in self.rows:
            if isinstance(row, ConnectionRow) and (row.boot not in last or last[row.boot].number < row.number):
                last[row.boot] = row
        for key in self.objects.keys(BOOTS):
            try:
                end = boot_end_of(self.objects.get(key))
                verify_boot_end(end, keys)
            except ProofInvalid as error:
                findings.append(Finding(key=key, kind=FindingKind.ALTERED, what=error.public))
                continue
            known = last.get(end.boot)
            if known is None or not key.endswith(f"/{end.boot}.json"):
                what = f"is the end of {end.boot}, which has no connection here"
                findings.append(Finding(key=key, kind=FindingKind.SWAPPED, what=what))
                continue
            yield end.boot
            if known.number > end.last:
                what = f"has number {known.number} of {end.boot}, whose signed end counts {end.last}"
                findings.append(Finding(key=known.id, kind=FindingKind.EXTRA, what=what))
            elif known.number == end.last and known.sha256() != end.last_sha256:
                what = f"is not the last row that the signed end of {end.boot} names"
                findings.append(Finding(key=known.id, kind=FindingKind.ALTERED, what=what))

    def _configurations(self, review: AccessReview, keys: Keys) -> Iterator[Finding]:
        held = {activation.serial: activation for activation in self.activations}
        for serial in sorted(serials_of(self.rows, review) - set(held)):
            what = "is missing: something was decided under it"
            yield Finding(key=f"activations/{serial:08d}.json", kind=FindingKind.MISSING, what=what)
        for activation in self.activations:
            yield from configuration_findings(activation, self.objects, keys)


def _looked(
    cover: Cover,
    *,
    boots: int,
    configurations: int,
    events: int,
    statement: CopyStatement | None,
    findings: Sequence[Finding],
) -> LookedAround:
    return LookedAround(
        digests=cover.digests,
        counted=cover.counted,
        pending=cover.pending,
        boots=boots,
        configurations=configurations,
        events=events,
        statement=statement,
        findings=tuple(dict.fromkeys((*findings, *cover.findings))),
    )


def _moment(text: str, otherwise: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return found if found.tzinfo is not None else otherwise


def _told(stored: bytes, findings: list[Finding]) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(stored.splitlines(), 1):
        told = json_object(line)
        if told is None:
            what = f"holds no event in line {number}"
            findings.append(Finding(key=TOLD, kind=FindingKind.ALTERED, what=what))
        else:
            yield told


def _events(told: Sequence[Mapping[str, Any]], review: AccessReview) -> Iterator[Finding]:
    """Compare what events tell of operations with the recordings, from which they were made. Where frames were lost an
    event may be all that is left of an operation."""
    recorded: dict[tuple[str, str], ReviewedOperation] = {}
    for session in review.sessions:
        recorded |= {(one.connection_id, one.id): one for one in session.operations}
    recordings = [one for session in review.sessions for one in session.recordings]
    whole = {one.connection_id for one in recordings if one.verified and not one.gaps}
    for event in told:
        if event.get("txn") != review.txn:
            yield Finding(key=f"{TOLD} {event.get('uid')}", kind=FindingKind.SWAPPED, what="tells of another chain")
        if event.get("name") not in _TELL:
            continue
        connection, operation = str(event.get("connection_id", "")), str(event.get("operation_id", ""))
        found = recorded.get((connection, operation))
        if found is None and connection in whole:
            what = f"is told by an event, and is in no recording of {connection}"
            yield Finding(key=operation, kind=FindingKind.EXTRA, what=what)
        elif found is not None and not _tells(event, found):
            what = f"is told otherwise by its event ({event.get('verdict')}) than by its recording ({found.verdict})"
            yield Finding(key=operation, kind=FindingKind.ALTERED, what=what)


def _tells(event: Mapping[str, Any], found: ReviewedOperation) -> bool:
    """Say whether an event tells of the operation what its recording does. What was held and never decided is told as
    blocked; an operation that was let through and refused before it was sent is too."""
    ran = event.get("name") == "operation.ran"
    if not ran:
        return found.verdict in ("block", "hold") or found.status == "refused"
    return event.get("verdict") == found.verdict and list(event.get("rules", ())) in ([], list(found.rules))


def stated(statement: CopyStatement) -> str:
    """Return who says so, for people. Pure."""
    return f"copied by {statement.copied_by} at {timestamp(statement.stated_at)} ({statement.id})"
