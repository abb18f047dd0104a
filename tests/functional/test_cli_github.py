"""`countersign exec` as a step of a GitHub Actions job: what the runner, the run's page and the next step get."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from countersign.__main__ import main
from tests.fakes.api_server import ID_TOKEN, SECRET, SESSION, TXN, ApiServer
from tests.fakes.waiting_clock import WaitingClock

ROOT = Path(__file__).parents[2]


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


class Step:
    """The files that a runner makes for one step, and the variables that name them."""

    def __init__(self, folder: Path, api: ApiServer) -> None:
        self.output, self.summary = folder / "output", folder / "summary"
        for file in (self.output, self.summary):
            file.write_text("earlier=1\n")
        self.environment = {
            "COUNTERSIGN_API": api.url,
            "COUNTERSIGN_ID_TOKEN": ID_TOKEN,
            "XDG_STATE_HOME": api.state.name,
            "PATH": os.defpath,
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
        }

    def run(self, *arguments: str, **changed: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = main(arguments, self.environment | changed, out=out, err=err, clock=WaitingClock())
        return code, out.getvalue(), err.getvalue()


@pytest.fixture
def step(tmp_path: Path, api: ApiServer) -> Step:
    return Step(tmp_path, api)


def commands(err: str) -> list[str]:
    """Return what a runner takes for commands: lines that begin with ``::``."""
    return [line for line in err.splitlines() if line.lstrip().startswith("::")]


def test_the_secret_is_starred_out_before_anything_can_print_it(step: Step) -> None:
    """A psql that echoes its environment into a public log gives the session away."""
    code, out, err = step.run("exec", "orders-prod", "--", sys.executable, "-c", "pass")
    assert code == 0
    assert commands(err) == [f"::add-mask::{SECRET}"]
    assert SECRET not in out


def test_no_secret_goes_into_a_file_that_nobody_stars_out(step: Step, tmp_path: Path) -> None:
    """Attack: `exec ... 2> job.log`, and the log is kept as an artifact with the secret in it."""
    log = tmp_path / "job.log"
    with log.open("w") as err:
        done = subprocess.run(
            [sys.executable, "-m", "countersign", "exec", "orders-prod", "--", "true"],
            env=step.environment,
            stderr=err,
            cwd=ROOT,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0
    assert "granted" in log.read_text()
    assert SECRET not in log.read_text()


def test_a_denial_is_an_error_of_the_run(step: Step, api: ApiServer) -> None:
    """Who looks at a red run sees why at once, and what to do, without reading a log."""
    api.refuse = (403, "denied_by_policy", "no rule permits it", "Ask the owners of orders-prod.")
    code, _, err = step.run("exec", "orders-prod", "--", "true")
    assert code == 77
    assert commands(err) == [
        "::error title=Access denied::no rule permits it [denied_by_policy] Ask the owners of orders-prod."
    ]
    assert "| why | `no rule permits it [denied_by_policy]` |" in step.summary.read_text()


def test_what_is_pending_is_said_as_that(step: Step, api: ApiServer) -> None:
    """75 is no denial: the run's page says that people were asked."""
    api.grant_after = None
    code, _, err = step.run("exec", "orders-prod", "--wait", "0", "--", "true")
    assert code == 75
    assert commands(err)[0].startswith("::error title=Access pending::")
    assert SESSION in step.summary.read_text()


def test_the_summary_says_which_session_and_how_to_review_it(step: Step) -> None:
    """Whoever reviews the change finds the recording from the run's page; the next step finds it in the outputs."""
    code, _, _ = step.run("exec", "orders-prod", "--", sys.executable, "-c", "raise SystemExit(3)")
    assert code == 3
    summary = step.summary.read_text()
    assert summary.startswith("earlier=1\n"), "what the step had written was lost"
    assert f"| review | `countersign review {SESSION}` |" in summary
    assert "| exit code | `3` |" in summary
    assert step.output.read_text() == f"earlier=1\nsession={SESSION}\ntxn={TXN}\n"
    assert SECRET not in summary + step.output.read_text()


@pytest.mark.parametrize(
    "text",
    ["no\n::set-output name=x::y", "no\r::add-path::/tmp/evil", "no%0A::stop-commands::x", "a\u2028::debug::b"],
    ids=["line", "return", "escaped", "separator"],
)
def test_the_services_words_are_no_command_of_the_runner(step: Step, api: ApiServer, text: str) -> None:
    """Attack: whoever answers for the API writes a second command behind the error."""
    api.refuse = (403, "denied_by_policy", text, "")
    _, _, err = step.run("exec", "orders-prod", "--", "true")
    (only,) = commands(err)
    assert only.startswith("::error title=Access denied::")
    assert "%0A" not in only.replace("%250A", "")


def test_others_words_draw_nothing_in_the_summary(step: Step, api: ApiServer) -> None:
    """Attack: a message that closes its cell and shows a row of its own, or a link that reads like ours."""
    api.refuse = (403, "denied_by_policy", "no` | \n| approved by | ``[alice](https://evil.example)", "")
    step.run("exec", "orders-prod", "--", "true")
    (row,) = [line for line in step.summary.read_text().splitlines() if line.startswith("| why")]
    assert row == ("| why | ```no` \\|  \\| approved by \\| ``[alice](https://evil.example) [denied_by_policy]``` |")


def test_a_summary_that_cannot_be_written_fails_nothing(step: Step, tmp_path: Path) -> None:
    """The migration is done: a link in the runner's file's place is not followed, and is said."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("")
    (tmp_path / "link").symlink_to(elsewhere)
    code, _, err = step.run("exec", "orders-prod", "--", "true", GITHUB_STEP_SUMMARY=str(tmp_path / "link"))
    assert code == 0
    assert "GITHUB_STEP_SUMMARY cannot be written" in err
    assert elsewhere.read_text() == ""


def test_outside_of_github_nothing_of_it_is_said(step: Step) -> None:
    """The variables alone are no runner: on another CI the mask would be the secret in the log."""
    code, _, err = step.run("exec", "orders-prod", "--", "true", GITHUB_ACTIONS="")
    assert code == 0
    assert commands(err) == []
    assert step.summary.read_text() == step.output.read_text() == "earlier=1\n"


def test_json_stays_one_object(step: Step, api: ApiServer) -> None:
    """A program that reads stdout is not disturbed by what the runner is told."""
    api.refuse = (403, "denied_by_policy", "no rule permits it", "")
    code, out, _ = step.run("exec", "--json", "orders-prod", "--", "true")
    assert code == 77
    assert json.loads(out)["error"]["code"] == "denied_by_policy"
