"""`countersign exec` against a real HTTP server and real child processes."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import signal
import stat
import subprocess
import sys
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from countersign.__main__ import main
from tests.fakes.api_server import ACCESS_TOKEN, CA_PEM, ID_TOKEN, SECRET, SESSION, ApiServer, connection
from tests.fakes.waiting_clock import WaitingClock

PYTHON = sys.executable


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def settings(api: ApiServer) -> dict[str, str]:
    return {
        "COUNTERSIGN_API": api.url,
        "COUNTERSIGN_ID_TOKEN": ID_TOKEN,
        "XDG_STATE_HOME": api.state.name,
        "PATH": os.defpath,
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(
    api: ApiServer, *arguments: str, clock: WaitingClock | None = None, more: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(arguments, settings(api) | dict(more or {}), out=out, err=err, clock=clock or WaitingClock())
    return code, out.getvalue(), err.getvalue()


def child(code: str) -> tuple[str, ...]:
    return ("--", PYTHON, "-c", code)


def test_the_command_gets_what_its_client_needs(api: ApiServer, tmp_path: Path) -> None:
    """A psql in a pipeline connects with its environment alone: address, login, secret, what verifies the peer."""
    seen = tmp_path / "seen.json"
    dump = (
        "import json, os, sys; ca = os.environ['PGSSLROOTCERT']; "
        "json.dump({**os.environ, 'ca': open(ca).read(), 'mode': os.stat(ca).st_mode, "
        "'folder': os.stat(os.path.dirname(ca)).st_mode}, open(sys.argv[1], 'w'))"
    )
    code, _, _ = run(api, "exec", "orders-prod", "--reason", "migration 42", *child(dump), str(seen))
    assert code == 0
    told = json.loads(seen.read_text())
    assert (told["PGHOST"], told["PGPORT"], told["PGUSER"]) == ("127.0.0.1", "6432", SESSION)
    assert (told["PGPASSWORD"], told["PGDATABASE"], told["PGSSLMODE"]) == (SECRET, "orders", "verify-full")
    assert told["ca"] == CA_PEM
    assert stat.S_IMODE(told["mode"]) == 0o600
    assert stat.S_IMODE(told["folder"]) == 0o700
    assert not Path(told["PGSSLROOTCERT"]).parent.exists(), "the authority's file outlived the command"
    (asked,) = api.calls("POST /v1/sessions")
    assert json.loads(asked.body) == {"target": "orders-prod", "reason": "migration 42"}
    assert asked.headers["Idempotency-Key"].startswith("cli-")


@pytest.mark.parametrize("code", [0, 1, 3, 77, 125])
def test_the_exit_code_is_the_commands_own(api: ApiServer, code: int) -> None:
    """A pipeline must fail exactly when its command fails."""
    assert run(api, "exec", "orders-prod", *child(f"raise SystemExit({code})"))[0] == code


def test_a_command_ended_by_a_signal_says_so(api: ApiServer) -> None:
    """128 + the signal, as a shell would say: a killed migration is not a finished one."""
    assert run(api, "exec", "orders-prod", *child("import os; os.kill(os.getpid(), 9)"))[0] == 137


def test_the_session_ends_with_the_command(api: ApiServer) -> None:
    """A session that nobody uses is only there to be stolen."""
    run(api, "exec", "orders-prod", *child("pass"))
    assert api.closed


def test_what_it_starts_cannot_speak_as_the_job(api: ApiServer, tmp_path: Path) -> None:
    """Attack: any process of the job fetches the job's token again and leaves its own hop behind."""
    seen = tmp_path / "seen.json"
    more = {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x", "ACTIONS_ID_TOKEN_REQUEST_URL": "https://runner.example"}
    dump = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    run(api, "exec", "orders-prod", *child(dump), str(seen), more=more | {"KEPT": "yes"})
    told = json.loads(seen.read_text())
    assert told["KEPT"] == "yes"
    assert not {"COUNTERSIGN_ID_TOKEN", *more} & set(told)
    assert ID_TOKEN not in seen.read_text()
    assert ACCESS_TOKEN not in seen.read_text()


def test_the_jobs_own_client_settings_do_not_win(api: ApiServer, tmp_path: Path) -> None:
    """Attack: PGHOSTADDR, a service file or sslmode=disable of an earlier step leads the secret somewhere else."""
    seen = tmp_path / "seen.json"
    hostile = {"PGHOSTADDR": "203.0.113.9", "PGSSLMODE": "disable", "PGSERVICE": "evil", "PGPASSFILE": "/tmp/x"}
    dump = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    run(api, "exec", "orders-prod", *child(dump), str(seen), more=hostile | {"PGAPPNAME": "migrate"})
    told = json.loads(seen.read_text())
    assert told["PGSSLMODE"] == "verify-full"
    assert told["PGAPPNAME"] == "migrate"
    assert not {"PGHOSTADDR", "PGSERVICE", "PGPASSFILE"} & set(told)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "GIT_SSH_COMMAND", "PATH", "PGHOSTADDR", "PGOPTIONS", "BASH_ENV"])
def test_ld_preload_in_connect_env(api: ApiServer, tmp_path: Path, name: str) -> None:
    """Attack: whoever answers for the API plants a variable that runs code, or leads elsewhere: nothing is started."""
    api.connect = connection(env={name: "/tmp/evil.so"})
    marker = tmp_path / "ran"
    code, _, err = run(api, "exec", "orders-prod", "--", "/usr/bin/touch", str(marker))
    assert code == 69
    assert name in err
    assert not marker.exists()
    assert api.closed, "a session that could not be used stayed open"


@pytest.mark.parametrize(
    "changed",
    [
        {"database": "orders\nLD_PRELOAD=/tmp/evil.so"},
        {"database": "host=203.0.113.9 dbname=x"},
        {"database": "postgresql://203.0.113.9/x"},
        {"host": "/tmp"},
        {"host": "good.example,evil.example"},
        {"host": "-oProxyCommand=x"},
        {"user": f"{SESSION}\n"},
        {"user": "postgres"},
        {"secret": "with space and more than twenty"},
        {"secret": f"{SECRET}\nexport X=1"},
        {"port": 0},
        {"port": 70000},
        {"port": "6432"},
        {"port": True},
        {"env": {"PGSSLMODE": "disable"}},
        {"env": {"PGDATABASE": "a\nb"}},
        {"env": {"PGPORT": 6432}},
        {"env": ["PGHOST"]},
        {"ca_pem": ""},
        {"ca_pem": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"},
        {"ca_pem": CA_PEM * 1000},
        {"protocol": "telnet"},
    ],
)
def test_newline_in_env_value_and_its_kin(api: ApiServer, tmp_path: Path, changed: dict[str, object]) -> None:
    """Attack: a value carries a second variable, a connection string, an option or another authority."""
    api.connect = connection(**changed)
    marker = tmp_path / "ran"
    code, _, _ = run(api, "exec", "orders-prod", "--", "/usr/bin/touch", str(marker))
    assert code == 69
    assert not marker.exists()


def test_the_command_text_of_the_service_is_never_run(api: ApiServer, tmp_path: Path) -> None:
    """Attack: `command` of the answer is a shell line; it is for people to read."""
    marker = tmp_path / "ran"
    api.connect = connection(command=f"touch {marker}")
    assert run(api, "exec", "orders-prod", *child("pass"))[0] == 0
    assert not marker.exists()


def test_denied(api: ApiServer) -> None:
    """77, with the code, the hint and the id to quote: the pipeline's log says what to do next."""
    api.refuse = (403, "policy_denied", "no rule permits this", "Ask the owners of orders-prod.")
    code, out, err = run(api, "exec", "orders-prod", *child("pass"))
    assert (code, out) == (77, "")
    assert "no rule permits this [policy_denied]" in err
    assert "Ask the owners" in err
    assert "req-1" in err


def test_denied_as_json_is_one_object_on_stdout(api: ApiServer) -> None:
    """A program reads one object, whatever happened."""
    api.refuse = (403, "policy_denied", "no", "Ask.")
    code, out, err = run(api, "exec", "orders-prod", "--json", *child("pass"))
    told = json.loads(out)
    assert (code, told["exit"], told["error"]["code"], err) == (77, 77, "policy_denied", "")


def test_json_leaves_stdout_to_the_command(api: ApiServer, capfd: pytest.CaptureFixture[str]) -> None:
    """The command's output is somebody's data: our object goes last on stderr."""
    code, out, err = run(api, "exec", "orders-prod", "--json", *child("print('data')"))
    assert (code, out, capfd.readouterr().out) == (0, "", "data\n")
    assert json.loads(err.splitlines()[-1]) == {"session_id": SESSION, "txn": "01j9z3k4m5n6p7q8r9s0t1v2w4", "exit": 0}


def test_a_missing_command_asks_nobody(api: ApiServer) -> None:
    """An approver must not be woken for a typing error."""
    code, _, err = run(api, "exec", "orders-prod", "--", "no-such-program-here")
    assert (code, api.seen) == (127, [])
    assert "was not found" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("exec", "orders-prod"),
        ("exec", "--", "true"),
        ("exec", "orders-prod", "--session", SESSION, "--", "true"),
        ("exec", "orders-prod", "--duration", "soon", "--", "true"),
        ("exec", "--session", "../../admin", "--", "true"),
        ("exec", "orders-prod", "--idempotency-key", "a b", "--", "true"),
        ("exec", "orders-prod", "--no-such", "--", "true"),
        ("no-such",),
        (),
    ],
)
def test_usage(api: ApiServer, arguments: tuple[str, ...]) -> None:
    """64 for a wrong call, before anything is sent about a session."""
    assert run(api, *arguments)[0] == 64
    assert not api.calls("POST /v1/sessions")


def test_waiting_without_a_terminal_tells_one_line_a_minute(api: ApiServer) -> None:
    """A pipeline's log holds who must approve, a line a minute, and the end; not a line per poll."""
    api.grant_after = 100
    clock = WaitingClock()
    code, _, err = run(api, "exec", "orders-prod", *child("pass"), clock=clock)
    lines = err.splitlines()
    assert code == 0
    assert "waiting for 1 of dba (rule prod-orders; ask the dba on call)" in lines[0]
    assert SESSION in lines[0]
    assert "granted after" in lines[-1]
    minutes = int(clock.monotonic_s() // 60)
    assert minutes >= 1, "the clock of this test must pass a minute"
    assert len(lines) == 2 + minutes


def test_still_pending(api: ApiServer) -> None:
    """75 and the id to resume: a later step goes on where this one stopped, and the request is not withdrawn."""
    api.grant_after = None
    code, _, err = run(api, "exec", "orders-prod", "--wait", "30s", *child("pass"))
    assert code == 75
    assert f"--session {SESSION}" in err
    assert not api.closed


def test_resume(api: ApiServer) -> None:
    """The id of a pending session is all that a later step needs."""
    api.grant_after = 1
    assert run(api, "request", "orders-prod")[0] == 75
    assert run(api, "exec", "--session", SESSION, *child("raise SystemExit(5)"))[0] == 5


def test_refused_by_a_person_while_waiting(api: ApiServer) -> None:
    """A refusal ends the wait at once, as a denial."""
    api.grant_after, api.refuse_later = 2, (403, "approval_denied", "an approver refused", "Talk to them.")
    code, _, err = run(api, "exec", "orders-prod", *child("pass"))
    assert code == 77
    assert "approval_denied" in err


def test_a_wait_longer_than_the_only_token_ends_as_pending(api: ApiServer) -> None:
    """With a token from the environment there is no second one: the request lives on, so it is 75 and not 77."""
    api.grant_after = None
    api.answer(f"GET /v1/sessions/{SESSION}", status=401, body={"code": "token_expired", "message": "expired"})
    code, _, err = run(api, "exec", "orders-prod", *child("pass"))
    assert code == 75
    assert SESSION in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_waiting_closes_the_session(api: ApiServer, number: signal.Signals) -> None:
    """Ctrl-C, or a cancelled job: nobody is left to use what an approver might still grant."""
    api.grant_after = None
    process = subprocess.Popen(
        [PYTHON, "-m", "countersign", "exec", "orders-prod", "--", "true"],
        env=settings(api),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "waiting for" in process.stderr.readline()
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    process.stderr.close()
    assert api.closed


def test_signals_reach_the_command(api: ApiServer) -> None:
    """A cancelled job must let its command clean up: the signal goes through, and its exit code comes back."""
    code = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(9))\nprint('up', flush=True)\nsignal.pause()"
    process = subprocess.Popen(
        [PYTHON, "-m", "countersign", "exec", "orders-prod", *child(code)],
        env=settings(api),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 9
    process.stdout.close()
    assert api.closed


def test_ctrl_c_on_a_terminal_reaches_the_command_once(api: ApiServer) -> None:
    """The terminal itself sends it to every process in the foreground; passed on as well, psql would see it twice, and
    a second one ends what the first one only cancels."""
    code = (
        "import os, signal\nseen = []\nsignal.signal(2, lambda *_: (seen.append(1), os.write(1, b'int\\n')))\n"
        "signal.signal(15, lambda *_: exit(len(seen)))\nprint('up', flush=True)\nwhile True: signal.pause()"
    )
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [PYTHON, "-m", "countersign", "exec", "orders-prod", *child(code)],
        env=settings(api),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
        text=True,
    )
    os.close(theirs)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    for _ in range(2):
        os.write(ours, b"\x03")
        assert process.stdout.readline() == "int\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 2
    process.stdout.close()
    os.close(ours)
