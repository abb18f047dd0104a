"""`countersign hold`, `hold lift` and `hold list`: what is sent, what is shown, and what is not sent at all."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest

from countersign.__main__ import main
from tests.fakes.api_server import ID_TOKEN, TXN, ApiServer
from tests.fakes.waiting_clock import WaitingClock

HOLD = "hld_01m6dsg7e0fwejtv7egfb0rbxm"
PUT = {
    "id": HOLD,
    "kind": "target",
    "subject": "orders-prod",
    "since": "2026-01-31",
    "reason": "case 7",
    "by": "https://idp#carol",
    "at": "2026-11-02T09:30:00.000Z",
}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def run(api: ApiServer, *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    environment = {"COUNTERSIGN_API": api.url, "COUNTERSIGN_ID_TOKEN": ID_TOKEN, "XDG_STATE_HOME": api.state.name}
    code = main(["hold", *arguments], environment, out=out, err=err, clock=WaitingClock())
    return code, out.getvalue(), err.getvalue()


def test_a_target_is_held_from_a_day_on(api: ApiServer) -> None:
    """What is sent is what was written, once; what is shown is whose hold it is."""
    api.answer("POST /v1/holds", status=201, body=PUT)
    code, out, err = run(api, "orders-prod", "--since", "2026-01-31", "--reason", "case 7")
    assert code == 0, err
    (seen,) = api.calls("POST /v1/holds")
    assert json.loads(seen.body) == {"subject": "orders-prod", "reason": "case 7", "since": "2026-01-31"}
    assert HOLD in out
    assert "case 7" in out


def test_a_lift_names_its_hold(api: ApiServer) -> None:
    """The one thing that lets evidence go is not guessed from a subject."""
    api.answer(f"POST /v1/holds/{HOLD}/lift", status=201, body={"id": HOLD, "reason": "over", "by": "x", "at": "y"})
    code, out, err = run(api, "lift", HOLD, "--reason", "over")
    assert code == 0, err
    assert "lifted" in out
    assert json.loads(api.calls(f"POST /v1/holds/{HOLD}/lift")[0].body) == {"reason": "over"}


def test_all_are_listed_and_hostile_words_stay_on_their_line(api: ApiServer) -> None:
    """Attack: a reason that draws a line of its own, or runs in the terminal."""
    hostile = {**PUT, "reason": "a\nheld  hld_forged\x1b[2J"}
    lifted = {**PUT, "lifted_at": "2026-11-03T00:00:00.000Z", "lifted_by": "https://idp#dora", "lift_reason": "over"}
    api.answer("GET /v1/holds", status=200, body={"holds": [hostile, lifted]})
    code, out, err = run(api, "list")
    assert code == 0, err
    assert len(out.splitlines()) == 5
    assert "\x1b" not in out
    assert "lifted by https://idp#dora" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("orders-prod", "--reason", "case 7"),
        (TXN, "--since", "2026-01-31", "--reason", "case 7"),
        (TXN,),
        (TXN, "--reason", " "),
        ("orders-prod", "--since", "january", "--reason", "case 7"),
        ("lift", "--reason", "over"),
        ("lift", TXN, "--reason", "over"),
        ("list", HOLD),
        ("Orders Prod", "--reason", "case 7"),
    ],
)
def test_what_makes_no_sense_is_not_sent(api: ApiServer, arguments: tuple[str, ...]) -> None:
    """A typing error must not become a hold on something else."""
    code, _, err = run(api, *arguments)
    assert code == 64, err
    assert not [call for route in ("POST /v1/holds", "GET /v1/holds") for call in api.calls(route)]


def test_an_answer_that_makes_no_sense_is_not_taken_for_a_hold(api: ApiServer) -> None:
    """Who believes that something is held does not look again."""
    api.answer("POST /v1/holds", status=201, body={"id": "yes"})
    code, out, _ = run(api, TXN, "--reason", "case 7")
    assert code == 69
    assert "held" not in out
