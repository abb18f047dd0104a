"""The demo's screen: what did not hold is kept, and text from elsewhere cannot act on the terminal."""

from __future__ import annotations

import pytest

from dev.demo.screen import Screen


def test_a_failed_observation_is_kept_and_told_again_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code rests on this list: a printed cross that is forgotten would pass."""
    screen = Screen()
    assert screen.held(True, "one")
    assert not screen.held(False, "two", "because")
    screen.end(1)
    assert screen.failures == ["two"]
    assert "1 of 2 observations did not hold" in capsys.readouterr().out


def test_recorded_escapes_do_not_run_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What psql prints came from a table that anybody may have written to."""
    Screen().came_back(["\x1b]0;owned\x07 \x9b31m"])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x9b" not in shown


def test_a_long_command_is_folded_as_a_shell_takes_it(capsys: pytest.CaptureFixture[str]) -> None:
    """People copy it: joined again it must be what was typed."""
    typed = "countersign delegate --name schema-tool " + " ".join(f"--claim name-{number}=value" for number in range(9))
    Screen().typed(typed, prompt="deploy-svc$")
    shown = capsys.readouterr().out.removeprefix("   deploy-svc$ ").rstrip("\n")
    assert max(len(line) for line in shown.splitlines()) < 120
    assert shown.replace("\\\n       ", "") == typed
