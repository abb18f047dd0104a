"""The pump of the targets' logs: CloudWatch's event shape, whole lines, and what becomes of what is not taken."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.errors import StoreUnavailable
from dev.lambdas import Answered
from dev.log_pump import BATCH, TRIES, LogPump
from tests.fakes.clock import FakeClock


class Watcher:
    """Keeps what it was given; fails as often as it is told to, by an error of its own or of the way there."""

    def __init__(self, fail: int = 0, unreachable: bool = False) -> None:
        self.told: list[dict[str, Any]] = []
        self._fail = fail
        self._unreachable = unreachable

    def __call__(self, event: object) -> Answered:
        self._fail -= 1
        if self._fail >= 0:
            if self._unreachable:
                raise StoreUnavailable("too many calls wait")
            return Answered(payload={}, failed=True)
        assert isinstance(event, dict)
        self.told.append(json.loads(gzip.decompress(base64.b64decode(event["awslogs"]["data"]))))
        return Answered(payload={}, failed=False)

    def lines(self) -> list[str]:
        return [event["message"] for told in self.told for event in told["logEvents"]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def pump(log: Path, watcher: Watcher, *, program: str = "") -> LogPump:
    return LogPump("db-prod", log, watcher, FakeClock(), account="1", program=program)


def test_the_event_is_cloudwatchs(log: Path) -> None:
    """The function reads at AWS what it reads here."""
    watcher = Watcher()
    log.write_text("Failed password for deploy from 127.0.0.1 port 1 ssh2\n")
    pump(log, watcher).step()
    (told,) = watcher.told
    assert told["messageType"] == "DATA_MESSAGE"
    assert told["logGroup"] == "/countersign/targets/db-prod"
    (event,) = told["logEvents"]
    assert set(event) == {"id", "timestamp", "message"}
    assert event["timestamp"] == int(FakeClock().now().timestamp() * 1000)


def test_lines_are_delivered_once_and_whole(log: Path) -> None:
    """Half a line could be read as another; a line that comes twice is two refused logins."""
    watcher = Watcher()
    followed = pump(log, watcher)
    log.write_text("Failed one\nFailed tw")
    assert followed.step() == 1
    with log.open("a") as file:
        file.write("o\n")
    assert followed.step() == 1
    assert followed.step() == 0
    assert watcher.lines() == ["Failed one", "Failed two"]


def test_what_the_filter_does_not_name_costs_no_call(log: Path) -> None:
    """A database logs every statement; a call for each would cost more than the database."""
    watcher = Watcher()
    log.write_text("LOG:  statement: SELECT 1\nAccepted publickey for deploy\n")
    assert pump(log, watcher).step() == 2
    assert watcher.told == []


def test_a_program_gets_what_syslog_puts_before_its_lines(log: Path) -> None:
    """The function takes no line of sshd without it: sshd's bare output may be forged by a user's name."""
    watcher = Watcher()
    log.write_text("Failed none for x\n")
    pump(log, watcher, program="sshd[7]").step()
    (line,) = watcher.lines()
    assert line.endswith(" db-prod sshd[7]: Failed none for x")
    assert line.startswith(f"{FakeClock().now():%Y-%m-%dT%H:%M:%S}")


def test_batches_are_bounded_and_numbered_through(log: Path) -> None:
    """A burst of guesses must not make one event that Lambda does not take."""
    watcher = Watcher()
    log.write_text("".join(f"Failed {number}\n" for number in range(BATCH + 1)))
    pump(log, watcher).step()
    assert [len(told["logEvents"]) for told in watcher.told] == [BATCH, 1]
    ids = [event["id"] for told in watcher.told for event in told["logEvents"]]
    assert len(set(ids)) == BATCH + 1


@pytest.mark.parametrize("unreachable", [False, True])
def test_a_failure_is_tried_again_and_then_left_out_aloud(
    log: Path, unreachable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """One poison line must not stop the log, nor vanish in silence."""
    log.write_text("Failed once\n")
    watcher = Watcher(fail=TRIES - 1, unreachable=unreachable)
    pump(log, watcher).step()
    assert watcher.lines() == ["Failed once"]
    watcher = Watcher(fail=TRIES, unreachable=unreachable)
    followed = pump(log, watcher)
    followed.step()
    assert "left out" in capsys.readouterr().err
    with log.open("a") as file:
        file.write("Failed later\n")
    followed.step()
    assert watcher.lines() == ["Failed later"]
