"""Gets the token by which the caller's own issuer says who it is: the CI service, or the cluster.

It comes from ``COUNTERSIGN_ID_TOKEN`` (GitLab, and every CI that puts one into a variable), else from the GitHub
Actions runner, asked with the API's own origin as audience: a token that another service gets hold of is then no use
to it, nor theirs to us; else from the file that ``COUNTERSIGN_ACTOR_TOKEN_FILE`` names (a Kubernetes projected token,
which the kubelet changes: it is read each time).

What it does not do: verify the token; the service does. :func:`run_of` reads it unverified, for one purpose: to find
which file of this machine's holds this run's key. A false one finds nothing that its bearer could not read anyway.
Source: docs.github.com "OpenID Connect reference", section "Methods for requesting the OIDC token"; docs.gitlab.com
"OpenID Connect (OIDC) Authentication Using ID Tokens"; kubernetes.io "Managing Service Accounts", section "Bound
service account token volume mechanism"; KEP-4193 (the claim ``kubernetes.io``).
"""

from __future__ import annotations

import base64
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

from chalicelib.domain.canonical import digest, sha256_hex
from chalicelib.domain.secret import Secret
from countersign.address import Address, parse_address
from countersign.api import Bearer, Clock, HttpClient, text_of
from countersign.failures import Exit, Failure
from countersign.settings import Settings

# Three base64url parts; 16 KiB is twice the largest header that a load balancer takes.
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_MAX_TOKEN: Final = 16 * 1024
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
# What the issuers that we know call the run and the job, immutably. A token with none of these is taken for a run of
# its own: a file too many is made, and none is ever shared by two runs.
_RUN_CLAIMS: Final = (
    "run_id",
    "run_attempt",
    "check_run_id",
    "pipeline_id",
    "job_id",
    "build_id",
    "oidc.circleci.com/workflow-id",
    "oidc.circleci.com/job-id",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Issued:
    """An issuer's token, its RFC 8693 type, and the run that it is of (:func:`run_of`)."""

    token: Secret
    kind: str
    run: str


def issued_token(settings: Settings, api: Address, clock: Clock) -> Issued | None:
    """Return the token by which the caller's issuer vouches for it, None where there is none. Raises Failure."""
    if settings.id_token is not None:
        return _issued(settings.id_token, ID_TOKEN, "COUNTERSIGN_ID_TOKEN")
    if settings.github_url and settings.github_token is not None:
        token = _from_github(settings.github_url, settings.github_token, api, clock)
        return _issued(token, ID_TOKEN, "the token that the runner gave")
    if settings.actor_token_file:
        return actor_token(settings.actor_token_file)
    return None


def nobody(api: Address, *, in_ci: bool) -> Failure:
    """Return the failure for a caller for whom nobody vouches."""
    person = "" if in_ci else " A person at a terminal: `countersign login`."
    agent = " A container or tool: with the ticket of whoever started it, `countersign agent -- COMMAND`."
    return Failure(
        Exit.USAGE,
        "there is no token that says who this is",
        hint="Give the job `permissions: id-token: write` (GitHub), or put your CI's OIDC token, with "
        f"{api.origin} as its audience, into COUNTERSIGN_ID_TOKEN.{person}{agent}",
    )


def actor_token(path: str) -> Issued:
    """Return the token in the file at ``path``, as it is now. Raises Failure (usage)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Failure(Exit.USAGE, f"{path} is no plain file, so no token is read from it")
            data = file.read(_MAX_TOKEN + 2)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no path"
        raise Failure(
            Exit.USAGE,
            f"the actor token {path} cannot be read: {why}",
            hint="COUNTERSIGN_ACTOR_TOKEN_FILE names the file of a projected service account token.",
        ) from error
    return _issued(Secret(data.decode("ascii", "replace").strip()), JWT, path)


def _issued(token: Secret, kind: str, what: str) -> Issued:
    value = token.expose()
    if len(value) > _MAX_TOKEN or not _JWT.match(value):
        raise Failure(Exit.USAGE, f"{what} is not a signed token (three parts, JWS compact form)")
    return Issued(token=token, kind=kind, run=run_of(value))


def is_token(text: str) -> bool:
    """Return whether ``text`` has the form of a signed token, and nothing in it that a header could not hold. Pure."""
    return len(text) <= _MAX_TOKEN and _JWT.match(text) is not None


def run_of(token: str) -> str:
    """Return a name for the run that an issuer's token is of, by its own unverified claims: 64 hexadecimal digits, the
    same for every token of that run. Pure."""
    claims = _claims(token)
    cluster = claims.get("kubernetes.io")
    pod = cluster.get("pod") if isinstance(cluster, Mapping) else None
    run = [text_or_number(claims.get(name)) for name in _RUN_CLAIMS]
    run.append(text_or_number(pod.get("uid")) if isinstance(pod, Mapping) else "")
    alone = "" if any(run) else sha256_hex(token.encode())
    return digest([text_or_number(claims.get("iss")), text_or_number(claims.get("sub")), *run, alone])


def text_or_number(value: object) -> str:
    """Return ``value`` as text where it is text or a whole number: some issuers write their ids as one. Pure."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value)


def _claims(token: str) -> Mapping[str, object]:
    part = token.split(".")[1]
    try:
        found = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_github(url: str, token: Secret, api: Address, clock: Clock) -> Secret:
    parts = urlsplit(url)
    runner = parse_address(f"{parts.scheme}://{parts.netloc}", "ACTIONS_ID_TOKEN_REQUEST_URL")
    joiner = "&" if parts.query else "?"
    answer = HttpClient(runner, clock).call(
        "GET", f"{url}{joiner}audience={quote(api.origin, safe='')}", presented=Bearer(token), repeatable=True
    )
    return Secret(text_of(answer.body, "value"))
