"""The store's epoch: since when what its tables hold counts. It is raised after a restore.

Why: a table that was restored has again what was ended since: sessions that were revoked or closed, asks that were
refused, tickets that were redeemed; and what ended them is gone. So after a restore nothing of before stands.

Rules: the epoch is a moment, in the signed Activation that each process reads anyway, and never goes back. A session
carries the epoch under which it was asked for, and with it a key of its liveness set, which the raising revokes: so
sessions end wherever revocations are evaluated, in open connections too, and what stands on a session (its asks,
answers, certificates, credentials) with them. What stands on none is compared by its own date (:func:`is_of_before`): a
ticket, and the answering of an ask. Hops stay: they are signed, and their revocations are put again from the archive.
Pure.
"""

from __future__ import annotations

from datetime import datetime

from chalicelib.domain.canonical import timestamp


def epoch_name(epoch_at: datetime | None) -> str:
    """Return how sessions carry an epoch: its moment as text, empty for the first. Pure."""
    return "" if epoch_at is None else timestamp(epoch_at)


def epoch_key(name: str) -> str:
    """Return the liveness key of what was asked for under the epoch of that name. Pure."""
    return f"epoch:{name or 'first'}"


def is_of_before(made_at: datetime, epoch_at: datetime | None) -> bool:
    """Return whether what was made then is void. Pure."""
    return epoch_at is not None and made_at < epoch_at
