"""`countersign delegate`, `key`, `agent` and `revoke` against a real HTTP server and real child processes."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from chalicelib.services import delegate as service
from countersign.__main__ import main
from countersign.delegations import HOP_S, TICKET_S
from tests.fakes.api_server import HOP, ID_TOKEN, SESSION, TICKET, TXN, ApiServer
from tests.fakes.waiting_clock import WaitingClock

PYTHON = sys.executable
DUMP = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
THUMBPRINT = "a" * 43
# What no agent may see. The last is nobody's in particular: an allow-list is what keeps it out.
CREDENTIALS = {
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x1",
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://runner.example",
    "ACTIONS_RUNTIME_TOKEN": "x2",
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "x3",
    "AWS_SESSION_TOKEN": "x4",
    "AWS_PROFILE": "prod",
    "GITHUB_TOKEN": "x5",
    "CI_JOB_TOKEN": "x6",
    "SSH_AUTH_SOCK": "/tmp/agent.sock",
    "VAULT_TOKEN": "x7",
    "NPM_TOKEN": "x8",
    "PGPASSWORD": "x9",
    "LD_PRELOAD": "",
    "BASH_ENV": "/tmp/x",
    "HTTPS_PROXY": "http://user:pass@proxy.example",
    "SOMETHING_THAT_NOBODY_KNOWS": "x10",
}


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
        "HOME": "/nowhere",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def run(api: ApiServer, *arguments: str, more: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(arguments, settings(api) | dict(more or {}), out=out, err=err, clock=WaitingClock())
    return code, out.getvalue(), err.getvalue()


def container(api: ApiServer, tmp_path: Path) -> dict[str, str]:
    """Return the environment of a container that has no issuer: a place for its key, and where the service is."""
    return {
        "COUNTERSIGN_API": api.url,
        "COUNTERSIGN_IDENTITY": str(tmp_path / "container.json"),
        "PATH": os.defpath,
        "CI": "true",
    }


def inside(environment: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return main(arguments, environment, out=out, err=err, clock=WaitingClock()), out.getvalue(), err.getvalue()


def forms(api: ApiServer) -> list[dict[str, str]]:
    seen = [parse_qs(call.body.decode()) for call in api.calls("POST /v1/token")]
    return [{name: values[0] for name, values in form.items()} for form in seen]


def test_an_agents_child_sees_no_credential(api: ApiServer, tmp_path: Path) -> None:
    """Attack: any process below the job reads the job's token, the cloud's keys, an ssh agent, or the one secret that
    no list of ours has heard of, and acts as its parent."""
    seen = tmp_path / "seen.json"
    code, _, _ = run(
        api, "agent", "--name", "deploy-svc", "--", PYTHON, "-c", DUMP, str(seen), more=CREDENTIALS | {"TZ": "UTC"}
    )
    told = json.loads(seen.read_text())
    assert code == 0
    assert not set(CREDENTIALS) & set(told)
    assert not {"COUNTERSIGN_ID_TOKEN", "COUNTERSIGN_TICKET", "XDG_STATE_HOME", "COUNTERSIGN_ACTOR_TOKEN_FILE"} & set(
        told
    )
    values = " ".join(told.values())
    assert not [value for value in (ID_TOKEN, TICKET, "x3", "x10") if value in values.split()]
    assert (told["PATH"], told["HOME"], told["TZ"], told["LC_ALL"]) == (os.defpath, "/nowhere", "UTC", "C.UTF-8")
    assert told["COUNTERSIGN_API"] == api.url


def test_an_agent_is_a_hop_of_its_own_with_a_key_of_its_own(api: ApiServer, tmp_path: Path) -> None:
    """What it does is recorded as its own, and its parent's key is not the one that it has; no file of it stays."""
    copy = tmp_path / "copy.json"
    read = "import os, shutil, sys; shutil.copyfile(os.environ['COUNTERSIGN_IDENTITY'], sys.argv[1])"
    scope = "db-prod/deploy#ssh:exec orders-prod"
    code, _, err = run(
        api,
        "agent",
        "--name",
        "deploy-svc",
        "--scope",
        scope,
        "--duration",
        "15m",
        "--max-depth",
        "2",
        "--",
        PYTHON,
        "-c",
        read,
        str(copy),
    )
    told = json.loads(copy.read_text())
    (asked,) = api.calls("POST /v1/delegations")
    body = json.loads(asked.body)
    assert code == 0
    assert (body["name"], body["scope"], body["duration_s"], body["max_depth"]) == ("deploy-svc", scope, 900, 2)
    assert body["redeemer"]["key"] not in api.roots.values()
    assert (told["txn"], told["hop"], told["api"], told["run"]) == (TXN, HOP, api.url, "")
    assert "deploy-svc" in err
    assert [form["subject_token_type"].rpartition(":")[2] for form in forms(api)] == ["id_token", "delegation-ticket"]


def test_nothing_of_an_agent_stays_on_the_disk(api: ApiServer, tmp_path: Path) -> None:
    """The key of a hop that is over is only there to be stolen; whatever way the command ended."""
    seen = tmp_path / "seen.json"
    run(api, "agent", "--name", "a", "--", PYTHON, "-c", f"{DUMP}; os.kill(os.getpid(), 9)", str(seen))
    assert not Path(json.loads(seen.read_text())["COUNTERSIGN_IDENTITY"]).parent.exists()


def test_a_container_without_an_issuer(api: ApiServer, tmp_path: Path) -> None:
    """The founding story's second hop: the container prints its key, the parent names it, the container is that hop."""
    within = container(api, tmp_path)
    code, out, _ = inside(within, "key")
    thumbprint = out.strip()
    assert (code, len(thumbprint)) == (0, 43)
    assert api.seen == [], "a key needs no service"
    code, out, err = run(api, "delegate", "--name", "deploy-svc", "--key", thumbprint, "--scope", "db-prod")
    assert (code, out) == (0, f"{TICKET}\n")
    assert "deploy-svc" in err
    copy = tmp_path / "copy.json"
    read = "import os, shutil, sys; shutil.copyfile(os.environ['COUNTERSIGN_IDENTITY'], sys.argv[1])"
    command = ("agent", "--", PYTHON, "-c", read, str(copy))
    assert inside(within | {"COUNTERSIGN_TICKET": TICKET}, *command)[0] == 0
    assert json.loads(copy.read_text())["hop"] == HOP
    assert "actor_token" not in forms(api)[-1]


def test_a_stolen_ticket_is_of_no_use(api: ApiServer, tmp_path: Path) -> None:
    """Attack: whoever reads the ticket (a log, an environment) redeems it with a key of theirs; and the right one
    still can."""
    within = container(api, tmp_path)
    thumbprint = inside(within, "key")[1].strip()
    run(api, "delegate", "--name", "deploy-svc", "--key", thumbprint)
    thief = within | {"COUNTERSIGN_IDENTITY": str(tmp_path / "thief.json"), "COUNTERSIGN_TICKET": TICKET}
    marker = tmp_path / "ran"
    code, _, err = inside(thief, "agent", "--", "/usr/bin/touch", str(marker))
    assert (code, "ticket_invalid" in err, marker.exists()) == (77, True, False)
    assert "--actor-token-file" in err, "the service does not say why: what to look at is said here"
    assert inside(within | {"COUNTERSIGN_TICKET": TICKET}, "agent", "--", "true")[0] == 0


def test_a_workload_with_an_issuer_of_its_own(api: ApiServer, tmp_path: Path) -> None:
    """The third hop: the ticket names the service account, which brings its own token; from files, as in a pod."""
    claims = ("--claim", "namespace=deploy", "--claim", "service_account=schema-tool")
    run(api, "delegate", "--name", "schema-tool", "--issuer", "https://cluster.example", *claims)
    body = json.loads(api.calls("POST /v1/delegations")[0].body)
    named = {"namespace": "deploy", "service_account": "schema-tool"}
    assert body["redeemer"] == {"issuer": "https://cluster.example", "claims": named}
    ticket, token = tmp_path / "ticket", tmp_path / "token"
    ticket.write_text(f"{TICKET}\n")
    token.write_text(f"{ID_TOKEN}\n")
    pod = {"COUNTERSIGN_API": api.url, "PATH": os.defpath, "HOME": str(tmp_path)}
    options = ("--ticket-file", str(ticket), "--actor-token-file", str(token))
    assert inside(pod, "agent", *options, "--", "true")[0] == 0
    assert forms(api)[-1]["actor_token"] == ID_TOKEN
    assert forms(api)[-1]["actor_token_type"] == "urn:ietf:params:oauth:token-type:jwt"


def test_an_agents_own_commands_act_as_it(api: ApiServer, tmp_path: Path) -> None:
    """What runs below an agent asks with the agent's identity, with no token of the CI in sight."""
    code = (
        "import subprocess, sys; "
        "sys.exit(subprocess.call([sys.executable, '-m', 'countersign', 'status', sys.argv[1]]))"
    )
    ended, _, _ = run(
        api,
        "agent",
        "--name",
        "a",
        "--pass",
        "PYTHONPATH",
        "--",
        PYTHON,
        "-c",
        code,
        SESSION,
        more={"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert ended == 0
    keys = {seen.headers["Authorization"] for seen in api.seen if "Authorization" in seen.headers}
    assert len(keys) == 2, "the parent's for the delegation, the agent's for the question"


@pytest.mark.parametrize(
    "name", ["GITHUB_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "COUNTERSIGN_ID_TOKEN", "COUNTERSIGN_TICKET"]
)
def test_a_credential_of_the_ci_is_not_passed(api: ApiServer, tmp_path: Path, name: str) -> None:
    """Attack: `--pass` in somebody's pipeline hands the job's name on; refused before a ticket is made."""
    marker = tmp_path / "ran"
    code, _, err = run(
        api, "agent", "--name", "a", "--pass", name, "--", "/usr/bin/touch", str(marker), more={name: "x"}
    )
    assert (code, marker.exists(), api.seen) == (64, False, [])
    assert name in err


def test_what_is_passed_is_named(api: ApiServer, tmp_path: Path) -> None:
    """A tool that needs one variable gets it, and no other."""
    seen = tmp_path / "seen.json"
    more = CREDENTIALS | {"REGION": "eu-central-1"}
    run(api, "agent", "--name", "a", "--pass", "REGION", "--", PYTHON, "-c", DUMP, str(seen), more=more)
    told = json.loads(seen.read_text())
    assert told["REGION"] == "eu-central-1"
    assert not set(CREDENTIALS) & set(told)


def test_keep_identity_is_said(api: ApiServer, tmp_path: Path) -> None:
    """The stated exception: the CI's own credentials stay, nothing else does, and the log says so."""
    seen = tmp_path / "seen.json"
    _, _, err = run(
        api, "agent", "--name", "a", "--keep-identity", "--", PYTHON, "-c", DUMP, str(seen), more=CREDENTIALS
    )
    told = json.loads(seen.read_text())
    assert told["GITHUB_TOKEN"] == "x5"
    assert not {"AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "SOMETHING_THAT_NOBODY_KNOWS"} & set(told)
    assert told["COUNTERSIGN_IDENTITY"].endswith("identity.json")
    assert "--keep-identity" in err
    assert "GITHUB_TOKEN" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("agent", "--", "true"),
        ("agent", "--name", "a"),
        ("agent", "--name", "a", "--ticket-file", "/dev/null", "--", "true"),
        ("agent", "--name", "A b", "--", "true"),
        ("agent", "--name", "a", "--scope", "db prod#", "--", "true"),
        ("agent", "--name", "a", "--pass", "NO_SUCH", "--", "true"),
        ("agent", "--ticket-file", "/no/such", "--", "true"),
        ("delegate", "--name", "a"),
        ("delegate", "--name", "a", "--key", "short"),
        ("delegate", "--name", "a", "--key", THUMBPRINT, "--issuer", "https://x"),
        ("delegate", "--name", "a", "--key", THUMBPRINT, "--claim", "a=b"),
        ("delegate", "--name", "a", "--issuer", "https://x"),
        ("delegate", "--name", "a", "--issuer", "https://x", "--claim", "noequals"),
        ("delegate", "--name", "a", "--issuer", "https://x", "--claim", "a=b", "--claim", "a=c"),
        ("delegate", "--name", "../x", "--key", THUMBPRINT),
        ("revoke", TXN),
        ("revoke", "con_01j9z3k4m5n6p7q8r9s0t1v2w3", "--why", "x"),
        ("revoke", "../../x", "--why", "x"),
        ("revoke", "", "--why", "x"),
        ("chain", "show", "../x"),
    ],
)
def test_usage(api: ApiServer, arguments: tuple[str, ...]) -> None:
    """64 for a wrong call, before anything is sent."""
    assert run(api, *arguments)[0] == 64
    assert api.seen == []


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--duration", "9h", "--duration is from 60 to 28800 s"), ("--ttl", "5s", "--ttl is from 10 to 900 s")],
)
def test_a_time_that_no_ticket_has_names_the_option(api: ApiServer, option: str, value: str, said: str) -> None:
    """The service would name the field of its own body."""
    code, _, err = run(api, "delegate", "--name", "a", "--key", THUMBPRINT, option, value)
    assert (code, said in err) == (64, True)
    assert api.seen == []


def test_the_times_are_the_services_own() -> None:
    """A command line that was stricter or laxer than the service would be wrong in one of the two."""
    assert HOP_S == (service.MIN_HOP_S, service.MAX_HOP_S)
    assert TICKET_S == (service.MIN_TICKET_S, service.MAX_TICKET_S)


def test_more_than_the_parent_has(api: ApiServer, tmp_path: Path) -> None:
    """The refusal reaches the pipeline's log with its code and what to do; nothing is started."""
    api.refuse = (403, "invalid_scope", "the scope asked for is more than its parent has", "Ask for no more.")
    marker = tmp_path / "ran"
    code, _, err = run(api, "agent", "--name", "a", "--scope", "x", "--", "/usr/bin/touch", str(marker))
    assert (code, marker.exists()) == (77, False)
    assert "[invalid_scope]" in err


def test_an_agent_without_a_way_to_be_one_says_what_to_do(api: ApiServer) -> None:
    """The commonest mistake: neither a name nor a ticket."""
    err = run(api, "agent", "--", "true")[2]
    assert "--name" in err
    assert "countersign delegate" in err


def test_a_missing_command_makes_no_hop(api: ApiServer) -> None:
    """A typing error must not use a ticket up."""
    assert run(api, "agent", "--name", "a", "--", "no-such-program-here")[0] == 127
    assert api.seen == []


def test_json_of_an_agent_goes_last_on_stderr(api: ApiServer, capfd: pytest.CaptureFixture[str]) -> None:
    """The command's output is somebody's data."""
    code, out, err = run(api, "agent", "--name", "a", "--json", "--", "/bin/echo", "data")
    assert (code, out, capfd.readouterr().out) == (0, "", "data\n")
    told = json.loads(err.splitlines()[-1])
    assert (told["txn"], told["hop"], told["exit"]) == (TXN, HOP, 0)


def test_json_of_a_ticket_is_the_services_answer(api: ApiServer) -> None:
    """A program that hands the ticket on reads when it ends as well."""
    told = json.loads(run(api, "delegate", "--name", "a", "--key", THUMBPRINT, "--json")[1])
    assert (told["ticket"], told["txn"], told["name"]) == (TICKET, TXN, "a")


def test_signals_and_the_exit_code_pass_through(api: ApiServer) -> None:
    """A cancelled job must let its agent clean up, and hear how it ended."""
    code = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(9))\nprint('up', flush=True)\nsignal.pause()"
    process = subprocess.Popen(
        [PYTHON, "-m", "countersign", "agent", "--name", "a", "--", PYTHON, "-c", code],
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


@pytest.mark.parametrize(("text", "kind"), [(TXN, "txn"), (HOP, "hop"), (SESSION, "session"), (f"grt_{TXN}", "grant")])
def test_revoke(api: ApiServer, text: str, kind: str) -> None:
    """What an id names is in its prefix: in an incident nobody should have to look up a word for it."""
    code, out, _ = run(api, "revoke", text, "--why", "a leaked key")
    (asked,) = api.calls("POST /v1/revocations")
    assert json.loads(asked.body) == {"kind": kind, "id": text, "why": "a leaked key"}
    assert code == 0
    assert f"{kind}:{text}" in out
    assert "number 7" in out


def test_revoke_of_what_has_no_form_of_ours(api: ApiServer) -> None:
    """An identity is ended everywhere at once, by its own name."""
    who = "https://token.actions.githubusercontent.com#9001/700"
    told = json.loads(run(api, "revoke", who, "--kind", "identity", "--why", "left", "--json")[1])
    assert told["key"] == f"identity:{who}"


def test_revoke_that_is_refused(api: ApiServer) -> None:
    """What is not there and what is not the caller's have one answer, and one exit code."""
    told = {"code": "not_found", "message": "no such hop", "hint": "h", "request_id": "r"}
    api.answer("POST /v1/revocations", status=404, body=told)
    code, _, err = run(api, "revoke", HOP, "--why", "x")
    assert (code, "[not_found]" in err) == (77, True)
