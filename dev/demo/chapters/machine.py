"""Chapter 3: the tool works on the machine ``db-prod`` with the real ssh: masked, refused, named on the machine's own
log; and leaves two connections open."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dev.demo.chapters.delegation import TOOL, Family
from dev.demo.chapters.job import Job
from dev.demo.pipeline import ANSWER_S
from dev.demo.places import ended, printed
from dev.demo.stage import Stage
from dev.demo.waiting import DemoBroken, wait_for
from dev.demo.witnesses import leaks
from dev.output import Style
from dev.ssh_server import PLANTED_FILE
from dev.targets import DB, ORDERS

REASON: Final = "look at the machine before the migration"
WHY_LOOK: Final = "count orders during the migration"
FORBIDDEN: Final = "systemctl stop postgresql"
WATCH: Final = "SELECT count(*) AS orders FROM orders \\watch 1\n"
FOLLOWED: Final = "releases/current"


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """What the tool left running: the files that a live ssh and a live psql write to."""

    ssh: Path
    psql: Path


def tell(stage: Stage, job: Job, family: Family) -> Live:
    """Tell it. Raises DemoBroken."""
    return _Chapter(stage, job, family).tell()


class _Chapter:
    def __init__(self, stage: Stage, job: Job, family: Family) -> None:
        self._stage = stage
        self._screen = stage.screen
        self._job = job
        self._tool = family.tool
        self._commands = Path(stage.ready["targets"][DB]["commands"])

    def tell(self) -> Live:
        self._runs()
        self._masked()
        self._refused()
        self._named()
        return self._live()

    def _ssh(self, command: str) -> str:
        return f"countersign exec {DB} --reason {shlex.quote(REASON)} -- ssh {DB} {command}"

    def _ran(self) -> list[str]:
        return self._commands.read_text(errors="replace").splitlines()

    def _runs(self) -> None:
        self._stage.step(f"{TOOL} runs a command on the machine {DB}, with the real ssh, through the broker")
        done = self._stage.typed(self._tool.shell, TOOL, self._ssh("uptime"))
        self._screen.held(done.code == 0 and bool(done.out), "uptime answers", f"exit code {done.code}")
        self._screen.held(self._ran()[-1:] == ["uptime"], f"{DB} ran exactly this: uptime")

    def _masked(self) -> None:
        self._stage.step("It prints a file with credentials in it: they arrive masked")
        done = self._stage.typed(self._tool.shell, TOOL, self._ssh(f"cat {PLANTED_FILE}"))
        kinds = re.findall(r"#MASKED:([a-z_]+)", "\n".join(done.out))
        self._screen.held(
            done.code == 0 and len(kinds) == 3, "the access key, the password, the private key: three masks", f"{kinds}"
        )
        self._screen.held("APP_ENV=production" in done.out, "and the rest of the file as it is")
        self._screen.held(not leaks([("ssh", done.text)], self._stage.planted()), "no planted value reached ssh")

    def _refused(self) -> None:
        self._stage.step("A command that no release may skip is refused before the machine sees it")
        before = self._ran()
        done = self._stage.typed(self._tool.shell, TOOL, self._ssh(FORBIDDEN))
        self._screen.held(done.code != 0, f"ssh ends with {done.code}")
        self._screen.held("on-call" in done.text, "and with the rule's own hint")
        self._screen.held(self._ran() == before, f"{DB} was given no command")

    def _named(self) -> None:
        lines = [line for line in self._stage.log_of(DB).read_text(errors="replace").splitlines() if "Accepted" in line]
        named = [line for line in lines if f"txn:{self._job.txn}" in line]
        self._screen.came_back([_folded(line) for line in named[-1:]])
        self._screen.held(bool(named) and named == lines, "sshd's own log names the chain at every login: txn, session")

    def _live(self) -> Live:
        self._stage.step("It follows a file on the machine, and looks at the orders; both stay connected")
        shell = self._tool.shell
        follow = self._ssh(f"tail -f {FOLLOWED}")
        self._screen.typed(f"{follow} &", prompt=f"{TOOL}$")
        ssh = shell.begin(follow, "live-ssh")
        self._wait(ssh, "the file's first line")
        (self._tool.place.folder / "watch.sql").write_text(WATCH)
        look = f"countersign exec {ORDERS} --reason {shlex.quote(WHY_LOOK)} -- psql -X -f watch.sql"
        self._screen.typed(f"{look} &", prompt=f"{TOOL}$")
        psql = shell.begin(look, "live-psql")
        card = self._stage.approvers.next_card()
        self._screen.card(card.lines)
        self._screen.held(TOOL in card.text() and "deploy-svc" in card.text(), "the card names the whole chain")
        self._stage.refused_to_dave(card)
        self._stage.approve(card)
        self._wait(psql, "a row")
        alive = ended(ssh) is None and ended(psql) is None
        self._screen.held(alive, "a live ssh and a live psql, both under deploy-svc")
        return Live(ssh=ssh, psql=psql)

    def _wait(self, file: Path, what: str) -> None:
        """Wait until the program itself, not countersign, has printed something."""

        def look() -> list[str] | None:
            code = ended(file)
            if code is not None:
                raise DemoBroken(f"it ended with {code}: {printed(file)[-8:]}")
            lines = [line for line in printed(file) if not line.startswith("countersign")]
            return lines or None

        self._screen.came_back(wait_for(what, look, self._stage.clock, ANSWER_S)[:3], Style.DIM)


def _folded(line: str) -> str:
    return re.sub(r" ssh2: .*? ID ", " ... ID ", line)
