"""From the target to the client: every message is attributed, masked, recorded, then sent.

Rules: rows are taken by runs, as many as came at once. Where nothing can be masked in them a run passes as it is,
counted by headers; every other row is rewritten first; an error in masking ends the connection, nothing passes
unmasked. Notices, errors and notifications belong to no operation and take the union of the connection's masks. What
the recording gets is what the client sees, before it is sent; rows are told as they are and become text later. The
error of a message that we replaced is ours. ``session_authorization`` and ``is_superuser`` never change under a pinned
login, and the parser assumes UTF-8 and standard strings: a change of any of these ends the connection.

What it does not do: judge, decide what is masked (``running.Language``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

from broker.engines.flow import Connection
from broker.engines.postgres.running import Prepared, Questions, Reading, Rows, Running, outcome_tag, take_left_out
from broker.engines.postgres.upstream import MAX_ANSWER_BYTES
from broker.recorder.lines import MAX_ROWS_BYTES
from broker.wire.postgres import fields, messages
from broker.wire.postgres.conversation import IDLE, Expected, Kind
from broker.wire.postgres.framing import FrameReader
from broker.wire.violation import RemoteViolation
from chalicelib.domain.errors import Denied, TargetUnavailable
from chalicelib.domain.recording import MAX_TEXT

if TYPE_CHECKING:
    from broker.engines.postgres.relay import Relay

C = TypeVar("C", bound=Connection)

WATCHED: Final = frozenset(
    {b"session_authorization", b"is_superuser", b"client_encoding", b"standard_conforming_strings"}
)
_BODY: Final = 5
Span: TypeAlias = tuple[int, int, int]


class TargetSide(Generic[C]):
    """One connection's target. Its methods may raise RemoteViolation and AccessError: the relay ends then."""

    def __init__(self, relay: Relay[C], reader: FrameReader) -> None:
        self._relay = relay
        self._conversation = relay.conversation
        self._reader = reader

    def received(self, data: bytes) -> None:
        """Bytes from the target."""
        frames = self._reader.feed(data)
        source, spans, out = frames.data, frames.spans, list[bytes]()
        sent = at = 0  # everything before ``sent`` is in ``out`` or withheld
        while at < len(spans) and not self._relay.over:
            kind, start, end = spans[at]
            if kind in (messages.DATA_ROW, messages.COPY_DATA):
                run = _run(spans, at)
                sent = self._rows(kind, source, run, sent, out)
                at += len(run)
                continue
            out += (source[sent:start], self._message(kind, source[start:end]))
            sent = end
            at += 1
        if at and not self._relay.over:
            out.append(source[sent : spans[-1][2]])
        self._relay.client.write(b"".join(out))
        self._relay.settled()

    def abandon(self) -> None:
        """The connection ended: how what still runs ended is not known."""
        head = self._conversation.head
        if head is not None and isinstance(head.tag, Running) and not head.tag.ended:
            self._outcome(head.tag, "unknown")

    # Rows.

    def _rows(self, kind: int, source: bytes, run: Sequence[Span], sent: int, out: list[bytes]) -> int:
        """Take a run of rows: what was rewritten goes into ``out``, with what was before it. Return the place up to
        which everything is there or withheld."""
        running = self._rows_begin(kind)
        if running is None:
            for _, start, end in run:
                self._own_row(source[start:end])
            out.append(source[sent : run[0][1]])
            return run[-1][2]
        rows = running.copied if kind == messages.COPY_DATA else running.result
        if rows is None:
            raise RemoteViolation("rows without a description")
        headers = _BODY * len(run)
        size = run[-1][2] - run[0][1] - headers
        running.rows += len(run) if kind == messages.DATA_ROW else 0
        running.bytes += size
        bodies: list[bytes] | None = None
        if not rows.plain:
            bodies = []
            for _, start, end in run:
                raw = source[start:end]
                row = rows.row(raw)
                if row is not raw:  # else it leaves in one run with what is around it
                    out += (source[sent:start], row)
                    sent = end
                bodies.append(row[_BODY:])
            size = sum(map(len, bodies))
        if running.verdict.record_full:
            told = bodies if bodies is not None else [source[start + _BODY : end] for _, start, end in run]
            self._record(running, kind, told)
        running.left_rows += len(run)
        running.left_bytes += size
        return sent

    def _record(self, running: Running, kind: int, bodies: Sequence[bytes]) -> None:
        """Tell the record what the client is about to see."""
        connection, op = self._relay.connection, running.op.id
        if kind == messages.COPY_DATA:
            for some in _parts(bodies, MAX_TEXT):
                connection.data(op, "s2c", b"".join(some).decode("utf-8", "backslashreplace"))
        elif running.result is not None:
            for some in _parts(bodies, MAX_ROWS_BYTES):
                connection.rows_later(op, running.result.columns, some, running.result.lines)

    def _rows_begin(self, kind: int) -> Running | None:
        """Return whose rows begin; None for the answers to our own questions."""
        head = self._conversation.head
        if head is None or not self._conversation.rows_may_come(kind):
            raise RemoteViolation("rows that nobody asked for")
        if isinstance(head.tag, Questions):
            return None
        if not isinstance(head.tag, Running):
            raise RemoteViolation("rows of nothing that was judged")
        running = head.tag
        if running.result is None and kind == messages.DATA_ROW:
            running.result = self._result(head, running)
        return running

    def _own_row(self, raw: bytes) -> None:
        head = self._conversation.head
        if head is None or not isinstance(head.tag, Questions):
            raise RemoteViolation("rows that nobody asked for")
        head.tag.bytes += len(raw)
        if head.tag.bytes > MAX_ANSWER_BYTES:
            raise TargetUnavailable("the target's catalogue is larger than this broker reads")
        values = messages.parse_row(raw[_BODY:])
        head.tag.results[-1].append([None if v is None else v.decode("utf-8", "surrogateescape") for v in values])

    def _result(self, head: Expected, running: Running) -> Rows:
        portal = head.portal
        if portal is None:
            raise RemoteViolation("rows without a description")
        description = portal.description if portal.description is not None else portal.statement.description
        if not description:
            raise RemoteViolation("rows without a description")
        return self._relay.language.rows(
            running.reading, running.number, description, portal.bind.result_formats, running.verdict.masks
        )

    # Everything else.

    def _message(self, kind: int, raw: bytes) -> bytes:
        """Return what the client gets for ``raw``; it may be nothing."""
        body = raw[_BODY:]
        match kind:
            case messages.NOTICE:
                return self._notice(body)
            case messages.NOTIFICATION:
                return self._notification(body)
            case messages.PARAMETER_STATUS:
                self._parameter(body)
                return raw
            case messages.ERROR:
                return self._error(body)
            case _:
                head = self._conversation.received(kind, body)
                if head is not None:
                    self._progressed(head, kind, body)
                if kind == messages.READY and self._conversation.status == IDLE:
                    self._relay.language.transaction_ended()
                return b"" if head is not None and head.hidden else raw

    def _progressed(self, head: Expected, kind: int, body: bytes) -> None:
        running = head.tag if isinstance(head.tag, Running) else None
        match kind:
            case messages.COMMAND_COMPLETE if isinstance(head.tag, Questions):
                head.tag.results.append([])
            case messages.READY if isinstance(head.tag, Questions):
                self._relay.language.answered(head.tag.results[:-1], in_transaction=self._conversation.status != IDLE)
            case messages.COPY_OUT_RESPONSE if running is not None:
                binary = body[:1] == b"\x01"
                running.copied = self._relay.language.copy_rows(running.verdict.masks, binary=binary)
            case messages.PARSE_COMPLETE if head.statement is not None:
                self._relay.language.parsed(head.statement.name, _reading(head))
            case messages.CLOSE_COMPLETE if head.closes is not None and head.closes[0] == messages.STATEMENT:
                self._relay.language.closed(head.closes[1])
            case messages.ROW_DESCRIPTION if running is not None:
                running.result = self._relay.language.rows(
                    running.reading, running.number, body, None, running.verdict.masks
                )
            case messages.COMMAND_COMPLETE | messages.EMPTY_QUERY | messages.PORTAL_SUSPENDED if running is not None:
                self._completed(head, running, kind, body)
            case messages.READY if running is not None:
                self._outcome(running, "error" if running.sqlstate else "ok")
            case _:
                pass

    def _completed(self, head: Expected, running: Running, kind: int, body: bytes) -> None:
        if kind == messages.PORTAL_SUSPENDED:
            running.tags = ["suspended"]
        else:
            if kind == messages.COMMAND_COMPLETE:
                tag = messages.parse_command_complete(body).decode()
                running.tags = [*running.tags, tag] if head.kind is Kind.QUERY else [tag]
                self._relay.language.ran(running.reading, running.number)
            running.number += 1
            running.result = running.copied = None
        if head.kind is Kind.EXECUTE:
            self._outcome(running, "ok")

    def _error(self, body: bytes) -> bytes:
        told = fields.parse_fields(body)
        fatal = told.get("V", told.get("S", b"ERROR")) in (b"FATAL", b"PANIC")
        state = told.get("C", b"").decode("ascii", "replace")
        head = None
        if self._conversation.head is not None:
            head = self._conversation.received(messages.ERROR, body)
        elif not fatal:
            raise RemoteViolation("an error that belongs to nothing")
        if head is not None and isinstance(head.tag, Questions) and not fatal:
            raise TargetUnavailable("the target's catalogue could not be read", sqlstate=state)
        for entry in (*([head] if head is not None else []), *self._conversation.discarded):
            if isinstance(entry.tag, Running):
                entry.tag.sqlstate = state
                entry.tag.result = None
                if entry.kind is not Kind.QUERY or fatal:
                    self._outcome(entry.tag, "error")
        if fatal:
            self._relay.client.write(fields.encode_error(self._relay.language.fields(told)))
            self._relay.fatal_passed()
            return b""
        if head is not None and head.refusal:
            return head.refusal
        shown = self._relay.language.fields(told)
        return fields.encode_error(shown)

    def _notice(self, body: bytes) -> bytes:
        shown = self._relay.language.fields(fields.parse_fields(body))
        text = " ".join(shown[letter].decode("utf-8", "replace") for letter in "MDH" if letter in shown)
        severity = shown.get("V", shown.get("S", b"NOTICE")).decode("ascii", "replace")
        self._relay.connection.notice(severity, shown.get("C", b"").decode("ascii", "replace"), text)
        return fields.encode_notice(shown)

    def _notification(self, body: bytes) -> bytes:
        process, channel, payload = messages.parse_notification(body)
        shown = self._relay.language.payload(payload)
        self._relay.connection.notice("NOTIFY", "00000", f"{channel.decode()}: {shown.decode('utf-8', 'replace')}")
        return messages.encode_notification(process, channel, shown)

    def _parameter(self, body: bytes) -> None:
        name, value = messages.parse_parameter_status(body)
        if name in WATCHED and self._relay.parameters.get(name) != value:
            raise Denied(
                "the login on the target, or its way of reading text, changed",
                hint="Connect again, and do not change role, encoding or string syntax.",
            )
        self._relay.parameters[name] = value

    def _outcome(self, running: Running, status: str) -> None:
        running.ended = True
        self._relay.connection.outcome(
            running.op.id,
            status=status,
            tag=outcome_tag(running),
            rows=running.rows,
            bytes=running.bytes,
            sqlstate=running.sqlstate,
            duration_ms=int((self._relay.clock.monotonic_s() - running.started_s) * 1000),
            left_out=take_left_out(running),
        )


def _run(spans: Sequence[Span], at: int) -> Sequence[Span]:
    """Return the messages of one kind that follow each other from ``at``. Pure."""
    kind, end = spans[at][0], at + 1
    while end < len(spans) and spans[end][0] == kind:
        end += 1
    return spans[at:end]


def _parts(bodies: Sequence[bytes], most: int) -> Iterator[Sequence[bytes]]:
    """Give ``bodies`` in pieces of at most ``most`` bytes together, one that is longer by itself. Pure."""
    ends = list(accumulate(map(len, bodies)))
    begun = told = 0
    while begun < len(bodies):
        end = max(bisect_right(ends, told + most, begun), begun + 1)
        yield bodies[begun:end]
        begun, told = end, ends[end - 1]


def _reading(head: Expected) -> Reading:
    if not isinstance(head.tag, Prepared):
        raise TypeError("a parsed statement was read")
    return head.tag.reading
