"""Rows as documents, read with the standard library alone: what an auditor's machine has.

``documents`` reads the same texts with pydantic, which the base install does not have (ADR 0007); a copy of evidence is
verified there all the same. Rules, as strict as those: exact JSON types, no coercion, a moment with a time zone, a
tuple from a list, a dataclass from an object; a member that no field has is left alone, a field without a default that
is missing is an error. A test holds both to the same answer for every kind of row.
"""

from __future__ import annotations

import dataclasses
import json
import re
import types
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import RowUnreadable

T = TypeVar("T")
Reader = Callable[[Any], Any]
# As rows are written; ``fromisoformat`` reads much more, and what two readers read differently is no evidence.
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)\Z", re.ASCII)


def read_document(kind: type[T], text: str) -> T:
    """Return the ``kind`` that ``text`` holds. Raises RowUnreadable where it holds none."""
    try:
        shape: Any = kind
        value: T = _reader(shape)(json.loads(text))
    except (ValueError, TypeError, RecursionError):
        # ``from None``: the error's text quotes what it was given.
        raise RowUnreadable("a stored row cannot be read", kind=kind.__name__) from None
    return value


@cache
def _reader(kind: Any) -> Reader:
    """Return what reads one type of the domain's dataclasses. Raises TypeError on a type that none of them has."""
    kind = getattr(kind, "__supertype__", kind)  # a NewType is its own type's text
    origin = get_origin(kind)
    if kind in (str, int, bool, type(None)):
        return _exactly(kind)
    if kind is datetime:
        return _moment
    if origin in (Union, types.UnionType):
        return _one_of(tuple(_reader(part) for part in get_args(kind)))
    if origin is tuple:
        return _tuple(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _named(kind)
    if dataclasses.is_dataclass(kind):
        return _members(kind)
    raise TypeError(f"{kind} is in no row")


def _exactly(kind: type) -> Reader:
    def read(value: Any) -> Any:
        if type(value) is not kind:  # so that true is no number
            raise ValueError(f"not {kind.__name__}")
        return value

    return read


def _moment(value: Any) -> datetime:
    if not isinstance(value, str) or not _MOMENT.match(value):
        raise ValueError("not a moment")
    found = datetime.fromisoformat(value)
    timestamp(found)  # raises where UTC has no form for it, as nothing that we wrote
    return found


def _named(kind: type[StrEnum]) -> Reader:
    def read(value: Any) -> StrEnum:
        if not isinstance(value, str):
            raise ValueError("not a name")  # noqa: TRY004 - of the text that was read
        return kind(value)

    return read


def _one_of(readers: tuple[Reader, ...]) -> Reader:
    def read(value: Any) -> Any:
        for reader in readers:
            try:
                return reader(value)
            except ValueError:
                continue
        raise ValueError("none of what it may be")

    return read


def _tuple(parts: tuple[Any, ...]) -> Reader:
    every = _reader(parts[0]) if len(parts) == 2 and parts[1] is Ellipsis else None
    each = () if every is not None else tuple(_reader(part) for part in parts)

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise ValueError("not a list")  # noqa: TRY004 - of the text that was read
        if every is not None:
            return tuple(every(item) for item in value)
        if len(value) != len(each):
            raise ValueError("a list of another length")
        return tuple(reader(item) for reader, item in zip(each, value, strict=True))

    return read


def _members(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    readers: Mapping[str, Reader] = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind)}

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("not an object")  # noqa: TRY004 - of the text that was read
        return kind(**{name: reader(value[name]) for name, reader in readers.items() if name in value})

    return read
