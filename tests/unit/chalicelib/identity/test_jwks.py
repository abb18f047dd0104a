"""Other issuers' keys: fetched from where they are pinned, rarely, and within bounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from chalicelib.domain.errors import ConfigurationInvalid, StoreUnavailable
from chalicelib.identity.jwks import CACHE_S, FAILED_S, MAX_BYTES, MAX_KEYS, UNKNOWN_KID_S, IssuerKeys, fetch_jwks
from dev.loopback import LoopbackServer, Request, Response, as_json
from tests.fakes.clock import FakeClock

URI = "https://issuer.example/jwks"


class Source:
    """A JWKS that tests change, and a count of how often it was asked for."""

    def __init__(self, *kids: str) -> None:
        self.kids = list(kids)
        self.calls = 0
        self.down = False

    def __call__(self, _uri: str) -> Mapping[str, Any]:
        self.calls += 1
        if self.down:
            raise StoreUnavailable("an issuer's keys could not be read")
        return {"keys": [{"kid": kid, "kty": "RSA", "n": kid} for kid in self.kids]}


def test_keys_are_fetched_once_in_five_minutes() -> None:
    """Each exchange would otherwise wait for the issuer."""
    source, clock = Source("a"), FakeClock()
    keys = IssuerKeys(source, clock)
    for _ in range(3):
        assert keys.key(URI, "a") is not None
    assert source.calls == 1
    clock.advance(CACHE_S)
    assert keys.key(URI, "a") is not None
    assert source.calls == 2


def test_junk_kids_do_not_hammer_the_issuer() -> None:
    """Anybody can write a token with a made-up key id, as often as they like."""
    source, clock = Source("a"), FakeClock()
    keys = IssuerKeys(source, clock)
    for n in range(100):
        assert keys.key(URI, f"junk-{n}") is None
    assert source.calls == 1
    clock.advance(UNKNOWN_KID_S)
    for n in range(100):
        keys.key(URI, f"junk-{n}")
    assert source.calls == 2


def test_a_new_key_is_found_within_a_minute() -> None:
    """Issuers change keys without telling."""
    source, clock = Source("a"), FakeClock()
    keys = IssuerKeys(source, clock)
    assert keys.key(URI, "a") is not None
    source.kids = ["b"]
    clock.advance(UNKNOWN_KID_S)
    assert keys.key(URI, "b") is not None
    assert keys.key(URI, "a") is None  # and the one that was taken back is gone


def test_an_issuer_that_is_down_is_not_asked_at_every_token() -> None:
    """Three seconds of waiting for each would fill the function."""
    source, clock = Source("a"), FakeClock()
    source.down = True
    keys = IssuerKeys(source, clock)
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            keys.key(URI, "a")
    assert source.calls == 1
    source.down = False
    clock.advance(FAILED_S)
    assert keys.key(URI, "a") is not None


def test_stale_keys_are_not_used_while_an_issuer_is_down() -> None:
    """The issuer may have taken a stolen key back just now."""
    source, clock = Source("a"), FakeClock()
    keys = IssuerKeys(source, clock)
    assert keys.key(URI, "a") is not None
    source.down = True
    clock.advance(CACHE_S)
    with pytest.raises(StoreUnavailable):
        keys.key(URI, "a")


def test_issuers_do_not_share_keys() -> None:
    """One issuer's key must not verify another's token."""
    keys = IssuerKeys(lambda uri: {"keys": [{"kid": "a", "kty": "RSA", "n": uri}]}, FakeClock())
    one, two = keys.key("https://one.example/jwks", "a"), keys.key("https://two.example/jwks", "a")
    assert one is not None
    assert two is not None
    assert one.jwk["n"] != two.jwk["n"]


@pytest.mark.parametrize(
    "jwks", [{}, {"keys": None}, {"keys": {"a": 1}}, {"keys": [{"kid": str(n)} for n in range(MAX_KEYS + 1)]}]
)
def test_what_is_no_key_set_is_an_outage(jwks: Mapping[str, Any]) -> None:
    """A page that says "come back later" with status 200 is one."""
    with pytest.raises(StoreUnavailable):
        IssuerKeys(lambda _: jwks, FakeClock()).key(URI, "a")


def test_keys_that_name_nothing_are_left_out() -> None:
    """One id for two keys, no id, a key for encryption: none of them can be asked for."""
    listed: list[Any] = ["x", {"kty": "RSA"}, {"kid": 7}, {"kid": "enc", "use": "enc"}, {"kid": "two"}, {"kid": "two"}]
    keys = IssuerKeys(lambda _: {"keys": [*listed, {"kid": "good"}]}, FakeClock())
    good = keys.key(URI, "good")
    assert good is not None
    assert good.jwk == {"kid": "good"}
    assert [keys.key(URI, kid) for kid in ("enc", "two", "7")] == [None, None, None]


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Request], Response]], LoopbackServer]]:
    """Start servers that answer with a function, and stop them after the test."""
    started: list[LoopbackServer] = []

    def start(answer: Callable[[Request], Response]) -> LoopbackServer:
        server = LoopbackServer("issuer", answer)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


Serve = Callable[[Callable[[Request], Response]], LoopbackServer]


def test_a_key_set_is_fetched_over_http(serve: Serve) -> None:
    """The real fetch, from the loopback address where http is allowed."""
    server = serve(lambda _: as_json({"keys": []}))
    assert fetch_jwks(f"{server.url}/jwks") == {"keys": []}


@pytest.mark.parametrize(
    "uri",
    ["http://issuer.example/jwks", "file:///etc/passwd", "ftp://127.0.0.1/x", "http://127.0.0.1.evil.example/", "jwks"],
)
def test_only_https_off_loopback(uri: str) -> None:
    """Whoever is on the way could answer with a key of their own."""
    with pytest.raises(ConfigurationInvalid):
        fetch_jwks(uri)


def test_a_redirect_is_not_followed(serve: Serve) -> None:
    """The address is pinned; a redirect is somebody else's."""
    elsewhere = serve(lambda _: as_json({"keys": [{"kid": "evil"}]}))
    server = serve(lambda _: Response(status=302, headers={"Location": f"{elsewhere.url}/jwks"}))
    with pytest.raises(StoreUnavailable):
        fetch_jwks(f"{server.url}/jwks")


@pytest.mark.parametrize(
    "response",
    [
        Response(status=500, body=b"{}"),
        Response(status=404, body=b"{}"),
        Response(status=204),
        Response(body=b"<html>"),
        Response(body=b"[]"),
        Response(body=json.dumps({"keys": [], "pad": "x" * MAX_BYTES}).encode()),
    ],
)
def test_a_bad_answer_is_an_outage(serve: Serve, response: Response) -> None:
    """Bounded, parsed strictly, and no reason to let anybody in."""
    server = serve(lambda _: response)
    with pytest.raises(StoreUnavailable):
        fetch_jwks(f"{server.url}/jwks")


def test_nobody_there_is_an_outage(serve: Serve) -> None:
    """A refused connection, at once."""
    server = serve(lambda _: as_json({}))
    url = f"{server.url}/jwks"
    server.stop()
    with pytest.raises(StoreUnavailable):
        fetch_jwks(url)
