"""`countersign review sign` against a real HTTP server: what it asks for, and the revoking that follows the signing."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence

import pytest

from countersign.__main__ import main
from tests.fakes.api_server import ID_TOKEN, ApiServer
from tests.fakes.waiting_clock import WaitingClock

SIGNED = {
    "id": "sgn_01j9z3k4m5n6p7q8r9s0t1v2w3",
    "reviewer": "carol",
    "signed_at": "2026-11-02T10:30:00.000Z",
    "sessions": 3,
    "kept": 1,
    "revoked": ["https://ci.example#run", "https://ci.example#agent", "https://ci.example#tool"],
    "unknown_triggers": 0,
}
ARGUMENTS = (
    "review", "sign", "--since", "2026-11-01", "--until", "2026-11-02", "--digest", "ab" * 32,
    "--keep-others", "--revoke", "https://ci.example#run",
)  # fmt: skip


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer() as server:
        yield server


def _sign(api: ApiServer, *more: str) -> tuple[int, str, str]:
    environment = {
        "COUNTERSIGN_API": api.url,
        "COUNTERSIGN_ID_TOKEN": ID_TOKEN,
        "XDG_STATE_HOME": api.state.name,
        "PATH": os.defpath,
        "HOME": "/nowhere",
    }
    out, err = io.StringIO(), io.StringIO()
    code = main([*ARGUMENTS, *more], environment, out=out, err=err, clock=WaitingClock())
    return code, out.getvalue(), err.getvalue()


def _revoked(api: ApiServer) -> Sequence[tuple[str, str, str]]:
    asked = [json.loads(seen.body) for seen in api.calls("POST /v1/revocations")]
    return [(one["kind"], one["id"], one["why"]) for one in asked]


def test_what_is_signed_as_revoked_is_revoked_one_by_one_and_only_after_the_signing(api: ApiServer) -> None:
    """By what the service signed, not by what was asked for; each names the sign-off as its reason."""
    api.answer("POST /v1/signoffs", status=201, body=SIGNED)
    code, out, err = _sign(api)
    assert code == 0, err
    why = f"not kept by the access review {SIGNED['id']}"
    assert _revoked(api) == [("identity", identity, why) for identity in SIGNED["revoked"]]  # type: ignore[attr-defined]
    posts = [seen.path for seen in api.seen if seen.path in {"/v1/signoffs", "/v1/revocations"}]
    assert posts == ["/v1/signoffs", *["/v1/revocations"] * 3]
    (asked,) = [json.loads(seen.body) for seen in api.calls("POST /v1/signoffs")]
    assert (asked["since"], asked["until"]) == ("2026-11-01T00:00:00.000Z", "2026-11-02T00:00:00.000Z")
    assert (asked["population_sha256"], asked["keep_others"]) == ("ab" * 32, True)
    assert out.count("revoked") >= 3


def test_one_that_may_not_be_revoked_is_said_and_stops_not_the_others(api: ApiServer) -> None:
    """The rules may refuse one; whoever signed must learn which is still alive, and how to end it."""
    api.answer("POST /v1/signoffs", status=201, body=SIGNED)
    refusal = {"error": {"code": "policy_denied", "message": "no rule permits it", "hint": "", "request_id": "r1"}}
    api.answer("POST /v1/revocations", status=201, body={"key": "identity:x", "number": 7, "at": SIGNED["signed_at"]})
    api.answer("POST /v1/revocations", status=403, body=refusal)
    code, _, err = _sign(api)
    assert code == 77
    assert len(_revoked(api)) == 3
    assert "https://ci.example#agent was not revoked" in err
    assert "countersign revoke --kind identity 'https://ci.example#agent'" in err


def test_a_refused_sign_off_revokes_nothing(api: ApiServer) -> None:
    """Attack: somebody who may not sign uses the command to end others' access."""
    refusal = {"error": {"code": "reviewer_not_eligible", "message": "you are in it", "hint": "", "request_id": "r1"}}
    api.answer("POST /v1/signoffs", status=403, body=refusal)
    code, _, err = _sign(api)
    assert (code, _revoked(api)) == (77, []), err


@pytest.mark.parametrize("body", [{}, SIGNED | {"revoked": "all"}, SIGNED | {"revoked": [7]}, SIGNED | {"kept": "1"}])
def test_an_answer_that_makes_no_sense_revokes_nothing(api: ApiServer, body: dict[str, object]) -> None:
    """What was signed is not known: nothing is done upon it."""
    api.answer("POST /v1/signoffs", status=201, body=body)
    code, _, _ = _sign(api)
    assert (code, _revoked(api)) == (69, [])


def test_json_has_what_was_signed_and_what_is_left(api: ApiServer) -> None:
    """A program must see what is still to be revoked."""
    api.answer("POST /v1/signoffs", status=201, body=SIGNED)
    code, out, _ = _sign(api, "--json")
    assert (code, json.loads(out)["not_revoked"]) == (0, [])
