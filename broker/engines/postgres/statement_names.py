"""Names that a session gave to statements: prepared statements (SQL and protocol share them) and cursors.

An EXECUTE or FETCH is judged as what its name stands for. A name that is not known here makes it ``opaque``: what it
would run was not read. Rules: a name is noted only when the server said that it exists, since a PREPARE of a taken name
fails and leaves the earlier statement in place.

Source: PostgreSQL 15 manual, 55.2.3 Extended Query; PREPARE, DEALLOCATE, DISCARD, DECLARE, CLOSE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from chalicelib.domain.errors import Limited

if TYPE_CHECKING:
    from broker.engines.postgres.statement import Statement

MAX_NAMES: Final = 4096  # per session and kind; a driver's statement cache holds hundreds


class NamedKind(StrEnum):
    """What a statement does with a name."""

    PREPARE = "prepare"
    EXECUTE = "execute"
    DEALLOCATE = "deallocate"
    DEALLOCATE_ALL = "deallocate_all"
    DECLARE = "declare"
    FETCH = "fetch"
    CLOSE = "close"
    CLOSE_ALL = "close_all"
    DISCARD_ALL = "discard_all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """``inner`` is what PREPARE and DECLARE name, and what EXECUTE and FETCH were found to stand for."""

    kind: NamedKind
    name: str
    inner: Statement | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What is known now. Mappings are live views: take them for one call of ``understand``."""

    prepared: Mapping[str, Statement]
    cursors: Mapping[str, Statement]


NO_NAMES: Final = Names(prepared=MappingProxyType({}), cursors=MappingProxyType({}))


class NameTracker:
    """The names of one session. Owned by its engine, not thread-safe. Raises Limited past MAX_NAMES."""

    def __init__(self, known: Names = NO_NAMES) -> None:
        self._prepared: dict[str, Statement] = dict(known.prepared)
        self._cursors: dict[str, Statement] = dict(known.cursors)

    def view(self) -> Names:
        """Return what ``understand`` takes."""
        return Names(prepared=MappingProxyType(self._prepared), cursors=MappingProxyType(self._cursors))

    def parsed(self, name: str, statement: Statement) -> None:
        """A protocol Parse of ``name`` completed."""
        self._note(self._prepared, name, statement)

    def closed(self, name: str) -> None:
        """A protocol Close of the statement ``name`` completed. Idempotent."""
        self._prepared.pop(name, None)

    def ran(self, statement: Statement) -> None:
        """``statement`` completed without an error: note what it named or unnamed."""
        named = statement.named
        if named is None:
            return
        match named.kind:
            case NamedKind.PREPARE if named.inner is not None:
                self._note(self._prepared, named.name, named.inner)
            case NamedKind.DECLARE if named.inner is not None:
                self._note(self._cursors, named.name, named.inner)
            case NamedKind.DEALLOCATE:
                self._prepared.pop(named.name, None)
            case NamedKind.DEALLOCATE_ALL:
                self._prepared.clear()
            case NamedKind.CLOSE:
                self._cursors.pop(named.name, None)
            case NamedKind.CLOSE_ALL:
                self._cursors.clear()
            case NamedKind.DISCARD_ALL:
                self._prepared.clear()
                self._cursors.clear()
            case _:
                pass

    @staticmethod
    def _note(table: dict[str, Statement], name: str, statement: Statement) -> None:
        if name not in table and len(table) >= MAX_NAMES:
            raise Limited("too many prepared statements or cursors in one session", hint="Deallocate some of them.")
        table[name] = statement
