"""Keys, hours and forms of digests and archived changes."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.archived_item import TABLE_KEYS, ArchivedItem, Change, RowState, item_key, items_of
from chalicelib.domain.digest import (
    HOUR,
    Archived,
    archived_hour,
    digest_hour,
    digest_key,
    digest_of,
    hour_of,
    last_settled_hour,
    parse_digest,
)
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import ulid, ulid_of, ulid_prefixes
from dev.provision import declared_tables
from tests.fakes.clock import START

MOMENTS = st.datetimes(datetime(2026, 1, 1), datetime(2090, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC))


def change(sequence: str = "17") -> ArchivedItem:
    return ArchivedItem(
        table="uses",
        change=Change.INSERT,
        key='{"ask":"ask_1","n":1}',
        state=RowState(item='{"by":"é\\n<>"}', attributes="{}"),
        before_sha256="",
        sequence=sequence,
        at=START,
        by="",
        fault="",
    )


def test_a_line_has_one_form_for_ever() -> None:
    """Objects that are locked today are read, and hashed, by every later version, and by Athena."""
    assert change().line() == (
        b'{"at":"2026-11-02T09:30:00.000Z","attributes":"{}","before_sha256":"","by":"","change":"insert","fault":"",'
        b'"item":"{\\"by\\":\\"\xc3\xa9\\\\n<>\\"}","key":"{\\"ask\\":\\"ask_1\\",\\"n\\":1}","seq":"17",'
        b'"sha256":"1e23bb918b2620b280da2110d1ff27f9c8590a9d0935235e5a8742a0f8cc2a44","table":"uses","v":1}\n'
    )
    assert items_of(gzip.compress(change().line())) == ([change()], True)


@given(st.binary(max_size=200))
def test_rubbish_is_no_change(stored: bytes) -> None:
    """Whatever lies there, the reader goes on, and says that it is not ours."""
    assert items_of(stored) == ([], False)
    found, whole = items_of(gzip.compress(stored))
    assert not whole or found


@given(st.integers(0, 400))
def test_an_object_that_breaks_off_or_has_a_byte_changed_is_another_one(at: int) -> None:
    """The lines before the break are read, so that what is left can be used."""
    raw = b"".join(change(str(number)).line() for number in range(5))
    stored = bytearray(gzip.compress(raw, mtime=0))
    at %= len(stored)
    assert not items_of(bytes(stored[:at]))[1]
    flipped = bytearray(raw)
    flipped[at % len(raw)] ^= 1
    assert items_of(gzip.compress(bytes(flipped))) != items_of(gzip.compress(raw))


@given(MOMENTS)
def test_keys_name_their_hours(moment: datetime) -> None:
    """A digest finds by key alone what belongs to its hour."""
    hour = hour_of(moment)
    assert digest_hour(digest_key(hour)) == hour
    assert archived_hour(item_key("uses", "1", moment)) == hour
    assert archived_hour(f"events/v1/date={moment:%Y-%m-%d}/hour={moment:%H}/w.ndjson.gz") == hour
    assert archived_hour(f"boots/v1/{moment:%Y-%m-%d}/b.json") == hour.replace(hour=0)
    assert last_settled_hour(moment) + HOUR + timedelta(minutes=10) <= moment < last_settled_hour(moment) + 3 * HOUR


@pytest.mark.parametrize(
    "key", ["", "items/v1/uses/x", "digests/v1/2026-13-01/00.json", "digests/v1/2026-01-01/24.json", "rec/v1/ses_1/x"]
)
def test_a_key_that_is_none(key: str) -> None:
    """A name that only looks like one of ours must not stop a listing."""
    assert digest_hour(key) is None
    assert archived_hour(key) is None


def test_the_same_batch_has_the_same_key_and_another_has_another() -> None:
    """So a batch that is delivered again meets what it put."""
    assert item_key("uses", "1", START) == item_key("uses", "1", START)
    keys = {item_key(*which) for which in (("uses", "1", START), ("uses", "2", START), ("asks", "1", START))}
    assert len(keys) == 3


@given(MOMENTS, st.integers(0, 3 * 3600))
def test_ulids_of_a_time_begin_with_one_of_its_prefixes(moment: datetime, seconds: int) -> None:
    """A listing by prefixes must leave nothing out."""
    end = moment + timedelta(seconds=seconds)
    prefixes = list(ulid_prefixes(moment, end))
    assert prefixes == sorted(set(prefixes))
    assert all(any(ulid(one).startswith(prefix) for prefix in prefixes) for one in (moment, end))
    assert ulid_of(moment, b"\0" * 10)[10:] == "0" * 16


def test_a_digest_reads_back_byte_for_byte_or_not_at_all() -> None:
    """Two texts of one digest would have two hashes, and the next digest names one."""
    empty = Archived(items=(), objects=(), changes=(change(),), unreadable=())
    made = digest_of(hour_of(START), None, empty, previous_sha256="", made_at=START)
    assert parse_digest(made.stored()) == made
    for stored in (b"", b"[]", b"{}", made.stored() + b" ", made.stored().replace(b'"v":2', b'"v":1')):
        with pytest.raises(ProofInvalid):
            parse_digest(stored)


def test_a_change_that_two_deliveries_archived_counts_once() -> None:
    """The same line in two objects is one fact."""
    once = Archived(items=(), objects=(), changes=(change(), change("18")), unreadable=())
    twice = Archived(items=(), objects=(), changes=(change(), change("18"), change()), unreadable=())
    made = [digest_of(hour_of(START), None, one, previous_sha256="", made_at=START) for one in (once, twice)]
    assert made[0].counted() == made[1].counted()


def test_every_table_that_is_archived_has_the_keys_that_it_is_made_with() -> None:
    """A key attribute that is not known here would be taken for a part of the row."""
    made = {name: tuple(attribute for attribute, _ in table.key) for name, table in declared_tables().items()}
    assert {name: made[name] for name in TABLE_KEYS} == dict(TABLE_KEYS)
    assert set(made) - set(TABLE_KEYS) <= {"beats"}, "a table whose stream is not archived"
