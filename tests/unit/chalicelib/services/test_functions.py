"""A function's answer: a result, a refusal with its code, or a crash that says nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import GrantExpired
from chalicelib.services.functions import FunctionFailed, answered


def test_a_result_and_a_refusal() -> None:
    """The caller raises the very kind that the function refused with; detail stays where it is."""

    def refuse(_: Mapping[str, Json]) -> Mapping[str, Json]:
        raise GrantExpired("over", session="ses_1")

    assert answered(lambda event: {"got": event["x"]}, {"x": 1}) == {"ok": {"got": 1}}
    assert answered(refuse, {}) == {
        "refused": {"code": "grant_expired", "public": "over", "hint": "Ask for a new session."}
    }


def test_a_crash_says_nothing() -> None:
    """Lambda hands an exception's text and stack to whoever invoked: it may quote a secret."""
    logged: list[bool] = []

    def crash(_: Mapping[str, Json]) -> Mapping[str, Json]:
        raise RuntimeError("password=hunter2")

    with pytest.raises(FunctionFailed) as caught:
        answered(crash, {}, lambda: logged.append(True))
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None
    assert logged == [True]
