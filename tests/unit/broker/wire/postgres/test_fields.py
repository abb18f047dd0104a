"""ErrorResponse and NoticeResponse."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.postgres import fields
from broker.wire.violation import RemoteViolation
from tests.vectors.postgres.replay import SESSIONS, after_login, frames

TEXT = st.binary(max_size=30).filter(lambda text: b"\0" not in text)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.dictionaries(st.sampled_from(list(fields.FIELDS)), TEXT, max_size=6))
def test_fields_come_back_as_they_were(told: dict[str, bytes]) -> None:
    """A rewritten error keeps every field that was not rewritten."""
    assert fields.parse_fields(fields.encode_fields(told)) == told


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.binary(max_size=60))
def test_junk_gives_the_violation_and_nothing_else(junk: bytes) -> None:
    """A target's junk raises one exception type."""
    with contextlib.suppress(RemoteViolation):
        fields.parse_fields(junk)


def test_a_nul_in_a_text_cannot_forge_a_field() -> None:
    """A masked text with a NUL in it would end its field, and what follows would pose as another."""
    raw = fields.encode_fields({"M": b"a\0C00000"})
    assert fields.parse_fields(raw) == {"M": b"aC00000"}


@pytest.mark.parametrize("name", SESSIONS)
def test_real_errors_and_notices_are_read_whole(name: str) -> None:
    """Real errors and notices are encoded to the bytes that they were decoded from."""
    data = b"".join(piece for towards, piece in after_login(name) if towards == "s")
    for kind, body in frames("s", data):
        if kind in b"EN":
            assert fields.encode_fields(fields.parse_fields(body)) == body


def test_our_error_has_what_a_driver_reads() -> None:
    """Drivers read severity, SQLSTATE and message; psql shows detail and hint."""
    told = fields.parse_fields(fields.error("FATAL", "28000", "no", detail="{}", hint="yes")[5:])
    assert told == {"S": b"FATAL", "V": b"FATAL", "C": b"28000", "M": b"no", "D": b"{}", "H": b"yes"}
    assert fields.notice("wait")[:1] == b"N"
