"""Two readers of one row, and one answer: whatever pydantic reads or refuses, the standard library does."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.domain.activation import Activation
from chalicelib.domain.errors import RowUnreadable, StoreUnavailable
from chalicelib.domain.revocation import Revocation
from chalicelib.store.documents import from_document, to_document
from chalicelib.store.plain_documents import read_document
from tests.fakes.archive import Archive
from tests.fakes.clock import START


@lru_cache(1)
def rows() -> list[Any]:
    stores = Archive().stores
    activation = Activation(serial=1, bundle_digest="ab", previous_digest="", author="carol", activated_at=START)
    kept = (stores.chains, stores.sessions, stores.connections, stores.asks, stores.answers, stores.uses)
    found: list[Any] = [row for store in kept for row in store.rows.values()]
    return [*found, activation, Revocation(key="hop:x", number=1, by="carol", why="", at=START)]


def test_every_kind_of_row_reads_the_same() -> None:
    """Every row that a copy may hold, with everything in it."""
    assert len({type(row) for row in rows()}) == 8
    for row in rows():
        assert read_document(type(row), to_document(row)) == from_document(type(row), to_document(row)) == row


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path, *(inner for name, part in value.items() for inner in _places(part, (*path, name)))]
    if isinstance(value, list):
        return [path, *(inner for at, part in enumerate(value) for inner in _places(part, (*path, at)))]
    return [path]


ODD = st.sampled_from(
    [None, True, False, 0, 1, -1, 1.5, "", "x", [], {}, ["x"], [["x", "y"]], {"x": 1}, "2026-11-02T09:30:00", "1"]
)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_what_one_refuses_the_other_does_not_read_otherwise(data: st.DataObject) -> None:
    """Attack: a row that two readers read differently is reviewed as one thing and verified as another. Where the plain
    reader reads something the other reads the very same; it may refuse more, and never less."""
    row = data.draw(st.sampled_from(rows()))
    document = json.loads(to_document(row))
    place = data.draw(st.sampled_from([path for path in _places(document) if path]))
    inner = document
    for step in place[:-1]:
        inner = inner[step]
    if isinstance(inner, dict) and data.draw(st.booleans()):
        del inner[place[-1]]
    else:
        inner[place[-1]] = data.draw(ODD)
    text = json.dumps(document)
    try:
        found = read_document(type(row), text)
    except StoreUnavailable:
        return
    assert from_document(type(row), text) == found


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", "null", "[" * 100_000, '{"key": 1}'])
def test_what_is_no_row_is_refused(text: str) -> None:
    """Never a stack trace, however deep somebody nests."""
    with pytest.raises(StoreUnavailable):
        read_document(Revocation, text)


@pytest.mark.parametrize(
    "moment",
    ["0001-01-01T00:00:00+12:00", "9999-12-31T23:59:59-12:00", "10000-01-01T00:00:00Z", "2026-11-02T09:30:00"],
    ids=["before year 1", "after year 9999", "year 10000", "no zone"],
)
@pytest.mark.parametrize("read", [from_document, read_document])
def test_a_moment_that_utc_cannot_write_is_no_row(read: Any, moment: str) -> None:
    """Attack: one row with such a moment ends every review that comes upon it, if the moment is met when it is hashed
    and not when it is read."""
    row = rows()[0]
    with pytest.raises(RowUnreadable):
        read(type(row), to_document(row).replace(to_document(row.issued_at).strip('"'), moment))
