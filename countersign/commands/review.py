"""`countersign review`: who initiated it, through whom, what was done under which rule, who approved it, where it is
recorded.

For auditors: it reads tables, bucket and public keys with the caller's own AWS rights (or a copy of them), and asks no
service of ours for its opinion. It needs COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET and AWS_REGION, and the rights of the
role `auditor`. For a copy it needs nothing; the copy's keys vouch for themselves there, so that without `--trust FILE`
the review is headed UNANCHORED, and the exit code is 78.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from countersign.commands.asking import Invocation
from countersign.evidence_source import open_source
from countersign.failures import Exit, Failure
from countersign.review_screen import screen
from countersign.trust import read_trust


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject", nargs="?", default="", metavar="SESSION|TXN|DIR", help="a session's id, a chain's, or a copy of one"
    )
    parser.add_argument("--session", default="", metavar="ID", help="review one session")
    parser.add_argument("--txn", default="", metavar="TXN", help="review a chain with all its sessions")
    parser.add_argument("--trust", default="", metavar="FILE", help="fingerprints of the keys that may have signed")
    parser.add_argument("--all", action="store_true", help="every operation, however many")


def review(invocation: Invocation) -> int:
    """Return 0 where everything verifies, 65 where there is a finding, 78 where nobody vouches for the keys.

    Raises Failure, AccessError, and ModuleNotFoundError without the extra.
    """
    from chalicelib.services.review import Review
    from chalicelib.services.reviewed import review_json
    from chalicelib.services.verify import Anchor, trusted_keys

    options, output = invocation.options, invocation.output
    subjects = [subject for subject in (options.subject, options.session, options.txn) if subject]
    if len(subjects) != 1:
        raise Failure(Exit.USAGE, "name one session or one chain", hint="countersign review ses_... (or its txn)")
    anchors = read_trust(options.trust) if options.trust else None
    source = open_source(subjects[0], invocation.settings.inherited, output)
    trusted = trusted_keys(source.evidence, anchors)
    anchored = trusted.anchor is not Anchor.NOBODY
    reviewing = Review(stores=source.stores, people=source.people, clock=invocation.clock, keys=trusted.keys)
    found = reviewing(source.subject)
    found = replace(found, findings=tuple(dict.fromkeys((*trusted.findings, *found.findings, *source.faults))))
    if source.copy:
        output.say(f"this is {source.copy}")
    output.result({**review_json(found), "verified": found.verified and anchored, "anchored_by": trusted.anchor.value})
    for line in screen(found, output.paint, output.columns, every=options.all, anchored=anchored):
        output.line(line)
    if not found.verified:
        return Exit.INVALID
    return Exit.DONE if anchored else Exit.UNANCHORED
