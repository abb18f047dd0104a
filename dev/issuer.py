"""The local OIDC issuer: mints tokens of the shape that GitHub Actions gives a job.

Rules: RS256, as GitHub signs (``token_key``); ``POST /mint`` takes a JSON object of claims and fills in only what the
caller did not give, so that a test can ask for a wrong audience, an expired or a not yet valid token. A claim given as
``null`` is left out. ``GET /runner?run=N`` answers as a job's runner does: each call gives a new token of that one run,
so that several commands of a job act under one chain. Anybody on this machine may mint: it vouches for nobody.
Source: docs.github.com "OpenID Connect reference", sections with the example token and "Methods for requesting the OIDC
token".
"""

from __future__ import annotations

import secrets
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from chalicelib.domain.clock import Clock
from dev.loopback import Request, Response, as_json
from dev.served_issuer import ServedIssuer
from dev.token_key import RS256

LIFETIME_S: Final = 300  # GitHub's own tokens live five minutes
_SKEW_S: Final = 5  # nbf lies this far back, as at GitHub, so that a clock a little behind accepts the token


class Issuer(ServedIssuer):
    """The issuer's server. ``audience`` is what a token is for where the caller names none."""

    def __init__(self, clock: Clock, *, audience: str, port: int = 0) -> None:
        super().__init__(clock, "issuer", RS256, port)
        self._audience = audience

    @property
    def jwks_uri(self) -> str:
        return f"{self.url}/jwks"

    def runner_url(self) -> str:
        """Return the address where the jobs of one new run get their tokens (ACTIONS_ID_TOKEN_REQUEST_URL)."""
        return f"{self.url}/runner?run={_new_run()}"

    def answer(self, request: Request) -> Response:
        """Serve one request; any other path is 404."""
        match request.method, request.path:
            case "GET", "/.well-known/openid-configuration":
                claims = sorted({"iss", "aud", "sub", "iat", "nbf", "exp", *_github_defaults()})
                return as_json(self._key.discovery(self.url, claims_supported=claims))
            case "GET", "/jwks" | "/.well-known/jwks":  # the second is where GitHub has it
                return as_json(self._key.jwks())
            case "POST", "/mint":
                return as_json({"token": self.mint(request.json_object())})
            case "GET", "/runner":
                return self._as_runner(dict(parse_qs(urlsplit(request.target).query)))
        return as_json({"error": "not found"}, 404)

    def _as_runner(self, asked: dict[str, list[str]]) -> Response:
        run = asked.get("run", [""])[-1]
        if not (run.isascii() and run.isdigit()):
            raise ValueError("run is a number")
        token = self.mint({"run_id": run, "check_run_id": run, "aud": asked.get("audience", [self._audience])[-1]})
        return as_json({"count": 1, "value": token})

    def mint(self, claims: dict[str, Any]) -> str:
        """Return a signed token of ``claims`` and of the defaults that they do not set."""
        now = int(self._clock.now().timestamp())
        times = {"iat": now, "nbf": now - _SKEW_S, "exp": now + LIFETIME_S}
        filled = _github_defaults() | {"iss": self.url, "aud": self._audience} | times | claims
        if "sub" not in claims:
            filled["sub"] = f"repo:{filled.get('repository')}:ref:{filled.get('ref')}"
        return self._key.sign(filled)


def _new_run() -> int:
    return secrets.randbelow(10**10) + 10**10


def _github_defaults() -> dict[str, Any]:
    """Return the claims of one new run of the demo's pipeline: every id that is immutable at GitHub is fixed here, and
    the run's own are new on each call, since a run has one root."""
    run = _new_run()
    return {
        "jti": secrets.token_hex(16),
        "repository": "acme/orders",
        "repository_id": "700100200",
        "repository_owner": "acme",
        "repository_owner_id": "9001",
        "repository_visibility": "private",
        "actor": "dev-dana",
        "actor_id": "424242",
        "ref": "refs/heads/main",
        "ref_type": "branch",
        "ref_protected": "true",
        "head_ref": "",
        "base_ref": "",
        "sha": "4f2c1d0e9b8a7f6e5d4c3b2a190817263544f3e2",
        "event_name": "push",
        "workflow": "deploy",
        "workflow_ref": "acme/orders/.github/workflows/deploy.yml@refs/heads/main",
        "job_workflow_ref": "acme/orders/.github/workflows/deploy.yml@refs/heads/main",
        "workflow_sha": "4f2c1d0e9b8a7f6e5d4c3b2a190817263544f3e2",
        "job_workflow_sha": "4f2c1d0e9b8a7f6e5d4c3b2a190817263544f3e2",
        "check_run_id": str(run + 7),
        "run_id": str(run),
        "run_number": str(run % 1000),
        "run_attempt": "1",
        "runner_environment": "github-hosted",
    }
