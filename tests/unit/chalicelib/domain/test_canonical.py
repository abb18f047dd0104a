"""One value, one text: what hashes and signatures rest on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.canonical import Json, canonical, digest, sha256_hex, timestamp

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=20,
)


def test_keys_are_sorted_and_nothing_is_escaped_that_need_not_be() -> None:
    """RFC 8785's form, of which ours is a subset."""
    value: Json = {"b": [1, True, None], "a": "ö\u2028/", "": {}}
    assert canonical(value) == '{"":{},"a":"ö\u2028/","b":[1,true,null]}'.encode()


@given(VALUES)
def test_it_reads_back(value: Any) -> None:
    """Nothing is lost: two different values never share a text."""
    assert json.loads(canonical(value)) == value


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    """Two writers of one value get one hash."""
    assert digest(dict(reversed(value.items()))) == digest(value)


@pytest.mark.parametrize("value", [1.0, float("nan"), b"x", {1: "x"}, {"a": {"b": [1.5]}}, {1, 2}, object()])
def test_what_has_no_one_text_is_refused(value: Any) -> None:
    """A float's text differs between writers; a number as a key becomes text without a word."""
    with pytest.raises(TypeError):
        canonical(value)


def test_a_digest_is_sha256_of_the_text() -> None:
    """FIPS 180-4's vector for the empty string, and ours for an empty object."""
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest({}) == sha256_hex(b"{}")


def test_a_moment_has_one_text() -> None:
    """In UTC, with milliseconds cut off and never rounded up into another second."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)
    assert timestamp(moment) == "2026-01-02T03:04:05.999Z"
    assert timestamp(moment.astimezone(timezone(timedelta(hours=2)))) == timestamp(moment)
    with pytest.raises(ValueError, match="time zone"):
        timestamp(datetime(2026, 1, 2))
    with pytest.raises(ValueError, match="UTC"):  # an OverflowError passes every reader that expects bad values
        timestamp(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))))
