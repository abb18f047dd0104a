"""A broker for ssh tests: the real listener and engine on uvloop in a thread of its own, a real sshd behind it, real
keys and certificates, and the one flow faked.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from typing import Protocol as Behind

import paramiko
import uvloop

from broker.engines.ssh.keys import read_host_key
from broker.engines.ssh.session import SshEngine
from broker.engines.ssh.transport import GREETING
from broker.listeners.limits import Strangers
from broker.listeners.tcp import Listener, bind
from broker.tasks import Tasks
from chalicelib.config.bundle import Bundle
from chalicelib.domain.masking import MaskMode, MaskRule
from chalicelib.domain.secret import Secret
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.target import Principal, Protocol, Target
from chalicelib.identity.ssh_certificates import CertificateWanted, authority_line, sign_certificate
from chalicelib.settings import SystemClock
from dev.settings import child_environment, search_path, server_account
from dev.ssh_binaries import SshBinaries, find_ssh
from dev.ssh_keys import make_key
from dev.ssh_server import LOGIN as ACCOUNT
from dev.ssh_server import SshServer
from tests.e2e.postgres_broker import wait_for
from tests.fakes.broker import ScriptedPolicy
from tests.fakes.flow import LOGIN, FakeConnection, FakeCredential, FakeFlow
from tests.fakes.signer import MemoryKeys

T = TypeVar("T")

CREDENTIALS = MaskRule(
    name="credentials",
    mode=MaskMode.REDACT,
    targets=(),
    columns=(),
    detectors=("aws_access_key", "private_key", "url_password"),
    patterns=(),
)


def ssh_target(port: int, host_key: str, *, host: str = "127.0.0.1") -> Target:
    return Target(
        name="db-prod",
        protocol=Protocol.SSH,
        environment="prod",
        description="",
        host=host,
        port=port,
        database="",
        principals=(Principal(name="deploy", credential="certificate", login=ACCOUNT),),
        default_principal="deploy",
        ca_pem="",
        plaintext=False,
        search_path=(),
        tags=(),
        max_session_s=3600,
        max_connections=8,
        hold_budget_s=60,
        durable=False,
        host_keys=(host_key,),
    )


class _Configured:
    """A configuration with one mask."""

    def current(self) -> Bundle:
        return Bundle(
            digest="b1",
            serial=1,
            targets={},
            issuers=(),
            people=(),
            masks={CREDENTIALS.name: CREDENTIALS},
            policy=ScriptedPolicy({}),
        )


@contextmanager
def running_sshd() -> Iterator[SshServer]:
    with tempfile.TemporaryDirectory() as folder:
        server = SshServer(find_ssh(), log=Path(folder) / "sshd.log", account=server_account())
        try:
            server.wait()
            yield server
        finally:
            server.stop()


class Sshd(Behind):
    """What stands behind the broker: dev's sshd, or a scripted one."""

    port: int
    host_key: str

    def trust(self, authority: str) -> None: ...


@contextmanager
def running_ssh_broker(server: Sshd, **options: Any) -> Iterator[SshBroker]:
    """A broker in front of ``server``, which trusts certificates that it mints."""
    with tempfile.TemporaryDirectory() as folder:
        broker = SshBroker(server, Path(folder), **options)
        try:
            yield broker
        finally:
            broker.stop()


@dataclass(frozen=True)
class Identity:
    """A client's key pair on disk, with its certificate beside it where it has one."""

    private: Path

    @property
    def key(self) -> paramiko.PKey:
        """It, for paramiko."""
        key = paramiko.Ed25519Key(filename=str(self.private))
        certificate = Path(f"{self.private}-cert.pub")
        if certificate.exists():
            key.load_certificate(str(certificate))
        return key

    @property
    def options(self) -> list[str]:
        return ["-i", str(self.private), "-o", f"CertificateFile={self.private}-cert.pub"]


class SshBroker:
    """The listener and engine, running until :meth:`stop`."""

    def __init__(
        self, server: Sshd, folder: Path, *, handshake_s: float = 10, strangers: Strangers | None = None
    ) -> None:
        self.clock = SystemClock()
        self.keys = MemoryKeys()
        self.server = server
        self.folder = folder
        self.flow = FakeFlow(ssh_target(server.port, server.host_key), login=ACCOUNT, clock=self.clock)
        self.flow.mint = self.minted
        server.trust(authority_line(self.keys.signer(KeyPurpose.SSH_TARGET.value).jwk()))
        host = make_key()
        self._write("host_key", host.private)
        self.host_key = host.public
        self._handshake_s = handshake_s
        self._strangers = strangers if strangers is not None else Strangers()
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self.engine: SshEngine[Any]
        self.port = 0
        self._thread = threading.Thread(  # noqa: TID251 real clients block, so the loop has a thread of its own
            daemon=True, target=self._loop.run_until_complete, args=(self._main(),)
        )
        self._thread.start()
        self._ready.wait()
        self._write("known_hosts", f"[127.0.0.1]:{self.port} {self.host_key}\n")

    async def _main(self) -> None:
        self._stop = asyncio.Event()
        tasks = Tasks()
        self.engine = SshEngine(
            door=self.flow,
            driver=self.flow,
            configuration=_Configured(),
            authorities=lambda: self.keys.public_keys(KeyPurpose.SSH_USER.value),
            host_key=read_host_key(self.folder / "host_key"),
            clock=self.clock,
        )
        listener = Listener(
            bind("127.0.0.1", 0),
            self.engine,
            strangers=self._strangers,
            tasks=tasks,
            handshake_s=self._handshake_s,
            greeting=GREETING,
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

    @cached_property
    def binaries(self) -> SshBinaries:
        return find_ssh()

    def minted(self, public_key: str) -> FakeCredential:
        """What ``mint`` answers: a certificate on the broker's key of this connection."""
        now = self.clock.now()
        certificate = sign_certificate(
            self.keys.signer(KeyPurpose.SSH_TARGET.value),
            CertificateWanted(
                public_key=public_key,
                key_id=f"txn:{self.flow.session.txn}",
                serial=7,
                principals=(ACCOUNT,),
                valid_after=now - timedelta(seconds=30),
                valid_before=now + timedelta(minutes=2),
            ),
        )
        return FakeCredential(login=ACCOUNT, secret=Secret(""), kind="certificate", certificate=certificate)

    def identity(
        self, name: str = "client", *, login: str = LOGIN, certificate: str | None = None, **wanted: Any
    ) -> Identity:
        """A new key of a client's, with a certificate for ``login``, or the one given; "" for none."""
        pair = make_key()
        self._write(name, pair.private)
        if certificate is None:
            certificate = self.certificate(pair.public, login=login, **wanted)
        if certificate:
            self._write(f"{name}-cert.pub", certificate + "\n")
        return Identity(self.folder / name)

    def certificate(
        self,
        public_key: str,
        *,
        login: str = LOGIN,
        purpose: KeyPurpose = KeyPurpose.SSH_USER,
        keys: MemoryKeys | None = None,
        after_s: float = -30,
        before_s: float = 300,
    ) -> str:
        now = self.clock.now()
        return sign_certificate(
            (keys or self.keys).signer(purpose.value),
            CertificateWanted(
                public_key=public_key,
                key_id="txn:test",
                serial=1,
                principals=(login,),
                valid_after=now + timedelta(seconds=after_s),
                valid_before=now + timedelta(seconds=before_s),
            ),
        )

    @contextmanager
    def client(self, identity: Identity | None = None, *, login: str = LOGIN) -> Iterator[paramiko.Transport]:
        """paramiko as a client, logged in with ``identity``, or with the secret."""
        transport = paramiko.Transport(socket.create_connection(("127.0.0.1", self.port), timeout=10))
        try:
            transport.start_client(timeout=10)
            assert f"{transport.get_remote_server_key().get_name()} " in self.host_key
            if identity is not None:
                transport.auth_publickey(login, identity.key)
            else:
                transport.auth_password(login, self.flow.secret.expose())
            yield transport
        finally:
            transport.close()

    # The real client.

    def command(
        self, *words: str, identity: Identity | None = None, login: str = LOGIN, program: str = ""
    ) -> list[str]:
        """The command line of the real ssh, which reads nothing of the machine's."""
        only = ["-o", "PasswordAuthentication=no"]
        options = [*identity.options, *only] if identity is not None else ["-o", "PubkeyAuthentication=no"]
        return [
            str(self.binaries.ssh),
            *("-F", "none", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", "-o", "GlobalKnownHostsFile=none"),
            *("-o", "ConnectTimeout=10", "-o", "NumberOfPasswordPrompts=1", "-o", "LogLevel=ERROR"),
            *("-p", str(self.port), "-l", login),
            *options,
            *words,
        ]

    def environment(self, password: str | None = None) -> dict[str, str]:
        """What the client runs with; ``password`` is what it types when asked."""
        asker = self.folder / "askpass"
        asker.write_text('#!/bin/sh\nprintf "%s\\n" "$TEST_PASSWORD"\n')
        asker.chmod(0o700)
        asked = {"SSH_ASKPASS": str(asker), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "none"}
        secret = {"TEST_PASSWORD": self.flow.secret.expose() if password is None else password}
        return child_environment({**self.binaries.client_environment(), **asked, **secret, "PATH": search_path()})

    def ssh(
        self,
        *words: str,
        identity: Identity | None = None,
        stdin: bytes = b"",
        password: str | None = None,
        login: str = LOGIN,
        before: tuple[str, ...] = (),
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the real ssh; ``before`` are options."""
        return subprocess.run(
            self.command(*before, "127.0.0.1", *words, identity=identity, login=login),
            input=stdin,
            env=self.environment(password),
            capture_output=True,
            timeout=60,
            check=False,
        )

    def start(
        self, *words: str, identity: Identity | None = None, before: tuple[str, ...] = (), **how: Any
    ) -> subprocess.Popen[bytes]:
        """Start the real ssh, its three streams piped."""
        piped: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | how
        command = self.command(*before, "127.0.0.1", *words, identity=identity)
        process: subprocess.Popen[bytes] = subprocess.Popen(command, env=self.environment(), **piped)
        return process

    @property
    def connection(self) -> FakeConnection:
        """The newest connection."""
        return self.flow.connections[-1]

    def ended(self, connection: FakeConnection, within_s: float = 10) -> str:
        """Wait until ``connection`` was closed, and return how."""
        return wait_for(lambda: connection.closed, within_s)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the broker's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def soon(self, work: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(work)

    def stop(self) -> None:
        if self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._loop.close()
        self.flow.close()

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)


def pointed_at(broker: SshBroker, **fields: Any) -> None:
    """Give the broker's target other ``fields``."""
    broker.flow.target = replace(broker.flow.target, **fields)


def interrupt(process: subprocess.Popen[bytes]) -> None:
    os.kill(process.pid, signal.SIGINT)
