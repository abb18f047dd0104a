"""A target, from where the command runs: does it answer, and is it the one that targets.yaml pins.

No login is tried and no credential is read. A host key is asked for by ``ssh-keyscan`` (of an OpenSSH client, found in
PATH); one that differs is said, and never learnt. Source: ssh-keyscan(1); PostgreSQL manual, "SSL Support".
"""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from typing import Final

from chalicelib.domain.target import Protocol, Target
from countersign.doctor.asking import TIMEOUT_S, ssh_banner, tls_peer
from countersign.doctor.checks import Told, ok, unknown, wrong
from countersign.environment import HOST

_AUTHORITY: Final = "@cert-authority "
_SCAN_S: Final = 4 * TIMEOUT_S  # a connection for each kind of key
_NO_WAY: Final = "Reach it from the broker's subnets: a security group, a route, or the target is down."


def look_at(target: Target, told: Mapping[str, str]) -> Iterator[Told]:
    """Give what is found of one target; ``told`` are the environment's variables."""
    if target.protocol is Protocol.SSH:
        yield _ssh(target, told.get("PATH", ""))
    elif target.protocol is Protocol.POSTGRES:
        yield _postgres(target)
    else:
        yield unknown(f"{target.protocol} targets are not looked at", "Ask its owners.")


def _postgres(target: Target) -> Told:
    try:
        peer = tls_peer(target.host, target.port, authority=target.ca_pem, postgres=True)
    except ssl.SSLCertVerificationError as error:
        return wrong(
            f"its certificate is not trusted: {error.verify_message}", "Correct ca_pem or host in targets.yaml."
        )
    except OSError as error:
        return wrong(
            f"{target.host}:{target.port} cannot be reached: {error.strerror or type(error).__name__}", _NO_WAY
        )
    if peer is None and not target.plaintext:
        return wrong("it speaks no TLS", "Turn `ssl` on there: the broker sends no password in the clear.")
    return ok("it answers" + ("" if peer is None else ", and its certificate is trusted"))


def _ssh(target: Target, path: str) -> Told:
    try:
        if not ssh_banner(target.host, target.port):
            return wrong(f"what answers at {target.host}:{target.port} does not speak SSH", "Correct host and port.")
    except OSError as error:
        return wrong(
            f"{target.host}:{target.port} cannot be reached: {error.strerror or type(error).__name__}", _NO_WAY
        )
    pinned = {" ".join(line.split()[:2]) for line in target.host_keys if not line.startswith(_AUTHORITY)}
    if not pinned:
        return unknown(
            "it answers; its certificate is checked by the broker alone", "Open a session to see it checked."
        )
    shown = _scanned(target, path)
    if shown is None:
        return unknown("it answers; there is no ssh-keyscan here to ask for its key", "Install an OpenSSH client.")
    if not pinned & shown:
        fix = "Was it installed anew? Compare on the machine itself, then correct host_keys. Else somebody is between."
        return wrong("its host key is not one that targets.yaml pins", fix)
    return ok("it answers, with a host key that targets.yaml pins")


def _scanned(target: Target, path: str) -> set[str] | None:
    program = shutil.which("ssh-keyscan", path=path or None)
    if program is None or not HOST.match(target.host):
        return None
    kinds = ",".join(sorted({_kind(line) for line in target.host_keys}))
    command = [program, "-T", f"{TIMEOUT_S:.0f}", "-p", str(target.port), "-t", kinds, target.host]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SCAN_S, check=False)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = [line.split() for line in done.stdout.splitlines() if not line.startswith("#")]
    return {f"{parts[1]} {parts[2]}" for parts in lines if len(parts) >= 3}


def _kind(line: str) -> str:
    """Return what ``ssh-keyscan -t`` calls the kind of a host key. Pure."""
    kind = line.removeprefix(_AUTHORITY).split()[0]
    return "ecdsa" if kind.startswith("ecdsa") else kind.removeprefix("ssh-")
