"""The story of the demo: one pipeline's job, from its token to the access review, with what each witness saw.

Rules: nothing is claimed that was not observed in this run: on psql's own output, in PostgreSQL's own log, in the
tables, in the bucket. A thing that cannot be observed ends the story with what was waited for. The approvers act
through the stand-in's contract alone, as any other test would.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.clock import Clock
from dev.demo.pipeline import ANSWER_S, Answer, Pipeline
from dev.demo.screen import Screen
from dev.demo.slack import Approvers, Card
from dev.demo.waiting import DemoBroken, wait_for
from dev.demo.witnesses import Cloud, Logged, leaks, logged_statements, recorded_rows, table_cells
from dev.local_stack import ORDERS, Stack
from dev.output import Style
from dev.postgres_server import OWNER
from dev.settings import ROOT, child_environment, search_path

ALICE: Final = "UALICE"  # a database administrator of the demo bundle
DAVE: Final = "UDAVE"  # the developer whose push started the run
REASON: Final = "remove test orders of the first week"
SELECT: Final = "SELECT id, name, email, card_number FROM customers WHERE id <= 3 ORDER BY id;"
DROP: Final = "DROP TABLE orders;"
COUNT: Final = "SELECT count(*) FROM orders;"
DELETE: Final = "DELETE FROM orders WHERE created_at < '2024-01-08';"
_TYPED: Final = tuple(statement.rstrip(";") for statement in (SELECT, DROP, COUNT, DELETE))
PERSON_S: Final = 290.0  # below the demo target's hold budget of 300 s
SEALED_S: Final = 20.0
LOOKING_S: Final = 1.5  # how long the approver reads a card, so that the wait can be seen for what it is


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """The statement that waited: when it was typed, what the card said, when it was clicked, what psql printed."""

    card: Card
    clicked_at: datetime
    answer: Answer


class Story:
    """Tells it once."""

    def __init__(self, stack: Stack, screen: Screen, clock: Clock, *, interactive: bool) -> None:
        self._stack = stack
        self._ready = stack.ready
        self._screen = screen
        self._clock = clock
        self._interactive = interactive
        self._approvers = Approvers(stack.ready["slack"], clock)
        self._cloud = Cloud(stack.ready["aws"])
        self._planted: list[str] = stack.ready["targets"][ORDERS]["planted"]
        self._log = Path(stack.ready["targets"][ORDERS]["log"])
        self._session_id = ""
        self._txn = ""

    def tell(self) -> None:
        """Run the whole story. Raises DemoBroken."""
        pipeline = self._begin(self._token())
        try:
            self._open(pipeline)
            selected = self._select(pipeline)
            self._blocked(pipeline)
            held = self._held(pipeline)
            self._end(pipeline)
        finally:
            pipeline.stop()
        self._target_log(held)
        self._recording(selected)
        self._review()

    # 1. The token.

    def _token(self) -> str:
        self._screen.step(1, "A job of the pipeline starts, with a token that its CI system signed for it")
        request = urllib.request.Request(self._ready["issuer"]["mint"], data=b"{}", method="POST")  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            token = str(json.load(answer)["token"])
        claims = _claims(token)
        self._screen.told(
            f"{claims['repository']}, workflow {claims['workflow']}, run {claims['run_id']}, {claims['event_name']} on "
            f"{claims['ref']}, started by {claims['actor']}. That is all it has: no password, no key."
        )
        return token

    # 2. The session.

    def _begin(self, token: str) -> Pipeline:
        psql = self._stack.binaries()
        environment = child_environment(
            {
                **psql.environment(),
                "PATH": f"{psql.psql.parent}:{search_path()}",
                "COUNTERSIGN_API": self._ready["api"],
                "COUNTERSIGN_ID_TOKEN": token,
            }
        )
        command = ["exec", ORDERS, "--reason", REASON, "--", "psql", "-X", "-P", "pager=off"]
        self._screen.step(2, "It asks for a session on the production database; policy wants one approval")
        self._screen.typed(f"countersign exec {ORDERS} --reason '{REASON}' -- psql")
        return Pipeline(command, environment, self._stack.folder, self._clock)

    def _open(self, pipeline: Pipeline) -> None:
        began = self._clock.monotonic_s()
        connecting = pipeline.send("\\echo :USER\n\\conninfo")
        card = self._approvers.next_card()
        self._screen.came_back(pipeline.said(), Style.DIM)
        self._screen.card(card.lines)
        self._screen.held("session on orders-prod" in card.text(), "a card asks for the session, in Slack")
        self._refused_to_dave(card)
        self._approve(card)
        answer = connecting.answer(PERSON_S if self._interactive else ANSWER_S)
        self._screen.came_back(answer.err, Style.DIM)
        self._session_id = answer.out[0] if answer.out else ""
        self._screen.came_back(answer.out[1:])
        waited = self._clock.monotonic_s() - began
        self._screen.held(
            self._session_id.startswith("ses_"), f"psql is connected {waited:.1f} s later, as {self._session_id}"
        )
        self._chain()

    def _refused_to_dave(self, card: Card) -> None:
        """He is behind the run, so his click must not count; in the interactive demo the audience may try it itself."""
        if self._interactive:
            return
        self._approvers.click(card, "Approve", DAVE)
        said = wait_for(
            "Slack to tell Dave", lambda: self._approvers.whispered(card, DAVE) or None, self._clock, ANSWER_S
        )
        self._screen.held(
            "approver_not_eligible" in said[-1], "Dave, whose push started this run, clicks Approve: not counted"
        )

    def _chain(self) -> None:
        sessions = self._cloud.documents("sessions", self._session_id)
        self._txn = str(sessions[0]["txn"]) if sessions else ""
        hops = self._cloud.documents("chains", self._txn) if self._txn else []
        kinds = sorted(str(hop["kind"]) for hop in hops)
        self._screen.held(
            kinds == ["origin", "target"], f"its chain is txn {self._txn}: the origin's hop, the target's hop"
        )
        self._screen.held(bool(hops) and all(hop["signature"] for hop in hops), "each hop is stored with its signature")

    # 3. The statements.

    def _select(self, pipeline: Pipeline) -> Answer:
        self._screen.step(3, "psql reads: e-mail addresses and card numbers come back masked")
        answer = self._run(pipeline, SELECT)
        cells = table_cells(answer.out)
        self._screen.held(len(cells) == 3, "three rows came back")
        masked = [cell for row in cells for cell in row if cell.startswith("#MASKED:")]
        self._screen.held(len(masked) == 6, "all six values of the masked columns are masks")
        self._screen.held(not leaks([("psql", "\n".join(answer.out))], self._planted), "no planted value reached psql")
        return answer

    def _blocked(self, pipeline: Pipeline) -> None:
        self._screen.step(4, "DROP TABLE is blocked in psql's own protocol, and the session goes on")
        answer = self._run(pipeline, DROP)
        text = "\n".join(answer.err)
        self._screen.held("ERROR:" in text, "psql got an ERROR")
        self._screen.held("HINT:" in text and "migration window" in text, "with the rule's own hint")
        count = self._run(pipeline, COUNT)
        self._screen.held(_first_cell(count) == "10000", "the next statement runs in the same session: 10000 orders")

    def _held(self, pipeline: Pipeline) -> Held:
        self._screen.step(5, "DELETE is held in flight until a person has approved exactly this text")
        self._screen.typed(DELETE, prompt="orders=>")
        before = len(logged_statements(self._log, OWNER))
        waiting = pipeline.send(DELETE)
        card = self._approvers.next_card()
        self._screen.card(card.lines)
        self._screen.held(DELETE.rstrip(";") in card.text(), "a card shows the exact text of the statement")
        self._screen.held(self._txn in card.text(), "and names the chain that it belongs to")
        notice = wait_for("psql to show a notice", lambda: pipeline.said() or None, self._clock, ANSWER_S)
        self._screen.came_back(notice, Style.YELLOW)
        self._screen.held(any("NOTICE:" in line for line in notice), "psql was told that its statement waits")
        self._screen.held(
            len(logged_statements(self._log, OWNER)) == before, "PostgreSQL's log: nothing new ran while it waits"
        )
        if not self._interactive:
            self._pause(LOOKING_S)
        clicked_at = self._approve(card)
        answer = waiting.answer(PERSON_S if self._interactive else ANSWER_S)
        self._screen.came_back([*answer.out, *answer.err])
        self._screen.held(
            any(line == "DELETE 83" for line in answer.out), f"the statement ran: psql waited {answer.seconds:.1f} s"
        )
        count = self._run(pipeline, COUNT)
        self._screen.held(_first_cell(count) == "9917", "9917 orders are left")
        return Held(card=card, clicked_at=clicked_at, answer=answer)

    def _end(self, pipeline: Pipeline) -> None:
        code = pipeline.end()
        self._screen.held(code == 0, "countersign exec ended with psql's own exit code, 0", f"it was {code}")

    # 4. The witnesses.

    def _target_log(self, held: Held) -> None:
        self._screen.step(6, "PostgreSQL's own log is the witness")
        ran = logged_statements(self._log, OWNER)
        self._screen.came_back([_as_logged(found) for found in ran if found.sql.rstrip(";") in _TYPED])
        named = [found for found in ran if found.application.startswith(f"txn:{self._txn}")]
        self._screen.held(
            bool(ran) and named == ran, f"every statement of {OWNER} carries the chain in its application_name"
        )
        everything = self._log.read_text(errors="replace").lower()
        self._screen.held("drop table" not in everything, "DROP TABLE never reached the server")
        deletes = [found for found in ran if found.sql.lower().startswith("delete")]
        self._screen.held(len(deletes) == 1, "DELETE ran once", f"it ran {len(deletes)} times")
        after = bool(deletes) and deletes[0].at >= held.clicked_at.replace(
            microsecond=held.clicked_at.microsecond // 1000 * 1000
        )
        self._screen.held(after, "and after the click, not before")

    def _recording(self, selected: Answer) -> None:
        self._screen.step(7, "The recording is read back from the bucket")
        manifests = wait_for("the signed manifest", self._manifests, self._clock, SEALED_S)
        frames = self._cloud.frames(self._session_id)
        kinds = ", ".join(sorted({str(frame["kind"]) for frame in frames}))
        self._screen.told(f"{len(frames)} frames ({kinds}) and the manifest {manifests[0]}")
        rows = recorded_rows(frames)
        seen = table_cells(selected.out)
        self._screen.held(rows[: len(seen)] == seen and bool(seen), "it holds the rows that psql saw, cell for cell")
        operations = {
            str(frame["text"]).strip().rstrip(";"): frame["meta"].get("verdict")
            for frame in frames
            if frame["kind"] == "operation"
        }
        self._screen.held(operations.get(DROP.rstrip(";")) == "block", "DROP TABLE stands there as blocked")
        self._screen.held(operations.get(DELETE.rstrip(";")) == "hold", "DELETE stands there as held")
        answered = [frame["meta"] for frame in frames if frame["kind"] == "answered"]
        self._screen.held(any("alice" in json.dumps(meta) for meta in answered), "and as approved by alice")
        found = leaks([*self._cloud.everything(), *self._logs()], [*self._planted, *self._passwords()])
        self._screen.held(
            not found,
            f"none of the {len(self._planted)} planted values, nor the target's password, is in any object, row or log",
            f"{sorted({where for where, _ in found})[:3]}",
        )

    def _passwords(self) -> list[str]:
        return [self._stack.orders.owner.password.expose()] if self._stack.orders else []

    def _logs(self) -> list[tuple[str, str]]:
        """Return every log of the stack but PostgreSQL's, which is the target's own."""
        logs = (path for path in (self._stack.folder / "logs").glob("*.log") if path != self._log)
        return [(path.name, path.read_text(errors="replace")) for path in logs]

    def _manifests(self) -> list[str] | None:
        return [key for key in self._cloud.keys("manifests/v1/") if f"/{self._session_id}/" in key] or None

    def _review(self) -> None:
        self._screen.step(8, "The access review: who initiated it, what was done, was each step approved and recorded")
        self._screen.typed(f"countersign review --txn {self._txn}")
        environment = child_environment(self._ready["aws"]["auditor"])
        done = subprocess.run(
            [sys.executable, "-m", "countersign", "review", "--txn", self._txn],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )
        self._screen.came_back(done.stdout.splitlines())
        self._screen.came_back(done.stderr.splitlines(), Style.DIM)
        self._screen.held(done.returncode == 0, "the review exits 0", f"it exited {done.returncode}")
        for what, word in (
            ("that signatures, hashes and sequence hold", "VERIFIED"),
            ("who initiated it", "acme/orders"),
            ("the blocked statement", DROP.rstrip(";")),
            ("the held statement", DELETE.rstrip(";")),
            ("who approved", "Alice Adams"),
            ("the rule that asked", "prod-write"),
            ("the session", self._session_id),
        ):
            self._screen.held(word in done.stdout, f"it says {what}: {word}")

    # What several steps do.

    def _run(self, pipeline: Pipeline, statement: str) -> Answer:
        self._screen.typed(statement, prompt="orders=>")
        answer = pipeline.run(statement)
        self._screen.came_back([line for line in answer.out if line])
        self._screen.came_back(answer.err, Style.RED)
        return answer

    def _approve(self, card: Card) -> datetime:
        """Have the card approved, by Alice or by the person who watches; return when."""
        if self._interactive:
            self._screen.told(f"Open {self._approvers.page} , be Alice Adams, and click Approve. It goes on by itself.")
            asked_at = self._clock.now()
            self._approvers.wait_closed(card, PERSON_S)
            return asked_at  # the click was not ours; it came after this
        at = self._clock.now()
        answer = self._approvers.click(card, "Approve", ALICE)
        if not answer["ok"]:
            raise DemoBroken(f"the click was answered {answer}")
        self._screen.held(True, f"Alice, a database administrator, clicks Approve (answered in {answer['took_ms']} ms)")
        return at

    def _pause(self, seconds: float) -> None:
        ends = self._clock.monotonic_s() + seconds
        wait_for("a moment", lambda: True if self._clock.monotonic_s() > ends else None, self._clock, seconds + 1)


def _claims(token: str) -> dict[str, Any]:
    """Return what a token says, to be shown: nothing rests on it here."""
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


def _first_cell(answer: Answer) -> str:
    cells = table_cells(answer.out)
    return cells[0][0] if cells else ""


def _as_logged(found: Logged) -> str:
    return f"{found.at:%H:%M:%S}.{found.at.microsecond // 1000:03d} {found.user} app={found.application}: {found.sql}"


def told_logs(stack: Stack, names: Sequence[str] = ("broker", "api", "decide", "mint", "post_cards")) -> list[str]:
    """Return the ends of the stack's logs, for a story that broke."""
    lines: list[str] = []
    for name in names:
        path = stack.folder / "logs" / f"{name}.log"
        if path.exists():
            lines += [f"-- {path.name}", *path.read_text(errors="replace").splitlines()[-8:]]
    return lines
