"""Makes an archive of evidence: a copy with what stands around it, the service's word on it, and all in one file.

The copy is made in a folder beside the archive, which is removed again; its hash goes to the service, which signs who
made it and when (`POST /v1/copies`); only then the archive is written. Without that word there is no archive: a copy
that nobody vouches for is what a folder is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.errors import ProofInvalid
from countersign.failures import Exit, Failure
from countersign.verify_screen import screen

if TYPE_CHECKING:
    from chalicelib.domain.clock import Clock
    from chalicelib.domain.copy_statement import CopyStatement
    from chalicelib.domain.store import Stores
    from chalicelib.services.reviewed import AccessReview
    from countersign.service import Service

_OLDER = "Is this command line older than the service? `pip install -U countersign`."


@dataclass(frozen=True, kw_only=True, slots=True)
class Archived:
    """What was made: the review of the subject as it was, and what the service stated."""

    review: AccessReview
    statement: CopyStatement


def make_archive(
    stores: Stores, service: Service, subject: str, out: Path, clock: Clock, opened: Mapping[str, bytes]
) -> Archived:
    """Copy ``subject`` into the new file ``out``; ``opened`` are issuers' proofs in the clear, by txn.

    Raises Failure where the service refuses or makes no sense, NotFound, AlreadyExists, StoreUnavailable.
    """
    from chalicelib.services.copy_around import copy_around
    from chalicelib.services.copy_evidence import copy_evidence
    from chalicelib.store.archive_file import write_archive
    from chalicelib.store.folder_copy import FolderCopy
    from chalicelib.store.folder_files import WHOLE_VERSION

    with _beside(out) as work:
        folder = Path(work) / "copy"
        copy = FolderCopy(folder, WHOLE_VERSION)

        def around(review: AccessReview) -> None:
            copy_around(stores.objects, stores.rows, review, copy, clock.now())
            _report(stores, subject, clock, copy.file)

        review, sha256 = copy_evidence(stores, subject, copy, clock, opened, around)
        files, size = copy.files
        stated = _stated(service, {"subject": subject, "sha256": sha256, "files": files, "bytes": size})
        copy.state(stated)
        write_archive(folder, out)
    return Archived(review=review, statement=stated)


def _beside(out: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a folder of the same disk, which has room for an archive or has none for either. Raises Failure."""
    try:
        if out.exists() or out.is_symlink():
            raise Failure(Exit.USAGE, "the archive is there already", hint=str(out))
        return tempfile.TemporaryDirectory(prefix=".countersign-evidence-", dir=out.absolute().parent)
    except OSError as error:
        raise Failure(Exit.USAGE, f"the archive cannot be made: {error.strerror}", hint=str(out)) from error


def _report(stores: Stores, subject: str, clock: Clock, put: Callable[[str, bytes], None]) -> None:
    from chalicelib.services.around import DeploymentAround
    from chalicelib.services.verify import Anchor, EvidenceSource, verify

    around = DeploymentAround(stores, stores.connections)
    found = verify(subject, EvidenceSource(stores=stores, anchor=Anchor.AWS, around=around), None, clock)
    put("REPORT.json", canonical(found.as_json()))
    put("REPORT.txt", "".join(f"{line}\n" for line in screen(found, "", _plain)).encode())


def _plain(text: str, *_styles: str) -> str:
    return text


def _stated(service: Service, wanted: Mapping[str, Json]) -> CopyStatement:
    """Return what the service signed, where it is what was asked for. Raises Failure."""
    from chalicelib.domain.copy_statement import parse_statement

    told = service.post("/v1/copies", wanted, repeatable=False).body.get("statement")
    try:
        found = parse_statement(canonical(dict(told) if isinstance(told, Mapping) else {}))
    except (ProofInvalid, TypeError) as error:
        raise Failure(Exit.UNREACHABLE, "the service's answer makes no sense", hint=_OLDER) from error
    said = {"subject": found.subject, "sha256": found.sha256, "files": found.files, "bytes": found.bytes}
    if said != wanted:
        raise Failure(Exit.UNREACHABLE, "the service stated something else than was asked", hint=_OLDER)
    return found
