"""From the client to the target: every message is decoded, what runs something is judged, and only then sent on.

Rules:
- A simple query is judged whole before any of it is sent. In the extended protocol a text is judged at Parse (one that
  policy only ever blocks is not even sent as a Parse) and again, with its binds, before it can run: at Execute, or at
  Bind where it needs approval, since planning runs functions that say they are immutable.
- Refusal by replacement: a refused message is replaced by one that the server itself must reject, and its error is
  rewritten, so that the abort of the transaction, the discarding up to Sync and ReadyForQuery are the server's own.
  Swallowing the message instead commits what came before it (security.md, PostgreSQL, first row).
- While something waits (for the record, for people), nothing more is sent on; the client is read up to a bound, so that
  its leaving is seen. What was not flushed yet of the same pipeline stays here too: a Parse alone takes table locks.
- COPY data is sent on only into a copy that was judged.

What it does not do: know SQL (``running.Language``), know sockets, mask.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from broker.engines.flow import Connection
from broker.engines.postgres import refusals
from broker.engines.postgres.running import Objection, Prepared, Questions, Reading, Running
from broker.masking import carries_sentinel
from broker.wire.postgres import fields, messages
from broker.wire.postgres.conversation import MAX_AHEAD, Portal, Statement, Unsettled
from broker.wire.postgres.framing import client_reader, frame
from broker.wire.violation import RemoteViolation
from chalicelib.domain.errors import AccessError, Limited, MaskWrittenBack
from chalicelib.domain.identifiers import new_operation_id
from chalicelib.domain.masking import SENTINEL
from chalicelib.domain.operation import Block, Forward, Hold, Operation
from chalicelib.domain.recording import MAX_TEXT

if TYPE_CHECKING:
    from broker.engines.postgres.relay import Relay

C = TypeVar("C", bound=Connection)
Then: TypeAlias = Callable[[Operation, Forward | Block], None]

# Read from the client while one of its operations waits: enough to see it leave, or send its pipeline's end.
WAITING_BYTES: Final = 1024 * 1024
# Judged in one turn of the loop, at about 0.1 ms each: 1 MiB of small messages at once is 7 s without anybody else.
TURN_MESSAGES: Final = 128
MAX_STATEMENTS: Final = 4096  # prepared and not closed; drivers' caches hold hundreds, and each costs memory here too
FAILED: Final = ord("E")  # the transaction's status
_FLUSH: Final = frame(b"H")
_COPY_IN_HINT: Final = "Use INSERT with the rows in its text: then they are on the card."
_IN_PIPELINE: Final = frozenset({messages.PARSE, messages.BIND, messages.DESCRIBE, messages.EXECUTE, messages.CLOSE})
_ENDS_SEGMENT: Final = frozenset({messages.SYNC, messages.QUERY, messages.FLUSH, messages.FUNCTION_CALL})


class ClientSide(Generic[C]):
    """One connection's client. Its methods may raise RemoteViolation and AccessError: the relay ends then."""

    def __init__(self, relay: Relay[C]) -> None:
        self._relay = relay
        self._conversation = relay.conversation
        self._reader = client_reader()
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._inbox_bytes = 0
        self._turn_due = False
        self._full = False
        self._copied_tail = b""
        self._copied: list[bytes] = []  # what comes with a COPY and is not recorded yet: it was not sent on either
        self._copied_bytes = 0
        self._copying: Running | None = None
        self._waiting = False
        self._stalled = False
        self._in_pipeline = False
        self._settled: list[bytes] = []
        self._segment: list[bytes] = []
        self._withdrawn: asyncio.Future[str] | None = None
        # A portal and a statement that cannot exist: no client can guess the name, so none can make it.
        self._nowhere = f"countersign-refused-{secrets.token_hex(16)}".encode()

    # What the relay calls.

    def received(self, data: bytes) -> None:
        """Bytes from the client."""
        frames = self._reader.feed(data)
        for kind, start, end in frames.spans:
            self._inbox.append((kind, frames.data[start:end]))
            self._inbox_bytes += end - start
        self._work()
        if self._inbox and self._inbox_bytes + self._reader.buffered > WAITING_BYTES:
            self._full = True
            self._relay.hold_reading("held")

    def answered(self) -> None:
        """The target answered something."""
        if self._conversation.outstanding < MAX_AHEAD:
            self._relay.release_reading("too far ahead")
        if self._stalled:
            self._stalled = False
            self._work()

    def withdraw(self, why: str) -> bool:
        """Withdraw what is held; return whether something was."""
        if self._withdrawn is None or self._withdrawn.done():
            return False
        self._withdrawn.set_result(why)
        return True

    # HoldClient: what the driver of a hold needs.

    def notify(self, text: str) -> None:
        """Tell the client, at once, in a notice."""
        self._relay.client.write(fields.notice(text))

    async def withdrawn(self) -> str:
        if self._withdrawn is None:
            self._withdrawn = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._withdrawn)

    # Messages.

    def _work(self) -> None:
        """Take messages in order until one has to wait, or others have waited long enough."""
        taken = 0
        while self._inbox and not self._waiting and not self._stalled and not self._relay.over:
            if taken == TURN_MESSAGES:
                self._take_turns()
                return
            taken += 1
            kind, raw = self._inbox[0]
            try:
                self._take(kind, raw)
            except Unsettled:
                # The answers that it depends on are on their way, or come once the server is told to flush them.
                self._stalled = True
                self._segment.append(_FLUSH)
                self._flush()
                return
            self._inbox.popleft()
            self._inbox_bytes -= len(raw)
        if self._conversation.outstanding >= MAX_AHEAD:
            self._relay.hold_reading("too far ahead")
        if self._full and self._inbox_bytes <= WAITING_BYTES:
            self._full = False
            self._relay.release_reading("held")
        self._flush(whole=not self._waiting)

    def _take_turns(self) -> None:
        """Go on after everybody else's turn. Of the pipeline that is being read only whole segments are sent till
        then, as while something waits."""
        self._flush(whole=False)
        if not self._turn_due:
            self._turn_due = True
            asyncio.get_running_loop().call_soon(self._relay.attempt, self._next_turn)

    def _next_turn(self) -> None:
        self._turn_due = False
        self._work()

    def _flush(self, *, whole: bool = True) -> None:
        self._record_copied()  # before it is sent
        ready = self._settled + self._segment if whole else self._settled
        self._settled = []
        if whole:
            self._segment = []
        if ready:
            self._relay.target.write(b"".join(ready))

    def _send(self, raw: bytes) -> None:
        self._segment.append(raw)

    def _end_segment(self) -> None:
        self._settled += self._segment
        self._segment = []

    def _take(self, kind: int, raw: bytes) -> None:
        if kind == messages.TERMINATE:
            self._relay.left()
            return
        if self._conversation.discarding and kind != messages.SYNC:
            return  # the server would skip it
        body = raw[5:]
        match kind:
            case messages.QUERY:
                self._query(raw, body)
            case messages.PARSE:
                self._parse(raw, messages.parse_parse(body))
            case messages.BIND:
                self._bind(raw, messages.parse_bind(body))
            case messages.DESCRIBE:
                self._describe(raw, messages.parse_named(body))
            case messages.EXECUTE:
                self._execute(raw, messages.parse_execute(body))
            case messages.CLOSE:
                named = messages.parse_named(body)
                self._conversation.close(named.kind, named.name)
                self._send(raw)
            case messages.SYNC:
                _empty(body)
                self._conversation.sync()
                self._send(raw)
            case messages.FLUSH:
                _empty(body)
                self._send(raw)
            case messages.COPY_DATA | messages.COPY_DONE | messages.COPY_FAIL:
                self._copy(kind, raw)
            case messages.FUNCTION_CALL:
                self._function_call()
            case _:
                raise RemoteViolation("a message that has no place here")
        self._in_pipeline = kind in _IN_PIPELINE or (self._in_pipeline and kind not in (messages.SYNC, messages.QUERY))
        if kind in _ENDS_SEGMENT and not self._waiting:
            self._end_segment()

    def _query(self, raw: bytes, body: bytes) -> None:
        text = messages.parse_query(body)
        reading = self._read(text)
        if reading.empty:
            self._conversation.query(None)
            self._send(raw)
            return
        self._decide(reading, self._operation(reading, text), partial(self._send_query, raw, reading))

    def _send_query(self, raw: bytes, reading: Reading, op: Operation, verdict: Forward | Block) -> None:
        if isinstance(verdict, Block):
            self._conversation.query(None, refusal=self._refuse(op, verdict))
            self._send(messages.encode_query(_refused_text(op)))
        else:
            self._names_change(reading)
            self._conversation.query(self._begin(op, reading, verdict))
            self._send(raw)
        self._end_segment()

    def _function_call(self) -> None:
        """The fast path names a function by number: nothing can be understood of it, so there are no acts."""
        nothing = Reading(acts=(), shown="function call by object id", refused="the fast-path function call is refused")
        self._decide(nothing, self._operation(nothing, b""), partial(self._send_query, b"", nothing))

    def _parse(self, raw: bytes, parse: messages.Parse) -> None:
        if self._conversation.statements >= MAX_STATEMENTS:
            raise Limited("too many prepared statements are open", hint="Close the ones that are not needed.")
        reading = self._read(parse.text, parse.types)
        op = self._operation(reading, parse.text)
        seen = None if reading.empty else self._relay.connection.preview(op)
        statement = Statement(parse.name, parse.text, parse.types, Prepared(reading, isinstance(seen, Hold)))
        if isinstance(seen, Block):
            self._decide(reading, op, partial(self._send_parse, raw, statement))
        else:
            self._conversation.parse(statement)
            self._send(raw)

    def _send_parse(self, raw: bytes, statement: Statement, op: Operation, verdict: Forward | Block) -> None:
        if isinstance(verdict, Block):
            self._conversation.parse(statement, refusal=self._refuse(op, verdict))
            self._send(messages.encode_parse(statement.name, _refused_text(op)))
        else:  # allowed between the two looks: a new configuration
            self._conversation.parse(statement)
            self._send(raw)

    def _bind(self, raw: bytes, bind: messages.Bind) -> None:
        statement = self._conversation.statement(bind.statement)
        if statement is None:
            unknown = Statement(bind.statement, b"", (), None)
            self._conversation.bind(Portal(bind.portal, unknown, bind), refusal=_UNKNOWN_STATEMENT)
            self._send(messages.encode_bind(b"", self._nowhere))
            return
        portal = Portal(bind.portal, statement, bind)
        self._read_again(portal)
        self._relay.language.bound(bind.portal)
        if _prepared(portal).needs_approval:
            op = self._portal_operation(portal)
            self._decide(_reading(portal), op, partial(self._send_bind, raw, portal))
        else:
            self._conversation.bind(portal)
            self._send(raw)

    def _send_bind(self, raw: bytes, portal: Portal, op: Operation, verdict: Forward | Block) -> None:
        if isinstance(verdict, Block):
            self._conversation.bind(portal, refusal=self._refuse(op, verdict))
            self._send(messages.encode_bind(b"", self._nowhere))
            return
        portal.running = self._begin(op, _reading(portal), verdict)
        self._names_change(_reading(portal))
        self._conversation.bind(portal)
        self._send(raw)

    def _describe(self, raw: bytes, named: messages.Named) -> None:
        if named.kind == messages.STATEMENT:
            self._conversation.describe_statement(self._conversation.statement(named.name))
        else:
            self._conversation.describe_portal(self._conversation.portal(named.name))
        self._send(raw)

    def _execute(self, raw: bytes, execute: messages.Execute) -> None:
        portal = self._conversation.portal(execute.portal)
        if portal is None:
            self._conversation.execute(None, None, refusal=_UNKNOWN_PORTAL)
            self._send(messages.encode_execute(self._nowhere))
        elif _reading(portal).empty:
            self._conversation.execute(portal, None)
            self._send(raw)
        elif isinstance(portal.running, Running):
            # The rest of what was judged when it began (or at Bind): the server runs a portal once.
            self._relay.connection.check_alive()
            self._send_execute(raw, portal, portal.running)
        else:
            op = self._portal_operation(portal)
            self._decide(_reading(portal), op, partial(self._judged_execute, raw, portal))

    def _judged_execute(self, raw: bytes, portal: Portal, op: Operation, verdict: Forward | Block) -> None:
        if isinstance(verdict, Block):
            self._conversation.execute(portal, None, refusal=self._refuse(op, verdict))
            self._send(messages.encode_execute(self._nowhere))
            return
        reading = _reading(portal)
        portal.running = running = self._begin(op, reading, verdict)
        self._send_execute(raw, portal, running)
        self._names_change(reading)

    def _send_execute(self, raw: bytes, portal: Portal, running: Running) -> None:
        if portal.description is None and portal.statement.description is None:
            # Rows are masked by their origin, and the client did not ask what the columns are: we do, and keep it.
            self._conversation.describe_portal(portal, hidden=True)
            self._send(messages.encode_describe(messages.PORTAL, portal.name))
        running.ended = False
        self._conversation.execute(portal, running)
        self._send(raw)

    def _copy(self, kind: int, raw: bytes) -> None:
        taker = self._conversation.copy_taker()
        if taker is None or not isinstance(taker.tag, Running):
            return  # the server ignores it too: a copy that failed, whose client still sends
        if kind == messages.COPY_DATA:
            data = raw[5:]
            self._check_copied(data)
            if self._copied_bytes + len(data) > MAX_TEXT:
                self._record_copied()
            self._copied.append(data)
            self._copied_bytes += len(data)
            self._copying = taker.tag
            taker.tag.bytes += len(data)
        else:
            self._record_copied()
            self._copied_tail = b""
            self._conversation.copy_end()
        self._send(raw)

    def _record_copied(self) -> None:
        """Record what came of a COPY's data: many messages, which may be a line each, in one frame."""
        if self._copied and self._copying is not None:
            text = self._relay.language.client_data(b"".join(self._copied))
            self._copied, self._copied_bytes = [], 0
            self._relay.connection.data(self._copying.op.id, "c2s", text)

    def _check_copied(self, data: bytes) -> None:
        """Raise MaskWrittenBack where the data holds a mask of ours, also across two messages. The approval was of the
        COPY, not of its rows; ending the connection is what makes the server drop those that it has."""
        seen = self._copied_tail + data
        if carries_sentinel(seen):
            raise MaskWrittenBack("the data carries a masked value")
        self._copied_tail = seen[-len(SENTINEL) :]

    # Judging.

    def _read(self, text: bytes, types: tuple[int, ...] = ()) -> Reading:
        """Return what ``text`` means now. Raises Unsettled where an answer must come first, the catalogue's too."""
        language = self._relay.language
        reading = language.read(text, types)
        if reading.uses_names and self._conversation.outstanding:
            raise Unsettled
        if reading.empty or not language.stale(reading):
            return reading
        if self._in_pipeline or self._conversation.status == FAILED:
            # Our question would end the client's own pipeline; in a failed transaction it is not answered at all.
            return language.unproved(text)
        if not self._conversation.outstanding:
            self._ask()
        raise Unsettled

    def _read_again(self, portal: Portal) -> None:
        """A statement lives as long as the session; what its names mean does not."""
        prepared = _prepared(portal)
        reading = self._read(portal.statement.text, portal.statement.types)
        if reading is prepared.reading:
            return
        held = prepared.needs_approval
        if reading.acts != prepared.reading.acts:
            seen = self._relay.connection.preview(self._operation(reading, portal.statement.text))
            held = isinstance(seen, Hold)
        portal.statement.tag = Prepared(reading, held)

    def _ask(self) -> None:
        """Ask the target for its catalogue, between two of the client's messages. Named statements and portals, since
        a simple query would end the client's unnamed ones."""
        texts = self._relay.language.questions()
        for number, text in enumerate(texts):
            name = self._nowhere + b"-%d" % number
            self._send(messages.encode_parse(name, text.encode()))
            self._send(messages.encode_bind(name, name))
            self._send(messages.encode_execute(name))
            self._send(messages.encode_close(messages.PORTAL, name))
            self._send(messages.encode_close(messages.STATEMENT, name))
        self._send(messages.SYNC_FRAME)
        self._conversation.ask(Questions(), len(texts))

    def _operation(self, reading: Reading, text: bytes) -> Operation:
        return Operation(
            id=new_operation_id(self._relay.clock.now()),
            protocol="postgres",
            acts=reading.acts,
            text=reading.shown,
            shown_binds=(),
            literals=reading.literals,
            exact=text,
            binds=(),
        )

    def _portal_operation(self, portal: Portal) -> Operation:
        reading = _reading(portal)
        shown = self._relay.language.binds(reading, portal.bind, portal.statement.types)
        return Operation(
            id=new_operation_id(self._relay.clock.now()),
            protocol="postgres",
            acts=reading.acts,
            text=reading.shown,
            shown_binds=shown.texts,
            literals=reading.literals + shown.literals,
            exact=portal.statement.text,
            binds=portal.bind.values,
        )

    def _decide(self, reading: Reading, op: Operation, then: Then) -> None:
        """Call ``then`` with the verdict: now, or once what it waits for has come."""
        why = Objection(reading.refused, "") if reading.refused else self._objection(reading, op)
        if why is not None:
            op = replace(op, acts=())  # without acts it is a Block, and recorded as one
        if self._conversation.unsure and isinstance(self._relay.connection.preview(op), Hold):
            raise Unsettled  # whether a transaction is open, the answers on their way tell
        verdict = self._relay.connection.submit(op, in_transaction=self._conversation.in_transaction)
        match verdict:
            case Block():
                then(op, verdict if why is None else replace(verdict, public=why.public, hint=why.hint or verdict.hint))
            case Forward() if not verdict.durable:
                then(op, verdict)
            case _:
                self._waiting = True
                self._relay.tasks.start("postgres-wait", self._wait(op, verdict, then))

    def _objection(self, reading: Reading, op: Operation) -> Objection | None:
        if not reading.copies_out and not reading.copies_in:
            return None
        seen = self._relay.connection.preview(op)
        if reading.copies_in and isinstance(seen, Hold):
            # The rows come after the statement: an approval of it would be one of any rows (P4).
            return Objection("this COPY needs approval, and its rows cannot be shown on a card", _COPY_IN_HINT)
        return self._relay.language.objection(reading, seen.masks) if isinstance(seen, Forward) else None

    async def _wait(self, op: Operation, verdict: Forward | Hold, then: Then) -> None:
        try:
            settled = await self._relay.driver.settle(
                self._relay.connection, op, verdict, self, state=self._relay.state
            )
        except AccessError as error:
            self._relay.end(error)
            return
        finally:
            self._withdrawn = None
        self._relay.attempt(partial(self._go_on, op, settled, then))

    def _go_on(self, op: Operation, verdict: Forward | Block, then: Then) -> None:
        ending = self._relay.connection.ending()
        if ending is not None:
            raise ending
        self._waiting = False
        then(op, verdict)
        self._work()

    def _refuse(self, op: Operation, verdict: Block) -> bytes:
        self._relay.connection.outcome(op.id, status="refused", sqlstate=refusals.BLOCKED)
        return refusals.blocked(verdict, op.id)

    def _begin(self, op: Operation, reading: Reading, verdict: Forward) -> Running:
        return Running(op, reading, verdict, self._relay.clock.monotonic_s())

    def _names_change(self, reading: Reading) -> None:
        if reading.renames_statements:
            self._conversation.forget_statements()
        if reading.renames_portals:
            self._conversation.forget_portals()


def _prepared(portal: Portal) -> Prepared:
    tag = portal.statement.tag
    if not isinstance(tag, Prepared):
        raise TypeError("a bound statement was read")
    return tag


def _reading(portal: Portal) -> Reading:
    return _prepared(portal).reading


def _empty(body: bytes) -> None:
    if body:
        raise RemoteViolation("a message longer than its fields")


def _refused_text(op: Operation) -> bytes:
    """A text that no PostgreSQL parses, and that tells the reader of the target's log what it stands for."""
    return f"countersign refused {op.id}".encode()


_UNKNOWN_STATEMENT: Final = refusals.refused(
    "26000",
    "the broker does not know this prepared statement",
    "Prepare it again; names made by SQL PREPARE are run by SQL EXECUTE.",
    "unknown_statement",
)
_UNKNOWN_PORTAL: Final = refusals.refused(
    "34000", "the broker does not know this portal", "Bind it again.", "unknown_portal"
)
