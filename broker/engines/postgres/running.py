"""What the relay keeps of one operation while it runs, and the seam to what SQL means.

``Language`` is the door to ``statement``, ``origins`` and ``answers``: the relay itself never looks at SQL or at a
value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from broker.wire.postgres.fields import Fields
from broker.wire.postgres.messages import Bind
from chalicelib.domain.operation import Act, Forward, Literal, Operation
from chalicelib.domain.recording import NOTHING_LEFT_OUT, LeftOut


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """What one text means for the relay.

    ``empty``: there is no statement in it, and it may pass as it is. ``refused``: why it is not understood, else empty.
    ``proved``: it was read under a catalogue that can be relied on. ``copies_out``: its rows come as COPY data;
    ``copies_in``: the client's rows follow it.
    ``uses_names``: it runs what a name stands for (EXECUTE, FETCH), so every earlier answer must be there before it is
    judged. ``renames_statements`` and ``renames_portals``: afterwards names of the protocol may stand for something
    else. ``source`` is the language's own.
    """

    acts: tuple[Act, ...]
    shown: str
    literals: tuple[Literal, ...] = ()
    empty: bool = False
    refused: str = ""
    proved: bool = True
    copies_out: bool = False
    copies_in: bool = False
    uses_names: bool = False
    renames_statements: bool = False
    renames_portals: bool = False
    source: object = None


@dataclass(frozen=True, slots=True)
class Objection:
    """Why the broker cannot do what policy asks of it."""

    public: str
    hint: str


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared statement's reading, and whether policy held it when it was parsed: then it is judged at Bind."""

    reading: Reading
    needs_approval: bool


@dataclass(frozen=True, slots=True)
class ShownBinds:
    """Bind values as they may be shown: ``texts`` with detected secrets replaced, those named in ``literals``."""

    texts: tuple[str, ...]
    literals: tuple[Literal, ...]


class Rows(Protocol):
    """The rows of one result: masked, and told as text where the rule records them."""

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def plain(self) -> bool:
        """Whether rows pass as they are: nothing can be masked in them."""
        ...

    def row(self, frame: bytes) -> bytes:
        """Return the DataRow frame as the client may see it. Raises MaskingFailed-like errors: the row is not sent."""
        ...

    def lines(self, bodies: Sequence[bytes]) -> str:
        """Return (already masked) DataRows, by their bodies, as text: one JSON array of strings and nulls a line. In
        any thread. Raises ProtocolViolation."""
        ...


class CopyRows(Protocol):
    """The CopyData of one COPY TO STDOUT, masked."""

    @property
    def plain(self) -> bool: ...

    def row(self, frame: bytes) -> bytes: ...


class Language(Protocol):
    """SQL's meaning within one connection. Memory only; on the loop."""

    def read(self, text: bytes, types: Sequence[int] = ()) -> Reading:
        """Never raises: what cannot be understood has no acts, and is blocked. ``types``: parameter types a Parse
        named."""
        ...

    def unproved(self, text: bytes) -> Reading:
        """As :meth:`read`, where names and origins cannot be relied on."""
        ...

    def stale(self, reading: Reading) -> bool:
        """Whether the target must be asked :meth:`questions` before ``reading`` may be judged."""
        ...

    def questions(self) -> tuple[str, ...]: ...

    def answered(self, results: Sequence[Sequence[Sequence[str | None]]], *, in_transaction: bool) -> None:
        """Take the rows of each question. Raises AccessError."""
        ...

    def objection(self, reading: Reading, masks: Sequence[str]) -> Objection | None:
        """Return why ``reading`` cannot be masked with ``masks``, or None."""
        ...

    def binds(self, reading: Reading, bind: Bind, types: Sequence[int]) -> ShownBinds: ...

    def rows(
        self, reading: Reading, number: int, description: bytes, formats: Sequence[int] | None, masks: Sequence[str]
    ) -> Rows:
        """Return the rows of result ``number`` (from 0) of ``reading``. ``description`` is the RowDescription's body;
        ``formats`` the Bind's result formats, None where the description itself has them."""
        ...

    def copy_rows(self, masks: Sequence[str], *, binary: bool) -> CopyRows: ...

    def fields(self, fields: Fields) -> Fields:
        """Return an error's or notice's fields as the client may see them: the union of the target's masks."""
        ...

    def payload(self, payload: bytes) -> bytes:
        """Return a notification's payload as the client may see it."""
        ...

    def client_data(self, data: bytes) -> str:
        """Return COPY data of the client as it may be recorded."""
        ...

    def parsed(self, name: bytes, reading: Reading) -> None:
        """The server confirmed a prepared statement."""
        ...

    def closed(self, name: bytes) -> None:
        """The server closed a prepared statement."""
        ...

    def transaction_ended(self) -> None:
        """The target said that no transaction is open."""
        ...

    def bound(self, portal: bytes) -> None:
        """A portal of this name was asked for: it is no cursor that SQL declared."""
        ...

    def ran(self, reading: Reading, number: int) -> None:
        """Statement ``number`` of ``reading`` completed without an error."""
        ...


@dataclass(slots=True, eq=False)
class Questions:
    """The broker's own questions to the target, on the client's connection: the answers so far."""

    results: list[list[list[str | None]]] = field(default_factory=lambda: [[]])
    bytes: int = 0


@dataclass(slots=True, eq=False)
class Running:
    """An operation that was judged and sent on. ``number`` counts the results that ended; ``left_rows`` and
    ``left_bytes`` are what was sent since the outcome before and, as policy permits, not recorded."""

    op: Operation
    reading: Reading
    verdict: Forward
    started_s: float
    number: int = 0
    rows: int = 0
    bytes: int = 0
    tags: list[str] = field(default_factory=list)
    sqlstate: str = ""
    result: Rows | None = None
    copied: CopyRows | None = None
    left_rows: int = 0
    left_bytes: int = 0
    ended: bool = False


def take_left_out(running: Running) -> LeftOut:
    """Return what was left out of the record since this was called last."""
    if running.verdict.record_full or not running.left_bytes:
        return NOTHING_LEFT_OUT
    left = LeftOut(outcomes=1, rows=running.left_rows, bytes=running.left_bytes)
    running.left_rows = running.left_bytes = 0
    return left


MAX_SHOWN_TAGS: Final = (
    16  # of a batch's command tags in its outcome; the recording is for people, the count is in the text
)


def outcome_tag(running: Running) -> str:
    """Return the command tags of an operation, as its outcome shows them. Pure."""
    more = len(running.tags) - MAX_SHOWN_TAGS
    return "; ".join(running.tags[:MAX_SHOWN_TAGS]) + (f"; and {more} more" if more > 0 else "")
