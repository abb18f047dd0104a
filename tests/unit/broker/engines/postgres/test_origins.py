"""The catalogue: what is read from the target's answers, and what refuses them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broker.engines.postgres.origins import (
    MAX_CATALOGUE_ROWS,
    NOT_PROVED,
    Masked,
    Row,
    Volatility,
    catalogue_queries,
    read_catalogue,
)
from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.masking import ColumnName, MaskMode, MaskRule
from tests.unit.broker.engines.postgres.catalogues import CARD, CUSTOMERS, EMAIL, MASKED, ORDERS, RESULTS, catalogue


def test_rules_of_other_targets_do_not_count() -> None:
    """A column name means nothing on another target; a rule without targets is for all of them."""
    rule = MaskRule(name="m", mode=MaskMode.NULL, targets=("a",), columns=(EMAIL,), detectors=(), patterns=())
    assert Masked.of([rule], "a").columns == {EMAIL}
    assert Masked.of([rule], "b").columns == frozenset()


def test_a_column_is_known_by_its_number() -> None:
    """RowDescription has numbers; system columns hold nothing of a row, a whole row holds everything."""
    target = catalogue()
    assert target.masked_column(CUSTOMERS, 3) == {EMAIL}
    assert target.masked_column(CUSTOMERS, 2) == frozenset()
    assert target.masked_column(CUSTOMERS, -1) == frozenset()
    assert target.masked_column(CUSTOMERS, 0) == {EMAIL, CARD}
    assert target.masked_column(ORDERS, 1) == frozenset()


def test_a_column_added_since_is_not_proved() -> None:
    """A column that the snapshot does not have may be the masked one under its new number."""
    assert catalogue().masked_column(CUSTOMERS, 9) == {NOT_PROVED}


def test_the_snapshot_says_what_it_was_loaded_for() -> None:
    """After a configuration change another rule may name a table whose columns are not in it."""
    other = Masked(columns=MASKED.columns | {ColumnName(schema="public", table="orders", column="note")})
    assert catalogue().covers(MASKED)
    assert not catalogue().covers(other)
    assert catalogue().version == catalogue().version
    assert catalogue().version != read_catalogue(RESULTS, other).version


def test_names_resolve_along_the_path() -> None:
    """pg_catalog first, the temporary schema last, as the engine pins it."""
    target = catalogue()
    assert target.full_name("", "pg_class") == "pg_catalog.pg_class"
    assert target.full_name("", "orders") == "public.orders"
    assert target.full_name("", "nowhere") == "public.nowhere"
    assert target.full_name("other", "orders") == "other.orders"
    assert target.volatility("", "nowhere") is Volatility.UNKNOWN
    assert target.reads_nothing("", "lower")
    assert target.reads_nothing("", "similarity")
    assert not target.reads_nothing("", "reads")
    assert not target.reads_nothing("", "nowhere")


def _with(place: int, rows: Sequence[Row]) -> list[Sequence[Row]]:
    return [*RESULTS[:place], rows, *RESULTS[place + 1 :]]


@pytest.mark.parametrize(
    "results",
    [
        RESULTS[:5],
        [*RESULTS, []],
        _with(0, [["x", "public", "t", "r"]]),
        _with(0, [["1", "public"]]),
        _with(0, [["1", None, "t", "r"]]),
        _with(1, [["1", "public", "t", "x", "email"]]),
        _with(3, [["public", None, "true", "true"]]),
        _with(0, [["1", "public", "t", "r"]] * (MAX_CATALOGUE_ROWS + 1)),
        _with(5, [["pg_temp"], ["pg_catalog"], ["public"]]),
    ],
    ids=["short", "long", "oid", "row", "null", "attnum", "function", "too many", "pg_temp first"],
)
def test_what_is_malformed_or_too_large_refuses_the_connection(results: Sequence[Sequence[Row]]) -> None:
    """A half-read catalogue would prove what it has no right to. `pg_temp` first lets a table be shadowed."""
    with pytest.raises(TargetUnavailable):
        read_catalogue(results, MASKED)


def test_the_queries_are_bounded_and_qualified() -> None:
    """What is asked on the target's connection must run nothing of a user, and read no more than is accepted."""
    queries = catalogue_queries(MASKED)
    assert len(queries) == len(RESULTS)
    assert "('public', 'customers')" in queries[1]
    for query in (queries[0], queries[1], queries[3], queries[4]):
        assert f"LIMIT {MAX_CATALOGUE_ROWS + 1}" in query
    odd = Masked(columns=frozenset({ColumnName(schema="a'b", table="t", column="c")}))
    assert "('a''b', 't')" in catalogue_queries(odd)[1]
