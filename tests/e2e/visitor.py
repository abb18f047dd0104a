"""What tests do with a running stack: a pipeline with a session of its own, agents below it, cards, more brokers.

Rules: all of it is done through the contract of the ready file and through real processes; a further broker is the same
command with the same role's credentials as the stack's own, so that killing it harms no other test.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import psycopg
from boto3.session import Session

from chalicelib.identity.dpop import Key, new_key
from dev.cluster_issuer import NAMESPACE, SERVICE_ACCOUNT_UID
from dev.demo.waiting import wait_for
from dev.emulator import ROOT_KEY
from dev.local_stack import Stack
from dev.processes import Child, free_port, listening
from dev.settings import ROOT, SystemClock, child_environment
from dev.ssh_binaries import find_ssh
from dev.ssh_keys import make_key
from dev.targets import ORDERS
from tests.unit.dev.calling import call

CARD_S: Final = 20.0
READY_S: Final = 60.0
ANSWER_S: Final = 20.0  # as long as a card: an outage of the emulator under load ends within seconds

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TICKET: Final = "urn:countersign:params:oauth:token-type:delegation-ticket"

Row = tuple[Any, ...]


def environment_of(child: Child) -> dict[str, str]:
    """Return the environment that a part of the stack was started with: its own role's credentials are in it."""
    pairs = Path(f"/proc/{child.pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """One run of the pipeline. ``token`` is its access token."""

    stack: Stack
    ci_token: str
    token: str

    @classmethod
    def of(cls, stack: Stack, **claims: object) -> Visitor:
        ci_token = ci_token_of(stack, **claims)
        status, answer = exchange(stack, ci_token)
        assert status == 200, answer
        return cls(stack=stack, ci_token=ci_token, token=answer["access_token"])

    def ask(self, *, reason: str, key: str = "", **body: object) -> tuple[int, Any]:
        """``POST /v1/sessions``."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        sent = {"target": ORDERS, "reason": reason} | body
        return call(f"{self.stack.ready['api']}/v1/sessions", sent, headers | ({"Idempotency-Key": key} if key else {}))

    def session(self) -> dict[str, Any]:
        """Ask for a session, have it approved by Alice, and return the answer with ``connect``."""
        mark = f"fault {secrets.token_hex(8)}"
        key = mark.replace(" ", "-")
        status, asked = self._answered(reason=mark, key=key)
        assert status == 202, asked
        card_with(self.stack, mark).click("UALICE")
        status, granted = self._answered(reason=mark, key=key)
        assert status == 201, granted
        return dict(granted)

    def _answered(self, *, reason: str, key: str) -> tuple[int, Any]:
        """Ask until the answer is no 503, as the command line does: on a loaded machine the emulator may be late."""

        def answer() -> tuple[int, Any] | None:
            status, said = self.ask(reason=reason, key=key)
            return None if status == 503 else (status, said)

        return wait_for("an answer that is no outage", answer, SystemClock(), ANSWER_S)


@dataclass(frozen=True, kw_only=True)
class Agent:
    """A hop of a chain that proves a key: a run's root, or let in below one by a ticket."""

    stack: Stack
    key: Key
    token: str
    txn: str
    hop: str

    @classmethod
    def root(cls, stack: Stack, **claims: object) -> Agent:
        """A new run of the pipeline, with a key from its first exchange on."""
        return cls._exchanged(stack, new_key(), ci_token_of(stack, **claims), ID_TOKEN)

    @classmethod
    def person(cls, stack: Stack, who: str) -> Agent:
        """Somebody who logged in at the identity provider."""
        token = str(call(stack.ready["issuer"]["people"]["mint"], {"sub": who})[1]["token"])
        return cls._exchanged(stack, new_key(), token, ID_TOKEN)

    @classmethod
    def _exchanged(cls, stack: Stack, key: Key, token: str, kind: str, **more: str) -> Agent:
        status, answer = token_call(stack, key, subject_token=token, subject_token_type=kind, **more)
        assert status == 200, answer
        return cls(stack=stack, key=key, token=answer["access_token"], txn=answer["txn"], hop=answer["hop"])

    def call(self, method: str, path: str, body: object = None, *, idempotency: str = "") -> tuple[int, Any]:
        """Ask the API with this token and a proof of this key."""
        url = f"{self.stack.ready['api']}{path}"
        proof = self.key.proof(method, url, token=self.token, now=SystemClock().now())
        headers = {"Authorization": f"DPoP {self.token}", "DPoP": proof, "Content-Type": "application/json"}
        assert method == ("GET" if body is None else "POST")
        return call(url, body, headers | ({"Idempotency-Key": idempotency} if idempotency else {}))

    def ticket(self, redeemer: Mapping[str, object], *, name: str, **body: object) -> tuple[int, Any]:
        """``POST /v1/delegations``."""
        return self.call("POST", "/v1/delegations", {"redeemer": redeemer, "name": name, **body})

    def vouched(self, name: str, **body: object) -> Agent:
        """Let in a child that is known by its key alone."""
        key = new_key()
        status, told = self.ticket({"key": key.thumbprint}, name=name, **body)
        assert status == 201, told
        return self._exchanged(self.stack, key, told["ticket"], TICKET)

    def attested(self, name: str = "schema-tool", **body: object) -> Agent:
        """Let in the demo's pod, as the cluster vouches for it."""
        status, told = self.ticket(pod_redeemer(self.stack), name=name, **body)
        assert status == 201, told
        pod = {"actor_token": pod_token(self.stack), "actor_token_type": JWT}
        return self._exchanged(self.stack, new_key(), told["ticket"], TICKET, **pod)

    def session(self, target: str, **body: object) -> dict[str, Any]:
        """Ask for a session, have it approved by Alice where that is needed, and return the answer."""
        mark = f"agent {secrets.token_hex(8)}"
        asked = {"target": target, "reason": mark, **body}
        status, answer = self.call("POST", "/v1/sessions", asked, idempotency=mark.replace(" ", "-"))
        if status == 202:
            card_with(self.stack, mark).click("UALICE")
            status, answer = self.call("POST", "/v1/sessions", asked, idempotency=mark.replace(" ", "-"))
        assert status == 201, answer
        return dict(answer)

    @contextmanager
    def ssh(self, session: Mapping[str, Any]) -> Iterator[SshLogin]:
        """Give the real ssh of one session: a key of its own, certified, and the broker's host key."""
        pair = make_key()
        path = f"/v1/sessions/{session['session_id']}/certificate"
        status, answer = self.call("POST", path, {"ssh_public_key": pair.public})
        assert status == 200, answer
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            for name, text in (
                ("key", pair.private),
                ("key-cert.pub", f"{answer['certificate']}\n"),
                ("known_hosts", session["connect"]["known_hosts"]),
            ):
                (folder / name).touch(mode=0o600)
                (folder / name).write_text(text)
            yield SshLogin(folder=folder, connect=session["connect"])


@dataclass(frozen=True, kw_only=True)
class SshLogin:
    """What the real ``ssh`` is given to reach the broker."""

    folder: Path
    connect: Mapping[str, Any]

    def argv(self, *command: str, options: Sequence[str] = ()) -> list[str]:
        told = self.connect
        own = {
            "IdentityFile": self.folder / "key",
            "CertificateFile": self.folder / "key-cert.pub",
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": self.folder / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
        }
        set_ = [part for name, value in own.items() for part in ("-o", f"{name}={value}")]
        binaries = find_ssh()
        where = ["-p", str(told["port"]), "-l", told["user"], told["host"]]
        return [str(binaries.ssh), "-F", "none", *set_, *options, *where, *command]

    def run(self, *command: str, options: Sequence[str] = (), given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*command, options=options),
            input=given,
            env=child_environment(find_ssh().client_environment()),
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )


def token_call(stack: Stack, key: Key | None, **form: str) -> tuple[int, Any]:
    """``POST /v1/token``, with a proof of ``key`` where there is one."""
    url = f"{stack.ready['api']}/v1/token"
    proof = {} if key is None else {"DPoP": key.proof("POST", url, now=SystemClock().now())}
    return call(url, urlencode({"grant_type": EXCHANGE, **form}).encode(), proof)


def pod_token(stack: Stack, **claims: object) -> str:
    """Return a token that the cluster projects into a new pod of the demo's schema tool."""
    return str(call(stack.ready["issuer"]["kubernetes"]["mint"], claims)[1]["token"])


def pod_redeemer(stack: Stack) -> dict[str, object]:
    """Return how a ticket names that pod's service account."""
    claims = {"kubernetes.io/namespace": NAMESPACE, "kubernetes.io/serviceaccount/uid": SERVICE_ACCOUNT_UID}
    return {"issuer": stack.ready["issuer"]["kubernetes"]["url"], "claims": claims}


def ci_token_of(stack: Stack, **claims: object) -> str:
    return str(call(stack.ready["issuer"]["mint"], claims)[1]["token"])


def exchange(stack: Stack, ci_token: str) -> tuple[int, Any]:
    form = {
        "grant_type": EXCHANGE,
        "subject_token": ci_token,
        "subject_token_type": ID_TOKEN,
    }
    return call(f"{stack.ready['api']}/v1/token", urlencode(form).encode())


@dataclass(frozen=True, kw_only=True)
class SlackCard:
    """An open card of the stand-in."""

    stack: Stack
    message: Mapping[str, Any] = field(repr=False)

    @property
    def ts(self) -> str:
        return str(self.message["ts"])

    def action(self, word: str = "approve") -> str:
        items = (item for block in self.message["blocks"] for item in block.get("elements", []))
        return next(
            str(item["action_id"])
            for item in items
            if item.get("type") == "button" and item["text"]["text"].lower().startswith(word)
        )

    def click(self, user: str, word: str = "approve") -> dict[str, Any]:
        click = {"message_ts": self.ts, "action_id": self.action(word), "user_id": user}
        return dict(call(self.stack.ready["slack"]["click"], click)[1])

    def now(self) -> Mapping[str, Any]:
        """Return the message as it is by now."""
        found: list[dict[str, Any]] = call(self.stack.ready["slack"]["messages"])[1]
        return next(one for one in found if one["ts"] == self.ts)


def card_with(stack: Stack, mark: str, *, besides: Sequence[str] = ()) -> SlackCard:
    """Wait for the open card that shows ``mark`` and is none of ``besides``: a decided card is open for a moment."""

    def look() -> SlackCard | None:
        messages: list[dict[str, Any]] = call(stack.ready["slack"]["messages"])[1]
        return next(
            (
                SlackCard(stack=stack, message=one)
                for one in messages
                if one["state"] == "open" and one["ts"] not in besides and mark in json.dumps(one["blocks"])
            ),
            None,
        )

    return wait_for(f"a card that shows {mark!r}", look, SystemClock(), CARD_S)


def connect(
    stack: Stack, session: Mapping[str, Any], *, port: int | None = None, user: str = "", secret: str = ""
) -> psycopg.Connection[Row]:
    """Connect as the session's client does, to the stack's broker or to the one on ``port``."""
    told = session["connect"]
    return psycopg.connect(
        host=told["host"],
        port=port or told["port"],
        user=user or told["user"],
        password=secret or told["secret"],
        dbname=told["database"],
        sslmode="verify-full",
        sslrootcert=stack.ready["broker"]["postgres"]["ca_file"],
        connect_timeout=20,
        autocommit=True,
    )


def direct(stack: Stack) -> psycopg.Connection[Row]:
    """Connect to the target itself, as its administrator."""
    target = stack.ready["targets"][ORDERS]
    return psycopg.connect(
        host=target["host"],
        port=target["port"],
        dbname=target["database"],
        user=target["admin"]["user"],
        password=target["admin"]["password"],
        autocommit=True,
    )


def amount(stack: Stack, order: int) -> int:
    """Return one order's amount, read past the broker."""
    with direct(stack) as admin:
        row = admin.execute("SELECT amount_cents FROM orders WHERE id = %s", [order]).fetchone()
    assert row is not None
    return int(row[0])


def root_client(stack: Stack, service: str) -> Any:
    aws = stack.ready["aws"]
    session = Session(ROOT_KEY, ROOT_KEY, region_name=aws["region"])
    return session.client(service, endpoint_url=aws["endpoint"])


def role_client(environment: Mapping[str, str], service: str) -> Any:
    """Return a client with a part's own credentials, at the endpoint that this part uses."""
    session = Session(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )
    endpoint = environment.get(f"AWS_ENDPOINT_URL_{service.upper()}", environment["AWS_ENDPOINT_URL"])
    return session.client(service, endpoint_url=endpoint)


@dataclass(frozen=True, kw_only=True)
class OneBroker:
    """A broker of a test's own."""

    child: Child
    port: int
    ssh_port: int

    def kill(self) -> None:
        """End it as a lost task ends: at once, with what it held in memory and on disk."""
        self.child.kill()
        self.child.wait(10)

    def terminate(self) -> int:
        """End it as Fargate does; return its exit code."""
        os.kill(self.child.pid, signal.SIGTERM)
        return self.child.wait(30)


@contextmanager
def another_broker(stack: Stack, name: str, **changed: str) -> Iterator[OneBroker]:
    """Run a broker beside the stack's own: the same stores and role, a port of its own."""
    port, ssh_port = free_port(), free_port()
    environment = environment_of(stack.part("broker")) | changed
    environment["COUNTERSIGN_LISTEN_POSTGRES_PORT"] = str(port)
    environment["COUNTERSIGN_LISTEN_SSH_PORT"] = str(ssh_port)
    log = stack.folder / "logs" / f"broker-{name}.log"
    child = Child(f"broker {name}", [sys.executable, "-m", "broker"], environment=environment, log=log, cwd=ROOT)
    try:
        child.wait_until(lambda: listening(port), within_s=READY_S)
        yield OneBroker(child=child, port=port, ssh_port=ssh_port)
    finally:
        child.stop()
