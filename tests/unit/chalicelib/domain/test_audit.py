"""AuditEvents: one row each, bounded, of known columns, and the same uid for the same fact."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.audit import MAX_FIELD, MAX_LISTED, MAX_SHOWN, Acting, AuditEvent, AuditName, Operated, ocsf
from chalicelib.domain.canonical import digest
from chalicelib.domain.event_columns import EVENT_COLUMNS, schema_text
from chalicelib.services.event_objects import checked_row
from tests.fakes.clock import START

ROOT = Path(__file__).resolve().parents[4]
RAN = AuditEvent(
    name=AuditName.OPERATION_RAN,
    at=START,
    connection_id="con_1",
    operation_id="op_1",
    protocol="postgres",
    operated=Operated(actions=("sql:read",), text="SELECT 1", outcome="ok"),
)


def test_the_schema_that_is_committed_is_the_columns() -> None:
    """What is documented is what is written; a column that changed would stop every query over locked objects."""
    assert (ROOT / "docs/schema/events.json").read_text() == schema_text()


@given(st.text(max_size=MAX_SHOWN * 2), st.lists(st.text(max_size=40), max_size=MAX_LISTED * 2))
def test_hostile_text_is_bounded_and_stays_json(text: str, listed: list[str]) -> None:
    """Attack: a statement, an identity or a list without end, half a surrogate pair: the row is bounded and a line."""
    event = replace(
        RAN,
        actor=text,
        why=text,
        acting=Acting(originator=text, chain=tuple(listed)),
        operated=Operated(actions=tuple(listed), text=text),
    )
    row = event.row(writer="boot_1", number=1)
    line = json.dumps(row, ensure_ascii=False).encode()
    assert json.loads(line) == row
    assert checked_row(row) is row
    assert all(len(value) <= (MAX_SHOWN if name == "text" else MAX_FIELD) for name, value in row.items()
               if isinstance(value, str))  # fmt: skip
    assert all(len(value) <= MAX_LISTED + 1 for value in row.values() if isinstance(value, list))


def test_a_lone_surrogate_is_no_end_of_the_log() -> None:
    """Attack: a login's name that has no UTF-8 would make the line unwritable, and the broker deaf."""
    json.dumps(replace(RAN, why="\ud800").row(writer="w", number=0), ensure_ascii=False).encode()


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_facts_uid_is_the_digest_of_what_makes_it_the_same(connection: str, operation: str) -> None:
    """Locked objects of years hold these: a form that differs for one text would tell its operation twice."""
    said = digest({"v": 1, "fact": ["operation", connection, operation]})
    assert replace(RAN, connection_id=connection, operation_id=operation).uid() == said


def test_a_fact_that_is_told_again_has_the_same_uid() -> None:
    """A redelivery, a later hour, another writer, and an outcome that was not known then: it is one operation."""
    unknown = replace(RAN.operated or Operated(actions=(), text=""), outcome="unknown")
    again = replace(RAN, at=START + timedelta(hours=1), operated=unknown, name=AuditName.OPERATION_REFUSED)
    assert again.uid() == RAN.uid()
    assert RAN.row(writer="a", number=1)["uid"] == RAN.row(writer="b", number=9)["uid"]


@pytest.mark.parametrize("change", [{"operation_id": "op_2"}, {"connection_id": "con_2"}])
def test_another_fact_has_another_uid(change: dict[str, str]) -> None:
    """Two facts under one uid would count as one, and one of them would be hidden."""
    assert replace(RAN, **change).uid() != RAN.uid()  # type: ignore[arg-type]


def test_two_refusals_a_moment_apart_are_two_facts() -> None:
    """Attack: guesses that look alike; only the moment tells them apart."""
    one = AuditEvent(name=AuditName.CONNECTION_REFUSED, at=START, peer="192.0.2.1", code="denied")
    assert one.uid() != replace(one, at=START + timedelta(microseconds=1)).uid()
    assert one.uid() == replace(one).uid()


def test_a_fact_without_its_key_is_told_apart_by_all_of_it() -> None:
    """An operation without an id would otherwise be the same fact as every other without one."""
    one, other = (replace(RAN, operation_id="", actor=actor) for actor in ("a", "b"))
    assert one.uid() != other.uid()


@pytest.mark.parametrize(
    ("name", "protocol", "actions", "expected"),
    [
        (AuditName.OPERATION_RAN, "postgres", ("sql:read",), (6005, 1)),
        (AuditName.OPERATION_RAN, "postgres", ("sql:read", "sql:write"), (6005, 5)),
        (AuditName.OPERATION_RAN, "postgres", ("sql:define",), (6005, 4)),
        (AuditName.OPERATION_RAN, "ssh", ("ssh:exec",), (4007, 6)),
        (AuditName.OPERATION_REFUSED, "ssh", ("ssh:exec",), (4007, 5)),
        (AuditName.CONNECTION_OPENED, "ssh", (), (4007, 1)),
        (AuditName.CONNECTION_REFUSED, "", (), (3002, 1)),
        (AuditName.TOKEN_EXCHANGED, "", (), (3002, 1)),
        (AuditName.SESSION_GRANTED, "postgres", (), (3003, 1)),
        (AuditName.CHAIN_REVIEWED, "", (), (6003, 2)),
    ],
)
def test_ocsf_names_it(name: AuditName, protocol: str, actions: tuple[str, ...], expected: tuple[int, int]) -> None:
    """A SIEM finds our events by OCSF's ids: a wrong one hides them there."""
    operated = Operated(actions=actions, text="") if actions else None
    event = AuditEvent(name=name, at=START, protocol=protocol, operated=operated)
    assert ocsf(event) == expected
    row = event.row(writer="w", number=0)
    assert row["type_uid"] == expected[0] * 100 + expected[1]


def test_every_name_has_a_row_and_every_column_a_word() -> None:
    """A name that nobody mapped still is an event; a column without an explanation is one that nobody can ask for."""
    for name in AuditName:
        checked_row(AuditEvent(name=name, at=START).row(writer="w", number=0))
    assert all(column.about for column in EVENT_COLUMNS)
