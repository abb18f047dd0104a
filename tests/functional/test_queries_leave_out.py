"""What each named query must leave out: the row beside the one that it is for. That they find theirs is
``test_named_queries``'s to show."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from chalicelib.domain.audit import Acting, AuditEvent, AuditName, Operated
from countersign.__main__ import main
from countersign.named_queries import names, read_query
from tests.fakes.clock import START, FakeClock
from tests.functional.worked import Archive, worked_archive

BEGUN = "https://ci.example#repo:acme/shop"
DEPLOY = "https://countersign.example#key:deploy"
OTHER = "https://countersign.example#key:other"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One chain's bucket."""
    return worked_archive(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def neighbours(alone: Archive, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The same, with what another chain did in the same hour put into the same folder."""
    place = tmp_path_factory.mktemp("neighbours")
    other = worked_archive(place)
    assert other.session != alone.session
    for path in alone.folder.rglob("*.gz"):
        kept = place / path.relative_to(alone.folder)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.with_name(kept.name.replace("boot_1", "boot_0")).write_bytes(path.read_bytes())
    return replace(alone, folder=place)


@pytest.mark.parametrize("query", ["initiator", "downstream", "approved", "under_chain", "session"])
def test_what_is_asked_of_one_has_nothing_of_another(alone: Archive, neighbours: Archive, query: str) -> None:
    """Another chain, on the same target in the same hour, with the same statements."""
    param = {"session": alone.session} if query == "session" else {"txn": alone.world.session.txn}
    own = alone.rows(query, **param)
    assert own
    assert neighbours.rows(query, **param) == own


@pytest.mark.parametrize("query", [name for name in names() if "since" in read_query(name).order])
def test_a_period_leaves_out_what_was_before_and_after(alone: Archive, query: str) -> None:
    """The day before and the day after have nothing."""
    needed: dict[str, Any] = {"txn": alone.world.session.txn, "identity": BEGUN, "table": "orders", "text": "drop"}
    param = {name: needed[name] for name in read_query(query).order if name in needed}
    for days in (-1, 1):
        day = (START + timedelta(days=days)).date().isoformat()
        assert alone.rows(query, since=day, until=day, **param) == []


class Told:
    """Events as a broker writes them, one object, in a folder."""

    def __init__(self, folder: Path, *events: AuditEvent) -> None:
        self.folder = folder
        lines = [json.dumps(one.row(writer="boot_1", number=number)) for number, one in enumerate(events)]
        hour = f"{START:%H}"
        path = folder / f"events/v1/date={START.date()}/hour={hour}/boot_1-01m6dshkc8w586sj5sp0arcw4h.ndjson.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))

    def rows(self, name: str, **params: object) -> Sequence[dict[str, Any]]:
        given = [part for key, value in params.items() for part in ("--param", f"{key}={value}")]
        out, err = io.StringIO(), io.StringIO()
        arguments = ["query", name, "--json", "--local", str(self.folder), *given]
        assert main(arguments, {}, out=out, err=err, clock=cast(Any, FakeClock())) == 0, err.getvalue()
        return cast(Sequence[dict[str, Any]], json.loads(out.getvalue())["rows"])


def _ran(number: int, text: str, *, minutes: float = 0, **changes: Any) -> AuditEvent:
    operated = Operated(
        actions=changes.pop("actions", ("sql:read",)),
        text=text,
        tables=changes.pop("tables", ()),
        masks=changes.pop("masks", ()),
        reads_masked=changes.pop("reads_masked", False),
        outcome="ok",
    )
    event = AuditEvent(
        name=AuditName.OPERATION_RAN,
        at=START + timedelta(minutes=minutes),
        session_id="ses_01m6dshkc8w586sj5sp0arcw4h",
        connection_id="con_01m6dshkc8w586sj5sp0arcw4h",
        operation_id=f"op_{number}",
        actor=DEPLOY,
        acting=Acting(originator=BEGUN, chain=(BEGUN, DEPLOY)),
        target="orders-prod",
        verdict="forward",
        operated=operated,
    )
    return replace(event, **changes)


def _refused(number: int, text: str, **changes: Any) -> AuditEvent:
    return replace(
        _ran(number, text, **changes), name=AuditName.OPERATION_REFUSED, code="policy_denied", verdict="block"
    )


def test_a_table_that_stands_in_a_text_alone_is_not_touched(tmp_path: Path) -> None:
    """A string that reads like a table, and a table whose name is longer."""
    told = Told(
        tmp_path,
        _ran(1, "SELECT * FROM customers", tables=("public.customers",)),
        _ran(2, "SELECT 'customers'", tables=("public.orders",)),
        _ran(3, "SELECT * FROM customers_old", tables=("public.customers_old",)),
    )
    assert [row["text"] for row in told.rows("table", table="customers")] == ["SELECT * FROM customers"]


def test_what_was_masked_or_reads_nothing_masked_is_not_unmasked(tmp_path: Path) -> None:
    """Nor what was refused."""
    told = Told(
        tmp_path,
        _ran(1, "bare", reads_masked=True),
        _ran(2, "masked", reads_masked=True, masks=("email",), verdict="mask"),
        _ran(3, "harmless"),
        _refused(4, "refused", reads_masked=True),
    )
    assert [row["text"] for row in told.rows("unmasked")] == ["bare"]


def test_a_rule_that_only_resembles_one_for_emergencies_is_left_out(tmp_path: Path) -> None:
    """By the beginning of its id; and what it refused rested on nothing."""
    told = Told(
        tmp_path,
        _ran(1, "glass", rules=("break-glass-dba",)),
        _ran(2, "like", rules=("no-break-glass",)),
        _refused(3, "refused", rules=("break-glass-dba",)),
    )
    assert [row["text"] for row in told.rows("break_glass")] == ["glass"]


def test_denied_then_allowed_takes_the_same_identity_target_and_order(tmp_path: Path) -> None:
    """Somebody else's, another target's, an earlier one's, and one long after are no second try."""
    told = Told(
        tmp_path,
        _ran(1, "before", minutes=0),
        _refused(2, "DROP", minutes=1),
        _ran(3, "DROP", minutes=2, actor=OTHER),
        _ran(4, "DROP", minutes=3, target="db-prod"),
        _ran(5, "other work", minutes=4, actions=("sql:write",)),
        _ran(6, "DROP", minutes=5),
        _ran(7, "DROP", minutes=500),
    )
    found = told.rows("denied_then_allowed")
    assert [(row["denied_at"][11:16], row["allowed_at"][11:16]) for row in found] == [
        (f"{START + timedelta(minutes=1):%H:%M}", f"{START + timedelta(minutes=5):%H:%M}")
    ]


def test_an_identitys_work_is_nobody_elses(tmp_path: Path) -> None:
    """Not that of an identity whose name begins with it, nor of one beside it under the same originator."""
    told = Told(
        tmp_path,
        _ran(1, "own"),
        _ran(2, "beside", actor=OTHER, acting=Acting(originator=BEGUN, chain=(BEGUN, OTHER))),
        _ran(3, "longer", actor=f"{DEPLOY}2", acting=Acting(originator=BEGUN, chain=(BEGUN, f"{DEPLOY}2"))),
        _ran(4, "below", actor=OTHER, acting=Acting(originator=BEGUN, chain=(BEGUN, DEPLOY, OTHER))),
    )
    assert {row["text"] for row in told.rows("identity", identity=DEPLOY)} == {"own", "below"}


def test_what_was_refused_is_in_no_share_and_reaches_nothing(tmp_path: Path) -> None:
    """A shell that policy stopped was no opaque access; a session that was refused reaches nothing."""
    told = Told(
        tmp_path,
        _ran(1, "read"),
        _ran(2, "shell", actions=("ssh:shell",)),
        _refused(3, "stopped", actions=("sql:opaque",)),
        replace(_refused(4, ""), name=AuditName.SESSION_REFUSED, operated=None),
    )
    (row,) = told.rows("opaque_share")
    assert (row["operations"], row["opaque"]) == (2, 1)
    assert told.rows("reach") == []


def test_a_word_in_what_is_no_operation_is_not_found(tmp_path: Path) -> None:
    """`search` looks at what was run, and takes no wildcard."""
    told = Told(
        tmp_path,
        _ran(1, "DROP TABLE a"),
        replace(_ran(2, ""), name=AuditName.SESSION_GRANTED, why="drop table", operated=None),
        _ran(3, "DROP_TABLE"),
    )
    assert [row["text"] for row in told.rows("search", text="drop table")] == ["DROP TABLE a"]
    assert told.rows("search", text="drop%") == []
