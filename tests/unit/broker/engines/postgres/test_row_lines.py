"""The fast way to read rows gives what the exact one gives, or leaves it to that one: nothing recorded may differ."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.engines.postgres.answers import Field, Masker
from broker.engines.postgres.row_lines import RowLines, exact_lines
from chalicelib.domain.errors import ProtocolViolation
from chalicelib.domain.recording import MAX_TEXT
from tests.unit.broker.engines.postgres.catalogues import catalogue

TEXT = 25


def body(*values: bytes | None) -> bytes:
    cells = (b"\xff" * 4 if value is None else struct.pack("!i", len(value)) + value for value in values)
    return struct.pack("!H", len(values)) + b"".join(cells)


def masker(columns: int, *, form: int = 0, type_oid: int = TEXT) -> Masker:
    fields = [Field(name=f"c{n}", table_oid=0, attnum=0, type_oid=type_oid, format=form) for n in range(columns)]
    return Masker(fields, None, catalogue(), ())


VALUES = st.none() | st.binary(max_size=12) | st.text(max_size=6).map(lambda text: text.encode("utf-8", "replace"))


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[VALUES] * n), min_size=1, max_size=6)))
def test_any_rows_have_the_same_lines_both_ways(rows: list[tuple[bytes | None, ...]]) -> None:
    """Readers of old and new recordings must find one format, whatever a target's values hold."""
    bodies = [body(*row) for row in rows]
    own = masker(len(rows[0]))
    assert own.lines(bodies) == exact_lines(bodies, own.shown)
    assert [json.loads(line) for line in own.lines(bodies).split("\n")] == [own.shown(one) for one in bodies]


@pytest.mark.parametrize(
    "row",
    [
        (b"1", b"paid", "é😀".encode()),
        (b"", None, b""),
        (b'],"",[', b'"', b"\\ \x01\x1f\x7f"),
        (b"x]", b"", b"[y"),
        (b"y" * 300, b"z" * 2047, b"\xff is no UTF-8"),
        (b"y" * 5000, None, b"\xfe\xfe"),
    ],
    ids=["plain", "empty and null", "JSON's own", "brackets", "long", "longer"],
)
def test_hundreds_of_rows_have_the_lines_of_each(row: tuple[bytes | None, ...]) -> None:
    """What separates rows, values and lengths may stand in a value as well, and must not cut it."""
    bodies, own = [body(*row)] * 200, masker(3)
    assert own.lines(bodies) == "\n".join([exact_lines(bodies[:1], own.shown)] * 200)


def test_the_fast_way_is_taken_where_it_can_be() -> None:
    """A pattern that never fits would pass every other test here, at half the speed."""

    def shown(_: bytes) -> Sequence[str | None]:
        pytest.fail("taken apart one by one")

    lines = RowLines(3, text=True, shown=shown)  # type: ignore[arg-type]
    bodies = [body(b"%d" % n, None if n % 3 else "é".encode(), b"n" * n) for n in range(300)]
    assert json.loads(lines(bodies).split("\n")[1]) == ["1", None, "n"]


@pytest.mark.parametrize(
    "bad",
    [
        body(b"abc")[:-1],
        body(b"abc") + b"d",
        struct.pack("!H", 1) + struct.pack("!i", 2) + b"abc",
        struct.pack("!H", 1) + struct.pack("!i", 4) + b"abc",
        struct.pack("!H", 1) + struct.pack("!i", -2),
        body(b"abc", b"d"),
        b"",
    ],
    ids=["short", "one more", "length below", "length above", "negative", "a column more", "nothing"],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_that_is_not_as_described_is_never_recorded_as_another(bad: bytes, place: int) -> None:
    """A hostile target's row that client and recorder read differently would show the client what no record has."""
    bodies = [body(b"one"), body(b"two")]
    bodies.insert(place, bad)
    with pytest.raises(ProtocolViolation):
        masker(1).lines(bodies)


def test_two_rows_that_lie_about_each_other_are_not_two_good_ones() -> None:
    """Lengths that are wrong in one row and right in the sum must not pass: the client reads row by row."""
    first = struct.pack("!H", 1) + struct.pack("!i", 3) + b"ab"
    second = struct.pack("!H", 1) + struct.pack("!i", 1) + b"cd"
    with pytest.raises(ProtocolViolation):
        masker(1).lines([first, second])


@pytest.mark.parametrize(
    "value", [b"\x01", b"\0\0\0\0\0\0\0\0", b'"', "é".encode()], ids=["control", "zeros", "quote", "UTF-8"]
)
@pytest.mark.parametrize("form", [0, 1])
def test_rows_are_never_longer_as_text_than_is_promised(value: bytes, form: int) -> None:
    """A frame's number is given before its text is made: a text that needs two frames would be cut off."""
    for type_oid in (TEXT, 17, 20, 1700, 3802):
        bodies = [body(value * 200, value, None)] * 5
        assert len(masker(3, form=form, type_oid=type_oid).lines(bodies)) <= 6 * sum(map(len, bodies)) <= MAX_TEXT
