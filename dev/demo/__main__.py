"""``make demo``: starts the stack, tells the story on it, ends everything. Exits 0 only if every observation held."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence

from chalicelib.domain.errors import AccessError
from dev.demo.screen import Screen
from dev.demo.stage import told_logs
from dev.demo.story import Story
from dev.demo.waiting import DemoBroken
from dev.local_stack import Stack, StackOptions
from dev.output import Style, complain
from dev.settings import SystemClock
from dev.stack import Stopping


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description="The whole path, on real servers.")
    parser.add_argument("--interactive", action="store_true", help="wait at each card for you to click it")
    given = parser.parse_args(arguments)
    screen, clock = Screen(), SystemClock()
    began = clock.monotonic_s()
    screen.title(
        "Countersign: no hop touches production without a name, a rule, a signature and a record.",
        "Real: psql, ssh, PostgreSQL, sshd, the broker, the control plane. Stand-ins: AWS, Slack, the issuers.",
    )
    try:
        with Stopping(threading.Event()), Stack(StackOptions()) as stack:
            screen.told(
                f"The stack is up after {clock.monotonic_s() - began:.1f} s. Slack: {stack.ready['slack']['page']}"
            )
            if not _told(stack, Story(stack, screen, clock, interactive=given.interactive), screen):
                return 1
    except AccessError as error:
        complain(f"the stack did not start: {error.public}")
        return 1
    except KeyboardInterrupt:
        complain("broken off; everything is stopped")
        return 130
    screen.end(clock.monotonic_s() - began)
    return 1 if screen.failures else 0


def _told(stack: Stack, story: Story, screen: Screen) -> bool:
    try:
        story.tell()
    except DemoBroken as error:
        screen.held(False, f"the story to go on: {error}")
        screen.came_back(told_logs(stack), Style.DIM)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
