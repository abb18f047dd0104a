"""A verification of everything, as an auditor reads it."""

from __future__ import annotations

from chalicelib.services.verify_all import ArchiveVerification
from countersign.verify_screen import archive_screen
from tests.fakes.digested import Digested


def lines(found: ArchiveVerification, *, copied: bool = True) -> list[str]:
    return list(archive_screen(found, copied=copied, paint=lambda text, *_: text))


def test_what_was_looked_at_is_counted_and_the_last_digest_can_be_written_down() -> None:
    """An auditor signs for numbers, and keeps one hash."""
    digested = Digested()
    found = digested.verify(copies=True)
    shown = "\n".join(lines(found))
    assert shown.startswith("VERIFIED  everything since 2026-11-02 09:00:00 UTC\n")
    for part in (
        "2 hourly digests",
        "6 objects",
        "15 changes",
        "15 rows",
        "1 chain",
        "5 hops",
        "4 segments, 20 frames",
    ):
        assert part in shown
    assert f"SHA-256 {found.head_sha256}" in shown
    assert "second bucket" in shown
    assert "no second bucket was compared" in "\n".join(lines(found, copied=False))


def test_what_is_wrong_stands_by_its_name_and_forges_no_line() -> None:
    """A name may be of whoever tampered: an object's key can hold what a terminal obeys."""
    digested = Digested()
    digested.administrator.put_object("digests/v1/2026-11-02/\x1b[2Jx\nVERIFIED", b"")
    shown = lines(digested.verify())
    assert shown[0].startswith("NOT VERIFIED")
    assert "FINDINGS: 1" in shown
    assert shown[-1] == "  extra  digests/v1/2026-11-02/<U+001B>[2Jx VERIFIED is no digest, and lies among them"


def test_what_is_newer_and_what_still_runs_is_said() -> None:
    """A service in use is never all digested; that must not look like a fault, nor like nothing."""
    digested = Digested(young=True)
    archive = digested.archive
    session = archive.grant(archive.root, "orders-prod", "app", "again", rules=("pipeline-opens",))
    archive.connect(session, archive.root, "postgres")
    digested.pump()
    shown = "\n".join(lines(digested.verify()))
    assert "newer than the last digest: 9 objects" in shown
    assert "still running: 1 connection" in shown
