"""`countersign review`: who initiated it, through whom, what was done under which rule, who approved it, where it is
recorded; of a session, a chain, or every session of a period.

For auditors: it reads tables, bucket and public keys with the caller's own AWS rights (or a copy of them), and asks no
service of ours for its opinion. It needs COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET and AWS_REGION, and the rights of the
role `auditor`. For a copy it needs nothing; the copy's keys vouch for themselves there, so that without `--trust FILE`
the review is headed UNANCHORED, and the exit code is 78. `review sign` alone speaks to the service, as the reviewer.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from countersign.commands.asking import Invocation
from countersign.commands.review_period import review_period
from countersign.commands.review_sign import review_sign
from countersign.evidence_source import open_source
from countersign.failures import Exit, Failure
from countersign.page_parts import About
from countersign.report_files import new_file
from countersign.review_csv import write_csv
from countersign.review_page import review_page
from countersign.review_screen import screen
from countersign.review_steps import steps_of
from countersign.trust import read_trust

if TYPE_CHECKING:
    from chalicelib.services.reviewed import AccessReview
    from countersign.evidence_source import Source

SIGN: Final = "sign"


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject",
        nargs="?",
        default="",
        metavar="SESSION|TXN|DIR|sign",
        help="a session's id, a chain's, or a copy of one; or `sign`, to sign the review of a period off",
    )
    parser.add_argument("--session", default="", metavar="ID", help="review one session")
    parser.add_argument("--txn", default="", metavar="TXN", help="review a chain with all its sessions")
    parser.add_argument("--trust", default="", metavar="FILE", help="fingerprints of the keys that may have signed")
    parser.add_argument("--all", action="store_true", help="every operation, or session, however many")
    parser.add_argument("--html", default="", metavar="FILE", help="write one page that needs nothing else, and prints")
    parser.add_argument("--csv", default="", metavar="FILE", help="write a row a step, for a spreadsheet")
    period = parser.add_argument_group("every session of a period")
    period.add_argument("--since", default="", metavar="WHEN", help="2026-11-01, a moment, or 30d back from now")
    period.add_argument("--until", default="", metavar="WHEN", help="before this; now where left out")
    period.add_argument("--target", default="", metavar="NAME", help="on this target alone")
    period.add_argument(
        "--pipeline", default="", metavar="NAME", help="of runs that this began: its name, subject or id"
    )
    period.add_argument(
        "--brief", action="store_true", help="list from the tables alone: quick, and nothing is verified"
    )
    period.add_argument(
        "--processes", default="", metavar="N", help="review in so many at once; as many as there are cores if left out"
    )
    period.add_argument("--population", action="store_true", help="every session, with what shows that it is every one")
    period.add_argument("--sample", default="", metavar="N", help="draw N sessions; with --seed anybody draws the same")
    period.add_argument("--seed", default="", metavar="TEXT", help="for --sample")
    sign = parser.add_argument_group("review sign")
    sign.add_argument("--digest", default="", metavar="SHA256", help="of the population that was reviewed")
    sign.add_argument("--keep", action="append", default=[], metavar="IDENTITY", help="may be repeated")
    sign.add_argument("--revoke", action="append", default=[], metavar="IDENTITY", help="may be repeated")
    sign.add_argument("--keep-others", action="store_true", help="keep every identity that --revoke does not name")
    sign.add_argument("--note", default="", metavar="TEXT", help="for the record, in one line")


def review(invocation: Invocation) -> int:
    """Return 0 where everything verifies, 65 where there is a finding, 78 where nobody vouches for the keys.

    Raises Failure, AccessError, and ModuleNotFoundError without the extra.
    """
    options = invocation.options
    subjects = [subject for subject in (options.subject, options.session, options.txn) if subject]
    if subjects == [SIGN]:
        return review_sign(invocation)
    if options.since and not subjects:
        return review_period(invocation)
    of_period = options.brief or options.population or options.sample or options.processes
    if of_period or options.until or options.target or options.pipeline:
        raise Failure(Exit.USAGE, "what narrows or lists a period needs one", hint="countersign review --since 30d")
    if options.since or len(subjects) != 1:
        hint = "countersign review ses_... (or its txn); or --since 30d, with --target or --pipeline"
        raise Failure(Exit.USAGE, "name one session, one chain or a period", hint=hint)
    return _review_one(invocation, subjects[0])


def _review_one(invocation: Invocation, subject: str) -> int:
    from chalicelib.services.review import Review
    from chalicelib.services.reviewed import review_json
    from chalicelib.services.verify import Anchor, trusted_keys

    options, output = invocation.options, invocation.output
    anchors = read_trust(options.trust) if options.trust else None
    source = open_source(subject, invocation.settings.inherited, output)
    trusted = trusted_keys(source.evidence, anchors)
    anchored = trusted.anchor is not Anchor.NOBODY
    reviewing = Review(stores=source.stores, people=source.people, clock=invocation.clock, keys=trusted.keys)
    found = reviewing(source.subject)
    found = replace(found, findings=tuple(dict.fromkeys((*trusted.findings, *found.findings, *source.faults))))
    if source.copy:
        output.say(f"this is {source.copy}")
    if not source.evidence.complete:
        output.say("a plain copy: nothing in it shows that it is all; `countersign verify COPY --sha256 HASH` does")
    _write(invocation, [found], source, anchored=anchored)
    output.result({**review_json(found), "verified": found.verified and anchored, "anchored_by": trusted.anchor.value})
    for line in screen(found, output.paint, output.columns, every=options.all, anchored=anchored):
        output.line(line)
    if not found.verified:
        return Exit.INVALID
    return Exit.DONE if anchored else Exit.UNANCHORED


def _write(invocation: Invocation, found: Sequence[AccessReview], source: Source, *, anchored: bool) -> None:
    options, output = invocation.options, invocation.output
    if options.csv:
        with new_file(options.csv) as file:
            number = write_csv((step for one in found for step in steps_of(one)), file)
        output.say(f"{number} steps are in {options.csv}")
    if options.html:
        about = About(
            title=f"Access review of {source.subject}",
            facts=(("session or chain", source.subject), ("read from", source.copy or "the deployment itself")),
            command=f"countersign review {source.subject}",
            anchored=anchored,
            reviewed_at=found[0].reviewed_at,
        )
        with new_file(options.html) as file:
            file.write(review_page(about, found, found[0].findings))
        output.say(f"the page is {options.html}")
