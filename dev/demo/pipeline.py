"""A program that is typed into and read from as it runs: the real ``countersign`` around the real ``psql`` or a shell.

Rules: it gets what a job has (the API's address, what proves who it is) and nothing of the stack's; lines are collected
as they come, with when; after each statement the program itself is asked to say a marker on both outputs, so that "the
answer is complete" is its word and no guess about silence.
"""

from __future__ import annotations

import queue
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from chalicelib.domain.clock import Clock
from dev.demo.waiting import DemoBroken, wait_for
from dev.processes import Child, background

ANSWER_S: Final = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """How a program is asked to say a marker on both outputs, and to end."""

    marker: str
    leave: str


PSQL: Final = Language(marker="\\echo {0}\n\\warn {0}\n", leave="\\q\n")
SHELL: Final = Language(marker="echo {0}; echo {0} >&2\n", leave="exit\n")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What it printed for one statement, and how long that took."""

    out: tuple[str, ...]
    err: tuple[str, ...]
    seconds: float


class _Lines:
    """The lines of one output, as they come; None at its end."""

    def __init__(self, name: str, source: IO[bytes]) -> None:
        self._source = source
        self._queue: queue.Queue[str | None] = queue.Queue()
        background(name, self._read)

    def _read(self) -> None:
        with suppress(ValueError, OSError):  # closed under us: the story was broken off
            for line in self._source:
                self._queue.put(line.decode(errors="replace").rstrip("\n"))
        self._queue.put(None)

    def next(self, within_s: float) -> str | None:
        """Return the next line, None at the end. Raises queue.Empty."""
        return self._queue.get(timeout=max(0.01, within_s))


class Pipeline:
    """One ``countersign`` with a program inside that speaks ``language``."""

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        clock: Clock,
        *,
        name: str = "pipeline",
        language: Language = PSQL,
    ) -> None:
        self._clock = clock
        self._language = language
        self._name = name
        self._errors = folder / f"{name}.err"
        self._errors.touch()
        self._child = Child(
            name,
            [sys.executable, "-m", "countersign", *command],
            environment=environment,
            log=self._errors,
            pipes=True,
            cwd=folder,
        )
        self._out = _Lines("pipeline output", self._child.stdout)
        self._seen = 0

    def send(self, statement: str) -> Statement:
        """Type ``statement`` and return at once; the answer is asked of what is returned."""
        marker = f"done-{secrets.token_hex(6)}"
        self._write(f"{statement}\n{self._language.marker.format(marker)}")
        return Statement(self, marker, self._clock.monotonic_s())

    def run(self, statement: str) -> Answer:
        """Type ``statement`` and wait for its answer."""
        return self.send(statement).answer(ANSWER_S)

    def end(self) -> int:
        """Leave the program and return the exit code that ``countersign`` passed on."""
        self._write(self._language.leave)
        return self._child.wait(ANSWER_S)

    @property
    def pid(self) -> int:
        return self._child.pid

    def alive(self) -> bool:
        return self._child.alive()

    def stop(self) -> None:
        self._child.stop()

    def said(self) -> list[str]:
        """Return the lines on standard error so far that were not returned before."""
        lines = self._errors.read_text(errors="replace").split("\n")[:-1]
        new, self._seen = lines[self._seen :], len(lines)
        return new

    def _write(self, text: str) -> None:
        try:
            self._child.stdin.write(text.encode())
            self._child.stdin.flush()
        except OSError as error:
            raise DemoBroken(f"{self._name} has ended: {self._errors.read_text()[-800:]}") from error

    def collect(self, marker: str, began: float, within_s: float) -> Answer:
        """Return what was printed until ``marker``. Raises DemoBroken."""
        ends = self._clock.monotonic_s() + within_s
        out: list[str] = []
        while True:
            try:
                line = self._out.next(ends - self._clock.monotonic_s())
            except queue.Empty:
                raise DemoBroken(f"{self._name} gave no answer within {within_s:.0f} s; so far: {out}") from None
            if line is None:
                raise DemoBroken(f"{self._name} has ended: {self._errors.read_text()[-800:]}")
            if line == marker:
                break
            out.append(line)
        took = self._clock.monotonic_s() - began
        return Answer(out=tuple(out), err=tuple(self._until(marker)), seconds=took)

    def _until(self, marker: str) -> list[str]:
        """Return the lines on standard error before ``marker``, which is written after the one on the output."""
        err: list[str] = []

        def look() -> list[str] | None:
            err.extend(self.said())
            return err if marker in err else None

        wait_for(f"{self._name}'s word on standard error", look, self._clock, ANSWER_S)
        return err[: err.index(marker)]


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement that was typed."""

    pipeline: Pipeline
    marker: str
    began: float

    def answer(self, within_s: float) -> Answer:
        """Wait for the answer. Raises DemoBroken."""
        return self.pipeline.collect(self.marker, self.began, within_s)
