"""What comes after a broker's death, over a ``World``: the sweeper, a restarted broker, and what an auditor then finds.

world = World(); connection = world.connect()          # and never closed: its broker died
swept(world).sealed == 1; findings(world) == [...]
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from broker.recorder.finishing import Finishing
from broker.recorder.spool import Spool
from chalicelib.domain.connection import SILENT_AFTER, Beat, ConnectionRow
from chalicelib.domain.recording import SWEEPER, Manifest
from chalicelib.services.recordings import manifest_of
from chalicelib.services.review import Review
from chalicelib.services.reviewed import AccessReview, Finding
from chalicelib.services.seal_orphan import SealOrphan
from chalicelib.services.sweep import Sweep, Swept
from tests.fakes.broker import World

RESTART = "restart:host:boot_2"


def sealer(world: World, sealed_by: str = SWEEPER, objects: Any = None) -> SealOrphan:
    """Return what seals, with the key of the one it says it is."""
    return SealOrphan(
        objects=objects or world.stores.objects,
        connections=world.stores.connections,
        chains=world.stores.chains,
        keys=world.stores.keys,
        signer=world.stores.signer("sweep" if sealed_by == SWEEPER else "record"),
        clock=world.clock,
        sealed_by=sealed_by,
        build="test",
    )


def sweeper(world: World, objects: Any = None) -> Sweep:
    return Sweep(
        connections=world.stores.connections,
        beats=world.stores.beats,
        chains=world.stores.chains,
        seal=sealer(world, objects=objects),
        clock=world.clock,
        audit=world.audit,
    )


def swept(world: World) -> Swept:
    """Let time go by until the dead are known to be, and sweep."""
    world.clock.advance((SILENT_AFTER + timedelta(seconds=1)).total_seconds())
    return sweeper(world)()


def beat(world: World) -> None:
    for row in world.stores.connections.rows.values():
        world.stores.beats.put(Beat(boot=row.boot, at=world.clock.now()))


def finishing(world: World, spool: Spool, objects: Any = None) -> Finishing:
    """Return what a restarted broker runs."""
    return Finishing(
        spool=spool,
        objects=objects or world.stores.objects,
        connections=world.stores.connections,
        seal=sealer(world, RESTART, objects),
        stopping=lambda: False,
    )


def review(world: World) -> AccessReview:
    return Review(stores=world.stores, people=(), clock=world.clock)(world.session.id)


def findings(world: World) -> Sequence[Finding]:
    """Return what ``verify`` finds in the session."""
    return review(world).findings


def told(world: World) -> list[tuple[str, str]]:
    """Return (kind, what) of the findings."""
    return [(found.kind.value, found.what) for found in findings(world)]


def row(world: World) -> ConnectionRow:
    (found,) = world.stores.connections.rows.values()
    return found


def manifest(world: World) -> Manifest:
    return manifest_of(world.stores.objects.get(row(world).manifest_key))


def recorded_texts(world: World) -> set[str]:
    """Return the texts of the operations that the review shows."""
    return {operation.text for session in review(world).sessions for operation in session.operations}
