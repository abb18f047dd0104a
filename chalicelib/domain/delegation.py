"""Ticket: what a parent hands to whoever it lets in below itself, instead of its token.

Rules: a ticket names its redeemer, by issuer and immutable claims or by the thumbprint of a key, so that one that was
stolen is of no use; it is short and single use; it never names more than its parent's hop has,
and is narrowed again under that hop when it is redeemed. The text that is handed over is 256 random bits; what is kept
is its hash and this record, signed by ``sign``, so that whoever can write the table cannot make one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from chalicelib.domain.canonical import Json, digest, timestamp
from chalicelib.domain.identifiers import HopId, TicketId, Txn

TICKET_VERSION: Final = 1
TICKET_SIGNATURE_TYPE: Final = "countersign-ticket+jws"


@dataclass(frozen=True, kw_only=True, slots=True)
class ByIssuer:
    """Whoever that issuer of ours (``url``) says has each of these claims. They include every claim that its
    declaration counts as the immutable subject."""

    issuer: str
    claims: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ByKey:
    """Whoever proves the key with this RFC 7638 thumbprint. Its hop has assurance ``vouched``."""

    thumbprint: str


Redeemer: TypeAlias = ByIssuer | ByKey


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """``name`` is what the parent calls the child, for people; ``rules`` are those that allowed the delegation.
    ``hop_expires_at`` is the end of the child's hop, ``expires_at`` of the ticket itself."""

    id: TicketId
    txn: Txn
    parent: HopId
    parent_sha256: str
    redeemer: Redeemer
    name: str
    scope: tuple[str, ...]
    max_depth: int
    hop_expires_at: datetime
    rules: tuple[str, ...]
    issued_at: datetime
    expires_at: datetime
    signature: str = ""

    def hashed(self) -> Mapping[str, Json]:
        """Return exactly what the signature covers."""
        match self.redeemer:
            case ByIssuer(issuer=issuer, claims=claims):
                redeemer: Mapping[str, Json] = {"issuer": issuer, "claims": [list(pair) for pair in claims]}
            case ByKey(thumbprint=thumbprint):
                redeemer = {"key": thumbprint}
        return {
            "v": TICKET_VERSION,
            "id": self.id,
            "txn": self.txn,
            "parent": self.parent,
            "parent_sha256": self.parent_sha256,
            "redeemer": redeemer,
            "name": self.name,
            "scope": list(self.scope),
            "max_depth": self.max_depth,
            "hop_expires_at": timestamp(self.hop_expires_at),
            "rules": list(self.rules),
            "issued_at": timestamp(self.issued_at),
            "expires_at": timestamp(self.expires_at),
        }

    def sha256(self) -> str:
        """Return the ticket's hash, 64 hexadecimal digits."""
        return digest(self.hashed())
