"""What may come next after startup, and to which client message each server message belongs.

The server answers in order, so a queue of expected answers says whose each message is. Rules:

- After an error in the extended protocol the server discards everything up to the next Sync, simple queries included;
  so does the queue, and what the client sends meanwhile need not be sent on (``discarding``). After an error in a
  simple query only that query ends.
- In COPY IN the server ignores Sync and Flush; a Sync that was sent ahead of the copy's end gets no answer.
- A name is looked up as of the client's place in the stream: what it asked for in this pipeline counts, as everything
  behind a failed message is discarded with it. Across a Sync that is not true: ``Parse a`` may fail (the name is
  taken) and a ``Bind a`` behind the Sync then binds the *old* statement. Such a look-up raises Unsettled, and the
  caller waits for the answers. Otherwise a harmless text under a name in use would be judged, and the old one run.
- A simple query ends the unnamed statement and portal; the end of a transaction ends every portal.
- An answer that the queue does not allow is a violation.

What it does not do: I/O, judging, rewriting. It never sees the values of a row.

Source: PostgreSQL 15, chapters 55.2.2 to 55.2.6; src/backend/tcop/postgres.c (what is discarded), copyfromparse.c (what
COPY ignores).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, auto
from typing import Final, Generic, TypeVar

from broker.wire.postgres.messages import (
    ERROR,
    NO_DATA,
    PARAMETER_DESCRIPTION,
    READY,
    ROW_DESCRIPTION,
    STATEMENT,
    Bind,
    parse_parameter_description,
    parse_ready,
)
from broker.wire.violation import RemoteViolation

IDLE: Final = ord("I")
MAX_AHEAD: Final = 4096  # answers to come before the caller should stop reading: a client that pipelines and never
# reads would otherwise grow this queue for ever; libpq's own pipelines are some hundreds
_ANY_TIME: Final = frozenset(b"NAS")


class Unsettled(Exception):
    """What a name stands for depends on an answer that has not come yet."""


class Kind(IntEnum):
    """The client messages that are answered, and the copy's end, which has no answer of its own. Integers, since an
    Enum hashes in Python code, five times a message."""

    QUERY = auto()
    PARSE = auto()
    BIND = auto()
    DESCRIBE_STATEMENT = auto()
    DESCRIBE_PORTAL = auto()
    EXECUTE = auto()
    CLOSE = auto()
    SYNC = auto()
    COPY_END = auto()


class Phase(IntEnum):
    """How far the answer to one client message has come."""

    START = auto()
    DESCRIBED = auto()  # parameters told, rows or no data next
    ROWS = auto()
    COPY_IN = auto()
    COPY_OUT = auto()
    COPY_DONE = auto()
    FAILED = auto()
    DONE = auto()


_RUNS: Final = frozenset({Kind.QUERY, Kind.EXECUTE, Kind.SYNC})


@dataclass(slots=True, eq=False)
class Statement:
    """A prepared statement. ``tag`` is the caller's. ``description`` is the last RowDescription body, ``b""`` for no
    rows, None where nobody asked."""

    name: bytes
    text: bytes
    types: tuple[int, ...]
    tag: object
    description: bytes | None = None


@dataclass(slots=True, eq=False)
class Portal:
    """A bound statement. ``running`` is the caller's: what the first Execute began."""

    name: bytes
    statement: Statement
    bind: Bind
    description: bytes | None = None
    running: object = None


@dataclass(slots=True, eq=False)
class Expected:
    """The answer to one client message. ``tag`` is the caller's. With ``refusal`` the message was replaced by one that
    the server must reject, and this ErrorResponse stands for the server's. ``hidden``: we asked, not the client."""

    kind: Kind
    tag: object = None
    refusal: bytes = b""
    hidden: bool = False
    statement: Statement | None = None
    portal: Portal | None = None
    closes: tuple[int, bytes] | None = None
    phase: Phase = Phase.START


_Table = Mapping[tuple[Phase, int], Phase]


def _table(*rows: tuple[Phase, bytes, Phase]) -> _Table:
    return {(phase, kind): after for phase, kinds, after in rows for kind in kinds}


_P = Phase
_ANSWERS: Final[Mapping[Kind, _Table]] = {
    Kind.QUERY: _table(
        (_P.START, b"T", _P.ROWS),
        (_P.START, b"CI", _P.START),
        (_P.START, b"G", _P.COPY_IN),
        (_P.START, b"H", _P.COPY_OUT),
        (_P.START, b"Z", _P.DONE),
        (_P.ROWS, b"D", _P.ROWS),
        (_P.ROWS, b"C", _P.START),
        (_P.COPY_IN, b"C", _P.START),
        (_P.COPY_OUT, b"d", _P.COPY_OUT),
        (_P.COPY_OUT, b"c", _P.COPY_DONE),
        (_P.COPY_DONE, b"C", _P.START),
        (_P.FAILED, b"Z", _P.DONE),
    ),
    Kind.PARSE: _table((_P.START, b"1", _P.DONE)),
    Kind.BIND: _table((_P.START, b"2", _P.DONE)),
    Kind.DESCRIBE_STATEMENT: _table((_P.START, b"t", _P.DESCRIBED), (_P.DESCRIBED, b"Tn", _P.DONE)),
    Kind.DESCRIBE_PORTAL: _table((_P.START, b"Tn", _P.DONE)),
    Kind.EXECUTE: _table(
        (_P.START, b"D", _P.START),
        (_P.START, b"CIs", _P.DONE),
        (_P.START, b"G", _P.COPY_IN),
        (_P.START, b"H", _P.COPY_OUT),
        (_P.COPY_IN, b"C", _P.DONE),
        (_P.COPY_OUT, b"d", _P.COPY_OUT),
        (_P.COPY_OUT, b"c", _P.COPY_DONE),
        (_P.COPY_DONE, b"C", _P.DONE),
    ),
    Kind.CLOSE: _table((_P.START, b"3", _P.DONE)),
    Kind.SYNC: _table((_P.START, b"Z", _P.DONE), (_P.FAILED, b"Z", _P.DONE)),
    Kind.COPY_END: {},
}

_ITEM = TypeVar("_ITEM", Statement, Portal)


@dataclass(slots=True)
class _Names(Generic[_ITEM]):
    """Names that the server confirmed, and those asked for ahead of its answer (None: to be closed), each with the
    segment it was asked in and the answer that will settle it."""

    confirmed: dict[bytes, _ITEM] = field(default_factory=dict)
    ahead: dict[bytes, tuple[int, Expected, _ITEM | None]] = field(default_factory=dict)

    def find(self, name: bytes, segment: int) -> _ITEM | None:
        if name not in self.ahead:
            return self.confirmed.get(name)
        asked, _, item = self.ahead[name]
        if asked != segment:
            raise Unsettled
        return item

    def settle(self, name: bytes, entry: Expected, *, done: bool) -> None:
        """The server answered ``entry``, which was about ``name``; not ``done``: it failed or was discarded."""
        latest = self.ahead.get(name)
        if latest is not None and latest[1] is entry:
            del self.ahead[name]
            if done and latest[2] is not None:
                self.confirmed[name] = latest[2]
            elif done:
                self.confirmed.pop(name, None)
        elif done:
            # Asked for again or forgotten since: what the name stands for now is not known until it is asked for anew.
            self.confirmed.pop(name, None)

    def forget(self, name: bytes) -> None:
        self.confirmed.pop(name, None)
        self.ahead.pop(name, None)

    def clear(self) -> None:
        self.confirmed.clear()
        self.ahead.clear()


class Conversation:
    """The state of one connection after startup. The caller tells it every message that it sends on, in order, and
    every message that the server sent, in order."""

    def __init__(self) -> None:
        self.status = IDLE
        self.discarding = False
        self.discarded: list[Expected] = []
        self._queue: deque[Expected] = deque()
        self._runner: Expected | None = None
        self._running = 0
        self._swallowed = 0
        self._segment = 0
        self._executed = False
        self._statements: _Names[Statement] = _Names()
        self._portals: _Names[Portal] = _Names()

    # What the caller may ask.

    @property
    def outstanding(self) -> int:
        """How many answers are still to come."""
        return len(self._queue)

    @property
    def head(self) -> Expected | None:
        return self._queue[0] if self._queue else None

    @property
    def statements(self) -> int:
        return len(self._statements.confirmed) + len(self._statements.ahead)

    @property
    def in_transaction(self) -> bool:
        """Whether what is sent next may run inside a transaction that holds something: an open block, an implicit one
        that a pipeline began, or any run whose end is not known yet."""
        return self.status != IDLE or self._executed or self._running > 0

    @property
    def unsure(self) -> bool:
        """Whether :attr:`in_transaction` is true only because the end of an earlier run is not known yet."""
        return self._running > 0 and self.status == IDLE and not self._executed

    def statement(self, name: bytes) -> Statement | None:
        """Return what ``name`` stands for at the client's place in the stream. Raises Unsettled."""
        return self._statements.find(name, self._segment)

    def portal(self, name: bytes) -> Portal | None:
        """As :meth:`statement`."""
        return self._portals.find(name, self._segment)

    def copy_taker(self) -> Expected | None:
        """Return the run that CopyData sent now would feed, or None: then the server would ignore it."""
        return self._runner

    # What the caller sends on.

    def query(self, tag: object, *, refusal: bytes = b"") -> Expected:
        self._statements.forget(b"")
        self._portals.forget(b"")
        return self._expect(Expected(Kind.QUERY, tag=tag, refusal=refusal))

    def parse(self, statement: Statement, *, refusal: bytes = b"") -> Expected:
        entry = self._expect(Expected(Kind.PARSE, tag=statement.tag, refusal=refusal, statement=statement))
        # A refused text never becomes a statement, and its name must not be found: the old one may still be there.
        self._statements.ahead[statement.name] = (self._segment, entry, None if refusal else statement)
        return entry

    def bind(self, portal: Portal, *, tag: object = None, refusal: bytes = b"") -> Expected:
        entry = self._expect(Expected(Kind.BIND, tag=tag, refusal=refusal, portal=portal))
        self._portals.ahead[portal.name] = (self._segment, entry, None if refusal else portal)
        return entry

    def describe_statement(self, statement: Statement | None) -> Expected:
        return self._expect(Expected(Kind.DESCRIBE_STATEMENT, statement=statement))

    def describe_portal(self, portal: Portal | None, *, hidden: bool = False) -> Expected:
        return self._expect(Expected(Kind.DESCRIBE_PORTAL, portal=portal, hidden=hidden))

    def execute(self, portal: Portal | None, tag: object, *, refusal: bytes = b"") -> Expected:
        self._executed = True
        return self._expect(Expected(Kind.EXECUTE, tag=tag, refusal=refusal, portal=portal))

    def close(self, kind: int, name: bytes) -> Expected:
        entry = self._expect(Expected(Kind.CLOSE, closes=(kind, name)))
        if kind == STATEMENT:
            self._statements.ahead[name] = (self._segment, entry, None)
        else:
            self._portals.ahead[name] = (self._segment, entry, None)
        return entry

    def sync(self) -> Expected | None:
        """A Sync; None where a copy that runs swallows it."""
        head = self.head
        if head is not None and head.phase is Phase.COPY_IN and len(self._queue) == 1:
            self._swallowed += 1
            return None
        self.discarding = False
        self._segment += 1
        self._executed = False
        return self._expect(Expected(Kind.SYNC))

    def copy_end(self) -> None:
        """CopyDone or CopyFail."""
        self._expect(Expected(Kind.COPY_END))

    def ask(self, tag: object, count: int) -> None:
        """The caller's own questions: ``count`` times Parse, Bind, Execute, Close of the portal and of the statement,
        then a Sync. Only between pipelines; all of it is hidden from the client."""
        for _ in range(count):
            for kind in (Kind.PARSE, Kind.BIND, Kind.EXECUTE, Kind.CLOSE, Kind.CLOSE):
                self._expect(Expected(kind, tag=tag, hidden=True))
        self._segment += 1
        self._expect(Expected(Kind.SYNC, tag=tag, hidden=True))

    def forget_statements(self) -> None:
        """Something changed prepared statements by SQL: no name is known until it is parsed again."""
        self._statements.clear()

    def forget_portals(self) -> None:
        """Something changed portals by SQL: no portal is known until it is bound again."""
        self._portals.clear()

    # What the server sends.

    def received(self, kind: int, body: bytes) -> Expected | None:
        """Return the expected answer that this message is part of, None for one that belongs to none (a notice,
        notification or parameter outside any run). Raises RemoteViolation on one that may not come now.

        After an ErrorResponse, ``discarded`` holds what the server will now skip. A caller may treat DataRow and
        CopyData itself while :meth:`rows_may_come` says so: they change nothing here.
        """
        self.discarded = []
        head = self.head
        if kind in _ANY_TIME:
            return head
        if head is None:
            self._unasked(kind, body)
            return None
        if kind == ERROR:
            return self._failed(head)
        after = _ANSWERS[head.kind].get((head.phase, kind))
        if after is None:
            raise RemoteViolation("an answer that does not fit what was asked")
        if kind == READY:
            self._ready(body)
        else:
            _described(head, kind, body)
        if head.phase is Phase.COPY_IN:
            self._swallowed = 0  # the copy ended well: it read past every Sync that was sent ahead of its end
        head.phase = after
        if after is Phase.DONE:
            self._pop()
            self._settle(head, done=True)
            self._skip_copy_ends()
        elif after is Phase.COPY_IN:
            self._copy_in()
        return head

    def rows_may_come(self, kind: int) -> bool:
        """Whether DataRow or CopyData (``kind``) may come now, and as many as the server likes."""
        head = self.head
        return head is not None and _ANSWERS[head.kind].get((head.phase, kind)) is head.phase

    def _expect(self, expected: Expected) -> Expected:
        self._queue.append(expected)
        if expected.kind in _RUNS:
            self._running += 1
            if expected.kind is not Kind.SYNC:
                self._runner = expected
        elif len(self._queue) == 1:
            self._skip_copy_ends()
        return expected

    def _pop(self) -> Expected:
        entry = self._queue.popleft()
        if entry.kind in _RUNS:
            self._running -= 1
        if entry is self._runner:
            self._runner = None
        return entry

    def _ready(self, body: bytes) -> None:
        self.status = parse_ready(body)
        if self.status == IDLE:
            self._portals.confirmed.clear()

    def _unasked(self, kind: int, body: bytes) -> None:
        """Nothing was asked. Whether a copy that failed had read a Sync is known only when its answer comes."""
        if kind != READY or not self._swallowed:
            raise RemoteViolation("an answer to nothing that was asked")
        self._swallowed -= 1
        self.discarding = False
        self._ready(body)

    def _settle(self, entry: Expected, *, done: bool) -> None:
        done = done and not entry.refusal
        if entry.kind is Kind.PARSE and entry.statement is not None:
            self._statements.settle(entry.statement.name, entry, done=done)
        elif entry.kind is Kind.BIND and entry.portal is not None:
            self._portals.settle(entry.portal.name, entry, done=done)
        elif entry.closes is not None and entry.closes[0] == STATEMENT:
            self._statements.settle(entry.closes[1], entry, done=done)
        elif entry.closes is not None:
            self._portals.settle(entry.closes[1], entry, done=done)

    def _failed(self, head: Expected) -> Expected:
        if head.kind in (Kind.QUERY, Kind.SYNC):
            head.phase = Phase.FAILED
            return head
        while self._queue and self._queue[0].kind is not Kind.SYNC:
            entry = self._pop()
            entry.phase = Phase.FAILED
            self._settle(entry, done=False)
            if entry is not head:
                self.discarded.append(entry)
        # No Sync was sent yet: the server skips whatever comes before one.
        self.discarding = not self._queue
        self._executed = self._executed and not self.discarding
        return head

    def _copy_in(self) -> None:
        """The copy reads from here on: Syncs that were sent before its end get no answer."""
        head = self._queue.popleft()
        while self._queue and self._queue[0].kind is Kind.SYNC:
            self._pop()
            self._swallowed += 1
        self._skip_copy_ends(at_most=1)
        self._queue.appendleft(head)

    def _skip_copy_ends(self, at_most: int = MAX_AHEAD) -> None:
        while at_most and self._queue and self._queue[0].kind is Kind.COPY_END:
            self._queue.popleft()
            at_most -= 1


def _described(head: Expected, kind: int, body: bytes) -> None:
    if kind not in (ROW_DESCRIPTION, NO_DATA, PARAMETER_DESCRIPTION):
        return
    if kind == PARAMETER_DESCRIPTION and head.statement is not None:
        head.statement.types = parse_parameter_description(body)
    elif head.kind is Kind.DESCRIBE_STATEMENT and head.statement is not None:
        head.statement.description = body if kind == ROW_DESCRIPTION else b""
    elif head.kind is Kind.DESCRIBE_PORTAL and head.portal is not None:
        head.portal.description = body if kind == ROW_DESCRIPTION else b""
