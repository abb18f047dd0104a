"""``countersign dev``: the contract of its ready file, real rights, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from boto3.session import Session
from botocore.exceptions import ClientError

from dev.demo.pipeline import Answer, Pipeline
from dev.demo.slack import Approvers
from dev.demo.trail import Event, Trail
from dev.demo.waiting import wait_for
from dev.demo.witnesses import table_cells
from dev.local_stack import Stack
from dev.postgres_binaries import find_postgres
from dev.postgres_server import Login, PostgresServer, make_orders
from dev.processes import listening
from dev.settings import DEMO_BUNDLE, ROOT, SystemClock, child_environment, server_account
from dev.ssh_keys import make_key
from tests.unit.dev.calling import call

pytestmark = pytest.mark.e2e
START_S = 90.0  # it takes 4 s; a loaded machine gets more


def test_the_ready_file_keeps_its_contract(stack: Stack) -> None:
    """Other people's test suites are pointed at exactly these names."""
    ready = json.loads(json.dumps(stack.ready))
    assert set(ready["broker"]["postgres"]) == {"host", "port", "ca_file"}
    assert Path(ready["broker"]["postgres"]["ca_file"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    ssh = ready["broker"]["ssh"]
    assert set(ssh) == {"host", "port", "known_hosts_file"}
    known_hosts = Path(ssh["known_hosts_file"]).read_text()
    assert known_hosts.startswith(f"[{ssh['host']}]:{ssh['port']} ssh-ed25519 ")
    assert call(ready["keys"]["jwks"])[1]["keys"]
    assert call(ready["keys"]["ssh"])[1].startswith("ecdsa-sha2-nistp256 ")
    for mint in (ready["issuer"]["mint"], *(ready["issuer"][name]["mint"] for name in ("kubernetes", "people"))):
        assert call(mint, {})[1]["token"].count(".") == 2
    assert call(ready["issuer"]["people"]["device"])[0] == 200
    assert ready["issuer"]["people"]["client_id"]
    assert call(ready["slack"]["messages"])[0] == 200
    assert call(ready["slack"]["page"])[0] == 200
    assert ready["slack"]["approvers"][0] == "UALICE"
    assert {"endpoint", "region", "bucket"} <= set(ready["aws"])
    target = ready["targets"]["orders-prod"]
    assert {"protocol", "host", "port", "log", "admin", "planted"} <= set(target)
    assert len(set(target["planted"])) == len(target["planted"]) == 2000
    machine = ready["targets"]["db-prod"]
    assert {"protocol", "host", "port", "user", "host_key", "log", "commands", "admin", "planted"} <= set(machine)
    assert Path(machine["admin"]["identity_file"]).read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert len(set(machine["planted"])) == len(machine["planted"]) >= 5


def test_the_machine_trusts_what_the_api_says_an_operator_should_put_there(stack: Stack) -> None:
    """The stack writes the key itself; an operator copies it from this address, and both must be one."""
    line = str(call(stack.ready["keys"]["ssh"])[1])
    assert stack.targets.db is not None
    assert line.split()[:2] == stack.targets.db.trusted.split()


def test_a_refused_login_at_a_target_comes_from_its_own_log_into_the_audit_trail(stack: Stack) -> None:
    """Whoever goes around the broker ends at the target's login; nobody would ever read that log."""
    trail = Trail(stack.folder / "logs", SystemClock())
    for name in ("orders-prod", "db-prod"):
        target = stack.ready["targets"][name]
        seen = trail.count("target.login_refused", _of(name))
        if target["protocol"] == "postgres":
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(
                    host=target["host"], port=target["port"], user="orders_app", password="guess", dbname="orders"
                )
        else:
            _knock(stack, target)
        event = trail.find("target.login_refused", _of(name), more_than=seen)
        assert event is not None
        assert event["peer"] == "127.0.0.1"


def _of(target: str) -> Callable[[Event], bool]:
    return lambda event: event.get("target") == target


def _knock(stack: Stack, target: dict[str, Any]) -> None:
    """Offer sshd a key that it does not know."""
    assert stack.targets.db is not None
    binaries = stack.targets.db.binaries
    with tempfile.TemporaryDirectory() as folder:
        key = Path(folder, "key")
        key.touch(mode=0o600)
        key.write_text(make_key().private)
        options = ("BatchMode=yes", f"IdentityFile={key}", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
        done = subprocess.run(
            [
                *(str(binaries.ssh), "-F", "none", *(part for option in options for part in ("-o", option))),
                *("-p", str(target["port"]), "-l", target["user"], target["host"], "true"),
            ],
            env=child_environment(binaries.client_environment()),
            capture_output=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 255


def _auditor(stack: Stack, service: str) -> Any:
    aws = stack.ready["aws"]
    keys = aws["auditor"]
    session = Session(keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"], region_name=aws["region"])
    return session.client(service, endpoint_url=aws["endpoint"])


def test_an_auditor_reads_and_can_change_nothing(stack: Stack) -> None:
    """Roles are enforced locally: a part with a missing right, or one too many, shows here and not in AWS."""
    bucket = stack.ready["aws"]["bucket"]
    assert _auditor(stack, "s3").list_objects_v2(Bucket=bucket)["KeyCount"] >= 1
    with pytest.raises(ClientError, match="AccessDenied"):
        _auditor(stack, "s3").put_object(Bucket=bucket, Key="x", Body=b"x")
    with pytest.raises(ClientError, match="AccessDenied"):
        _auditor(stack, "secretsmanager").list_secrets()
    with pytest.raises(ClientError, match="AccessDenied"):
        _auditor(stack, "dynamodb").put_item(TableName=f"{stack.ready['aws']['prefix']}-answers", Item={})


def test_the_minutes_reconciler_runs_under_its_own_role(stack: Stack) -> None:
    """Nothing else starts it here within a test's time, and it is the net under every card."""
    answered = stack.reconcile()
    assert (answered.failed, answered.payload) == (False, {"failed": 0})


def _raw(stack: Stack, request: bytes) -> bytes:
    host, port = stack.ready["api"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(request)
        return client.recv(4096)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /v1/token HTTP/1.1\r\nHost: x\r\nContent-Length: 10000001\r\n\r\n", b" 413 "),
        (b"POST /v1/token HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", b" 400 "),
        (b"POST /v1/token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b" 411 "),
        (b"\x16\x03\x01\x02\x00garbage\r\n\r\n", b" 400 "),
    ],
)
def test_the_api_is_bounded_as_behind_api_gateway(stack: Stack, request_: bytes, status: bytes) -> None:
    """A body that API Gateway would not pass on is not read here either; garbage ends in an answer."""
    assert status in _raw(stack, request_)


class Command:
    """``countersign dev`` as a person starts it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.ready_file = folder / "ready.json"
        self._log = (folder / "output").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "countersign", "dev", "--ready-file", str(self.ready_file), *arguments],
            env=child_environment({"TMPDIR": str(folder)}),
            cwd=ROOT,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def ready(self) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.output()
            return json.loads(self.ready_file.read_text()) if self.ready_file.exists() else None

        return wait_for("the ready file", look, SystemClock(), START_S)

    def output(self) -> str:
        return Path(self._log.name).read_text(errors="replace")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        self._log.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the throw-away account reaches too: pytest's own is closed to it."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


def _processes_of(folder: Path) -> list[str]:
    """Return the command lines of the processes that still name ``folder``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in line and int(entry.name) != os.getpid():
                found.append(entry.name)
    return found


def test_it_runs_until_ctrl_c_and_leaves_nothing_behind(folder: Path) -> None:
    """No process, no temporary file, no ready file that points at nothing."""
    command = Command(folder)
    try:
        ready = command.ready()
        assert listening(ready["broker"]["postgres"]["port"])
        command.process.send_signal(signal.SIGINT)
        assert command.process.wait(60) == 0, command.output()
    finally:
        command.end()
    assert not listening(ready["broker"]["postgres"]["port"])
    assert not any(listening(target["port"]) for target in ready["targets"].values())
    assert not listening(ready["broker"]["ssh"]["port"])
    assert _processes_of(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == ["output"]


def test_kill_leaves_no_process_behind(folder: Path) -> None:
    """Nothing can be cleaned up by who is killed; its parts must notice."""
    command = Command(folder)
    try:
        command.ready()
        command.process.kill()
        command.process.wait(30)
        wait_for("its parts to end", lambda: True if not _processes_of(folder) else None, SystemClock(), 30)
    finally:
        command.end()


def _bundle_of_ones_own(folder: Path, server: PostgresServer, owner: Login) -> Path:
    """Write the demo's bundle with another server as its target, and the password beside it, as its users would."""
    bundle = folder / "bundle"
    (bundle / "policies").mkdir(parents=True)
    for path in [*DEMO_BUNDLE.glob("*.yaml"), *DEMO_BUNDLE.glob("policies/*")]:
        (bundle / path.relative_to(DEMO_BUNDLE)).write_bytes(path.read_bytes())
    targets = bundle / "targets.yaml"
    named = targets.read_text().replace("countersign-local/targets/orders-prod/orders_app", "mine/orders")
    targets.write_text(named.replace("port: 5432", f"port: {server.port}"))
    (bundle / "secrets.yaml").write_text(f"mine/orders: {owner.password.expose()}\n")
    return bundle


@pytest.fixture
def own_server(folder: Path) -> Iterator[PostgresServer]:
    made = PostgresServer(find_postgres(), log=folder / "postgres.log", account=server_account())
    made.wait()
    yield made
    made.stop()


def test_a_configuration_and_a_target_of_ones_own(folder: Path, own_server: PostgresServer) -> None:
    """--config, --state, --no-targets, as other people's tests start it: the secret beside the bundle opens theirs."""
    bundle = _bundle_of_ones_own(folder, own_server, make_orders(own_server))
    state = folder / "state"
    command = Command(folder, "--config", str(bundle), "--state", str(state), "--no-targets")
    try:
        ready = command.ready()
        assert ready["targets"] == {}
        answer = _through_the_broker(ready, own_server, folder, "SELECT count(*) FROM orders;")
        assert table_cells(answer.out) == [["10000"]]
        command.process.terminate()
        assert command.process.wait(60) == 0
    finally:
        command.end()
    assert sorted(path.name for path in state.iterdir()) == ["authority", "logs"]
    assert not (state / "authority" / "broker.key").exists()


def _through_the_broker(ready: dict[str, Any], server: PostgresServer, folder: Path, statement: str) -> Answer:
    """Run ``statement`` as a pipeline would, with Alice's approval of the session."""
    token = call(ready["issuer"]["mint"], {})[1]["token"]
    told = {"COUNTERSIGN_API": ready["api"], "COUNTERSIGN_ID_TOKEN": token}
    environment = child_environment({**server.binaries.environment(), **told})
    psql = str(server.binaries.psql)
    pipeline = Pipeline(["exec", "orders-prod", "--", psql, "-X"], environment, folder, SystemClock())
    try:
        asked = pipeline.send(statement)
        approvers = Approvers(ready["slack"], SystemClock())
        assert approvers.click(approvers.next_card(), "Approve", "UALICE")["ok"]
        answer = asked.answer(START_S)
        assert pipeline.end() == 0
        return answer
    finally:
        pipeline.stop()
