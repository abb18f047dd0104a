"""`countersign request`, `status`, `targets` and `env` against a real HTTP server."""

from __future__ import annotations

import io
import json
import shlex
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from countersign.__main__ import main
from tests.fakes.api_server import CA_PEM, EXPIRES, ID_TOKEN, SECRET, SESSION, TXN, ApiServer
from tests.fakes.waiting_clock import WaitingClock


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def run(api: ApiServer, *arguments: str, **more: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    environment = {
        "COUNTERSIGN_API": api.url,
        "COUNTERSIGN_ID_TOKEN": ID_TOKEN,
        "XDG_STATE_HOME": api.state.name,
        **more,
    }
    code = main(arguments, environment, out=out, err=err, clock=WaitingClock())
    return code, out.getvalue(), err.getvalue()


def test_request_granted(api: ApiServer) -> None:
    """A person sees what they got and where it is; never the secret, which a terminal would keep."""
    code, out, err = run(api, "request", "orders-prod", "--duration", "15m", "--principal", "reader")
    assert code == 0
    assert SESSION in out
    assert TXN in out
    assert SECRET not in out + err
    (asked,) = api.calls("POST /v1/sessions")
    assert json.loads(asked.body)["duration_s"] == 900
    assert json.loads(asked.body)["principal"] == "reader"


def test_request_as_json_is_the_services_answer(api: ApiServer) -> None:
    """A program that asked for JSON gets what curl would get, the secret included."""
    code, out, _ = run(api, "request", "orders-prod", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["session_id"], told["connect"]["secret"], told["expires_at"]) == (SESSION, SECRET, EXPIRES)


def test_request_pending(api: ApiServer) -> None:
    """75 at once, with who must approve and how to go on."""
    api.grant_after = None
    code, out, _ = run(api, "request", "orders-prod")
    assert code == 75
    assert "1 of dba" in out
    assert f"--session {SESSION}" in out
    assert len(api.seen) == 2, "it was not asked to wait"


def test_request_pending_as_json(api: ApiServer) -> None:
    """The id of the ask and of the session, for whoever polls."""
    api.grant_after = None
    told = json.loads(run(api, "request", "orders-prod", "--json")[1])
    assert told["status"] == "pending"
    assert told["session_id"] == SESSION
    assert told["approval"]["id"].startswith("ask_")


def test_request_that_waits(api: ApiServer) -> None:
    """--wait polls until it is granted."""
    api.grant_after = 3
    code, out, _ = run(api, "request", "orders-prod", "--wait", "10m")
    assert (code, "granted" in out) == (0, True)


def test_the_same_idempotency_key_reaches_the_service(api: ApiServer) -> None:
    """A re-run job gets the same session, not a second card."""
    run(api, "request", "orders-prod", "--idempotency-key", "run-4711")
    assert api.calls("POST /v1/sessions")[0].headers["Idempotency-Key"] == "run-4711"


@pytest.mark.parametrize(("grant_after", "code", "word"), [(0, 0, "granted"), (None, 75, "pending")])
def test_status(api: ApiServer, grant_after: int | None, code: int, word: str) -> None:
    """The exit code says it too, so that a script need not read."""
    api.grant_after = grant_after
    ended, out, _ = run(api, "status", SESSION)
    assert (ended, word in out) == (code, True)


def test_status_takes_no_secret(api: ApiServer, tmp_path: Path) -> None:
    """The secret is given out once: looking must not take it from the job that waits for it."""
    api.grant_after = 1
    run(api, "request", "orders-prod")
    assert [run(api, "status", SESSION)[0] for _ in range(2)] == [75, 0], "the second look finds it granted"
    told = json.loads(run(api, "env", "--session", SESSION, "--json", RUNNER_TEMP=str(tmp_path))[1])
    assert told["env"]["PGPASSWORD"] == SECRET


def test_a_secret_that_was_given_out_is_said_so(api: ApiServer) -> None:
    """A second taker learns that somebody was first: a denial with the way on, not a broken client."""
    api.grant_after = 0
    run(api, "request", "orders-prod")
    code, _, err = run(api, "env", "--session", SESSION)
    assert (code, "given out already" in err) == (77, True)
    assert run(api, "exec", "--session", SESSION, "--", "true")[0] == 77
    assert not api.closed, "whoever has the secret works with the session: it is not ours to end"


def test_a_ca_file_that_is_there_is_said_before_anybody_is_asked(api: ApiServer, tmp_path: Path) -> None:
    """Nobody approves a session that then fails on a file."""
    (tmp_path / "ca.pem").touch()
    code, _, err = run(api, "env", "orders-prod", "--ca-file", str(tmp_path / "ca.pem"))
    assert (code, "is there already" in err) == (64, True)
    assert api.calls("POST /v1/sessions") == []


@pytest.mark.parametrize("duration", ["59", "59s", "13h"])
def test_a_duration_that_no_session_has_names_the_option(api: ApiServer, duration: str) -> None:
    """The service would name the field of its own body."""
    code, _, err = run(api, "request", "orders-prod", "--duration", duration)
    assert (code, "--duration is from 60 to 43200 seconds" in err) == (64, True)
    assert api.calls("POST /v1/sessions") == []


def test_targets(api: ApiServer) -> None:
    """A table; what the service says is text of others and is made safe."""
    api.targets = [
        {"name": "orders-prod", "protocol": "postgres", "environment": "prod", "description": "Orders\x1b[2J"},
        {"name": "db", "protocol": "postgres", "environment": "dev", "description": ""},
    ]
    code, out, _ = run(api, "targets")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split() == ["NAME", "PROTOCOL", "ENVIRONMENT", "DESCRIPTION"]
    assert lines[1].index("postgres") == lines[2].index("postgres")
    assert "\x1b" not in out
    assert "Orders<U+001B>[2J" in lines[1]


def test_targets_as_json(api: ApiServer) -> None:
    """ASCII, so that no byte of a description reaches a terminal raw."""
    api.targets = [{"name": "orders-prod", "description": "caf\u00e9\x1b"}]
    out = run(api, "targets", "--json")[1]
    assert json.loads(out) == {"targets": api.targets}
    assert out.isascii()
    assert "\x1b" not in out


def test_env_for_a_shell(api: ApiServer, tmp_path: Path) -> None:
    """`eval "$(countersign env TARGET)"` in a real shell sets what the client needs."""
    code, out, _ = run(api, "env", "orders-prod", RUNNER_TEMP=str(tmp_path))
    shell = subprocess.run(
        ["/bin/sh", "-c", 'eval "$1"; env; cat "$PGSSLROOTCERT"', "sh", out],
        capture_output=True,
        text=True,
        env={},
        check=True,
    )
    assert code == 0
    assert f"PGPASSWORD={SECRET}\n" in shell.stdout
    assert "PGSSLMODE=verify-full\n" in shell.stdout
    assert CA_PEM in shell.stdout
    (folder,) = tmp_path.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "ca.pem").stat().st_mode) == 0o600


def test_env_as_dotenv(api: ApiServer, tmp_path: Path) -> None:
    """Lines that every dotenv reader takes alike: nothing in them needs quotes."""
    ca = tmp_path / "broker.pem"
    out = run(api, "env", "orders-prod", "--format", "dotenv", "--ca-file", str(ca))[1]
    lines = dict(line.split("=", 1) for line in out.splitlines())
    assert lines["PGPASSWORD"] == SECRET
    assert lines["PGSSLROOTCERT"] == str(ca)
    assert all(shlex.quote(value) == value for value in lines.values())
    assert ca.read_text() == CA_PEM


def test_env_for_github(api: ApiServer, tmp_path: Path) -> None:
    """Later steps get the variables through the runner's file, and the secret is masked in the log first."""
    github_env = tmp_path / "github.env"
    github_env.write_text("EARLIER=1\n")
    more = {"GITHUB_ENV": str(github_env), "RUNNER_TEMP": str(tmp_path)}
    code, out, _ = run(api, "env", "orders-prod", "--format", "github", **more)
    assert (code, out) == (0, f"::add-mask::{SECRET}\n")
    lines = github_env.read_text().splitlines()
    assert lines[0] == "EARLIER=1"
    assert f"PGPASSWORD={SECRET}" in lines


def test_env_follows_no_link_at_the_authoritys_place(api: ApiServer, tmp_path: Path) -> None:
    """Attack: a link planted at the file's place makes us write over what it points at."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "ca.pem").symlink_to(victim)
    code, _, _ = run(api, "env", "orders-prod", "--ca-file", str(tmp_path / "ca.pem"))
    assert (code, victim.read_text()) == (64, "precious")
    assert api.calls("POST /v1/sessions") == []


def test_a_session_whose_authority_cannot_be_written_is_closed(api: ApiServer, tmp_path: Path) -> None:
    """Nobody got what is needed to use it: it is only there to be stolen."""
    code, _, _ = run(api, "env", "orders-prod", "--ca-file", str(tmp_path / "no-such-folder" / "ca.pem"))
    assert (code, api.closed) == (64, True)


def test_hostile_words_of_the_service_are_made_safe(api: ApiServer) -> None:
    """Attack: a message with an escape sequence runs in the terminal of whoever reads the refusal."""
    api.refuse = (403, "policy_denied", "no\x1b]0;pwned\x07\x1b[2J", "do\r\nfake: line")
    _, _, err = run(api, "request", "orders-prod")
    assert not set(err) & set("\x1b\x07\r")
    assert len(err.splitlines()) == 3


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"session_id": "x", "status": "granted"},
        {"session_id": SESSION, "status": "approved"},
        {"session_id": SESSION, "status": "pending"},
        {"session_id": SESSION, "status": "pending", "approval": {}, "poll": "https://evil.example/x"},
    ],
)
def test_an_answer_that_makes_no_sense_grants_nothing(api: ApiServer, body: dict[str, object]) -> None:
    """It fails closed: what is not plainly a grant is none."""
    api.answer("POST /v1/sessions", status=201, body=body)
    assert run(api, "request", "orders-prod", "--wait", "1m")[0] == 69


def test_nobody_said_where_the_service_is() -> None:
    """The first thing that a new user meets: the variable's name."""
    err = io.StringIO()
    assert main(["targets"], {}, out=io.StringIO(), err=err) == 64
    assert "COUNTERSIGN_API" in err.getvalue()


def test_a_review_says_what_it_needs() -> None:
    """It reads the deployment itself: an auditor without its names learns which ones, not a stack trace."""
    err = io.StringIO()
    assert main(["review", SESSION], {}, out=io.StringIO(), err=err) == 64
    assert "COUNTERSIGN_PREFIX" in err.getvalue()


@pytest.mark.parametrize("arguments", [["review"], ["review", SESSION, "--txn", TXN]])
def test_a_review_is_of_one_thing(arguments: list[str]) -> None:
    """Two subjects would make one verdict stand for both."""
    assert main(arguments, {}, out=io.StringIO(), err=io.StringIO()) == 64


def test_an_option_for_all_commands_stands_before_or_after_the_command(api: ApiServer) -> None:
    """People write it in either place; one that is lost without a word would send the call elsewhere."""
    before = run(api, "--json", "--api", api.url, "targets", COUNTERSIGN_API="http://127.0.0.1:1")
    after = run(api, "targets", "--json", "--api", api.url, COUNTERSIGN_API="http://127.0.0.1:1")
    assert (before[0], json.loads(before[1])) == (0, json.loads(after[1]))


def test_a_wrong_call_says_where_the_help_is() -> None:
    """A bare `countersign` is how most people begin."""
    err = io.StringIO()
    assert main([], {}, out=io.StringIO(), err=err) == 64
    assert "`countersign --help`" in err.getvalue()
    assert "\n\n" not in err.getvalue()


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing that a report of a fault asks for."""
    assert main(["--version"], {}) == 0
    assert capsys.readouterr().out.startswith("countersign 0.")


def test_a_wrong_option_of_the_local_stack_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    """One exit code for usage, whichever command it is."""
    assert main(["dev", "--no-such"], {}) == 64
    assert "--no-such" in capsys.readouterr().err
