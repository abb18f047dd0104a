"""Our refusals as PostgreSQL's errors: every kind has its SQLSTATE, and nothing of ours leaks."""

from __future__ import annotations

import json

import pytest

from broker.engines.postgres import refusals
from broker.wire.postgres.fields import Fields, parse_fields
from chalicelib.domain import errors
from chalicelib.domain.identifiers import OperationId
from chalicelib.domain.operation import Block, Ruling


def told(raw: bytes) -> Fields:
    assert raw[:1] == b"E"
    return parse_fields(raw[5:])


@pytest.mark.parametrize("cls", errors.leaf_errors(), ids=lambda cls: cls.__name__)
def test_every_refusal_has_a_sqlstate_code_and_hint(cls: type[errors.AccessError]) -> None:
    """A kind without a row would be a crash in the one moment that must be safe."""
    fields = told(refusals.before_relay(cls("no", host="inner.example"), "ses_1"))
    assert len(fields["C"]) == 5
    assert fields["V"] == b"FATAL"
    assert json.loads(fields["D"])["code"] == cls.code
    assert b"inner.example" not in b"".join(fields.values())


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (errors.ProofInvalid("x"), "28000"),
        (errors.GrantExpired("x"), "42501"),
        (errors.PolicyDenied("x"), "42501"),
        (errors.Limited("x"), "53300"),
        (errors.TargetUnavailable("x"), "08006"),
        (errors.RecordingUnavailable("x"), "57P03"),
        (errors.StoreUnavailable("x"), "57P03"),
        (errors.ProtocolViolation("x"), "08P01"),
        (errors.AccessError("x"), "XX000"),
    ],
)
def test_the_table(error: errors.AccessError, state: str) -> None:
    """models.md (d): scripts and pools act on these."""
    assert refusals.sqlstate(error) == state


def test_the_end_of_an_open_connection() -> None:
    """57P01: pools connect again; a broken protocol is the client's own fault."""
    assert told(refusals.ended(errors.GrantRevoked("x"), "con_1"))["C"] == b"57P01"
    assert told(refusals.ended(errors.ProtocolViolation("x"), "con_1"))["C"] == b"08P01"


def test_a_block_tells_the_program_why() -> None:
    """DETAIL is JSON for programs, HINT is for people, and the session lives (ERROR, not FATAL)."""
    ruling = Ruling(rules=("prod-no-ddl",), policy_digest="d", configuration_serial=1)
    block = Block(ruling=ruling, code="policy_denied", public="no", hint="ask")
    fields = told(refusals.blocked(block, OperationId("op_1")))
    assert (fields["V"], fields["C"], fields["M"], fields["H"]) == (b"ERROR", b"42501", b"no", b"ask")
    assert json.loads(fields["D"]) == {"code": "policy_denied", "operation": "op_1", "rules": ["prod-no-ddl"]}


def test_a_bug_of_ours_says_nothing() -> None:
    """No stack trace, no exception text."""
    assert told(refusals.internal())["M"] == b"the broker failed"
    assert told(refusals.wrong_secret())["C"] == b"28P01"
    assert told(refusals.refused("26000", "m", "h", "c"))["C"] == b"26000"
