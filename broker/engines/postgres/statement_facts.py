"""Facts: what the walk over a statement collects for policy, and how a call is classed.

Rules: facts only grow while a statement is read; nothing here looks at policy.

Source: see ``statement_lists`` for what functions and settings do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from broker.engines.postgres.origins import Catalogue, Volatility
from broker.engines.postgres.statement_lists import (
    HARMLESS_VOLATILE,
    OPAQUE_FUNCTIONS,
    PRIVILEGE_FUNCTIONS,
    is_guarded_setting,
)
from broker.engines.postgres.statement_scope import Shape
from broker.engines.postgres.statement_tree import Fields
from chalicelib.domain.masking import ColumnName

READ: Final = "sql:read"
WRITE: Final = "sql:write"
SESSION: Final = "sql:session"
PRIVILEGE: Final = "sql:privilege"
OPAQUE: Final = "sql:opaque"


@dataclass(frozen=True, kw_only=True, slots=True)
class Modification:
    """A data-modifying statement anywhere in the tree."""

    word: str
    has_where: bool


@dataclass(slots=True)
class Facts:
    """What was collected. ``classes`` are the actions that calls and relations add to the statement's own."""

    tables: set[str] = field(default_factory=set)
    columns: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    classes: set[str] = field(default_factory=set)
    modifications: list[Modification] = field(default_factory=list)
    locks_rows: bool = False
    selects_into: bool = False
    seen: set[ColumnName] = field(default_factory=set)  # masked columns read anywhere
    outside: bool = False
    stores_masked: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewFacts:
    """What a view's definition does, for whoever reads the view."""

    shape: Shape
    tables: frozenset[str]
    classes: frozenset[str]


def restricts(where: Fields | None) -> bool:
    """Whether a WHERE clause depends on the row at all: ``WHERE true`` does not. A guard rail: ``id = id`` passes."""
    if where is None:
        return False
    todo: list[Any] = [where]
    while todo:
        node = todo.pop()
        if type(node) is list:
            todo.extend(node)
        elif type(node) is dict:
            if "ColumnRef" in node or "CurrentOfExpr" in node:
                return True
            todo.extend(node.values())
    return False


def call_classes(catalogue: Catalogue, schema: str, name: str, args: list[Fields]) -> frozenset[str]:
    """Return the classes that a call adds to its statement; empty: it changes and reaches nothing."""
    if name == "set_config":
        return frozenset({_set_config(args)})
    if name in PRIVILEGE_FUNCTIONS:
        return frozenset({PRIVILEGE})
    if name in OPAQUE_FUNCTIONS:
        return frozenset({OPAQUE})
    if catalogue.volatility(schema, name) is Volatility.CALM:
        return frozenset()
    harmless = name in HARMLESS_VOLATILE and catalogue.is_builtin(schema, name)
    return frozenset() if harmless else frozenset({WRITE})


def _set_config(args: list[Fields]) -> str:
    constants = [arg.get("A_Const", {}).get("sval", {}).get("sval") for arg in args[:2]]
    if len(args) < 2 or constants[0] is None:
        return PRIVILEGE  # which setting it is cannot be read
    values = None if constants[1] is None else (constants[1],)
    return PRIVILEGE if is_guarded_setting(constants[0], values) else SESSION
