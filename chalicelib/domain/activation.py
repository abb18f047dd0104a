"""An Activation: which configuration bundle is active. Put once per serial, signed, each naming the one before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chalicelib.domain.canonical import Json, digest, timestamp

ACTIVATION_SIGNATURE_TYPE: Final = "countersign-activation+jws"


@dataclass(frozen=True, kw_only=True, slots=True)
class Activation:
    """Serial ``n`` makes the bundle of ``bundle_digest`` active, after ``previous_digest`` (empty for the first)."""

    serial: int
    bundle_digest: str
    previous_digest: str
    author: str
    activated_at: datetime
    signature: str = ""

    def signed(self) -> Mapping[str, Json]:
        return {
            "serial": self.serial,
            "bundle": self.bundle_digest,
            "previous": self.previous_digest,
            "author": self.author,
            "activated_at": timestamp(self.activated_at),
        }

    def sha256(self) -> str:
        return digest(self.signed())


def bundle_key(bundle_digest: str) -> str:
    """Return the object's key of a bundle."""
    return f"bundles/v1/{bundle_digest}.json"
