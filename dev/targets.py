"""The demo targets: the PostgreSQL ``orders-prod`` and the sshd ``db-prod``, started beside each other.

Rules: only what the bundle names is started; each is ended whatever happened. A target's address, the keys that verify
it and its login's secret are put into the bundle and the secret store by who starts the stack: a bundle names no port
of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chalicelib.config.bundle import Bundle
from dev import seed
from dev.postgres_binaries import find_postgres
from dev.postgres_server import DATABASE, OWNER, Login, PostgresServer, make_orders
from dev.processes import Child
from dev.settings import server_account
from dev.ssh_binaries import find_ssh
from dev.ssh_server import LOGIN, SshServer

ORDERS: Final = "orders-prod"
DB: Final = "db-prod"
NAMES: Final = (ORDERS, DB)


@dataclass(frozen=True, kw_only=True, slots=True)
class OrdersTarget:
    """The PostgreSQL, running, and its owner's login."""

    server: PostgresServer
    owner: Login


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetLog:
    """A target's own log; ``program`` is whose lines a host's syslog would say that they are."""

    target: str
    path: Path
    program: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What runs; None is a target that the bundle does not name."""

    orders: OrdersTarget | None = None
    db: SshServer | None = None

    @property
    def children(self) -> list[Child]:
        servers = (self.orders.server if self.orders else None, self.db)
        return [server.child for server in servers if server is not None]

    @property
    def logs(self) -> list[TargetLog]:
        """The targets' own logs."""
        found: list[TargetLog] = []
        if self.orders:
            found.append(TargetLog(target=ORDERS, path=self.orders.server.log))
        if self.db:
            found.append(TargetLog(target=DB, path=self.db.log, program=f"sshd[{self.db.child.pid}]"))
        return found

    def entries(self) -> dict[str, Mapping[str, object]]:
        """Return what ``targets.yaml`` says of each: where it is, and what verifies it."""
        found: dict[str, Mapping[str, object]] = {}
        if self.orders:
            found[ORDERS] = {"host": "127.0.0.1", "port": self.orders.server.port, "plaintext": True, "ca_pem": ""}
        if self.db:
            found[DB] = {"host": "127.0.0.1", "port": self.db.port, "host_keys": [self.db.host_key]}
        return found

    def secrets(self, bundle: Bundle) -> dict[str, str]:
        """Return the logins' secrets by the references under which ``bundle`` names them."""
        principal = bundle.targets[ORDERS].principal(OWNER) if self.orders else None
        return {principal.credential: self.orders.owner.password.expose()} if principal and self.orders else {}

    def described(self) -> dict[str, Any]:
        """Return what the ready file says of each."""
        found: dict[str, Any] = {}
        if self.orders:
            found[ORDERS] = _described_orders(self.orders.server)
        if self.db:
            found[DB] = _described_db(self.db)
        return found

    def stop(self) -> None:
        """End all. Stopping twice does nothing."""
        if self.orders:
            self.orders.server.stop()
        if self.db:
            self.db.stop()


class Starting:
    """Targets that start in ``pool`` while other things do."""

    def __init__(self, names: Collection[str], log: Callable[[str], Path], pool: Executor) -> None:
        """``log`` gives the path of a target's log."""
        self._orders = pool.submit(_start_orders, log(ORDERS)) if ORDERS in names else None
        self._db = pool.submit(_start_db, log(DB)) if DB in names else None

    def result(self) -> Targets:
        """Wait until all answer. Raises ConfigurationInvalid or TargetUnavailable, with the end of the log."""
        return Targets(
            orders=self._orders.result() if self._orders else None, db=self._db.result() if self._db else None
        )

    def stop(self) -> None:
        """Wait for the starts that still run, and end what they made."""
        if self._orders and _made(self._orders):
            self._orders.result().server.stop()
        if self._db and _made(self._db):
            self._db.result().stop()


def _made(start: Future[Any]) -> bool:
    return not start.cancel() and start.exception() is None


def _start_orders(log: Path) -> OrdersTarget:
    server = PostgresServer(find_postgres(), log=log, account=server_account())
    try:
        server.wait()
        return OrdersTarget(server=server, owner=make_orders(server))
    except BaseException:
        server.stop()
        raise


def _start_db(log: Path) -> SshServer:
    server = SshServer(find_ssh(), log=log, account=server_account())
    try:
        server.wait()
    except BaseException:
        server.stop()
        raise
    return server


def _described_orders(server: PostgresServer) -> dict[str, Any]:
    return {
        "protocol": "postgres",
        "host": "127.0.0.1",
        "port": server.port,
        "database": DATABASE,
        "log": str(server.log),
        "admin": {"user": server.admin.user, "password": server.admin.password.expose(), "database": DATABASE},
        "planted": seed.planted(),
    }


def _described_db(server: SshServer) -> dict[str, Any]:
    return {
        "protocol": "ssh",
        "host": "127.0.0.1",
        "port": server.port,
        "user": LOGIN,
        "host_key": server.host_key,
        "log": str(server.log),
        "commands": str(server.commands),
        "admin": {"user": LOGIN, "identity_file": str(server.admin_identity)},
        "planted": server.planted,
    }
