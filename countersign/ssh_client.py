"""What the real ``ssh``, ``scp`` and ``sftp`` need to reach one target through the broker: a key, a certificate, a
config, and programs of the same names that hand that config to the real ones.

The attack: whoever answers for the API puts a newline, an option or a command into a host name, a key or a certificate,
and it becomes a line of a config that ssh obeys (``ProxyCommand``, ``LocalCommand``). So every value has a strict
grammar, the words of the config are ours, and the environment takes nothing from the service. The client trusts the
broker by the keys that ``connect`` carries and no others, offers this session's key and no others, and hands neither an
agent nor a variable on. ssh then reads no other config: ``-F`` leaves out the user's and the system's.

A certificate lives five minutes and a command may open connections for longer: :class:`SshClient` replaces the file
when ``run`` asks it to; ssh reads it at each connection. What it does not do: ask for certificates (``sessions``), or
run anything (``child``). Source: ssh_config(5), ssh(1) ``-F``, scp(1), sftp(1); sshd(8), section "SSH_KNOWN_HOSTS FILE
FORMAT"; draft-miller-ssh-cert section 2 (certificate key types).
"""

from __future__ import annotations

import base64
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chalicelib.domain.identifiers import SESSION_ID
from countersign.environment import HOST, untrusted, write_private
from countersign.failures import Exit, Failure
from countersign.sessions import Certificate, Connect

PROGRAMS: Final = ("ssh", "scp", "sftp")
_ALIAS: Final = "countersign-broker"  # the name under which the broker's keys are looked up: no host of anybody's
_TARGET: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")  # as the registry's schema has it
# No space, quote, `%`, `$`, `~`, `#` or backslash: ssh expands or splits at each of these.
_FOLDER: Final = re.compile(r"/[A-Za-z0-9/._@+-]{1,500}\Z")
_PROGRAM: Final = re.compile(r"/[^\0\n]{1,4095}\Z")
_HOST_KEY: Final = re.compile(
    r"\S+ (?P<type>ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa) "
    r"(?P<blob>[A-Za-z0-9+/]{16,4096}={0,2})\Z"
)
_OTHER_LOGIN: Final = (
    "countersign: the session has its own login at {target}: write {target} without one; exec --principal names another"
)
_MOST_HOST_KEYS: Final = 8  # one of each type, and as many that come next
_CERTIFICATE: Final = re.compile(
    r"(?P<type>ssh-ed25519-cert-v01@openssh\.com) (?P<blob>[A-Za-z0-9+/]{64,8192}={0,2})(?: [\x21-\x7e]{1,128})?\n?\Z"
)


class SshClient:
    """The files of one session, in a folder of ours (0700). Make one with :func:`ssh_client`."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

        if not _FOLDER.match(str(folder)):
            raise Failure(
                Exit.USAGE,
                "the folder for temporary files has characters that an ssh config cannot hold",
                hint="Set TMPDIR to another folder.",
            )
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        self.public_key = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode("ascii")
        self._blob = base64.b64decode(self.public_key.split(" ")[1])
        self._folder = folder
        write_private(folder / "key", private)

    def set_up(self, connect: Connect, target: str, certificate: Certificate, path: str) -> None:
        """Write config, known hosts, certificate and the programs, found on ``path``. Raises Failure where a value of
        the service does not have its grammar, or a program here could not be run."""
        known_hosts = checked_known_hosts(connect.known_hosts)
        config = ssh_config(connect, target, str(self._folder))
        self.renew(certificate)
        write_private(self._folder / "known_hosts", known_hosts.encode("ascii"))
        write_private(self._folder / "config", config.encode("ascii"))
        programs = self._folder / "bin"
        programs.mkdir(mode=0o700)
        for name in PROGRAMS:
            real = shutil.which(name, path=path)
            if real is None:
                continue
            write_private(programs / name, wrapper(os.path.abspath(real), str(self._folder / "config")).encode())
            (programs / name).chmod(0o700)
            if not os.access(programs / name, os.X_OK):
                raise Failure(
                    Exit.USAGE,
                    "programs cannot be run from the folder for temporary files",
                    hint="It is mounted noexec: set TMPDIR to another folder.",
                )

    def renew(self, certificate: Certificate) -> None:
        """Put ``certificate`` in the place of the one before, at once whole: ssh may read it now. Raises Failure."""
        fresh = self._folder / "key-cert.pub.new"
        write_private(fresh, checked_certificate(certificate.line, self._blob).encode("ascii"))
        os.replace(fresh, self._folder / "key-cert.pub")

    def variables(self, path: str) -> Mapping[str, str]:
        """Return what the command gets: a PATH that begins with our programs. Pure."""
        return {"PATH": f"{self._folder / 'bin'}{os.pathsep}{path}"}


@contextmanager
def ssh_client() -> Iterator[SshClient]:
    """Give a client with a new key in a folder of its own; all of it is gone after."""
    with tempfile.TemporaryDirectory(prefix="countersign-") as folder:
        yield SshClient(Path(folder))


def ssh_config(connect: Connect, target: str, folder: str) -> str:
    """Return the config by which ssh reaches ``target`` through the broker, its files in ``folder``. Raises Failure
    where a value does not have its grammar. Pure."""
    if not _TARGET.match(target) or not _FOLDER.match(folder):
        raise Failure(Exit.USAGE, "the target's name is none that an ssh config can hold")
    if not HOST.match(connect.host):
        raise untrusted("the host that the service sent is none")
    if not 1 <= connect.port <= 65535:
        raise untrusted("the port that the service sent is none")
    if not SESSION_ID.match(connect.user):
        raise untrusted("the login that the service sent is none of a session")
    if connect.env:
        raise untrusted("the service sent an environment for ssh, which needs none")
    options = {
        "HostName": connect.host,
        "Port": str(connect.port),
        # Who we are: this session's key alone, whatever an agent or the user's folder holds.
        "IdentityFile": f"{folder}/key",
        "CertificateFile": f"{folder}/key-cert.pub",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "AddKeysToAgent": "no",
        "PreferredAuthentications": "publickey",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "GSSAPIAuthentication": "no",
        "HostbasedAuthentication": "no",
        # Whom we trust: the keys that came with the session, under a name of ours.
        "HostKeyAlias": _ALIAS,
        "UserKnownHostsFile": f"{folder}/known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "VerifyHostKeyDNS": "no",
        "CheckHostIP": "no",
        # What goes along: nothing but the session itself.
        "ForwardAgent": "no",
        "ForwardX11": "no",
        "Tunnel": "no",
        "PermitLocalCommand": "no",
        "ProxyCommand": "none",
        "ControlMaster": "no",
        "ControlPath": "none",
        "CanonicalizeHostname": "no",
        # A held command may be silent for minutes: a balancer on the way must not take that for an end.
        "ServerAliveInterval": "30",
    }
    # The login is the session's, which `User` says first. Whoever writes another before the name (deploy@db-prod, -l)
    # would be told "Permission denied" and no more: a word of ours takes the connection's place.
    other = {
        "ProxyCommand": f"/bin/sh -c 'echo \"{_OTHER_LOGIN.format(target=target)}\" >&2; exit 1'",
        "LogLevel": "QUIET",
    }
    return (
        _block(f"Host {target}", {"User": connect.user})
        + _block(f'Match originalhost {target} user "!{connect.user},*"', other)
        + _block(f"Host {target}", options)
    )


def _block(head: str, options: Mapping[str, str]) -> str:
    return f"{head}\n" + "".join(f"    {name} {value}\n" for name, value in options.items())


def checked_known_hosts(told: str) -> str:
    """Return the broker's host keys as a known_hosts file under our own name for it. Raises Failure. Pure."""
    lines = told.removesuffix("\n").split("\n")
    if len(lines) > _MOST_HOST_KEYS:
        raise untrusted("the service sent more host keys than a broker has")
    keys: list[str] = []
    for line in lines:
        found = _HOST_KEY.match(line)
        if found is None or not _is_of_type(found["blob"], found["type"]):
            raise untrusted("what the service sent as the broker's host keys is no list of them")
        keys.append(f"{_ALIAS} {found['type']} {found['blob']}\n")
    return "".join(keys)


def checked_certificate(line: str, public_key: bytes) -> str:
    """Return ``line`` as a certificate file's text: one certificate over ``public_key`` (its SSH wire form), and no
    comment. Whether it is good is the broker's to say. Raises Failure. Pure."""
    found = _CERTIFICATE.match(line)
    if found is None or not _is_of_type(found["blob"], found["type"]):
        raise untrusted("what the service sent as a certificate is none")
    blob = base64.b64decode(found["blob"])
    # ssh-ed25519-cert: type, nonce, then the key; the plain key is its type and the same bytes.
    nonce_at = 4 + len(found["type"])
    key_at = nonce_at + 4 + int.from_bytes(blob[nonce_at : nonce_at + 4], "big")
    wanted = public_key[4 + int.from_bytes(public_key[:4], "big") :]
    if blob[key_at : key_at + len(wanted)] != wanted:
        raise untrusted("the certificate that the service sent is for another key")
    return f"{found['type']} {found['blob']}\n"


def wrapper(program: str, config: str) -> str:
    """Return the text of a program that runs ``program`` with our config before its own arguments. Pure."""
    if not _PROGRAM.match(program):
        raise Failure(Exit.USAGE, "the path of ssh has characters that a program of ours cannot hold")
    return f'#!/bin/sh\nexec {shlex.quote(program)} -F {shlex.quote(config)} "$@"\n'


def _is_of_type(blob: str, kind: str) -> bool:
    """Return whether the base64 ``blob`` is in the SSH wire form of a key of ``kind`` (RFC 4253 section 6.6)."""
    try:
        data = base64.b64decode(blob, validate=True)
    except ValueError:
        return False
    return data[: 4 + len(kind)] == len(kind).to_bytes(4, "big") + kind.encode("ascii")
