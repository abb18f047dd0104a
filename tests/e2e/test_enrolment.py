"""`countersign targets enroll` at real targets: the stack's PostgreSQL and its secret store, and a real sshd."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from boto3.session import Session

from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.verifier import new_session_secret, verifier_of
from countersign.commands.asking import Invocation
from countersign.commands.enroll import enroll_ssh
from countersign.doctor.checks import Told
from countersign.enrolment.postgres import PostgresLogin
from countersign.output import Output
from countersign.settings import SystemClock, read_settings
from dev.emulator import ACCOUNT, ROOT_KEY
from dev.local_stack import Stack
from dev.postgres_server import DATABASE, OWNER, Login, PostgresServer
from dev.settings import ROOT, child_environment
from dev.ssh_keys import make_key
from dev.ssh_server import SshServer
from dev.targets import ORDERS
from tests.e2e.postgres_broker import running_postgres, target_at
from tests.e2e.ssh_broker import SshBroker, running_ssh_broker, running_sshd, ssh_target
from tests.e2e.visitor import Visitor, connect
from tests.fakes.api_server import ID_TOKEN, ApiServer, ssh_connection
from tests.fakes.flow import LOGIN

pytestmark = pytest.mark.e2e

# What docs/command_line.md says that an operator needs beside the auditor's.
RIGHTS: Final = ("GetSecretValue", "PutSecretValue", "UpdateSecretVersionStage")


def operator(stack: Stack) -> dict[str, str]:
    """Return the environment of somebody with the auditor's rights and those, of targets' secrets alone."""
    aws = stack.ready["aws"]
    root = {"aws_access_key_id": ROOT_KEY, "aws_secret_access_key": ROOT_KEY, "region_name": aws["region"]}
    iam: Any = Session(**root).client("iam", endpoint_url=aws["endpoint"])
    arn = f"arn:aws:secretsmanager:{aws['region']}:{ACCOUNT}:secret:{aws['prefix']}/targets/*"
    own = {"Effect": "Allow", "Action": [f"secretsmanager:{right}" for right in RIGHTS], "Resource": [arn]}
    iam.create_user(UserName="operator")
    auditor = iam.get_user_policy(UserName=f"{aws['prefix']}-auditor", PolicyName="auditor")["PolicyDocument"]
    statements = [*auditor["Statement"], own]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_user_policy(UserName="operator", PolicyName="operator", PolicyDocument=document)
    key = iam.create_access_key(UserName="operator")["AccessKey"]
    mine = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
    return {**aws["auditor"], **mine}


def enrolled(environment: dict[str, str]) -> tuple[int, list[str], str]:
    """Return the exit code, what was found, and all that was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "countersign", "targets", "enroll", ORDERS, "--json"],
        env=child_environment(environment),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout, done.stderr
    checks = json.loads(done.stdout)["checks"]
    return done.returncode, [one["what"] for one in checks], done.stdout + done.stderr


def secret_of(stack: Stack) -> str:
    aws = stack.ready["aws"]
    root = {"aws_access_key_id": ROOT_KEY, "aws_secret_access_key": ROOT_KEY, "region_name": aws["region"]}
    client: Any = Session(**root).client("secretsmanager", endpoint_url=aws["endpoint"])
    return str(client.get_secret_value(SecretId=f"{aws['prefix']}/targets/orders-prod/orders_app")["SecretString"])


def test_a_target_is_enrolled_while_a_session_is_open(stack: Stack) -> None:
    """P7: an open connection goes on, the next one logs in with what nobody has seen, the former password is refused,
    and neither the output nor the server's own log has either."""
    target = stack.ready["targets"][ORDERS]
    before = secret_of(stack)
    visitor = Visitor.of(stack)
    session = visitor.session()
    with connect(stack, session) as open_before:
        code, found, printed = enrolled(operator(stack))
        assert code == 0, printed
        assert found[:2] == ["its password was changed, and the new one logs in", "the former password is refused"]
        assert found[2].endswith("may come past us: postgres (superuser)")
        assert open_before.execute("SELECT 1").fetchone() == (1,)
    with connect(stack, session) as open_after:
        assert open_after.execute("SELECT 1").fetchone() == (1,)
    after = secret_of(stack)
    log = Path(target["log"]).read_text()
    assert after != before
    assert "ALTER ROLE CURRENT_USER PASSWORD 'SCRAM-SHA-256$4096:" in log
    for secret in (before, after):
        assert secret not in printed
        assert secret not in log
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host="127.0.0.1", port=target["port"], dbname=DATABASE, user=OWNER, password=before)


def test_an_auditor_enrolls_nothing(stack: Stack) -> None:
    """Attack: whoever may read all evidence would choose the password of production."""
    before = secret_of(stack)
    code, found, _ = enrolled(dict(stack.ready["aws"]["auditor"]))
    assert (code, len(found)) == (1, 1)
    assert "AccessDenied" in found[0]
    assert secret_of(stack) == before


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


def made_login(server: PostgresServer, name: str) -> tuple[PostgresLogin, Login]:
    login = Login(user=name, password=new_session_secret())
    server.run(f"CREATE ROLE {name} LOGIN PASSWORD '{login.password.expose()}'")
    return PostgresLogin(target_at(server.port), name), login


def test_a_verifier_that_was_computed_here_is_what_the_server_takes(postgres: PostgresServer) -> None:
    """The password itself never crosses, so a wrong verifier would lock everybody out: PostgreSQL's own word for it."""
    login, made = made_login(postgres, "by_verifier")
    fresh = new_session_secret()
    assert login.takes(made.password)
    login.change(made.password, verifier_of(fresh))
    assert (login.takes(fresh), login.takes(made.password)) == (True, False)
    told = psycopg.connect(
        host="127.0.0.1", port=postgres.port, dbname="postgres", user=made.user, password=fresh.expose()
    )
    told.close()
    log = postgres.log.read_text()
    assert "ALTER ROLE CURRENT_USER PASSWORD 'SCRAM-SHA-256$4096:" in log
    assert fresh.expose() not in log


def test_a_login_that_may_not_log_in_shows_nothing(postgres: PostgresServer) -> None:
    """It is refused whatever the password is: that must not be taken for a former password that is refused."""
    login, made = made_login(postgres, "no_login")
    postgres.run("ALTER ROLE no_login NOLOGIN")
    with pytest.raises(TargetUnavailable):
        login.takes(made.password)


def test_nobody_there_shows_nothing() -> None:
    """A target that is down refuses no password."""
    with pytest.raises(TargetUnavailable):
        PostgresLogin(target_at(1), "postgres").takes(Secret("x"))


@pytest.fixture(scope="module")
def sshd() -> Iterator[SshServer]:
    with running_sshd() as server:
        yield server


@contextmanager
def through(broker: SshBroker) -> Iterator[ApiServer]:
    with ApiServer() as api:
        known = f"[127.0.0.1]:{broker.port} {broker.host_key}\n"
        api.connect = ssh_connection(port=broker.port, known_hosts=known, user=LOGIN)
        api.sign = broker.certificate
        yield api


def looked_at(sshd: SshServer, identity: Path | str, *, host_key: str = "") -> Sequence[Told]:
    """Return what enrolling finds of ``sshd``, through a real broker and past it."""
    with running_ssh_broker(sshd) as broker, through(broker) as api:
        told = broker.environment()
        own = {"COUNTERSIGN_API": api.url, "COUNTERSIGN_ID_TOKEN": ID_TOKEN, "XDG_STATE_HOME": api.state.name}
        path = f"{broker.binaries.ssh.parent}:{told['PATH']}"
        invocation = Invocation(
            options=argparse.Namespace(old_identity=str(identity), reason="enrolling", wait=""),
            settings=read_settings({**told, **own, "PATH": path}),
            output=Output(as_json=True, colour=False, out=io.StringIO(), err=io.StringIO()),
            clock=SystemClock(),
        )
        target = ssh_target(sshd.port, host_key or sshd.host_key)
        return list(enroll_ssh(invocation, target, target.principals[0]))


def key_file(folder: Path) -> Path:
    path = folder / "former"
    path.touch(mode=0o600)
    path.write_text(make_key().private)
    return path


def test_an_ssh_target_takes_our_certificate_and_refuses_the_former_key(sshd: SshServer, tmp_path: Path) -> None:
    """P7 for machines: shown by a session through the broker, and by the key that people had, straight at sshd."""
    told = looked_at(sshd, key_file(tmp_path))
    assert [one.what for one in told] == [
        "a session through the broker logged in with our certificate",
        "the former key is refused",
        "the target also takes logins by password",
    ], told


def test_a_former_key_that_still_logs_in_is_said_loudly(sshd: SshServer) -> None:
    """Attack: a line that stayed in authorized_keys is a way past every rule."""
    told = looked_at(sshd, sshd.admin_identity)
    assert [one.what for one in told if one.status == "wrong"] == ["THE FORMER KEY STILL LOGS IN"]


def test_at_another_machine_nothing_is_tried(sshd: SshServer, tmp_path: Path) -> None:
    """Attack: who answers in the target's place refuses everything, and enrolling would call that proof."""
    told = looked_at(sshd, key_file(tmp_path), host_key=make_key().public)
    assert [one.status.value for one in told[1:]] == ["could not look"] * 2, told
    assert "not one that targets.yaml pins" in told[1].what
