"""`countersign doctor` on what anybody may look at: each check sound, and each of them wrong."""

from __future__ import annotations

import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.target import Principal, Protocol, Target
from countersign.__main__ import main
from countersign.address import parse_address
from countersign.doctor.checks import Check, Status, Told, answer, grouped, look_at_all, ok, wrong
from countersign.doctor.service import ServiceChecks
from countersign.doctor.targets import look_at
from countersign.settings import SystemClock
from dev.authority import ServerIdentity, make_server_identity
from tests.fakes.api_server import HOST_KEY, ApiServer
from tests.fakes.clock import START, FakeClock
from tests.fakes.served_plane import ServedPlane

KEY = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k1", "x": "x", "y": "y"}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def looked(url: str, name: str, clock: FakeClock | None = None, **told: str) -> list[Told]:
    checks = ServiceChecks(parse_address(url, "it"), told, clock or FakeClock()).checks()
    return list(answer(next(check for check in checks if check.name == name)))


def statuses(found: list[Told]) -> list[Status]:
    return [told.status for told in found]


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(environment: dict[str, str], *more: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(["doctor", *more], environment, out=out, err=err, clock=SystemClock())
    return code, out.getvalue(), err.getvalue()


def test_a_service_that_is_sound() -> None:
    """From a laptop without any credential: what anybody may see is sound, and the rest is said to be unseen."""
    with ServedPlane() as plane:
        code, out, _ = run({"COUNTERSIGN_API": plane.public_url}, "--json")
        told = json.loads(out)
        found = {one["check"]: one["status"] for one in told["checks"]}
        assert [found[name] for name in ("api", "certificate", "contract", "public keys")] == ["ok"] * 4
        assert (found["aws"], found["broker"]) == ("could not look", "could not look")
        assert (code, told["wrong"], found["login"]) == (0, 0, "ok")


def test_nothing_named_is_nothing_looked_at() -> None:
    """A pipeline whose variable is empty must not go green."""
    code, _, err = run({})
    assert code == 64
    assert "COUNTERSIGN_API" in err


def test_the_exit_code(api: ApiServer) -> None:
    """1 where something is wrong; what could not be looked at fails only who asked for it."""
    code, out, _ = run({"COUNTERSIGN_API": f"http://127.0.0.1:{free()}"})
    assert code == 1
    assert "cannot be reached: Connection refused" in out
    assert "Check the address" in out
    sound = {"COUNTERSIGN_API": ""}
    assert run({**sound, "COUNTERSIGN_PREFIX": "p"})[0] == 0, "only AWS could not be looked at"
    assert run({**sound, "COUNTERSIGN_PREFIX": "p"}, "--strict")[0] == 1


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (302, b"", "redirects"),
        (200, b"<html>login</html>", "not as Countersign does"),
        (403, b'{"message":"Missing Authentication Token"}', "answered 403"),
        (500, b'{"status":"ok"}', "answered 500"),
    ],
    ids=["redirect", "another site", "no stage", "broken"],
)
def test_what_answers_is_not_the_api(api: ApiServer, status: int, body: bytes, says: str) -> None:
    """A wrong address that answers is the commonest mistake, and looks like a service that is down."""
    api.answer("GET /healthz", status=status, body=body, headers={"Location": "https://elsewhere.example/"})
    (told,) = looked(api.url, "api")
    assert told.status is Status.WRONG
    assert says in told.what


@pytest.mark.parametrize(
    ("off_s", "status"),
    [(0, Status.OK), (10, Status.WARN), (-10, Status.WARN), (45, Status.WRONG), (-45, Status.WRONG)],
)
def test_a_clock_that_is_off(api: ApiServer, off_s: int, status: Status) -> None:
    """Proofs are refused when they are a minute old: the error says "proof", and the cause is the clock."""
    date = format_datetime(START + timedelta(seconds=off_s), usegmt=True)
    api.answer("GET /healthz", status=200, body={"status": "ok"}, headers={"Date": date})
    assert statuses(looked(api.url, "clock")) == [status]


def test_a_service_without_a_date_is_not_called_right(api: ApiServer) -> None:
    """What could not be compared is said, and is no agreement."""
    api.answer("GET /healthz", status=200, body={"status": "ok"})
    assert statuses(looked(api.url, "clock")) == [Status.UNKNOWN]


@pytest.mark.parametrize(("version", "status"), [("1", Status.OK), ("2", Status.WRONG), ("", Status.WRONG)])
def test_another_contract(api: ApiServer, version: str, status: Status) -> None:
    """An older command line against a newer service fails in ways that explain nothing."""
    api.answer("GET /openapi.json", status=200, body={"info": {"version": version}})
    assert statuses(looked(api.url, "contract")) == [status]


def all_keys(**changed: list[dict[str, str]]) -> dict[str, Any]:
    return {purpose.value: {"keys": changed.get(purpose.value, [KEY])} for purpose in KeyPurpose}


@pytest.mark.parametrize(
    ("keys", "published", "status"),
    [
        (all_keys(), [KEY], Status.OK),
        (all_keys(answer=[]), [KEY], Status.WRONG),
        (all_keys(answer=[{**KEY, "d": "private"}]), [KEY], Status.WRONG),
        (all_keys(answer=[{**KEY, "kty": "RSA", "alg": "RS256"}]), [KEY], Status.WRONG),
        (all_keys(answer=[KEY, {**KEY, "kid": "k2"}, {**KEY, "kid": "k3"}]), [KEY], Status.WARN),
        (all_keys(), [{**KEY, "kid": "other"}], Status.WRONG),
        (all_keys(), [], Status.WRONG),
    ],
    ids=["sound", "none", "private", "another kind", "three", "others published", "none published"],
)
def test_the_public_keys(api: ApiServer, keys: dict[str, Any], published: list[Any], status: Status) -> None:
    """Whoever verifies tokens or evidence rests on these; a private part among them is everything lost."""
    api.keys = keys
    api.answer("GET /.well-known/jwks.json", status=200, body={"keys": published})
    assert statuses(looked(api.url, "public keys")) == [status]


def test_where_people_log_in(api: ApiServer) -> None:
    """A provider that moved, or that is not the one that was declared: nobody can log in, and nobody knows why."""
    route = "GET /v1/login"
    discovery = "GET /.well-known/openid-configuration"
    api.answer(route, status=200, body={"issuers": [{"name": "people", "issuer": api.url}]})
    api.answer(discovery, status=200, body={"issuer": api.url})
    assert statuses(looked(api.url, "login")) == [Status.OK]
    api.answer(route, status=200, body={"issuers": [{"name": "people", "issuer": api.url}]})
    api.answer(discovery, status=200, body={"issuer": "https://another.example"})
    assert statuses(looked(api.url, "login")) == [Status.WRONG]
    api.answer(route, status=200, body={"issuers": [{"name": "people", "issuer": f"http://127.0.0.1:{free()}"}]})
    assert statuses(looked(api.url, "login")) == [Status.WRONG]
    api.answer(route, status=500, body={"code": "internal"})
    assert statuses(looked(api.url, "login")) == [Status.WRONG]


def test_an_issuer_on_plain_http_elsewhere_is_not_asked(api: ApiServer) -> None:
    """What answers there is anybody."""
    api.answer("GET /v1/login", status=200, body={"issuers": [{"name": "x", "issuer": "http://192.0.2.1"}]})
    (told,) = looked(api.url, "login")
    assert "is not spoken" in told.what


@contextmanager
def door(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Give the port of a server that does ``serve`` with each of its connections."""
    listener = socket.create_server(("127.0.0.1", 0))

    def loop() -> None:
        with suppress(OSError):  # the test is over
            while True:
                client, _ = listener.accept()
                with client, suppress(OSError):
                    client.settimeout(5)
                    serve(client)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(loop)
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def postgres_with(identity: ServerIdentity) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)

    def serve(client: socket.socket) -> None:
        assert client.recv(8) == b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
        client.sendall(b"S")
        with context.wrap_socket(client, server_side=True) as secured:
            secured.recv(1)

    return serve


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ServerIdentity:
    return make_server_identity(tmp_path_factory.mktemp("authority"), SystemClock())


def test_the_brokers_postgresql_door(identity: ServerIdentity, tmp_path: Path) -> None:
    """Sound; soon to end; of another authority; without TLS; shut: each is another thing to do."""
    now = SystemClock().now()
    stranger = make_server_identity(tmp_path / "stranger", SystemClock())

    def seen(port: int, *, days: int = 0, authority: ServerIdentity = identity) -> Told:
        told = {"COUNTERSIGN_BROKER_HOST": "localhost", "COUNTERSIGN_BROKER_POSTGRES_PORT": str(port)}
        told["COUNTERSIGN_BROKER_CA_PEM"] = authority.authority_pem().replace("\n", "\\n")
        (found,) = looked("http://127.0.0.1:1", "broker", FakeClock(now + timedelta(days=days)), **told)
        return found

    with door(postgres_with(identity)) as port:
        assert seen(port).status is Status.OK
        soon = seen(port, days=20)
        assert (soon.status, "ends in" in soon.what) == (Status.WARN, True)
        assert "is not trusted" in seen(port, authority=stranger).what
        assert seen(port, authority=stranger).status is Status.WRONG
    with door(lambda client: client.sendall(b"N")) as port:
        assert "speaks no TLS" in seen(port).what
    assert seen(free()).status is Status.WRONG


@pytest.mark.parametrize(
    ("banner", "status"), [(b"SSH-2.0-x\r\n", Status.OK), (b"220 mail\r\n", Status.WRONG), (b"", Status.WRONG)]
)
def test_the_brokers_ssh_door(banner: bytes, status: Status) -> None:
    """A balancer whose target is something else takes connections all the same."""
    with door(lambda client: client.sendall(banner)) as port:
        told = {"COUNTERSIGN_BROKER_HOST": "127.0.0.1", "COUNTERSIGN_BROKER_SSH_PORT": str(port)}
        assert statuses(looked("http://127.0.0.1:1", "broker", FakeClock(), **told)) == [status]


def target(protocol: Protocol, port: int, **changed: Any) -> Target:
    fields = dict[str, Any](
        name="t",
        protocol=protocol,
        environment="prod",
        description="",
        host="127.0.0.1",
        port=port,
        database="d",
        principals=(Principal(name="p", credential="c"),),
        default_principal="p",
        ca_pem="",
        plaintext=False,
        search_path=(),
        tags=(),
        max_session_s=60,
        max_connections=1,
        hold_budget_s=1,
        durable=False,
    )
    return Target(**(fields | changed))


def test_a_postgresql_target(identity: ServerIdentity) -> None:
    """With targets.yaml's own authority, from where the command runs."""
    with door(postgres_with(identity)) as port:
        sound = target(Protocol.POSTGRES, port, host="localhost", ca_pem=identity.authority_pem())
        assert statuses(list(look_at(sound, {}))) == [Status.OK]
        other = target(Protocol.POSTGRES, port, host="localhost")
        assert statuses(list(look_at(other, {}))) == [Status.WRONG]
    with door(lambda client: client.sendall(b"N")) as port:
        assert statuses(list(look_at(target(Protocol.POSTGRES, port), {}))) == [Status.WRONG]
        assert statuses(list(look_at(target(Protocol.POSTGRES, port, plaintext=True), {}))) == [Status.OK]
    assert statuses(list(look_at(target(Protocol.POSTGRES, free()), {}))) == [Status.WRONG]


def test_the_host_key_of_an_ssh_target(tmp_path: Path) -> None:
    """Another key is a machine that was installed anew, or somebody between: never learnt, always said."""
    scan = tmp_path / "ssh-keyscan"
    scan.write_text(f'#!/bin/sh\necho "# a comment"\necho "127.0.0.1 ssh-ed25519 {HOST_KEY}"\n')
    scan.chmod(0o755)
    other = HOST_KEY[:-4] + "AAAA"
    with door(lambda client: client.sendall(b"SSH-2.0-x\r\n")) as port:

        def seen(*keys: str, path: str = str(tmp_path)) -> Status:
            (told,) = look_at(target(Protocol.SSH, port, host_keys=keys), {"PATH": path})
            return told.status

        assert seen(f"ssh-ed25519 {HOST_KEY}") is Status.OK
        assert seen(f"ssh-ed25519 {other}", f"ssh-ed25519 {HOST_KEY}") is Status.OK
        assert seen(f"ssh-ed25519 {other}") is Status.WRONG
        assert seen(f"@cert-authority ssh-ed25519 {HOST_KEY}") is Status.UNKNOWN
        assert seen(f"ssh-ed25519 {HOST_KEY}", path=str(tmp_path / "nothing")) is Status.UNKNOWN
    assert statuses(list(look_at(target(Protocol.SSH, free(), host_keys=()), {}))) == [Status.WRONG]


def test_a_check_that_never_answers_holds_up_nothing() -> None:
    """One dead address in thirty checks: the others are told, in order, and this one as unseen."""
    over = threading.Event()

    def stuck() -> list[Told]:
        over.wait(30)
        return [ok("late")]

    checks = [Check(name="stuck", look=stuck), Check(name="sound", look=lambda: [ok("sound")])]
    found = look_at_all(checks, SystemClock(), within_s=0.2)
    over.set()
    assert [(one.name, one.told[0].status) for one in found] == [("stuck", Status.UNKNOWN), ("sound", Status.OK)]


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (StoreUnavailable("x", error="AccessDeniedException"), "may not look"),
        (StoreUnavailable("a service could not be reached", error="Throttling"), "Throttling"),
        (ModuleNotFoundError(name="boto3"), "base install"),
        (TimeoutError(), "no answer"),
        (KeyError("secret-value"), "KeyError"),
    ],
    ids=["denied", "throttled", "base install", "timeout", "our fault"],
)
def test_what_stops_a_check_is_its_answer(raised: Exception, says: str) -> None:
    """Never taken for sound, never a traceback, never what the error held; and what was found before is kept."""

    def look() -> Iterator[Told]:
        yield wrong("found before", "fix")
        raise raised

    before, stopped = answer(Check(name="c", look=look))
    assert before.what == "found before"
    assert stopped.status is Status.UNKNOWN
    assert says in stopped.what
    assert "secret-value" not in stopped.what


def test_what_many_have_in_common_is_said_once() -> None:
    """Eleven tables without backups are one thing to do."""
    told = grouped([("a", wrong("w", "f")), ("b", wrong("w", "f")), ("b", wrong("v", "f"))], "table")
    assert [one.what for one in told] == ["table a, b: w", "table b: v"]
