"""A login of an ssh target: does it take our certificate, does it refuse what was used before, does it take passwords.

Rules: the real ``ssh`` (of an OpenSSH client, found in PATH) tries it, straight at the target and with no config but
ours; the host key is one that targets.yaml pins or nothing is tried; one key is offered and no agent asked. Our
certificate is tried by a session of the operator's own, through the broker and recorded: its authority's key signs in
``mint`` and nowhere else, so nobody can make one here. A stored key is not changed: that is done on the machine itself.

Sources: ssh(1), ssh_config(5); RFC 4252 section 5.1 (the methods that can continue), section 5.2 ("none").
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from chalicelib.domain.target import Target
from countersign.doctor.checks import Told, ok, unknown, warn, wrong
from countersign.environment import HOST, write_private

_WAIT_S: Final = 10  # for the connection; the broker's own dial waits as long
_RUN_S: Final = 30.0
_REFUSED: Final = re.compile(r"Permission denied \(([a-z0-9,@.-]{1,200})\)")
_IN: Final = "countersign-was-let-in"
_TYPED: Final = frozenset(("password", "keyboard-interactive"))
_AUTHORITY: Final = "@cert-authority "


def look_at_login(target: Target, account: str, identity: str, told: Mapping[str, str]) -> Iterator[Told]:
    """Give what ``target`` answers to logins of ``account`` past us: by the former key in the file ``identity`` (empty:
    none is tried), and by none at all. ``told`` are the environment's variables."""
    program = shutil.which("ssh", path=told.get("PATH") or None)
    if program is None or not HOST.match(target.host):
        yield unknown("there is no ssh here to try logins with", "Install an OpenSSH client.")
        return
    if identity and not Path(identity).is_file():
        yield unknown("--old-identity names no file", "Give the private key that was used before.")
        return
    with tempfile.TemporaryDirectory(prefix="countersign-") as folder:
        known = Path(folder) / "known_hosts"
        write_private(known, "".join(map(_known_host, target.host_keys)).encode("ascii"))
        tries = _Tries(program, target, account, known, told)
        if identity:
            yield _former(tries.by_key(identity))
        else:
            fix = "Name the private key that was used before: --old-identity FILE."
            yield unknown("no former key was tried, so it is not shown that one is refused", fix)
        yield _methods(tries.by_nothing())


class _Tries:
    def __init__(self, program: str, target: Target, account: str, known: Path, told: Mapping[str, str]) -> None:
        self._environment = {name: told[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in told}
        self._end = ["-p", str(target.port), "-l", account, "--", target.host, f"echo {_IN}"]
        self._begin = [
            *(program, "-F", "none", "-T", "-n"),
            *("-o", f"UserKnownHostsFile={known}", "-o", "GlobalKnownHostsFile=/dev/null"),
            *("-o", "HostKeyAlias=target", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no"),
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none", "-o", "ForwardAgent=no"),
            *("-o", "CertificateFile=none", "-o", "ControlPath=none", "-o", f"ConnectTimeout={_WAIT_S}"),
        ]

    def by_key(self, identity: str) -> str:
        return self._run("-o", "PreferredAuthentications=publickey", "-i", identity)

    def by_nothing(self) -> str:
        return self._run("-o", "PreferredAuthentications=none", "-o", "IdentityFile=none")

    def _run(self, *options: str) -> str:
        """Return what ssh printed, empty where it did not end in time."""
        command = [*self._begin, *options, *self._end]
        try:
            done = subprocess.run(  # noqa: S603 - ours
                command, capture_output=True, text=True, errors="replace", timeout=_RUN_S, check=False,
                env=self._environment,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout + done.stderr


def _former(said: str) -> Told:
    if _IN in said:
        fix = "Take it out of every file that sshd_config's AuthorizedKeysFile names there, then run it again."
        return wrong("THE FORMER KEY STILL LOGS IN", fix)
    if _REFUSED.search(said):
        return ok("the former key is refused")
    return unknown(f"the former key could not be tried: {_why(said)}", "Is the way open, and host_keys right?")


def _methods(said: str) -> Told:
    if _IN in said:
        return wrong("THE TARGET LETS ANYBODY IN, without a key and without a password", "Correct sshd_config at once.")
    found = _REFUSED.search(said)
    if found is None:
        return unknown(f"what logins it takes could not be asked: {_why(said)}", "Is the way open?")
    typed = sorted(_TYPED & set(found[1].split(",")))
    if typed:
        fix = "PasswordAuthentication no and KbdInteractiveAuthentication no in sshd_config: a certificate is enough."
        return warn(f"the target also takes logins by {' and '.join(typed)}", fix)
    return ok(f"the target takes logins by {found[1]} alone")


def _why(said: str) -> str:
    """Return ssh's failure in words of ours: its own name the address. Pure."""
    if "ost key verification failed" in said:
        return "its host key is not one that targets.yaml pins"
    return "there was no answer that makes sense" if said else "there was no answer in time"


def _known_host(line: str) -> str:
    """Return a pinned key as a line of known_hosts (sshd(8)), under the one name that we look for. Pure."""
    if line.startswith(_AUTHORITY):
        return f"{_AUTHORITY}target {line.removeprefix(_AUTHORITY)}\n"
    return f"target {line}\n"
