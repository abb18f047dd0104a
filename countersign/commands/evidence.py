"""`countersign evidence SUBJECT DIR`: copies all that a review of a session or chain needs into a new folder; with
`--archive FILE` that and what stands around it, stated by the service, into one new file.

With an auditor's rights. The copy is as the evidence is: what is missing or altered is so in the copy, and is said. It
verifies on a machine with nothing but this command line and the auditor's file of fingerprints.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.domain.errors import AlreadyExists, StoreUnavailable
from chalicelib.domain.identifiers import SESSION_ID, TXN, SessionId
from countersign.commands.asking import Invocation
from countersign.evidence_source import open_deployment
from countersign.failures import Exit, Failure
from countersign.printable import safe_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chalicelib.store.opened import Stores


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="SESSION|TXN", help="a session's id, or a chain's")
    parser.add_argument("folder", nargs="?", default="", metavar="DIR", help="a new folder for the copy")
    parser.add_argument(
        "--archive",
        default="",
        metavar="FILE",
        help="a new file instead (tar): with digests, configuration and events, and with the service's signature "
        "(COUNTERSIGN_API) over who copied it and when",
    )
    parser.add_argument(
        "--token",
        action="store_true",
        help="with the issuer's token in the clear, which the service (COUNTERSIGN_API) opens when it has expired",
    )


def evidence(invocation: Invocation) -> int:
    """Return 0 where what was copied verifies, 65 where the copy is made and there is a finding. Raises Failure,
    AccessError, and ModuleNotFoundError without the extra."""
    from chalicelib.services.copy_evidence import copy_evidence
    from chalicelib.store.folder_copy import FolderCopy

    options, output = invocation.options, invocation.output
    if not SESSION_ID.match(options.subject) and not TXN.match(options.subject):
        raise Failure(Exit.USAGE, "this is no session and no chain", hint="countersign evidence ses_... DIR (or a txn)")
    if (options.folder != "") + (options.archive != "") != 1:
        raise Failure(Exit.USAGE, "name a new folder, or --archive and a new file")
    if options.archive:
        return _archive(invocation)
    stores = open_deployment(invocation.settings.inherited)
    opened = _opened(invocation, stores) if options.token else {}
    try:
        out = FolderCopy(Path(options.folder))
    except (AlreadyExists, StoreUnavailable) as error:
        raise Failure(Exit.USAGE, error.public, hint=error.next_step) from error
    review, sha256 = copy_evidence(stores, options.subject, out, invocation.clock, opened)
    findings = [{"key": one.key, "kind": one.kind.value, "what": one.what} for one in review.findings]
    output.result({"subject": options.subject, "folder": options.folder, "sha256": sha256, "findings": findings})
    output.line(f"{safe_line(options.subject)} is copied to {safe_line(options.folder)}")
    output.line(f"  SHA-256 {sha256}: write it down, it stands for every byte of the copy")
    output.line(f"  countersign verify {safe_line(options.folder)} --trust FILE --sha256 {sha256}")
    for finding in review.findings:
        output.line(f"  {output.paint(finding.kind.value, 'red')}  {safe_line(str(finding))}")
    return Exit.DONE if review.verified else Exit.INVALID


def _archive(invocation: Invocation) -> int:
    from chalicelib.services.around import stated
    from countersign.evidence_archive import make_archive

    options, output = invocation.options, invocation.output
    service, out = invocation.service(), Path(options.archive)
    stores = open_deployment(invocation.settings.inherited)
    opened = _opened(invocation, stores) if options.token else {}
    try:
        made = make_archive(stores, service, options.subject, out, invocation.clock, opened)
    except AlreadyExists as error:
        raise Failure(Exit.USAGE, error.public, hint=error.next_step) from error
    findings = [{"key": one.key, "kind": one.kind.value, "what": one.what} for one in made.review.findings]
    output.result(
        {
            "subject": options.subject,
            "archive": options.archive,
            "sha256": made.statement.sha256,
            "statement": made.statement.signed(),
            "findings": findings,
        }
    )
    output.line(f"{safe_line(options.subject)} is copied to {safe_line(options.archive)}")
    output.line(f"  {safe_line(stated(made.statement))}, signed by the service over its SHA-256")
    output.line(f"  countersign verify {safe_line(options.archive)} --trust FILE")
    for finding in made.review.findings:
        output.line(f"  {output.paint(finding.kind.value, 'red')}  {safe_line(str(finding))}")
    return Exit.DONE if made.review.verified else Exit.INVALID


def _opened(invocation: Invocation, stores: Stores) -> Mapping[str, bytes]:
    """Return the issuer's proof of the subject's chain. Raises Failure: it has not expired, or no rule permits it."""
    from countersign.issuer_token import opened_proof

    subject = invocation.options.subject
    txn = subject if TXN.match(subject) else stores.sessions.get(SessionId(subject)).txn
    body, _ = opened_proof(invocation.service(), txn)
    return {txn: body}
