"""`countersign review`: who initiated it, what was done under which rule, who approved it, where it is recorded.

For auditors: it reads tables, bucket and public keys with the caller's own AWS rights, and asks no service of ours for
its opinion. It needs COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET and AWS_REGION, and the rights of the role `auditor`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from chalicelib.domain.errors import AccessError, ConfigurationInvalid
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.output import Output
from countersign.review_screen import as_json, screen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chalicelib.domain.identity import Person
    from chalicelib.services.reviewed import AccessReview
    from chalicelib.store.opened import Stores


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", nargs="?", default="", metavar="SESSION|TXN", help="a session's id, or a chain's")
    parser.add_argument("--session", default="", metavar="ID", help="review one session")
    parser.add_argument("--txn", default="", metavar="TXN", help="review a chain with all its sessions")
    parser.add_argument("--all", action="store_true", help="every operation, however many")


def review(invocation: Invocation) -> int:
    """Return 0 where everything verifies, 65 where there is a finding. Raises Failure, AccessError, and
    ModuleNotFoundError without the extra."""
    options, output = invocation.options, invocation.output
    subjects = [subject for subject in (options.subject, options.session, options.txn) if subject]
    if len(subjects) != 1:
        raise Failure(Exit.USAGE, "name one session or one chain", hint="countersign review ses_... (or its txn)")
    found = _read(subjects[0], invocation.settings.inherited, output)
    output.result(as_json(found))
    for line in screen(found, output.paint, output.columns, every=options.all):
        output.line(line)
    return Exit.DONE if found.verified else Exit.INVALID


def _read(subject: str, environment: Mapping[str, str], output: Output) -> AccessReview:
    from chalicelib.services.review import Review
    from chalicelib.settings import SystemClock, read_store_settings
    from chalicelib.store.opened import open_stores

    try:
        settings = read_store_settings(environment)
    except ConfigurationInvalid as error:
        raise Failure(
            Exit.USAGE,
            error.public,
            hint="A review reads the deployment itself: set COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET, AWS_REGION.",
        ) from error
    stores = open_stores(settings)
    return Review(stores=stores, people=_people(stores, output), clock=SystemClock())(subject)


def _people(stores: Stores, output: Output) -> Sequence[Person]:
    """Return the people that the active bundle knows: only for their names, so a bundle that cannot be read is said and
    the review goes on with their ids."""
    from chalicelib.services.active_bundle import active_bundle
    from chalicelib.settings import SystemClock

    try:
        return active_bundle(stores, SystemClock()).current().people
    except AccessError as error:
        output.say(f"people are shown by their ids: the active configuration cannot be read ({error.public})")
        return ()
