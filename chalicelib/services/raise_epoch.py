"""Raises the store's epoch after a restore: nothing of before the restore stands, and nothing that was revoked comes
back.

In this order, each step repeatable: activations that the restore took back are put again from the archive, in order,
each with its own signature; revocations likewise, so that no hop that was revoked lives; a new activation of the same
bundle says since when what the tables hold counts; then the keys of all epochs before it are revoked, which ends every
session of them. Whoever does all of it twice raises twice, which ends what was asked for in between and harms nothing.

For an operator, with rights of their own, before the service takes requests again
(``docs/runbooks/after-a-restore.md``). Believes of the archive only what ends things, and what is signed. What it
cannot know is what the archive never got: a change of the last second before the loss.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from chalicelib.domain.activation import Activation
from chalicelib.domain.archived_item import ITEMS, Change, items_of
from chalicelib.domain.clock import Clock
from chalicelib.domain.epoch import epoch_key, epoch_name
from chalicelib.domain.errors import Conflict, NotFound
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.store import Activations, Objects, Revocations, Signer
from chalicelib.identity.jws import sign_activation

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """``epoch_at`` is the new epoch; ``ended`` the names of those that are void now; how many rows were put again; and
    ``unreadable``, objects of the archive in which something else stands: what they held may be missing."""

    epoch_at: datetime
    serial: int
    ended: tuple[str, ...]
    activations: int
    revocations: int
    unreadable: tuple[str, ...]


class RaiseEpoch:
    """``signer`` is the activation key's, ``verify`` raises ProofInvalid where it did not sign an activation."""

    def __init__(
        self,
        *,
        activations: Activations,
        revocations: Revocations,
        objects: Objects,
        signer: Signer,
        verify: Callable[[Activation], None],
        clock: Clock,
    ) -> None:
        self._activations = activations
        self._revocations = revocations
        self._objects = objects
        self._signer = signer
        self._verify = verify
        self._clock = clock
        self._unreadable: list[str] = []

    def __call__(self, *, by: str, why: str) -> Raised:
        """Raise it. Raises Conflict where the archive's activations do not follow from the table's, ProofInvalid where
        one is not signed, NotFound where nothing was ever activated, StoreUnavailable."""
        self._unreadable = []
        put_again, known = self._activations_again()
        revoked = self._revocations_again()
        last, now = self._activations.latest(), self._now()
        unsigned = Activation(
            serial=last.serial + 1,
            bundle_digest=last.bundle_digest,
            previous_digest=last.bundle_digest,
            author=by,
            activated_at=now,
            epoch_at=now,
        )
        ended = tuple(dict.fromkeys(("", *(epoch_name(one.epoch_at) for one in (*known, last)))))
        self._activations.put(sign_activation(self._signer, unsigned))
        for name in ended:
            self._revocations.revoke(epoch_key(name), by=by, why=why, at=now)
        return Raised(
            epoch_at=now,
            serial=unsigned.serial,
            ended=ended,
            activations=put_again,
            revocations=revoked,
            unreadable=tuple(dict.fromkeys(self._unreadable)),
        )

    def _now(self) -> datetime:
        """Return now in whole milliseconds, which is what is signed, rounded up: what was made in this one is of
        before."""
        now = self._clock.now()
        cut = now.replace(microsecond=now.microsecond // 1000 * 1000)
        return cut if cut == now else cut + timedelta(milliseconds=1)

    def _activations_again(self) -> tuple[int, Sequence[Activation]]:
        """Return how many were put again, and all that the archive has."""
        known = sorted(
            {one.serial: one for one in self._archived("activations", _activation)}.values(), key=lambda one: one.serial
        )
        for one in known:
            self._verify(one)
        count = 0
        for one in known:
            try:
                last = self._activations.latest().serial
            except NotFound:
                last = 0
            if one.serial <= last:
                continue
            if one.serial != last + 1:
                raise Conflict("an activation is in neither table nor archive", serial=last + 1)
            self._activations.put(one)
            count += 1
        return count, known

    def _revocations_again(self) -> int:
        known: dict[str, Revocation] = {}  # by key: a number comes twice where a restore was not followed by this
        for one in self._archived("revocations", _revocation):
            known.setdefault(one.key, one)
        count = 0
        for one in sorted(known.values(), key=lambda one: (one.at, one.number)):
            if self._revocations.any_of(frozenset({one.key})) is None:
                self._revocations.revoke(one.key, by=one.by, why=one.why, at=one.at)
                count += 1
        return count

    def _archived(self, table: str, read: Callable[[Mapping[str, Any]], T]) -> Iterator[T]:
        for key in self._objects.keys(f"{ITEMS}/{table}/"):
            items, whole = items_of(self._objects.get(key))
            if not whole:
                self._unreadable.append(key)
            for item in items:
                if item.table == table and item.change is Change.INSERT and item.state.item:
                    try:
                        yield read(json.loads(item.state.item))
                    except (KeyError, TypeError, ValueError):
                        self._unreadable.append(key)


def _activation(said: Mapping[str, Any]) -> Activation:
    epoch_at = said.get("epoch_at")
    return Activation(
        serial=_number(said["serial"]),
        bundle_digest=_text(said["bundle_digest"]),
        previous_digest=_text(said["previous_digest"]),
        author=_text(said["author"]),
        activated_at=datetime.fromisoformat(said["activated_at"]),
        epoch_at=None if epoch_at is None else datetime.fromisoformat(epoch_at),
        signature=_text(said["signature"]),
    )


def _revocation(said: Mapping[str, Any]) -> Revocation:
    return Revocation(
        key=_text(said["key"]),
        number=_number(said["number"]),
        by=_text(said["by"]),
        why=_text(said["why"]),
        at=datetime.fromisoformat(said["at"]),
    )


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("no text")


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError("no number")
