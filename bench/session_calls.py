"""What one session asks of AWS, counted on the local stack: ``python -m bench.session_calls`` writes its JSON file.

Two sessions run from their first token to their manifest, each approved by a click, each with ten statements; in the
second a person also approves one statement: what it has more is a held statement's. Left out, and reckoned in
``bench.costs``, is what comes with time and not with sessions: the broker's calls of each second, whatever reads the
configuration each ten, and what is made of a batch of changes or of log lines, as many as come together. Left out too
is what a process does once, with its first session (:func:`at_start`).
"""

from __future__ import annotations

import json
import secrets
from collections import Counter as Tally
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.calls import Call, Counter
from dev.demo.waiting import wait_for
from dev.local_stack import Stack, StackOptions
from dev.settings import SystemClock
from tests.e2e.visitor import Visitor, card_with, connect

FILE: Final = Path(__file__).resolve().with_name("session_calls.json")
STATEMENTS: Final = 10
WITHIN_S: Final = 30.0
_HELD: Final = "UPDATE orders SET amount_cents = 5 WHERE id = %s"
# By role ("" is any), service, operation and what it is on ("" is anything).
_WITH_TIME: Final = (
    ("broker", "dynamodb", "GetItem", "revocations"),  # the epoch, each second
    ("broker", "dynamodb", "PutItem", "beats"),
    ("broker", "s3", "PUT", "events"),
    ("", "dynamodb", "Query", "activations"),
    ("archive_items", "", "", ""),
    ("events", "", "", ""),
    ("sweep", "", "", ""),
    ("reconcile", "", "", ""),
)
# What a process keeps: public keys, the bundle, how the bucket locks, Slack's secrets.
_AT_START: Final = (
    " kms GetPublicKey ",
    " s3 GET bundles",
    " s3 GET object-lock",
    " secretsmanager GetSecretValue slack/",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """How many calls of one kind, and the largest body among them in bytes; ``keys`` are those that one reads."""

    calls: int
    size: int
    keys: int


Calls = dict[str, Made]


def at_start(kind: str) -> bool:
    """Say whether a process asks that once and keeps the answer."""
    return any(part in kind for part in _AT_START)


def counted() -> dict[str, Calls]:
    """Return the calls of one session, and those that one held statement adds. Starts and ends a stack."""
    with working() as work:
        plain = _lasting(work.session(held=False))
        return {"session": plain, "held": _without(_lasting(work.session(held=True)), plain)}


@contextmanager
def working() -> Iterator[Work]:
    """Give a stack of its own on which sessions are counted."""
    counter = Counter()
    try:
        with Stack(StackOptions(between=counter.between)) as stack:
            yield Work(stack, counter)
    finally:
        counter.stop()


class Work:
    """Sessions on a running stack, each with its calls."""

    def __init__(self, stack: Stack, counter: Counter) -> None:
        self._stack = stack
        self._counter = counter
        self._clock = SystemClock()
        self._calls: list[Call] = []

    def session(self, *, held: bool) -> Calls:
        """Run one, and return its calls but those that come with time; ``held``: a person approves one statement."""
        self._counter.taken()
        self._calls = []
        visitor = Visitor.of(self._stack)
        mark = f"cost {secrets.token_hex(8)}"
        key = mark.replace(" ", "-")
        status, asked = self._ask(visitor, mark, key)
        assert status == 202, asked
        self._click(mark)
        status, granted = self._ask(visitor, mark, key)
        assert status == 201, granted
        with connect(self._stack, granted) as client:
            self._until("post_cards dynamodb Query answers", 2)
            for _ in range(STATEMENTS):
                client.execute("SELECT * FROM customers LIMIT 3").fetchall()
            if held:
                with ThreadPoolExecutor(1) as pool:
                    order = str(secrets.randbelow(10**9))
                    doing = pool.submit(client.execute, _HELD, [order])
                    self._click(order)
                    doing.result(WITHIN_S)
                self._until("post_cards dynamodb Query answers", 4)
        self._until("broker dynamodb UpdateItem connections", 1)
        return _made(self._stack.callers, self._calls)

    def _ask(self, visitor: Visitor, mark: str, key: str) -> tuple[int, Any]:
        """Ask until it is no 503, as the command line does: where the emulator was late, this session counts more."""

        def answer() -> tuple[int, Any] | None:
            status, said = visitor.ask(reason=mark, key=key)
            return None if status == 503 else (status, said)

        return wait_for("an answer that is no outage", answer, self._clock, WITHIN_S)

    def _click(self, mark: str) -> None:
        assert card_with(self._stack, mark).click("UALICE")["status"] == 200

    def _until(self, kind: str, at_least: int) -> None:
        def heard() -> bool | None:
            self._calls += self._counter.taken()
            found = _made(self._stack.callers, self._calls).get(kind)
            return True if found is not None and found.calls >= at_least else None

        wait_for(kind, heard, self._clock, WITHIN_S)


def _made(roles: Mapping[str, str], calls: list[Call]) -> Calls:
    """Return the calls that come with sessions, by role, service, operation and what they are on. Pure."""
    kinds: Tally[str] = Tally()
    sizes: dict[str, tuple[int, int]] = {}
    for call in calls:
        role = roles.get(call.access_key, "unknown")
        named = (role, call.service, call.operation, call.on)
        if any(all(one in ("", part) for one, part in zip(rule, named, strict=True)) for rule in _WITH_TIME):
            continue
        kind = " ".join(named).strip()
        kinds[kind] += 1
        size, keys = sizes.get(kind, (0, 0))
        sizes[kind] = max(size, call.size), max(keys, call.keys)
    return {kind: Made(calls=n, size=sizes[kind][0], keys=sizes[kind][1]) for kind, n in sorted(kinds.items())}


def _lasting(calls: Calls) -> Calls:
    return {kind: made for kind, made in calls.items() if not at_start(kind)}


def _without(more: Calls, less: Calls) -> Calls:
    left = {kind: made.calls - (less[kind].calls if kind in less else 0) for kind, made in more.items()}
    return {kind: Made(calls=n, size=more[kind].size, keys=more[kind].keys) for kind, n in left.items() if n > 0}


def declared() -> dict[str, Calls]:
    """Return what ``session_calls.json`` says."""
    told: dict[str, dict[str, dict[str, Any]]] = json.loads(FILE.read_text())
    return {part: {kind: Made(**made) for kind, made in calls.items()} for part, calls in told.items()}


def text_of(parts: Mapping[str, Calls]) -> str:
    """Return the file's text: a kind of call a line. Pure."""
    blocks = []
    for part, calls in parts.items():
        lines = [
            f'    {json.dumps(kind)}: {{"calls": {one.calls}, "size": {one.size}, "keys": {one.keys}}}'
            for kind, one in calls.items()
        ]
        blocks.append(f"  {json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(text_of(counted()))
