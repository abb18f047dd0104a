"""Chapter 1: a job of the pipeline, ``ci-runner``, works on the production database: masked, blocked, held."""

from __future__ import annotations

import base64
import json
import urllib.request
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dev.demo.pipeline import ANSWER_S, Answer, Pipeline
from dev.demo.places import Place
from dev.demo.slack import Card
from dev.demo.stage import PERSON_S, Stage
from dev.demo.waiting import wait_for
from dev.demo.witnesses import leaks, logged_statements, table_cells
from dev.output import Style
from dev.postgres_server import OWNER
from dev.targets import ORDERS

REASON: Final = "remove test orders of the first week"
SELECT: Final = "SELECT id, name, email, card_number FROM customers WHERE id <= 3 ORDER BY id;"
DROP: Final = "DROP TABLE orders;"
COUNT: Final = "SELECT count(*) FROM orders;"
DELETE: Final = "DELETE FROM orders WHERE created_at < '2024-01-08';"
LOOKING_S: Final = 1.5  # how long the approver reads a card, so that the wait can be seen for what it is


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """The statement that waited: when its card was clicked, what psql printed."""

    clicked_at: datetime
    answer: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """The job, still connected. ``runner`` is the address where it gets its tokens; ``selected`` is what its SELECT
    printed."""

    place: Place
    runner: str
    psql: Pipeline
    txn: str
    session_id: str
    selected: Answer
    held: Held


def tell(stage: Stage) -> Job:
    """Tell it. Raises DemoBroken."""
    return _Chapter(stage).tell()


class _Chapter:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._screen = stage.screen
        self._log = stage.log_of(ORDERS)

    def tell(self) -> Job:
        runner, place = str(self._stage.ready["issuer"]["runner"]), self._job()
        psql = self._begin(place)
        session_id = self._open(psql)
        txn = self._chain(session_id)
        selected = self._select(psql)
        self._blocked(psql)
        held = self._held(psql, txn)
        return Job(place=place, runner=runner, psql=psql, txn=txn, session_id=session_id, selected=selected, held=held)

    def _job(self) -> Place:
        self._stage.step("A job of the pipeline starts: ci-runner, with a token that its CI system signs for it")
        runner = str(self._stage.ready["issuer"]["runner"])
        with urllib.request.urlopen(runner, timeout=10) as answer:  # noqa: S310 - the stack's own address
            claims = _claims(str(json.load(answer)["value"]))
        self._screen.told(
            f"{claims['repository']}, workflow {claims['workflow']}, run {claims['run_id']}, {claims['event_name']} on "
            f"{claims['ref']}, started by {claims['actor']}. That is all it has: no password, no key."
        )
        place = self._stage.places.place("ci-runner")
        token = {"ACTIONS_ID_TOKEN_REQUEST_URL": runner, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "local"}
        return Place(
            name=place.name, folder=place.folder, environment={**place.environment, **token}, clock=place.clock
        )

    def _begin(self, place: Place) -> Pipeline:
        self._stage.step("It asks for a session on the production database; policy wants one approval")
        self._screen.typed(f"countersign exec {ORDERS} --reason '{REASON}' -- psql", prompt="ci-runner$")
        psql = place.psql("exec", ORDERS, "--reason", REASON)
        self._stage.ending.callback(psql.stop)
        return psql

    def _open(self, psql: Pipeline) -> str:
        clock = self._stage.clock
        began = clock.monotonic_s()
        connecting = psql.send("\\echo :USER\n\\conninfo")
        card = self._stage.approvers.next_card()
        self._screen.came_back(psql.said(), Style.DIM)
        self._screen.card(card.lines)
        self._screen.held("session on orders-prod" in card.text(), "a card asks for the session, in Slack")
        self._stage.refused_to_dave(card)
        self._stage.approve(card)
        answer = connecting.answer(PERSON_S if self._stage.interactive else ANSWER_S)
        self._screen.came_back(answer.err, Style.DIM)
        session_id = answer.out[0] if answer.out else ""
        self._screen.came_back(answer.out[1:])
        waited = clock.monotonic_s() - began
        self._screen.held(session_id.startswith("ses_"), f"psql is connected {waited:.1f} s later, as {session_id}")
        return session_id

    def _chain(self, session_id: str) -> str:
        sessions = self._stage.cloud.documents("sessions", session_id)
        txn = str(sessions[0]["txn"]) if sessions else ""
        hops = self._stage.cloud.documents("chains", txn) if txn else []
        kinds = sorted(str(hop["kind"]) for hop in hops)
        self._screen.held(kinds == ["origin", "target"], f"its chain is txn {txn}: the origin's hop, the target's hop")
        self._screen.held(bool(hops) and all(hop["signature"] for hop in hops), "each hop is stored with its signature")
        return txn

    def _select(self, psql: Pipeline) -> Answer:
        self._stage.step("psql reads: e-mail addresses and card numbers come back masked")
        answer = self._stage.run(psql, SELECT)
        cells = table_cells(answer.out)
        self._screen.held(len(cells) == 3, "three rows came back")
        masked = [cell for row in cells for cell in row if cell.startswith("#MASKED:")]
        self._screen.held(len(masked) == 6, "all six values of the masked columns are masks")
        seen = leaks([("psql", "\n".join(answer.out))], self._stage.planted())
        self._screen.held(not seen, "no planted value reached psql")
        return answer

    def _blocked(self, psql: Pipeline) -> None:
        self._stage.step("DROP TABLE is blocked in psql's own protocol, and the session goes on")
        text = "\n".join(self._stage.run(psql, DROP).err)
        self._screen.held("ERROR:" in text, "psql got an ERROR")
        self._screen.held("HINT:" in text and "migration window" in text, "with the rule's own hint")
        count = self._stage.run(psql, COUNT)
        self._screen.held(first_cell(count) == "10000", "the next statement runs in the same session: 10000 orders")

    def _held(self, psql: Pipeline, txn: str) -> Held:
        self._stage.step("DELETE is held in flight until a person has approved exactly this text")
        self._screen.typed(DELETE, prompt="orders=>")
        before = len(logged_statements(self._log, OWNER))
        waiting = psql.send(DELETE)
        card = self._stage.approvers.next_card()
        self._shown(card, txn)
        notice = wait_for("psql to show a notice", lambda: psql.said() or None, self._stage.clock, ANSWER_S)
        self._screen.came_back(notice, Style.YELLOW)
        self._screen.held(any("NOTICE:" in line for line in notice), "psql was told that its statement waits")
        self._screen.held(
            len(logged_statements(self._log, OWNER)) == before, "PostgreSQL's log: nothing new ran while it waits"
        )
        if not self._stage.interactive:
            self._stage.pause(LOOKING_S)
        clicked_at = self._stage.approve(card)
        answer = waiting.answer(PERSON_S if self._stage.interactive else ANSWER_S)
        self._screen.came_back([*answer.out, *answer.err])
        self._screen.held(
            any(line == "DELETE 83" for line in answer.out), f"the statement ran: psql waited {answer.seconds:.1f} s"
        )
        count = self._stage.run(psql, COUNT)
        self._screen.held(first_cell(count) == "9917", "9917 orders are left")
        return Held(clicked_at=clicked_at, answer=answer)

    def _shown(self, card: Card, txn: str) -> None:
        self._screen.card(card.lines)
        self._screen.held(DELETE.rstrip(";") in card.text(), "a card shows the exact text of the statement")
        self._screen.held(txn in card.text(), "and names the chain that it belongs to")


def first_cell(answer: Answer) -> str:
    """Return the first cell of psql's table, or the empty text."""
    cells = table_cells(answer.out)
    return cells[0][0] if cells else ""


def _claims(token: str) -> dict[str, Any]:
    """Return what a token says, to be shown: nothing rests on it here."""
    part = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))
