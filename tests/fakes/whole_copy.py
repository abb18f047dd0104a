"""A whole copy of a chain's evidence: digested, with its configuration, its broker's end and its events, and stated.

copied = WholeCopy(tmp_path)          # copied.folder, copied.archive, copied.trust
copied.verify()                       # of the archive
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from chalicelib.config.files import bundle_digest, encode_bundle
from chalicelib.domain.activation import Activation, bundle_key
from chalicelib.domain.audit import Acting, AuditEvent, AuditName, Operated
from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.connection import BootEnd, boot_end_key
from chalicelib.domain.copy_statement import CopyStatement
from chalicelib.domain.identifiers import new_copy_id
from chalicelib.domain.store import Keys
from chalicelib.identity.jws import sign_activation, sign_boot_end, sign_copy
from chalicelib.services.anchors import Anchors, fingerprints, trust_text
from chalicelib.services.copy_around import copy_around
from chalicelib.services.copy_evidence import copy_evidence
from chalicelib.services.event_objects import put_events
from chalicelib.services.review import Review
from chalicelib.services.reviewed import AccessReview
from chalicelib.services.verify import Verification, verify
from chalicelib.store.archive_file import write_archive
from chalicelib.store.folder_copy import FolderCopy
from chalicelib.store.folder_files import WHOLE_VERSION
from countersign.evidence_source import open_source
from countersign.output import Output
from countersign.trust import read_trust
from tests.fakes.digested import HOUR_S, Digested

FILES = {"targets.yaml": b"targets: {}\n", "policies/main.cedar": b"permit (principal, action, resource);\n"}


def surround(on: Digested) -> None:
    """Put what a deployment has around a chain: its configuration, its broker's end, its events. Before it is
    digested, so that the digests count it."""
    stores, clock = on.stores, on.clock
    digest = bundle_digest(FILES)
    stores.objects.put_new(bundle_key(digest), encode_bundle(FILES), content_type="application/json")
    activation = Activation(
        serial=1, bundle_digest=digest, previous_digest="", author="carol", activated_at=clock.now()
    )
    stores.activations.put(sign_activation(stores.signer("activation"), activation))
    rows = sorted(stores.connections.rows.values(), key=lambda row: row.number)
    end = BootEnd(boot=rows[-1].boot, last=rows[-1].number, last_sha256=rows[-1].sha256(), closed_at=clock.now())
    signed = sign_boot_end(stores.signer("record"), end)
    key = boot_end_key(end.boot, end.closed_at)
    stores.objects.put_new(key, _boot_bytes(signed), content_type="application/json")
    put_events(stores.objects, _events(on), writer="boot_1", now=clock.now())


def _boot_bytes(end: BootEnd) -> bytes:
    return canonical({**end.signed(), "signature": end.signature})


def _events(on: Digested) -> list[dict[str, Json]]:
    review = Review(stores=on.stores, people=(), clock=on.clock)(on.archive.txn)
    rows: list[dict[str, Json]] = []
    for session in review.sessions:
        for op in session.operations:
            ran = op.verdict in ("forward", "mask") and op.status != "refused"
            event = AuditEvent(
                name=AuditName.OPERATION_RAN if ran else AuditName.OPERATION_REFUSED,
                at=op.at,
                txn=review.txn,
                session_id=session.id,
                connection_id=op.connection_id,
                operation_id=op.id,
                verdict=op.verdict if ran else "block",
                code="" if ran else "policy_denied",
                rules=op.rules,
                acting=Acting(hop=session.leaf_hop),
                operated=Operated(actions=op.actions, text=op.text),
            )
            rows.append(event.row(writer="boot_1", number=len(rows)))
    other = AuditEvent(name=AuditName.SESSION_CLOSED, at=on.clock.now(), txn="01m6dsg7e0fwejtv7egfb0rbxm")
    return [*rows, other.row(writer="boot_1", number=len(rows))]


class WholeCopy:
    """``young``: copied before its hour was over, so that no digest counts it yet."""

    def __init__(self, folder: Path, *, subject: str = "", young: bool = False) -> None:
        self.digested = Digested(young=True)
        surround(self.digested)
        self.digested.pump()
        if not young:
            self.digested.clock.advance(HOUR_S + 700)
            self.digested.digest()
            self.digested.clock.advance(HOUR_S)
            self.digested.digest()
        self.subject = subject or self.digested.archive.txn
        self.folder, self.archive, self.trust = folder / "copy", folder / "evidence.tar", folder / "trust.txt"
        self.copy(self.folder)
        write_archive(self.folder, self.archive)
        self.trust.write_text(trust_text(fingerprints(self.digested.stores.keys), self.digested.clock.now()))

    def copy(self, folder: Path) -> None:
        stores, clock = self.digested.stores, self.digested.clock
        copy = FolderCopy(folder, WHOLE_VERSION)

        def around(review: AccessReview) -> None:
            copy_around(stores.objects, stores.rows, review, copy, clock.now())

        _, sha256 = copy_evidence(stores, self.subject, copy, clock, around=around)
        copy.state(self.stated(sha256, *copy.files))

    def stated(self, sha256: str, files: int, size: int, key: str = "copy") -> CopyStatement:
        now = self.digested.clock.now()
        unsigned = CopyStatement(
            id=new_copy_id(now),
            subject=self.subject,
            sha256=sha256,
            files=files,
            bytes=size,
            copied_by="https://idp.example.com#carol",
            hop="hop_01m6dsg7e0fwejtv7egfb0rbxm",
            txn="01m6dsg7e0fwejtv7egfb0rbxm",
            stated_at=now + timedelta(seconds=1),
        )
        return sign_copy(self.digested.stores.signer(key), unsigned)

    def verify(self, path: Path | None = None, anchors: Anchors | None = None) -> Verification:
        source = open_source(str(path or self.archive), {}, Output(as_json=True, colour=False))
        return verify(source.subject, source.evidence, anchors or read_trust(str(self.trust)), self.digested.clock)

    @property
    def keys(self) -> Keys:
        return self.digested.stores.keys
