"""Messages of the SSH connection protocol (RFC 4254): read strictly, and written.

Rules: a field that is not whole is a violation and never filled up; text has a bound; what is left over where a message
must end is a violation too. What is read here comes after the transport's own checks: the bytes are whole packets.

What it does not do: keys, packets, authentication (the transport's), windows and order (the engine's).

Source: RFC 4251 section 5 (types), RFC 4254 sections 4 to 6.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from broker.wire.violation import RemoteViolation

GLOBAL_REQUEST: Final = 80
REQUEST_FAILURE: Final = 82
OPEN: Final = 90
OPEN_CONFIRMATION: Final = 91
OPEN_FAILURE: Final = 92
WINDOW_ADJUST: Final = 93
DATA: Final = 94
EXTENDED_DATA: Final = 95
EOF: Final = 96
CLOSE: Final = 97
REQUEST: Final = 98
SUCCESS: Final = 99
FAILURE: Final = 100

PROHIBITED: Final = 1  # OPEN_FAILURE: administratively prohibited
RESOURCE_SHORTAGE: Final = 4

STDOUT: Final = 0  # plain data; RFC 4254 has no number for it
STDERR: Final = 1  # SSH_EXTENDED_DATA_STDERR
MAX_NAME: Final = 256  # RFC 4250 section 4.6.1 has 64 for names; texts of requests are a little longer
MAX_WINDOW: Final = 2**32 - 1


class Fields:
    """Reads the fields of one message in order."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def uint32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def boolean(self) -> bool:
        return self._take(1) != b"\x00"

    def string(self) -> bytes:
        return self._take(self.uint32())

    def text(self, limit: int = MAX_NAME) -> str:
        """Return a string of at most ``limit`` bytes as UTF-8."""
        raw = self.string()
        if len(raw) > limit:
            raise RemoteViolation("a text is too long")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise RemoteViolation("a text is not UTF-8") from error

    def rest(self) -> bytes:
        found = self._data[self._at :]
        self._at = len(self._data)
        return found

    def end(self) -> None:
        if self._at != len(self._data):
            raise RemoteViolation("a message is longer than its fields")

    def _take(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) != size:
            raise RemoteViolation("a message ends inside a field")
        self._at += size
        return found


@dataclass(frozen=True, slots=True)
class GlobalRequest:
    """``rest`` is what belongs to this kind."""

    name: str
    want_reply: bool
    rest: bytes


@dataclass(frozen=True, slots=True)
class ChannelOpen:
    """``sender`` is the number that the peer gave the channel. ``rest`` is what belongs to this kind."""

    kind: str
    sender: int
    window: int
    max_packet: int
    rest: bytes


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The channel ``recipient`` of ours is open; the peer calls it ``sender``."""

    recipient: int
    sender: int
    window: int
    max_packet: int


@dataclass(frozen=True, slots=True)
class ChannelRequest:
    name: str
    want_reply: bool
    rest: bytes


@dataclass(frozen=True, slots=True)
class Terminal:
    """A pseudo-terminal: what ``pty-req`` says, but for its modes, which are passed on as they are."""

    term: str
    cols: int
    rows: int
    width: int
    height: int
    modes: bytes


@dataclass(frozen=True, slots=True)
class Size:
    cols: int
    rows: int
    width: int
    height: int


def parse_global_request(body: bytes) -> GlobalRequest:
    fields = Fields(body)
    return GlobalRequest(fields.text(), fields.boolean(), fields.rest())


def parse_open(body: bytes) -> ChannelOpen:
    fields = Fields(body)
    return ChannelOpen(fields.text(), fields.uint32(), fields.uint32(), fields.uint32(), fields.rest())


def parse_confirmation(body: bytes) -> Confirmation:
    fields = Fields(body)
    return Confirmation(fields.uint32(), fields.uint32(), fields.uint32(), fields.uint32())


def parse_open_failure(body: bytes) -> int:
    """Return which channel of ours was refused; why is the peer's own text, which nobody is shown."""
    return Fields(body).uint32()


def parse_request(body: bytes) -> ChannelRequest:
    """Read what follows the channel's number."""
    fields = Fields(body)
    return ChannelRequest(fields.text(), fields.boolean(), fields.rest())


def parse_adjust(body: bytes) -> int:
    fields = Fields(body)
    found = fields.uint32()
    fields.end()
    return found


def parse_data(body: bytes) -> bytes:
    fields = Fields(body)
    found = fields.string()
    fields.end()
    return found


def parse_extended(body: bytes) -> tuple[int, bytes]:
    """Return the kind and the data."""
    fields = Fields(body)
    kind, found = fields.uint32(), fields.string()
    fields.end()
    return kind, found


def parse_terminal(rest: bytes) -> Terminal:
    fields = Fields(rest)
    term = fields.text()
    size = _size(fields)
    found = Terminal(term, size.cols, size.rows, size.width, size.height, fields.string())
    fields.end()
    return found


def parse_size(rest: bytes) -> Size:
    fields = Fields(rest)
    found = _size(fields)
    fields.end()
    return found


def parse_variable(rest: bytes) -> tuple[bytes, bytes]:
    """Return an environment variable's name and value."""
    fields = Fields(rest)
    name, value = fields.string(), fields.string()
    fields.end()
    return name, value


def parse_command(rest: bytes) -> bytes:
    fields = Fields(rest)
    found = fields.string()
    fields.end()
    return found


def parse_text(rest: bytes) -> str:
    """Read a request whose only field is a name: a subsystem, a signal."""
    fields = Fields(rest)
    found = fields.text()
    fields.end()
    return found


def parse_exit_status(rest: bytes) -> int:
    return parse_adjust(rest)


def parse_exit_signal(rest: bytes) -> tuple[str, bool]:
    """Return the signal's name and whether it dumped core; the message that follows is the peer's own text."""
    fields = Fields(rest)
    name, dumped = fields.text(), fields.boolean()
    fields.string()
    fields.string()
    fields.end()
    return name, dumped


def parse_address(rest: bytes) -> str:
    """Return ``HOST:PORT`` of a forwarding, as it was asked for."""
    fields = Fields(rest)
    return f"{fields.text()}:{fields.uint32()}"


def _size(fields: Fields) -> Size:
    return Size(fields.uint32(), fields.uint32(), fields.uint32(), fields.uint32())


# Written.


def string(value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(raw)) + raw


def encode_open(kind: str, sender: int, window: int, max_packet: int) -> bytes:
    return bytes((OPEN,)) + string(kind) + struct.pack(">III", sender, window, max_packet)


def encode_confirmation(recipient: int, sender: int, window: int, max_packet: int) -> bytes:
    return struct.pack(">BIIII", OPEN_CONFIRMATION, recipient, sender, window, max_packet)


def encode_open_failure(recipient: int, reason: int, text: str) -> bytes:
    return struct.pack(">BII", OPEN_FAILURE, recipient, reason) + string(text) + string("en")


def encode_adjust(recipient: int, count: int) -> bytes:
    return struct.pack(">BII", WINDOW_ADJUST, recipient, count)


def encode_data(recipient: int, kind: int, data: bytes) -> bytes:
    if kind == STDOUT:
        return struct.pack(">BII", DATA, recipient, len(data)) + data
    return struct.pack(">BIII", EXTENDED_DATA, recipient, kind, len(data)) + data


def encode_plain(number: int, recipient: int) -> bytes:
    """Write EOF, CLOSE, SUCCESS or FAILURE."""
    return struct.pack(">BI", number, recipient)


def encode_request(recipient: int, name: str, rest: bytes, *, want_reply: bool) -> bytes:
    return struct.pack(">BI", REQUEST, recipient) + string(name) + bytes((want_reply,)) + rest


def encode_terminal(terminal: Terminal) -> bytes:
    sizes = struct.pack(">IIII", terminal.cols, terminal.rows, terminal.width, terminal.height)
    return string(terminal.term) + sizes + string(terminal.modes)


def encode_size(size: Size) -> bytes:
    return struct.pack(">IIII", size.cols, size.rows, size.width, size.height)


def encode_exit_status(status: int) -> bytes:
    return struct.pack(">I", status)


def encode_exit_signal(name: str, *, dumped: bool) -> bytes:
    return string(name) + bytes((dumped,)) + string("") + string("")
