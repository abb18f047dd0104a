"""Values: what a mask looks like in each PostgreSQL type and format, and where detectors can look.

Rules: the mask must be a value of the type, or the value becomes NULL. Text-like types have the same bytes in both
formats. JSON gets a JSON string; text arrays one element; ``bytea`` the bytes. Every other type becomes NULL.
Detectors read text-like values as they are, and what a type writes otherwise (a card number in a bigint or numeric,
hexadecimal bytea, JSON with ``\\u`` escapes, arrays in binary) decoded; a hit that cannot be rewritten in place
takes the whole value.

What it does not do: composite and range types, hstore and the like are searched as text only, and in binary only as the
bytes lie there.

Source: PostgreSQL 15 `src/include/catalog/pg_type.dat` (object ids), manual 8.14, 8.15; binary formats as in
`src/backend/utils/adt` (numeric_send, array_send, jsonb_send).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker.masking import Detectors, masked_value
from chalicelib.domain.masking import MaskMode

_TEXT: Final = frozenset({18, 19, 25, 142, 705, 1042, 1043, 2275})  # char name text xml unknown bpchar varchar cstring
_TEXT_ARRAYS: Final = frozenset({143, 1002, 1003, 1009, 1014, 1015, 1263})
_JSON: Final = 114
_JSONB: Final = 3802
_JSON_ARRAYS: Final = frozenset({199, 3807})
_BYTEA: Final = 17
_INTEGERS: Final = frozenset({20, 21, 23, 26})
_NUMERIC: Final = 1700
_QUIET: Final = (
    frozenset(  # cannot hold anything that a detector looks for: bool, float, date and time, uuid, network, bits
        {16, 700, 701, 1082, 1083, 1114, 1184, 1186, 1266, 2950, 869, 650, 829, 774, 1560, 1562, 27, 28, 29, 3220}
    )
)
_FIRST_USER_OID: Final = 16384
_INT32: Final = struct.Struct("!i")
_ARRAY_HEAD: Final = struct.Struct("!iiI")
_MAX_DIGITS: Final = 40  # a card number has 19; longer numerics are not decoded


class Sort(StrEnum):
    """How a type is read and masked."""

    TEXT = "text"
    TEXT_ARRAY = "text_array"
    JSON = "json"
    JSONB = "jsonb"
    BYTEA = "bytea"
    INTEGER = "integer"
    NUMERIC = "numeric"
    QUIET = "quiet"
    OTHER = "other"  # in text format searched as text; masked as NULL


@dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """A column's type and format. ``decodes``: a detector must look at more than the bytes as they lie in the row."""

    sort: Sort
    binary: bool
    user: bool = False

    def decodes(self, row: bytes) -> bool:
        """Whether a detector must look at more of this column than the bytes of its ``row`` as they lie there."""
        match self.sort:
            case Sort.TEXT | Sort.TEXT_ARRAY | Sort.QUIET | Sort.OTHER:
                return False
            case Sort.INTEGER | Sort.NUMERIC:
                return self.binary
            case Sort.BYTEA:
                return not self.binary
            case Sort.JSON | Sort.JSONB:
                return b"\\" in row


def kind_of(type_oid: int, form: int) -> Value:
    """Return how values of this type in this format (0 text, 1 binary) are read. Pure."""
    user = type_oid >= _FIRST_USER_OID
    return Value(sort=_sort(type_oid), binary=form == 1, user=user)


def _sort(type_oid: int) -> Sort:
    if type_oid in _TEXT:
        return Sort.TEXT
    if type_oid in _TEXT_ARRAYS or type_oid in _JSON_ARRAYS:
        return Sort.TEXT_ARRAY
    if type_oid in _INTEGERS:
        return Sort.INTEGER
    if type_oid in _QUIET:
        return Sort.QUIET
    return {_JSON: Sort.JSON, _JSONB: Sort.JSONB, _BYTEA: Sort.BYTEA, _NUMERIC: Sort.NUMERIC}.get(type_oid, Sort.OTHER)


def redact(raw: bytes, value: Value, rule: str, mode: MaskMode) -> bytes | None:
    """Return what stands for a whole value; None is NULL."""
    if mode is MaskMode.NULL:
        return None
    match value.sort:
        case Sort.TEXT:
            return masked_value(raw, rule, mode)
        case Sort.JSON | Sort.JSONB:
            text = b'"' + masked_value(b"", rule, MaskMode.REDACT) + b'"'
            return b"\x01" + text if value.sort is Sort.JSONB and value.binary else text
        case Sort.BYTEA:
            mask = masked_value(raw, rule, MaskMode.REDACT)
            return mask if value.binary else b"\\x" + mask.hex().encode()
        case Sort.TEXT_ARRAY:
            return None if value.binary else b'{"' + masked_value(b"", rule, MaskMode.REDACT) + b'"}'
        case Sort.OTHER if value.user and not value.binary:  # citext, enums, domains: drivers take these as text
            return masked_value(raw, rule, MaskMode.REDACT)
        case Sort.INTEGER | Sort.NUMERIC | Sort.QUIET | Sort.OTHER:
            return None


def mask_found(raw: bytes, value: Value, detectors: Detectors) -> bytes | None:
    """Return ``raw`` with what detectors find in it masked; None is NULL; ``raw`` itself where they find nothing."""
    match value.sort:
        case Sort.QUIET:
            return raw
        case Sort.TEXT:
            return detectors.mask_bytes(raw)
        case Sort.JSON | Sort.JSONB:
            return _json(raw, value, detectors)
        case Sort.BYTEA:
            return _bytea(raw, value, detectors)
        case Sort.TEXT_ARRAY:
            return _array(raw, detectors) if value.binary else detectors.mask_bytes(raw)
        case Sort.INTEGER:
            digits = str(int.from_bytes(raw, signed=True)).encode() if value.binary else raw
            return None if detectors.find(digits) else raw
        case Sort.NUMERIC:
            digits = _numeric(raw) if value.binary else raw
            return None if detectors.find(digits) else raw
        case Sort.OTHER if value.user and not value.binary:
            return detectors.mask_bytes(raw)
        case Sort.OTHER:
            return None if detectors.find(raw) else raw


def is_text(value: Value) -> bool:
    """Return whether a value's bytes are the text that a person reads. Pure."""
    return not value.binary or value.sort in (Sort.TEXT, Sort.JSON)


def shown_value(raw: bytes, value: Value) -> str:
    """Return a value as text for the recording. Binary values of types not known here are hexadecimal."""
    if is_text(value):
        return raw.decode("utf-8", "replace")
    match value.sort:
        case Sort.JSONB:
            return raw[1:].decode("utf-8", "replace")
        case Sort.INTEGER:
            return str(int.from_bytes(raw, signed=True))
        case Sort.NUMERIC:
            return _numeric(raw).decode()
        case _:
            return "\\x" + raw.hex()


def _json(raw: bytes, value: Value, detectors: Detectors) -> bytes | None:
    head = raw[:1] if value.sort is Sort.JSONB and value.binary else b""
    text = raw[len(head) :]
    masked = detectors.mask_bytes(text)
    if masked is None:
        return None
    if b"\\u" in masked or b"\\/" in masked:  # an escape may hide a letter of what a detector looks for
        try:
            plain = json.dumps(json.loads(masked), ensure_ascii=False).encode("utf-8", "replace")
        except (ValueError, RecursionError):
            plain = b""
        hits = detectors.find(plain)
        if hits:
            return redact(raw, value, hits[0].rule, hits[0].mode)
    return head + masked


def _bytea(raw: bytes, value: Value, detectors: Detectors) -> bytes | None:
    if value.binary:
        return detectors.mask_bytes(raw)
    if not raw.startswith(b"\\x"):  # bytea_output = escape: readable bytes stand for themselves
        return detectors.mask_bytes(raw)
    try:
        plain = bytes.fromhex(raw[2:].decode("ascii"))
    except ValueError:
        return None
    masked = detectors.mask_bytes(plain)
    if masked is plain:
        return raw
    return None if masked is None else b"\\x" + masked.hex().encode()


def _array(raw: bytes, detectors: Detectors) -> bytes | None:
    """Mask the elements of a binary array of text-like elements (array_send); what is malformed becomes NULL."""
    if not detectors.may_hit(raw):
        return raw
    try:
        dimensions, _, _ = _ARRAY_HEAD.unpack_from(raw)
        at = _ARRAY_HEAD.size + 8 * dimensions
        if not 0 <= dimensions <= 6:  # MAXDIM
            return None
        parts = [raw[:at]]
        while at < len(raw):
            (length,) = _INT32.unpack_from(raw, at)
            element = raw[at + 4 : at + 4 + max(length, 0)]
            if len(element) != max(length, 0):
                return None
            at += 4 + len(element)
            masked = detectors.mask_bytes(element) if length >= 0 else None
            if length >= 0 and masked is None:
                return None  # the head says whether elements may be NULL; the whole value is simpler and as safe
            parts.append(_INT32.pack(-1) if masked is None else _INT32.pack(len(masked)) + masked)
    except struct.error:
        return None
    return b"".join(parts)


def _numeric(raw: bytes) -> bytes:
    """Return the whole part of a binary numeric as digits (numeric_send: base 10,000 digits after an 8-byte head)."""
    try:
        count, weight, _, _ = struct.unpack_from("!hhHH", raw)
        digits = struct.unpack_from(f"!{max(0, count)}H", raw, 8)
    except struct.error:
        return b""
    if weight < 0 or weight * 4 > _MAX_DIGITS:
        return b"0"
    whole = [*digits[: weight + 1], *[0] * (weight + 1 - len(digits))]
    return str(int("".join(f"{digit:04d}" for digit in whole))).encode()
