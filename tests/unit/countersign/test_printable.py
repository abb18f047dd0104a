"""Recorded bytes are hostile: nothing that a terminal obeys passes."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.printable import counted, moment, padded, safe_line, width


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J\x1b[H",
        "\x1b]0;title\x07",
        "\x1b]52;c;cm0gLXJmIC8=\x07",
        "\x9b31m",
        "\x1bP+q\x1b\\",
        "a\x08b",
        "\u202e\u2066evil\u2069",
        "\u200b\u200d\ufeff",
        "\u2028\u2029\x85",
        "\udc80",
        "\U000f0000\ue000",
        "\x00\x7f",
    ],
)
def test_recorded_escapes_do_not_run_in_the_auditors_terminal(hostile: str) -> None:
    """Attack: a statement holds an escape sequence (window title, clipboard, cursor) or turns the writing around."""
    shown = safe_line(hostile)
    assert all(unicodedata.category(char)[0] in "LMNPS" or char == " " for char in shown)


@given(st.text())
def test_nothing_but_what_is_drawn_ever_passes(text: str) -> None:
    """An allow-list holds for texts that nobody thought of."""
    shown = safe_line(text)
    assert all(unicodedata.category(char)[0] in "LMNPS" or char == " " for char in shown)
    assert shown.isprintable() or not shown


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S"))))
def test_what_is_drawn_passes_unchanged(text: str) -> None:
    """A review that mangles names and statements is not evidence."""
    assert safe_line(text) == text


def test_marks_that_climb_over_their_neighbours_are_cut() -> None:
    """Attack: a hundred combining marks on one letter paint over the lines around them."""
    assert safe_line("e" + "\u0301" * 100).count("\u0301") == 2


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_the_limit_holds(text: str, limit: int) -> None:
    """A value of a megabyte takes its column's room and no more."""
    assert len(safe_line(text, limit)) <= limit


def test_columns_align_with_wide_characters() -> None:
    """Names are of all scripts; a table of them stays a table."""
    assert width("日本") == 4
    assert padded("日本", 6) == "日本  "
    assert padded("too long", 3) == "too long"


def test_a_service_time_is_shown_to_the_second_and_anything_else_as_it_is() -> None:
    """People read these lines; what is no time must not vanish, since the service's answer is data."""
    assert moment("2026-11-23T14:02:08.307Z") == "2026-11-23 14:02:08 UTC"
    assert moment("2026-11-23T14:02:08Z") == "2026-11-23 14:02:08 UTC"
    assert moment("tomorrow") == "tomorrow"


def test_a_number_and_its_noun_agree() -> None:
    """A screen that an auditor files says neither "1 gaps" nor "2 persons"."""
    assert [counted(number, "gap") for number in (0, 1, 2)] == ["0 gaps", "1 gap", "2 gaps"]
    assert counted(2, "person", "people") == "2 people"
