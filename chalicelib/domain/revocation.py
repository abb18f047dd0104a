"""A Revocation: evaluated, not propagated. What has one of its keys in its liveness set is dead."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Revocation:
    """``key`` is one of a liveness set's (``session:...``, ``txn:...``); ``number`` its place in the feed, from 1."""

    key: str
    number: int
    by: str
    why: str
    at: datetime
