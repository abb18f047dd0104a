"""What every chapter has: the stack, the screen, the approvers, the witnesses, and the places of the hops."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.clock import Clock
from dev.demo.pipeline import ANSWER_S, Answer, Pipeline
from dev.demo.places import Done, Places, Shell
from dev.demo.screen import Screen
from dev.demo.slack import Approvers, Card
from dev.demo.trail import Event, Trail
from dev.demo.waiting import DemoBroken, wait_for
from dev.demo.witnesses import Cloud
from dev.local_stack import Stack
from dev.output import Style

ALICE: Final = "UALICE"  # a database administrator of the demo bundle
DAVE: Final = "UDAVE"  # the developer whose push started the run
_TELLING: Final = ("broker", "api", "sign", "decide", "mint", "review", "post_cards", "watch_targets")
PERSON_S: Final = 290.0  # below the demo targets' hold budget of 300 s


class Stage:
    """Shared by the chapters; :meth:`close` ends what they left running."""

    def __init__(self, stack: Stack, screen: Screen, clock: Clock, *, interactive: bool) -> None:
        self.stack = stack
        self.ready: dict[str, Any] = stack.ready
        self.screen = screen
        self.clock = clock
        self.interactive = interactive
        self.approvers = Approvers(stack.ready["slack"], clock)
        self.cloud = Cloud(stack.ready["aws"])
        self.trail = Trail(stack.folder / "logs", clock)
        self.places = Places(stack, clock)
        self.ending = ExitStack()
        self._steps = 0

    def step(self, text: str) -> None:
        """Begin the next numbered step."""
        self._steps += 1
        self.screen.step(self._steps, text)

    def close(self) -> None:
        self.ending.close()

    def log_of(self, target: str) -> Path:
        return Path(self.ready["targets"][target]["log"])

    def planted(self) -> list[str]:
        """Return every secret value that is planted in a target."""
        return [value for target in self.ready["targets"].values() for value in target["planted"]]

    def run(self, pipeline: Pipeline, statement: str) -> Answer:
        """Type a statement into psql, and show both."""
        self.screen.typed(statement, prompt="orders=>")
        answer = pipeline.run(statement)
        self.screen.came_back([line for line in answer.out if line])
        self.screen.came_back(answer.err, Style.RED)
        return answer

    def typed(self, shell: Shell, who: str, line: str) -> Done:
        """Type a command into a hop's shell, and show both."""
        self.screen.typed(line, prompt=f"{who}$")
        done = shell.run(line)
        self.show(done)
        return done

    def show(self, done: Done) -> None:
        self.screen.came_back(done.out)
        self.screen.came_back(done.err, Style.DIM if done.code == 0 else Style.RED)

    def approve(self, card: Card) -> datetime:
        """Have the card approved, by Alice or by the person who watches; return when."""
        if self.interactive:
            self.screen.told(f"Open {self.approvers.page} , be Alice Adams, and click Approve. It goes on by itself.")
            asked_at = self.clock.now()
            self.approvers.wait_closed(card, PERSON_S)
            return asked_at  # the click was not ours; it came after this
        at = self.clock.now()
        answer = self.approvers.click(card, "Approve", ALICE)
        if not answer["ok"]:
            raise DemoBroken(f"the click was answered {answer}")
        self.screen.held(True, f"Alice, a database administrator, clicks Approve (answered in {answer['took_ms']} ms)")
        return at

    def refused_to_dave(self, card: Card) -> None:
        """He is behind the run, so his click must not count; in the interactive demo the audience may try it itself."""
        if self.interactive:
            return
        seen = self.trail.count("answer.refused", _by_dave)
        self.approvers.click(card, "Approve", DAVE)
        said = wait_for(
            "Slack to tell Dave", lambda: self.approvers.whispered(card, DAVE) or None, self.clock, ANSWER_S
        )
        self.screen.held(
            "approver_not_eligible" in said[-1], "Dave, whose push started this run, clicks Approve: not counted"
        )
        event = self.trail.find("answer.refused", _by_dave, more_than=seen)
        self.screen.held(event is not None, "and his click is an audit event: answer.refused")

    def pause(self, seconds: float) -> None:
        ends = self.clock.monotonic_s() + seconds
        wait_for("a moment", lambda: True if self.clock.monotonic_s() > ends else None, self.clock, seconds + 1)


def _by_dave(event: Event) -> bool:
    return str(event.get("actor", "")).endswith(f"/{DAVE}")


def told_logs(stack: Stack) -> list[str]:
    """Return the ends of the stack's logs, for a story that broke."""
    lines: list[str] = []
    for name in _TELLING:
        path = stack.folder / "logs" / f"{name}.log"
        if path.exists():
            lines += [f"-- {path.name}", *path.read_text(errors="replace").splitlines()[-8:]]
    return lines
