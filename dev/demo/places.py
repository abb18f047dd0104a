"""Where the hops of the story live: a folder and an environment for each, with nothing of another's.

Rules: a place has the programs that its owner uses and the API's address; what proves who it is, is added by whoever
starts it, as a CI system, a container engine or a cluster would. Its folders go with the stack.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chalicelib.domain.clock import Clock
from dev.demo.pipeline import ANSWER_S, SHELL, Answer, Pipeline
from dev.local_stack import Stack
from dev.processes import Child
from dev.settings import child_environment, search_path
from dev.ssh_binaries import find_ssh

_CODE: Final = "exit code "
_ENDED: Final = re.compile(rf"^{_CODE}(\d+)\n\Z", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What a command printed, and its exit code."""

    out: tuple[str, ...]
    err: tuple[str, ...]
    code: int

    @property
    def text(self) -> str:
        return "\n".join((*self.out, *self.err))


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """One hop's folder and environment."""

    name: str
    folder: Path
    environment: Mapping[str, str]
    clock: Clock

    def countersign(self, *arguments: str, **variables: str) -> Done:
        """Run one ``countersign`` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "countersign", *arguments],
            env={**self.environment, **variables},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )
        return Done(out=tuple(done.stdout.splitlines()), err=tuple(done.stderr.splitlines()), code=done.returncode)

    def start(self, name: str, *arguments: str, **variables: str) -> Child:
        """Start one ``countersign`` whose output goes to the file ``name`` of this place."""
        return Child(
            f"{self.name}: {name}",
            [sys.executable, "-m", "countersign", *arguments],
            environment={**self.environment, **variables},
            log=self.folder / name,
            cwd=self.folder,
        )

    def shell(self, *arguments: str, **variables: str) -> Shell:
        """Start ``countersign ARGUMENTS -- sh``, to type into."""
        environment = {**self.environment, **variables}
        return Shell(self, [*arguments, "--", "sh"], environment)

    def psql(self, *arguments: str, **variables: str) -> Pipeline:
        """Start ``countersign ARGUMENTS -- psql``, to type into."""
        command = [*arguments, "--", "psql", "-X", "-P", "pager=off"]
        return Pipeline(command, {**self.environment, **variables}, self.folder, self.clock, name=f"{self.name}'s psql")


class Shell:
    """A shell inside ``countersign agent``: everything that is typed acts as that hop."""

    def __init__(self, place: Place, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._place = place
        self._pipeline = Pipeline(command, environment, place.folder, place.clock, name=place.name, language=SHELL)

    def run(self, line: str, within_s: float = ANSWER_S) -> Done:
        """Type ``line`` and wait for what it prints. Raises DemoBroken."""
        answer = self._pipeline.send(f"{{ {line}; }} </dev/null; echo {_CODE}$?").answer(within_s)
        return _done(answer)

    def begin(self, line: str, name: str) -> Path:
        """Type ``line`` to run beside the shell; what it prints goes to a file, whose last line is its exit code.
        Return the file."""
        file = self._place.folder / name
        file.touch()
        self.run(f"{{ {line}; echo {_CODE}$?; }} >{shlex.quote(str(file))} 2>&1 & true")
        return file

    def said(self) -> list[str]:
        """Return what is on standard error by now."""
        return self._pipeline.said()

    def stop(self) -> None:
        self._pipeline.stop()


def ended(file: Path) -> int | None:
    """Return the exit code of what writes to ``file``, None while it runs."""
    found = _ENDED.search(file.read_text(errors="replace"))
    return int(found[1]) if found else None


def printed(file: Path) -> list[str]:
    """Return the lines of ``file`` without the exit code."""
    return _ENDED.sub("", file.read_text(errors="replace")).splitlines()


def _done(answer: Answer) -> Done:
    *out, code = answer.out
    return Done(out=tuple(out), err=answer.err, code=int(code.removeprefix(_CODE)))


class Places:
    """Makes them."""

    def __init__(self, stack: Stack, clock: Clock) -> None:
        self._stack = stack
        self._clock = clock
        self._root = stack.folder / "demo"
        self._root.mkdir(mode=0o700)
        self._tools = self._make_tools()

    def place(self, name: str) -> Place:
        """Make the place of ``name``: folders of its own, and the API's address."""
        folder = self._root / name
        (folder / "tmp").mkdir(mode=0o700, parents=True)
        environment = child_environment(
            {
                "PATH": f"{self._tools}:{search_path()}",
                "HOME": str(folder),
                "XDG_STATE_HOME": str(folder / "state"),
                "TMPDIR": str(folder / "tmp"),
                "COUNTERSIGN_API": str(self._stack.ready["api"]),
            }
        )
        return Place(name=name, folder=folder, environment=environment, clock=self._clock)

    def _make_tools(self) -> Path:
        """Make a folder with the programs that a job has on its path."""
        tools = self._root / "tools"
        tools.mkdir()
        psql, ssh = self._stack.binaries(), find_ssh()
        _wrap(tools / "psql", [str(psql.psql)], psql.environment())
        _wrap(tools / "ssh", [str(ssh.ssh)], ssh.client_environment())
        _wrap(tools / "countersign", [sys.executable, "-m", "countersign"], {})
        return tools


def _wrap(path: Path, command: Sequence[str], variables: Mapping[str, str]) -> None:
    settings = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    path.write_text(f'#!/bin/sh\n{settings}exec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)
