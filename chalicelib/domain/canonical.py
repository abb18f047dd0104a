"""One way to turn a value into bytes, for everything that is hashed or signed.

A subset of RFC 8785 (JCS): objects with sorted keys, no white space, UTF-8, strings, integers, booleans, null and
lists. Floats are refused: their text differs between writers, and nothing that we hash needs one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

Json: TypeAlias = "str | int | bool | Sequence[Json] | Mapping[str, Json] | None"

_PLAIN: Final = frozenset({str, int, bool, type(None)})
# Made once: a review makes ten of these texts a session, and making the encoder costs as much as a short text.
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical(value: Json) -> bytes:
    """Return the canonical bytes of ``value``. Raises TypeError on a float or any other type. Pure."""
    _check(value)
    return _ENCODER.encode(value).encode()


def _check(value: Json) -> None:
    kind = type(value)  # by exact type first, which is what nearly everything has: this is half of what a hash costs
    if kind in _PLAIN:
        return
    if isinstance(value, list | tuple):
        for item in value:
            if type(item) not in _PLAIN:
                _check(item)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a canonical object's key is a string, not {type(key).__name__}")
            if type(item) not in _PLAIN:
                _check(item)
    elif not isinstance(value, str | int):
        raise TypeError(f"{kind.__name__} has no canonical form")


class Digested:
    """A frozen value that remembers its digest: each hop's is asked for by every link and every reader. For values
    that cannot change, and so for nothing that is not frozen through and through. A copy (``replace``) has its own."""

    __slots__ = ("_digest",)
    _digest: str

    def _digest_of(self, hashed: Callable[[], Json]) -> str:
        """Return the digest of what ``hashed`` returns, which is asked for once."""
        try:
            return self._digest
        except AttributeError:
            found = digest(hashed())
            object.__setattr__(self, "_digest", found)
            return found


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Json) -> str:
    """Return ``sha256_hex(canonical(value))``."""
    return sha256_hex(canonical(value))


def timestamp(moment: datetime) -> str:
    """Return aware UTC ``moment`` as RFC 3339 with milliseconds and ``Z``: the one text form that we hash.

    Raises ValueError on a moment without a time zone, and on one that UTC has no form for."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone has no timestamp")
    try:
        utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError as error:  # year 1 east of Greenwich: whoever reads it from outside looks for a ValueError
        raise ValueError("a moment that has no form in UTC") from error
    return f"{utc.isoformat(timespec='milliseconds')[:-6]}Z"  # without its "+00:00"
