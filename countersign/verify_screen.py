"""A verification as lines: the answer, what was checked, who vouches for the keys, and each finding by name.

Rules: every name and sentence in it may be of somebody who tampered, so all of it passes ``printable``; a finding's
name is never cut, since the next thing that an auditor does is to look there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from chalicelib.domain.canonical import timestamp
from countersign.printable import counted, moment, safe_line

if TYPE_CHECKING:
    from chalicelib.services.around import LookedAround
    from chalicelib.services.reviewed import Finding
    from chalicelib.services.verify import Checked, Verification
    from chalicelib.services.verify_all import ArchiveVerification

Paint = Callable[..., str]

_KEYS = {
    "aws": "read from AWS KMS just now: AWS vouches for them",
    "file": "each has its fingerprint in your file",
    "nobody": "they came with the copy, and nothing outside it vouches for them",
}


def screen(verification: Verification, copy: str, paint: Paint) -> Iterator[str]:
    """Give the lines. ``copy`` describes the folder that was verified; empty for the deployment itself."""
    yield f"{_answer(verification, paint)}  {safe_line(verification.subject)}"
    if copy:
        yield paint(safe_line(copy), "dim")
    done = verification.checked
    yield from _chain_lines(done)
    if verification.around is not None:
        yield from _around_lines(verification.around, paint)
    yield f"  keys: {_KEYS[verification.anchor.value]}"
    if not verification.complete:
        yield paint("  nothing shows that this is all: of a plain copy only its own hash says so", "yellow")
    yield from _findings(verification.findings, paint)


def archive_screen(found: ArchiveVerification, *, copied: bool, paint: Paint) -> Iterator[str]:
    """Give the lines of a verification of everything. ``copied``: the digests were compared with a second bucket."""
    yield f"{_answer(found, paint)}  everything since {moment(safe_line(found.since))}"
    done = found.counted
    compared = "each with its copy in the second bucket" if copied else "no second bucket was compared"
    yield f"  {counted(done.digests, 'hourly digest')}: none missing, signatures, each names the one before; {compared}"
    changes = counted(done.changes, "change")
    yield f"  {counted(done.objects, 'object')} that they list, {changes} of rows: hashes, counts"
    if found.tables:
        yield f"  {counted(done.rows, 'row')} in the tables: each as it was archived"
    else:
        yield paint("  the live tables were not looked at: rows are those that the archive leaves", "yellow")
    yield f"  {counted(done.events, 'event')}: each process's numbers, without holes"
    yield f"  {counted(done.chains, 'chain')}, each verified whole:"
    yield from (f"  {line}" for line in _chain_lines(done.checked))
    yield f"  keys: {_KEYS[found.anchor.value]}"
    if found.head:
        yield f"  the last digest is {safe_line(found.head)}, SHA-256 {found.head_sha256}"
    for change in found.code:
        was, now = change.before[:12] or "nothing", change.after[:12] or "nothing"
        yield f"  code changed: {safe_line(change.name)} from {was} to {now}, by {change.digest}"
    if found.pending:
        yield paint(
            f"  newer than the last digest: {counted(found.pending, 'object')}, which the next one lists", "dim"
        )
    if found.open:
        yield paint(f"  still running: {counted(found.open, 'connection')}", "dim")
    yield from _findings(found.findings, paint)


def _around_lines(around: LookedAround, paint: Paint) -> Iterator[str]:
    if around.statement is not None:
        said = around.statement
        who, when = safe_line(said.copied_by), moment(timestamp(said.stated_at))
        yield f"  copied by {who} at {when}: the service signed that, over the copy's hash ({safe_line(said.id)})"
    digests, rows = counted(around.digests, "hourly digest"), counted(around.counted, "row")
    yield f"  {digests}: signatures, each names the one before; {rows} counted there"
    if around.pending:
        yield paint(f"  {counted(around.pending, 'row')} newer than the digests: not counted yet", "dim")
    if around.boots:
        yield f"  {counted(around.boots, 'broker boot')}: connection rows against its count"
    if around.configurations:
        yield f"  {counted(around.configurations, 'configuration')}: signatures, bundles against their digests"
    if around.events:
        yield f"  {counted(around.events, 'event')}: operations against their recordings"


def _chain_lines(done: Checked) -> Iterator[str]:
    yield f"  {counted(done.hops, 'hop')}: signatures, links, none with more than its parent"
    sessions = counted(done.sessions, "session")
    yield f"  {sessions}, {counted(done.connections, 'connection')}: rows against what is signed"
    answers, operations = counted(done.answers, "answer"), counted(done.operations, "operation")
    yield f"  {answers} to {counted(done.asks, 'ask')}, over {operations}: signatures, digests, single use"
    yield f"  {counted(done.manifests, 'manifest')}: signatures"
    if done.tokens_kept:
        opened = f"{done.tokens_opened} opened: the issuer's signature, the claims that the hop hashed"
        kept = counted(done.tokens_kept, "issuer's token")
        yield f"  {kept} kept, {opened if done.tokens_opened else 'sealed: whole'}"
    segments = counted(done.segments, "segment")
    yield f"  {segments}, {counted(done.frames, 'frame')}: hashes, links, numbers without holes"


def _findings(findings: Sequence[Finding], paint: Paint) -> Iterator[str]:
    if findings:
        yield ""
        yield paint(f"FINDINGS: {len(findings)}", "bold", "red")
        for finding in findings:
            yield f"  {paint(safe_line(finding.kind.value), 'red')}  {safe_line(str(finding))}"


def _answer(verification: Verification | ArchiveVerification, paint: Paint) -> str:
    if verification.findings:
        return paint("NOT VERIFIED", "red", "bold")
    if not verification.holds:
        return paint("UNANCHORED", "yellow", "bold")
    return paint("VERIFIED", "green", "bold")
