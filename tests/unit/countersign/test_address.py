"""Where a token may go."""

from __future__ import annotations

import pytest

from countersign.address import parse_address, same_origin
from countersign.failures import Exit, Failure


@pytest.mark.parametrize(
    ("text", "origin", "path"),
    [
        ("https://cs.example.com", "https://cs.example.com", ""),
        ("https://cs.example.com/", "https://cs.example.com", ""),
        (
            "https://abc.execute-api.eu-west-1.amazonaws.com/api/",
            "https://abc.execute-api.eu-west-1.amazonaws.com",
            "/api",
        ),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000", ""),
        ("http://127.9.9.9:8000", "http://127.9.9.9:8000", ""),
        ("http://[::1]:8000", "http://[::1]:8000", ""),
        ("http://localhost:8000", "http://localhost:8000", ""),
    ],
)
def test_accepted(text: str, origin: str, path: str) -> None:
    """Off this machine https, on it http too; the origin is what the CI's token names as its audience."""
    address = parse_address(text, "COUNTERSIGN_API")
    assert (address.origin, address.path) == (origin, path)


@pytest.mark.parametrize(
    "text",
    [
        "http://cs.example.com",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://2130706433",
        "http://0.0.0.0:8000",
        "http://169.254.169.254",
        "http://user@127.0.0.1",
        "https://user:pass@cs.example.com",
        "https://cs.example.com?x=1",
        "https://cs.example.com#x",
        "https://cs.example.com/../x y",
        "https://cs.example.com:port",
        "https://",
        "ftp://cs.example.com",
        "file:///etc/passwd",
        "cs.example.com",
        "",
    ],
)
def test_http_off_loopback_and_other_false_addresses(text: str) -> None:
    """Attack: a false API address collects CI tokens."""
    with pytest.raises(Failure) as caught:
        parse_address(text, "COUNTERSIGN_API")
    assert caught.value.exit_code is Exit.USAGE


def test_a_path_is_followed_on_the_services_own_base() -> None:
    """API Gateway serves under a stage: `/v1/...` means under it, unless the answer names the stage itself."""
    address = parse_address("https://cs.example.com/api", "COUNTERSIGN_API")
    assert same_origin(address, "/v1/sessions/x") == "https://cs.example.com/api/v1/sessions/x"
    assert same_origin(address, "/api/v1/sessions/x") == "https://cs.example.com/api/v1/sessions/x"
    assert same_origin(address, "https://cs.example.com/api/v1/x") == "https://cs.example.com/api/v1/x"


@pytest.mark.parametrize(
    "told",
    [
        "https://evil.example/v1",
        "https://cs.example.com.evil.example/v1",
        "https://cs.example.com@evil.example/",
        "http://cs.example.com/v1",
        "//evil.example/v1",
        "/\\evil.example/v1",
        "v1/sessions",
        "",
    ],
)
def test_a_poll_address_elsewhere_is_not_followed(told: str) -> None:
    """Attack: `poll` in an answer takes the bearer token to another host."""
    with pytest.raises(Failure):
        same_origin(parse_address("https://cs.example.com", "COUNTERSIGN_API"), told)
