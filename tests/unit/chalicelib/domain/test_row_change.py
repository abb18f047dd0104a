"""Which changes of a row may be: those that our own stores make, and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chalicelib.domain.archived_item import GONE, TABLE_KEYS, Change, RowState
from chalicelib.domain.row_change import change_fault

GRANT = {"id": "grt_1", "expires_at": "2026-11-02T10:00:00Z"}
PENDING: dict[str, Any] = {"id": "ses_1", "status": "pending", "grant": None, "closed_at": None, "close_reason": ""}
GRANTED = {**PENDING, "status": "granted", "grant": GRANT}
CLOSED = {**GRANTED, "status": "closed", "closed_at": "2026-11-02T09:50:00Z", "close_reason": "done"}
OPEN: dict[str, Any] = {"id": "con_1", "boot": "b", "number": 1, "peer": "10.0.0.1", "sealed_at": None, "exit": ""}
SEALED = {**OPEN, "sealed_at": "2026-11-02T09:50:00Z", "exit": "client"}


def state(doc: dict[str, Any], revision: int = 1, **rest: Any) -> RowState:
    return RowState(item=json.dumps(doc), attributes=json.dumps({"revision": revision, **rest}))


def fault(table: str, before: RowState, after: RowState, key: str = "x") -> str:
    return change_fault(table, {"id": key}, Change.MODIFY, before, after)


@pytest.mark.parametrize(
    ("table", "before", "after"),
    [
        ("sessions", state(PENDING), state(GRANTED, 2)),
        ("sessions", state(PENDING), state({**CLOSED, "grant": None}, 2)),
        ("sessions", state(GRANTED, 2, verifier_sha256=""), state(GRANTED, 3, verifier_sha256="ab")),
        ("sessions", state(GRANTED, 2, verifier_sha256="ab"), state(GRANTED, 3, verifier_sha256="cd")),
        ("sessions", state(GRANTED, 4), state(CLOSED, 5)),
        ("connections", state(OPEN, 1, open="1", boot="b"), state(SEALED, 2, boot="b")),
        ("connections", state(OPEN), state({**OPEN, "note": "beaten"}, 2)),
    ],
)
def test_what_our_stores_do_is_no_fault(table: str, before: RowState, after: RowState) -> None:
    """An alarm that rings every day is one that nobody hears."""
    assert fault(table, before, after) == ""


@pytest.mark.parametrize(
    ("table", "before", "after"),
    [
        ("sessions", state(GRANTED), state({**GRANTED, "id": "ses_2"}, 2)),
        ("sessions", state(GRANTED), state({**GRANTED, "actor": "another"}, 2)),
        ("sessions", state(GRANTED), state({**GRANTED, "grant": {**GRANT, "expires_at": "2027-01-01"}}, 2)),
        ("sessions", state(CLOSED), state(GRANTED, 2)),
        ("sessions", state(GRANTED), state(PENDING, 2)),
        ("sessions", state(CLOSED), state({**CLOSED, "close_reason": "other"}, 2)),
        ("sessions", state(PENDING), state({**PENDING, "grant": GRANT}, 2)),
        ("sessions", state(PENDING), state({**GRANTED, "status": "root"}, 2)),
        ("sessions", state(PENDING), state(GRANTED, 1)),
        ("sessions", state(PENDING), state(GRANTED, 3)),
        ("sessions", state(PENDING, txn="a"), state(GRANTED, 2, txn="b")),
        ("sessions", state(GRANTED, verifier_sha256="ab"), state(GRANTED, 2, verifier_sha256="")),
        ("sessions", state(PENDING, verifier_sha256=""), state(PENDING, 2, verifier_sha256="ab")),
        ("sessions", state(GRANTED), GONE),
        ("connections", state(SEALED), state({**SEALED, "exit": "other"}, 2)),
        ("connections", state(SEALED), state(OPEN, 2)),
        ("connections", state(OPEN), state({**SEALED, "peer": "10.9.9.9"}, 2)),
        ("connections", state(OPEN), state({**OPEN, "number": 2}, 2)),
        ("connections", state(OPEN, boot="b"), state(SEALED, 2, boot="c")),
        ("connections", state(OPEN, open="1"), state(OPEN, 2)),
    ],
)
def test_an_administrators_edit_is_a_fault(table: str, before: RowState, after: RowState) -> None:
    """More than was granted, longer, another's, again, hidden: each has its sentence."""
    assert fault(table, before, after).startswith(("was ", "had ", "went "))


@pytest.mark.parametrize("table", sorted(set(TABLE_KEYS) - {"once"}))
def test_nothing_is_ever_removed(table: str) -> None:
    """No role may; whoever did is above the roles."""
    assert change_fault(table, {"id": "x"}, Change.REMOVE, state(OPEN), GONE)


@pytest.mark.parametrize("table", ["chains", "asks", "answers", "uses", "activations", "revocations", "another"])
def test_what_is_put_once_never_changes(table: str) -> None:
    """A table that is not known here is held to the strictest rule."""
    assert fault(table, state(OPEN), state(SEALED, 2))
    assert not change_fault(table, {"id": "x"}, Change.INSERT, GONE, state(OPEN))


def test_the_epoch_of_revocations_only_grows() -> None:
    """Set back, it would let what was revoked live on."""
    low, high = (RowState(item="", attributes=json.dumps({"number": number})) for number in (4, 5))
    assert fault("revocations", low, high, key="epoch") == ""
    assert fault("revocations", high, low, key="epoch")
    assert fault("revocations", high, high, key="epoch")
    assert fault("revocations", low, high, key="feed#4")


def test_claims_lapse() -> None:
    """They have a TTL, and a lapsed one is claimed anew by overwriting it."""
    assert change_fault("once", {"id": "token#a"}, Change.REMOVE, state(OPEN), GONE) == ""
    assert fault("once", state(OPEN), state(SEALED)) == ""
