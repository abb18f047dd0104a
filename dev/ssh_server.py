"""A throw-away sshd on loopback: the demo target ``db-prod``, with one account and secrets planted in its home.

Rules: it runs as the caller, or where that is root under an account without rights, and calls that account ``deploy``
(``ssh_binaries`` says how); it listens on 127.0.0.1 alone. It lets in who has a certificate of the authority that
:meth:`SshServer.trust` names, and an administrator's key that tests compare with; a password may be tried and never
fits. Its log (``LogLevel VERBOSE``) names the id of each certificate; ``commands`` holds each command line that the
account's shell was given, one a line: the witness for what did and did not run. Keys and planted values are random per
start; all of it goes with the server.
Sources: sshd_config(5), ssh-keygen(1) "CERTIFICATES", sshd(8) "AUTHORIZED_KEYS FILE FORMAT".
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from chalicelib.domain.errors import TargetUnavailable
from dev.processes import Child, free_port, listening
from dev.settings import Account, child_environment, own_account
from dev.ssh_binaries import SshBinaries
from dev.ssh_keys import make_key

LOGIN: Final = "deploy"
PLANTED_FILE: Final = "app.env"
_READY_S: Final = 20.0
_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"  # the letters of an AWS access key's id
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"


class SshServer:
    """A running sshd. :meth:`stop` ends it and removes what it had."""

    def __init__(self, binaries: SshBinaries, *, log: Path, account: Account | None) -> None:
        """Start one; it may not accept connections before :meth:`wait` returned. Until :meth:`trust` no certificate
        lets anybody in."""
        self.port = free_port()
        self.log = log
        self.folder = Path(tempfile.mkdtemp(prefix="countersign-ssh-"))
        self.commands = self.folder / "commands"
        self.admin_identity = self.folder / "admin"
        self._home = self.folder / "home"
        self._authority = self.folder / "authority.pub"
        self._child: Child | None = None
        try:
            host, admin = make_key(), make_key()
            self.host_key = host.public
            self.binaries = binaries.reachable_from(self.folder)
            self.planted = self._make_home()
            self._write("host", host.private, 0o600)
            self._write("admin", admin.private, 0o600)
            self._write("admin.pub", f"{admin.public} admin\n")
            self._write("sshd_config", self._configuration())
            self._write("commands", "")
            self._write("shell", _shell(self.commands), 0o755)
            runs_as = account or own_account()
            self._write("passwd", f"{LOGIN}:x:{runs_as.uid}:{runs_as.gid}::{self._home}:{self.folder / 'shell'}\n")
            self._write("group", f"{LOGIN}:x:{runs_as.gid}:\n")
            self._own(account)
            self._child = self._start(account)
        except BaseException:
            self.stop()
            raise

    def _configuration(self) -> str:
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host'}",
            f"TrustedUserCAKeys {self._authority}",
            f"AuthorizedKeysFile {self.folder / 'admin.pub'}",
            f"AllowUsers {LOGIN}",
            "PasswordAuthentication yes",  # so that it can be tried: the account has none
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "StrictModes no",  # the folders above ours are the machine's
            "PidFile none",
            "PrintMotd no",
            "PrintLastLog no",
            "Subsystem sftp internal-sftp",
            "LogLevel VERBOSE",
            f"SetEnv PATH={self.folder / 'bin'}:{_PATH}",
            *(f"{option} {path}" for option, path in self.binaries.helpers.items()),
            *(["PerSourcePenalties no"] if self.binaries.penalises else []),  # everybody here has one address
        ]
        return "".join(f"{line}\n" for line in lines)

    def _make_home(self) -> list[str]:
        """Make the account's home and return the secret values in it."""
        access_key = "AKIA" + "".join(secrets.choice(_BASE32) for _ in range(16))
        password = secrets.token_hex(16)
        private = make_key().private
        self._write(
            f"home/{PLANTED_FILE}",
            "# What the deploy scripts read.\n"
            "APP_ENV=production\n"
            f"AWS_ACCESS_KEY_ID={access_key}\n"
            f"DATABASE_URL=postgres://orders_app:{password}@orders-prod.internal/orders\n"
            f'DEPLOY_KEY="{private}"\n',
            0o600,
        )
        self._write("home/releases/current", "2024-06-03T09:12:44Z 4f2c1d0e\n")
        if shutil.which("uptime", path=_PATH) is None:  # a slim image has no procps
            self._write("bin/uptime", '#!/bin/sh\nread up idle < /proc/uptime && echo "up $up s"\n', 0o755)
        # Each line of the key is a value of its own, since a mask that lets the middle through shows the key; the first
        # is the same in every key of this kind.
        return [access_key, password, *private.splitlines()[2:-1]]

    def _write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=mode)
        path.write_text(text)
        path.chmod(mode)

    def _own(self, account: Account | None) -> None:
        """Give the account what it must read or write. The administrator's key stays with us."""
        if account is None:
            return
        for path in (self.folder, self.folder / "host", self.commands, self._home, *self._home.rglob("*")):
            os.chown(path, account.uid, account.gid)

    def _start(self, account: Account | None) -> Child:
        wrapped = {
            "LD_PRELOAD": str(self.binaries.wrapper),
            "NSS_WRAPPER_PASSWD": str(self.folder / "passwd"),
            "NSS_WRAPPER_GROUP": str(self.folder / "group"),
        }
        return Child(
            "sshd",
            # -e: the log goes to standard error, which the account need not be able to open
            [str(self.binaries.sshd), "-D", "-e", "-f", str(self.folder / "sshd_config")],
            environment=child_environment({**self.binaries.environment(), **wrapped}),
            log=self.log,
            account=account,
            cwd=self.folder,
        )

    def wait(self) -> None:
        """Return when it accepts connections. Raises TargetUnavailable with the end of its log."""
        self.child.wait_until(lambda: listening(self.port), within_s=_READY_S)

    def trust(self, authority: str) -> None:
        """Let in who has a certificate that ``authority`` (``TYPE BASE64``) signed: at once, since sshd reads the file
        at each login."""
        self._write(self._authority.name, f"{authority}\n")

    @property
    def trusted(self) -> str:
        """The authority's line, empty before :meth:`trust`."""
        return self._authority.read_text().strip() if self._authority.exists() else ""

    def ran(self) -> list[str]:
        """Return the command lines that the account's shell was given, in order; a shell without one is empty."""
        return [line.rstrip("\n") for line in self.commands.read_text(errors="replace").splitlines()]

    @property
    def child(self) -> Child:
        """The server's process. Raises TargetUnavailable once it was stopped."""
        if self._child is None:
            raise TargetUnavailable("sshd was stopped")
        return self._child

    def stop(self) -> None:
        """End it, its sessions and what they left running, and remove its files. Stopping twice does nothing."""
        if self._child is not None:
            self._child.stop()
            self._child = None
            self._end_sessions()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_sessions(self) -> None:
        """sshd gives each session a process group of its own, which outlives it. All have its environment or the
        account's home in theirs, and no other process has."""
        mark = str(self.folder).encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is somebody else's
                if mark in (process / "environ").read_bytes() and int(process.name) != os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)


def _shell(commands: Path) -> str:
    """Return the account's shell: writes down what it was given, then is the machine's own."""
    line = 'if [ "$1" = -c ]; then shift; printf "%s\\n" "$1"; set -- -c "$@"; else echo; fi'
    return f'#!/bin/sh\n{line} >> {shlex.quote(str(commands))}\nexec /bin/sh "$@"\n'
