"""The row of a connection, numbered without holes per broker boot; and the boot itself: its beat, and its last number.

A boot's *beat* says that its process lives: it is written again and again, and is no evidence. Its *end* is an
object, signed and put once, where it ends orderly: how many rows there must be, and the hash of the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from chalicelib.domain.canonical import Digested, Json, digest, timestamp
from chalicelib.domain.identifiers import ConnectionId, HopId, SessionId, Txn

BOOT_VERSION: Final = 1
BOOT_SIGNATURE_TYPE: Final = "countersign-boot+jws"
BEAT_EVERY_S: Final = 20.0
# A broker that cannot read the revocations' feed for 30 s has ended every connection of its own accord, and one that
# lives misses six beats before this: so a boot that is silent for so long has no connection that runs.
SILENT_AFTER: Final = timedelta(seconds=120)


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """That the process of ``boot`` lived at ``at``."""

    boot: str
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class BootEnd:
    """How a boot ended orderly: ``last`` is the number of its last row (0: none), ``last_sha256`` that row's hash."""

    boot: str
    last: int
    last_sha256: str
    closed_at: datetime
    signature: str = ""

    def signed(self) -> Mapping[str, Json]:
        """Return exactly what the signature covers, and what the object holds besides it."""
        return {
            "v": BOOT_VERSION,
            "boot": self.boot,
            "last": self.last,
            "last_sha256": self.last_sha256,
            "closed_at": timestamp(self.closed_at),
        }

    def sha256(self) -> str:
        return digest(self.signed())


BOOTS: Final = "boots/v1/"


def boot_end_key(boot: str, closed_at: datetime) -> str:
    return f"{BOOTS}{timestamp(closed_at)[:10]}/{boot}.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionRow(Digested):
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
        return self._digest_of(self.hashed)
