"""Which catalogue may be shared, and for how long."""

from __future__ import annotations

from dataclasses import replace

from broker.engines.postgres.catalogues import FRESH_S, Catalogues, Known
from broker.engines.postgres.origins import Catalogue, Masked, Relation
from chalicelib.domain.masking import ColumnName
from tests.fakes.clock import FakeClock

MASKED = Masked(columns=frozenset({ColumnName(schema="public", table="t", column="c")}))


def catalogue(*relations: Relation) -> Catalogue:
    return Catalogue(
        version="1",
        masked=MASKED,
        path=("public",),
        relations={relation.oid: relation for relation in relations},
        by_name={},
        attributes={},
        masked_names={},
        definitions={},
        functions={},
        compiled=frozenset(),
        volatile_operators=frozenset(),
    )


TABLE = Relation(oid=1, schema="public", name="t", kind="r")


def test_a_snapshot_is_shared_while_it_is_fresh() -> None:
    """Others change definitions too, unseen by us."""
    clock = FakeClock()
    shared = Catalogues(clock)
    known = Known(catalogue(TABLE), clock.monotonic_s())
    shared.share("target", "login", known)
    assert shared.shared("target", "login", MASKED) is known
    assert shared.shared("target", "other login", MASKED) is None, "another login may see other names"
    assert shared.shared("other target", "login", MASKED) is None
    clock.advance(FRESH_S)
    assert shared.shared("target", "login", MASKED) is None


def test_a_snapshot_of_other_masks_is_not_used() -> None:
    """A new configuration names other columns: what the old snapshot knows of them is nothing."""
    clock = FakeClock()
    shared = Catalogues(clock)
    shared.share("target", "login", Known(catalogue(TABLE), clock.monotonic_s()))
    assert shared.shared("target", "login", Masked(columns=frozenset())) is None


def test_a_snapshot_with_temporary_relations_is_not_shared() -> None:
    """One session's temporary table would stand for another session's view of the same name."""
    clock = FakeClock()
    shared = Catalogues(clock)
    temporary = replace(TABLE, oid=2, schema="pg_temp")
    shared.share("target", "login", Known(catalogue(TABLE, temporary), clock.monotonic_s()))
    assert shared.shared("target", "login", MASKED) is None


def test_a_change_of_definitions_drops_what_is_shared() -> None:
    """For every login of that target, and for no other target."""
    clock = FakeClock()
    shared = Catalogues(clock)
    known = Known(catalogue(TABLE), clock.monotonic_s())
    for target in ("one", "two"):
        for login in ("a", "b"):
            shared.share(target, login, known)
    shared.drop("one")
    assert shared.shared("one", "a", MASKED) is None
    assert shared.shared("one", "b", MASKED) is None
    assert shared.shared("two", "a", MASKED) is known
