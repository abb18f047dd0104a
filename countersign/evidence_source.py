"""Where an auditor's command reads evidence: the deployment itself with the caller's own AWS rights, or a copy of it.

A session's id or a txn names something in the deployment (COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET, AWS_REGION and the
role ``auditor``); anything else is the folder or the archive that `countersign evidence` wrote, for which nothing is
needed but the base install. Imports what needs the extra ``audit`` only when called.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chalicelib.domain.errors import AccessError, ConfigurationInvalid, NotFound
from chalicelib.domain.identifiers import SESSION_ID, TXN
from countersign.failures import Exit, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chalicelib.domain.identity import Person
    from chalicelib.domain.reading import EvidenceStores
    from chalicelib.services.around import CopiedAround
    from chalicelib.services.reviewed import Finding
    from chalicelib.services.verify import EvidenceSource
    from chalicelib.store.folder import FolderStores
    from chalicelib.store.opened import Stores
    from countersign.output import Output


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """``subject`` is the session's id or txn to look at; ``copy`` describes the folder, empty for the deployment."""

    subject: str
    evidence: EvidenceSource
    people: Sequence[Person]
    copy: str

    @property
    def stores(self) -> EvidenceStores:
        return self.evidence.stores

    @property
    def faults(self) -> tuple[Finding, ...]:
        return tuple(self.evidence.faults)


def open_source(subject: str, environment: Mapping[str, str], output: Output, *, sha256: str = "") -> Source:
    """Return where ``subject`` (a session's id, a txn, a folder or an archive) is read. ``sha256`` is a copy's own hash
    as it was written down when it was made, empty where nobody has it.

    Raises Failure (usage) where it is none of these or the deployment is not named, StoreUnavailable, and
    ModuleNotFoundError without the extra.
    """
    if SESSION_ID.match(subject) or TXN.match(subject):
        if sha256:
            raise Failure(Exit.USAGE, "--sha256 is of a copy: what is online has none", hint="Name the copy.")
        return open_archive(subject, environment, output)
    path = Path(subject)
    if not path.is_dir() and not path.is_file():
        hint = "Give ses_..., a chain's txn, or what `countersign evidence` wrote: a folder or an archive."
        raise Failure(Exit.USAGE, "this is no session, no chain, no folder and no archive", hint=hint)
    return _open_copy(path, sha256)


def open_archive(subject: str, environment: Mapping[str, str], output: Output) -> Source:
    """Return the deployment itself, where whatever ``subject`` says is read. Raises as :func:`open_source` does."""
    from chalicelib.services.around import DeploymentAround
    from chalicelib.services.verify import Anchor, EvidenceSource

    stores = open_deployment(environment)
    around = DeploymentAround(stores, stores.connections)
    evidence = EvidenceSource(stores=stores, anchor=Anchor.AWS, around=around)
    return Source(subject=subject, evidence=evidence, people=_people(stores, output), copy="")


def open_deployment(environment: Mapping[str, str]) -> Stores:
    """Return the deployment's stores. Raises Failure (usage) naming the variable that is missing."""
    from chalicelib.settings import read_store_settings
    from chalicelib.store.opened import open_stores

    try:
        settings = read_store_settings(environment)
    except ConfigurationInvalid as error:
        raise Failure(
            Exit.USAGE,
            error.public,
            hint="This reads the deployment itself: set COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET, AWS_REGION.",
        ) from error
    return open_stores(settings)


def _open_copy(path: Path, sha256: str) -> Source:
    from chalicelib.services.reviewed import Finding, FindingKind
    from chalicelib.services.verify import EvidenceSource
    from chalicelib.store.folder import open_copy
    from chalicelib.store.folder_files import MANIFEST

    try:
        stores, faults = open_copy(path)
    except NotFound as error:
        hint = "Name the folder that `countersign evidence` wrote, or its archive."
        raise Failure(Exit.USAGE, error.public, hint=hint) from error
    found = [Finding(key=fault.key, kind=FindingKind(fault.kind), what=fault.what) for fault in faults]
    if sha256 and sha256 != stores.sha256:
        what = "is not the list of files whose SHA-256 was written down: files were changed, added or left out since"
        found.insert(0, Finding(key=MANIFEST, kind=FindingKind.REPLACED, what=what))
    around = _around(stores) if stores.whole else None
    # A plain copy from which a whole session was taken, and whose files were listed anew, looks like one that never had
    # it; and so does an archive that somebody unpacked and took the statement and the digests from.
    complete = stores.whole or sha256 != ""
    evidence = EvidenceSource(
        stores=stores, faults=tuple(found), opened=stores.opened, around=around, complete=complete
    )
    copy = f"a copy made at {stores.made_at or '?'}, SHA-256 {stores.sha256 or '?'}"
    return Source(subject=stores.subject, evidence=evidence, people=(), copy=copy)


def _around(stores: FolderStores) -> CopiedAround:
    from chalicelib.services.around import CopiedAround
    from chalicelib.services.copy_around import INCLUSIONS, TOLD
    from chalicelib.store.folder_files import STATEMENT

    listed = stores.files.manifest.files
    return CopiedAround(
        subject=stores.subject,
        made_at=stores.made_at,
        sha256=stores.sha256,
        files=len(listed),
        size=sum(file.bytes for file in listed),
        rows=stores.rows,
        activations=stores.activations,
        objects=stores.objects,
        inclusions=_file(stores, INCLUSIONS),
        events=_file(stores, TOLD),
        statement=_file(stores, STATEMENT),
    )


def _file(stores: FolderStores, path: str) -> bytes | None:
    return stores.files.read(path) if path in stores.files.under(path) else None


def _people(stores: Stores, output: Output) -> Sequence[Person]:
    """Return the people that the active bundle knows: only for their names, so a bundle that cannot be read is said and
    the command goes on with their ids."""
    from chalicelib.services.active_bundle import active_bundle
    from chalicelib.settings import SystemClock

    try:
        return active_bundle(stores, SystemClock()).current().people
    except AccessError:
        output.say("people are shown by their ids: the active configuration cannot be read")
        return ()
