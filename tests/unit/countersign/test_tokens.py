"""Where the caller's own token comes from, and what it is exchanged for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from chalicelib.domain.secret import Secret
from countersign.address import parse_address
from countersign.api import HttpClient
from countersign.failures import Exit, Failure
from countersign.identities import Held
from countersign.proofs import base64url
from countersign.settings import read_settings
from countersign.tokens import Tokens
from countersign.vouching import ID_TOKEN as ID_TOKEN_TYPE
from countersign.vouching import Issued
from tests.fakes.api_server import ACCESS_TOKEN, HOP, HOP_EXPIRES, ID_TOKEN, TICKET, TXN, ApiServer, Seen
from tests.fakes.waiting_clock import WaitingClock


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def tokens(api: ApiServer, environment: Mapping[str, str], clock: WaitingClock) -> Tokens:
    http = HttpClient(parse_address(api.url, "COUNTERSIGN_API"), clock)
    return Tokens(read_settings({"XDG_STATE_HOME": api.state.name, **environment}), http, clock)


def token_of(run: str, number: int = 0, **claims: object) -> str:
    """Return an issuer's token of a run, unlike any other with the same run."""
    told = {"iss": "https://ci.example", "sub": "repo:acme/orders", "run_id": run, "jti": str(number), **claims}
    return f"eyJhbGciOiJSUzI1NiJ9.{base64url(json.dumps(told).encode())}.c2ln"


def kind_of(seen: Seen) -> str:
    """Return what was exchanged."""
    return parse_qs(seen.body.decode())["subject_token_type"][0].rpartition(":")[2]


def github(runner: ApiServer) -> dict[str, str]:
    return {
        "ACTIONS_ID_TOKEN_REQUEST_URL": f"{runner.url}/token?api-version=2.0",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-token",
    }


def test_from_the_environment(api: ApiServer) -> None:
    """The form that RFC 8693 section 2.1 asks for, with the API's own origin as the audience."""
    presented = tokens(api, {"COUNTERSIGN_ID_TOKEN": ID_TOKEN}, WaitingClock()).presented()
    assert presented.headers("GET", api.url)["Authorization"].startswith(f"DPoP {ACCESS_TOKEN}")
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
        tokens(api, github(runner), WaitingClock()).presented()
        (asked,) = runner.seen
    assert asked.query == {"api-version": ["2.0"], "audience": [api.url]}
    assert asked.headers["Authorization"] == "Bearer runner-token"


def test_the_runners_address_must_be_https_too(api: ApiServer) -> None:
    """Attack: a step before ours points the runner's address at a collector."""
    environment = {"ACTIONS_ID_TOKEN_REQUEST_URL": "http://evil.example/t", "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "x"}
    with pytest.raises(Failure) as caught:
        tokens(api, environment, WaitingClock()).presented()
    assert caught.value.exit_code is Exit.USAGE
    assert api.seen == []


def test_one_exchange_serves_until_it_nearly_ends(api: ApiServer) -> None:
    """Each exchange uses up an issuer's token and leaves a fact: one is enough while it is good."""
    clock = WaitingClock()
    with ApiServer() as runner:
        runner.answer("GET /token", status=200, body={"value": ID_TOKEN})
        given = tokens(api, github(runner), clock)
        given.presented()
        clock.advance(100)
        given.presented()
        assert len(api.calls("POST /v1/token")) == 1
        clock.advance(190)
        given.presented()
        assert len(api.calls("POST /v1/token")) == 2


def test_a_token_from_the_environment_is_never_sent_twice(api: ApiServer) -> None:
    """The service takes each issuer's token once and would call a second one a replay: our own is changed for a new
    one by its key."""
    clock = WaitingClock()
    given = tokens(api, {"COUNTERSIGN_ID_TOKEN": ID_TOKEN}, clock)
    given.presented()
    clock.advance(10_000)
    given.presented()
    kinds = [kind_of(seen) for seen in api.calls("POST /v1/token")]
    assert kinds == ["id_token", "access_token"]


@pytest.mark.parametrize("value", ["not-a-token", "a.b", "a.b.c.d", "a.b.c\r\nX-Evil: 1", "a.b." + "c" * 20_000])
def test_what_is_no_token_is_not_sent(api: ApiServer, value: str) -> None:
    """A password that somebody put into the wrong variable must not travel."""
    with pytest.raises(Failure) as caught:
        tokens(api, {"COUNTERSIGN_ID_TOKEN": value}, WaitingClock()).presented()
    assert caught.value.exit_code is Exit.USAGE
    assert value not in caught.value.message
    assert api.seen == []


def test_no_token_at_all_says_what_to_do(api: ApiServer) -> None:
    """The commonest first failure of a pipeline: the job has no id-token permission."""
    with pytest.raises(Failure) as caught:
        tokens(api, {}, WaitingClock()).presented()
    assert "id-token: write" in caught.value.hint
    assert api.url in caught.value.hint


GOOD = {
    "access_token": f"{ACCESS_TOKEN}AA",
    "token_type": "DPoP",
    "expires_in": 300,
    "txn": TXN,
    "hop": HOP,
    "hop_expires_at": HOP_EXPIRES,
}


@pytest.mark.parametrize(
    "changed",
    [
        {"access_token": "x\r\nX-Evil: 1"},
        {"access_token": ""},
        {"expires_in": None},
        {"expires_in": "300"},
        {"expires_in": True},
        {"expires_in": 10**9},
        {"txn": "../../etc"},
        {"hop": ""},
        {"hop_expires_at": "tomorrow"},
    ],
)
def test_an_answer_that_makes_no_sense(api: ApiServer, changed: dict[str, object]) -> None:
    """Attack: a token with a line break in it would add a header to every later request."""
    api.answer("POST /v1/token", status=200, body=GOOD | changed)
    with pytest.raises(Failure) as caught:
        tokens(api, {"COUNTERSIGN_ID_TOKEN": ID_TOKEN}, WaitingClock()).presented()
    assert caught.value.exit_code is Exit.UNREACHABLE


def test_a_token_that_is_not_bound_to_our_key_is_not_used(api: ApiServer) -> None:
    """Attack: whoever answers hands out bearer tokens, so that a thief of one could use it."""
    api.token_type = "Bearer"
    with pytest.raises(Failure, match="not bound"):
        tokens(api, {"COUNTERSIGN_ID_TOKEN": ID_TOKEN}, WaitingClock()).presented()


def test_a_later_step_of_the_job_goes_on_as_the_same_root(api: ApiServer) -> None:
    """A run has one root: the second process finds the key, and needs no second token of the issuer."""
    environment = {"COUNTERSIGN_ID_TOKEN": token_of("7")}
    first, second = (tokens(api, environment, WaitingClock()) for _ in range(2))
    assert first.held().key.thumbprint == second.held().key.thumbprint
    assert len(api.calls("POST /v1/token")) == 1


def test_another_runs_identity_is_never_used(api: ApiServer) -> None:
    """Attack: a self-hosted runner keeps its home, and the next job finds the last one's key and token there."""
    first = tokens(api, {"COUNTERSIGN_ID_TOKEN": token_of("7")}, WaitingClock()).held()
    second = tokens(api, {"COUNTERSIGN_ID_TOKEN": token_of("8")}, WaitingClock()).held()
    assert first.key.thumbprint != second.key.thumbprint
    assert len(api.roots) == 2


def test_another_runs_identity_at_a_named_path_is_refused(api: ApiServer) -> None:
    """Attack: ... and the path is one that every job names."""
    named = {"COUNTERSIGN_IDENTITY": f"{api.state.name}/mine.json"}
    tokens(api, named | {"COUNTERSIGN_ID_TOKEN": token_of("7")}, WaitingClock()).held()
    tokens(api, named | {"COUNTERSIGN_ID_TOKEN": token_of("7", 1)}, WaitingClock()).held()
    with pytest.raises(Failure, match="another run") as caught:
        tokens(api, named | {"COUNTERSIGN_ID_TOKEN": token_of("8")}, WaitingClock()).held()
    assert caught.value.exit_code is Exit.USAGE


def test_a_job_is_never_the_person_who_logged_in_on_its_runner(api: ApiServer) -> None:
    """Attack: a job without a token of its own runs where somebody once typed `countersign login`."""
    issued = Issued(token=Secret(token_of("")), kind=ID_TOKEN_TYPE, run="")
    tokens(api, {}, WaitingClock()).begin(issued)
    assert tokens(api, {}, WaitingClock()).held().txn == TXN, "the person's own terminal"
    with pytest.raises(Failure, match="no token that says who this is"):
        tokens(api, {"CI": "true"}, WaitingClock()).held()


def test_an_identity_is_shown_to_its_own_service_alone(api: ApiServer) -> None:
    """Attack: a false API address collects tokens, or proofs that it can use: the file says whose it is."""
    named = {"COUNTERSIGN_IDENTITY": f"{api.state.name}/mine.json"}
    tokens(api, named | {"COUNTERSIGN_ID_TOKEN": token_of("7")}, WaitingClock()).held()
    with ApiServer() as false:
        with pytest.raises(Failure, match="another service"):
            tokens(false, named, WaitingClock()).held()
        assert false.seen == []


def test_a_process_that_lacks_the_runs_key_is_told_what_to_do(api: ApiServer, tmp_path: Path) -> None:
    """Another process of the job fetched the job's token and asks for a root of its own: refused, in words that say
    both how to do it right and that it may be a theft."""
    tokens(api, {"COUNTERSIGN_ID_TOKEN": token_of("7")}, WaitingClock()).held()
    elsewhere = {"COUNTERSIGN_ID_TOKEN": token_of("7", 1), "XDG_STATE_HOME": str(tmp_path)}
    with pytest.raises(Failure) as caught:
        tokens(api, elsewhere, WaitingClock()).held()
    assert (caught.value.exit_code, caught.value.code) == (Exit.DENIED, "run_bound")
    assert "countersign delegate" in caught.value.hint
    assert "somebody took the job's token" in caught.value.hint


def test_where_its_own_token_is_refused_the_issuers_of_the_same_run_goes_on(api: ApiServer) -> None:
    """A token that ran out for good is not the end of the job, as long as the CI still vouches for it."""
    clock = WaitingClock()
    first = tokens(api, {"COUNTERSIGN_ID_TOKEN": token_of("7")}, clock).held()
    clock.advance(10_000)
    api.hop_over = True
    again = tokens(api, {"COUNTERSIGN_ID_TOKEN": token_of("7", 1)}, clock).held()
    assert again.key.thumbprint == first.key.thumbprint
    kinds = [kind_of(seen) for seen in api.calls("POST /v1/token")]
    assert kinds == ["id_token", "access_token", "id_token"]


def test_a_hop_that_is_over_says_how_to_go_on(api: ApiServer) -> None:
    """An agent whose hop has ended has no issuer to fall back on: it hears whom to ask."""
    clock = WaitingClock()
    named = {"COUNTERSIGN_IDENTITY": f"{api.state.name}/agent.json"}
    tokens(api, named | {"COUNTERSIGN_ID_TOKEN": token_of("7")}, clock).held()
    clock.advance(10_000)
    api.hop_over = True
    with pytest.raises(Failure) as caught:
        tokens(api, named, clock).held()
    assert caught.value.exit_code is Exit.DENIED
    assert "new ticket" in caught.value.hint


def test_a_ticket_that_was_not_redeemed_begins_no_chain_of_its_own(api: ApiServer) -> None:
    """A child that has a ticket and a token must not become a root: its parent would be missing from every record."""
    environment = {"COUNTERSIGN_TICKET": TICKET, "COUNTERSIGN_ID_TOKEN": token_of("7")}
    with pytest.raises(Failure) as caught:
        tokens(api, environment, WaitingClock()).held()
    assert "countersign agent" in caught.value.hint
    assert api.seen == []


def test_a_projected_token_is_a_roots_own(api: ApiServer, tmp_path: Path) -> None:
    """Kubernetes: the pod's own token, read anew each time; two pods of one service account are two runs."""
    path = tmp_path / "token"
    held: list[Held] = []
    for pod in ("a", "b", "a"):
        claims = {"kubernetes.io": {"namespace": "deploy", "pod": {"name": "x", "uid": pod}}}
        path.write_text(token_of("", len(held), **claims) + "\n")
        held.append(tokens(api, {"COUNTERSIGN_ACTOR_TOKEN_FILE": str(path)}, WaitingClock()).held())
    assert held[0].key.thumbprint == held[2].key.thumbprint != held[1].key.thumbprint
    assert kind_of(api.seen[0]) == "jwt"


def test_a_key_needs_no_token(api: ApiServer) -> None:
    """A container without an issuer prints its thumbprint before anybody knows it; the same one every time."""
    named = {"COUNTERSIGN_IDENTITY": f"{api.state.name}/c.json", "CI": "true"}
    first, again = (tokens(api, named, WaitingClock()).thumbprint() for _ in range(2))
    assert first == again
    assert len(first) == 43
    assert api.seen == []


def test_settings_never_show_a_token() -> None:
    """Settings end up in tracebacks and debuggers."""
    told = {"COUNTERSIGN_ID_TOKEN": ID_TOKEN, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner-token"}
    settings = read_settings(told | {"COUNTERSIGN_TICKET": TICKET})
    assert not [secret for secret in (ID_TOKEN, "runner-token", TICKET) if secret in repr(settings)]
