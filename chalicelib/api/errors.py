"""What a refusal is over HTTP: the one table from kind to status, and the two shapes of body.

Every endpoint answers ``{code, message, hint, request_id}``; ``/v1/token`` answers RFC 6749 section 5.2 (as RFC 8693
section 2.2.2 demands) with our ``code`` beside it. Nothing but an AccessError's public text reaches a client.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import (
    AccessError,
    AlreadyInChain,
    BadRequest,
    BodyTooLarge,
    ConfigurationInvalid,
    Conflict,
    Denied,
    InvalidTarget,
    KeyProofInvalid,
    Limited,
    NotFound,
    OutOfScope,
    ProofInvalid,
    ProtocolViolation,
    RecordingUnavailable,
    RunBound,
    StoreUnavailable,
    TargetUnavailable,
    TicketInvalid,
    TokenExpired,
    TokenInvalid,
    TokenReplayed,
    Unauthenticated,
    UnknownIssuer,
    UnsupportedGrantType,
    UnsupportedMediaType,
)

# A kind answers with its own row, else with that of the nearest kind above it.
STATUS: Final[Mapping[type[AccessError], int]] = {
    AccessError: 500,
    BadRequest: 400,
    UnsupportedMediaType: 415,
    BodyTooLarge: 413,
    Unauthenticated: 401,
    Denied: 403,
    NotFound: 404,
    Conflict: 409,
    Limited: 429,
    TargetUnavailable: 502,
    StoreUnavailable: 503,
    RecordingUnavailable: 503,
    ConfigurationInvalid: 503,
    ProtocolViolation: 400,
}

# RFC 8693 section 2.2.2: where subject or actor token is invalid for any reason, or unacceptable by policy, the error
# MUST be invalid_request. A ticket is a subject token, a bound run's token an unacceptable one, an actor that is in the
# chain already an unacceptable actor token; invalid_grant is for codes and refresh tokens alone. RFC 9449 section 5 has
# the word for the proof, RFC 6749 the rest.
OAUTH: Final[Mapping[type[AccessError], tuple[int, str]]] = {
    AccessError: (500, "server_error"),
    BadRequest: (400, "invalid_request"),
    UnsupportedMediaType: (415, "invalid_request"),
    BodyTooLarge: (413, "invalid_request"),
    UnsupportedGrantType: (400, "unsupported_grant_type"),
    InvalidTarget: (400, "invalid_target"),
    Unauthenticated: (401, "invalid_client"),
    TokenInvalid: (400, "invalid_request"),
    TokenExpired: (400, "invalid_request"),
    TokenReplayed: (400, "invalid_request"),
    KeyProofInvalid: (400, "invalid_dpop_proof"),
    RunBound: (400, "invalid_request"),
    TicketInvalid: (400, "invalid_request"),
    UnknownIssuer: (400, "invalid_request"),
    ProofInvalid: (400, "invalid_request"),
    OutOfScope: (400, "invalid_scope"),
    AlreadyInChain: (400, "invalid_request"),
    Denied: (400, "access_denied"),
    NotFound: (400, "invalid_request"),
    Conflict: (400, "invalid_request"),
    Limited: (429, "temporarily_unavailable"),
    TargetUnavailable: (503, "temporarily_unavailable"),
    StoreUnavailable: (503, "temporarily_unavailable"),
    RecordingUnavailable: (503, "temporarily_unavailable"),
    ConfigurationInvalid: (503, "temporarily_unavailable"),
    ProtocolViolation: (400, "invalid_request"),
}

DPOP_ALGORITHM: Final = "ES256"  # the one that identity/dpop takes
RETRY_AFTER_S: Final = 5  # on 429 and 503: an outage of a second is over, and callers do not hammer a longer one


def status_of(error: AccessError) -> int:
    """Return the HTTP status of ``error``'s kind. Pure."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_body(error: AccessError, request_id: str) -> dict[str, Json]:
    """Return the body that every endpoint but the token's answers. Pure."""
    return {"code": error.code, "message": error.public, "hint": error.next_step, "request_id": request_id}


def oauth_error(error: AccessError) -> tuple[int, dict[str, Json]]:
    """Return status and body of an error at the token endpoint. Pure."""
    status, word = next(OAUTH[kind] for kind in type(error).__mro__ if kind in OAUTH)
    return status, {"error": word, "error_description": _description(error), "code": error.code}


def error_headers(error: AccessError, *, oauth: bool = False) -> dict[str, str]:
    """Return the headers that an error asks for: a challenge on 401, when to come back on 429 and 503. Pure."""
    status = oauth_error(error)[0] if oauth else status_of(error)
    if status == 401:
        return {"WWW-Authenticate": 'Basic realm="countersign"' if oauth else _challenge(error)}
    if status in (429, 503):
        return {"Retry-After": str(RETRY_AFTER_S)}
    return {}


def _challenge(error: AccessError) -> str:
    """Return the challenges of RFC 6750 section 3 and RFC 9449 section 7.1; without an error code where the request
    told of no token (RFC 6750 section 3.1), so that a client does not throw a good one away."""
    if isinstance(error, KeyProofInvalid):
        return f'DPoP algs="{DPOP_ALGORITHM}", error="{error.code}"'
    if type(error) is Unauthenticated:
        return f'Bearer realm="countersign", DPoP algs="{DPOP_ALGORITHM}"'
    return f'Bearer error="invalid_token", DPoP algs="{DPOP_ALGORITHM}"'


def _description(error: AccessError) -> str:
    # RFC 6749 section 5.2 keeps these two characters, and all that is not ASCII, out of error_description.
    text = f"{error.public.removesuffix('.')}. {error.next_step}" if error.next_step else error.public
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
