"""The local identity provider: the device flow of RFC 8628, refusals included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest

from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.identity import Person
from dev.people_issuer import CLIENT_ID, CODE_S, DEVICE_GRANT, INTERVAL_S, PeopleIssuer
from tests.fakes.clock import FakeClock
from tests.unit.dev.calling import call

CAROL = Person(
    id=PersonId("carol"), name="Carol Clark", groups=("security",), slack_team="T", slack_user="U", aliases=()
)


class Provider:
    """The provider, and what a command line and a person do with it."""

    def __init__(self, issuer: PeopleIssuer, clock: FakeClock) -> None:
        self.issuer = issuer
        self.clock = clock

    def begin(self, client: str = CLIENT_ID) -> tuple[int, Any]:
        return call(f"{self.issuer.url}/device_authorization", urlencode({"client_id": client}).encode())

    def poll(self, device_code: str, **form: str) -> tuple[int, Any]:
        sent = {"grant_type": DEVICE_GRANT, "device_code": device_code, "client_id": CLIENT_ID, **form}
        return call(f"{self.issuer.url}/token", urlencode(sent).encode())

    def decide(self, user_code: str, decision: str = "confirm", person: str = "carol") -> tuple[int, Any]:
        said = {"user_code": user_code, "person": person, "decision": decision}
        return call(self.issuer.device_url, said)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)


@pytest.fixture
def provider() -> Iterator[Provider]:
    clock = FakeClock()
    issuer = PeopleIssuer(clock, people=[CAROL])
    issuer.start()
    yield Provider(issuer, clock)
    issuer.stop()


def test_a_confirmed_code_gives_one_token_of_that_person(provider: Provider) -> None:
    """What the command line exchanges: signed, for its client, with the groups that teams rest on."""
    told = provider.begin()[1]
    assert told["verification_uri"] == provider.issuer.device_url
    assert told["user_code"] in told["verification_uri_complete"]
    assert provider.poll(told["device_code"]) == (400, {"error": "authorization_pending"})
    assert provider.decide(told["user_code"].lower().replace("-", " "))[0] == 200
    provider.wait(INTERVAL_S)
    status, given = provider.poll(told["device_code"])
    assert (status, given["token_type"]) == (200, "Bearer")
    keys = jwt.PyJWKSet.from_dict(call(f"{provider.issuer.url}/jwks")[1])
    key = keys[jwt.get_unverified_header(given["id_token"])["kid"]].key
    no_times = {"verify_exp": False, "verify_iat": False}
    found = jwt.decode(given["id_token"], key, ["ES256"], audience=CLIENT_ID, options=no_times)  # type: ignore[arg-type]
    assert (found["sub"], found["name"], found["groups"]) == ("carol", "Carol Clark", ["security"])
    assert found["iss"] == provider.issuer.url
    provider.wait(INTERVAL_S)
    assert provider.poll(told["device_code"]) == (400, {"error": "invalid_grant"})


def test_polling_too_fast_is_slowed_down_each_time(provider: Provider) -> None:
    """RFC 8628 section 3.5: a client that ignores it must never come to its token."""
    told = provider.begin()[1]
    provider.decide(told["user_code"])
    assert provider.poll(told["device_code"])[0] == 200
    told = provider.begin()[1]
    provider.poll(told["device_code"])
    assert provider.poll(told["device_code"]) == (400, {"error": "slow_down"})
    provider.decide(told["user_code"])
    provider.wait(INTERVAL_S)
    assert provider.poll(told["device_code"]) == (400, {"error": "slow_down"})
    provider.wait(INTERVAL_S + 10)
    assert provider.poll(told["device_code"])[0] == 200


def test_a_denied_code_stays_denied(provider: Provider) -> None:
    """Whoever was tricked into opening the page says no once."""
    told = provider.begin()[1]
    assert provider.decide(told["user_code"], "deny")[0] == 200
    assert provider.decide(told["user_code"])[0] == 404
    assert provider.poll(told["device_code"]) == (400, {"error": "access_denied"})


def test_a_code_that_nobody_confirmed_in_time_is_over(provider: Provider) -> None:
    """A code that lies around must not log anybody in later."""
    told = provider.begin()[1]
    provider.wait(CODE_S)
    assert provider.decide(told["user_code"])[0] == 404
    assert provider.poll(told["device_code"]) == (400, {"error": "expired_token"})


def test_strangers_clients_codes_and_people_are_refused(provider: Provider) -> None:
    """Each refusal has its own error, so that the command line's words can be tested."""
    assert provider.begin("somebody-else") == (401, {"error": "invalid_client"})
    told = provider.begin()[1]
    assert provider.poll(told["device_code"], client_id="x") == (401, {"error": "invalid_client"})
    assert provider.poll(told["device_code"], grant_type="password") == (400, {"error": "unsupported_grant_type"})
    assert provider.poll("nothing") == (400, {"error": "invalid_grant"})
    assert provider.decide("AAAA-AAAA")[0] == 404
    assert provider.decide(told["user_code"], person="mallory")[0] == 404
    assert provider.decide(told["user_code"], "maybe")[0] == 400


def test_the_page_runs_nothing_inline_and_lists_the_people(provider: Provider) -> None:
    """It shows names out of a bundle that somebody else may have written."""
    status, page = call(provider.issuer.device_url)
    assert status == 200
    assert "<script>" not in page
    assert "onclick" not in page
    assert call(f"{provider.issuer.url}/people")[1] == [{"id": "carol", "name": "Carol Clark", "groups": ["security"]}]


def test_the_discovery_document_names_what_the_command_line_needs(provider: Provider) -> None:
    """It takes the endpoints from nowhere else."""
    found = call(f"{provider.issuer.url}/.well-known/openid-configuration")[1]
    assert found["issuer"] == provider.issuer.url
    assert found["device_authorization_endpoint"] == f"{provider.issuer.url}/device_authorization"
    assert found["token_endpoint"] == f"{provider.issuer.url}/token"


def test_a_token_of_ones_own_making_keeps_what_was_asked(provider: Provider) -> None:
    """Tests of bad tokens ask for exactly one thing to be wrong."""
    token = call(provider.issuer.mint_url, {"sub": "carol", "aud": "x", "groups": None})[1]["token"]
    found = jwt.decode(token, options={"verify_signature": False})
    assert (found["aud"], found["name"]) == ("x", "Carol Clark")
    assert "groups" not in found
