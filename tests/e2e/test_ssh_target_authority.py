"""A real sshd that trusts the ssh-target key: what of all that there is lets anybody in, and what its log says then."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.ssh_certificates import CertificateWanted, authority_line, sign_certificate
from chalicelib.settings import SystemClock
from dev.settings import server_account
from dev.ssh_binaries import find_ssh
from dev.ssh_keys import KeyPair, make_key
from dev.ssh_server import LOGIN, SshServer
from tests.e2e.postgres_broker import wait_for
from tests.fakes.signer import MemoryKeys

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("ssh-target-authority")]

KEYS: Final = MemoryKeys()
KEY_ID: Final = "txn:01k9vq3v5000000000000000aa ses:ses_x con:con_x"
SERIAL: Final = 5400000000000000021


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    log = tmp_path_factory.mktemp("sshd") / "sshd.log"
    started = SshServer(find_ssh(), log=log, account=server_account())
    try:
        started.trust(authority_line(KEYS.signer(KeyPurpose.SSH_TARGET.value).public_jwk))
        started.wait()
        yield started
    finally:
        started.stop()


def certificate(key: KeyPair, *, purpose: KeyPurpose = KeyPurpose.SSH_TARGET, **changed: Any) -> str:
    """Return a certificate as ``mint`` makes one, changed."""
    now = SystemClock().now()
    wanted: dict[str, Any] = {
        "public_key": key.public,
        "key_id": KEY_ID,
        "serial": SERIAL,
        "principals": (LOGIN,),
        "valid_after": now - timedelta(seconds=30),
        "valid_before": now + timedelta(minutes=2),
    }
    return sign_certificate(KEYS.signer(purpose.value), CertificateWanted(**(wanted | changed)))


def login(server: SshServer, folder: Path, key: KeyPair, line: str) -> subprocess.CompletedProcess[str]:
    """Run ``true`` there with real ssh, by ``key`` and the certificate in ``line``, where there is one."""
    identity = folder / "id"
    identity.write_text(key.private)
    identity.chmod(0o600)
    (folder / "id.pub").write_text(key.public)
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    options = ["-F", "none", "-o", f"UserKnownHostsFile={known}", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
    if line:
        (folder / "id-cert.pub").write_text(line)
        options += ["-o", f"CertificateFile={folder / 'id-cert.pub'}"]
    programs = find_ssh()
    return subprocess.run(
        [str(programs.ssh), *options, "-i", str(identity), "-p", str(server.port), f"{LOGIN}@127.0.0.1", "true"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=programs.client_environment(),
    )


def test_sshd_takes_it_and_its_log_names_the_chain(server: SshServer, tmp_path: Path) -> None:
    """The chain is on the target's own log: one id, txn, found in all of them."""
    key = make_key()
    done = login(server, tmp_path, key, certificate(key))
    assert done.returncode == 0, done.stderr
    wait_for(lambda: f"ID {KEY_ID} (serial {SERIAL})" in server.log.read_text())


def _expired() -> dict[str, Any]:
    now = SystemClock().now()
    return {"valid_after": now - timedelta(minutes=5), "valid_before": now - timedelta(seconds=5)}


ATTACKS: Final[dict[str, Callable[[KeyPair], str]]] = {
    "a key without a certificate": lambda _: "",
    "a client's certificate, for the broker": lambda key: certificate(key, purpose=KeyPurpose.SSH_USER),
    "a certificate for a session": lambda key: certificate(key, principals=("ses_x",)),
    "a certificate for root": lambda key: certificate(key, principals=("root",)),
    "a certificate that expired": lambda key: certificate(key, **_expired()),
    "a certificate over another key": lambda _: certificate(make_key()),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_straight_to_sshd_with_what_is_no_credential(attack: str, server: SshServer, tmp_path: Path) -> None:
    """Nobody outside the service holds the target's credential: nothing else opens it, and nothing runs."""
    key = make_key()
    before = len(server.ran())
    done = login(server, tmp_path, key, ATTACKS[attack](key))
    assert done.returncode == 255
    assert "Permission denied" in done.stderr
    assert len(server.ran()) == before
