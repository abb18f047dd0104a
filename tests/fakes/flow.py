"""The one flow in memory, for an engine's tests: a door, a driver, a connection and a language that tests steer.

Keeps the contract of ``broker.engines.flow``. Example::

    flow = FakeFlow(target)
    flow.verdicts = lambda op: block("no") if "DROP" in op.text else forward()
    engine = PostgresEngine(door=flow, driver=flow, languages=flow, tls=..., clock=...)
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar

from broker.engines.flow import HoldClient
from broker.engines.postgres.running import Objection, Reading, ShownBinds
from broker.engines.postgres.upstream import Upstream
from broker.wire.postgres.fields import Fields
from broker.wire.postgres.messages import Bind, parse_row, parse_row_description
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, GrantRevoked
from chalicelib.domain.identifiers import GrantId, HopId, OperationId, SessionId, Txn
from chalicelib.domain.identity import Identity
from chalicelib.domain.operation import Act, Block, Forward, Hold, Operation, Ruling, Verdict
from chalicelib.domain.recording import NOTHING_LEFT_OUT, LeftOut
from chalicelib.domain.requirement import Approval
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import AccessRequest, ApprovalNeed, Grant, Session, SessionStatus
from chalicelib.domain.target import Target
from chalicelib.domain.verifier import Verifier, stranger_verifier, verifier_of
from tests.fakes.clock import FakeClock

P = ParamSpec("P")
T = TypeVar("T")

TXN = Txn("01k8zq5v9c3f7n2m4p6r8t0wxy")
LOGIN = "ses_01k8zq5v9c3f7n2m4p6r8t0wxz"
RULING = Ruling(rules=("test-rule",), policy_digest="0" * 64, configuration_serial=1)


def forward(*, masks: tuple[str, ...] = (), durable: bool = False, full: bool = True) -> Forward:
    return Forward(ruling=RULING, masks=masks, durable=durable, record_full=full)


def block(public: str = "not this", *, code: str = "policy_denied", hint: str = "ask somebody") -> Block:
    return Block(ruling=RULING, code=code, public=public, hint=hint)


def hold() -> Hold:
    need = ApprovalNeed(rule="test-rule", approval=Approval(group="dba", count=1), hint="")
    return Hold(ruling=RULING, needs=(need,))


def session(target: Target, secret: Secret, clock: Clock) -> Session:
    """A granted session on ``target``."""
    somebody = Identity(issuer="https://ci.example", subject="repo:1", name="ci-runner")
    grant = Grant(
        id=GrantId("grt_01k8zq5v9c3f7n2m4p6r8t0wxz"),
        session_id=SessionId(LOGIN),
        target=target.name,
        principal=target.default_principal,
        not_before=clock.now(),
        expires_at=clock.now() + timedelta(hours=1),
        rules=(),
        met=(),
        policy_digest="0" * 64,
        configuration_serial=1,
        max_connections=4,
    )
    return Session(
        id=SessionId(LOGIN),
        txn=TXN,
        status=SessionStatus.GRANTED,
        request=AccessRequest(target=target.name, principal="", reason="test", duration_s=600),
        actor=somebody,
        originator=somebody,
        leaf_hop=HopId("hop_01k8zq5v9c3f7n2m4p6r8t0wxz"),
        token_id="token",
        created_at=clock.now(),
        ask_id=None,
        grant=grant,
        verifier=verifier_of(secret),
        closed_at=None,
        close_reason="",
    )


@dataclass(frozen=True)
class FakeAdmission:
    session: Session
    target: Target


@dataclass(frozen=True)
class FakeCredential:
    login: str
    secret: Secret
    kind: str = "password"
    certificate: str = ""


@dataclass
class FakeConnection:
    """Records what the engine tells it, as (kind, what) pairs."""

    flow: FakeFlow
    admission: FakeAdmission
    credential: FakeCredential
    id: str = "con_01k8zq5v9c3f7n2m4p6r8t0wxz"
    behind: bool = False
    frames: list[tuple[str, Any]] = field(default_factory=list)
    failure: AccessError | None = None
    closed: str = ""
    bound: bool = False
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def preview(self, op: Operation, *, in_transaction: bool = False) -> Verdict:
        if self.failure is not None:
            return block(self.failure.public, code=self.failure.code)
        # No acts are a Block, as with the real connection: what nobody could name nobody may run.
        verdict = self.flow.verdicts(op) if op.acts else block("the operation could not be understood")
        if isinstance(verdict, Hold) and in_transaction:
            return block("held in a transaction", code="held_in_transaction")
        return verdict

    def submit(self, op: Operation, *, in_transaction: bool) -> Verdict:
        verdict = self.preview(op, in_transaction=in_transaction)
        self.frames.append(("operation", (op, verdict)))
        return verdict

    def outcome(
        self,
        op_id: OperationId,
        *,
        status: str,
        tag: str = "",
        rows: int = 0,
        bytes: int = 0,  # noqa: A002
        sqlstate: str = "",
        duration_ms: int = 0,
        left_out: LeftOut = NOTHING_LEFT_OUT,
    ) -> None:
        told: dict[str, object] = {"op": op_id, "status": status, "tag": tag, "rows": rows, "sqlstate": sqlstate}
        if left_out.outcomes:
            told["left_out"] = left_out.told()
        self.frames.append(("outcome", told))

    def rows(self, op_id: OperationId, columns: Sequence[str], lines: Sequence[str]) -> None:
        self.frames.append(("rows", (tuple(columns), [json.loads(line) for line in lines])))

    def rows_later(
        self, op_id: OperationId, columns: Sequence[str], rows: Sequence[bytes], text: Callable[[Sequence[bytes]], str]
    ) -> None:
        self.rows(op_id, columns, text(rows).split("\n"))

    def notice(self, severity: str, sqlstate: str, text: str) -> None:
        self.frames.append(("notice", (severity, sqlstate, text)))

    def data(self, op_id: OperationId, direction: str, text: str, encoding: str = "utf-8", *, stream: str = "") -> None:
        self.frames.append((f"data {stream}".strip(), (direction, text)))

    def terminal(self, op_id: OperationId, term: str, cols: int, rows: int) -> None:
        self.frames.append(("terminal", (term, cols, rows)))

    def check_alive(self) -> None:
        if self.failure is not None:
            raise self.failure

    def ending(self) -> AccessError | None:
        return self.failure

    def revoke(self) -> None:
        """End it from outside, as the feed would."""
        self.failure = GrantRevoked("the session was revoked")
        for listener in list(self.listeners):
            listener()

    def on_progress(self, callback: Callable[[], None]) -> None:
        self.listeners.append(callback)

    def off_progress(self, callback: Callable[[], None]) -> None:
        if callback in self.listeners:
            self.listeners.remove(callback)

    def close(self, exit: str) -> None:
        self.closed = self.closed or exit

    def told(self, kind: str) -> list[Any]:
        """What was recorded of one kind."""
        return [what for found, what in self.frames if found == kind]

    @property
    def texts(self) -> list[str]:
        """The texts of the operations, in order."""
        return [op.text for op, _ in self.told("operation")]


class FakeFlow:
    """Door, driver and languages in one. ``verdicts`` and ``answers`` are the test's."""

    def __init__(
        self, target: Target, *, login: str = "postgres", password: str = "", clock: Clock | None = None
    ) -> None:
        self.clock = clock or FakeClock()
        self.target = target
        self.secret = Secret("a-session-secret-of-256-bits")
        self.credential = FakeCredential(login, Secret(password))
        self.mint: Callable[[str], FakeCredential] = lambda _: self.credential
        self.session = session(target, self.secret, self.clock)
        self.connections: list[FakeConnection] = []
        self.refusal: AccessError | None = None
        self.verdicts: Callable[[Operation], Verdict] = lambda _: forward()
        self.answers: Callable[[Operation], Forward | Block] = lambda _: forward()
        self.held = threading.Event()
        self.withdrawn: list[str] = []
        self.answered = asyncio.Event()
        self.language: Callable[[], PassLanguage] = PassLanguage
        self._pool = ThreadPoolExecutor(max_workers=4)

    # The door.

    def verifier(self, login: str) -> Verifier:
        if login == LOGIN and self.session.verifier is not None:
            return self.session.verifier
        return stranger_verifier(login, b"pepper")

    def open(self, login: str, peer: str, *, bound: bool = False, public_key: str = "") -> FakeConnection:
        if self.refusal is not None:
            raise self.refusal
        credential = self.mint(public_key)
        connection = FakeConnection(self, FakeAdmission(self.session, self.target), credential, bound=bound)
        self.connections.append(connection)
        return connection

    # The driver.

    def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, partial(fn, *args, **kwargs))

    async def settle(
        self,
        connection: FakeConnection,
        op: Operation,
        verdict: Forward | Hold,
        client: HoldClient,
        *,
        state: tuple[tuple[str, str], ...] = (),
    ) -> Forward | Block:
        if isinstance(verdict, Forward):
            return verdict
        client.notify("waiting for approval by 1 of dba; ask_1")
        self.held.set()
        leaving = asyncio.ensure_future(client.withdrawn())
        answered = asyncio.ensure_future(self.answered.wait())
        done, _ = await asyncio.wait({leaving, answered}, return_when=asyncio.FIRST_COMPLETED)
        if leaving in done:
            self.withdrawn.append(leaving.result())
            answered.cancel()
            return block(leaving.result(), code="approval_withdrawn")
        leaving.cancel()
        return self.answers(op)

    async def paced(self, connection: FakeConnection) -> None:
        connection.behind = False

    # The languages.

    async def of(self, connection: FakeConnection, target: Upstream) -> PassLanguage:
        return self.language()

    def close(self) -> None:
        self._pool.shutdown()


class PassLanguage:
    """Understands nothing and masks nothing."""

    def read(self, text: bytes, types: Sequence[int] = ()) -> Reading:
        shown = text.decode()
        upper = shown.upper()
        return Reading(
            acts=(Act(action="sql:read", context=(("text", shown),)),),
            shown=shown,
            empty=not shown.strip(" ;"),
            copies_out=upper.startswith("COPY") and "STDOUT" in upper,
            copies_in=upper.startswith("COPY") and "STDIN" in upper,
            uses_names=upper.startswith(("EXECUTE", "FETCH")),
            renames_statements=upper.startswith(("PREPARE", "DEALLOCATE", "DISCARD")),
            renames_portals=upper.startswith(("DECLARE", "CLOSE", "COMMIT", "ROLLBACK", "DISCARD")),
        )

    def unproved(self, text: bytes) -> Reading:
        return self.read(text)

    def stale(self, reading: Reading) -> bool:
        return False

    def questions(self) -> tuple[str, ...]:
        return ()

    def answered(self, results: Sequence[Sequence[Sequence[str | None]]], *, in_transaction: bool) -> None:
        pass

    def objection(self, reading: Reading, masks: Sequence[str]) -> Objection | None:
        return None

    def copy_rows(self, masks: Sequence[str], *, binary: bool) -> PassRows:
        return PassRows([])

    def binds(self, reading: Reading, bind: Bind, types: Sequence[int]) -> ShownBinds:
        return ShownBinds(tuple("" if v is None else v.decode("utf-8", "replace") for v in bind.values), ())

    def rows(
        self, reading: Reading, number: int, description: bytes, formats: Sequence[int] | None, masks: Sequence[str]
    ) -> PassRows:
        return PassRows([column.name.decode() for column in parse_row_description(description)])

    def fields(self, fields: Fields) -> Fields:
        return fields

    def payload(self, payload: bytes) -> bytes:
        return payload

    def client_data(self, data: bytes) -> str:
        return data.decode("utf-8", "backslashreplace")

    def transaction_ended(self) -> None:
        pass

    def bound(self, portal: bytes) -> None:
        pass

    def parsed(self, name: bytes, reading: Reading) -> None:
        pass

    def closed(self, name: bytes) -> None:
        pass

    def ran(self, reading: Reading, number: int) -> None:
        pass


@dataclass
class PassRows:
    columns: Sequence[str]
    plain: bool = True

    def row(self, frame: bytes) -> bytes:
        return frame

    def lines(self, bodies: Sequence[bytes]) -> str:
        rows = ([None if v is None else v.decode("utf-8", "replace") for v in parse_row(body)] for body in bodies)
        return "\n".join(map(json.dumps, rows))
