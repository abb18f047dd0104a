"""`countersign exec` around the real ssh, through the real broker to a real sshd."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from countersign.__main__ import main
from countersign.settings import SystemClock
from dev.ssh_server import SshServer
from tests.e2e.ssh_broker import SshBroker, running_ssh_broker, running_sshd
from tests.fakes.api_server import ID_TOKEN, ApiServer, ssh_connection
from tests.fakes.flow import LOGIN
from tests.fakes.signer import MemoryKeys

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("ssh-clients")]


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with running_sshd() as running:
        yield running


@pytest.fixture
def broker(server: SshServer) -> Iterator[SshBroker]:
    with running_ssh_broker(server) as running:
        yield running


@pytest.fixture
def api(broker: SshBroker) -> Iterator[ApiServer]:
    with ApiServer() as served:
        known = f"[127.0.0.1]:{broker.port} {broker.host_key}\n"
        served.connect = ssh_connection(port=broker.port, known_hosts=known, user=LOGIN)
        served.sign = broker.certificate
        yield served


def run(api: ApiServer, broker: SshBroker, *command: str) -> tuple[int, str]:
    ours = {"COUNTERSIGN_API": api.url, "COUNTERSIGN_ID_TOKEN": ID_TOKEN, "XDG_STATE_HOME": api.state.name}
    told = broker.environment()
    path = f"{broker.binaries.ssh.parent}:{told['PATH']}"
    err = io.StringIO()
    environment = {**told, **ours, "PATH": path}
    code = main(("exec", "db-prod", "--", *command), environment, out=io.StringIO(), err=err, clock=SystemClock())
    return code, err.getvalue()


def test_the_real_ssh_under_the_targets_name(
    api: ApiServer, broker: SshBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    """`countersign exec db-prod -- ssh db-prod ...`: no option, no key and no host of the user's, and the exit code."""
    code, err = run(api, broker, "ssh", "db-prod", "echo out; exit 7")
    assert (code, capfd.readouterr().out) == (7, "out\n"), err
    assert broker.connection.bound, "by the certificate on the session's own key"
    assert api.closed


def test_what_calls_ssh_by_its_name_reaches_it_too(
    api: ApiServer, broker: SshBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    """git, rsync and scripts find the ssh on PATH."""
    assert run(api, broker, "/bin/sh", "-c", "ssh db-prod 'echo one' && ssh db-prod 'echo two'")[0] == 0
    assert capfd.readouterr().out == "one\ntwo\n"


@pytest.mark.parametrize("words", [("deploy@db-prod",), ("-l", "deploy", "db-prod")])
def test_another_login_than_the_sessions_is_told_in_words(
    api: ApiServer, broker: SshBroker, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    """People write deploy@db-prod: "Permission denied" says nothing of what to write instead."""
    code, _ = run(api, broker, "ssh", *words, "uptime")
    (said,) = capfd.readouterr().err.splitlines()
    assert (code, said.startswith("countersign: the session has its own login at db-prod: write db-prod")) == (
        255,
        True,
    )


def test_a_broker_with_another_key_is_not_talked_to(
    api: ApiServer, broker: SshBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    """Attack: somebody between the pipeline and the broker answers with a key of theirs."""
    api.connect = ssh_connection(port=broker.port, user=LOGIN)
    assert run(api, broker, "ssh", "db-prod", "echo out")[0] == 255
    told = capfd.readouterr()
    assert told.out == ""
    assert "ost key verification failed" in told.err


def test_a_certificate_of_another_authority_opens_nothing(
    api: ApiServer, broker: SshBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    """Attack: a false API signs certificates of its own; and no password is ever asked for in their place."""
    forged = MemoryKeys()
    api.sign = lambda public_key: broker.certificate(public_key, keys=forged)
    assert run(api, broker, "ssh", "db-prod", "echo out")[0] == 255
    assert capfd.readouterr().out == ""
