"""Exit codes: what scripts rely on."""

from __future__ import annotations

import pytest

from chalicelib.domain.errors import AccessError, NotFound, StoreUnavailable, leaf_errors
from countersign.failures import Exit, exit_of, failure_of

EXPECTED = {
    Exit.USAGE: "bad_request unsupported_media_type body_too_large unsupported_grant_type invalid_target conflict "
    "already_exists already_decided already_used idempotency_conflict",
    Exit.DENIED: "unauthenticated token_invalid token_expired token_replayed unknown_issuer proof_invalid denied "
    "policy_denied approval_denied approval_expired approval_withdrawn approver_not_eligible reviewer_not_eligible "
    "held_in_transaction grant_expired grant_revoked invalid_scope mask_written_back not_found invalid_dpop_proof "
    "run_bound ticket_invalid already_in_chain not_permitted passkey_required proof_sealed",
    Exit.UNREACHABLE: "internal limited target_unavailable store_unavailable row_unreadable "
    "recording_unavailable configuration_invalid protocol_violation",
}


@pytest.mark.parametrize("kind", leaf_errors())
def test_every_kind_of_refusal_has_its_exit_code(kind: type[AccessError]) -> None:
    """A new code must be given its place here, and none may change: pipelines branch on them."""
    (expected,) = [exit_code for exit_code, codes in EXPECTED.items() if kind.code in codes.split()]
    assert exit_of(kind.code, 200) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [(400, 64), (401, 77), (403, 77), (404, 77), (405, 64), (408, 69), (429, 69), (500, 69), (503, 69), (301, 69)],
)
def test_a_code_that_nobody_knows_falls_back_to_the_status(status: int, expected: int) -> None:
    """API Gateway's own answers have no code of ours; nor has a newer service's."""
    assert exit_of("", status) == expected
    assert exit_of("from_the_future", status) == expected


def test_a_refusal_in_this_process_has_a_next_step_for_who_sits_here() -> None:
    """An auditor without AWS credentials, or with a wrong id, is not sent to the targets of a client of the service."""
    assert failure_of(NotFound("there is no such session")).hint == "Check the id."
    assert "credentials" in failure_of(StoreUnavailable("a store could not be reached")).hint
    assert failure_of(NotFound("x", hint="Look here.")).hint == "Look here.", "what is said for the case itself stays"


def test_the_documented_numbers() -> None:
    """They are in the README, and in other people's pipelines."""
    numbers = (Exit.DENIED, Exit.PENDING, Exit.UNREACHABLE, Exit.USAGE)
    assert [int(number) for number in numbers] == [77, 75, 69, 64]
