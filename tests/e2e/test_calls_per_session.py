"""What a session may ask of AWS, in numbers: what it costs, and what binds first, stands on them (docs/cost.md)."""

from __future__ import annotations

from typing import Final

import pytest

from bench.session_calls import Calls, at_start, declared, working

pytestmark = pytest.mark.e2e
# While a statement is held the broker looks for answers, and cuts a segment each second: a slow machine has more.
_WHILE_HELD: Final = {
    "broker dynamodb Query answers",
    "broker dynamodb Query uses",
    "broker s3 HEAD rec",
    "broker s3 PUT rec",
}
_MOST_WHILE_HELD: Final = 40
_TRIES: Final = 3  # of sessions: on a machine that is late a command asks twice


def _problems(made: Calls, may: dict[str, int]) -> list[str]:
    found = [f"{kind}: never made, so take it out" for kind in sorted(set(may) - set(made))]
    for kind, one in made.items():
        most = 1 if at_start(kind) else may.get(kind, 0)
        if one.calls > (most + _MOST_WHILE_HELD if kind in _WHILE_HELD else most):
            found.append(f"{kind}: {one.calls} calls, and {most} may be")
    return found


def test_a_session_asks_no_more_of_aws_than_is_declared() -> None:
    """One more read here is a bill there, and one more signature halves what KMS lets through: neither may creep in.
    Where it is meant, ``python -m bench.session_calls`` counts anew, and docs/cost.md follows."""
    parts = declared()
    kinds = {kind for calls in parts.values() for kind in calls}
    may = {kind: sum(calls[kind].calls for calls in parts.values() if kind in calls) for kind in kinds}
    with working() as work:
        for _ in range(_TRIES):
            problems = _problems(work.session(held=True), may)
            if not problems:
                break
    assert problems == []
