"""`countersign verify`: whether the evidence of a session or chain is whole and unchanged, with public keys alone; with
`--all` or `--since DAY`, whether anything of the whole deployment was altered, removed or never made.

Online with an auditor's rights, or on any machine: on the folder or archive that `countersign evidence` wrote, and with
`--all` or `--since` on a downloaded bucket (`aws s3 sync`), of which everything is checked but the live tables. The
keys of a copy vouch for themselves: without `--trust FILE` the answer is UNANCHORED, and the exit code 78. The file is
written once, online, by `--write-trust`, and kept where nobody who keeps the evidence can write. A plain folder has
nothing that shows that it is all: without `--sha256 HASH`, which `evidence` printed, it is UNANCHORED too.
"""

from __future__ import annotations

import argparse
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.domain.copy_statement import SHA256
from countersign.commands.asking import Invocation
from countersign.evidence_source import open_deployment, open_source
from countersign.failures import Exit, Failure
from countersign.periods import moment_at
from countersign.trust import read_trust
from countersign.verify_screen import archive_screen, screen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chalicelib.services.verify_all import ArchiveVerification
    from countersign.output import Output


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject", nargs="?", default="", metavar="SESSION|TXN|DIR|FILE", help="a session's id, a chain's, or a copy"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="everything, from the first hourly digest on; of the deployment, or of a downloaded bucket in DIR",
    )
    parser.add_argument("--since", default="", metavar="DAY", help="everything from this day on, 2026-11-01")
    parser.add_argument("--trust", default="", metavar="FILE", help="fingerprints of the keys that may have signed")
    parser.add_argument(
        "--write-trust", default="", metavar="FILE", help="write the fingerprints that AWS KMS gives now, for later"
    )
    parser.add_argument(
        "--sha256", default="", metavar="HASH", help="the copy's own hash, as it was written down when it was made"
    )
    parser.add_argument(
        "--head", default="", metavar="HASH", help="with --all: the last digest's SHA-256, as it was written down then"
    )
    copy = parser.add_argument_group("a downloaded bucket")
    copy.add_argument("--keys", default="", metavar="FILE", help="our public keys, as the service tells at /v1/keys")
    copy.add_argument("--digests", default="", metavar="DIR", help="the second bucket, downloaded, to compare with")
    copy.add_argument("--as-of", default="", metavar="WHEN", help="when it was downloaded; now where left out")


def verify(invocation: Invocation) -> int:
    """Return 0 where it verifies and somebody vouches for the keys and that it is all, 65 where there is a finding, 78
    where it verifies and nobody vouches. Raises Failure, AccessError, and ModuleNotFoundError without the extra."""
    from chalicelib.services import verify as service

    options, output = invocation.options, invocation.output
    if options.write_trust:
        return _write_trust(invocation)
    if options.sha256 and (options.all or options.since or not options.subject):
        raise Failure(Exit.USAGE, "--sha256 is of one copy of evidence", hint="countersign verify COPY --sha256 HASH")
    everything = options.all + (options.since != "")
    of_a_copy = any((options.keys, options.digests, options.as_of))
    if everything > 1 or not (options.subject or everything) or (of_a_copy and not (options.subject and everything)):
        hint = "countersign verify ses_... (or a copy), or --all, or --since 2026-11-01; a downloaded bucket: DIR --all"
        raise Failure(Exit.USAGE, "name a session, a chain or a copy, or one of --all and --since", hint=hint)
    if options.head and not (everything and SHA256.match(options.head)):
        hint = "countersign verify --all --head HASH: an earlier `verify --all` printed it."
        raise Failure(Exit.USAGE, "--head is 64 hexadecimal digits, and of the whole archive", hint=hint)
    if everything:
        return _verify_copied_bucket(invocation) if options.subject else _verify_archive(invocation)
    if options.sha256 and not SHA256.match(options.sha256):
        raise Failure(Exit.USAGE, "--sha256 is 64 hexadecimal digits", hint="`countersign evidence` printed it.")
    anchors = read_trust(options.trust) if options.trust else None
    source = open_source(options.subject, invocation.settings.inherited, output, sha256=options.sha256)
    found = service.verify(source.subject, source.evidence, anchors, invocation.clock)
    output.result(found.as_json())
    for line in screen(found, source.copy, output.paint):
        output.line(line)
    if not found.findings and found.anchor is service.Anchor.NOBODY:
        output.say("the keys came with the copy: give --trust FILE with the fingerprints that you got before")
    if not found.findings and not found.complete:
        output.say("a plain copy: give --sha256 HASH, which was written down when it was made, or ask for an archive")
    if found.findings:
        return Exit.INVALID
    return Exit.DONE if found.holds else Exit.UNANCHORED


def _verify_archive(invocation: Invocation) -> int:
    from chalicelib.services.verify import Anchor, EvidenceSource
    from chalicelib.services.verify_all import ArchiveSource, verify_all

    options, output = invocation.options, invocation.output
    since = _day(options.since, invocation.clock.now()) if options.since else None
    anchors = read_trust(options.trust) if options.trust else None
    stores = open_deployment(invocation.settings.inherited)
    source = ArchiveSource(
        evidence=EvidenceSource(stores=stores, anchor=Anchor.AWS),
        objects=stores.objects,
        copies=stores.digest_copies,
        rows=stores.rows,
        boots=stores.connections,
    )
    found = verify_all(source, anchors, invocation.clock, since=since, pause=invocation.clock.sleep, head=options.head)
    return _say_all(found, output, copied=stores.digest_copies is not None)


def _verify_copied_bucket(invocation: Invocation) -> int:
    from dataclasses import replace

    from chalicelib.services.reviewed import Finding, FindingKind
    from chalicelib.services.verify_all import verify_all
    from countersign.bucket_copy import AsOf, open_bucket_copy

    options, output, now = invocation.options, invocation.output, invocation.clock.now()
    anchors = read_trust(options.trust) if options.trust else None
    clock = AsOf(invocation.clock, moment_at(options.as_of, now, "--as-of") if options.as_of else now)
    since = _day(options.since, clock.now()) if options.since else None
    copy = open_bucket_copy(options.subject, digests=options.digests, keys=options.keys)
    found = verify_all(copy.source, anchors, clock, since=since, pause=invocation.clock.sleep, head=options.head)
    what = "cannot be read as it was archived last"
    unreadable = [Finding(key=name, kind=FindingKind.ALTERED, what=what) for name in copy.stores.unreadable]
    return _say_all(replace(found, findings=(*found.findings, *unreadable)), output, copied=options.digests != "")


def _say_all(found: ArchiveVerification, output: Output, *, copied: bool) -> int:
    output.result(found.as_json())
    for line in archive_screen(found, copied=copied, paint=output.paint):
        output.line(line)
    if found.findings:
        return Exit.INVALID
    return Exit.DONE if found.holds else Exit.UNANCHORED


def _day(text: str, now: datetime) -> datetime:
    """Return the beginning of the day, in UTC, as the archive's days are. Raises Failure (usage): no day, or one that
    has not begun, of which there is nothing, and nothing that could not hold."""
    try:
        day = date.fromisoformat(text)
    except ValueError as error:
        raise Failure(Exit.USAGE, "--since is a day in UTC", hint="countersign verify --since 2026-11-01") from error
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if begin > now:
        raise Failure(Exit.USAGE, "--since is a day that has not begun", hint="countersign verify --since 2026-11-01")
    return begin


def _write_trust(invocation: Invocation) -> int:
    from chalicelib.services.anchors import fingerprints, trust_text

    options, output = invocation.options, invocation.output
    if options.subject or options.trust or options.all or options.since:
        raise Failure(Exit.USAGE, "--write-trust stands alone: it reads the keys, and verifies nothing")
    environment: Mapping[str, str] = invocation.settings.inherited
    found = fingerprints(open_deployment(environment).keys)
    text = trust_text(found, invocation.clock.now())
    try:
        with Path(options.write_trust).open("x", encoding="ascii") as file:
            file.write(text)
    except OSError as error:
        raise Failure(
            Exit.USAGE, "the file of fingerprints cannot be written, or is there already", hint=options.write_trust
        ) from error
    output.result({"file": options.write_trust, "keys": {name: list(keys) for name, keys in found.items()}})
    output.line(f"{options.write_trust}: keep it where nobody who keeps the evidence can write")
    for line in text.splitlines():
        output.line(f"  {line}")
    return Exit.DONE
