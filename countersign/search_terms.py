"""What `search` is asked: words, "quoted phrases" and fields, each of which an operation must have, or with a minus
before it must not.

    drop table -verdict:block target:orders-prod actor:deploy "where id = 7"

Rules: a field is a lower-case word and a colon; one that we do not know is refused and never searched for as a word,
since `verdit:block` that silently finds nothing reads as "there was none". In quotes everything is a word. A value is
bound, never written into a statement. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.identifiers import SESSION_ID, TXN
from countersign.failures import Exit, Failure
from countersign.named_queries import MAX_TEXT

MAX_TERMS: Final = 32  # each is one more condition on every line that is read
_TERM: Final = re.compile(
    r"(?P<minus>-?)(?:(?P<field>[a-z]+):)?(?:\"(?P<quoted>[^\"]*)\"|(?P<plain>[^\s\"]+))(?=\s|\Z)"
)
_OPERATION: Final = re.compile(r"op_[0-9a-z]{26}\Z")
_VERDICTS: Final = ("forward", "mask", "block", "held")
_OUTCOMES: Final = ("ok", "error", "refused", "unknown")


@dataclass(frozen=True, slots=True)
class Field:
    """``condition`` is SQL with one ``?`` for each of ``places``; ``holds`` says which values there may be."""

    about: str
    condition: str
    holds: Callable[[str], bool]
    places: int = 1


def _any(_: str) -> bool:
    return True


def _in_list(column: str) -> str:
    return f"len(list_filter({column}, x -> lower(x) = lower(?))) > 0"


FIELDS: Final = {
    "actor": Field("who acted: part of issuer#subject", "strpos(lower(actor), lower(?)) > 0", _any),
    "originator": Field("whom it was for: part of issuer#subject", "strpos(lower(originator), lower(?)) > 0", _any),
    "target": Field("the target's name", "target = ?", _any),
    "principal": Field("the login on it", "principal = ?", _any),
    "verdict": Field(
        "forward, mask, block; or held, for what waited for people",
        "CASE WHEN lower(?) = 'held' THEN coalesce(len(ask_ids), 0) > 0 ELSE verdict = lower(?) END",
        lambda value: value.lower() in _VERDICTS,
        2,
    ),
    "outcome": Field("ok, error, refused, unknown", "outcome = lower(?)", lambda value: value.lower() in _OUTCOMES),
    "class": Field(
        "sql:read, or sql, or read",
        "len(list_filter(actions, x -> x = lower(?) OR split_part(x, ':', 1) = lower(?)"
        " OR split_part(x, ':', 2) = lower(?))) > 0",
        _any,
        3,
    ),
    "table": Field(
        "schema.table, or its last part",
        "len(list_filter(tables, x -> lower(x) = lower(?) OR split_part(lower(x), '.', 2) = lower(?))) > 0",
        _any,
        2,
    ),
    "rule": Field("a rule that determined it", _in_list("rules"), _any),
    "approver": Field("who answered for it", _in_list("people"), _any),
    "txn": Field("the chain", "txn = ?", lambda value: TXN.match(value) is not None),
    "session": Field("the session", "session_id = ?", lambda value: SESSION_ID.match(value) is not None),
    "op": Field("the operation", "operation_id = ?", lambda value: _OPERATION.match(value) is not None),
}


@dataclass(frozen=True, slots=True)
class Term:
    """A word where ``field`` is empty; ``wanted`` is False behind a minus."""

    field: str
    value: str
    wanted: bool


@dataclass(frozen=True, slots=True)
class Terms:
    terms: tuple[Term, ...]

    @property
    def words(self) -> tuple[str, ...]:
        """The words that there must be."""
        return tuple(term.value for term in self.terms if not term.field and term.wanted)

    @property
    def unwanted(self) -> tuple[str, ...]:
        return tuple(term.value for term in self.terms if not term.field and not term.wanted)

    def condition(self, *, words: bool) -> tuple[str, list[str]]:
        """Return SQL over a row of ``events`` that all terms hold, and its values; without ``words`` the fields alone.
        What is not there is not it: a NULL is False, so that a minus finds it."""
        parts, values = ["true"], list[str]()
        for term in self.terms:
            if not term.field and not words:
                continue
            field = FIELDS[term.field] if term.field else _WORD
            parts.append(f"{'' if term.wanted else 'NOT '}coalesce({field.condition}, false)")
            values += [term.value] * field.places
        return " AND ".join(parts), values


_WORD: Final = Field("", "strpos(lower(text), lower(?)) > 0", _any)


def terms_of(words: Sequence[str]) -> Terms:
    """Return what the command's arguments ask for. Raises Failure (usage) naming the word that is none."""
    text = " ".join(words).strip()
    found: list[Term] = []
    place = 0
    while place < len(text):
        one = _TERM.match(text, place)
        if one is None:
            hint = 'Words, "phrases in quotes", and FIELD:VALUE; the shell wants its own quotes around all of it.'
            raise Failure(Exit.USAGE, f"this is no word: {text[place : place + 40]}", hint=hint)
        found.append(_term(one))
        place = one.end() + len(text[one.end() :]) - len(text[one.end() :].lstrip())
    if len(found) > MAX_TERMS:
        raise Failure(Exit.USAGE, f"at most {MAX_TERMS} words and fields")
    return Terms(tuple(found))


def _term(found: re.Match[str]) -> Term:
    name, quoted = found["field"] or "", found["quoted"]
    value = quoted if quoted is not None else found["plain"]
    if name and name not in FIELDS:
        hint = f"There are: {', '.join(FIELDS)}. In quotes it is a word: '\"{name}:{value}\"'."
        raise Failure(Exit.USAGE, f"there is no field {name}", hint=hint)
    if not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise Failure(Exit.USAGE, f"a word has 1 to {MAX_TEXT} characters that can be printed")
    if name and not FIELDS[name].holds(value):
        raise Failure(Exit.USAGE, f"{name} is none: {value[:60]}", hint=f"{name}: {FIELDS[name].about}")
    return Term(name, value, not found["minus"])
