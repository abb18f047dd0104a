"""What an engine needs of the one flow (admission, connection, driver), as seams.

The classes are ``broker.admission.Admissions`` and ``broker.connection.Gateway`` behind one door, ``Connection``, and
``broker.drive.Driver``; an engine's tests use ``tests.fakes.flow``. *Memory* never blocks and may run on the loop;
*blocking* does store I/O and runs in the driver's bounded pool. No policy and no store here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ParamSpec, Protocol, TypeVar

from chalicelib.domain.errors import AccessError
from chalicelib.domain.identifiers import OperationId
from chalicelib.domain.operation import Block, Forward, Hold, Operation, Verdict
from chalicelib.domain.recording import NOTHING_LEFT_OUT, LeftOut
from chalicelib.domain.session import Session
from chalicelib.domain.target import Credential, Target
from chalicelib.domain.verifier import Verifier

P = ParamSpec("P")
T = TypeVar("T")


class Admission(Protocol):
    """Proof that this transport passed."""

    @property
    def session(self) -> Session: ...
    @property
    def target(self) -> Target: ...


class Connection(Protocol):
    """One admitted transport. Everything but :meth:`close` is memory."""

    @property
    def id(self) -> str: ...
    @property
    def admission(self) -> Admission: ...
    @property
    def credential(self) -> Credential: ...
    @property
    def behind(self) -> bool:
        """The record is behind: stop reading from both sides."""
        ...

    def preview(self, op: Operation, *, in_transaction: bool = False) -> Verdict:
        """Say what :meth:`submit` would say and record nothing: it must be submitted before it runs."""
        ...

    def submit(self, op: Operation, *, in_transaction: bool) -> Verdict: ...

    def outcome(
        self,
        op_id: OperationId,
        *,
        status: str,
        tag: str = "",
        rows: int = 0,
        bytes: int = 0,  # noqa: A002 the frame's own word
        sqlstate: str = "",
        duration_ms: int = 0,
        left_out: LeftOut = NOTHING_LEFT_OUT,
    ) -> None: ...

    def rows(self, op_id: OperationId, columns: Sequence[str], lines: Sequence[str]) -> None: ...
    def rows_later(
        self, op_id: OperationId, columns: Sequence[str], rows: Sequence[bytes], text: Callable[[Sequence[bytes]], str]
    ) -> None:
        """As :meth:`rows`, whose lines ``text`` makes of ``rows``, in any thread, once. At best so many rows as are
        ``MAX_ROWS_BYTES`` together: one frame."""
        ...

    def notice(self, severity: str, sqlstate: str, text: str) -> None: ...
    def data(
        self, op_id: OperationId, direction: str, text: str, encoding: str = "utf-8", *, stream: str = ""
    ) -> None: ...
    def terminal(self, op_id: OperationId, term: str, cols: int, rows: int) -> None: ...

    def check_alive(self) -> None:
        """Raises GrantExpired, GrantRevoked, StoreUnavailable, RecordingUnavailable."""
        ...

    def ending(self) -> AccessError | None:
        """Return why the connection must end now, or None."""
        ...

    def on_progress(self, callback: Callable[[], None]) -> None:
        """Call back in any thread when the record moved or failed, or liveness changed."""
        ...

    def off_progress(self, callback: Callable[[], None]) -> None: ...

    def close(self, exit: str) -> None:
        """Blocking. Idempotent."""
        ...


class HoldClient(Protocol):
    """The client of a held operation."""

    def notify(self, text: str) -> None: ...
    async def withdrawn(self) -> str:
        """Return a reason once the client takes the operation back: cancel, disconnect, drain."""
        ...


C_co = TypeVar("C_co", bound=Connection, covariant=True)
C_contra = TypeVar("C_contra", bound=Connection, contravariant=True)


class Door(Protocol[C_co]):
    """The way in, both steps blocking."""

    def verifier(self, login: str) -> Verifier: ...

    def open(self, login: str, peer: str, *, bound: bool = False, public_key: str = "") -> C_co:
        """Admit and open, after the proof was verified. ``bound``: it was of a key of the client's own, not of a
        secret. ``public_key`` (``TYPE BASE64``) is what a minted certificate is for. Raises AccessError."""
        ...


class Runs(Protocol):
    """A bounded pool of threads."""

    def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]: ...


class Driver(Runs, Protocol[C_contra]):
    """The waiting, for asyncio engines."""

    async def settle(
        self,
        connection: C_contra,
        op: Operation,
        verdict: Forward | Hold,
        client: HoldClient,
        *,
        state: tuple[tuple[str, str], ...] = (),
    ) -> Forward | Block:
        """Wait until a submitted ``op`` may run: durable where required, approved where held. ``state``: what changes
        the text's meaning."""
        ...

    async def paced(self, connection: C_contra) -> None:
        """Wait until the record is not behind. Raises RecordingUnavailable after a bounded time."""
        ...
