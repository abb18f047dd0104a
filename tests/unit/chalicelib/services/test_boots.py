"""A boot's rows are counted: one that is missing, between them or after the last, shows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from broker.boot import Boot
from chalicelib.domain.canonical import canonical
from chalicelib.domain.connection import BootEnd, boot_end_key
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.services.boots import boot_findings
from chalicelib.services.reviewed import Finding
from tests.fakes.broker import World


def life(world: World) -> Boot:
    return Boot("boot1", beats=world.stores.beats, objects=world.stores.objects, clock=world.clock)


def ended(connections: int = 3) -> World:
    """A broker that ended orderly after so many connections."""
    world = World()
    for _ in range(connections):
        world.connect().close("client_left")
    life(world).end(world.gateway.end_boot)
    return world


def found(world: World, *, beats: bool = False) -> list[Finding]:
    return boot_findings(
        world.stores.connections,
        world.stores.objects,
        world.stores.keys,
        "boot1",
        beats=world.stores.beats if beats else None,
        now=world.clock.now(),
    )


def kinds(world: World) -> list[tuple[str, str]]:
    return [(finding.kind.value, finding.what) for finding in found(world)]


def without(world: World, number: int) -> None:
    rows = world.stores.connections.rows
    del rows[next(key for key, row in rows.items() if row.number == number)]


@pytest.mark.parametrize("connections", [0, 1, 3])
def test_a_boot_that_ended_orderly_counts_all_its_rows(connections: int) -> None:
    """Nothing is missing, and that is shown."""
    assert found(ended(connections)) == []


def test_a_row_that_was_taken_out_of_the_middle() -> None:
    """The numbers have a hole, whatever sessions its neighbours belong to."""
    world = ended()
    without(world, 2)
    assert kinds(world) == [("missing", "lacks connection row 2")]


def test_a_connection_that_never_got_a_row() -> None:
    """Taken away, or never put: the last ones are told by the boot's own end alone."""
    world = ended()
    without(world, 3)
    without(world, 2)
    assert kinds(world) == [("missing", "lacks connection rows 2 to 3, which its signed end counts")]


def test_a_row_after_the_end() -> None:
    """Somebody wrote one, and the broker did not."""
    world = ended(2)
    last = max(world.stores.connections.rows.values(), key=lambda row: row.number)
    added = replace(last, id="con_x", number=3, previous_sha256=last.sha256())  # type: ignore[arg-type]
    world.stores.connections.rows[last.session_id, added.id] = added
    assert kinds(world) == [("extra", "has connection rows up to 3, and its signed end counts 2")]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_row_that_was_altered(number: int) -> None:
    """Each row names the hash of the one before, and the end names that of the last."""
    world = ended()
    key, row = next((key, row) for key, row in world.stores.connections.rows.items() if row.number == number)
    world.stores.connections.rows[key] = replace(row, peer="203.0.113.9")
    assert [kind for kind, _ in kinds(world)] == ["altered"]


def test_an_end_that_was_altered() -> None:
    """It is signed: a smaller last number would hide rows."""
    world = ended()
    (key,) = world.stores.objects.keys("boots/")
    document = json.loads(world.stores.objects.rows[key])
    document["last"] = 2
    world.stores.objects.rows[key] = canonical(document)
    without(world, 3)
    assert kinds(world)[0] == ("altered", "a signature does not verify")


def test_the_end_of_another_boot() -> None:
    """Moved here it would count other rows."""
    world = ended()
    (key,) = world.stores.objects.keys("boots/")
    body = world.stores.objects.rows.pop(key)
    world.stores.objects.rows[key.replace("boot1", "boot2")] = body
    findings = boot_findings(
        world.stores.connections, world.stores.objects, world.stores.keys, "boot2", now=world.clock.now()
    )
    assert [finding.kind.value for finding in findings] == ["swapped", "unsealed"]


def test_a_boot_that_died_says_what_is_not_known() -> None:
    """Nothing shows whether rows followed: that is listed, and not passed over."""
    world = World()
    world.connect()
    assert kinds(world) == [
        ("unsealed", "has no signed end: its broker died, and nothing shows whether rows followed number 1")
    ]


def test_a_boot_that_lives_is_no_finding() -> None:
    """It will say its last number when it ends."""
    world = World()
    world.connect()
    life(world).beat()
    assert found(world, beats=True) == []
    world.clock.advance(121)
    assert [finding.kind.value for finding in found(world, beats=True)] == ["unsealed"]


def test_nothing_opens_after_the_end_was_counted() -> None:
    """A row after it would be one too many."""
    world = ended(1)
    with pytest.raises(StoreUnavailable):
        world.connect()


def test_an_end_that_cannot_be_put_stops_nothing() -> None:
    """The broker leaves all the same; the missing end is seen."""
    world = World()
    world.connect().close("client_left")
    world.stores.fail("objects")
    life(world).end(world.gateway.end_boot)
    world.stores.heal("objects")
    assert [kind for kind, _ in kinds(world)] == ["unsealed"]


def test_a_long_boot_is_read_in_pages() -> None:
    """A broker lives for weeks: its rows are more than one answer holds."""

    class Paged:
        def __init__(self, world: World) -> None:
            self._rows = world.stores.connections

        def of_boot(self, boot: str, after: int, most: int) -> object:
            return self._rows.of_boot(boot, after, 2)

    world = ended(5)
    findings = boot_findings(
        Paged(world),  # type: ignore[arg-type]
        world.stores.objects,
        world.stores.keys,
        "boot1",
        now=world.clock.now(),
    )
    assert findings == []
    end = BootEnd(boot="b", last=0, last_sha256="", closed_at=world.clock.now())
    assert boot_end_key(end.boot, end.closed_at) == "boots/v1/2026-11-02/b.json"
