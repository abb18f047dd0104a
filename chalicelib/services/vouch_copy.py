"""Vouch for a copy of evidence: sign who made it, when, and the one hash that stands for all of it.

Rules: whoever copies needs a rule that permits ``chain:review`` with ``context.what`` ``copy``; what is not allowed and
what is not there are one answer. The statement is put into the locked bucket before it is given out, so that a copy
which nobody there has ever heard of shows. It says nothing of what the copy holds: nothing of it passes through here.

What it does not do: copy, or verify. Who copies reads the evidence with rights of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from chalicelib.config.bundle import Bundles
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import Json
from chalicelib.domain.clock import Clock
from chalicelib.domain.copy_statement import SHA256, CopyStatement, copy_key, stored_statement
from chalicelib.domain.errors import AccessError, BadRequest, NotFound
from chalicelib.domain.identifiers import SESSION_ID, TXN, SessionId, Txn, new_copy_id
from chalicelib.domain.store import Chains, Objects, Sessions, Signer
from chalicelib.identity.jws import sign_copy
from chalicelib.services.access import CHAIN_REVIEW
from chalicelib.services.identify import Caller
from chalicelib.services.permitted import permits

WHAT: Final = "copy"  # ``context.what`` of the question whether the caller may
MAX_FILES: Final = 100_000  # what a reader of a copy takes (``store.copy_files``)
MAX_BYTES: Final = 1 << 40  # a number that is no size of a copy is no fact worth a signature


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyWanted:
    """What the caller says of its copy: of which session or chain, the hash of its list of files, their number, and
    their bytes together."""

    subject: str
    sha256: str
    files: int
    bytes: int


class VouchCopy:
    """Signs statements of copies."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        chains: Chains,
        sessions: Sessions,
        objects: Objects,
        signer: Signer,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._chains = chains
        self._sessions = sessions
        self._objects = objects
        self._signer = signer
        self._clock = clock
        self._audit = audit

    def __call__(self, caller: Caller, wanted: CopyWanted) -> CopyStatement:
        """Return the statement, stored and audited. Not idempotent: copied twice is two facts.

        Raises NotFound for what is not there and what the caller may not copy, BadRequest, StoreUnavailable,
        ConfigurationInvalid. What is refused is audited too.
        """
        try:
            stated = self._stated(caller, wanted)
            key = copy_key(stated.id, stated.stated_at)
            self._objects.put_new(key, stored_statement(stated), content_type="application/json")
        except AccessError as error:
            self._record(AuditName.COPY_REFUSED, caller, wanted, why="", code=error.code)
            raise
        self._record(AuditName.EVIDENCE_COPIED, caller, wanted, why=f"{stated.id}, SHA-256 {stated.sha256}", code="")
        return stated

    def _stated(self, caller: Caller, wanted: CopyWanted) -> CopyStatement:
        now = self._clock.now()
        if permits(self._bundles.current(), caller, CHAIN_REVIEW, WHAT, now) is None or not self._is_there(wanted):
            raise NotFound("there is no such chain or session, or you may not copy it", hint="Check the id.")
        if not SHA256.match(wanted.sha256):
            raise BadRequest("sha256 is 64 hexadecimal digits")
        if not (0 < wanted.files <= MAX_FILES and 0 < wanted.bytes <= MAX_BYTES):
            raise BadRequest(f"files is from 1 to {MAX_FILES}, bytes from 1 to {MAX_BYTES}")
        unsigned = CopyStatement(
            id=new_copy_id(now),
            subject=wanted.subject,
            sha256=wanted.sha256,
            files=wanted.files,
            bytes=wanted.bytes,
            copied_by=caller.actor.key,
            hop=caller.chain.leaf.id,
            txn=caller.chain.txn,
            stated_at=now.replace(microsecond=now.microsecond // 1000 * 1000),
        )
        return sign_copy(self._signer, unsigned)

    def _is_there(self, wanted: CopyWanted) -> bool:
        if SESSION_ID.match(wanted.subject):
            try:
                self._sessions.get(SessionId(wanted.subject))
            except NotFound:
                return False
            return True
        return bool(TXN.match(wanted.subject)) and bool(self._chains.hops(Txn(wanted.subject)))

    def _record(self, name: AuditName, caller: Caller, wanted: CopyWanted, *, why: str, code: str) -> None:
        session, chain = SESSION_ID.match(wanted.subject), TXN.match(wanted.subject)
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                subject=wanted.subject if session or chain else "",
                code=code,
                txn=wanted.subject if chain else "",
                session_id=wanted.subject if session else "",
                actor=caller.actor.key,
                acting=Acting.of(caller.chain),
                why=why or f"by a caller of {caller.chain.txn}",
            )
        )


def read_copy(told: Json | None) -> CopyWanted:
    """Return what a request says. Raises BadRequest naming the member. Pure."""
    match told:
        case {"subject": str(subject), "sha256": str(sha256), "files": int(files), "bytes": int(size)}:
            return CopyWanted(subject=subject, sha256=sha256, files=files, bytes=size)
        case _:
            raise BadRequest("subject, sha256, files or bytes is missing")


def told_copy(stated: CopyStatement) -> Mapping[str, Json]:
    """Return what the caller gets back: the statement as it is stored, and where."""
    return {
        "key": copy_key(stated.id, stated.stated_at),
        "statement": {**stated.signed(), "signature": stated.signature},
    }
