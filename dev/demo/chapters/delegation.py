"""Chapter 2: the job lets a container's agent in below itself, and that agent lets a tool in: three hops, each with
less than the one above."""

from __future__ import annotations

import json
import shlex
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from dev.cluster_issuer import NAMESPACE, SERVICE_ACCOUNT, SERVICE_ACCOUNT_UID
from dev.demo.chapters.job import Job
from dev.demo.places import Done, Place, Shell
from dev.demo.stage import Stage
from dev.demo.waiting import DemoBroken, wait_for
from dev.targets import DB, ORDERS

DEPLOY: Final = "deploy-svc"
TOOL: Final = SERVICE_ACCOUNT
DEPLOY_SCOPE: Final = f"{DB} {ORDERS}"
TOOL_SCOPE: Final = f"{DB}/deploy#ssh:exec {ORDERS}/orders_app#sql:read"
_STARTED_S: Final = 30.0
_SHOWN: Final = 8  # characters of a ticket that are shown: it is a secret until it is used, and a screen is recorded


@dataclass(frozen=True, kw_only=True, slots=True)
class Agent:
    """A hop's shell, inside ``countersign agent``."""

    name: str
    place: Place
    shell: Shell
    hop: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.hop["id"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """The two hops below the job, and the tickets that let them in."""

    deploy: Agent
    tool: Agent
    tickets: tuple[str, ...] = field(repr=False)


def tell(stage: Stage, job: Job) -> Family:
    """Tell it. Raises DemoBroken."""
    return _Chapter(stage, job).tell()


class _Chapter:
    def __init__(self, stage: Stage, job: Job) -> None:
        self._stage = stage
        self._screen = stage.screen
        self._job = job

    def tell(self) -> Family:
        deploy, first = self._container()
        tool, second = self._pod(deploy)
        self._tree(deploy, tool)
        return Family(deploy=deploy, tool=tool, tickets=(first, second))

    def _container(self) -> tuple[Agent, str]:
        self._stage.step(f"ci-runner starts a container; its agent, {DEPLOY}, has no issuer: the ticket names its key")
        place = self._stage.places.place(DEPLOY)
        identity = str(place.folder / "identity.json")
        self._screen.typed("countersign key", prompt="container$")
        made = place.countersign("key", COUNTERSIGN_IDENTITY=identity)
        self._stage.show(made)
        thumbprint = _only_line(made)
        arguments = ["delegate", "--name", DEPLOY, "--key", thumbprint, "--scope", DEPLOY_SCOPE]
        self._screen.typed(shlex.join(["countersign", *arguments]), prompt="ci-runner$")
        ticket = self._ticket(self._job.place.countersign(*arguments))
        shell = self._start(place, COUNTERSIGN_IDENTITY=identity, COUNTERSIGN_TICKET=ticket)
        hop = self._hop(DEPLOY)
        self._screen.held(hop["evidence"]["assurance"] == "vouched", f"the chain has a second hop, {DEPLOY}: vouched")
        return Agent(name=DEPLOY, place=place, shell=shell, hop=hop), ticket

    def _pod(self, deploy: Agent) -> tuple[Agent, str]:
        self._stage.step(f"{DEPLOY} runs {TOOL} in a pod, which has a token of its own from the cluster")
        issuer = str(self._stage.ready["issuer"]["kubernetes"]["url"])
        claims = {"kubernetes.io/namespace": NAMESPACE, "kubernetes.io/serviceaccount/uid": SERVICE_ACCOUNT_UID}
        named = [part for name, value in claims.items() for part in ("--claim", f"{name}={value}")]
        whom = shlex.join(["countersign", "delegate", "--name", TOOL, "--issuer", issuer, *named])
        self._more(deploy, whom)
        line = f"{whom} --scope {shlex.quote(TOOL_SCOPE)} --duration 30m"
        self._screen.typed(line, prompt=f"{DEPLOY}$")
        ticket = self._ticket(deploy.shell.run(line))
        place = self._stage.places.place(TOOL)
        token = place.folder / "token"
        token.touch(mode=0o600)
        token.write_text(self._projected())
        shell = self._start(place, COUNTERSIGN_TICKET=ticket, COUNTERSIGN_ACTOR_TOKEN_FILE=str(token))
        hop = self._hop(TOOL)
        self._screen.held(hop["evidence"]["assurance"] == "attested", f"the chain has a third hop, {TOOL}: attested")
        return Agent(name=TOOL, place=place, shell=shell, hop=hop), ticket

    def _more(self, deploy: Agent, whom: str) -> None:
        """It asks for more than it has, on the tool's behalf."""
        line = f"{whom} --scope '*'"
        refused = self._stage.typed(deploy.shell, DEPLOY, line)
        self._screen.held(
            refused.code == 77 and "invalid_scope" in refused.text,
            "asking for more than it has is refused: invalid_scope",
            f"exit code {refused.code}",
        )

    def _ticket(self, done: Done) -> str:
        ticket = _only_line(done)
        self._screen.came_back([f"{ticket[:_SHOWN]}...", *done.err])
        return ticket

    def _start(self, place: Place, **variables: str) -> Shell:
        who = "container" if place.name == DEPLOY else "pod"
        self._screen.typed("countersign agent -- sh", prompt=f"{who}$")
        shell = place.shell("agent", **variables)
        self._stage.ending.callback(shell.stop)
        shell.run("true", _STARTED_S)
        return shell

    def _projected(self) -> str:
        request = urllib.request.Request(  # noqa: S310 - the stack's own address
            self._stage.ready["issuer"]["kubernetes"]["mint"], data=b"{}", method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return str(json.load(answer)["token"])

    def _hops(self) -> list[dict[str, Any]]:
        found = self._stage.cloud.documents("chains", self._job.txn)
        return sorted((hop for hop in found if hop["kind"] != "target"), key=lambda hop: int(hop["depth"]))

    def _hop(self, name: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            return next((hop for hop in self._hops() if hop["actor"]["name"].endswith(name)), None)

        return wait_for(f"the hop of {name}", look, self._stage.clock, _STARTED_S)

    def _tree(self, deploy: Agent, tool: Agent) -> None:
        line = f"countersign chain show {self._job.txn}"
        shown = self._stage.typed(tool.shell, TOOL, line)
        self._screen.held(shown.code == 0, "the chain shows who let whom in")
        hops = self._hops()
        scopes = [sorted(hop["scope"]) for hop in hops]
        expected = [["*"], sorted(DEPLOY_SCOPE.split()), sorted(TOOL_SCOPE.split())]
        self._screen.held(scopes == expected, "three hops, each narrower than its parent", f"{scopes}")
        ends = [hop["expires_at"] for hop in hops]
        self._screen.held(ends == sorted(ends, reverse=True), "none ends later than its parent")
        parents = [hop["parent"] for hop in hops]
        self._screen.held(
            parents == [None, hops[0]["id"], deploy.id] and hops[2]["id"] == tool.id,
            "each names the one that let it in",
        )
        self._screen.held(all(hop["signature"] for hop in hops), "and each is signed")


def _only_line(done: Done) -> str:
    if done.code != 0 or not done.out:
        raise DemoBroken(f"exit code {done.code}: {done.text[-800:]}")
    return done.out[-1]
