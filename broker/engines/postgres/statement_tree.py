"""From SQL text to PostgreSQL's own parse tree, bounded.

Rules: PostgreSQL's grammar (libpg_query), never a pattern of ours. The tree is libpg_query's JSON as dictionaries: a
node is ``{"SelectStmt": {...}}`` where the grammar allows any node and its bare fields where it allows one kind. The
JSON call is taken, not the protobuf one, because reading the tree from protobuf costs five times as much (17 against
45 us for a pgbench SELECT, 51 against 240 us for a join of two tables with grouping), and because upb refuses trees
deeper than 100 messages, which a chain of 48 ``||`` is.

Limits: the parser is PostgreSQL 18's; what only an older server reads otherwise (or refuses) is judged by 18's reading.
The C code writes the tree recursively without a bound: a chain of some ten thousand operators overflows its stack and
would take the whole broker down (tried). So texts that are long enough for that are counted first, token by token.

Source: libpg_query, https://github.com/pganalyze/libpg_query (pg_query_parse, pg_query_scan).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from postgast import PgQueryError, scan
from postgast.errors import check_error
from postgast.native import lib
from postgast.pg_query_pb2 import Token

from chalicelib.domain.masking import SENTINEL

Fields: TypeAlias = "dict[str, Any]"  # one node's fields, as libpg_query's JSON has them

MAX_TEXT: Final = (
    1024 * 1024
)  # bytes of one query text: parsing 1 MiB takes 0.4 s of the one loop that serves everybody
_UNCOUNTED: Final = 8 * 1024  # a level costs two bytes of text at least (`+1`): at most 4,096
_MAX_CHAIN: Final = 4_096  # levels: a stack of 2 MiB passes 8,000 of them and breaks at 20,000, one of 8 MiB at 75,000
# Parentheses, brackets, comma and semicolon have their ASCII codes. Constants and names make no chain deeper;
# everything else counts as one level, `AND` and `OR` too although the grammar flattens those: a chain can run
# through them.
_OPEN: Final = frozenset({40, 91})
_CLOSE: Final = frozenset({41, 93})
_COMMA: Final = 44
_SEMICOLON: Final = 59
_MAX_TOKENS: Final = 150_000  # a constant is 1 KiB of dictionaries: 150 MiB for the moment that one statement is read
_FLAT: Final = frozenset(
    Token.Value(name)
    for name in ("ICONST", "FCONST", "SCONST", "NULL_P", "TRUE_P", "FALSE_P", "DEFAULT", "IDENT", "PARAM")
)
_SETS: Final = frozenset(Token.Value(name) for name in ("UNION", "INTERSECT", "EXCEPT"))


class NotUnderstood(Exception):
    """The text is no SQL that we can read. The message is a sentence for the client."""


def parse(text: str) -> list[Fields]:
    """Return the statements of ``text``: their raw nodes, with ``stmt``, ``stmt_location`` and ``stmt_len``.

    Raises NotUnderstood for a syntax error, a NUL, a surrogate, and past any bound.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise NotUnderstood("the statement is not valid UTF-8") from error
    if len(raw) > MAX_TEXT:
        raise NotUnderstood(f"the statement is longer than {MAX_TEXT} bytes")
    if b"\0" in raw:  # the C side would read up to it and the server would read on
        raise NotUnderstood("the statement contains a NUL byte")
    try:
        if len(raw) > _UNCOUNTED and _longest_chain(text) > _MAX_CHAIN:
            raise NotUnderstood("the statement is nested too deeply")
        answer = lib.pg_query_parse(raw)
        try:
            check_error(answer)
            tree = bytes(answer.parse_tree)
        finally:
            lib.pg_query_free_parse_result(answer)
        if SENTINEL.encode() in tree or ("\\x" in text and SENTINEL.encode().hex().encode() in tree.lower()):
            # Decoded here as the server will: escapes, adjacent constants, hexadecimal bytea hide a mask in the text.
            raise NotUnderstood("the operation carries a masked value")
        statements: list[Fields] = json.loads(tree)["stmts"]
    except PgQueryError as error:
        raise NotUnderstood(f"the statement does not parse: {error.message}") from error
    except RecursionError as error:
        raise NotUnderstood("the statement is nested too deeply") from error
    except (ValueError, KeyError, UnicodeError) as error:
        raise NotUnderstood("the statement could not be read") from error
    return statements


@dataclass(slots=True)
class _Level:
    """One pair of parentheses: ``chain`` of the item being read, the highest ``inner`` pair in it, ``best`` of the
    items before, and set operations, which run through the commas of their select lists."""

    chain: int = 0
    inner: int = 0
    best: int = 0
    sets: int = 0

    def end_item(self) -> None:
        self.best = max(self.best, self.chain + self.inner)
        self.chain = self.inner = 0

    def height(self) -> int:
        return max(self.best, self.chain + self.inner) + self.sets + 1


def _longest_chain(text: str) -> int:
    """Return an upper bound of the height of the tree of ``text``. Raises NotUnderstood past _MAX_TOKENS."""
    tokens = scan(text).tokens
    if len(tokens) > _MAX_TOKENS:
        raise NotUnderstood(f"the statement has more than {_MAX_TOKENS} words")
    levels = [_Level()]
    longest = 0
    for token in tokens:
        kind = token.token
        level = levels[-1]
        if kind in _OPEN:
            levels.append(_Level())
        elif kind in _CLOSE and len(levels) > 1:
            height = levels.pop().height()
            levels[-1].inner = max(levels[-1].inner, height)
        elif kind == _COMMA:
            level.end_item()
        elif kind == _SEMICOLON and len(levels) == 1:
            longest = max(longest, level.height())
            levels = [_Level()]
        elif kind in _SETS:
            level.sets += 1
        elif kind not in _FLAT:
            level.chain += 1
    return max(longest, sum(level.height() for level in levels))


def only(node: Fields) -> tuple[str, Fields]:
    """Return the kind and the fields of a node that is written ``{kind: fields}``. Raises NotUnderstood."""
    if len(node) != 1:
        raise NotUnderstood("the statement has a node of no known kind")
    return next(iter(node.items()))


def strings(nodes: list[Fields]) -> tuple[str, ...]:
    """Return the texts of a list of String nodes, as names are written; another node gives an empty text."""
    return tuple(node["String"].get("sval", "") if "String" in node else "" for node in nodes)
