"""Where the caller's own token comes from, and what it is exchanged for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import parse_qs

import pytest

from countersign.address import parse_address
from countersign.api import HttpClient
from countersign.failures import Exit, Failure
from countersign.settings import read_settings
from countersign.tokens import Tokens
from tests.fakes.api_server import ACCESS_TOKEN, ID_TOKEN, ApiServer
from tests.fakes.waiting_clock import WaitingClock


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def tokens(api: ApiServer, environment: Mapping[str, str], clock: WaitingClock) -> Tokens:
    http = HttpClient(parse_address(api.url, "COUNTERSIGN_API"), clock)
    return Tokens(read_settings(environment), http, clock)


def github(runner: ApiServer) -> dict[str, str]:
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{runner.url}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-token",
    }


def test_from_the_environment(api: ApiServer) -> None:
    """The form that RFC 8693 section 2.1 asks for, with the API's own origin as the audience."""
    bearer = tokens(api, {"COUNTERSIGN_ID_TOKEN": ID_TOKEN}, WaitingClock()).bearer()
    assert bearer.expose() == ACCESS_TOKEN
    (seen,) = api.seen
    assert parse_qs(seen.body.decode()) == {
        "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "subject_token": [ID_TOKEN],
        "subject_token_type": ["urn:ietf:params:oauth:token-type:id_token"],
        "audience": [api.url],
    }
    assert seen.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_a_token_that_the_runner_gives_names_this_api_as_its_audience(api: ApiServer) -> None:
    """Attack: a false API address collects a token that the true one would accept: it names the false one."""
    with ApiServer() as runner:
        runner.answer("GET /token", status=200, body={"value": ID_TOKEN})
        tokens(api, github(runner), WaitingClock()).bearer()
        (asked,) = runner.seen
    assert asked.query == {"api-version": ["2.0"], "audience": [api.url]}
    assert asked.headers["Authorization"] == "Bearer runner-token"


def test_the_runners_address_must_be_https_too(api: ApiServer) -> None:
    """Attack: a step before ours points the runner's address at a collector."""
    environment = {"ACTIONS_ID_TOKEN_REQUEST_URL": "http://evil.example/t", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x"}
    with pytest.raises(Failure) as caught:
        tokens(api, environment, WaitingClock()).bearer()
    assert caught.value.exit_code is Exit.USAGE
    assert api.seen == []


def test_one_exchange_serves_until_it_nearly_ends(api: ApiServer) -> None:
    """Each exchange uses up an issuer's token and leaves a fact: one is enough while it is good."""
    clock = WaitingClock()
    with ApiServer() as runner:
        for _ in range(2):
            runner.answer("GET /token", status=200, body={"value": ID_TOKEN})
        given = tokens(api, github(runner), clock)
        given.bearer()
        clock.advance(100)
        given.bearer()
        assert len(api.calls("POST /v1/token")) == 1
        clock.advance(190)
        given.bearer()
        assert len(api.calls("POST /v1/token")) == 2


def test_a_token_from_the_environment_is_never_sent_twice(api: ApiServer) -> None:
    """The service takes each issuer's token once and would call a second one a replay."""
    clock = WaitingClock()
    given = tokens(api, {"COUNTERSIGN_ID_TOKEN": ID_TOKEN}, clock)
    given.bearer()
    clock.advance(10_000)
    given.bearer()
    assert len(api.calls("POST /v1/token")) == 1


@pytest.mark.parametrize("value", ["not-a-token", "a.b", "a.b.c.d", "a.b.c\r\nX-Evil: 1", "a.b." + "c" * 20_000])
def test_what_is_no_token_is_not_sent(api: ApiServer, value: str) -> None:
    """A password that somebody put into the wrong variable must not travel."""
    with pytest.raises(Failure) as caught:
        tokens(api, {"COUNTERSIGN_ID_TOKEN": value}, WaitingClock()).bearer()
    assert caught.value.exit_code is Exit.USAGE
    assert value not in caught.value.message
    assert api.seen == []


def test_no_token_at_all_says_what_to_do(api: ApiServer) -> None:
    """The commonest first failure of a pipeline: the job has no id-token permission."""
    with pytest.raises(Failure) as caught:
        tokens(api, {}, WaitingClock()).bearer()
    assert "id-token: write" in caught.value.hint
    assert api.url in caught.value.hint


@pytest.mark.parametrize(
    "body",
    [
        {"access_token": "x\r\nX-Evil: 1", "expires_in": 300},
        {"access_token": ACCESS_TOKEN},
        {"access_token": ACCESS_TOKEN, "expires_in": "300"},
        {"expires_in": 300},
    ],
)
def test_an_answer_that_makes_no_sense(api: ApiServer, body: dict[str, object]) -> None:
    """Attack: a token with a line break in it would add a header to every later request."""
    api.answer("POST /v1/token", status=200, body=body)
    with pytest.raises(Failure) as caught:
        tokens(api, {"COUNTERSIGN_ID_TOKEN": ID_TOKEN}, WaitingClock()).bearer()
    assert caught.value.exit_code is Exit.UNREACHABLE


def test_settings_never_show_a_token() -> None:
    """Settings end up in tracebacks and debuggers."""
    settings = read_settings({"COUNTERSIGN_ID_TOKEN": ID_TOKEN, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-token"})
    assert ID_TOKEN not in repr(settings)
    assert "runner-token" not in repr(settings)
