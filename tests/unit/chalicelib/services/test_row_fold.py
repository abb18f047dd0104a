"""Folding archived changes: a history without holes, and rows that hang on rows that were archived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.domain.archived_item import ArchivedItem, Change, items_of
from chalicelib.services.row_fold import RowFold
from tests.fakes.digested import Digested


def changes() -> list[ArchivedItem]:
    """Every change of a sound archive, in which a session was closed after its rows were made."""
    digested = Digested(young=True)
    digested.stores.sessions.close(digested.archive.db.session_id, "done", digested.clock.now())
    digested.pump()
    keys = sorted(digested.stores.objects.keys("items/v1/"))
    return [change for key in keys for change in items_of(digested.stores.objects.get(key))[0]]


def folded(found: list[ArchivedItem]) -> dict[str, list[str]]:
    fold = RowFold()
    for number, change in enumerate(found):
        fold.meet(change, f"object-{number}")
    named: dict[str, list[str]] = {}
    for finding in fold.findings(whole=True):
        named.setdefault(finding.key, []).append(finding.what)
    return named


def of(found: list[ArchivedItem], table: str, change: Change = Change.INSERT) -> ArchivedItem:
    return next(one for one in found if (one.table, one.change) == (table, change))


def without(table: str, change: Change = Change.INSERT) -> Callable[[list[ArchivedItem]], list[ArchivedItem]]:
    return lambda found: [one for one in found if one is not of(found, table, change)]


def test_a_sound_history_in_any_order() -> None:
    """A batch that was late is met late."""
    assert folded(changes()) == {}
    assert folded(changes()[::-1]) == {}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (without("sessions"), "was never archived"),
        (without("chains"), "was never archived"),
        (without("asks"), "was never archived"),
        (without("connections"), "were never made"),
        (lambda found: [*found, replace(of(found, "uses"), sequence="9000")], "was made twice"),
        (
            lambda found: [
                one
                if one is not of(found, "sessions", Change.MODIFY)
                else replace(one, before_sha256="ab" * 32, sequence="9000")
                for one in found
            ],
            "lacks a change that was never archived",
        ),
        (
            lambda found: [*found, replace(of(found, "sessions", Change.MODIFY), key='{"id":"ses_x"}')],
            "that it was made is not archived",
        ),
        (
            lambda found: [*found, replace(of(found, "answers"), change=Change.REMOVE, sequence="9000")],
            "was removed: no row of this table ever is",
        ),
    ],
)
def test_a_history_with_a_hole(change: Callable[[list[ArchivedItem]], list[ArchivedItem]], what: str) -> None:
    """Whoever kept one change from the archive left what came before and after it."""
    named = folded(change(changes()))
    assert any(what in one for found in named.values() for one in found), named


def test_a_connection_row_that_the_next_does_not_name() -> None:
    """Numbered as it should be, and another one: the next row has the hash of what was there."""
    found = changes()
    first = of(found, "connections")
    other = first.state.item.replace("10.0.3.17", "10.9.9.9")
    forged = [one if one is not first else replace(one, state=replace(one.state, item=other)) for one in found]
    named = folded(forged)
    assert ["is not the row that" in what for what in named[str(first.keys()["id"])]] == [True]


def test_the_same_change_in_two_objects_is_named() -> None:
    """A duplicate would let somebody replace one and keep the other."""
    found = changes()
    assert f"object-{len(found)}" in folded([*found, found[0]])
