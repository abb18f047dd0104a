"""Reviews the chains of a period in processes beside each other: in one, its signatures alone take a core for seconds.

Why processes: a verification of ES256 keeps the interpreter's lock, and so does nearly all else of a review, so threads
hide the time of round trips and nothing more. Each process opens stores of its own and does what ``PeriodReview`` does
in one: nothing is checked less for being checked there. What goes to and fro is ours and between our own processes.

Rules: started anew (``spawn``), since clients of AWS and locks do not outlive a fork; a refusal in one ends all of it;
a process that is gone is a refusal too, so that no chain is ever left out. What it does not do: choose how many
(``processes_for``'s caller), or read what is no chain's.
"""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Final

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.identity import Person
from chalicelib.domain.reading import EvidenceStores
from chalicelib.services.anchors import KnownKeys
from chalicelib.services.at_once import at_once
from chalicelib.services.period_review import Part, review_part
from chalicelib.services.review import Review
from chalicelib.services.reviewed import AccessReview, Finding

# Below this a process takes longer to start (half a second, most of it imports) than it saves.
LEAST_SESSIONS: Final = 500
MOST_PROCESSES: Final = 8  # each has its own connections and 100 MB; past this DynamoDB and the parent are what waits
_MOST_IN_PIECE: Final = 100  # chains: some tenths of a second, so that all end together and little waits to be taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Opening:
    """What each process opens for itself. ``open_stores`` and ``clock`` are values that can be sent to one: a function
    of a module, with its arguments."""

    open_stores: Callable[[], EvidenceStores]
    people: Sequence[Person]
    keys: KnownKeys
    clock: Clock
    readers: int = 1


def processes_for(sessions: int, cores: int) -> int:
    """Return in how many processes to review so many sessions; 1 is the caller's own. Pure."""
    return 1 if sessions < LEAST_SESSIONS else max(1, min(cores, MOST_PROCESSES))


class ReviewProcesses:
    """Implements ``period_review.ReviewParts``. ``start`` is how processes begin, as ``multiprocessing`` names it."""

    def __init__(self, opening: Opening, processes: int, *, start: str = "spawn") -> None:
        self._opening = opening
        self._processes = processes
        self._start = start

    def __call__(self, parts: Sequence[Part]) -> list[AccessReview | Finding]:
        """Return the review of each part, in order. Raises what the first refusal raises, and StoreUnavailable where a
        process ended before it was done."""
        size = max(1, min(_MOST_IN_PIECE, -(-len(parts) // (4 * self._processes))))
        pieces = [parts[begin : begin + size] for begin in range(0, len(parts), size)]
        try:
            with ProcessPoolExecutor(
                max_workers=self._processes,
                mp_context=multiprocessing.get_context(self._start),
                initializer=_begin,
                initargs=(self._opening,),
            ) as pool:
                return list(_flat(pool.map(_reviewed, pieces)))
        except BrokenProcessPool:
            hint = "It may be short of memory: give --processes 1, or a shorter period."
            raise StoreUnavailable("a process of this review ended before it was done", hint=hint) from None


# What this process opened, where it is one of those: a function that is sent to a process has no other place for it.
_opened: list[Callable[[Part], AccessReview | Finding]] = []
_readers: list[int] = []


def _begin(opening: Opening) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends the pool
    stores = opening.open_stores()
    review = Review(stores=stores, people=opening.people, clock=opening.clock, keys=opening.keys)
    _opened[:] = [partial(review_part, review)]
    _readers[:] = [opening.readers]
    gc.freeze()  # what was imported is never garbage, and would be looked through again and again


def _reviewed(parts: Sequence[Part]) -> list[AccessReview | Finding]:
    return at_once(_opened[0], parts, _readers[0])


def _flat(pieces: Iterator[list[AccessReview | Finding]]) -> Iterator[AccessReview | Finding]:
    for piece in pieces:
        yield from piece
