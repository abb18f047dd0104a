"""A verification as lines: the answer, what was checked, who vouches for the keys, and each finding by name.

Rules: every name and sentence in it may be of somebody who tampered, so all of it passes ``printable``; a finding's
name is never cut, since the next thing that an auditor does is to look there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from countersign.printable import counted, safe_line

if TYPE_CHECKING:
    from chalicelib.services.verify import Verification

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
    yield f"  {counted(done.hops, 'hop')}: signatures, links, none with more than its parent"
    sessions = counted(done.sessions, "session")
    yield f"  {sessions}, {counted(done.connections, 'connection')}: rows against what is signed"
    answers, operations = counted(done.answers, "answer"), counted(done.operations, "operation")
    yield f"  {answers} to {counted(done.asks, 'ask')}, over {operations}: signatures, digests, single use"
    yield f"  {counted(done.manifests, 'manifest')}: signatures"
    segments = counted(done.segments, "segment")
    yield f"  {segments}, {counted(done.frames, 'frame')}: hashes, links, numbers without holes"
    yield f"  keys: {_KEYS[verification.anchor.value]}"
    if verification.findings:
        yield ""
        yield paint(f"FINDINGS: {len(verification.findings)}", "bold", "red")
        for finding in verification.findings:
            yield f"  {paint(safe_line(finding.kind.value), 'red')}  {safe_line(str(finding))}"


def _answer(verification: Verification, paint: Paint) -> str:
    if verification.findings:
        return paint("NOT VERIFIED", "red", "bold")
    if not verification.holds:
        return paint("UNANCHORED", "yellow", "bold")
    return paint("VERIFIED", "green", "bold")
