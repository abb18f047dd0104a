"""One way to turn a value into bytes, for everything that is hashed or signed.

A subset of RFC 8785 (JCS): objects with sorted keys, no white space, UTF-8, strings, integers, booleans, null and
lists. Floats are refused: their text differs between writers, and nothing that we hash needs one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

Json: TypeAlias = "str | int | bool | Sequence[Json] | Mapping[str, Json] | None"


def canonical(value: Json) -> bytes:
    """Return the canonical bytes of ``value``. Raises TypeError on a float or any other type. Pure."""
    _check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def _check(value: Json) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a canonical object's key is a string, not {type(key).__name__}")
            _check(item)
        return
    if isinstance(value, list | tuple):
        for item in value:
            _check(item)
        return
    raise TypeError(f"{type(value).__name__} has no canonical form")


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Json) -> str:
    """Return ``sha256_hex(canonical(value))``."""
    return sha256_hex(canonical(value))


def timestamp(moment: datetime) -> str:
    """Return aware UTC ``moment`` as RFC 3339 with milliseconds and ``Z``: the one text form that we hash."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone has no timestamp")
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
