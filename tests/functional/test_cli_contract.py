"""The real command line against the real application: what the fakes of both sides might agree on wrongly."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from countersign.__main__ import main
from tests.fakes.clock import FakeClock
from tests.fakes.control_plane import BROKER, FILES, TOOLS_ISSUER
from tests.fakes.served_plane import ServedPlane

COPY = "import os, shutil, sys; shutil.copyfile(os.environ['COUNTERSIGN_IDENTITY'], sys.argv[1])"


SSH_TARGET = """
  db-prod:
    protocol: ssh
    environment: dev
    description: The machine under the database
    host: 127.0.0.1
    port: 22
    host_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd4sx/GVwBqsoZrDIqGeRwmdbxmhsLRYrK7NclAM1qB"]
    principals:
      deploy: {credential: certificate}
    default_principal: deploy
    max_session_s: 1800
"""


class PlaneClock:
    """The plane's clock, which sleeping moves."""

    def __init__(self, clock: FakeClock) -> None:
        self.now, self.monotonic_s, self.sleep = clock.now, clock.monotonic_s, clock.advance


@pytest.fixture
def plane() -> Iterator[ServedPlane]:
    with ServedPlane() as served:
        yield served


def run(plane: ServedPlane, environment: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    told = {"COUNTERSIGN_API": plane.public_url, "PATH": os.defpath, **environment}
    code = main(arguments, told, out=out, err=err, clock=PlaneClock(plane.clock))
    return code, out.getvalue(), err.getvalue()


def job(plane: ServedPlane, tmp_path: Path, **claims: str) -> dict[str, str]:
    return {"COUNTERSIGN_ID_TOKEN": plane.ci_token(**claims), "XDG_STATE_HOME": str(tmp_path / "runner")}


def copied(plane: ServedPlane, environment: Mapping[str, str], path: Path, *arguments: str) -> dict[str, str]:
    """Run an agent that leaves a copy of its identity at ``path``; return the environment of a process that is it."""
    code, _, err = run(plane, environment, "agent", *arguments, "--", sys.executable, "-c", COPY, str(path))
    assert code == 0, err
    path.chmod(0o600)
    return {"COUNTERSIGN_IDENTITY": str(path)}


def test_the_founding_story(plane: ServedPlane, tmp_path: Path) -> None:
    """ci-runner lets in deploy-svc, which has no issuer of its own; deploy-svc lets in schema-tool, which has one. Each
    has less than the one before, and the chain that the service shows holds, hop by hop."""
    ci = job(plane, tmp_path)
    container = {"COUNTERSIGN_IDENTITY": str(tmp_path / "container.json"), "CI": "true"}
    thumbprint = run(plane, container, "key")[1].strip()
    code, out, err = run(
        plane, ci, "delegate", "--name", "deploy-svc", "--key", thumbprint, "--scope", "orders-dev", "--duration", "1h"
    )
    assert code == 0, err
    deploy = copied(plane, container | {"COUNTERSIGN_TICKET": out.strip()}, tmp_path / "deploy.json")
    claims = ("--issuer", TOOLS_ISSUER, "--claim", "sub=schema-tool")
    code, out, err = run(plane, deploy, "delegate", "--name", "schema-tool", *claims, "--scope", "orders-dev/app#sql")
    assert code == 0, err
    (tmp_path / "token").write_text(plane.tool_token())
    pod = {"COUNTERSIGN_TICKET": out.strip(), "COUNTERSIGN_ACTOR_TOKEN_FILE": str(tmp_path / "token")}
    tool = copied(plane, pod, tmp_path / "tool.json")
    txn = json.loads((tmp_path / "tool.json").read_text())["txn"]
    code, out, err = run(plane, tool, "chain", "verify", txn)
    assert code == 78, out + err
    lines = out.splitlines()
    assert lines[0].startswith(f"chain {txn}  3 hops")
    assert [word for line in lines[1:6:2] for word in ("attested", "vouched") if word in line] == [
        "attested",
        "vouched",
        "attested",
    ]
    assert "orders-dev/app#sql" in lines[6]
    code, out, err = run(plane, tool, "request", "orders-dev", "--json")
    assert (code, json.loads(out)["txn"]) == (0, txn), err


def test_more_than_the_parent_has(plane: ServedPlane, tmp_path: Path) -> None:
    """The refusal's code is the one that the story promises."""
    deploy = copied(plane, job(plane, tmp_path), tmp_path / "d.json", "--name", "deploy-svc", "--scope", "orders-dev")
    code, _, err = run(plane, deploy, "delegate", "--name", "x", "--key", "a" * 43, "--scope", "orders-prod")
    assert (code, "[invalid_scope]" in err) == (77, True)


def test_a_later_step_with_a_new_token_of_the_run_is_the_same_hop(plane: ServedPlane, tmp_path: Path) -> None:
    """Each step of a job gets a new token of the run from its runner: one root all the same."""
    assert run(plane, job(plane, tmp_path), "targets")[0] == 0
    plane.clock.advance(3600)
    code, _, err = run(plane, job(plane, tmp_path), "targets")
    assert code == 0, err
    assert len({hop.id for hop in plane.stores.chains.rows.values()}) == 1


def test_another_process_of_the_job_asks_for_a_new_root(plane: ServedPlane, tmp_path: Path) -> None:
    """Attack: it fetches the job's token again, with a key of its own."""
    run(plane, job(plane, tmp_path), "targets")
    code, _, err = run(plane, job(plane, tmp_path / "elsewhere"), "targets")
    assert (code, "[run_bound]" in err) == (77, True)
    assert "countersign delegate" in err


def test_a_stolen_ticket(plane: ServedPlane, tmp_path: Path) -> None:
    """Attack: whoever read the ticket redeems it with a key of theirs."""
    right = {"COUNTERSIGN_IDENTITY": str(tmp_path / "right.json")}
    thumbprint = run(plane, right, "key")[1].strip()
    ticket = run(plane, job(plane, tmp_path), "delegate", "--name", "a", "--key", thumbprint)[1].strip()
    thief = {"COUNTERSIGN_IDENTITY": str(tmp_path / "thief.json"), "COUNTERSIGN_TICKET": ticket}
    code, _, err = run(plane, thief, "agent", "--", "true")
    assert (code, "[ticket_invalid]" in err) == (77, True)
    assert run(plane, right | {"COUNTERSIGN_TICKET": ticket}, "agent", "--", "true")[0] == 0


def test_revoking_a_hop_ends_what_is_below_it(plane: ServedPlane, tmp_path: Path) -> None:
    """A parent revokes its child by the command line: the child's next call is refused, the parent's is not."""
    ci = job(plane, tmp_path)
    child = copied(plane, ci, tmp_path / "c.json", "--name", "deploy-svc")
    hop = json.loads((tmp_path / "c.json").read_text())["hop"]
    code, out, err = run(plane, ci, "revoke", hop, "--why", "the tool went wrong")
    assert code == 0, err
    assert f"hop:{hop}" in out
    code, _, err = run(plane, child, "targets")
    assert (code, "[grant_revoked]" in err) == (77, True)
    assert run(plane, ci, "targets")[0] == 0
    code, out, _ = run(plane, ci, "chain", "show", json.loads((tmp_path / "c.json").read_text())["txn"])
    assert (code, out.count("REVOKED")) == (0, 1)


def test_a_strangers_chain_is_not_there(plane: ServedPlane, tmp_path: Path) -> None:
    """Another run may neither see nor revoke it, nor learn that it is there."""
    identity = tmp_path / "a.json"
    copied(plane, job(plane, tmp_path), identity, "--name", "a")
    told = json.loads(identity.read_text())
    other = job(plane, tmp_path, run_id="5002")
    for arguments in (("chain", "show", told["txn"]), ("revoke", told["hop"], "--why", "x")):
        code, _, err = run(plane, other, *arguments)
        assert (code, "[not_found]" in err) == (77, True)


def test_a_parent_cannot_be_revoked_from_below(plane: ServedPlane, tmp_path: Path) -> None:
    """Attack: an agent ends the pipeline that watches it."""
    child = copied(plane, job(plane, tmp_path), tmp_path / "c.json", "--name", "a")
    parent = next(hop.id for hop in plane.stores.chains.rows.values() if hop.depth == 0)
    assert run(plane, child, "revoke", parent, "--why", "x")[0] == 77


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH here")
def test_an_ssh_session_gets_a_certificate_that_openssh_reads(tmp_path: Path) -> None:
    """What `exec` puts in front of the real ssh: one certificate on its own key, for this session alone, minutes long,
    as OpenSSH itself reads it."""
    read = (
        "import os, subprocess, sys; f = os.path.dirname(os.environ['PATH'].split(':')[0]); "
        "cut = lambda *c: subprocess.run(c, capture_output=True, text=True, check=True).stdout; "
        "open(sys.argv[1], 'w').write(cut('ssh-keygen', '-L', '-f', f + '/key-cert.pub') + "
        "cut('ssh-keygen', '-lf', f + '/key') + cut('ssh', '-G', 'db-prod') + open(f + '/known_hosts').read())"
    )
    files = {**FILES, "targets.yaml": FILES["targets.yaml"] + SSH_TARGET}
    seen = tmp_path / "seen"
    with ServedPlane(files=files) as plane:
        path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        ci = job(plane, tmp_path) | path
        code, _, err = run(plane, ci, "exec", "db-prod", "--", sys.executable, "-c", read, str(seen))
        assert code == 0, err
        (session,) = plane.stores.sessions.rows
    told = seen.read_text()
    assert "user certificate" in told
    assert f"Principals: \n                {session}\n" in told
    assert "permit-pty" in told
    assert f"user {session}\n" in told
    assert told.endswith("countersign-broker ssh-ed25519 " + BROKER.ssh_host_key.split(" ")[1] + "\n")
    fingerprints = re.findall(r"SHA256:\S+", told)
    assert fingerprints[0] == fingerprints[-1], "the certificate is on the key beside it"
