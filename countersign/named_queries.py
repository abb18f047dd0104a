"""The named queries: SQL in files, with parameters by name, and what each returns.

``infra/athena/queries/NAME.sql`` begins with comments: what it answers, ``param NAME KIND [default VALUE]: about`` for
each parameter, and ``columns:``. Rules: the text runs on Athena and on DuckDB as it stands; a value never becomes part
of the text, since ``:name`` becomes ``?`` and the values go beside it; a value that is not of its kind is refused
before anything runs. Reads files; runs nothing.
"""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

from chalicelib.domain.identifiers import SESSION_ID, TXN
from countersign.failures import Exit, Failure

Value: TypeAlias = str | int
MAX_TEXT: Final = 512  # as an event's own texts: nothing longer is in a column
_ABOUT: Final = re.compile(r"-- ([a-z_]+): (.+)\Z")
_PARAM: Final = re.compile(r"-- param ([a-z_]+) (day|txn|session|text|number)(?: default (\S+?))?(?:: (.+))?\Z")
_COLUMNS: Final = re.compile(r"-- columns: ([a-z0-9_, ]+)\Z")
_PLACE: Final = re.compile(r"('[^']*')|:([a-z_]+)")  # what stands in quotes is a text, whatever it looks like
_NAME: Final = re.compile(r"[a-z_]{1,40}\Z")
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


class Kind(StrEnum):
    DAY = "day"
    TXN = "txn"
    SESSION = "session"
    TEXT = "text"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Parameter:
    """``default`` is None where a value must be given; a day's is a number of days from today."""

    name: str
    kind: Kind
    default: str | None
    about: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NamedQuery:
    """``text`` has ``?`` in place of each parameter; ``order`` says of which, place by place."""

    name: str
    about: str
    parameters: tuple[Parameter, ...]
    columns: tuple[str, ...]
    text: str
    order: tuple[str, ...]

    def values(self, given: Mapping[str, str], now: datetime) -> Mapping[str, Value]:
        """Return each parameter's value. Raises Failure (usage) naming the one that is missing, unknown or wrong."""
        unknown = set(given) - {parameter.name for parameter in self.parameters}
        if unknown:
            names = ", ".join(parameter.name for parameter in self.parameters)
            raise Failure(Exit.USAGE, f"{self.name} has no parameter {min(unknown)}", hint=f"It has: {names}.")
        return {parameter.name: _value(self.name, parameter, given, now) for parameter in self.parameters}

    def placed(self, values: Mapping[str, Value]) -> tuple[Value, ...]:
        """Return the values in the order of the ``?`` in the text."""
        return tuple(values[name] for name in self.order)


def folder() -> Path:
    """Return where the queries are: beside the code in a checkout, else where the package put its data."""
    checkout = Path(__file__).resolve().parents[1] / "infra" / "athena" / "queries"
    return checkout if checkout.is_dir() else Path(sysconfig.get_path("data")) / "share" / "countersign" / "queries"


def names() -> Sequence[str]:
    return sorted(path.stem for path in folder().glob("*.sql"))


def read_query(name: str) -> NamedQuery:
    """Return the query of that name. Raises Failure (usage) where there is none."""
    path = folder() / f"{name}.sql"
    if not _NAME.match(name) or not path.is_file():
        raise Failure(Exit.USAGE, "there is no query of that name", hint=f"There are: {', '.join(names())}.")
    return parse_query(path.read_text(encoding="utf-8"))


def parse_query(source: str) -> NamedQuery:
    """Return the query that ``source`` is. Raises ValueError where its comments do not say what they must. Pure."""
    lines = source.splitlines()
    comments = [line for line in lines if line.startswith("--")]
    about = _ABOUT.match(comments[0]) if comments else None
    columns = [found for line in comments if (found := _COLUMNS.match(line))]
    parameters = tuple(
        Parameter(found[1], Kind(found[2]), found[3], found[4] or "")
        for line in comments
        if (found := _PARAM.match(line))
    )
    sql = "\n".join(line for line in lines if not line.startswith("--")).strip()
    order = tuple(found[2] for found in _PLACE.finditer(sql) if found[2])
    if about is None or len(columns) > 1 or set(order) != {parameter.name for parameter in parameters}:
        raise ValueError("a query's comments name it, its columns, and exactly the parameters that its text has")
    return NamedQuery(
        name=about[1],
        about=about[2],
        parameters=parameters,
        columns=tuple(columns[0][1].split(", ")) if columns else (),
        text=_PLACE.sub(lambda found: found[1] or "?", sql),
        order=order,
    )


def _value(query: str, parameter: Parameter, given: Mapping[str, str], now: datetime) -> Value:
    text = given.get(parameter.name)
    if text is None and parameter.default is None:
        about = f": {parameter.about}" if parameter.about else ""
        raise Failure(Exit.USAGE, f"{query} needs --param {parameter.name}=...", hint=f"{parameter.name}{about}")
    if text is None:
        default = parameter.default or ""
        if parameter.kind is Kind.DAY:
            return (now.date() + timedelta(days=int(default))).isoformat()
        text = default
    if not _is_one(parameter.kind, text):
        raise Failure(Exit.USAGE, f"{parameter.name} is no {parameter.kind.value}", hint=_HINTS[parameter.kind])
    return int(text) if parameter.kind is Kind.NUMBER else text


def _is_one(kind: Kind, text: str) -> bool:
    match kind:
        case Kind.DAY:
            return _DAY.match(text) is not None and _is_date(text)
        case Kind.TXN:
            return TXN.match(text) is not None
        case Kind.SESSION:
            return SESSION_ID.match(text) is not None
        case Kind.NUMBER:
            return text.isascii() and text.isdigit() and len(text) <= 9
        case Kind.TEXT:
            return 0 < len(text) <= MAX_TEXT and text.isprintable()


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


_HINTS: Final = {
    Kind.DAY: "A day is YYYY-MM-DD, in UTC.",
    Kind.TXN: "A txn is a chain's id, 26 characters.",
    Kind.SESSION: "A session's id begins with ses_.",
    Kind.NUMBER: "A number is 1 to 9 digits.",
    Kind.TEXT: f"A text is 1 to {MAX_TEXT} characters that can be seen.",
}
