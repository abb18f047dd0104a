"""Asks for a session, waits for people, and ends it: the contract of ``docs/http_api.md``, with every answer checked.

An answer of the service is data: a member that is missing or of another type ends the command (fail closed), and what
reaches an environment or a file is checked again by ``environment``. A session has three states here, and each has its
type, so that no caller can take a pending one for a granted one.
"""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from chalicelib.domain.identifiers import SESSION_ID
from chalicelib.domain.secret import Secret
from countersign.address import same_origin
from countersign.api import HttpClient, Response, text_of
from countersign.failures import Exit, Failure
from countersign.printable import moment
from countersign.service import Service
from countersign.timestamps import moment_of

WAIT_S: Final = 5  # the most that the service holds one call open
_LEAST_PAUSE_S: Final = 1.0  # between polls that the service answered at once
_QUICK_S: Final = 5.0  # closing is a courtesy to the next reader of the table, and a certificate is asked for again
_KEY: Final = re.compile(r"[A-Za-z0-9._:-]{8,128}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What is asked for. ``principal`` empty: the target's default; ``duration_s`` 0: the service's default."""

    target: str
    principal: str
    reason: str
    duration_s: int
    idempotency_key: str

    def body(self) -> Mapping[str, object]:
        fields: dict[str, object] = {"target": self.target, "reason": self.reason}
        if self.principal:
            fields["principal"] = self.principal
        if self.duration_s:
            fields["duration_s"] = self.duration_s
        return fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Connect:
    """How to reach the target through the broker. Nothing in it is trusted before ``environment`` or ``ssh_client``
    checked it. ``ca_pem`` (postgres) and ``known_hosts`` (ssh) verify the broker; ``secret`` is empty for ssh where it
    was given out already: a certificate takes its place."""

    protocol: str
    host: str
    port: int
    ca_pem: str
    known_hosts: str
    user: str
    secret: Secret
    database: str
    env: tuple[tuple[str, str], ...]
    command: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """One OpenSSH certificate line, not trusted before ``ssh_client`` checked it, and when it ends."""

    line: str
    ends_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Pending:
    """People are being asked. ``needs`` are sentences (who, and by which rule), ``poll`` where to ask again."""

    session_id: str
    ask_id: str
    needs: tuple[str, ...]
    expires_at: str
    poll: str
    retry_after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """``connect`` is None where the secret was given out already, and on ``status``; ``told`` is the whole answer."""

    session_id: str
    txn: str
    expires_at: str
    connect: Connect | None
    told: Mapping[str, object]


State: TypeAlias = Pending | Granted


def new_key() -> str:
    """Return a new Idempotency-Key: a repeat of the call after a lost connection finds the same session."""
    return f"cli-{secrets.token_hex(16)}"


def checked_key(text: str) -> str:
    """Return ``text`` if it can be an Idempotency-Key. Raises Failure (usage)."""
    if not _KEY.match(text):
        raise Failure(Exit.USAGE, "an idempotency key has 8 to 128 letters, digits and . _ : -")
    return text


class Sessions:
    """The caller's sessions at one service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._address = service.address
        self._clock = service.clock
        # For what may not hold the job up.
        self._quick = HttpClient(service.address, service.clock, budget_s=_QUICK_S)

    def open(self, wish: Wish) -> State:
        """Ask. Raises Failure where it is refused."""
        keyed = {"Idempotency-Key": wish.idempotency_key}
        return self._state(self._service.post("/v1/sessions", wish.body(), repeatable=True, headers=keyed))

    def look(self, session_id: str) -> State:
        """Return the state without waiting, and without taking the secret. Raises Failure."""
        return self._get(self._address.url(f"/v1/sessions/{checked_session(session_id)}?take=false"))

    def resume(self, session_id: str) -> State:
        """Return the state, with the secret where nobody took it yet. Raises Failure."""
        return self._get(self._address.url(f"/v1/sessions/{checked_session(session_id)}?wait_s={WAIT_S}"))

    def wait(self, pending: Pending, *, most_s: float | None, tell: Callable[[Pending], None]) -> Granted:
        """Ask again until it is granted; ``tell`` is called with every state. ``most_s`` None: until the service says
        that the time is over. Raises Failure: refused, or still pending after ``most_s`` seconds."""
        started = self._clock.monotonic_s()
        state: State = pending
        while isinstance(state, Pending):
            tell(state)
            if most_s is not None and self._clock.monotonic_s() - started >= most_s:
                raise still_pending(state)
            asked = self._clock.monotonic_s()
            try:
                state = self._get(pending.poll)
            except Failure as failure:
                if failure.code == "token_expired":  # the CI gave one token only, and approving took longer than it
                    raise still_pending(pending) from failure
                failure.session_id = pending.session_id
                raise
            if isinstance(state, Pending) and self._clock.monotonic_s() - asked < _LEAST_PAUSE_S:
                pause_s = min(max(state.retry_after_s, _LEAST_PAUSE_S), 30.0)
                self._clock.sleep(pause_s * random.uniform(1, 1.5))  # noqa: S311 - so that waiters spread
        return state

    def close(self, session_id: str) -> None:
        """End the session: nothing of it is left to use. A service that cannot be reached ends it by its expiry, so
        that failure is not raised. Idempotent."""
        try:
            self._quick.call(
                "DELETE",
                self._address.url(f"/v1/sessions/{session_id}"),
                presented=self._service.tokens.presented(),
                repeatable=True,
            )
        except Failure:
            return

    def certificate(self, session_id: str, public_key: str, *, quick: bool = False) -> Certificate:
        """Return a new certificate of the session for ``public_key``, an OpenSSH line; the ones before stay good to
        their ends. ``quick``: give up soon. Raises Failure."""
        answer = self._service.post(
            f"/v1/sessions/{checked_session(session_id)}/certificate",
            {"ssh_public_key": public_key},
            repeatable=True,
            http=self._quick if quick else None,
        )
        line, ends_at = text_of(answer.body, "certificate"), moment_of(answer.body.get("expires_at"))
        if not line or ends_at is None:
            raise _senseless("certificate")
        return Certificate(line=line, ends_at=ends_at)

    def targets(self) -> Response:
        """Return the service's list of what this caller may ask for."""
        return self._service.get(self._address.url("/v1/targets"))

    def _get(self, url: str) -> State:
        return self._state(self._service.get(url))

    def _state(self, answer: Response) -> State:
        body = answer.body
        session_id = text_of(body, "session_id")
        if not SESSION_ID.match(session_id):
            raise _senseless("session_id")
        match text_of(body, "status"):
            case "pending":
                approval = body.get("approval")
                if not isinstance(approval, dict):
                    raise _senseless("approval")
                return Pending(
                    session_id=session_id,
                    ask_id=text_of(approval, "id"),
                    needs=_needs(approval.get("needs")),
                    expires_at=text_of(approval, "expires_at"),
                    poll=same_origin(
                        self._address, text_of(body, "poll") or f"/v1/sessions/{session_id}?wait_s={WAIT_S}"
                    ),
                    retry_after_s=answer.retry_after_s,
                )
            case "granted":
                return Granted(
                    session_id=session_id,
                    txn=text_of(body, "txn"),
                    expires_at=text_of(body, "expires_at"),
                    connect=_connect(body.get("connect")),
                    told=body,
                )
            case "closed":
                raise Failure(Exit.DENIED, "the session is closed", hint="Ask for a new one.", session_id=session_id)
        raise _senseless("status")


def checked_session(text: str) -> str:
    """Return ``text`` if it is a session's id. Raises Failure (usage): it becomes part of a URL."""
    if not SESSION_ID.match(text):
        raise Failure(Exit.USAGE, "a session's id looks like ses_01j9z3k4m5n6p7q8r9s0t1v2w3")
    return text


def still_pending(pending: Pending) -> Failure:
    """Return the failure that says whom to ask, and how to go on."""
    who = "; ".join(pending.needs) or "an approver"
    return Failure(
        Exit.PENDING,
        f"{pending.session_id} still waits for {who}",
        hint=f"Go on with `--session {pending.session_id}` in place of the target, until {moment(pending.expires_at)}.",
        session_id=pending.session_id,
    )


def _needs(told: object) -> tuple[str, ...]:
    """Return who must approve, one sentence each."""
    sentences: list[str] = []
    for need in told if isinstance(told, list) else []:
        if isinstance(need, str):
            sentences.append(need)
        elif isinstance(need, dict):
            count = need.get("missing", need.get("count", 1))
            rule, hint = text_of(need, "rule"), text_of(need, "hint")
            more = "; ".join(part for part in (rule and f"rule {rule}", hint) if part)
            sentences.append(f"{count} of {text_of(need, 'group')}" + (f" ({more})" if more else ""))
    return tuple(sentences)


def _connect(told: object) -> Connect | None:
    if not isinstance(told, dict) or not (text_of(told, "secret") or text_of(told, "protocol") == "ssh"):
        return None
    port, env = told.get("port"), told.get("env", {})
    if isinstance(port, bool) or not isinstance(port, int):
        raise _senseless("connect.port")
    if not isinstance(env, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in env.items()):
        raise _senseless("connect.env")
    return Connect(
        protocol=text_of(told, "protocol"),
        host=text_of(told, "host"),
        port=port,
        ca_pem=text_of(told, "ca_pem"),
        known_hosts=text_of(told, "known_hosts"),
        user=text_of(told, "user"),
        secret=Secret(text_of(told, "secret")),
        database=text_of(told, "database"),
        env=tuple(env.items()),
        command=text_of(told, "command"),
    )


def _senseless(member: str) -> Failure:
    return Failure(
        Exit.UNREACHABLE,
        f"the service's answer makes no sense: {member}",
        hint="Is this command line older than the service? `pip install -U countersign`.",
    )
