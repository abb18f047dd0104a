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
    """Serial ``n`` makes the bundle of ``bundle_digest`` active, after ``previous_digest`` (empty for the first).
    ``epoch_at`` is the store's epoch (``domain.epoch``): None before anything was restored, and carried on by every
    later activation."""

    serial: int
    bundle_digest: str
    previous_digest: str
    author: str
    activated_at: datetime
    signature: str = ""
    epoch_at: datetime | None = None

    def signed(self) -> Mapping[str, Json]:
        return {
            "serial": self.serial,
            "bundle": self.bundle_digest,
            "previous": self.previous_digest,
            "author": self.author,
            "activated_at": timestamp(self.activated_at),
            **({} if self.epoch_at is None else {"epoch_at": timestamp(self.epoch_at)}),
        }

    def sha256(self) -> str:
        return digest(self.signed())


def bundle_key(bundle_digest: str) -> str:
    """Return the object's key of a bundle."""
    return f"bundles/v1/{bundle_digest}.json"


def is_epoch_kept(before: Activation, after: Activation) -> bool:
    """Return whether ``after`` carries the epoch of ``before`` on, or raises it. Pure."""
    return before.epoch_at is None or (after.epoch_at is not None and after.epoch_at >= before.epoch_at)
