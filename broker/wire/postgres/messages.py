"""Message bodies, both directions: decode strictly, encode exactly.

Rules: a body is read to its last byte and not beyond; text that decides something (names, statements) is UTF-8 without
NUL, since the client encoding is forced to UTF8 and a byte that means one thing here and another there is a way past
the parser. Decoders raise RemoteViolation and nothing else.

Source: PostgreSQL 15, chapter 55.7, "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from broker.wire.postgres.framing import frame
from broker.wire.violation import RemoteViolation

_INT16: Final = Struct("!h")
_INT32: Final = Struct("!i")
_UINT32: Final = Struct("!I")
_COLUMN: Final = Struct("!IhIhih")

QUERY, PARSE, BIND, DESCRIBE, EXECUTE, CLOSE = b"QPBDEC"
FLUSH, SYNC, FUNCTION_CALL, TERMINATE, PASSWORD = b"HSFXp"
COPY_DATA, COPY_DONE, COPY_FAIL = b"dcf"

AUTHENTICATION, BACKEND_KEY, PARAMETER_STATUS, READY = b"RKSZ"
ROW_DESCRIPTION, DATA_ROW, COMMAND_COMPLETE, EMPTY_QUERY = b"TDCI"
ERROR, NOTICE, NOTIFICATION = b"ENA"
PARAMETER_DESCRIPTION, NO_DATA, PARSE_COMPLETE, BIND_COMPLETE, CLOSE_COMPLETE, PORTAL_SUSPENDED = b"tn123s"
COPY_IN_RESPONSE, COPY_OUT_RESPONSE, COPY_BOTH_RESPONSE = b"GHW"

STATEMENT: Final = ord("S")
PORTAL: Final = ord("P")

SYNC_FRAME: Final = frame(b"S")
AUTHENTICATION_OK: Final = frame(b"R", _INT32.pack(0))


class Body:
    """A cursor over one message's body."""

    __slots__ = ("_data", "_place")

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = bytes(data)
        self._place = 0

    def int16(self) -> int:
        return self._number(_INT16)

    def uint16(self) -> int:
        """A count: the protocol's Int16 counts go to 65,535."""
        return self._number(_INT16) & 0xFFFF

    def int32(self) -> int:
        return self._number(_INT32)

    def uint32(self) -> int:
        return self._number(_UINT32)

    def byte(self) -> int:
        return self.take(1)[0]

    def take(self, count: int) -> bytes:
        end = self._place + count
        if count < 0 or end > len(self._data):
            raise RemoteViolation("a message ends before its fields do")
        piece = self._data[self._place : end]
        self._place = end
        return piece

    def text(self) -> bytes:
        """The bytes up to the next NUL, which must be UTF-8."""
        end = self._data.find(b"\0", self._place)
        if end < 0:
            raise RemoteViolation("a string without its end")
        piece = self._data[self._place : end]
        self._place = end + 1
        try:
            piece.decode()
        except UnicodeDecodeError:
            raise RemoteViolation("text that is not UTF-8") from None
        return piece

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._place)

    def end(self) -> None:
        if self._place != len(self._data):
            raise RemoteViolation("a message longer than its fields")

    def _number(self, form: Struct) -> int:
        try:
            value: int = form.unpack_from(self._data, self._place)[0]
        except struct.error:
            raise RemoteViolation("a message ends before its fields do") from None
        self._place += form.size
        return value


@dataclass(frozen=True, slots=True)
class Parse:
    name: bytes
    text: bytes
    types: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bind:
    """``formats`` and ``result_formats``: none (all text), one for all, or one each; 0 text, 1 binary."""

    portal: bytes
    statement: bytes
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    result_formats: tuple[int, ...]

    def format_of(self, number: int) -> int:
        """Return the format of parameter ``number``, from 0."""
        if len(self.formats) > 1:
            return self.formats[number]
        return self.formats[0] if self.formats else 0


@dataclass(frozen=True, slots=True)
class Named:
    """Describe and Close: ``kind`` is STATEMENT or PORTAL."""

    kind: int
    name: bytes


@dataclass(frozen=True, slots=True)
class Execute:
    """``max_rows`` 0 is no limit."""

    portal: bytes
    max_rows: int


@dataclass(frozen=True, slots=True)
class Column:
    """One field of a RowDescription. ``table`` and ``attribute`` are 0 where the server names no origin."""

    name: bytes
    table: int
    attribute: int
    type: int
    size: int
    modifier: int
    format: int


def parse_query(body: bytes) -> bytes:
    """Return the text of a simple Query."""
    reader = Body(body)
    text = reader.text()
    reader.end()
    return text


def parse_parse(body: bytes) -> Parse:
    reader = Body(body)
    name, text = reader.text(), reader.text()
    types = tuple(reader.uint32() for _ in range(reader.uint16()))
    reader.end()
    return Parse(name, text, types)


def parse_bind(body: bytes) -> Bind:
    reader = Body(body)
    portal, statement = reader.text(), reader.text()
    formats = _formats(reader)
    values: list[bytes | None] = []
    for _ in range(reader.uint16()):
        size = reader.int32()
        if size < -1:
            raise RemoteViolation("a parameter of negative length")
        values.append(None if size == -1 else reader.take(size))
    result_formats = _formats(reader)
    reader.end()
    if len(formats) > 1 and len(formats) != len(values):
        raise RemoteViolation("as many parameter formats as parameters, one, or none")
    return Bind(portal, statement, formats, tuple(values), result_formats)


def _formats(reader: Body) -> tuple[int, ...]:
    formats = tuple(reader.int16() for _ in range(reader.uint16()))
    if any(code not in (0, 1) for code in formats):
        raise RemoteViolation("a format that is neither text nor binary")
    return formats


def parse_named(body: bytes) -> Named:
    reader = Body(body)
    kind, name = reader.byte(), reader.text()
    reader.end()
    if kind not in (STATEMENT, PORTAL):
        raise RemoteViolation("neither a statement nor a portal")
    return Named(kind, name)


def parse_execute(body: bytes) -> Execute:
    reader = Body(body)
    portal, max_rows = reader.text(), reader.int32()
    reader.end()
    return Execute(portal, max_rows)


def parse_row_description(body: bytes) -> tuple[Column, ...]:
    reader = Body(body)
    columns = tuple(_column(reader) for _ in range(reader.uint16()))
    reader.end()
    return columns


def _column(reader: Body) -> Column:
    name = reader.text()
    table, attribute, kind, size, modifier, form = _COLUMN.unpack(reader.take(_COLUMN.size))
    return Column(name, table, attribute, kind, size, modifier, form)


def parse_parameter_description(body: bytes) -> tuple[int, ...]:
    """Return the parameters' type OIDs."""
    reader = Body(body)
    types = tuple(reader.uint32() for _ in range(reader.uint16()))
    reader.end()
    return types


def encode_row_description(columns: Iterable[Column]) -> bytes:
    parts = [c.name + b"\0" + _COLUMN.pack(c.table, c.attribute, c.type, c.size, c.modifier, c.format) for c in columns]
    return frame(b"T", _INT16.pack(len(parts)) + b"".join(parts))


def parse_row(body: bytes | memoryview) -> tuple[bytes | None, ...]:
    """Return the values of a DataRow."""
    reader = Body(body)
    values: list[bytes | None] = []
    for _ in range(reader.uint16()):
        size = reader.int32()
        if size < -1:
            raise RemoteViolation("a value of negative length")
        values.append(None if size == -1 else reader.take(size))
    reader.end()
    return tuple(values)


def encode_row(values: Sequence[bytes | None]) -> bytes:
    pieces = [_INT16.pack(len(values))]
    for value in values:
        if value is None:
            pieces.append(b"\xff\xff\xff\xff")
        else:
            pieces += (_INT32.pack(len(value)), value)
    return frame(b"D", b"".join(pieces))


def parse_parameter_status(body: bytes) -> tuple[bytes, bytes]:
    reader = Body(body)
    name, value = reader.text(), reader.text()
    reader.end()
    return name, value


def encode_parameter_status(name: bytes, value: bytes) -> bytes:
    return frame(b"S", name + b"\0" + value + b"\0")


def parse_ready(body: bytes) -> int:
    """Return the transaction status: ``I``, ``T`` or ``E`` as a byte."""
    if len(body) != 1 or body not in (b"I", b"T", b"E"):
        raise RemoteViolation("a transaction status that is not known")
    return body[0]


def encode_ready(status: bytes) -> bytes:
    return frame(b"Z", status)


def parse_backend_key(body: bytes) -> tuple[int, bytes]:
    """Return (process id, secret): the secret has 4 bytes in 3.0, up to 256 in 3.2."""
    reader = Body(body)
    process, secret = reader.uint32(), reader.rest()
    if not 4 <= len(secret) <= 256:
        raise RemoteViolation("a cancel key of wrong length")
    return process, secret


def encode_backend_key(process: int, secret: bytes) -> bytes:
    return frame(b"K", _UINT32.pack(process) + secret)


def parse_command_complete(body: bytes) -> bytes:
    """Return the tag, such as ``SELECT 5``."""
    reader = Body(body)
    tag = reader.text()
    reader.end()
    return tag


def parse_notification(body: bytes) -> tuple[int, bytes, bytes]:
    """Return (process id, channel, payload)."""
    reader = Body(body)
    found = reader.uint32(), reader.text(), reader.text()
    reader.end()
    return found


def encode_notification(process: int, channel: bytes, payload: bytes) -> bytes:
    return frame(b"A", _UINT32.pack(process) + channel + b"\0" + payload + b"\0")


def encode_query(text: bytes) -> bytes:
    return frame(b"Q", text + b"\0")


def encode_parse(name: bytes, text: bytes) -> bytes:
    return frame(b"P", name + b"\0" + text + b"\0" + _INT16.pack(0))


def encode_bind(portal: bytes, statement: bytes) -> bytes:
    """Return a Bind without parameters, all results as text."""
    return frame(b"B", portal + b"\0" + statement + b"\0" + _INT16.pack(0) * 3)


def encode_describe(kind: int, name: bytes) -> bytes:
    return frame(b"D", bytes((kind,)) + name + b"\0")


def encode_close(kind: int, name: bytes) -> bytes:
    return frame(b"C", bytes((kind,)) + name + b"\0")


def encode_execute(portal: bytes, max_rows: int = 0) -> bytes:
    return frame(b"E", portal + b"\0" + _INT32.pack(max_rows))
