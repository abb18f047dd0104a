"""Chapter 6: what the target's own log and the bucket say, read past everything of ours that could be wrong."""

from __future__ import annotations

import json
from typing import Final

from dev.demo.chapters.job import COUNT, DELETE, DROP, SELECT, Job
from dev.demo.loot import Loot
from dev.demo.stage import Stage
from dev.demo.waiting import wait_for
from dev.demo.witnesses import Logged, leaks, logged_statements, recorded_rows, table_cells
from dev.postgres_server import OWNER
from dev.targets import ORDERS

SEALED_S: Final = 20.0
_TYPED: Final = tuple(statement.rstrip(";") for statement in (SELECT, DROP, COUNT, DELETE))


def tell(stage: Stage, job: Job, loot: Loot) -> None:
    """Tell it. Raises DemoBroken."""
    chapter = _Chapter(stage, job, loot)
    chapter.target_log()
    chapter.recording()


class _Chapter:
    def __init__(self, stage: Stage, job: Job, loot: Loot) -> None:
        self._stage = stage
        self._screen = stage.screen
        self._job = job
        self._loot = loot

    def target_log(self) -> None:
        self._stage.step("PostgreSQL's own log is the witness")
        log = self._stage.log_of(ORDERS)
        ran = logged_statements(log, OWNER)
        shown = {_as_logged(found): None for found in ran if found.sql.rstrip(";") in _TYPED}
        self._screen.came_back(list(shown))
        named = [found for found in ran if found.application.startswith(f"txn:{self._job.txn}")]
        self._screen.held(
            bool(ran) and named == ran, f"every statement of {OWNER} carries the chain in its application_name"
        )
        everything = log.read_text(errors="replace").lower()
        self._screen.held("drop table" not in everything, "DROP TABLE never reached the server")
        deletes = [found for found in ran if found.sql.lower().startswith("delete")]
        self._screen.held(len(deletes) == 1, "DELETE ran once", f"it ran {len(deletes)} times")
        clicked_at = self._job.held.clicked_at
        after = bool(deletes) and deletes[0].at >= clicked_at.replace(microsecond=clicked_at.microsecond // 1000 * 1000)
        self._screen.held(after, "and after the click, not before")

    def recording(self) -> None:
        self._stage.step("The recording is read back from the bucket")
        manifests = wait_for("the signed manifest", self._manifests, self._stage.clock, SEALED_S)
        frames = self._stage.cloud.frames(self._job.session_id)
        kinds = ", ".join(sorted({str(frame["kind"]) for frame in frames}))
        self._screen.told(f"{len(frames)} frames ({kinds}) and the manifest {manifests[0]}")
        rows = recorded_rows(frames)
        seen = table_cells(self._job.selected.out)
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
        self._nothing_leaked()

    def _nothing_leaked(self) -> None:
        planted = self._stage.planted()
        secrets = [*self._passwords(), *(text for _, text in self._loot.words)]
        found = leaks([*self._stage.cloud.everything(), *self._logs()], [*planted, *secrets])
        self._screen.held(
            not found,
            f"none of the {len(planted)} planted values, of the target's password, of the tokens, tickets and secrets "
            "is in any object, row or log",
            f"{sorted({where for where, _ in found})[:3]}",
        )

    def _passwords(self) -> list[str]:
        orders = self._stage.stack.targets.orders
        return [orders.owner.password.expose()] if orders else []

    def _logs(self) -> list[tuple[str, str]]:
        """Return every log of the stack but the targets' own."""
        own = {log.path for log in self._stage.stack.targets.logs}
        logs = (path for path in (self._stage.stack.folder / "logs").glob("*.log") if path not in own)
        return [(path.name, path.read_text(errors="replace")) for path in logs]

    def _manifests(self) -> list[str] | None:
        return [key for key in self._stage.cloud.keys("manifests/v1/") if f"/{self._job.session_id}/" in key] or None


def _as_logged(found: Logged) -> str:
    return f"{found.at:%H:%M:%S}.{found.at.microsecond // 1000:03d} {found.user} app={found.application}: {found.sql}"
