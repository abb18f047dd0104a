"""The broker: ``python -m broker``. Composition root: settings, stores, the one flow, engine, listener; and its end.

Rules: it listens only once the configuration and the revocation feed were read; it says so in one log line
(``listening``, with host and port). SIGTERM and SIGINT stop accepting; sessions go on for as long as the settings say
(not at all by default); then, or told a second time, every connection is ended in its own protocol and sealed, within
25 s. One process per vCPU: one event loop, one pool for what blocks, one for uploads, and the periodic threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final, ParamSpec, Protocol, TypeVar

import uvloop

from broker.admission import Admissions
from broker.boot import Boot
from broker.configuration import ActiveConfiguration
from broker.connection import Connection, Gateway
from broker.drive import Driver
from broker.engines.accepted import Engine
from broker.engines.postgres.languages import SqlLanguages
from broker.engines.postgres.session import PostgresEngine
from broker.engines.ssh.authentication import Authorities
from broker.engines.ssh.keys import read_host_key
from broker.engines.ssh.session import SshEngine
from broker.engines.ssh.transport import GREETING
from broker.events import Events
from broker.evidence import Evidence
from broker.holds import HoldPoller
from broker.inspection import Inspector
from broker.leaving import END_S, Told, left_alone
from broker.listeners.limits import Strangers
from broker.listeners.tcp import Listener, bind
from broker.listeners.tls import postgres_tls
from broker.liveness import Liveness
from broker.logs import log_event, log_sessions, log_to_stderr
from broker.protection import TaskProtection
from broker.recorder import Recorder
from broker.recorder.finishing import FINISH_EVERY_S, Finishing
from broker.recorder.spool import Spool
from broker.recorder.window import SPOOL_EVERY_S
from broker.settings import Settings, read_settings
from broker.tasks import Tasks
from broker.threads import Periodic, WorkerPool, switch_often
from chalicelib.config.active import ActiveBundle
from chalicelib.domain.connection import BEAT_EVERY_S
from chalicelib.domain.errors import AccessError, Limited, StoreUnavailable
from chalicelib.domain.identifiers import ulid
from chalicelib.domain.secret import Secret
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.verifier import Verifier
from chalicelib.identity.jws import verify_answer, verify_hop
from chalicelib.services.active_bundle import active_bundle
from chalicelib.services.seal_orphan import SealOrphan
from chalicelib.settings import StoreSettings, SystemClock
from chalicelib.store.opened import Stores, open_stores

P = ParamSpec("P")
T = TypeVar("T")

LIVE_EVERY_S: Final = 15.0  # four numbers in each minute that CloudWatch averages, and as late as protection may come
# Store calls of connections that open, settle or close: each waits some milliseconds for the network, and 32 keep up
# with a burst of a hundred logins; the queue is that burst several times over.
POOL_THREADS: Final = 32
POOL_QUEUE: Final = 512
UPLOAD_THREADS: Final = 16  # eight segments at once for two busy connections; the rest wait milliseconds
UPLOAD_QUEUE: Final = 4096  # every open connection may have eight
PEPPER_BYTES: Final = 32
SSH_HANDSHAKE_S: Final = 30.0  # a person pastes the session's secret; a place at the door is kept no longer

_log = logging.getLogger("broker")


class Entrance:
    """``flow.Door`` over Admissions and Gateway: admission is only ever used to open, and at once; and nobody is let in
    while what happens could not be audited."""

    def __init__(self, admissions: Admissions, gateway: Gateway, events: Events) -> None:
        self._admissions = admissions
        self._gateway = gateway
        self._events = events

    def verifier(self, login: str) -> Verifier:
        return self._admissions.verifier(login)

    def open(self, login: str, peer: str, *, bound: bool = False, public_key: str = "") -> Connection:
        try:
            self._events.require_open()
        except StoreUnavailable as error:
            self._admissions.refused(login, peer, error)
            raise
        return self._gateway.open(self._admissions.admit(login, peer, bound=bound), public_key=public_key)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What was put together: the engine's half belongs to the loop, the rest to threads."""

    entrance: Entrance
    configuration: ActiveConfiguration
    pool: WorkerPool
    user_authorities: Authorities


@dataclass(frozen=True, kw_only=True)
class _Shared:
    """What admissions and gateway both rest on."""

    bundles: ActiveBundle
    configuration: ActiveConfiguration
    liveness: Liveness
    evidence: Evidence
    events: Events
    clock: SystemClock


def put_together(settings: Settings, stores: Stores, clock: SystemClock, started: ExitStack) -> Parts:
    """Return the one flow over ``stores``, its threads running; ``started`` stops them. Raises AccessError where the
    configuration or the revocation feed cannot be read."""
    boot = f"boot_{ulid(clock.now())}"
    shared = _shared(stores, clock, boot)
    started.callback(shared.events.close)  # first in, so last: every connection has told its end by then
    poller = HoldPoller(answers=stores.answers, uses=stores.uses, evidence=shared.evidence, clock=clock)
    life = Boot(boot, beats=stores.beats, objects=stores.objects, clock=clock)
    life.beat()
    recorder = _recorder(settings, stores, boot, clock, started)
    pool = _pool("blocking", POOL_THREADS, POOL_QUEUE, started)
    gateway = _gateway(stores, shared, recorder, poller, mint_function=settings.mint_function, boot=boot)
    shared.configuration.step()
    shared.configuration.current()
    shared.liveness.step()
    for name, step, every_s in (
        ("configuration", shared.configuration.step, 1.0),
        ("liveness", shared.liveness.step, 1.0),
        ("holds", poller.step, 0.5),
        ("recorder", recorder.step, 0.25),
        ("events", shared.events.step, 1.0),
        ("beat", life.beat, BEAT_EVERY_S),
    ):
        _periodic(name, step, every_s, started)
    started.callback(life.end, gateway.end_boot)
    return Parts(
        entrance=Entrance(_admissions(stores, shared), gateway, shared.events),
        configuration=shared.configuration,
        pool=pool,
        user_authorities=lambda: stores.keys.public_keys(KeyPurpose.SSH_USER.value),
    )


def _recorder(settings: Settings, stores: Stores, boot: str, clock: SystemClock, started: ExitStack) -> Recorder:
    spool = None
    if settings.spool is not None:
        spool = Spool(settings.spool, boot, most_bytes=settings.spool_bytes)
        started.callback(spool.close)
    recorder = Recorder(
        objects=stores.objects,
        connections=stores.connections,
        signer=stores.signer(KeyPurpose.RECORD.value),
        pool=_pool("uploads", UPLOAD_THREADS, UPLOAD_QUEUE, started),
        clock=clock,
        build=settings.build,
        sealed_by=f"broker:{settings.host}:{boot}",
        spool=spool,
    )
    if spool is not None:
        _periodic("spool", recorder.spool, SPOOL_EVERY_S, started)
        _finish_what_was_left(settings, stores, spool, boot, clock, started)
    return recorder


def _finish_what_was_left(
    settings: Settings, stores: Stores, spool: Spool, boot: str, clock: SystemClock, started: ExitStack
) -> None:
    """Finish dead brokers' recordings beside the service: nobody waits for them, and the bucket may be away."""
    seal = SealOrphan(
        objects=stores.objects,
        connections=stores.connections,
        chains=stores.chains,
        keys=stores.keys,
        signer=stores.signer(KeyPurpose.RECORD.value),
        clock=clock,
        sealed_by=f"restart:{settings.host}:{boot}",
        build=settings.build,
    )
    leaving = Event()
    finishing = Finishing(
        spool=spool, objects=stores.objects, connections=stores.connections, seal=seal, stopping=leaving.is_set
    )
    _periodic("finishing", finishing.step, FINISH_EVERY_S, started)
    started.callback(leaving.set)


def _shared(stores: Stores, clock: SystemClock, boot: str) -> _Shared:
    bundles = active_bundle(stores, clock)
    return _Shared(
        bundles=bundles,
        configuration=ActiveConfiguration(bundles=bundles, clock=clock),
        liveness=Liveness(revocations=stores.revocations, clock=clock),
        evidence=Evidence(
            verify_hop=lambda hop: verify_hop(hop, stores.keys),
            verify_answer=lambda answer: verify_answer(answer, stores.keys),
        ),
        events=Events(objects=stores.objects, log=log_event, clock=clock, writer=boot),
        clock=clock,
    )


def _admissions(stores: Stores, shared: _Shared) -> Admissions:
    return Admissions(
        sessions=stores.sessions,
        chains=stores.chains,
        connections=stores.connections,
        revocations=stores.revocations,
        asks=stores.asks,
        answers=stores.answers,
        uses=stores.uses,
        bundles=shared.bundles,
        evidence=shared.evidence,
        liveness=shared.liveness,
        audit=shared.events,
        clock=shared.clock,
        pepper=secrets.token_bytes(PEPPER_BYTES),
    )


def _gateway(
    stores: Stores, shared: _Shared, recorder: Recorder, poller: HoldPoller, *, mint_function: str, boot: str
) -> Gateway:
    return Gateway(
        sessions=stores.sessions,
        chains=stores.chains,
        connections=stores.connections,
        revocations=stores.revocations,
        asks=stores.asks,
        answers=stores.answers,
        uses=stores.uses,
        bundles=shared.bundles,
        functions=stores.functions,
        mint_function=mint_function,
        signer=stores.signer(KeyPurpose.RECORD.value),
        evidence=shared.evidence,
        inspector=Inspector(shared.configuration),
        configuration=shared.configuration,
        liveness=shared.liveness,
        recorder=recorder,
        poller=poller,
        audit=shared.events,
        clock=shared.clock,
        boot=boot,
    )


def _periodic(name: str, step: Callable[[], None], every_s: float, started: ExitStack) -> None:
    periodic = Periodic(name, step, every_s=every_s)
    periodic.start()
    started.callback(periodic.stop)


def _pool(name: str, threads: int, queue: int, started: ExitStack) -> WorkerPool:
    pool = WorkerPool(name, threads=threads, queue=queue)
    started.callback(pool.close)
    return pool


class _Ticking(Engine, Protocol):
    """An engine that looks at its open connections once a second."""

    async def tick(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class _Served:
    """One protocol's engine and the listener in front of it."""

    protocol: str
    engine: _Ticking
    listener: Listener
    transports: Tasks


async def serve(settings: Settings, parts: Parts, clock: SystemClock, told: Told) -> None:
    """Listen until ``told`` to leave; let sessions go on while they may; then end every connection, within END_S."""
    tasks, driving = Tasks(), Tasks()
    driver = Driver(pool=parts.pool, tasks=driving)
    served = [_served_postgres(settings, parts, driver, clock)]
    if settings.ssh_host_key is not None:
        served.append(_served_ssh(settings, settings.ssh_host_key, parts, driver, clock))
    accepting = {tasks.start("accept", one.listener.accept()) for one in served}
    for one in served:
        tasks.start("tick", one.engine.tick())
        host, port = one.listener.address
        _log.info("listening", extra={"protocol": one.protocol, "host": host, "port": port, "build": settings.build})
    if settings.ecs_agent:
        protection = TaskProtection(settings.ecs_agent, clock=clock)
        tasks.start("live", _told_live(served, driver, protection, clock, settings.prefix))
    stopped = tasks.start("told", told.leave.wait())
    await asyncio.wait({*accepting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    for task in accepting:
        task.cancel()
    await asyncio.wait(accepting)  # the sockets are closed: whoever comes now is refused, and finds another broker
    await _let_finish(served, settings.drain_s, told)
    _log.info("draining", extra={"live": _live(served)})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(END_S):
            await asyncio.gather(*(one.engine.drain() for one in served))
            await driving.drained()
    await tasks.cancel_all()
    for one in served:
        await one.transports.cancel_all()
    await driving.cancel_all()


async def _let_finish(served: Sequence[_Served], within_s: int, told: Told) -> None:
    if not within_s:
        return
    _log.info("leaving", extra={"live": _live(served), "limit_s": within_s})

    async def emptied() -> None:
        for one in served:
            await one.listener.emptied()

    why = await left_alone(emptied(), within_s=within_s, told=told)
    _log.info("left alone", extra={"live": _live(served), "why": why})


def _live(served: Sequence[_Served]) -> int:
    return sum(one.listener.live for one in served)


async def _told_live(
    served: Sequence[_Served], driver: Driver, protection: TaskProtection, clock: SystemClock, name: str
) -> None:
    """Tell CloudWatch and ECS how many sessions are open, for as long as the broker lives."""
    while True:
        live = _live(served)
        log_sessions(live, name=name, at=clock.now())
        with contextlib.suppress(Limited):  # the pool is full of sessions' own work: at the next turn
            await driver.run(protection.step, live)
        await asyncio.sleep(LIVE_EVERY_S)


def _served_postgres(settings: Settings, parts: Parts, driver: Driver, clock: SystemClock) -> _Served:
    engine = PostgresEngine(
        door=parts.entrance,
        driver=driver,
        languages=SqlLanguages(configuration=parts.configuration, clock=clock),
        tls=postgres_tls(settings.tls_certificate, settings.tls_key),
        clock=clock,
    )
    listening, transports = bind(settings.listen_host, settings.postgres_port), Tasks()
    listener = Listener(listening, engine, strangers=Strangers(), tasks=transports, proxied=settings.proxied)
    return _Served(protocol="postgres", engine=engine, listener=listener, transports=transports)


def _served_ssh(
    settings: Settings, host_key: Path | Secret, parts: Parts, driver: Driver, clock: SystemClock
) -> _Served:
    engine = SshEngine(
        door=parts.entrance,
        driver=driver,
        configuration=parts.configuration,
        authorities=parts.user_authorities,
        host_key=read_host_key(host_key),
        clock=clock,
    )
    transports = Tasks()
    listener = Listener(
        bind(settings.listen_host, settings.ssh_port),
        engine,
        strangers=Strangers(),
        tasks=transports,
        handshake_s=SSH_HANDSHAKE_S,
        greeting=GREETING,
        proxied=settings.proxied,
    )
    return _Served(protocol="ssh", engine=engine, listener=listener, transports=transports)


async def _until_told(work: Callable[[Told], Awaitable[None]]) -> None:
    told = Told()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told.tell)
    await work(told)


def main() -> int:
    """Run until told to stop; return the exit status."""
    log_to_stderr()
    switch_often()
    clock = SystemClock()
    try:
        settings = read_settings()
        stores = open_stores(
            StoreSettings(
                prefix=settings.prefix,
                region=settings.region,
                bucket=settings.bucket,
                lock_days=settings.lock_days,
                bucket_key=settings.bucket_key,
            ),
            clock=clock,
        )
        with ExitStack() as started:
            parts = put_together(settings, stores, clock, started)
            uvloop.run(_until_told(lambda told: serve(settings, parts, clock, told)))
    except (AccessError, OSError) as error:
        why = error.public if isinstance(error, AccessError) else type(error).__name__
        _log.error("the broker cannot run", extra={"why": why})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
