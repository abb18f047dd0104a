"""`countersign evidence SUBJECT DIR`: copies all that a review of a session or chain needs into a new folder.

With an auditor's rights. The copy is as the evidence is: what is missing or altered is so in the copy, and is said. It
verifies on a machine with nothing but this command line and the auditor's file of fingerprints.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from chalicelib.domain.errors import AlreadyExists, StoreUnavailable
from chalicelib.domain.identifiers import SESSION_ID, TXN
from countersign.commands.asking import Invocation
from countersign.evidence_source import open_deployment
from countersign.failures import Exit, Failure
from countersign.printable import safe_line


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("subject", metavar="SESSION|TXN", help="a session's id, or a chain's")
    parser.add_argument("folder", metavar="DIR", help="a new folder for the copy")


def evidence(invocation: Invocation) -> int:
    """Return 0 where what was copied verifies, 65 where the copy is made and there is a finding. Raises Failure,
    AccessError, and ModuleNotFoundError without the extra."""
    from chalicelib.services.copy_evidence import copy_evidence
    from chalicelib.store.folder_copy import FolderCopy

    options, output = invocation.options, invocation.output
    if not SESSION_ID.match(options.subject) and not TXN.match(options.subject):
        raise Failure(Exit.USAGE, "this is no session and no chain", hint="countersign evidence ses_... DIR (or a txn)")
    stores = open_deployment(invocation.settings.inherited)
    try:
        out = FolderCopy(Path(options.folder))
    except (AlreadyExists, StoreUnavailable) as error:
        raise Failure(Exit.USAGE, error.public, hint=error.next_step) from error
    review, sha256 = copy_evidence(stores, options.subject, out, invocation.clock)
    findings = [{"key": one.key, "kind": one.kind.value, "what": one.what} for one in review.findings]
    output.result({"subject": options.subject, "folder": options.folder, "sha256": sha256, "findings": findings})
    output.line(f"{safe_line(options.subject)} is copied to {safe_line(options.folder)}")
    output.line(f"  SHA-256 {sha256}: write it down, it stands for every byte of the copy")
    output.line(f"  countersign verify {safe_line(options.folder)} --trust FILE")
    for finding in review.findings:
        output.line(f"  {output.paint(finding.kind.value, 'red')}  {safe_line(str(finding))}")
    return Exit.DONE if review.verified else Exit.INVALID
