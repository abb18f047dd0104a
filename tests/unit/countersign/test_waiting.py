"""What a person at a terminal sees while others are asked, and what a log gets."""

from __future__ import annotations

import io

import pytest

from countersign.failures import Exit, Failure
from countersign.output import Output
from countersign.sessions import Pending
from countersign.waiting import Progress
from tests.fakes.api_server import SESSION
from tests.fakes.waiting_clock import WaitingClock

PENDING = Pending(
    session_id=SESSION,
    ask_id="ask_1",
    needs=("1 of dba (rule prod-open)",),
    expires_at="2026-11-02T10:30:00.000Z",
    poll="/v1/sessions/x",
    retry_after_s=0,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_live_line() -> None:
    """It says who must approve and for how long it has been, and does not scroll."""
    err, clock = Terminal(), WaitingClock()
    progress = Progress("orders-prod", Output(as_json=False, colour=True, out=Terminal(), err=err), clock)
    for _ in range(30):
        progress.tell(PENDING)
        clock.advance(5)
    assert err.getvalue().count("\n") == 1
    last = err.getvalue().rsplit("\r\x1b[2K", 1)[1]
    assert "1 of dba (rule prod-open)" in last
    assert "2:25" in last


def test_a_log_gets_no_live_line_and_no_escape() -> None:
    """A pipeline's log is a file: a line per poll would bury everything else, and escapes are noise in it."""
    err, clock = io.StringIO(), WaitingClock()
    progress = Progress("orders-prod", Output(as_json=False, colour=True, out=io.StringIO(), err=err), clock)
    for _ in range(30):
        progress.tell(PENDING)
        clock.advance(5)
    assert "\x1b" not in err.getvalue()
    assert len(err.getvalue().splitlines()) == 3  # the start, and two whole minutes of the 145 seconds


@pytest.mark.parametrize(("colour", "coloured"), [(True, True), (False, False)])
def test_colour_is_for_terminals_that_take_it(colour: bool, coloured: bool) -> None:
    """NO_COLOR and dumb terminals are obeyed; a pipe never gets colour."""
    assert ("\x1b[" in Output(as_json=False, colour=colour, out=Terminal()).paint("x", "red")) is coloured
    assert Output(as_json=False, colour=True, out=io.StringIO()).paint("x", "red") == "x"


def test_what_was_live_is_gone_before_the_end_is_said() -> None:
    """The last words stand on a line of their own, not over half of another."""
    err = Terminal()
    output = Output(as_json=False, colour=False, out=Terminal(), err=err)
    output.rewrite("waiting")
    output.fail(Failure(Exit.DENIED, "refused", code="approval_denied"))
    assert err.getvalue().endswith("\r\x1b[2K" + "countersign: refused [approval_denied]\n")
