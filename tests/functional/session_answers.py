"""What the tests of ``/v1/sessions`` share: the shape of a refusal."""

from __future__ import annotations

from chalice.test import HTTPResponse

SHAPE = {"code", "message", "hint", "request_id"}


def refused(answer: HTTPResponse, status: int, code: str) -> None:
    """Assert the one error shape, with this status and code."""
    assert (answer.status_code, answer.json_body["code"]) == (status, code), answer.json_body
    assert set(answer.json_body) == SHAPE
    assert all(isinstance(answer.json_body[name], str) and answer.json_body[name] for name in SHAPE)
    assert answer.headers["Cache-Control"] == "no-store"
