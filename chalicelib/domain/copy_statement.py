"""CopyStatement: this service's word on a copy of evidence: who made it, when, and the one hash that it has.

Why: a copy's files are signed where they are evidence, and its list of files is signed by nobody: whoever keeps a copy
could leave a session out and list the rest anew. The statement covers the list's hash, and so every byte and that
nothing more was there. It says nothing of whether the evidence is sound: verification does. Objects:
``copies/v1/YYYY-MM-DD/COPY.json``, put once; the same bytes lie in the copy as ``STATEMENT.json``. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chalicelib.domain.canonical import Json, canonical, digest, timestamp
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import CopyId

STATEMENT_VERSION: Final = 1
COPY_SIGNATURE_TYPE: Final = "countersign-copy+jws"
COPIES: Final = "copies/v1/"
SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class CopyStatement:
    """``subject`` is the session's id or txn that was copied, ``sha256`` the hash of the copy's list of files, of which
    there are ``files`` with ``bytes`` together. ``copied_by`` is the key of the identity that asked, ``hop`` its own
    hop in the chain ``txn``, which tell through whom it acts."""

    id: CopyId
    subject: str
    sha256: str
    files: int
    bytes: int
    copied_by: str
    hop: str
    txn: str
    stated_at: datetime
    signature: str = ""

    def signed(self) -> Mapping[str, Json]:
        """Return exactly what the signature covers."""
        return {
            "v": STATEMENT_VERSION,
            "id": self.id,
            "subject": self.subject,
            "sha256": self.sha256,
            "files": self.files,
            "bytes": self.bytes,
            "copied_by": self.copied_by,
            "hop": self.hop,
            "txn": self.txn,
            "stated_at": timestamp(self.stated_at),
        }

    def digest(self) -> str:
        return digest(self.signed())


def stored_statement(statement: CopyStatement) -> bytes:
    """Return the object's bytes."""
    return canonical({**statement.signed(), "signature": statement.signature})


def copy_key(copy_id: CopyId, stated_at: datetime) -> str:
    return f"{COPIES}{timestamp(stated_at)[:10]}/{copy_id}.json"


def parse_statement(stored: bytes) -> CopyStatement:
    """Return the statement that an object holds. Raises ProofInvalid where it is not one, byte for byte. Pure."""
    try:
        said = json.loads(stored)
        found = CopyStatement(
            id=CopyId(said["id"]),
            subject=said["subject"],
            sha256=said["sha256"],
            files=said["files"],
            bytes=said["bytes"],
            copied_by=said["copied_by"],
            hop=said["hop"],
            txn=said["txn"],
            stated_at=datetime.fromisoformat(said["stated_at"]),
            signature=said["signature"],
        )
        same = stored_statement(found) == stored
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ProofInvalid("is no statement of a copy") from error
    if not same or not isinstance(found.signature, str):
        raise ProofInvalid("is not what the service wrote")
    return found
