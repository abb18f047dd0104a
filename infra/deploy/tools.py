"""Terraform and Chalice, run as the operator would run them.

Rules: arguments are lists, never a shell's line. Terraform keeps a data folder for each stage, so that two stages of
one checkout never share a backend. Chalice goes on, with exit code 0, when a wheel is missing ("Could not install
dependencies"): that text fails the step, since what it would deploy cannot be imported. Chalice makes the runtime of
the interpreter that runs it.
Source: developer.hashicorp.com, ``terraform plan`` (``-detailed-exitcode``: 0 nothing, 1 error, 2 changes),
``TF_DATA_DIR``, ``TF_IN_AUTOMATION``; Chalice 1.34, ``chalice.deploy.packager``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from chalicelib.domain.errors import ConfigurationInvalid
from infra.deploy.settings import operators_environment, search_path

MISSING_WHEEL: Final = "Could not install dependencies"
_CHANGES: Final = 2
_RUNTIMES: Final = ((3, 12), (3, 13))  # requirements.txt is resolved for 3.12 and later; Lambda has both


class StepFailed(Exception):
    """A step of the deployment did not succeed; what was done before it stands, and the command can be run again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """How a tool ended, and what it said on both outputs."""

    code: int
    said: str


class Run(Protocol):
    """Runs a tool to its end. What it says is also shown as it comes, unless ``quiet``."""

    def __call__(self, command: Sequence[str], *, cwd: Path, extra: Mapping[str, str], quiet: bool = False) -> Done: ...


def run_shown(command: Sequence[str], *, cwd: Path, extra: Mapping[str, str], quiet: bool = False) -> Done:
    """Implements :class:`Run` on this machine. No time limit of its own: an apply may take half an hour, and ending
    Terraform in the middle leaves a lock behind; the operator's Ctrl-C reaches it as the terminal's own signal."""
    with subprocess.Popen(
        list(command),
        cwd=cwd,
        env=operators_environment(extra),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        said: list[str] = []
        for line in running.stdout or ():
            said.append(line)
            if not quiet:
                sys.stdout.write(line)
                sys.stdout.flush()
    return Done(code=running.returncode, said="".join(said))


def require_tools(
    *, version: tuple[int, int] = sys.version_info[:2], find: Callable[[str], str | None] | None = None
) -> None:
    """Raises ConfigurationInvalid, naming all that is missing, before anything is made."""
    look = find or (lambda name: shutil.which(name, path=search_path()))
    missing: list[str] = []
    if version not in _RUNTIMES:
        missing.append(
            "Python 3.12 or 3.13 (the functions run on the Python that deploys them): COUNTERSIGN_PYTHON=python3.12"
        )
    terraform = look("terraform")
    if terraform is None:
        missing.append("terraform 1.11 or later on the path")
    if missing:
        raise ConfigurationInvalid(f"the deployment needs {'; '.join(missing)}")


class Terraform:
    """The root module ``folder`` for one stage. ``inputs`` are the stage's variable files that exist."""

    def __init__(self, run: Run, folder: Path, stage: str, *, init: Sequence[str] = ()) -> None:
        self._run = run
        self._folder = folder
        self._stage = stage
        self._init = list(init)
        self._extra = {"TF_DATA_DIR": f".terraform/{stage}", "TF_IN_AUTOMATION": "1", "TF_INPUT": "0"}

    @property
    def inputs(self) -> Path:
        """What the operator wrote for this stage."""
        return self._folder / "stages" / f"{self._stage}.tfvars"

    @property
    def deployed(self) -> Path:
        """What the deployment itself tells Terraform once the functions are there."""
        return self._folder / "stages" / f"{self._stage}.deployed.tfvars.json"

    @property
    def backend(self) -> Path:
        """Where the state is, as the operator wrote it."""
        return self._folder / "stages" / f"{self._stage}.backend.hcl"

    def init(self) -> None:
        """Raises StepFailed. Idempotent."""
        backend = [f"-backend-config={self._inside(self.backend)}"] if self.backend.is_file() else []
        self._must("init", "-input=false", "-reconfigure", *backend, *self._init, quiet=True)

    def plan(self, *, leaving: bool = False, destroy: bool = False) -> bool:
        """Show what would change, keep it for :meth:`apply`, and return whether anything would. ``leaving`` lifts the
        protection from deletion and takes away what needs the functions. Raises StepFailed."""
        ends = ["-destroy"] if destroy else []
        inputs = self._inputs(leaving=leaving)
        done = self._terraform("plan", "-input=false", "-detailed-exitcode", f"-out={self._plan()}", *ends, *inputs)
        if done.code != _CHANGES:
            (self._folder / self._plan()).unlink(missing_ok=True)  # nobody applies it, and it has every input in it
        if done.code not in (0, _CHANGES):
            raise StepFailed(f"terraform plan failed ({done.code})")
        return done.code == _CHANGES

    def apply(self) -> None:
        """Make exactly what :meth:`plan` showed. Raises StepFailed: run the command again."""
        try:
            self._must("apply", "-input=false", self._plan())
        finally:
            (self._folder / self._plan()).unlink(missing_ok=True)  # it has every input in it

    def outputs(self) -> str:
        """Return them as JSON. Raises StepFailed."""
        return self._must("output", "-json", quiet=True).said

    def tell_deployed(self, api_id: str, api_stage: str) -> bool:
        """Write that the functions are there, for what can only be made after them; return whether that is new."""
        text = json.dumps({"functions_deployed": True, "api_id": api_id, "api_stage": api_stage}, indent=2) + "\n"
        if self.deployed.is_file() and self.deployed.read_text(encoding="utf-8") == text:
            return False
        self.deployed.write_text(text, encoding="utf-8")
        return True

    def _inputs(self, *, leaving: bool) -> list[str]:
        files = [self.inputs] if leaving else [self.inputs, self.deployed]
        named = [f"-var-file={self._inside(path)}" for path in files if path.is_file()]
        # Last, so that a file that was copied from another stage does not change that one.
        return [*named, f"-var=stage={self._stage}", *(["-var=protect=false"] if leaving else [])]

    def _inside(self, path: Path) -> str:
        return str(path.relative_to(self._folder))

    def _plan(self) -> str:
        return f"{self._stage}.tfplan"

    def _terraform(self, *arguments: str, quiet: bool = False) -> Done:
        return self._run(["terraform", *arguments], cwd=self._folder, extra=self._extra, quiet=quiet)

    def _must(self, *arguments: str, quiet: bool = False) -> Done:
        done = self._terraform(*arguments, quiet=quiet)
        if done.code != 0:
            raise StepFailed(f"terraform {arguments[0]} failed ({done.code}){_end(done) if quiet else ''}")
        return done


class Chalice:
    """The app in ``folder`` for one stage, in one region."""

    def __init__(self, run: Run, folder: Path, stage: str, region: str) -> None:
        self._run = run
        self._folder = folder
        self._stage = stage
        self._region = region

    @property
    def config(self) -> Path:
        return self._folder / ".chalice" / "config.json"

    @property
    def state(self) -> Path:
        """Chalice's own record of what it deployed: kept by the operator, beside the stage."""
        return self._folder / ".chalice" / "deployed" / f"{self._stage}.json"

    def deploy(self) -> None:
        """Raises StepFailed. Idempotent."""
        self._must("deploy", "--stage", self._stage)

    def delete(self) -> None:
        """Raises StepFailed. What is gone already is no error."""
        self._must("delete", "--stage", self._stage)

    def package(self, out: Path) -> None:
        """Write ``sam.json`` and ``deployment.zip`` into ``out``. Raises StepFailed."""
        self._must("package", "--stage", self._stage, str(out))

    def _must(self, *arguments: str) -> None:
        # By the module and not the script: the interpreter that runs it is the functions' runtime.
        command = [sys.executable, "-c", "from chalice.cli import main; main()", *arguments]
        done = self._run(command, cwd=self._folder, extra={"AWS_DEFAULT_REGION": self._region})
        if MISSING_WHEEL in done.said:
            raise StepFailed(
                f"chalice {arguments[0]}: a dependency has no wheel for Lambda, and what it made is broken"
            )
        if done.code != 0:
            raise StepFailed(f"chalice {arguments[0]} failed ({done.code})")


def _end(done: Done) -> str:
    return f":\n{done.said[-2000:].rstrip()}"
