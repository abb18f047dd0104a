"""The row of a connection: one admitted transport in a Session, numbered without holes per broker boot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from chalicelib.domain.canonical import Json, digest, timestamp
from chalicelib.domain.identifiers import ConnectionId, HopId, SessionId, Txn


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionRow:
    """Put by the broker before it may mint; sealed once, with the manifest's key and hash.

    ``boot`` and ``number`` count this broker boot's rows without holes, so that a missing one shows; ``row_sha256`` of
    the row before is ``previous_sha256``. ``peer`` is the client's address.
    """

    id: ConnectionId
    session_id: SessionId
    txn: Txn
    leaf_hop: HopId
    target_hop: HopId
    target: str
    principal: str
    peer: str
    boot: str
    number: int
    previous_sha256: str
    opened_at: datetime
    sealed_at: datetime | None = None
    exit: str = ""
    manifest_key: str = ""
    manifest_sha256: str = ""

    def hashed(self) -> Mapping[str, Json]:
        """Return exactly what the next row's ``previous_sha256`` covers: what is put; sealing changes none of it."""
        return {
            "id": self.id,
            "session": self.session_id,
            "txn": self.txn,
            "leaf_hop": self.leaf_hop,
            "target_hop": self.target_hop,
            "target": self.target,
            "principal": self.principal,
            "peer": self.peer,
            "boot": self.boot,
            "number": self.number,
            "previous_sha256": self.previous_sha256,
            "opened_at": timestamp(self.opened_at),
        }

    def sha256(self) -> str:
        """Return the row's hash, 64 hexadecimal digits."""
        return digest(self.hashed())
