"""ArchivedItem: one change of one table row, as the locked bucket keeps it: a line of an immutable object.

Why: whoever can write a table can edit a row and say that it always was so. The table's stream tells every change as it
happens; kept where nobody can change it, it shows the edit, and what was there before. Objects:
``items/v1/TABLE/YYYY-MM-DD/HH/ULID.ndjson.gz``, the hour and the ULID of the batch's first change, so that a batch that
is delivered again has the same key. A line is flat and its columns have one type each, so that Athena reads it.

What is archived of a row is decided here (:func:`state_of`): its JSON text, without a session's secret's verifier (of
which the hash stays); its other attributes where they are known. Of the ``once`` table there are only those claims that
stand for evidence, and of these only the payload's hash. What is not known is kept as a hash, so that a change of it
shows and its text goes nowhere. Pure. Source: Amazon DynamoDB Streams API, ``Record``, ``StreamRecord``, ``Identity``.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Protocol

from chalicelib.domain.canonical import Json, canonical, sha256_hex, timestamp
from chalicelib.domain.identifiers import ulid_of

ITEM_VERSION: Final = 1
ITEMS: Final = "items/v1"
MAX_OBJECT: Final = 64 * 1024 * 1024  # unpacked: Lambda hands over 6 MB of records at most, and a row has 400 KB

# Every table whose stream is archived, and the names of its key attributes.
TABLE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "chains": ("txn", "place"),
    "sessions": ("id",),
    "connections": ("session", "id"),
    "asks": ("id",),
    "answers": ("ask", "person"),
    "uses": ("ask", "n"),
    "revocations": ("id",),
    "once": ("id",),
    "activations": ("line", "serial"),
}
ONCE: Final = "once"
# What a row has besides its key and its JSON text: indexes' keys, the count of its changes, the feed's epoch.
_KNOWN: Final = frozenset({"revision", "txn", "line", "created", "number", "day", "boot", "open", "opened"})
# Claims that stand for evidence: tickets made and used, issuers' tokens taken, credentials minted. The others (who
# waits, who was shown a card, which request was repeated) are bookkeeping of minutes.
ONCE_KINDS: Final = frozenset({"ticket", "redeemed", "token", "mint"})
_GZIP: Final = 16 + zlib.MAX_WBITS
_MOST_DIGITS: Final = 40  # the API reference's own bound of a sequence number
# Rows of ours nest five deep. A row that an administrator nests until parsers give up must not end what reads it.
_MOST_DEEP: Final = 32


class Change(StrEnum):
    """What happened to a row."""

    INSERT = "insert"
    MODIFY = "modify"
    REMOVE = "remove"


@dataclass(frozen=True, kw_only=True, slots=True)
class RowState:
    """What may be archived of a row. ``item`` is its JSON text, empty where it has none; ``attributes`` the canonical
    JSON text of the rest. Neither is a part of the key."""

    item: str
    attributes: str

    def sha256(self) -> str:
        return sha256_hex(f"{self.item}\n{self.attributes}".encode())

    def document(self) -> Mapping[str, Json]:
        """Return what ``item`` holds, empty where it has none."""
        return json.loads(self.item) if self.item else {}

    def rest(self) -> Mapping[str, Json]:
        return json.loads(self.attributes) if self.attributes else {}


GONE: Final = RowState(item="", attributes="")


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchivedItem:
    """One change. ``key`` is the canonical JSON text of the row's key attributes; ``state`` what the row is after the
    change (GONE where it was removed), ``before_sha256`` the hash of what it was before a modify or remove.

    ``sequence`` is the stream's number; ``by`` is who did it where AWS says so (its own expiry of old rows); ``fault``
    says why it should not have happened.
    """

    table: str
    change: Change
    key: str
    state: RowState
    before_sha256: str
    sequence: str
    at: datetime
    by: str
    fault: str

    def line(self) -> bytes:
        """Return the NDJSON line, newline included."""
        said: Mapping[str, Json] = {
            "v": ITEM_VERSION,
            "table": self.table,
            "change": self.change.value,
            "at": timestamp(self.at),
            "seq": self.sequence,
            "key": self.key,
            "item": self.state.item,
            "sha256": sha256_hex(self.state.item.encode()),
            "attributes": self.state.attributes,
            "before_sha256": self.before_sha256,
            "by": self.by,
            "fault": self.fault,
        }
        return canonical(said) + b"\n"

    def leaf(self) -> bytes:
        """Return what a Merkle tree has for it: the hash of its whole line."""
        return hashlib.sha256(self.line()).digest()

    def keys(self) -> Mapping[str, Json]:
        """Return the row's key attributes."""
        keys: Mapping[str, Json] = json.loads(self.key)
        return keys

    def name(self) -> str:
        """Return the row's name: table and key."""
        return row_name(self.table, self.key)

    def order(self) -> int:
        """Return its place among the changes of one row; 0 where it has none that a stream gives."""
        number = self.sequence.isascii() and self.sequence.isdigit() and len(self.sequence) <= _MOST_DIGITS
        return int(self.sequence) if number else 0


class Rows(Protocol):
    """The tables' rows as they are now, read consistently, in the state that is archived of them."""

    def states(self, table: str, keys: Sequence[str]) -> Mapping[str, RowState]:
        """Return the state of each row of ``table`` that is there, by the text of its key. Raises StoreUnavailable."""
        ...

    def keys(self, table: str) -> Iterable[str]:
        """Give the text of the key of every row of ``table``. Raises StoreUnavailable."""
        ...


def row_name(table: str, key: str) -> str:
    """Return how findings and audit events name a row: ``TABLE KEY/KEY``. Pure."""
    keys: Mapping[str, Json] = json.loads(key)
    return f"{table} {'/'.join(str(keys.get(name, '')) for name in TABLE_KEYS.get(table, tuple(sorted(keys))))}"


def item_key(table: str, sequence: str, at: datetime) -> str:
    """Return the key of the object whose first change has this sequence number. Pure."""
    moment = timestamp(at)
    low = hashlib.sha256(canonical([table, sequence])).digest()[:10]
    return f"{ITEMS}/{table}/{moment[:10]}/{moment[11:13]}/{ulid_of(at, low)}.ndjson.gz"


def key_text(keys: Mapping[str, Any]) -> str:
    """Return the text of key attributes that have DynamoDB's type tags. Pure."""
    return canonical({name: _attribute(value) for name, value in keys.items()}).decode()


def state_of(table: str, keys: Iterable[str], image: Mapping[str, Any]) -> RowState | None:
    """Return what may be archived of a row, from its image with DynamoDB's type tags; None where nothing may be.

    ``keys`` are the names of its key attributes. Total: a row that nobody of ours wrote has a state too. Pure.
    """
    row = {name: _attribute(value) for name, value in image.items()}
    if table == ONCE:
        return _claim(row)
    rest: dict[str, Json] = {}
    item = ""
    for name, value in row.items():
        if name in keys:
            continue
        if name == "doc" and (read := _document(value)) is not None:
            item = str(value)
            if table == "sessions":
                item, rest["verifier_sha256"] = _without_verifier(read)
        else:
            rest[name] = value if name in _KNOWN else {"sha256": _hash(value)}
    return RowState(item=item, attributes=canonical(rest).decode())


def items_of(stored: bytes) -> tuple[list[ArchivedItem], bool]:
    """Return the changes in an object, and whether all of it is what we write. Total, bounded, pure."""
    unpacking = zlib.decompressobj(_GZIP)
    try:
        raw = unpacking.decompress(stored, MAX_OBJECT)
    except zlib.error:
        return [], False
    found: list[ArchivedItem] = []
    whole = unpacking.eof and not unpacking.unused_data and raw != b""
    for line in raw.split(b"\n")[:-1]:
        item = _item(line + b"\n")
        if item is None:
            whole = False
        else:
            found.append(item)
    return found, whole and raw.endswith(b"\n")


def item_of_line(line: bytes) -> ArchivedItem | None:
    """Return the change that one line (newline included) holds; None where it is not what we write. Total, pure."""
    return _item(line) if len(line) <= MAX_OBJECT else None


def ends(stored: bytes) -> bool:
    """Return whether an object is not one of gzip's that breaks off. Bounded, pure."""
    unpacking = zlib.decompressobj(_GZIP)
    try:
        unpacking.decompress(stored, MAX_OBJECT)
    except zlib.error:
        return bool(stored)
    return unpacking.eof


def _item(line: bytes) -> ArchivedItem | None:
    try:
        said = json.loads(line)
        item = ArchivedItem(
            table=said["table"],
            change=Change(said["change"]),
            key=said["key"],
            state=RowState(item=said["item"], attributes=said["attributes"]),
            before_sha256=said["before_sha256"],
            sequence=said["seq"],
            at=datetime.fromisoformat(said["at"]),
            by=said["by"],
            fault=said["fault"],
        )
        texts = all(isinstance(value, str) for name, value in said.items() if name != "v")
        readable = (
            isinstance(item.keys(), dict)
            and isinstance(item.state.document(), dict)
            and isinstance(item.state.rest(), dict)
        )
        return item if texts and readable and item.line() == line else None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None


def _attribute(tagged: Any) -> Json:
    match tagged:
        case {"S": str(text)}:
            return text
        case {"N": str(number)}:
            return int(number) if number.lstrip("-").isdecimal() else number
        case {"BOOL": bool(flag)}:
            return flag
        case {"NULL": True}:
            return None
        case _:
            return {"sha256": sha256_hex(json.dumps(tagged, sort_keys=True, default=repr).encode())}


def _document(text: Json) -> dict[str, Any] | None:
    """Return the JSON object in a row's text; None where it is none that a row of ours could be: it may be anything."""
    if not isinstance(text, str):
        return None
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair can be escaped, and not be written
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_shallow(value) else None


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_MOST_DEEP):
        parts = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [inner for part in parts for inner in part]
        if not level:
            return True
    return False


def _without_verifier(session: dict[str, Any]) -> tuple[str, str]:
    """A SCRAM verifier lets whoever has it pass for the broker, so only its hash goes to the archive: enough to show
    that it was replaced, and of a secret that is random, no help in finding it."""
    verifier = session.get("verifier")
    sha256 = "" if verifier is None else sha256_hex(json.dumps(verifier, sort_keys=True).encode())
    if "verifier" in session:
        session["verifier"] = None
    return json.dumps(session, separators=(",", ":"), ensure_ascii=False), sha256


def _claim(row: Mapping[str, Json]) -> RowState | None:
    kind = str(row.get("id", "")).partition("#")[0]
    if kind not in ONCE_KINDS:
        return None
    rest = {"kind": kind, "payload_sha256": _hash(row.get("payload", "")), "expires": row.get("expires", 0)}
    return RowState(item="", attributes=canonical(rest).decode())


def _hash(value: Json) -> str:
    if isinstance(value, str):
        return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
    return sha256_hex(canonical(value))
