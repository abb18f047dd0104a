"""Keys: our host key, the key that the broker makes for one connection, and the host keys that a target may show.

Rules: a private key is in memory only, made or loaded for its one use; a host key is accepted because the registry
lists it and for no other reason (no trust on first use). An authority for host certificates (``@cert-authority``) is
refused in words until host certificates are verified: to skip it silently would leave a target that cannot be reached.

Source: RFC 4253 section 6.6; OpenSSH PROTOCOL.certkeys; sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import base64
import binascii
import hmac
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from paramiko.pkey import PublicBlob

from chalicelib.domain.errors import ConfigurationInvalid, TargetUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.target import Target

_AUTHORITY: Final = "@cert-authority"
# A key's type is not its signatures': an RSA key signs with SHA-2 here, whatever its name says (RFC 8332).
_ALGORITHMS: Final = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


def read_host_key(given: Path | Secret) -> paramiko.PKey:
    """Return the broker's own host key from an OpenSSH (or PEM) file, or from its text. Raises ConfigurationInvalid
    naming the file, where there is one."""
    try:
        return _loaded(given.read_text(encoding="ascii") if isinstance(given, Path) else given.expose())
    except (OSError, ValueError, TypeError, paramiko.SSHException) as error:
        which = given if isinstance(given, Path) else "in COUNTERSIGN_SSH_HOST_KEY_PEM"
        raise ConfigurationInvalid(f"the broker's host key {which} cannot be used") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnKey:
    """A key that the broker made for one connection. ``public`` is ``TYPE BASE64``, which ``mint`` certifies."""

    private: paramiko.PKey
    public: str

    def certified(self, certificate: str) -> paramiko.PKey:
        """Return the key with its certificate (one OpenSSH line). Raises TargetUnavailable where that is another
        key's."""
        try:
            blob = PublicBlob.from_string(certificate)
            holds = paramiko.Ed25519Key(data=blob.key_blob)
        except (ValueError, IndexError, paramiko.SSHException, binascii.Error) as error:
            raise TargetUnavailable("the target's credential cannot be used", why="certificate") from error
        if f"{holds.get_name()} {holds.get_base64()}" != self.public:
            raise TargetUnavailable("the target's credential cannot be used", why="certificate of another key")
        self.private.public_blob = blob
        return self.private


def make_key() -> OwnKey:
    """Make one: Ed25519, whose signatures need no randomness that could fail."""
    made = ed25519.Ed25519PrivateKey.generate()
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    private = paramiko.Ed25519Key(file_obj=io.StringIO(pem.decode()))
    return OwnKey(private=private, public=f"{private.get_name()} {private.get_base64()}")


def stored_key(secret: Secret) -> paramiko.PKey:
    """Return the private key that the secret store holds. Raises TargetUnavailable."""
    try:
        return _loaded(secret.expose())
    except (ValueError, TypeError, paramiko.SSHException) as error:
        raise TargetUnavailable("the target's credential cannot be used", why=type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class Pinned:
    """The host keys of one target, as (type, blob)."""

    keys: tuple[tuple[str, bytes], ...]

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What to ask the target for, so that of its keys it shows one that is listed."""
        return tuple(dict.fromkeys(name for kind, _ in self.keys for name in _ALGORITHMS[kind]))

    def accepts(self, key: paramiko.PKey) -> bool:
        shown = key.asbytes()
        return any(hmac.compare_digest(shown, blob) for _, blob in self.keys)


def pinned(target: Target) -> Pinned:
    """Return the host keys that ``target`` may show. Raises TargetUnavailable where there is none to verify it with;
    authorities beside keys are left out."""
    lines = [line.split() for line in target.host_keys]
    plain = [words for words in lines if words and words[0] != _AUTHORITY]
    if not plain:
        why = "an authority for host certificates alone, which is not supported yet" if lines else "no host key"
        raise TargetUnavailable(
            "the target's host keys cannot be verified",
            hint="List the target's own host key in targets.yaml, as `ssh-keyscan` shows it.",
            target=target.name,
            why=why,
        )
    return Pinned(tuple(_parsed(words, target) for words in plain))


def _parsed(words: list[str], target: Target) -> tuple[str, bytes]:
    try:
        kind, text = words[0], words[1]
        _ALGORITHMS[kind]
        return kind, base64.b64decode(text, validate=True)
    except (ValueError, LookupError) as error:
        raise TargetUnavailable(
            "the target's host keys cannot be verified", target=target.name, why="host_keys"
        ) from error


def _loaded(text: str) -> paramiko.PKey:
    """Return the private key in ``text``. Raises ValueError, TypeError (it has a passphrase), SSHException."""
    raw = text.encode("ascii")
    load = serialization.load_ssh_private_key if "OPENSSH" in text else serialization.load_pem_private_key
    private = load(raw, None)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()
    match private:
        case ed25519.Ed25519PrivateKey():
            return paramiko.Ed25519Key(file_obj=io.StringIO(pem))
        case ec.EllipticCurvePrivateKey():
            return paramiko.ECDSAKey.from_private_key(io.StringIO(pem))
        case rsa.RSAPrivateKey():
            return paramiko.RSAKey.from_private_key(io.StringIO(pem))
        case _:
            raise ValueError("a key of another kind")
