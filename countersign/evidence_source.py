"""Where an auditor's command reads evidence: the deployment itself with the caller's own AWS rights, or a copy of it.

A session's id or a txn names something in the deployment (COUNTERSIGN_PREFIX, COUNTERSIGN_BUCKET, AWS_REGION and the
role ``auditor``); anything else is the folder that `countersign evidence` wrote, for which nothing is needed. Imports
what needs the extra ``audit`` only when called.
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
    from chalicelib.services.reviewed import Finding
    from chalicelib.services.verify import EvidenceSource
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


def open_source(subject: str, environment: Mapping[str, str], output: Output) -> Source:
    """Return where ``subject`` (a session's id, a txn or a folder) is read.

    Raises Failure (usage) where it is none of these or the deployment is not named, StoreUnavailable, and
    ModuleNotFoundError without the extra.
    """
    if SESSION_ID.match(subject) or TXN.match(subject):
        return open_archive(subject, environment, output)
    folder = Path(subject)
    if not folder.is_dir():
        hint = "Give ses_..., a chain's txn, or a folder that `countersign evidence` wrote."
        raise Failure(Exit.USAGE, "this is no session, no chain and no folder", hint=hint)
    return _open_folder(folder)


def open_archive(subject: str, environment: Mapping[str, str], output: Output) -> Source:
    """Return the deployment itself, where whatever ``subject`` says is read. Raises as :func:`open_source` does."""
    from chalicelib.services.verify import Anchor, EvidenceSource

    stores = open_deployment(environment)
    evidence = EvidenceSource(stores=stores, anchor=Anchor.AWS)
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


def _open_folder(folder: Path) -> Source:
    from chalicelib.services.reviewed import Finding, FindingKind
    from chalicelib.services.verify import EvidenceSource
    from chalicelib.store.folder import open_folder

    try:
        stores, faults = open_folder(folder)
    except NotFound as error:
        raise Failure(Exit.USAGE, error.public, hint="Name the folder that `countersign evidence` wrote.") from error
    found = tuple(Finding(key=fault.key, kind=FindingKind(fault.kind), what=fault.what) for fault in faults)
    copy = f"a copy made at {stores.made_at or '?'}, SHA-256 {stores.sha256 or '?'}"
    return Source(subject=stores.subject, evidence=EvidenceSource(stores=stores, faults=found), people=(), copy=copy)


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
