"""Masks on rows, COPY, errors and notices, in every format and type."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.engines.postgres.answers import CopyMasker, Field, Masker, copy_out_maskable, read_fields
from broker.engines.postgres.answers_messages import mask_fields, mask_payload
from chalicelib.domain.errors import ProtocolViolation
from chalicelib.domain.masking import SENTINEL, MaskMode, MaskRule
from tests.unit.broker.engines.postgres.catalogues import (
    CUSTOMERS,
    EMAIL,
    MASKED,
    ORDERS,
    PG_STATS,
    RULES,
    V_CUSTOMERS,
    catalogue,
    one,
)

TEXT, BYTEA, INT8, INT4, JSON, JSONB, NUMERIC, TEXT_ARRAY, UUID, RECORD = (
    *(25, 17, 20, 23, 114, 3802, 1700, 1009, 2950, 2249),
)
CITEXT = 16999
DETECT = MaskRule(
    name="d", mode=MaskMode.REDACT, targets=(), columns=(), detectors=("email", "card_number"), patterns=()
)
CARD_TEXT = b"4111111111111111"


def field(type_oid: int = TEXT, *, table: int = 0, attnum: int = 0, form: int = 0, name: str = "x") -> Field:
    return Field(name=name, table_oid=table, attnum=attnum, type_oid=type_oid, format=form)


def row(*values: bytes | None) -> bytes:
    parts = [struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in values]
    return struct.pack("!H", len(values)) + b"".join(parts)


def values(body: bytes) -> list[bytes | None]:
    (count,) = struct.unpack_from("!H", body)
    found: list[bytes | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        found.append(None if length < 0 else body[at : at + length])
        at += max(length, 0)
    assert at == len(body)
    return found


def masker(fields: Sequence[Field], text: str = "SELECT 1", rules: Sequence[MaskRule] = RULES) -> Masker:
    return Masker(fields, one(text), catalogue(), rules)


def masked(field_: Field, value: bytes, rules: Sequence[MaskRule] = RULES, text: str = "SELECT 1") -> bytes | None:
    return values(masker([field_], text, rules).row(row(value)))[0]


EMAIL_FIELD = field(table=CUSTOMERS, attnum=3)


def test_a_column_is_masked_under_any_name_and_its_neighbours_are_not() -> None:
    """By origin, not by name: `SELECT email AS name` is masked, a column that is only called email is not."""
    fields = [
        field(INT4, table=CUSTOMERS, attnum=1),
        field(table=CUSTOMERS, attnum=3, name="name"),
        field(table=ORDERS),
    ]
    made = masker(fields, "SELECT id, email AS name, note FROM customers")
    assert values(made.row(row(b"1", b"ann@example.org", b"ann@example.org"))) == [
        b"1",
        b"#MASKED:email#",
        b"ann@example.org",
    ]
    assert made.masked_columns == ("name",)
    assert made.columns == ("x", "name", "x")


def test_partial_shows_the_tail_of_the_column_itself_only() -> None:
    """What derives from a card number is not a card number: its tail could be any part of it."""
    assert masked(field(table=CUSTOMERS, attnum=4), CARD_TEXT) == b"#MASKED:card#1111"
    derived = masked(field(), b"4111111", text="SELECT lower(card_number) FROM customers")
    assert derived == b"#MASKED:card#"


def test_null_stays_null_and_null_mode_makes_null() -> None:
    """An absent value tells nothing that its masked neighbour would."""
    null = MaskRule(name="email", mode=MaskMode.NULL, targets=(), columns=(EMAIL,), detectors=(), patterns=())
    assert values(masker([EMAIL_FIELD]).row(row(None))) == [None]
    assert masked(EMAIL_FIELD, b"ann@example.org", [null]) is None


@pytest.mark.parametrize("table", [V_CUSTOMERS, 99999, PG_STATS])
def test_an_origin_that_is_not_proved_is_masked(table: int) -> None:
    """A view's derived column, a relation created since, planner statistics."""
    masked_value = masked(field(table=table, attnum=2), b"ann@example.org", text="SELECT low FROM v_customers")
    assert masked_value is not None
    assert masked_value.startswith(SENTINEL.encode())


def test_rules_that_do_not_apply_do_not_mask() -> None:
    """Policy names the masks of each statement; the others are not for us to add."""
    card = [rule for rule in RULES if rule.name == "card"]
    assert masked(EMAIL_FIELD, b"ann@example.org", card) == b"ann@example.org"
    assert masked(EMAIL_FIELD, b"ann@example.org", []) == b"ann@example.org"


def test_nothing_to_mask_passes_the_very_bytes() -> None:
    """The common case must cost nothing: no copy, no look."""
    body = row(b"1", None, b"x")
    made = masker([field(INT4, table=ORDERS)] * 3, rules=[])
    assert made.passes
    assert made.row(body) is body
    watched = masker([field(table=ORDERS)] * 3, rules=[DETECT])
    assert not watched.passes
    assert watched.row(body) is body
    proved = masker([field(table=ORDERS)] * 3, rules=RULES)
    assert proved.passes


@pytest.mark.parametrize(
    ("type_oid", "form", "expected"),
    [
        (TEXT, 0, b"#MASKED:email#"),
        (TEXT, 1, b"#MASKED:email#"),
        (JSON, 0, b'"#MASKED:email#"'),
        (JSONB, 0, b'"#MASKED:email#"'),
        (JSONB, 1, b'\x01"#MASKED:email#"'),
        (BYTEA, 0, b"\\x" + b"#MASKED:email#".hex().encode()),
        (BYTEA, 1, b"#MASKED:email#"),
        (TEXT_ARRAY, 0, b'{"#MASKED:email#"}'),
        (TEXT_ARRAY, 1, None),
        (INT8, 0, None),
        (INT8, 1, None),
        (NUMERIC, 0, None),
        (UUID, 0, None),
        (RECORD, 0, None),
        (CITEXT, 0, b"#MASKED:email#"),
        (CITEXT, 1, None),
    ],
)
def test_a_mask_is_a_value_of_its_type_or_null(type_oid: int, form: int, expected: bytes | None) -> None:
    """A driver that cannot parse what it gets fails the whole result, and people turn masking off."""
    assert masked(field(type_oid, table=CUSTOMERS, attnum=3, form=form), b"{}") == expected


def _binary_array(*elements: bytes | None) -> bytes:
    parts = [struct.pack("!i", -1) if e is None else struct.pack("!i", len(e)) + e for e in elements]
    return struct.pack("!iiIii", 1, 1, 25, len(elements), 1) + b"".join(parts)


@pytest.mark.parametrize(
    ("type_oid", "form", "value", "expected"),
    [
        (TEXT, 0, b"to ann@example.org", b"to #MASKED:d#"),
        (TEXT, 1, b"to ann@example.org", b"to #MASKED:d#"),
        (CITEXT, 0, b"ann@example.org", b"#MASKED:d#"),
        (CITEXT, 1, b"ann@example.org", None),
        (JSON, 0, b'{"a": "ann@example.org"}', b'{"a": "#MASKED:d#"}'),
        (JSONB, 1, b'\x01{"a": "ann@example.org"}', b'\x01{"a": "#MASKED:d#"}'),
        (JSON, 0, b'{"a": "ann\\u0040example.org"}', b'"#MASKED:d#"'),
        (JSON, 0, b'{"a": "\\u0041"}', b'{"a": "\\u0041"}'),
        (BYTEA, 0, b"\\x" + b"ann@example.org".hex().encode(), b"\\x" + b"#MASKED:d#".hex().encode()),
        (BYTEA, 0, b"\\x00ff", b"\\x00ff"),
        (BYTEA, 1, b"\xff\x00ann@example.org\xfe", b"\xff\x00#MASKED:d#\xfe"),
        (TEXT_ARRAY, 0, b"{a,ann@example.org}", b"{a,#MASKED:d#}"),
        (TEXT_ARRAY, 1, _binary_array(b"ann@example.org", None), _binary_array(b"#MASKED:d#", None)),
        (TEXT_ARRAY, 1, _binary_array(b"a@b.cd")[:-2], None),
        (INT8, 0, CARD_TEXT, None),
        (INT8, 1, struct.pack("!q", int(CARD_TEXT)), None),
        (INT8, 1, struct.pack("!q", 4111111111111112), struct.pack("!q", 4111111111111112)),
        (NUMERIC, 0, CARD_TEXT, None),
        (NUMERIC, 1, struct.pack("!hhHH4H", 4, 3, 0, 0, 4111, 1111, 1111, 1111), None),
        (NUMERIC, 1, struct.pack("!hhHH1H", 1, 0, 0, 0, 5), struct.pack("!hhHH1H", 1, 0, 0, 0, 5)),
        (RECORD, 0, b"(1,ann@example.org)", None),
        (UUID, 0, b"41111111-1111-1111-0000-000000000000", b"41111111-1111-1111-0000-000000000000"),
    ],
)
def test_detectors_reach_every_type_and_format(type_oid: int, form: int, value: bytes, expected: bytes | None) -> None:
    """Binary, JSON, arrays, numbers and bytea all carry text that a person can read."""
    made = masker([field(type_oid, table=ORDERS, form=form)], rules=[DETECT])
    assert values(made.row(row(value))) == [expected]


def test_a_row_of_another_shape_is_refused() -> None:
    """What was described is what masks were made for: a longer row would carry a value past them."""
    made = masker([EMAIL_FIELD])
    for body in (b"", row(), row(b"a", b"b"), row(b"a") + b"x", row(b"abc")[:-1], struct.pack("!Hi", 1, -2)):
        with pytest.raises(ProtocolViolation):
            made.row(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        row(),
        row(b"a", b"b"),
        b"\0\2" + row(b"a")[2:],
        row(b"a") + b"x",
        row(b"abc")[:-1],
        row(b"")[:-1],
        struct.pack("!Hi", 1, -2),
    ],
)
def test_a_row_that_is_recorded_has_no_byte_that_the_record_has_not(body: bytes) -> None:
    """A hostile target could show a client what its record lacks, where nothing is masked and rows pass as they are."""
    with pytest.raises(ProtocolViolation):
        Masker([field()], None, catalogue(), []).shown(body)


@pytest.mark.parametrize("cell", [None, b"", b"plain", "ü\u2028\U0001f600".encode(), b"\xff", b"x" * 200, b'"\0\\'])
def test_every_value_is_told_whatever_stands_beside_it(cell: bytes | None) -> None:
    """ASCII rows are decoded at once and others by value: both tell the same, and a NULL is no empty text."""
    made = Masker([field(), field(), field()], None, catalogue(), [])
    told = None if cell is None else cell.decode("utf-8", "replace")
    assert made.shown(row(cell, b"7", cell)) == [told, "7", told]
    assert made.shown(row(cell, "é".encode(), None)) == [told, "é", None]


def test_an_execute_of_an_unknown_statement_is_masked() -> None:
    """No parse, no proof."""
    made = Masker([field()], None, catalogue(), RULES)
    assert made.masked_columns == ("x",)


def test_the_recording_has_what_the_client_saw() -> None:
    """Values are told after masking, binary ones as text where they are known."""
    fields = [EMAIL_FIELD, field(INT4, form=1), field(JSONB, form=1), field(UUID, form=1), field()]
    made = masker(fields, "SELECT email, 1, '{}'::jsonb, md5('x')::uuid, NULL FROM customers")
    body = made.row(row(b"ann@example.org", struct.pack("!i", -7), b'\x01{"a": 1}', b"\x01\x02", None))
    assert made.shown(body) == ["#MASKED:email#", "-7", '{"a": 1}', "\\x0102", None]


def test_a_description_is_read_to_its_last_byte() -> None:
    """A field that is misread is a column that is not masked."""
    body = struct.pack("!H", 1) + b"email\0" + struct.pack("!IhIhih", 4294967295, 3, 25, -1, -1, 1)
    assert read_fields(body) == (Field(name="email", table_oid=4294967295, attnum=3, type_oid=25, format=1),)
    for broken in (body[:-1], body + b"x", b"", struct.pack("!H", 2) + body[2:]):
        with pytest.raises(ProtocolViolation):
            read_fields(broken)


def test_copy_out_of_a_masked_column_cannot_be_masked() -> None:
    """COPY has no columns on the wire: what a rule covers is blocked, the rest passes detectors."""
    assert not copy_out_maskable(one("COPY customers TO STDOUT"), RULES)
    assert not copy_out_maskable(one("COPY customers (id, email) TO STDOUT"), RULES)
    assert not copy_out_maskable(one("COPY (SELECT lower(email) FROM customers) TO STDOUT"), RULES)
    assert not copy_out_maskable(one("COPY (SELECT * FROM v_customers) TO STDOUT"), RULES)
    assert not copy_out_maskable(one("COPY (DELETE FROM customers RETURNING *) TO STDOUT"), RULES)
    assert copy_out_maskable(one("COPY customers (id, name) TO STDOUT"), RULES)
    assert copy_out_maskable(one("COPY orders TO STDOUT"), RULES)
    assert copy_out_maskable(one("COPY customers TO STDOUT"), [])
    assert copy_out_maskable(one("COPY customers FROM STDIN"), RULES)


def test_copied_rows_pass_the_detectors() -> None:
    """In text each row is searched; in binary a hit ends the connection, since it cannot be rewritten."""
    made = CopyMasker([DETECT])
    assert made.line(b"1\tann@example.org\t4111111111111111\n") == b"1\t#MASKED:d#\t#MASKED:d#\n"
    clean = b"1\tx\n"
    assert made.line(clean) is clean
    with pytest.raises(ProtocolViolation):
        made.line(b"\0\0\0\x0fann@example.org", text=False)
    assert CopyMasker([]).passes


def test_errors_and_notices_take_the_union_of_the_sessions_masks() -> None:
    """They belong to no operation; a value reaches them through a cast, a constraint, a RAISE."""
    cast = {
        "S": "ERROR",
        "C": "22P02",
        "M": 'invalid input syntax for type integer: "planted"',
        "W": "unnamed portal parameter $1 = 'planted'",
        "R": "pg_strtoint32",
    }
    unique = {
        "C": "23505",
        "M": 'duplicate key value violates unique constraint "customers_email_key"',
        "D": "Key (email)=(planted) already exists.",
        "n": "customers_email_key",
        "t": "customers",
    }
    raised = {
        "C": "P0001",
        "M": "customer planted is late",
        "H": "ask planted",
        "R": "exec_stmt_raise",
        "W": "PL/pgSQL",
    }
    notice = {"S": "NOTICE", "C": "00000", "M": "planted", "R": "exec_stmt_raise", "W": "PL/pgSQL function f()"}
    custom = {"C": "AB123", "M": "planted", "R": "exec_stmt_raise"}
    for fields in (cast, unique, raised, notice, custom):
        shown = mask_fields(fields, RULES, MASKED)
        assert "planted" not in " ".join(shown.values()), fields
        assert shown["C"] == fields["C"]
        assert shown.keys() == fields.keys()
    assert mask_fields(unique, RULES, MASKED)["n"] == "customers_email_key"
    assert mask_fields(cast, RULES, MASKED)["M"].startswith("invalid input syntax for type integer")


def test_control_names_in_errors_stay_readable() -> None:
    """A person must learn what is wrong with the statement."""
    fields = {"C": "42703", "M": 'column "emial" does not exist', "H": 'Perhaps you meant "customers.email".', "P": "8"}
    assert mask_fields(fields, RULES, MASKED) == fields
    plain = {"C": "22012", "M": "division by zero"}
    assert mask_fields(plain, RULES, MASKED) == plain
    quoted = {"C": "22P02", "M": 'invalid input syntax for type integer: "x"', "D": "detail"}
    assert mask_fields(quoted, [DETECT], MASKED) == quoted


def test_detectors_look_at_every_text_of_a_message() -> None:
    """Without column rules too."""
    fields = {
        "C": "42000",
        "M": "ann@example.org",
        "D": "ann@example.org",
        "H": "ann@example.org",
        "s": "ann@example.org",
    }
    assert "example" not in " ".join(mask_fields(fields, [DETECT], MASKED).values())
    assert mask_payload("ann@example.org", [DETECT], MASKED) == "#MASKED:d#"
    assert mask_payload("", RULES, MASKED) == ""
    assert mask_payload("id=7", [], MASKED) == "id=7"
    assert mask_payload("row of a trigger", RULES, MASKED) == "#MASKED:card#"


_VALUES = st.lists(st.one_of(st.none(), st.binary(max_size=40)), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(
    _VALUES, st.lists(st.booleans(), min_size=6, max_size=6), st.sampled_from([TEXT, BYTEA, JSON, INT8, CITEXT, 3904])
)
def test_a_masked_row_has_the_shape_of_the_row(given_: list[bytes | None], which: list[bool], type_oid: int) -> None:
    """Any bytes in any column: masked columns never show their value, the others are untouched, and it parses."""
    fields = [
        field(type_oid, table=CUSTOMERS if hide else ORDERS, attnum=3) for hide, _ in zip(which, given_, strict=False)
    ]
    seen = values(masker(fields).row(row(*given_)))
    for value, shown, hide in zip(given_, seen, which, strict=False):
        if not hide or value is None:
            assert shown == value
        else:
            assert shown is None or b"MASKED" in shown or shown.startswith(b"\\x")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from([0, 1]), st.sampled_from([TEXT, JSON, JSONB, BYTEA]))
def test_a_planted_secret_never_survives_in_a_row(before: str, after: str, form: int, type_oid: int) -> None:
    """Beside any other text, in text, JSON (escaped or not) and bytea."""
    text = f"{before} ann@example.org {after}".replace("\0", "")
    value = json.dumps(text).encode() if type_oid in (JSON, JSONB) else text.encode("utf-8", "replace")
    if type_oid == JSONB and form == 1:
        value = b"\x01" + value
    if type_oid == BYTEA and form == 0:
        value = b"\\x" + value.hex().encode()
    (seen,) = values(masker([field(type_oid, table=ORDERS, form=form)], rules=[DETECT]).row(row(value)))
    assert seen is not None
    assert b"ann@example.org" not in seen
    assert b"ann@example.org".hex().encode() not in seen


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_junk_rows_raise_only_what_is_documented(body: bytes, count: int) -> None:
    """A target may be as hostile as a client."""
    made = masker([field(JSONB, table=CUSTOMERS, attnum=3, form=1)] * count, rules=[*RULES, DETECT])
    with contextlib.suppress(ProtocolViolation):
        made.row(body)
