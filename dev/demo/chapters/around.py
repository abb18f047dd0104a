"""Chapter 4: somebody goes around, with everything that the pipeline ever held. Each attempt is refused, by the target
or by the service, and each is an audit event."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dev.cluster_issuer import NAMESPACE, SERVICE_ACCOUNT_UID
from dev.demo.chapters.delegation import DEPLOY, TOOL, Family
from dev.demo.chapters.job import Job
from dev.demo.loot import Loot, gather
from dev.demo.places import Place
from dev.demo.stage import Stage
from dev.demo.trail import Event
from dev.postgres_server import OWNER
from dev.targets import DB, ORDERS

_TRY_S: Final = 30.0
DENIED: Final = 77  # what `countersign` exits with when it is refused


def tell(stage: Stage, job: Job, family: Family) -> Loot:
    """Tell it; return what was found. Raises DemoBroken."""
    return _Chapter(stage, job, family).tell()


class _Chapter:
    def __init__(self, stage: Stage, job: Job, family: Family) -> None:
        self._stage = stage
        self._screen = stage.screen
        self._job = job
        self._family = family
        self._thief = stage.places.place("thief")

    def tell(self) -> Loot:
        loot = self._gather()
        self._at_sshd(loot)
        self._at_postgres(loot)
        self._stolen_ticket()
        self._second_root()
        return loot

    def _gather(self) -> Loot:
        self._stage.step("Somebody takes everything that the pipeline holds, and goes around: straight to the targets")
        family, folder = self._family, self._thief.folder / "loot"
        projected = (family.tool.place.folder / "token").read_text()
        tokens = [("the job's token", self._runners_token()), ("the pod's token", projected)]
        loot = gather([self._job.place, family.deploy.place, family.tool.place], family.tickets, tokens, folder)
        kinds = ", ".join(sorted({what for what, _ in loot.words}))
        self._screen.told(f"Found: {kinds}; {len(loot.keys)} ssh key with its certificate.")
        self._screen.held(
            len(loot.keys) >= 1 and sum(what == "a session's secret" for what, _ in loot.words) >= 2,
            f"{len(loot.words)} secrets and a certified key are found, sessions' secrets among them",
        )
        return loot

    def _runners_token(self) -> str:
        with urllib.request.urlopen(self._job.runner, timeout=10) as answer:  # noqa: S310 - the stack's own address
            return str(json.load(answer)["value"])

    # At the targets themselves.

    def _at_sshd(self, loot: Loot) -> None:
        target = self._stage.ready["targets"][DB]
        where = ["-p", str(target["port"]), "-l", str(target["user"]), str(target["host"]), "id"]
        before = len(Path(target["commands"]).read_text(errors="replace").splitlines())
        seen = self._events(DB)
        keys = [self._ssh([*_identity(key), *where], "") for key in loot.keys]
        passwords = [self._ssh([*_BY_PASSWORD, *where], word) for _, word in loot.words]
        said = sorted({done.stderr.strip().splitlines()[-1] for done in (*keys, *passwords) if done.stderr.strip()})
        self._screen.typed(f"ssh -p {target['port']} {target['user']}@{target['host']}", prompt="thief$")
        self._screen.came_back(said)
        self._screen.held(
            all(done.returncode == 255 and "Permission denied" in done.stderr for done in (*keys, *passwords)),
            f"sshd refuses {len(keys)} certified key and {len(passwords)} secrets tried as passwords",
        )
        after = len(Path(target["commands"]).read_text(errors="replace").splitlines())
        self._screen.held(after == before, f"{DB} ran nothing")
        self._audited("target.login_refused", _at(DB), seen, len(keys) + len(passwords))

    def _at_postgres(self, loot: Loot) -> None:
        target = self._stage.ready["targets"][ORDERS]
        seen = self._events(ORDERS)
        tried = [self._psql(target, word) for _, word in loot.words]
        said = sorted({done.stderr.strip().splitlines()[-1] for done in tried if done.stderr.strip()})
        self._screen.typed(
            f"psql -h {target['host']} -p {target['port']} -U {OWNER} {target['database']}", prompt="thief$"
        )
        self._screen.came_back(said)
        self._screen.held(
            all(done.returncode != 0 and "password authentication failed" in done.stderr for done in tried),
            f"PostgreSQL refuses all {len(tried)} as passwords",
        )
        self._audited("target.login_refused", _at(ORDERS), seen, len(tried))

    def _ssh(self, arguments: list[str], password: str) -> subprocess.CompletedProcess[str]:
        ask = self._thief.folder / "askpass"
        ask.write_text('#!/bin/sh\necho "$WORD"\n')
        ask.chmod(0o700)
        told = {"WORD": password, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        return self._tried(["ssh", "-F", "none", *_NO_QUESTION, *arguments], told)

    def _psql(self, target: dict[str, Any], password: str) -> subprocess.CompletedProcess[str]:
        told = {"PGPASSWORD": password, "PGSSLMODE": "disable", "PGCONNECT_TIMEOUT": "10"}
        where = ["-h", target["host"], "-p", str(target["port"]), "-U", OWNER, "-d", target["database"]]
        return self._tried(["psql", "-X", *where, "-c", "SELECT 1"], told)

    def _tried(self, command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {**self._thief.environment, **variables}
        tool = str(Path(environment["PATH"].split(":")[0]) / command[0])
        return subprocess.run(
            [tool, *command[1:]],
            env=environment,
            cwd=self._thief.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TRY_S,
            check=False,
        )

    # At the service.

    def _stolen_ticket(self) -> None:
        self._stage.step(f"A thief redeems a ticket that {DEPLOY} made for the tool")
        issuer = str(self._stage.ready["issuer"]["kubernetes"]["url"])
        claims = " ".join(f"--claim {name}={value}" for name, value in _TOOLS_CLAIMS.items())
        line = f"countersign delegate --name {TOOL} --issuer {issuer} {claims} --scope {DB}"
        made = self._family.deploy.shell.run(line)
        ticket = made.out[-1] if made.out else ""
        seen = self._stage.trail.count("ticket.refused", lambda _: True)
        token = self._thief.folder / "token"
        token.touch(mode=0o600)
        # A real pod of the same cluster, under another service account: all that it lacks is to be the one named.
        account = {"serviceaccount": {"name": "thief", "uid": "0c0ffee0-0000-4000-8000-000000000000"}}
        token.write_text(self._minted({"kubernetes.io": account}))
        self._screen.typed("countersign agent -- sh", prompt="thief$")
        refused = self._thief.countersign(
            *("agent", "--", "true"), COUNTERSIGN_TICKET=ticket, COUNTERSIGN_ACTOR_TOKEN_FILE=str(token)
        )
        self._stage.show(refused)
        self._screen.held(refused.code == DENIED and bool(ticket), "refused: the ticket names somebody else")
        self._audited("ticket.refused", lambda _: True, seen)

    def _minted(self, claims: dict[str, Any]) -> str:
        request = urllib.request.Request(  # noqa: S310 - the stack's own address
            self._stage.ready["issuer"]["kubernetes"]["mint"], data=json.dumps(claims).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return str(json.load(answer)["token"])

    def _second_root(self) -> None:
        self._stage.step("Another process of the job fetches the job's token again, and asks for a root of its own")
        own = self._stage.places.place("another-process")
        runner = {"ACTIONS_ID_TOKEN_REQUEST_URL": self._job.runner, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "local"}
        place = Place(name=own.name, folder=own.folder, environment={**own.environment, **runner}, clock=own.clock)
        bound = _coded("run_bound")
        seen = self._stage.trail.count("token.refused", bound)
        arguments = ["request", ORDERS, "--reason", "leave the hop behind"]
        self._screen.typed(f"countersign {' '.join(arguments[:2])}", prompt="ci-runner, another process$")
        refused = place.countersign(*arguments)
        self._stage.show(refused)
        self._screen.held(refused.code == DENIED, "refused: the run has a root, and its key is not here")
        self._audited("token.refused", bound, seen)

    # The trail.

    def _events(self, target: str) -> int:
        return self._stage.trail.count("target.login_refused", _at(target))

    def _audited(self, name: str, holds: Callable[[Event], bool], before: int, times: int = 1) -> None:
        event = self._stage.trail.find(name, holds, more_than=before + times - 1)
        shown = {key: event[key] for key in ("at", "code", "target", "actor", "why") if event.get(key)} if event else {}
        what = "it is an audit event" if times == 1 else f"each of the {times} is an audit event"
        self._screen.held(event is not None, f"and {what}: {name}", "no such event")
        self._screen.came_back([json.dumps(shown, ensure_ascii=False)] if shown else [])


_NO_QUESTION: Final = (
    *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
    *("-o", "IdentitiesOnly=yes", "-o", "NumberOfPasswordPrompts=1"),
)
_BY_PASSWORD: Final = ("-o", "PubkeyAuthentication=no", "-o", "PreferredAuthentications=password")
_TOOLS_CLAIMS: Final = {
    "kubernetes.io/namespace": NAMESPACE,
    "kubernetes.io/serviceaccount/uid": SERVICE_ACCOUNT_UID,
}


def _identity(key: Path) -> list[str]:
    certificate = key.with_name(f"{key.name}-cert.pub")
    return ["-o", "BatchMode=yes", "-o", f"IdentityFile={key}", "-o", f"CertificateFile={certificate}"]


def _at(target: str) -> Callable[[Event], bool]:
    return lambda event: event.get("target") == target


def _coded(code: str) -> Callable[[Event], bool]:
    return lambda event: event.get("code") == code
