"""`countersign login`: RFC 8628 against a real HTTP server in the provider's place."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from countersign.__main__ import main
from tests.fakes.api_server import ID_TOKEN, TXN, ApiServer
from tests.fakes.waiting_clock import WaitingClock

CONFIGURATION = "GET /.well-known/openid-configuration"
DEVICE, TOKEN = "POST /device", "POST /token"


@pytest.fixture
def provider() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


@pytest.fixture
def api(provider: ApiServer) -> Iterator[ApiServer]:
    with ApiServer() as server:
        people = {"name": "people", "issuer": provider.url, "client_id": "countersign-cli", "scope": "openid groups"}
        server.answer("GET /v1/login", status=200, body={"issuers": [people]})
        yield server


def discovery(provider: ApiServer, **changed: object) -> None:
    told = {"issuer": provider.url, "device_authorization_endpoint": f"{provider.url}/device"}
    provider.answer(CONFIGURATION, status=200, body=told | {"token_endpoint": f"{provider.url}/token"} | changed)


def device(provider: ApiServer, **changed: object) -> None:
    told = {"device_code": "device-code", "user_code": "WDJB-MJHT", "verification_uri": f"{provider.url}/activate"}
    provider.answer(DEVICE, status=200, body=told | {"expires_in": 600, "interval": 5} | changed)


def says(provider: ApiServer, *errors: str) -> None:
    for error in errors:
        provider.answer(TOKEN, status=400, body={"error": error, "error_description": "d"})


def run(
    api: ApiServer, *arguments: str, clock: WaitingClock | None = None, more: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    environment = {"COUNTERSIGN_API": api.url, "XDG_STATE_HOME": api.state.name, **(more or {})}
    code = main(("login", *arguments), environment, out=out, err=err, clock=clock or WaitingClock())
    return code, out.getvalue(), err.getvalue()


def test_a_person_logs_in(api: ApiServer, provider: ApiServer) -> None:
    """The code and where to type it; then the person is a chain's origin, and only our own token is kept."""
    discovery(provider)
    device(provider)
    says(provider, "authorization_pending", "authorization_pending")
    provider.answer(TOKEN, status=200, body={"id_token": ID_TOKEN, "access_token": "theirs", "token_type": "Bearer"})
    code, out, err = run(api)
    assert (code, TXN in out) == (0, True)
    assert "WDJB-MJHT" in err
    assert f"{provider.url}/activate" in err
    asked = parse_qs(provider.calls(DEVICE)[0].body.decode())
    assert asked == {"client_id": ["countersign-cli"], "scope": ["openid groups"]}
    polled = parse_qs(provider.calls(TOKEN)[0].body.decode())
    assert polled["grant_type"] == ["urn:ietf:params:oauth:grant-type:device_code"]
    assert polled["device_code"] == ["device-code"]
    exchanged = parse_qs(api.calls("POST /v1/token")[0].body.decode())
    assert exchanged["subject_token"] == [ID_TOKEN]
    (kept,) = Path(api.state.name, "countersign").glob("*.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert ID_TOKEN not in kept.read_text()
    assert "theirs" not in kept.read_text()


def test_later_commands_are_the_person(api: ApiServer, provider: ApiServer) -> None:
    """`login` once, and `revoke` in an incident needs no token of any CI."""
    discovery(provider)
    device(provider)
    provider.answer(TOKEN, status=200, body={"id_token": ID_TOKEN})
    run(api)
    environment = {"COUNTERSIGN_API": api.url, "XDG_STATE_HOME": api.state.name}
    out = io.StringIO()
    assert main(("revoke", TXN, "--why", "x"), environment, out=out, err=io.StringIO(), clock=WaitingClock()) == 0
    assert len(api.calls("POST /v1/token")) == 1


def test_slow_down_slows_down(api: ApiServer, provider: ApiServer) -> None:
    """RFC 8628 section 3.5: five seconds more each time; a provider locks out who does not."""
    discovery(provider)
    device(provider)
    says(provider, "slow_down", "slow_down", "authorization_pending")
    provider.answer(TOKEN, status=200, body={"id_token": ID_TOKEN})
    clock = WaitingClock()
    assert run(api, clock=clock)[0] == 0
    assert clock.monotonic_s() == 5 + 10 + 15 + 15


@pytest.mark.parametrize(("error", "word"), [("access_denied", "refused"), ("expired_token", "in time")])
def test_a_login_that_fails(api: ApiServer, provider: ApiServer, error: str, word: str) -> None:
    """Denied, in words, and nothing is kept."""
    discovery(provider)
    device(provider)
    says(provider, error)
    code, _, err = run(api)
    assert (code, word in err) == (77, True)
    assert not list(Path(api.state.name).rglob("*.json"))


def test_nobody_is_waited_for_without_end(api: ApiServer, provider: ApiServer) -> None:
    """The code ends, whatever the provider goes on to say."""
    discovery(provider)
    device(provider, expires_in=60)
    says(provider, *["authorization_pending"] * 50)
    clock = WaitingClock()
    assert run(api, clock=clock)[0] == 77
    assert clock.monotonic_s() <= 65


def test_another_issuer_answers_in_its_place(api: ApiServer, provider: ApiServer) -> None:
    """Attack: what answers at the provider's address hands the person to another provider (mix-up)."""
    discovery(provider, issuer="https://evil.example")
    code, _, err = run(api)
    assert (code, "another provider" in err) == (69, True)
    assert not provider.calls(DEVICE)


@pytest.mark.parametrize(
    "changed",
    [
        {"device_authorization_endpoint": "http://evil.example/device"},
        {"device_authorization_endpoint": ""},
        {"device_authorization_endpoint": "file:///etc/passwd"},
        {"token_endpoint": "http://evil.example/token"},
        {"token_endpoint": "https://user:pass@evil.example/token"},
    ],
)
def test_a_login_travels_over_https(api: ApiServer, provider: ApiServer, changed: dict[str, object]) -> None:
    """Attack: a discovery document leads the login over plain http, or to no web server at all."""
    discovery(provider, **changed)
    assert run(api)[0] in {64, 69}
    assert not provider.calls(DEVICE)


@pytest.mark.parametrize(
    "changed",
    [
        {"verification_uri": "http://evil.example/activate"},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "https://x.example/\x1b[2J"},
        {"verification_uri_complete": "file:///etc/passwd"},
        {"user_code": "AB\x1b[2JCD"},
        {"user_code": ""},
        {"device_code": ""},
    ],
)
def test_what_a_person_is_shown_is_checked(api: ApiServer, provider: ApiServer, changed: dict[str, object]) -> None:
    """Attack: the provider's words run in the person's terminal, or send them to a page over plain http."""
    discovery(provider)
    device(provider, **changed)
    code, _, err = run(api)
    assert code in {64, 69}
    assert "\x1b" not in err
    assert not provider.calls(TOKEN)


def test_the_service_names_a_provider_over_plain_http(provider: ApiServer) -> None:
    """Attack: a false API sends people to a provider of its own on the network."""
    with ApiServer() as api:
        entry = {"name": "p", "issuer": "http://idp.example", "client_id": "c", "scope": "openid"}
        api.answer("GET /v1/login", status=200, body={"issuers": [entry]})
        assert run(api)[0] == 64


def test_several_providers_are_a_choice(provider: ApiServer) -> None:
    """Nobody is sent to the first of a list."""
    with ApiServer() as api:
        entries = [{"name": n, "issuer": "https://x", "client_id": "c", "scope": "openid"} for n in ("staff", "guests")]
        api.answer("GET /v1/login", status=200, body={"issuers": entries})
        code, _, err = run(api)
    assert (code, "staff, guests" in err) == (64, True)


def test_a_job_does_not_log_in(api: ApiServer) -> None:
    """Nobody is at a CI's terminal, and what was kept would be the next job's."""
    assert run(api, more={"CI": "true"})[0] == 64
    assert api.seen == []


def test_json(api: ApiServer, provider: ApiServer) -> None:
    """One object on stdout; what to do meanwhile stays on stderr."""
    discovery(provider)
    device(provider, verification_uri_complete=f"{provider.url}/activate?user_code=WDJB-MJHT")
    provider.answer(TOKEN, status=200, body={"id_token": ID_TOKEN})
    code, out, err = run(api, "--json")
    assert (code, json.loads(out)["txn"]) == (0, TXN)
    assert "user_code=WDJB-MJHT" in err
