"""Every kind of refusal has its status, in both shapes, and none of them says more than it may."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from chalicelib.api.errors import OAUTH, STATUS, error_body, error_headers, oauth_error, status_of
from chalicelib.domain.errors import (
    AccessError,
    KeyProofInvalid,
    Limited,
    PolicyDenied,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    Unauthenticated,
    leaf_errors,
)

DOCS = Path(__file__).resolve().parents[4] / "docs" / "errors.md"

EXPECTED = {
    "internal": (500, 500, "server_error"),
    "bad_request": (400, 400, "invalid_request"),
    "unsupported_media_type": (415, 415, "invalid_request"),
    "body_too_large": (413, 413, "invalid_request"),
    "unsupported_grant_type": (400, 400, "unsupported_grant_type"),
    "invalid_target": (400, 400, "invalid_target"),
    "unauthenticated": (401, 401, "invalid_client"),
    "token_invalid": (401, 400, "invalid_request"),
    "token_expired": (401, 400, "invalid_request"),
    "token_replayed": (401, 400, "invalid_request"),
    "invalid_dpop_proof": (401, 400, "invalid_dpop_proof"),
    "run_bound": (401, 400, "invalid_request"),
    "ticket_invalid": (401, 400, "invalid_request"),
    "unknown_issuer": (401, 400, "invalid_request"),
    "proof_invalid": (401, 400, "invalid_request"),
    "denied": (403, 400, "access_denied"),
    "policy_denied": (403, 400, "access_denied"),
    "approval_denied": (403, 400, "access_denied"),
    "approval_expired": (403, 400, "access_denied"),
    "approval_withdrawn": (403, 400, "access_denied"),
    "approver_not_eligible": (403, 400, "access_denied"),
    "passkey_required": (403, 400, "access_denied"),
    "reviewer_not_eligible": (403, 400, "access_denied"),
    "held_in_transaction": (403, 400, "access_denied"),
    "grant_expired": (403, 400, "access_denied"),
    "grant_revoked": (403, 400, "access_denied"),
    "proof_sealed": (403, 400, "access_denied"),
    "invalid_scope": (403, 400, "invalid_scope"),
    "already_in_chain": (403, 400, "invalid_request"),
    "not_permitted": (403, 400, "access_denied"),
    "mask_written_back": (403, 400, "access_denied"),
    "not_found": (404, 400, "invalid_request"),
    "conflict": (409, 400, "invalid_request"),
    "already_exists": (409, 400, "invalid_request"),
    "already_decided": (409, 400, "invalid_request"),
    "already_used": (409, 400, "invalid_request"),
    "idempotency_conflict": (409, 400, "invalid_request"),
    "limited": (429, 429, "temporarily_unavailable"),
    "target_unavailable": (502, 503, "temporarily_unavailable"),
    "store_unavailable": (503, 503, "temporarily_unavailable"),
    "row_unreadable": (503, 503, "temporarily_unavailable"),
    "recording_unavailable": (503, 503, "temporarily_unavailable"),
    "configuration_invalid": (503, 503, "temporarily_unavailable"),
    "protocol_violation": (400, 400, "invalid_request"),
}


@pytest.mark.parametrize("kind", leaf_errors(), ids=lambda kind: kind.code)
def test_every_kind_has_its_answer(kind: type[AccessError]) -> None:
    """A new kind must be given its status on purpose, not by falling through."""
    error = kind("the public sentence", inner="db-17.internal")
    status, (oauth_status, body) = status_of(error), oauth_error(error)
    assert (status, oauth_status, body["error"]) == EXPECTED[kind.code]
    assert set(error_body(error, "r1")) == {"code", "message", "hint", "request_id"}
    assert "db-17" not in str(error_body(error, "r1")) + str(body)
    assert re.fullmatch(r"[ !#-\[\]-~]*", str(body["error_description"]))


def test_no_row_is_for_nobody() -> None:
    """A row for a class that is gone is a belief that is wrong."""
    assert set(EXPECTED) == {kind.code for kind in leaf_errors()}
    assert set(STATUS) | set(OAUTH) <= set(leaf_errors())


def test_descriptions_stay_within_the_rfc() -> None:
    """RFC 6749 keeps quotes, backslashes and all beyond ASCII out of error_description."""
    _, body = oauth_error(AccessError('say "é" \\', hint=""))
    assert body["error_description"] == "say ''' '"


@pytest.mark.parametrize(
    ("kind", "name"),
    [(TokenInvalid, "WWW-Authenticate"), (Limited, "Retry-After"), (StoreUnavailable, "Retry-After")],
)
def test_a_status_brings_its_header(kind: type[AccessError], name: str) -> None:
    """A client library acts on the header, not on our words."""
    assert name in error_headers(kind("x"))
    assert error_headers(PolicyDenied("x")) == {}
    assert "WWW-Authenticate" not in error_headers(TokenInvalid("x"), oauth=True)
    assert error_headers(Unauthenticated("x"), oauth=True) == {"WWW-Authenticate": 'Basic realm="countersign"'}


@pytest.mark.parametrize(
    ("kind", "challenge"),
    [
        (Unauthenticated, 'Bearer realm="countersign", DPoP algs="ES256"'),
        (TokenInvalid, 'Bearer error="invalid_token", DPoP algs="ES256"'),
        (TokenExpired, 'Bearer error="invalid_token", DPoP algs="ES256"'),
        (KeyProofInvalid, 'DPoP algs="ES256", error="invalid_dpop_proof"'),
    ],
)
def test_the_challenge_says_which_scheme_and_what_was_wrong(kind: type[AccessError], challenge: str) -> None:
    """A client without a token is told no error (RFC 6750 section 3.1); one whose proof failed makes a new proof and
    keeps its token (RFC 9449 section 7.1)."""
    assert error_headers(kind("x")) == {"WWW-Authenticate": challenge}


def test_every_code_is_documented() -> None:
    """Whoever scripts against a code finds it in docs/errors.md, and finds none there that does not exist."""
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", DOCS.read_text(), re.MULTILINE))
    assert documented == {kind.code for kind in leaf_errors()}
