"""The places of the demo's hops: nothing of one is in another, and what runs beside a shell tells how it ended."""

from __future__ import annotations

from pathlib import Path

from dev.demo.places import ended, printed


def test_a_running_program_has_no_exit_code_yet(tmp_path: Path) -> None:
    """`both ended` must be the programs' own word, and no guess about silence."""
    file = tmp_path / "live"
    for text in ("", "exit code is what it talks about\n", "exit code 1\nstill here\n", "exit code 2"):
        file.write_text(text)
        assert ended(file) is None
    file.write_text("still here\n")
    file.write_text(f"{file.read_text()}exit code 255\n")
    assert ended(file) == 255


def test_the_exit_code_is_not_among_what_was_printed(tmp_path: Path) -> None:
    """The last words of a program are its own."""
    file = tmp_path / "live"
    file.write_text("a row\nthe session was revoked\nexit code 1\n")
    assert printed(file) == ["a row", "the session was revoked"]
