"""Every single store call of one whole flow fails once, in both ways: before it took effect, and after.

The flow: admit, open, a plain operation, a held and approved one, close. Whatever call fails, the promise holds:
nothing is minted without hop, row and record; nothing held is forwarded without a use and a durable verdict; nothing
runs twice; what is in the bucket verifies. Failing *after* is the worse half: the effect is there, its answer lost.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from chalicelib.domain.ask import UseKind
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import AccessError, StoreUnavailable
from chalicelib.domain.operation import Block, Forward, Hold
from tests.fakes.broker import MINT, World, operation

CALLS = 60  # more than the flow makes; the test checks that the last ones were not reached


@dataclass
class Fault:
    """Fails call ``number`` (from 1), before or after its effect; counts all."""

    number: int
    after: bool
    seen: int = 0
    depth: int = 0
    names: list[str] = field(default_factory=list)

    def install(self, world: World) -> None:
        gate = world.stores._gate
        enter = gate.enter

        @contextmanager
        def failing(name: str) -> Iterator[None]:
            self.depth += 1
            try:
                with enter(name):
                    outermost = self.depth == 1
                    if outermost:
                        self.seen += 1
                        self.names.append(name)
                    hit = outermost and self.seen == self.number
                    if hit and not self.after:
                        raise StoreUnavailable("injected", store=name)
                    yield
                    if hit:
                        raise StoreUnavailable("injected after its effect", store=name)
            finally:
                self.depth -= 1

        gate.enter = failing  # type: ignore[method-assign]


class Evidence:
    """What an auditor finds in the stores, without believing the broker."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kinds: list[tuple[str, str]] = []
        for connection_id in {row.id for row in world.stores.connections.rows.values()}:
            previous = ""
            for key in sorted(
                key for key in world.stores.objects.rows if key.startswith("rec/") and connection_id in key
            ):
                raw = gzip.decompress(world.stores.objects.rows[key])
                header, *frames = [json.loads(line) for line in raw.splitlines()]
                assert header["prev_sha256"] == previous
                previous = hashlib.sha256(raw).hexdigest()
                for frame in frames:
                    self.kinds.append((frame["kind"], json.loads(frame["meta"]).get("verdict", "")))


def minting(world: World) -> list[bool]:
    """Register a mint that looks, at the moment it is asked, whether hop, row and record are there."""
    seen: list[bool] = []

    def mint(payload: Mapping[str, Json]) -> Mapping[str, Json]:
        rows = list(world.stores.connections.rows.values())
        hops = world.stores.chains.rows.values()
        seen.append(
            any(row.id == payload["connection_id"] for row in rows)
            and any(hop.id == rows[0].target_hop for hop in hops)
            and any(key.startswith("rec/") for key in world.stores.objects.rows)
        )
        return {"kind": "password", "login": "app_rw", "secret": "s"}

    world.stores.functions.register(MINT, mint)
    return seen


def flow(world: World) -> list[Forward | Block | AccessError]:
    """Run the whole flow as a driver would; return what became of each step that decides."""
    told: list[Forward | Block | AccessError] = []
    try:
        connection = world.connect()
    except AccessError as error:
        return [error]
    plain = connection.submit(operation(), in_transaction=False)
    assert not isinstance(plain, Hold)
    told.append(plain)
    op = operation("sql:write", "DELETE FROM orders")
    verdict = connection.submit(op, in_transaction=False)
    if isinstance(verdict, Hold):
        held = connection.hold(op, verdict)
        try:
            held.open()
            world.answer(held.ask, "dora")
            world.poller.step()
            told += [held.settle(), held.settle()]  # the second as if a retry had raced the first
        except AccessError as error:
            told.append(error)
    connection.close("client_left")
    return told


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, CALLS))
def test_any_one_call_may_fail(number: int, after: bool) -> None:
    """P12 and the order of events, under every single fault."""
    world = World()
    minted_with_evidence = minting(world)
    fault = Fault(number=number, after=after)
    fault.install(world)
    told = flow(world)
    assert all(minted_with_evidence)
    found = Evidence(world)
    ran = [use for use in world.stores.uses.rows.values() if use.kind is UseKind.RAN]
    forwards = [verdict for verdict in told[1:] if isinstance(verdict, Forward)]
    assert len(forwards) <= 1
    if forwards:
        assert len(ran) == 1
        assert ("verdict", "forward") in found.kinds
    for row in world.stores.connections.rows.values():
        assert not row.manifest_key or row.manifest_key in world.stores.objects.rows


def test_without_a_fault_the_flow_runs_and_is_shorter_than_the_faults_reach() -> None:
    """The sweep above proves nothing if the flow refuses anyway, or has calls that it never reaches."""
    world = World()
    minting(world)
    fault = Fault(number=0, after=False)
    fault.install(world)
    told = flow(world)
    assert [type(verdict).__name__ for verdict in told] == ["Forward", "Forward", "Block"]
    assert fault.seen < CALLS - 1
    assert {
        "sessions",
        "chains",
        "revocations",
        "connections",
        "objects",
        "functions",
        "asks",
        "answers",
        "uses",
    } <= set(fault.names)
