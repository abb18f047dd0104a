"""A throw-away PostgreSQL server on loopback, and the demo target that lives in it.

Rules: it runs as the caller, or where that is root under an account without rights; its data lies in a private folder
that goes with it; it listens on 127.0.0.1 alone, asks for SCRAM, and logs every statement with who sent it (address
and application name): that log is the witness for what did and did not run. Passwords are random per start and are
never written to the log. It does not speak TLS: loopback only.
Sources: PostgreSQL 15 manual, chapters 19.3 (connections), 19.8 (logging), 21 (authentication), 33.18 (TLS).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.verifier import new_session_secret
from dev import seed
from dev.debian_packages import reachable
from dev.postgres_binaries import PostgresBinaries
from dev.processes import Child, free_port, listening
from dev.settings import Account, child_environment

ADMIN: Final = "postgres"
DATABASE: Final = "orders"
OWNER: Final = "orders_app"
_READY_S: Final = 20.0  # the first start on a loaded 2-core machine took 3
_SQL_S: Final = 30
# %a is what the client calls itself: the broker puts the chain's id there, and P2 wants it found in the target's own
# log. Not %u and %d: a stranger's user name would be written as it came, line feeds and all, and could forge a line.
_LOG_LINE: Final = "%m [%p] %h app=%a "
_CONFIGURATION: Final[Mapping[str, str]] = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # no socket file to leave behind, and no way in past the port
    "password_encryption": "scram-sha-256",
    "log_statement": "all",
    "log_line_prefix": _LOG_LINE,
    "log_connections": "on",
    "log_disconnections": "on",
    "log_timezone": "UTC",
    "fsync": "off",  # the data does not outlive the process
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "jit": "off",  # the unpacked packages leave LLVM out
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """A role and its password."""

    user: str
    password: Secret


class PostgresServer:
    """A running server. :meth:`stop` ends it and removes its data."""

    def __init__(self, binaries: PostgresBinaries, *, log: Path, account: Account | None) -> None:
        """Start one; it may not accept connections before :meth:`wait` returned."""
        self.port = free_port()
        self.log = log
        self.admin = Login(user=ADMIN, password=new_session_secret())
        self.folder = Path(tempfile.mkdtemp(prefix="countersign-postgres-"))
        self._child: Child | None = None
        try:
            if account is not None:
                os.chown(self.folder, account.uid, account.gid)
            self.binaries = _reachable(binaries, self.folder, account)
            self._initialise(account)
            self._child = self._start(account)
        except BaseException:
            self.stop()
            raise

    def _initialise(self, account: Account | None) -> None:
        password = self.folder / "password"
        password.touch(mode=0o600)
        password.write_text(self.admin.password.expose())
        if account is not None:
            os.chown(password, account.uid, account.gid)
        done = subprocess.run(
            [
                *(str(self.binaries.server / "initdb"), "-D", str(self.folder / "data"), "-U", ADMIN),
                *("--pwfile", str(password), "-A", "scram-sha-256", "-E", "UTF8", "--locale=C"),
                *("--no-sync", "--no-instructions"),
            ],
            env=child_environment(self.binaries.environment()),
            cwd=self.folder,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=() if account else None,
            capture_output=True,
            text=True,
            timeout=_SQL_S,
            check=False,
        )
        password.unlink()
        if done.returncode != 0:
            raise TargetUnavailable(f"initdb failed: {done.stderr[-1000:]}")

    def _start(self, account: Account | None) -> Child:
        settings = [part for name, value in _CONFIGURATION.items() for part in ("-c", f"{name}={value}")]
        return Child(
            "PostgreSQL",
            [str(self.binaries.server / "postgres"), "-D", str(self.folder / "data"), "-p", str(self.port), *settings],
            environment=child_environment(self.binaries.environment()),
            log=self.log,
            account=account,
            cwd=self.folder,
        )

    def wait(self) -> None:
        """Return when it accepts connections. Raises TargetUnavailable with the end of its log."""
        self.child.wait_until(lambda: listening(self.port) and self._answers(), within_s=_READY_S)

    def _answers(self) -> bool:
        return self._psql(self.admin, "postgres", "SELECT 1").returncode == 0

    def run(self, sql: str, *, login: Login | None = None, database: str = "postgres", quiet: bool = True) -> str:
        """Run ``sql`` as ``login``, else as the admin, and return what psql printed. ``quiet`` keeps the statements
        out of the server's log (admin only). Raises TargetUnavailable with the server's error."""
        done = self._psql(login or self.admin, database, sql, quiet=quiet and login is None)
        if done.returncode != 0:
            raise TargetUnavailable(f"PostgreSQL refused: {done.stderr[-1000:]}")
        return done.stdout

    def _psql(self, login: Login, database: str, sql: str, *, quiet: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {
            "PGPASSWORD": login.password.expose(),
            "PGAPPNAME": "countersign dev",
            "PGOPTIONS": "-c log_statement=none" if quiet else "",
        }
        return subprocess.run(
            [
                *(str(self.binaries.psql), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-"),
                *("-h", "127.0.0.1", "-p", str(self.port), "-U", login.user, "-d", database),
            ],
            input=sql,
            env=child_environment(self.binaries.environment() | environment),
            capture_output=True,
            text=True,
            timeout=_SQL_S,
            check=False,
        )

    @property
    def child(self) -> Child:
        """The server's process. Raises TargetUnavailable once it was stopped."""
        if self._child is None:
            raise TargetUnavailable("PostgreSQL was stopped")
        return self._child

    def stop(self) -> None:
        """End it and remove its data. Stopping twice does nothing."""
        if self._child is not None:
            self._child.stop(how=signal.SIGINT)  # "fast": it does not wait for clients to leave
            self._child = None
        shutil.rmtree(self.folder, ignore_errors=True)


def make_orders(server: PostgresServer) -> Login:
    """Create the demo target in ``server``: the database, its owner and the rows of ``seed``. Return the owner's
    login."""
    owner = Login(user=OWNER, password=new_session_secret())
    server.run(
        f"CREATE ROLE {OWNER} LOGIN PASSWORD '{owner.password.expose()}';\n"
        f"CREATE DATABASE {DATABASE} OWNER {OWNER};\n"
        f"REVOKE CONNECT ON DATABASE {DATABASE} FROM PUBLIC;\n"
    )
    server.run(f"SET ROLE {OWNER};\n{_TABLES}{_copies()}RESET ROLE;\nANALYZE;\n", database=DATABASE)
    return owner


_TABLES: Final = """
CREATE TABLE public.customers (
    id integer PRIMARY KEY, name text NOT NULL, email text NOT NULL UNIQUE, card_number text NOT NULL UNIQUE,
    note text NOT NULL
);
CREATE TABLE public.orders (
    id integer PRIMARY KEY, customer_id integer NOT NULL REFERENCES public.customers (id),
    amount_cents integer NOT NULL, created_at timestamptz NOT NULL
);
CREATE INDEX orders_by_customer ON public.orders (customer_id);
"""


def _copies() -> str:
    people = "".join(f"{row.id}\t{row.name}\t{row.email}\t{row.card_number}\t{row.note}\n" for row in seed.customers())
    bought = "".join(
        f"{row.id}\t{row.customer_id}\t{row.amount_cents}\t{row.created_at.isoformat()}\n" for row in seed.orders()
    )
    return f"COPY public.customers FROM stdin;\n{people}\\.\nCOPY public.orders FROM stdin;\n{bought}\\.\n"


def _reachable(binaries: PostgresBinaries, folder: Path, account: Account | None) -> PostgresBinaries:
    """Return binaries that ``account`` can reach: a checkout under /root is closed to it, so what was unpacked there is
    copied into the server's own folder."""
    if account is None or not binaries.libraries or reachable(binaries.server):
        return binaries
    unpacked = binaries.server.parents[4]
    copy = folder / "root"
    shutil.copytree(unpacked, copy, symlinks=True)
    return PostgresBinaries(
        server=copy / binaries.server.relative_to(unpacked),
        psql=binaries.psql,
        libraries=binaries.libraries.replace(str(unpacked), str(copy)),
    )
