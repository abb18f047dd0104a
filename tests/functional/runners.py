"""Runners of other people's CI services, as far as our templates need them: each runs a template's own lines.

Rules: what runs is read from the template and never written here; each runner makes the environment that its service
documents, and nothing of ours is in it but what the template puts there. Programs that a runner has and this machine
lacks are stood in by small scripts that record how they were called.

Sources: docs.github.com "Metadata syntax", "Workflow syntax" (``shell: bash`` is ``bash --noprofile --norc -eo pipefail
{0}``); docs.gitlab.com "Shells supported by GitLab Runner"; circleci.com/docs "Configuration reference" (``run``, shell
``/bin/bash -eo pipefail``); buildkite.com/docs "Agent hooks"; jenkins.io "Pipeline: Nodes and Processes" (``sh -xe``).
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "integrations"
_RUN_S: Final = 60
# A program that writes down its arguments and those variables that a client or a job may have.
_RECORDER: Final = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    ours = ("PG", "COUNTERSIGN", "ACTIONS", "CIRCLE", "BUILDKITE")
    kept = {{n: v for n, v in os.environ.items() if n.startswith(ours)}}
    print(json.dumps([os.path.basename(sys.argv[0]), sys.argv[1:], kept]), file=file)
{then}
"""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job ended. ``err`` is what its log shows of stderr."""

    code: int
    out: str
    err: str


class Machine:
    """A machine on which a job runs: a home, a folder of programs in front of the system's, and what was called."""

    def __init__(self, folder: Path, *, api: str) -> None:
        self.api = api
        self.home, self._bin, self._calls = folder / "home", folder / "bin", folder / "calls"
        for made in (self.home, self._bin):
            made.mkdir()
        self._calls.write_text("")
        self.program("countersign", f"exec {shlex.quote(sys.executable)} -m countersign", shell=True)
        for name in ("psql", "pip", "apt-get"):
            self.program(name)

    def program(self, name: str, then: str = "", *, shell: bool = False) -> None:
        """Put a program into the machine's PATH: one that records its call, or a line of shell."""
        path = self._bin / name
        recorder = _RECORDER.format(python=sys.executable, calls=str(self._calls), then=then)
        path.write_text(f'#!/bin/sh\n{then} "$@"\n' if shell else recorder)
        path.chmod(0o755)

    def calls(self, name: str) -> list[tuple[list[str], dict[str, str]]]:
        """Return the arguments and variables of each call of a program."""
        told = [json.loads(line) for line in self._calls.read_text().splitlines()]
        return [(arguments, variables) for called, arguments, variables in told if called == name]

    def run(self, command: list[str], environment: Mapping[str, str], *, path: str = "") -> Ended:
        ours = {"PATH": f"{self._bin}:{path or '/usr/local/bin:/usr/bin:/bin'}", "HOME": str(self.home), "CI": "true"}
        done = subprocess.run(
            command,
            env={**ours, "PYTHONPATH": str(ROOT), **environment},
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=_RUN_S,
            check=False,
        )
        return Ended(code=done.returncode, out=done.stdout, err=done.stderr)


def with_api(text: str, api: str) -> str:
    """Return a template as its reader fills it in."""
    return text.replace("https://COUNTERSIGN.EXAMPLE.COM", api)


class GithubRunner:
    """Runs the steps of the composite action, in order, as a job's step with ``with:``."""

    def __init__(self, machine: Machine, folder: Path, *, token_url: str) -> None:
        self._machine = machine
        self.output, self.summary = folder / "output", folder / "summary"
        for file in (self.output, self.summary):
            file.write_text("")
        self._environment = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "ACTIONS_ID_TOKEN_REQUEST_URL": token_url,
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner",
        }

    def use(self, inputs: Mapping[str, str], *, path: str = "", more: Mapping[str, str] | None = None) -> Ended:
        action = yaml.safe_load((FOLDER / "github/action.yml").read_text())
        given = {name: inputs.get(name, about.get("default", "")) for name, about in action["inputs"].items()}
        ended = Ended(code=0, out="", err="")
        for step in action["runs"]["steps"]:
            script = self._machine.home / "step.sh"
            script.write_text(step["run"])
            stated = {name: _expanded(value, given) for name, value in step.get("env", {}).items()}
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
            ended = self._machine.run(command, {**self._environment, **(more or {}), **stated}, path=path)
            if ended.code:
                return ended
        return ended


def _expanded(value: str, inputs: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ inputs\.([a-z_]+) \}\}", lambda found: inputs[found[1]], value)


def gitlab_job(machine: Machine, template: str, job: str, *, token: str, variables: Mapping[str, str]) -> Ended:
    """Run a job of a template: ``id_tokens`` and ``variables`` first, then before_script and script as one script."""
    told: dict[str, Any] = yaml.safe_load(with_api((FOLDER / template).read_text(), machine.api))[job]
    audiences = [about["aud"] for about in told["id_tokens"].values()]
    assert audiences in ([machine.api], ["$COUNTERSIGN_API"])
    stated = {**told.get("variables", {}), **variables, **dict.fromkeys(told["id_tokens"], token)}
    lines = "\n".join([*told["before_script"], *told["script"]])
    return machine.run(["bash", "-eo", "pipefail", "-c", lines], stated)


def circleci_command(machine: Machine, parameters: Mapping[str, str]) -> Ended:
    """Run the orb's command ``exec`` with those parameters."""
    told = yaml.safe_load((FOLDER / "circleci/orb.yml").read_text())["commands"]["exec"]
    given = {name: parameters.get(name, about.get("default", "")) for name, about in told["parameters"].items()}
    ended = Ended(code=0, out="", err="")
    for step in told["steps"]:
        stated = {
            name: re.sub(r"<< parameters\.([a-z_]+) >>", lambda found: given[found[1]], value)
            for name, value in step["run"]["environment"].items()
        }
        ended = machine.run(["/bin/bash", "-eo", "pipefail", "-c", step["run"]["command"]], stated)
    return ended


def buildkite_step(machine: Machine) -> Ended:
    """Run the pipeline's step after the hook, which the agent runs in the shell whose exports the step then has."""
    (step,) = yaml.safe_load(with_api((FOLDER / "buildkite/pipeline.yml").read_text(), machine.api))["steps"]
    hook = FOLDER / "buildkite/hooks/pre-command"
    lines = "\n".join([f". {shlex.quote(str(hook))}", "set -e", *step["commands"]])
    return machine.run(["/bin/bash", "-c", lines], {**step["env"], "BUILDKITE_AGENT_ACCESS_TOKEN": "agent"})


def jenkins_stage(machine: Machine, *, token: str) -> Ended:
    """Run the Jenkinsfile's ``sh`` steps, with the environment and the credential that it declares."""
    text = with_api((FOLDER / "jenkins/Jenkinsfile").read_text(), machine.api)
    stated = dict(re.findall(r"^\s+([A-Z_]+) = '([^']*)'$", text, re.MULTILINE))
    bound = re.findall(r"string\(credentialsId: '[a-z]+', variable: '([A-Z_]+)'\)", text)
    ended = Ended(code=0, out="", err="")
    for line in jenkins_lines(text):
        ended = machine.run(["sh", "-xe", "-c", line], {**stated, **dict.fromkeys(bound, token)})
        if ended.code:
            return ended
    return ended


def jenkins_lines(text: str) -> list[str]:
    """Return what the ``sh`` steps of a Jenkinsfile run."""
    return re.findall(r"^\s+sh '([^']*)'$", text, re.MULTILINE)
