"""A relay as it is deployed, recorded or not: the real listener, engine, parser, Cedar policy, connection and threads,
between psql and a real PostgreSQL.

*Not recorded* is the same, but for a recorder whose recordings drop what they are given and events that nobody keeps,
on a target of which policy lets results be left out; so what differs is the record, and nothing else. Sign-in, row and
manifest of a connection are outside what is measured. All of it shares this machine's cores with the server and the
clients: ratios, not rates.
"""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from threading import Event
from typing import Any, Final, cast

from broker.connection import Connection
from broker.drive import Driver
from broker.engines.postgres.languages import SqlLanguages
from broker.events import Events
from broker.recorder import Recorder, Recording
from broker.tasks import Tasks
from broker.threads import Periodic, WorkerPool, switch_often
from chalicelib.domain.audit import AuditEvent
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import AlreadyExists
from chalicelib.domain.masking import ColumnName, MaskMode, MaskRule
from chalicelib.domain.operation_events import ToldOperation
from chalicelib.domain.recording import Frame, RecordedAs
from chalicelib.domain.store import ObjectFacts, ObjectVersion
from chalicelib.domain.target import RecordMode
from chalicelib.policy.engine import compile_policy
from chalicelib.settings import SystemClock
from dev.postgres_binaries import find_postgres
from dev.postgres_server import PostgresServer
from dev.settings import DEMO_BUNDLE, child_environment
from tests.e2e.postgres_broker import BrokerThread, running_broker
from tests.fakes.broker import MINT, World, demo_target

PUT_S: Final = 0.04  # a PutObject of 256 KiB within one region
CLIENTS: Final = 8

# The demo's own policies, 22 of them, do not know the fakes' actor.
_PERMITS: Final = """
@id("bench-opens") permit (principal, action == Action::"session:open", resource == Target::"orders-prod");
@id("bench-works") permit (principal, action in Action::"sql", resource == Target::"orders-prod");
@id("bench-less") permit (principal, action == Action::"sql:record_less", resource == Target::"orders-prod");
"""
# What the demo masks, without its detectors: searching results costs the same with or without a record.
_MASKS: Final = {
    name: MaskRule(
        name=name,
        mode=MaskMode.REDACT,
        targets=("orders-prod",),
        columns=(ColumnName(schema="public", table="customers", column=name),),
        detectors=(),
        patterns=(),
    )
    for name in ("email", "card_number")
}


class SlowBucket:
    """Keeps what it was told of an object and not the object; 40 ms a PUT."""

    def __init__(self) -> None:
        self.facts_of: dict[str, ObjectFacts] = {}
        self._pause = Event()

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:  # noqa: ARG002
        self._pause.wait(PUT_S)
        if key in self.facts_of:
            raise AlreadyExists("taken")
        sha256 = hashlib.sha256(body).hexdigest()
        self.facts_of[key] = ObjectFacts(key=key, version_id=sha256[:8], size=len(body), sha256=sha256)
        return ObjectVersion(key=key, version_id=sha256[:8])

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:  # noqa: ARG002
        return self.facts_of[key]


class NoEvents:
    """Tells nobody."""

    def record(self, event: AuditEvent) -> None: ...
    def operated(self, told: ToldOperation, place: Callable[[int], str]) -> None: ...
    def require_room(self) -> None: ...


class NoRecorder(Recorder):
    """Its recordings drop what they are given."""

    def start(self, who: RecordedAs, *, seen: Callable[[Frame], None] | None = None, keep_days: int = 0) -> Recording:
        recording = super().start(who, seen=seen, keep_days=keep_days)
        recording.accept = lambda *_, **__: 0  # type: ignore[method-assign]
        return recording


def recording_world(stack: ExitStack, *, recorder: type[Recorder] = Recorder) -> World:
    """Return a broker's flow over a slow bucket, by the real clock, with the threads of a real one running."""
    clock = SystemClock()
    world = World(clock=cast("Any", clock))
    pool = WorkerPool("uploads", threads=16, queue=4096)
    stack.callback(pool.close)
    if recorder is Recorder:
        events = Events(objects=cast("Any", SlowBucket()), log=lambda _: None, clock=clock, writer="boot_bench")
        world.audit = cast("Any", events)
        _periodic(stack, "events", events.step, 1.0)
    else:
        world.audit = cast("Any", NoEvents())
    world.recorder = recorder(
        objects=cast("Any", SlowBucket()),
        connections=world.stores.connections,
        signer=world.stores.signer("record"),
        pool=pool,
        clock=clock,
        build="bench",
        sealed_by="broker:bench",
    )
    world.gateway = world.new_gateway("boot_bench")
    _periodic(stack, "recorder", world.recorder.step, 0.25)
    _periodic(stack, "liveness", world.liveness.step, 1.0)
    _periodic(stack, "configuration", world.configuration.step, 1.0)
    return world


def _periodic(stack: ExitStack, name: str, step: Callable[[], None], every_s: float) -> None:
    stepping = Periodic(name, step, every_s=every_s)
    stepping.start()
    stack.callback(stepping.stop)


def _govern(world: World, server: PostgresServer, record: RecordMode) -> None:
    """Give ``world`` the demo's policy and the real server as its target."""
    texts = {path.name: path.read_text() for path in sorted((DEMO_BUNDLE / "policies").glob("*.cedar"))}
    target = replace(
        demo_target(),
        host="127.0.0.1",
        port=server.port,
        plaintext=True,
        environment="bench",
        search_path=("public",),
        max_connections=CLIENTS,
        record=record,
    )
    policy = compile_policy({**texts, "bench.cedar": _PERMITS})
    world.bundles.bundle = replace(
        world.bundle, targets={target.name: target}, masks=_MASKS, policy=cast("Any", policy)
    )
    world.configuration.step()
    grant = world.session.grant
    if grant is None:
        raise RuntimeError("the session of the fakes has no grant")
    world.change_session(grant=replace(grant, max_connections=CLIENTS))

    def mint(_: Mapping[str, Json]) -> Mapping[str, Json]:
        return {"kind": "password", "login": "postgres", "secret": server.admin.password.expose()}

    world.stores.functions.register(MINT, mint)


class Relay:
    """A broker whose next clients are recorded (``whole``, or ``less``: statements alone), or not (``off``)."""

    def __init__(self, server: PostgresServer, stack: ExitStack) -> None:
        switch_often()  # as the broker does, where it begins
        self._worlds = {
            "whole": recording_world(stack),
            "less": recording_world(stack),
            "off": recording_world(stack, recorder=NoRecorder),
        }
        for how, world in self._worlds.items():
            _govern(world, server, RecordMode.FULL if how == "whole" else RecordMode.STATEMENTS)
        pool = WorkerPool("blocking", threads=32, queue=256)
        stack.callback(pool.close)
        self._broker: BrokerThread = stack.enter_context(
            running_broker(
                server,
                languages=SqlLanguages(configuration=self._worlds["off"].configuration, clock=SystemClock()),
                driver=Driver(pool=pool, tasks=Tasks()),
            )
        )

    def ms(self, sqls: Sequence[str], how: str) -> float:
        """Return how long as many psql as there are ``sqls`` take together, with their starts and logins."""
        world = self._worlds[how]
        ready = [world.connect() for _ in sqls]
        ended = [_told_of_end(connection) for connection in ready]
        self._broker.flow.open = lambda *_, **__: ready.pop()  # type: ignore[assignment,method-assign]
        command = [str(find_postgres().psql), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null"]
        environment = child_environment(find_postgres().environment())
        with ExitStack() as files:
            # Files and no pipes: writing to the first would wait for it while the others have nothing to do.
            given = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in sqls]
            for file, sql in zip(given, sqls, strict=True):
                file.write(sql)
                file.seek(0)
            started = time.perf_counter()
            running = [subprocess.Popen([*command, self._broker.dsn()], stdin=file, env=environment) for file in given]
            statuses = [psql.wait() for psql in running]
            took = time.perf_counter() - started
        if any(statuses):
            raise RuntimeError("psql could not do what is measured")
        for end in ended:
            end.wait(60)
        return took * 1000


def _told_of_end(connection: Connection) -> Event:
    """Return what is set once ``connection`` is closed and sealed: that is not to be another run's burden."""
    ended, close = Event(), connection.close

    def closed(exit: str) -> None:
        close(exit)
        ended.set()

    connection.close = closed  # type: ignore[method-assign]
    return ended
