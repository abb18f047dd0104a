"""Recorded bytes in the auditor's terminal: an allow-list, whatever is fed and wherever it is cut."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from countersign.terminal_text import MAX_STRING, TerminalText, plain_text, safe_terminal

# Written apart from the code that it judges: what may stand in the output, whole.
_ALLOWED = re.compile(
    r"\x1b(?:[78M]|\[[su]|\[(?:[0-9]{0,4}(?:;[0-9]{0,4})?)[ABCDEFGHadef`JKX@PLM]|\[[0-9:;]{0,60}m)|[\n\r\t\b]|[^\x00-\x1f\x7f-\x9f]"
)
_PIECES = st.one_of(
    st.text(
        alphabet=st.sampled_from("\x1b[]P_^X\\;:?>!0123456789mABHJKnchlrtq(c\x07\x18\x9b\x9c\u202eab \n"), max_size=30
    ),
    st.text(max_size=8),
    st.sampled_from(["\x1b]52;c;ZXZpbA==\x07", "\x1b[6n", "\x1b[31m", "\x1bP+q544e\x1b\\", "\x1b[?2004h", "\x1b[2J"]),
)


@given(st.lists(_PIECES, max_size=12).map("".join))
def test_recorded_escapes_run_in_the_auditors_terminal(text: str) -> None:
    """Attack: whatever a target printed, nothing reaches the terminal but cells, colours and moves of the cursor."""
    safe = safe_terminal(text)
    assert "".join(_ALLOWED.findall(safe)) == safe
    assert not any(unicodedata.category(char) in {"Cf", "Co", "Cs", "Zl", "Zp"} for char in safe)
    assert safe_terminal(safe) == safe


@given(st.lists(_PIECES, max_size=12))
def test_where_a_stream_is_cut_makes_no_difference(pieces: list[str]) -> None:
    """Frames are cut where the network cut them: an attacker must not get a sequence through by halves."""
    stream = TerminalText()
    assert "".join(stream.feed(piece) for piece in pieces) == safe_terminal("".join(pieces))


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S")), max_size=60))
def test_what_is_drawn_is_shown(text: str) -> None:
    """A filter that ate text would hide what was done."""
    assert safe_terminal(text) == text


@pytest.mark.parametrize("erase", ["3", "03", "0003", "2;3", "3;"])
def test_a_recording_clears_what_the_auditor_scrolls_back_to(erase: str) -> None:
    """Attack: xterm's ED 3 takes the lines that have scrolled away, with the findings that stood above the replay."""
    for emulated in (False, True):
        stream = TerminalText(emulated=emulated)
        assert (stream.feed(f"a\x1b[{erase}Jb"), stream.dropped) == ("ab", 1)


@pytest.mark.parametrize(
    "kept",
    [
        "\x1b[31mred\x1b[0m",
        "\x1b[4:3;38:2::8:8:8m\x1b[1;38;5;8;48;2;8;8;8mcolours whose own numbers are 8\x1b[m",
        "\x1b[2J\x1b[H\x1b[10;20Hhere",
        "\x1b[K\x1b[3P\x1b[1@",
        "\x1b7\x1b[5A\x1b8",
        "a\r\n\tb\b",
    ],
)
def test_what_draws_a_screen_passes(kept: str) -> None:
    """Else a recorded editor is a heap of letters, and nobody looks at it."""
    assert safe_terminal(kept) == kept


@pytest.mark.parametrize(
    ("hostile", "left"),
    [
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]52;c;ZXZpbA==\x1b\\after", "after"),
        ("\x1b]8;;https://evil.example\x07link\x1b]8;;\x07", "link"),
        ("\x1bP$q\x22p\x1b\\after", "after"),
        ("\x1b[6n\x1b[c\x1b[0c\x1b[>c\x1b[5nafter", "after"),
        ("\x1b[21tafter", "after"),
        ("\x1b[?2004h\x1b[?1049h\x1b[?1000hafter", "after"),
        ("\x1b[8mhidden\x1b[0;8mtoo", "hiddentoo"),
        ("\x1b[;08mhidden", "hidden"),
        ("\x1b[38;9;8mhidden", "hidden"),
        ("\x1b[38:5;8mhidden", "hidden"),
        ("\x1b[8:1mhidden", "hidden"),
        ("\x1b[38;5;1;8mhidden", "hidden"),
        ("\x1bcafter", "after"),
        ("\x1b(0after", "after"),
        ("\x1b[1000000000bafter", "after"),
        ("\x1b[99999Cafter", "after"),
        ("\x9b6nafter", "6nafter"),
        ("\x9d0;title\x9cafter", "0;titleafter"),
        ("\x07\x0e\x7fafter", "after"),
        ("\x1b[31\x1b[6nafter", "after"),
        ("\x1b\x1b[31mafter", "\x1b[31mafter"),
        ("\x1b[3\u202e1mafter", "1mafter"),
        ("\x1b]0;never ends\x18after", "after"),
    ],
)
def test_what_a_terminal_would_obey_is_dropped_and_counted(hostile: str, left: str) -> None:
    """Titles, clipboard, links, reports, modes, conceal, character sets, resets, repeats; in every spelling."""
    stream = TerminalText()
    assert stream.feed(hostile) == left
    assert stream.dropped >= 1


def test_a_string_without_an_end_does_not_hide_the_rest() -> None:
    """Attack: an OSC that is never closed takes all that follows off the replay."""
    shown = safe_terminal("\x1b]0;" + "x" * MAX_STRING + "rm -rf /")
    assert shown.endswith("rm -rf /")


def test_an_unfinished_sequence_is_dropped_at_the_end() -> None:
    """What follows the replay, a prompt, must not complete it."""
    stream = TerminalText()
    assert stream.feed("x\x1b[31") == "x"
    stream.finish()
    assert stream.feed("m") == "m"


_LAYOUT = re.compile(
    r"\x1b(?:[78MDEH]|[()][0B]|\[[su]|\[(?:[0-9]{0,4}(?:;[0-9]{0,4})?)[ABCDEFGHadef`JKX@PLMrSTIZg]"
    r"|\[\?(?:6|7|25|47|104[789])(?:;(?:6|7|25|47|104[789]))*[hl]|\[[0-9:;]{0,60}m)"
    r"|[\n\r\t\b\x0e\x0f]|[^\x00-\x1f\x7f-\x9f]"
)


@given(st.lists(_PIECES, max_size=12))
def test_in_an_emulator_of_ours_the_layout_passes_and_no_more(pieces: list[str]) -> None:
    """Attack: a recorded sequence that the page's player obeys: a resize to a million cells, a repeat, a reset."""
    stream = TerminalText(emulated=True)
    safe = "".join(stream.feed(piece) for piece in pieces)
    assert "".join(_LAYOUT.findall(safe)) == safe
    assert TerminalText(emulated=True).feed("".join(pieces)) == safe


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("\x1b[?1049h\x1b[1;20r\x1b[?25l", None),
        ("\x1b(0lqk\x1b(B\x0e\x0f", None),
        ("\x1b[3S\x1b[2T\x1bD\x1bE", None),
        ("\x1b[8;9999;9999tx\x1b[99999bx\x1bcx", "xxx"),
        ("\x1b[?1000h\x1b[?2004h\x1b[?1049;2004hx", "x"),
        ("\x1b[8;40tx\x1b[999bx\x1b[!px", "xxx"),
        ("\x1b[4hx\x1b[?hx\x1b(1x", "xxx"),
        ("\x1b[8mhidden", "hidden"),
    ],
)
def test_an_emulator_draws_whole_screens(text: str, left: str | None) -> None:
    """An editor's screen is a picture there; for the auditor's own terminal all of it is left out."""
    assert TerminalText(emulated=True).feed(text) == (text if left is None else left)
    assert "\x1b[?" not in safe_terminal(text)
    assert not set(safe_terminal(text)) & set("\x0e\x0f")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[31mred\x1b[0m\r\nnext  \r\n", "red\nnext\n"),
        ("10%\r20%\r100%", "100%"),
        ("lsx\b \b", "ls"),
        ("ab\b\b\b\bX", "Xb"),
        ("\x1b[?1049h\x1b(0q\x1b(B\x0ea\x0f\x1b7b\x1b8", "qab"),
    ],
)
def test_what_was_printed_is_text_that_can_be_searched(text: str, plain: str) -> None:
    """As its reader saw the line at its end: written over, taken back."""
    assert plain_text(TerminalText(emulated=True).feed(text)) == plain


@given(st.text())
def test_plain_text_has_nothing_that_moves(text: str) -> None:
    """Whatever was made safe before."""
    assert not set(plain_text(TerminalText(emulated=True).feed(text))) & set("\x1b\r\b\x0e\x0f")
