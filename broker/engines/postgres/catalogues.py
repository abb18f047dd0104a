"""The catalogues of this process: one per target and login, shared for 30 s, and the private ones.

A snapshot is loaded on the connection that needs it, so it sees what that connection sees. Rules: it is shared only
where it holds nothing that others would not see (temporary relations, definitions that are not committed), and a
session that changed definitions takes only its own from then on; a change of definitions seen on one connection drops
what is shared. Age counts from before the question. One loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.engines.postgres.origins import Catalogue, Masked
from chalicelib.domain.clock import Clock

FRESH_S: Final = 30.0  # security.md: a name's meaning is dropped after 30 s, since others change definitions too


@dataclass(frozen=True, slots=True)
class Known:
    """A snapshot and when (monotonic seconds) it was asked for."""

    catalogue: Catalogue
    asked_s: float


class Catalogues:
    """What is shared."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shared: dict[tuple[str, str], Known] = {}

    def shared(self, target: str, login: str, masked: Masked) -> Known | None:
        """Return the shared snapshot, where it is fresh and of exactly these columns."""
        known = self._shared.get((target, login))
        return known if known is not None and self.usable(known, masked) else None

    def usable(self, known: Known, masked: Masked) -> bool:
        """Whether ``known`` is young enough and of exactly these columns."""
        return self._clock.monotonic_s() - known.asked_s < FRESH_S and known.catalogue.covers(masked)

    def share(self, target: str, login: str, known: Known) -> None:
        """Share a snapshot that was loaded outside a transaction; not one with temporary relations in it."""
        if not any(relation.schema == "pg_temp" for relation in known.catalogue.relations.values()):
            self._shared[target, login] = known

    def drop(self, target: str) -> None:
        """Definitions of ``target`` changed."""
        for key in [key for key in self._shared if key[0] == target]:
            del self._shared[key]
