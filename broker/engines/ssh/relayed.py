"""RelayedChannel: one session channel of a client, and the one on the target that its program runs in.

Rules:
- Nothing is asked of the target before the verdict on the whole program (exec or shell) is Forward: a refused command
  never reaches sshd. The client hears at once that its request was taken, then, on standard error, what becomes of it.
- A held command runs with its input closed: what was approved is the command line, and a program that reads its
  standard input would run another. A held shell has its input: the approval is of a shell, and the card says so.
- What is typed at a terminal may be a password and is not recorded; other input is, and is searched for masks that come
  back. Output is masked, recorded and sent, in this order.
- The outcome is told once, whoever ends first; a program whose client left is ``unknown``.
- Control messages are handled under one lock for each channel; data passes beside it, in the reading thread of its own
  side. Nobody who holds the lock waits for anything but a peer's TCP.

What it does not do: policy, waiting for people (the driver's), ending connections (``relay``).

Source: RFC 4254 section 6; security.md, SSH.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from enum import Enum, auto
from functools import partial
from typing import Any, Final, Protocol, assert_never

from broker.engines.flow import Connection
from broker.engines.ssh import asked as asking
from broker.engines.ssh import refusals
from broker.engines.ssh.asked import Asked
from broker.engines.ssh.command import why_opaque
from broker.engines.ssh.endpoint import Endpoint
from broker.engines.ssh.one_way import MAX_DATA, OneWay
from broker.engines.ssh.output import STREAMS, Counted, Input, Later, Mask, Output, Recorded
from broker.wire.ssh import messages
from broker.wire.violation import RemoteViolation
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError, RecordingUnavailable
from chalicelib.domain.operation import Block, Forward, Hold, Operation
from chalicelib.domain.recording import NOTHING_LEFT_OUT, LeftOut

CLIENT_LEFT: Final = "the client left"
_INTERRUPT: Final = b"\x03"
_END: Final = "TERM"  # what a session that we end does to its program; KILL would cut a package manager in half


class Surroundings(Protocol):
    """What a channel needs of its relay. Everything is for any thread."""

    clock: Clock
    loop: asyncio.AbstractEventLoop
    idle_s: float

    @property
    def refusal(self) -> AccessError | None:
        """Why the session was refused: then nothing runs, and each channel is told."""
        ...

    @property
    def connection(self) -> Connection: ...
    def masks(self, forward: Forward) -> Callable[[], Mask]: ...
    def target_endpoint(self, channel: RelayedChannel) -> Endpoint:
        """Return a new endpoint at the target, asked to open with the channel's window."""
        ...

    def may_forward(self) -> bool: ...
    def pace(self) -> None:
        """Wait, in a reading thread, while the record is behind. Raises RecordingUnavailable after a bounded time."""
        ...

    def guard(self, work: Callable[[], None]) -> None:
        """Run ``work``; whatever it raises ends the connection."""
        ...

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a coroutine on the loop."""
        ...

    async def settle(
        self, op: Operation, verdict: Forward | Hold, channel: RelayedChannel, state: tuple[tuple[str, str], ...]
    ) -> Forward | Block: ...
    async def in_pool(self, work: Callable[[], None]) -> None: ...
    def later(self, after_s: float, work: Callable[[], None]) -> None: ...


class Stage(Enum):
    ASKING = auto()
    JUDGED = auto()  # and waiting: for people, or for the record
    STARTING = auto()
    RUNNING = auto()
    OVER = auto()


class RelayedChannel:
    """One. ``client_…`` come in the client's reading thread, ``target_…`` in the target's."""

    def __init__(self, relay: Surroundings, *, window: int) -> None:
        """``window``: what the client may send at first."""
        self.relay = relay
        self.asked = Asked()
        self.window = window
        self.inward = OneWay(window=window, gate=relay.may_forward)
        self.outward = OneWay(window=window)
        self.client = self.target = Endpoint.nobody()
        self._lock = threading.RLock()
        self._stage = Stage.ASKING
        self._op: Operation | None = None
        self._told = False
        self._deaf = False
        self._input: Input | None = None
        self._outputs: dict[int, Output] = {}
        self._expected: deque[Callable[[bool], None]] = deque()
        self._exit: Callable[[], None] | None = None
        self._exit_tag = ""
        self._started_s = 0.0
        self._left_out = False
        # Apart from the other lock, since the loop takes it, and the loop waits for nobody's TCP.
        self._leaving = threading.Lock()
        self._left = ""
        self._waiter: asyncio.Future[str] | None = None

    def opened(self, client: Endpoint, wanted: messages.ChannelOpen) -> None:
        """Confirm the channel to the client."""
        self.client = client
        self.inward.comes_from(client)
        self.outward.goes_to(client, wanted.window, wanted.max_packet)
        client.confirm(wanted.sender, self.window, MAX_DATA)

    @property
    def over(self) -> bool:
        return self._stage is Stage.OVER

    # From the client.

    def client_request(self, request: messages.ChannelRequest) -> None:
        with self._lock:
            match request.name:
                case "exec":
                    self._begin(request, messages.parse_command(request.rest))
                case "shell":
                    self._begin(request, None)
                case "pty-req":
                    wanted = messages.parse_terminal(request.rest)
                    self._answer(request, ok=self._asking and self.asked.want_terminal(wanted))
                case "env":
                    name, value = messages.parse_variable(request.rest)
                    self._answer(request, ok=self._asking and self.asked.want_variable(name, value))
                case "window-change":
                    self._answer(request, ok=self._resized(messages.parse_size(request.rest)))
                case "signal":
                    self._answer(request, ok=self._signalled(messages.parse_text(request.rest)))
                case "subsystem":
                    self._subsystem(request, messages.parse_text(request.rest))
                case "x11-req" | "auth-agent-req@openssh.com":
                    self._not_offered(request.name)
                    self._answer(request, ok=False)
                case _:
                    self._answer(request, ok=False)
        self.outward.pump()
        self.relay.pace()

    def client_data(self, kind: int, data: bytes) -> None:
        self.inward.took(len(data))
        if kind != messages.STDOUT or self._stage is Stage.ASKING:
            raise RemoteViolation("data where there is none")
        if self._deaf and self.asked.terminal is not None and _INTERRUPT in data:
            self.withdraw("the client interrupted it")
        if not self._deaf and self._stage is not Stage.OVER:
            if self._input is not None:
                self._input.take(data)
            self.inward.put(kind, data)
        self.inward.pump()
        self.relay.pace()

    def client_ended_input(self) -> None:
        if not self._deaf:
            self.inward.then(lambda: self.target.end_input())
            self.inward.pump()

    def client_closed(self) -> None:
        """The client sends no more. A program that runs is told so, and its exit status still goes back: OpenSSH closes
        as soon as both sides' data has ended, which is before it."""
        self.withdraw(CLIENT_LEFT)
        self.outward.nobody_reads()
        with self._lock:
            if self._stage is Stage.RUNNING:
                self.target.close()
                return
            if self._stage is Stage.STARTING:
                self._tell("refused", f"{CLIENT_LEFT} before it was sent")
            self._stage = Stage.OVER
            self.client.close()

    # HoldClient, on the loop.

    def notify(self, text: str) -> None:
        self.relay.start("ssh-notice", partial(self.relay.in_pool, partial(self._say, refusals.waiting(text))))

    async def withdrawn(self) -> str:
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        with self._leaving:
            if self._left:
                return self._left
            self._waiter = waiter
        return await waiter

    def withdraw(self, why: str) -> None:
        """Take back what is held. Any thread; idempotent."""
        with self._leaving:
            if self._left:
                return
            self._left, waiter = why, self._waiter
        if waiter is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self.relay.loop.call_soon_threadsafe(_resolve, waiter, why)

    # From the target.

    def target_confirmed(self, confirmation: messages.Confirmation) -> None:
        with self._lock:
            if self._stage is not Stage.STARTING:
                self.target.close()
                return
            self._stage = Stage.RUNNING
            self.inward.goes_to(self.target, confirmation.window, confirmation.max_packet)
            for name, value in self.asked.environment.items():
                self.target.ask("env", messages.string(name) + messages.string(value))
            if self.asked.terminal is not None:
                self._expected.append(self._terminal_answered)
                self.target.ask("pty-req", messages.encode_terminal(self.asked.terminal), want_reply=True)
            self._expected.append(self._program_answered)
            if self.asked.command is None:
                self.target.ask("shell", b"", want_reply=True)
            else:
                self.target.ask("exec", messages.string(self.asked.command), want_reply=True)
            if self._deaf:
                self.target.end_input()
        self.inward.pump()

    def target_refused(self) -> None:
        with self._lock:
            self._refused_by_target("another session")

    def target_replied(self, ok: bool) -> None:
        with self._lock:
            if not self._expected:
                raise RemoteViolation("a reply to nothing")
            self._expected.popleft()(ok)

    def target_data(self, kind: int, data: bytes) -> None:
        self.outward.took(len(data))
        output = self._outputs.get(kind)
        if output is None:
            raise RemoteViolation("data where there is none")
        output.feed(data)
        self.relay.pace()

    def target_request(self, request: messages.ChannelRequest) -> None:
        with self._lock:
            if request.name == "exit-status":
                self._exit_tag = f"exit {messages.parse_exit_status(request.rest)}"
                self._exit = partial(self.client.ask, request.name, request.rest)
            elif request.name == "exit-signal":
                name, dumped = messages.parse_exit_signal(request.rest)
                # Its message is text from the target that no mask saw and no record has.
                plain = asking.is_signal(name)
                self._exit_tag = f"signal {name}" if plain else "signal"
                told = messages.encode_exit_signal(name if plain else _END, dumped=dumped)
                self._exit = partial(self.client.ask, request.name, told)
            elif request.want_reply:
                self.target.reply(ok=False)

    def target_ended_input(self) -> None:
        for output in self._outputs.values():
            output.finish()
        self.outward.then(self.client.end_input)
        self.outward.pump()

    def target_closed(self) -> None:
        for output in self._outputs.values():
            output.finish()
        with self._lock:
            self.target.close()
            if self._stage is Stage.OVER:
                return
            self._stage = Stage.OVER
            status = {"": "unknown", "exit 0": "ok"}.get(self._exit_tag, "error")
            self._tell(status, self._exit_tag or "the target closed it")
            if self._exit is not None:
                self.outward.then(self._exit)
            self.outward.then(self.client.end_input)
            self.outward.then(self.client.close)
        self.outward.pump()

    # From the relay.

    def farewell(self, text: str, why: str) -> None:
        """The connection ends. ``text`` is the last line, and then what runs is stopped; empty where the client left by
        itself, which is told to the target as ssh tells it: the channel closes."""
        self.withdraw(text or CLIENT_LEFT)
        with self._lock:
            if self._stage is Stage.OVER:
                return
            self._stage = Stage.OVER
            with contextlib.suppress(RecordingUnavailable):  # it may be why the connection ends
                self._tell("unknown", why if text else CLIENT_LEFT)
                if text:
                    self._note(text)
            # Before the target hears of it: the end of its output would come first, and nothing follows an EOF.
            self.outward.last_words(messages.STDERR, refusals.shown(text, raw=self.asked.raw) if text else b"")
            self.outward.finally_(partial(self._leave, refusals.ENDED))
            if text:
                self.target.ask("signal", messages.string(_END))
            self.target.close()
        self.outward.pump()

    # Inside.

    @property
    def _asking(self) -> bool:
        return self._stage is Stage.ASKING

    def _answer(self, request: messages.ChannelRequest, *, ok: bool) -> None:
        if request.want_reply:
            self.client.reply(ok=ok)

    def _begin(self, request: messages.ChannelRequest, command: bytes | None) -> None:
        self._answer(request, ok=self._asking)
        if not self._asking:
            return
        self._stage = Stage.JUDGED
        if self.relay.refusal is not None:
            self._end(refusals.line(self.relay.refusal), refusals.ENDED)
            return
        self.asked.command = command
        self._op = op = asking.program(self.asked, self.relay.clock.now())
        if self.asked.terminal is None:
            self._input = Input(Recorded(self.relay.connection, op.id, "c2s", "stdin"))
        verdict = self.relay.connection.submit(op, in_transaction=False)
        if isinstance(verdict, Hold) and command is not None:
            self._deaf = True
        match verdict:
            case Block():
                self._blocked(verdict)
            case Forward() if not verdict.durable:
                self._start(op, verdict)
            case Forward() | Hold():
                self.relay.start("ssh-settle", partial(self._settle, op, verdict))
            case _:
                assert_never(verdict)

    async def _settle(self, op: Operation, verdict: Forward | Hold) -> None:
        settled = await self.relay.settle(op, verdict, self, self.asked.state(self.relay.connection.credential.login))
        await self.relay.in_pool(partial(self._settled, op, settled))

    def _settled(self, op: Operation, settled: Forward | Block) -> None:
        with self._lock:
            if self._stage is not Stage.JUDGED:
                if isinstance(settled, Forward):  # it counts as unknown, unless it is told
                    self.relay.connection.outcome(op.id, status="refused", tag=f"{CLIENT_LEFT} before it was sent")
            elif isinstance(settled, Forward):
                self._start(op, settled)
            else:
                self._blocked(settled)
        self.outward.pump()

    def _start(self, op: Operation, forward: Forward) -> None:
        relay, connection = self.relay, self.relay.connection
        make = relay.masks(forward)
        later: Later = relay.later
        self._left_out = not forward.record_full
        for kind, stream in STREAMS.items():
            self._outputs[kind] = Output(
                kind=kind,
                mask=make(),
                recorded=Recorded(connection, op.id, "s2c", stream) if forward.record_full else Counted(),
                way=self.outward,
                later=later,
                clock=relay.clock,
                idle_s=relay.idle_s,
            )
        if self.asked.terminal is not None:
            self._record_terminal(self.asked.terminal.cols, self.asked.terminal.rows)
        self._started_s = relay.clock.monotonic_s()
        self._stage = Stage.STARTING
        self.target = relay.target_endpoint(self)
        self.outward.comes_from(self.target)

    def _blocked(self, verdict: Block) -> None:
        command, terminal = self.asked.command, self.asked.terminal is not None
        why = "" if command is None else why_opaque(command, terminal=terminal)
        self._end(refusals.blocked(verdict, why), refusals.BLOCKED)

    def _refused_by_target(self, what: str) -> None:
        if self._stage is not Stage.OVER:
            self._tell("refused", "the target refused it")
            self.target.close()
            self._end(refusals.refused_by_target(what), refusals.ENDED)

    def _terminal_answered(self, ok: bool) -> None:
        if not ok:
            self._say(refusals.refused_by_target("a terminal"))

    def _program_answered(self, ok: bool) -> None:
        if not ok:
            self._refused_by_target("to run it")

    def _resized(self, size: messages.Size) -> bool:
        terminal = self.asked.terminal
        if terminal is None or not asking.fits(size):
            return False
        self.asked.terminal = messages.Terminal(
            terminal.term, size.cols, size.rows, size.width, size.height, terminal.modes
        )
        if self._stage is Stage.RUNNING:
            self._record_terminal(size.cols, size.rows)
            self.target.ask("window-change", messages.encode_size(size))
        return True

    def _signalled(self, name: str) -> bool:
        if not asking.is_signal(name):
            return False
        if self._stage is Stage.JUDGED:
            self.withdraw("the client interrupted it")
        elif self._stage is Stage.RUNNING:
            self.target.ask("signal", messages.string(name))
        return self._stage is Stage.RUNNING

    def _subsystem(self, request: messages.ChannelRequest, name: str) -> None:
        """Refuse it as a program is refused, in our words: OpenSSH's clients drop what stands on a channel whose
        request failed, and scp would say that the connection closed."""
        self._answer(request, ok=self._asking)
        if not self._asking:
            return
        self._stage = Stage.JUDGED
        if self.relay.refusal is not None:
            self._end(refusals.line(self.relay.refusal), refusals.ENDED)
            return
        self._not_offered(request.name, name)
        self._end(refusals.subsystem(name), refusals.BLOCKED)

    def _not_offered(self, what: str, detail: str = "") -> None:
        """Record what is refused, whoever asks; the client hears it in the protocol's own words."""
        if self.relay.refusal is None:
            self.relay.connection.submit(asking.feature(what, detail, self.relay.clock.now()), in_transaction=False)

    def _record_terminal(self, cols: int, rows: int) -> None:
        terminal = self.asked.terminal
        if self._op is not None and terminal is not None:
            self.relay.connection.terminal(self._op.id, terminal.term, cols, rows)

    def _say(self, text: str) -> None:
        """Tell the client, on standard error."""
        self._note(text)
        self.outward.put(messages.STDERR, refusals.shown(text, raw=self.asked.raw))
        self.outward.pump()

    def _note(self, text: str) -> None:
        if self.relay.refusal is None:
            self.relay.connection.notice("INFO", "", text)

    def _end(self, text: str, status: int) -> None:
        self._stage = Stage.OVER
        self._say(text)
        self.outward.then(partial(self._leave, status))
        self.outward.pump()

    def _leave(self, status: int) -> None:
        self.client.ask("exit-status", messages.encode_exit_status(status))
        self.client.end_input()
        self.client.close()

    def _tell(self, status: str, tag: str) -> None:
        """Record the outcome, once, of what was sent to the target."""
        if self._op is None or not self._outputs or self._told:
            return
        self._told = True
        shown = sum(output.shown_bytes for output in self._outputs.values())
        self.relay.connection.outcome(
            self._op.id,
            status=status,
            tag=tag,
            bytes=shown,
            duration_ms=round((self.relay.clock.monotonic_s() - self._started_s) * 1000),
            left_out=LeftOut(outcomes=1, bytes=shown) if self._left_out and shown else NOTHING_LEFT_OUT,
        )


def _resolve(waiter: asyncio.Future[str], why: str) -> None:
    if not waiter.done():
        waiter.set_result(why)
