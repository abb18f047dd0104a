"""Which changes of a row there may be: everything else that a table's stream tells is a finding and an alarm.

Rules: hops, asks, answers, uses and activations are put once; of revocations only the feed's epoch grows; a session
goes from pending to granted to closed and keeps its grant, its secret's verifier is replaced while it is granted; a
connection is sealed once, and what the next row's hash covers never changes. Nothing is ever removed but what has a TTL
(the ``once`` table). It does not know who made a change: nobody may make the others. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chalicelib.domain.archived_item import ONCE, Change, RowState
from chalicelib.domain.canonical import Json

_STATUS: Final = ("pending", "granted", "closed")
_SESSION_CHANGES: Final = frozenset({"status", "grant", "closed_at", "close_reason"})
# What ``ConnectionRow.hashed`` covers, by the fields' own names.
_CONNECTION_KEEPS: Final = frozenset(
    {"id", "session_id", "txn", "leaf_hop", "target_hop", "target", "principal", "peer", "boot", "number"}
    | {"previous_sha256", "opened_at"}
)


def change_fault(table: str, key: Mapping[str, Json], change: Change, before: RowState, after: RowState) -> str:
    """Return why a change of the row with this key should not have happened; empty where it may."""
    if change is Change.INSERT or table == ONCE:  # claims lapse, and a lapsed one may be claimed anew
        return ""
    if change is Change.REMOVE:
        return "was removed: no row of this table ever is"
    match table:
        case "sessions":
            return _session(before, after)
        case "connections":
            return _connection(before, after)
        case "revocations" if key.get("id") == "epoch":
            grew = _number(after.rest(), "number") > _number(before.rest(), "number")
            return "" if grew else "was set back: revocations would be forgotten"
        case _:
            return "was changed: a row of this table is put once"


def _session(before: RowState, after: RowState) -> str:
    old, new = before.document(), after.document()
    changed = _changed(old, new)
    if not changed <= _SESSION_CHANGES:
        return f"was changed in what never changes: {', '.join(sorted(changed - _SESSION_CHANGES))}"
    if new.get("status") not in _STATUS or _place(new) < _place(old):
        return f"went from {old.get('status')} to {new.get('status')}"
    if "grant" in changed and not (old.get("grant") is None and new.get("status") == "granted"):
        return "had its grant changed: a grant is made once"
    if changed and old.get("status") == "closed":
        return "was changed after it was closed"
    secret = _changed(before.rest(), after.rest()) & {"verifier_sha256"}
    if secret and (changed or new.get("status") != "granted" or not after.rest().get("verifier_sha256")):
        return "had its secret replaced by what no re-issue leaves"
    return _revised(before, after, beside=secret)


def _connection(before: RowState, after: RowState) -> str:
    old, new = before.document(), after.document()
    if old.get("sealed_at") is not None:
        return "was changed after it was sealed"
    kept = _changed(old, new) & _CONNECTION_KEEPS
    if kept:
        return f"was changed in what never changes: {', '.join(sorted(kept))}"
    # These keep a row in the index of those that are not sealed yet.
    return _revised(before, after, beside={"open", "opened"} if new.get("sealed_at") is not None else set())


def _revised(before: RowState, after: RowState, *, beside: set[str]) -> str:
    """Every change of ours counts the row's revision up by one, and touches nothing ``beside`` it and the document."""
    others = _changed(before.rest(), after.rest()) - {"revision"} - beside
    if others:
        return f"was changed beside its document: {', '.join(sorted(others))}"
    if _number(after.rest(), "revision") != _number(before.rest(), "revision") + 1:
        return "was changed past its revision"
    return ""


def _changed(old: Mapping[str, Json], new: Mapping[str, Json]) -> set[str]:
    return {name for name in {*old, *new} if old.get(name) != new.get(name)}


def _place(session: Mapping[str, Json]) -> int:
    status = session.get("status")
    return _STATUS.index(status) if isinstance(status, str) and status in _STATUS else -1


def _number(document: Mapping[str, Json], name: str) -> int:
    value = document.get(name)
    return value if isinstance(value, int) else 0
