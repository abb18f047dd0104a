"""Gets the caller's own OIDC token, and exchanges it for ours (RFC 8693).

The issuer's token comes from ``COUNTERSIGN_ID_TOKEN``, else from the GitHub Actions runner, asked with the API's own
origin as audience: a token that another service gets hold of is then no use to it, nor theirs to us. Nothing is written
to disk and nothing is kept after the process.

What it does not do: verify the token; the service does. Source: docs.github.com "OpenID Connect reference", section
"Methods for requesting the OIDC token"; RFC 8693 section 2.1.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from chalicelib.domain.secret import Secret
from countersign.address import Address, parse_address
from countersign.api import Clock, HttpClient, text_of
from countersign.failures import Exit, Failure
from countersign.settings import Settings

# Three base64url parts; 16 KiB is twice the largest header that a load balancer takes.
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_MAX_TOKEN: Final = 16 * 1024
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
_NEARLY_OVER_S: Final = 20.0  # one poll waits 5 s and may be retried: a token with less left is changed first


class Tokens:
    """Gives the bearer token for each call, exchanging again when it runs out and the CI can give another."""

    def __init__(self, settings: Settings, http: HttpClient, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._clock = clock
        self._token: Secret | None = None
        self._good_until_s = 0.0

    def bearer(self) -> Secret:
        """Return a token that is good for the next call. Raises Failure: denied, unreachable, or usage where there is
        no issuer's token to be had."""
        if self._token is not None and (
            self._clock.monotonic_s() < self._good_until_s - _NEARLY_OVER_S or self._settings.id_token is not None
        ):
            # A token given in the environment is accepted once, so ours is used up to its end and the refusal is
            # the service's own to word.
            return self._token
        issued = id_token(self._settings, self._http.address, self._clock)
        form = {
            "grant_type": EXCHANGE,
            "subject_token": issued.expose(),
            "subject_token_type": ID_TOKEN,
            "audience": self._http.address.origin,
        }
        answer = self._http.call(
            "POST",
            self._http.address.url("/v1/token"),
            body=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            repeatable=False,  # an issuer's token is accepted once
        )
        token, lifetime = text_of(answer.body, "access_token"), answer.body.get("expires_in")
        if not _JWT.match(token) or len(token) > _MAX_TOKEN or not isinstance(lifetime, int):
            raise Failure(Exit.UNREACHABLE, "the service's answer to the token exchange makes no sense")
        self._token = Secret(token)
        self._good_until_s = self._clock.monotonic_s() + lifetime
        return self._token


def id_token(settings: Settings, api: Address, clock: Clock) -> Secret:
    """Return the token by which the CI says who this job is. Raises Failure (usage) where there is none."""
    if settings.id_token is not None:
        return _checked(settings.id_token, "COUNTERSIGN_ID_TOKEN")
    if settings.github_url and settings.github_token is not None:
        return _from_github(settings.github_url, settings.github_token, api, clock)
    raise Failure(
        Exit.USAGE,
        "there is no token that says who this job is",
        hint="Give the job `permissions: id-token: write` (GitHub), or put your CI's OIDC token, with "
        f"{api.origin} as its audience, into COUNTERSIGN_ID_TOKEN.",
    )


def _from_github(url: str, token: Secret, api: Address, clock: Clock) -> Secret:
    parts = urlsplit(url)
    runner = parse_address(f"{parts.scheme}://{parts.netloc}", "ACTIONS_ID_TOKEN_REQUEST_URL")
    joiner = "&" if parts.query else "?"
    answer = HttpClient(runner, clock).call(
        "GET", f"{url}{joiner}audience={quote(api.origin, safe='')}", bearer=token, repeatable=True
    )
    return _checked(Secret(text_of(answer.body, "value")), "the token that the runner gave")


def _checked(token: Secret, what: str) -> Secret:
    value = token.expose()
    if len(value) > _MAX_TOKEN or not _JWT.match(value):
        raise Failure(Exit.USAGE, f"{what} is not a signed token (three parts, JWS compact form)")
    return token
