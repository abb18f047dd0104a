"""The throw-away sshd: real, with planted secrets, its log and its command list the witnesses, gone afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.processes import listening
from dev.settings import child_environment, server_account
from dev.ssh_binaries import find_ssh
from dev.ssh_keys import make_key
from dev.ssh_server import LOGIN, PLANTED_FILE, SshServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    made = SshServer(find_ssh(), log=tmp_path_factory.mktemp("ssh") / "log", account=server_account())
    made.wait()
    yield made
    made.stop()


def ssh(server: SshServer, identity: Path, *command: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Log in with one key as the real client does, trusting the server's own host key alone."""
    known = identity.with_name("known_hosts")
    known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    own = {
        "IdentityFile": identity,
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": known,
    }
    set_ = [part for name, value in own.items() for part in ("-o", f"{name}={value}")]
    done = subprocess.run(
        [
            str(server.binaries.ssh),
            "-F",
            "none",
            *set_,
            *options,
            "-p",
            str(server.port),
            f"{LOGIN}@127.0.0.1",
            *command,
        ],
        env=child_environment(server.binaries.client_environment()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def admin(server: SshServer, tmp_path: Path) -> Path:
    """The administrator's key, copied: the client wants known hosts beside it."""
    path = tmp_path / "admin"
    path.touch(mode=0o600)
    path.write_text(server.admin_identity.read_text())
    return path


def certified(folder: Path, authority: Path, *, principal: str = LOGIN, key_id: str = "txn:test") -> Path:
    """Make a key and have the authority certify it, as ssh-keygen does it."""
    pair = make_key()
    key = folder / f"key-{principal}"
    key.touch(mode=0o600)
    key.write_text(pair.private)
    key.with_name(f"{key.name}.pub").write_text(f"{pair.public}\n")
    keygen = [str(find_ssh().keygen), "-q", "-s", str(authority), "-I", key_id, "-n", principal, "-V", "-1m:+5m"]
    subprocess.run(
        [*keygen, f"{key}.pub"], check=True, timeout=30, env=child_environment(find_ssh().client_environment())
    )
    return key


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    pair = make_key()
    path = tmp_path / "authority"
    path.touch(mode=0o600)
    path.write_text(pair.private)
    path.with_name("authority.pub").write_text(pair.public)
    return path


def test_the_home_holds_the_planted_values_and_nothing_of_them_is_in_the_log(server: SshServer, admin: Path) -> None:
    """Masking is tested with these values: each must really be there to be found."""
    code, out, _ = ssh(server, admin, "cat", PLANTED_FILE)
    assert code == 0
    assert len(server.planted) == len(set(server.planted)) >= 5
    assert all(value in out for value in server.planted)
    assert not any(value in server.log.read_text() for value in server.planted)


def test_each_command_line_is_written_down_as_the_shell_got_it(server: SshServer, admin: Path) -> None:
    """`did it run?` is answered by the machine; sshd's own log does not name commands."""
    before = len(server.ran())
    assert ssh(server, admin, "echo 'a  b' | tr a-z A-Z")[1] == "A  B\n"
    assert server.ran()[before:] == ["echo 'a  b' | tr a-z A-Z"]


def test_it_runs_without_rights(server: SshServer, admin: Path) -> None:
    """Root's checkout must not make a root shell of every test."""
    account = server_account()
    assert int(ssh(server, admin, "id", "-u")[1]) == (account.uid if account else os.geteuid())


def test_a_certificate_of_the_trusted_authority_logs_in_and_its_id_is_in_the_log(
    server: SshServer, authority: Path, tmp_path: Path
) -> None:
    """P2 on a target: the key id is what carries the chain into sshd's own log."""
    key = certified(tmp_path, authority, key_id="txn:01abc ses:ses_1")
    assert ssh(server, key, "true")[0] == 255
    server.trust(authority.with_name("authority.pub").read_text())
    assert ssh(server, key, "true")[0] == 0
    assert "ID txn:01abc ses:ses_1" in server.log.read_text()


def test_a_certificate_for_another_login_or_of_another_authority_is_refused(
    server: SshServer, authority: Path, tmp_path: Path
) -> None:
    """Else no test of ours could show that going around fails."""
    server.trust(authority.with_name("authority.pub").read_text())
    assert ssh(server, certified(tmp_path, authority, principal="ses_1"), "true")[0] == 255
    other = tmp_path / "other"
    other.touch(mode=0o600)
    other.write_text(make_key().private)
    assert ssh(server, certified(tmp_path, other), "true")[0] == 255


def test_a_password_can_be_tried_and_never_fits(server: SshServer, tmp_path: Path) -> None:
    """The demo's thief tries them all; `not offered` would prove nothing."""
    ask = tmp_path / "ask"
    ask.write_text("#!/bin/sh\necho x\n")
    ask.chmod(0o700)
    options = ("-o", "PreferredAuthentications=password", "-o", "BatchMode=no", "-o", "NumberOfPasswordPrompts=1")
    environment = {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
    none = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "PubkeyAuthentication=no")
    done = subprocess.run(
        [str(server.binaries.ssh), "-F", "none", *options, *none, "-p", str(server.port), f"{LOGIN}@127.0.0.1", "true"],
        env=child_environment({**server.binaries.client_environment(), **environment}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 255
    assert f"Failed password for {LOGIN}" in server.log.read_text()


def test_stopping_ends_what_a_session_left_running(tmp_path: Path) -> None:
    """sshd gives sessions a process group of their own: a `nohup` would outlive the stack."""
    made = SshServer(find_ssh(), log=tmp_path / "log", account=server_account())
    made.wait()
    key = tmp_path / "admin"
    key.touch(mode=0o600)
    key.write_text(made.admin_identity.read_text())
    code, out, _ = ssh(made, key, "nohup sleep 300 >/dev/null 2>&1 & echo $!")
    assert code == 0
    made.stop()
    made.stop()
    assert (
        not Path(f"/proc/{int(out)}/cmdline").exists() or b"sleep" not in Path(f"/proc/{int(out)}/cmdline").read_bytes()
    )
    assert not made.folder.exists()
    assert not listening(made.port)
