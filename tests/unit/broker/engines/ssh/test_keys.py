"""Keys: ours, and those that a target may show."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from broker.engines.ssh.keys import make_key, pinned, read_host_key, stored_key
from chalicelib.domain.errors import ConfigurationInvalid, TargetUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.target import Target
from chalicelib.identity.ssh_certificates import CertificateWanted, sign_certificate
from tests.e2e.ssh_broker import ssh_target
from tests.fakes.clock import FakeClock
from tests.fakes.signer import MemoryKeys

NOW = FakeClock().now()


def certificate(public_key: str) -> str:
    wanted = CertificateWanted(
        public_key=public_key,
        key_id="txn:1",
        serial=1,
        principals=("deploy",),
        valid_after=NOW,
        valid_before=NOW + timedelta(minutes=2),
    )
    return sign_certificate(MemoryKeys().signer("ssh-target"), wanted)


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, *, passphrase: bytes = b"") -> str:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption).decode()


def with_keys(*lines: str) -> Target:
    return replace(ssh_target(22, ""), host_keys=lines)


def test_the_key_of_a_connection_is_its_own() -> None:
    """A key that two connections share would let a certificate of one open the other."""
    assert make_key().public != make_key().public


def test_a_minted_certificate_is_presented_with_its_key() -> None:
    """What sshd is shown is the certificate, signed with the key that it is for."""
    own = make_key()
    line = certificate(own.public)
    key = own.certified(line)
    assert key.public_blob is not None
    assert line.split(" ")[1] == base64.b64encode(key.public_blob.key_blob).decode()


@pytest.mark.parametrize("line", ["", "x", "ssh-ed25519-cert-v01@openssh.com AAAA", "ssh-ed25519 !!!!"])
def test_a_credential_that_is_no_certificate_is_refused(line: str) -> None:
    """Whatever the function answered, the client reads that the target is not available."""
    with pytest.raises(TargetUnavailable):
        make_key().certified(line)


def test_a_certificate_of_another_key_is_refused() -> None:
    """It could not log in; and it would say that two connections were mixed up."""
    with pytest.raises(TargetUnavailable):
        make_key().certified(certificate(make_key().public))


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), paramiko.ECDSAKey),
        (lambda: rsa.generate_private_key(65537, 3072), paramiko.RSAKey),
    ],
)
def test_a_stored_key_of_any_kind_logs_in(made: object, kind: type[paramiko.PKey]) -> None:
    """The secret store holds what the target's owners have."""
    key = stored_key(Secret(pem(made())))  # type: ignore[operator]
    assert isinstance(key, kind)
    assert key.can_sign()


def test_a_stored_key_that_is_none_says_nothing_of_itself() -> None:
    """The secret must not come out in an error."""
    for text in ("hunter2", pem(ec.generate_private_key(ec.SECP256R1()), passphrase=b"x")):
        with pytest.raises(TargetUnavailable) as refused:
            stored_key(Secret(text))
        assert text not in str(refused.value) + str(refused.value.detail)


def test_a_host_key_is_read_from_its_file_or_named(tmp_path: Path) -> None:
    """An operator with a wrong path reads which."""
    path = tmp_path / "host"
    path.write_text(pem(ec.generate_private_key(ec.SECP256R1())))
    assert read_host_key(path).can_sign()
    path.write_text("no key")
    for wrong in (path, tmp_path / "absent"):
        with pytest.raises(ConfigurationInvalid, match=wrong.name):
            read_host_key(wrong)


def test_a_host_key_is_given_as_text_and_is_not_told_where_it_is_none() -> None:
    """A task gets it from a secret store: it must not come out in an error."""
    text = pem(ec.generate_private_key(ec.SECP256R1()))
    assert read_host_key(Secret(text)).can_sign()
    with pytest.raises(ConfigurationInvalid, match="COUNTERSIGN_SSH_HOST_KEY_PEM") as refused:
        read_host_key(Secret("hunter2"))
    assert "hunter2" not in str(refused.value)


def test_only_a_listed_host_key_is_accepted() -> None:
    """No trust on first use: whoever answers at the address could be anybody."""
    listed, other = make_key(), make_key()
    pins = pinned(with_keys(f"{listed.public} comment"))
    assert pins.accepts(listed.private)
    assert not pins.accepts(other.private)
    assert pins.algorithms == ("ssh-ed25519",)


def test_an_rsa_host_key_is_asked_for_with_sha_2() -> None:
    """Its type is called ssh-rsa, and so is the signature with SHA-1."""
    key = paramiko.RSAKey.from_private_key(io.StringIO(pem(rsa.generate_private_key(65537, 3072))))
    pins = pinned(with_keys(f"ssh-rsa {key.get_base64()}"))
    assert pins.algorithms == ("rsa-sha2-512", "rsa-sha2-256")
    assert pins.accepts(key)


@pytest.mark.parametrize(
    "lines", [(), ("@cert-authority ssh-ed25519 AAAA",), ("ssh-dss AAAA",), ("ssh-ed25519",), ("ssh-ed25519 !",)]
)
def test_a_target_that_cannot_be_verified_is_not_dialled(lines: tuple[str, ...]) -> None:
    """An authority alone is not verified yet; anything else is no key."""
    with pytest.raises(TargetUnavailable, match="cannot be verified"):
        pinned(with_keys(*lines))


def test_a_key_beside_an_authority_is_enough() -> None:
    """The operator may list both before host certificates are verified."""
    assert pinned(with_keys("@cert-authority ssh-ed25519 AAAA", make_key().public)).keys
