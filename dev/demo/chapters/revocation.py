"""Chapter 5: the security team revokes one hop, and everything under it ends within seconds; what is above it lives."""

from __future__ import annotations

import json
import re
import shlex
import urllib.request
from typing import Final

from dev.demo.chapters.delegation import DEPLOY, TOOL, Family
from dev.demo.chapters.job import COUNT, Job, first_cell
from dev.demo.chapters.machine import Live
from dev.demo.pipeline import ANSWER_S
from dev.demo.places import Place, ended, printed
from dev.demo.stage import Stage
from dev.demo.waiting import wait_for
from dev.output import Style
from dev.targets import DB

CAROL: Final = "carol"
WHY: Final = "the container was seen talking to an address that nobody knows"
ENDED_S: Final = 5.0  # what the product promises


def tell(stage: Stage, job: Job, family: Family, live: Live) -> Place:
    """Tell it; return where Carol is logged in. Raises DemoBroken."""
    chapter = _Chapter(stage, job, family, live)
    carol = chapter.log_in()
    chapter.revoke(carol)
    chapter.nothing_new()
    chapter.above_lives()
    return carol


class _Chapter:
    def __init__(self, stage: Stage, job: Job, family: Family, live: Live) -> None:
        self._stage = stage
        self._screen = stage.screen
        self._job = job
        self._family = family
        self._live = live

    def log_in(self) -> Place:
        self._stage.step("Carol, of the security team, logs in at the company's identity provider")
        place = self._stage.places.place(CAROL)
        self._screen.typed("countersign login", prompt=f"{CAROL}$")
        waiting = place.start("login", "login")
        self._stage.ending.callback(waiting.stop)
        file = place.folder / "login"

        def code() -> str | None:
            found = re.search(r"[A-Z]{4}-[A-Z]{4}", file.read_text(errors="replace"))
            return found[0] if found else None

        said = {"user_code": wait_for("a code", code, self._stage.clock, ANSWER_S), "person": CAROL}
        self._confirm({**said, "decision": "confirm"})
        ended_with = waiting.wait(ANSWER_S)
        self._screen.came_back(file.read_text(errors="replace").splitlines())
        self._screen.held(ended_with == 0, "she typed the code on the provider's page, and is logged in")
        return place

    def _confirm(self, said: dict[str, str]) -> None:
        device = str(self._stage.ready["issuer"]["people"]["device"])
        request = urllib.request.Request(device, data=json.dumps(said).encode(), method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=10):  # noqa: S310 - the stack's own address
            return

    def revoke(self, carol: Place) -> None:
        self._stage.step(f"She revokes {DEPLOY}'s hop: the live ssh and the live psql under it end")
        arguments = ["revoke", self._family.deploy.id, "--why", WHY]
        self._screen.typed(shlex.join(["countersign", *arguments]), prompt=f"{CAROL}$")
        done = carol.countersign(*arguments)
        began = self._stage.clock.monotonic_s()
        self._stage.show(done)
        self._screen.held(done.code == 0, "the revocation is written", f"exit code {done.code}")
        files = {"ssh": self._live.ssh, "psql": self._live.psql}

        def over() -> float | None:
            codes = [ended(file) for file in files.values()]
            return self._stage.clock.monotonic_s() - began if None not in codes else None

        took = wait_for("both to end", over, self._stage.clock, ANSWER_S)
        self._screen.held(took <= ENDED_S, f"both ended within {ENDED_S:.0f} s: {took:.1f} s", f"after {took:.1f} s")
        for name, file in files.items():
            said = [line for line in printed(file) if line.strip()]
            first = next((place for place, line in enumerate(said) if "revoked" in line.lower()), len(said))
            self._screen.told(f"The last words of {name}:")
            self._screen.came_back(said[first:], Style.YELLOW)
            self._screen.held(first < len(said), f"{name} was told why, in a line that a person can read")

    def nothing_new(self) -> None:
        line = f"countersign exec {DB} --reason again -- ssh {DB} uptime"
        refused = self._stage.typed(self._family.tool.shell, TOOL, line)
        self._screen.held(refused.code != 0, "nothing new begins under it", f"exit code {refused.code}")

    def above_lives(self) -> None:
        self._screen.told("ci-runner's own session is above the revoked hop. It goes on:")
        count = self._stage.run(self._job.psql, COUNT)
        self._screen.held(first_cell(count) == "9917", "ci-runner's psql still answers: 9917 orders")
        code = self._job.psql.end()
        self._screen.held(code == 0, "countersign exec ended with psql's own exit code, 0", f"it was {code}")
