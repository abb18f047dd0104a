"""A broker for tests: the real listener and engine on uvloop, in a thread of its own, with the one flow faked.

Real clients block, so the loop cannot be the test's own thread.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.engines.postgres.session import Languages, PostgresEngine
from broker.listeners.limits import Strangers
from broker.listeners.tcp import Listener, bind
from broker.listeners.tls import postgres_tls
from broker.tasks import Tasks
from chalicelib.domain.target import Principal, Protocol, Target
from chalicelib.settings import SystemClock
from dev.postgres_binaries import find_postgres
from dev.postgres_server import PostgresServer, make_orders
from dev.settings import child_environment, server_account
from tests.fakes.flow import LOGIN, FakeConnection, FakeFlow

T = TypeVar("T")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for localhost and 127.0.0.1; return (certificate, key)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = SystemClock().now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "broker.pem", folder / "broker.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def target_at(port: int, *, database: str = "postgres", host: str = "127.0.0.1", ca_pem: str = "") -> Target:
    return Target(
        name="test-target",
        protocol=Protocol.POSTGRES,
        environment="test",
        description="",
        host=host,
        port=port,
        database=database,
        principals=(Principal(name="postgres", credential="ref"),),
        default_principal="postgres",
        ca_pem=ca_pem,
        plaintext=not ca_pem,
        search_path=("public",),
        tags=(),
        max_session_s=3600,
        max_connections=8,
        hold_budget_s=60,
        durable=False,
    )


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A throw-away PostgreSQL with the demo's database ``orders``."""
    with tempfile.TemporaryDirectory() as folder:
        server = PostgresServer(find_postgres(), log=Path(folder) / "postgres.log", account=server_account())
        try:
            server.wait()
            make_orders(server)
            yield server
        finally:
            server.stop()


@contextmanager
def running_broker(server: PostgresServer, **options: Any) -> Iterator[BrokerThread]:
    """A broker in front of ``server``, as its administrator: only the broker says no."""
    flow = FakeFlow(
        target_at(server.port, database="orders"), password=server.admin.password.expose(), clock=SystemClock()
    )
    with tempfile.TemporaryDirectory() as folder:
        broker = BrokerThread(flow, *make_certificate(Path(folder)), **options)
        broker.ca_file = Path(folder) / "broker.pem"
        try:
            yield broker
        finally:
            broker.stop()


def wait_for(look: Callable[[], T], within_s: float = 10) -> T:
    """Return what ``look`` returns once it is true. Raises AssertionError after ``within_s``."""
    clock = SystemClock()
    ends = clock.monotonic_s() + within_s
    while not (found := look()):
        assert clock.monotonic_s() < ends, "it did not happen in time"
        threading.Event().wait(0.01)
    return found


class BrokerThread:
    """The listener and engine, running until :meth:`stop`."""

    def __init__(
        self,
        flow: FakeFlow,
        certificate: Path,
        key: Path,
        *,
        strangers: Strangers | None = None,
        handshake_s: float = 10,
        languages: Languages[Any] | None = None,
        driver: Any = None,
    ) -> None:
        self.flow = flow
        self._driver = driver if driver is not None else flow
        self._languages: Languages[Any] = languages if languages is not None else flow
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._tls = postgres_tls(certificate, key)
        self._strangers = strangers if strangers is not None else Strangers()
        self._handshake_s = handshake_s
        self.engine: PostgresEngine[Any]
        self.port = 0
        self.ca_file = certificate
        self._thread = threading.Thread(  # noqa: TID251 real clients block, so the loop has a thread of its own
            daemon=True, target=self._loop.run_until_complete, args=(self._main(),)
        )
        self._thread.start()
        self._ready.wait()

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        tasks = Tasks()
        self.engine = PostgresEngine(
            door=self.flow, driver=self._driver, languages=self._languages, tls=self._tls, clock=self.flow.clock
        )
        listener = Listener(
            bind("127.0.0.1", 0), self.engine, strangers=self._strangers, tasks=tasks, handshake_s=self._handshake_s
        )
        self.port = listener.address[1]
        accepting = tasks.start("accept", listener.accept())
        ticking = tasks.start("tick", self.engine.tick())
        self._ready.set()
        await self._stop.wait()
        accepting.cancel()
        ticking.cancel()
        await self.engine.drain()
        await tasks.cancel_all()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the broker's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def soon(self, work: Callable[[], None]) -> None:
        self._loop.call_soon_threadsafe(work)

    def dsn(self, *, host: str = "localhost", **more: str) -> str:
        """The connection string that ``connect`` gives a client."""
        settings = {
            "host": host,
            "port": str(self.port),
            "user": LOGIN,
            "password": self.flow.secret.expose(),
            "dbname": "orders",
            "sslmode": "verify-full",
            "sslrootcert": str(self.ca_file),
            "connect_timeout": "10",
        }
        return " ".join(f"{name}={value}" for name, value in (settings | more).items())

    def psql(self, *commands: str, stdin: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the real psql, unaligned and without headers."""
        arguments = [part for command in commands for part in ("-c", command)]
        return subprocess.run(
            [str(find_postgres().psql), "-X", "-A", "-t", self.dsn(**settings), *arguments],
            input=stdin,
            env=child_environment(find_postgres().environment()),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    @property
    def connection(self) -> FakeConnection:
        """The newest connection."""
        return self.flow.connections[-1]

    def ended(self, connection: FakeConnection, within_s: float = 10) -> str:
        """Wait until ``connection`` was closed, and return how."""
        return wait_for(lambda: connection.closed, within_s)

    def stop(self) -> None:
        if self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._loop.close()
        self.flow.close()
