"""Who is let in, and what a stranger learns."""

from __future__ import annotations

import socket
from typing import Any

import paramiko
import pytest

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.verifier import Verifier
from dev.ssh_keys import make_key
from tests.e2e.postgres_broker import wait_for
from tests.e2e.ssh_broker import Identity, SshBroker
from tests.fakes.flow import LOGIN
from tests.fakes.signer import MemoryKeys
from tests.unit.broker.engines.ssh.running import run

pytestmark = pytest.mark.timeout(60)


def test_a_certificate_lets_in_bound_and_the_secret_does_not_bind(broker: SshBroker, identity: Identity) -> None:
    """A secret may have been copied; only a key proves that the caller is who asked."""
    assert run(broker, "uptime", identity)[0] == 0
    assert broker.connection.bound
    assert run(broker, "uptime")[0] == 0
    assert not broker.connection.bound


@pytest.mark.parametrize(
    "wanted",
    [
        {"before_s": -10},
        {"after_s": 60},
        {"keys": MemoryKeys()},
        {"login": "ses_01k8zq5v9c3f7n2m4p6r8t0wx0"},
        {"login": "root"},
    ],
    ids=["expired", "not yet valid", "foreign authority", "another session", "another login"],
)
def test_a_certificate_that_is_not_this_sessions(broker: SshBroker, wanted: dict[str, Any]) -> None:
    """paramiko proves possession of the key alone: all of these are ours to refuse, in one word."""
    login = wanted.pop("login", LOGIN)
    public = make_key().public
    certificate = broker.certificate(public, login=login, **wanted)
    wrong = broker.identity(certificate=certificate)
    with pytest.raises((paramiko.AuthenticationException, ValueError)), broker.client(wrong):
        pass
    assert broker.flow.connections == []


def test_a_target_certificate_opens_no_session(broker: SshBroker) -> None:
    """Both are ours, and each is for one side: what a target was shown must not open the broker."""
    pair = make_key()
    broker._write("both", pair.private)
    broker._write("both-cert.pub", broker.minted(pair.public).certificate)
    with pytest.raises(paramiko.AuthenticationException), broker.client(Identity(broker.folder / "both")):
        pass
    assert broker.flow.connections == []


def test_a_plain_key_is_refused_and_not_counted(broker: SshBroker, identity: Identity) -> None:
    """Clients offer the plain key before the certificate, and agents offer many."""
    plain = [broker.identity(f"plain{number}", certificate="").key for number in range(10)]
    with broker_transport(broker) as transport:
        for key in plain:
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_publickey(LOGIN, key)
        assert transport.auth_publickey(LOGIN, identity.key) == []


def test_six_wrong_secrets_end_the_transport(broker: SshBroker) -> None:
    """A guesser starts again from a new connection, at the price of a key exchange."""
    with broker_transport(broker) as transport:
        for number in range(6):
            with pytest.raises(paramiko.AuthenticationException):
                transport.auth_password(LOGIN, f"guess {number}", fallback=False)
        wait_for(lambda: not transport.is_active(), 3)  # long before the deadline would have ended it
    assert broker.flow.connections == []


def test_a_stranger_cannot_tell_a_session_that_is_not_there(broker: SshBroker) -> None:
    """One answer for every cause: the same methods, the same count, no word more."""
    told = []
    for login in (LOGIN, "ses_01k8zq5v9c3f7n2m4p6r8t0wx0", "root", "x" * 300, "é"):
        with broker_transport(broker) as transport:
            with pytest.raises(paramiko.AuthenticationException) as refused:
                transport.auth_password(login, "wrong", fallback=False)
            told.append((str(refused.value), transport.get_banner()))
    assert set(told) == {("Authentication failed.", None)}


def test_the_greeting_names_no_version(broker: SshBroker) -> None:
    """What is not said cannot be looked up."""
    with broker_transport(broker) as transport:
        assert transport.remote_version == "SSH-2.0-Countersign"


def test_a_store_that_is_down_is_named_while_the_client_can_see_it(broker: SshBroker) -> None:
    """A pipeline tries again in a minute instead of asking for another secret."""

    def down(login: str) -> Verifier:
        raise StoreUnavailable("the sessions could not be read")

    broker.flow.verifier = down  # type: ignore[method-assign]
    with broker_transport(broker) as transport:
        with pytest.raises(paramiko.AuthenticationException):
            transport.auth_password(LOGIN, "x", fallback=False)
        assert transport.get_banner() == (
            b"countersign: the sessions could not be read (store_unavailable). Try again in a minute."
        )


class broker_transport:  # noqa: N801 a context manager, read as a function
    """A client that has exchanged keys, and has not logged in."""

    def __init__(self, broker: SshBroker) -> None:
        self._transport = paramiko.Transport(socket.create_connection(("127.0.0.1", broker.port), timeout=10))

    def __enter__(self) -> paramiko.Transport:
        self._transport.start_client(timeout=10)
        return self._transport

    def __exit__(self, *_: object) -> None:
        self._transport.close()


def test_nothing_runs_before_authentication(broker: SshBroker) -> None:
    """A channel that is asked for too early is refused."""
    with broker_transport(broker) as transport, pytest.raises(paramiko.SSHException):
        transport.open_session(timeout=5)
    assert broker.flow.connections == []


def test_only_modern_algorithms_are_offered(broker: SshBroker) -> None:
    """No CBC, no SHA-1, no NIST curve in key exchange, no compression: a scanner has nothing to say."""
    kex = kex_init(broker)
    assert {"mlkem768x25519-sha256", "curve25519-sha256", "kex-strict-s-v00@openssh.com"} <= set(kex[0])
    everything = [name for names in kex for name in names]
    prefixes = ("ecdh", "zlib", "diffie-hellman-group1-", "diffie-hellman-group14", "diffie-hellman-group-exchange")
    assert [n for n in everything if "cbc" in n or "sha1" in n or "md5" in n or n.startswith(prefixes)] == []
    assert all("-etm@" in mac for mac in kex[4] + kex[5])


def kex_init(broker: SshBroker) -> list[list[str]]:
    """Return the ten lists of names in the server's KEXINIT."""
    with socket.create_connection(("127.0.0.1", broker.port), timeout=10) as raw, raw.makefile("rb") as got:
        raw.sendall(b"SSH-2.0-test\r\n")
        got.readline()
        size = int.from_bytes(got.read(4), "big")
        message = paramiko.Message(got.read(size)[1:])
        message.get_bytes(17)
        return [message.get_list() for _ in range(10)]
