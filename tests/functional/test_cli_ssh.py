"""`countersign exec` for an ssh target: the real ssh, by a config of ours, against a real HTTP server."""

from __future__ import annotations

import io
import json
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from countersign.__main__ import main
from tests.fakes.api_server import EXPIRES, HOST_KEY, ID_TOKEN, SESSION, ApiServer, ssh_connection
from tests.fakes.waiting_clock import WaitingClock

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh client here")
DUMP = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        server.connect = ssh_connection()
        yield server


def run(api: ApiServer, *arguments: str, more: Mapping[str, str] | None = None) -> tuple[int, str]:
    environment = {
        "COUNTERSIGN_API": api.url,
        "COUNTERSIGN_ID_TOKEN": ID_TOKEN,
        "XDG_STATE_HOME": api.state.name,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    err = io.StringIO()
    code = main(arguments, environment | dict(more or {}), out=io.StringIO(), err=err, clock=WaitingClock())
    return code, err.getvalue()


def test_the_real_ssh_reaches_the_broker_under_the_targets_name(
    api: ApiServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the real ssh makes of our config, in its own words: where it goes, as whom, whom it trusts, and that nothing
    of the user's (agent, keys, variables, shared connections) goes along."""
    assert run(api, "exec", "db-prod", "--", "ssh", "-G", "db-prod")[0] == 0
    lines = [line.partition(" ") for line in capfd.readouterr().out.splitlines()]
    told = {name: value for name, _, value in lines}
    expected = {
        "hostname": "127.0.0.1",
        "port": "2222",
        "user": SESSION,
        "identitiesonly": "yes",
        "identityagent": "none",
        "stricthostkeychecking": "true",
        "hostkeyalias": "countersign-broker",
        "globalknownhostsfile": "/dev/null",
        "passwordauthentication": "no",
        "kbdinteractiveauthentication": "no",
        "forwardagent": "no",
        "forwardx11": "no",
        "controlmaster": "false",
        "updatehostkeys": "false",
        "permitlocalcommand": "no",
    }
    assert {name: told.get(name) for name in expected} == expected
    assert [value for name, _, value in lines if name == "identityfile"] == [
        told["certificatefile"].replace("-cert.pub", "")
    ]
    assert told.get("controlpath", "none") == "none"
    assert not {"proxycommand", "proxyjump", "localcommand", "sendenv"} & set(told)
    assert not Path(told["identityfile"]).exists(), "the key outlived the command"
    assert api.closed


def test_the_files_are_the_callers_alone(api: ApiServer, tmp_path: Path) -> None:
    """A key that another user of the runner could read would be theirs to use for its five minutes."""
    seen = tmp_path / "seen.json"
    look = (
        "import json, os, sys; f = os.path.dirname(os.environ['PATH'].split(':')[0]); "
        "json.dump({p: [os.stat(os.path.join(f, p)).st_mode, open(os.path.join(f, p)).read()] "
        "for p in os.listdir(f) if p != 'bin'} | {'folder': [os.stat(f).st_mode, '']}, open(sys.argv[1], 'w'))"
    )
    assert run(api, "exec", "db-prod", "--", sys.executable, "-c", look, str(seen))[0] == 0
    files = json.loads(seen.read_text())
    assert sorted(files) == ["config", "folder", "key", "key-cert.pub", "known_hosts"]
    assert not [name for name, (mode, _) in files.items() if stat.S_IMODE(mode) & 0o077]
    assert files["known_hosts"][1] == f"countersign-broker ssh-ed25519 {HOST_KEY}\n"
    (asked,) = api.calls(f"POST /v1/sessions/{SESSION}/certificate")
    assert json.loads(asked.body)["ssh_public_key"].startswith("ssh-ed25519 ")


def test_a_jobs_own_ssh_settings_do_not_win(api: ApiServer, tmp_path: Path) -> None:
    """Attack: GIT_SSH_COMMAND or an agent of an earlier step puts another program, or another key, in ssh's place; and
    what speaks as the job is gone as well."""
    seen = tmp_path / "seen.json"
    hostile = {"GIT_SSH_COMMAND": "evil", "GIT_SSH": "evil", "SSH_AUTH_SOCK": "/tmp/agent", "RSYNC_RSH": "evil"}
    own = {"COUNTERSIGN_ACTOR_TOKEN_FILE": "/var/run/token", "COUNTERSIGN_IDENTITY": f"{tmp_path}/identity.json"}
    run(api, "exec", "db-prod", "--", sys.executable, "-c", DUMP, str(seen), more=hostile | own | {"KEPT": "yes"})
    told = json.loads(seen.read_text())
    assert told["KEPT"] == "yes"
    assert not {*hostile, *own, "COUNTERSIGN_ID_TOKEN", "COUNTERSIGN_TICKET"} & set(told)


@pytest.mark.parametrize(
    "changed",
    [
        {"host": "127.0.0.1\n    ProxyCommand touch MARKER"},
        {"host": "x ProxyCommand=touch"},
        {"host": "-oProxyCommand=touch MARKER"},
        {"host": "%h"},
        {"host": "a,b"},
        {"port": 0},
        {"port": 65536},
        {"user": "root"},
        {"user": f"{SESSION}\n"},
        {"user": "-oProxyCommand=touch"},
        {"env": {"LD_PRELOAD": "/tmp/evil.so"}},
        {"env": {"GIT_SSH_COMMAND": "evil"}},
        {"env": {"SSH_ASKPASS": "evil"}},
        {"known_hosts": ""},
        {"known_hosts": f"* ssh-ed25519 {HOST_KEY}\n* ssh-ed25519 AAAA"},
        {"known_hosts": f"@cert-authority * ssh-ed25519 {HOST_KEY}"},
        {"known_hosts": f"x ssh-rsa {HOST_KEY}"},
        {"known_hosts": f"x ssh-ed25519 {HOST_KEY}\n" * 9},
    ],
)
def test_a_newline_into_the_ssh_config(api: ApiServer, tmp_path: Path, changed: dict[str, object]) -> None:
    """Attack: LD_PRELOAD, GIT_SSH_COMMAND or a newline into the ssh config comes from the API: nothing is started, and
    the session is closed."""
    marker = tmp_path / "ran"
    hostile = {k: v.replace("MARKER", str(marker)) if isinstance(v, str) else v for k, v in changed.items()}
    api.connect = ssh_connection(**hostile)
    code, _ = run(api, "exec", "db-prod", "--", "/usr/bin/touch", str(marker))
    assert code == 69
    assert not marker.exists()
    assert api.closed


@pytest.mark.parametrize(
    "certificate",
    [
        "",
        "ssh-ed25519-cert-v01@openssh.com AAAA",
        f"ssh-ed25519 {HOST_KEY}",
        "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t" + "A" * 200 + "\nssh-rsa x",
        "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29t" + "A" * 200,
    ],
)
def test_a_certificate_that_is_none_or_is_for_another_key(api: ApiServer, tmp_path: Path, certificate: str) -> None:
    """Attack: the API's text becomes a file that ssh reads: only one certificate, on this key, is ever written."""
    told = {"certificate": certificate, "expires_at": EXPIRES}
    api.answer(f"POST /v1/sessions/{SESSION}/certificate", status=200, body=told)
    marker = tmp_path / "ran"
    assert run(api, "exec", "db-prod", "--", "/usr/bin/touch", str(marker))[0] == 69
    assert not marker.exists()


def test_a_command_that_outlives_its_certificate_gets_another(api: ApiServer, tmp_path: Path) -> None:
    """A certificate lives five minutes and a deploy longer: the file is replaced while the command runs, so that the
    connection that it opens next finds a good one."""
    api.certificate_ends = ["2026-11-02T09:30:00.000Z", EXPIRES]
    wait = (
        "import os, time; f = os.path.dirname(os.environ['PATH'].split(':')[0]) + '/key-cert.pub'; a = open(f).read()\n"
        "while open(f).read() == a: time.sleep(0.02)"
    )
    assert run(api, "exec", "db-prod", "--", sys.executable, "-c", wait)[0] == 0
    assert api.certificates == 2


def test_a_grant_that_ends_is_not_asked_for_without_end(api: ApiServer) -> None:
    """The last certificate ends with the grant: asking each second for one that ends at the same moment would flood."""
    api.certificate_ends = ["2026-11-02T09:30:00.000Z"] * 9
    assert run(api, "exec", "db-prod", "--", sys.executable, "-c", "import time; time.sleep(2.5)")[0] == 0
    assert api.certificates == 2


def test_a_refused_certificate_later_is_said_and_the_command_goes_on(api: ApiServer) -> None:
    """Open connections are the broker's to end; what cannot begin any more is said once, on stderr."""
    api.certificate_ends = ["2026-11-02T09:30:00.000Z"]
    route = f"POST /v1/sessions/{SESSION}/certificate"
    wait = "import time; time.sleep(1.5); raise SystemExit(3)"
    api.refuse_certificate_after = 1
    code, err = run(api, "exec", "db-prod", "--", sys.executable, "-c", wait)
    assert code == 3
    assert "no new certificate for ssh" in err
    assert len(api.calls(route)) == 2


def test_a_missing_ssh_is_not_wrapped(api: ApiServer, tmp_path: Path) -> None:
    """A program that is not installed is still not found, in a shell's words, and nobody is asked to approve."""
    code, err = run(api, "exec", "db-prod", "--", "ssh", "db-prod", more={"PATH": str(tmp_path)})
    assert (code, api.seen) == (127, [])
    assert "ssh was not found" in err


def test_variables_alone_set_up_no_ssh(api: ApiServer) -> None:
    """`env` has nothing to print for ssh: it says what to use, and closes what it opened."""
    code, err = run(api, "env", "db-prod")
    assert code == 64
    assert "countersign exec" in err
    assert api.closed
