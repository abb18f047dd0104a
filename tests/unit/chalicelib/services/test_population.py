"""A population: that it is every session of its period, that it says what is missing, and that anybody can redo it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from chalicelib.domain.canonical import sha256_hex, timestamp
from chalicelib.domain.identifiers import SessionId
from chalicelib.domain.recording import FrameKind
from chalicelib.domain.signoff import Period, Selection
from chalicelib.services.population import (
    Population,
    ReadPopulation,
    member_json,
    population_json,
    population_sha256,
    sample,
)
from chalicelib.services.reviewed import FindingKind
from tests.fakes.archive import Archive, ArchiveIn
from tests.fakes.clock import START
from tests.fakes.memory import MemoryStores

HOUR = Period(since=START - timedelta(minutes=30), until=START + timedelta(minutes=30))


def read(archive: ArchiveIn[MemoryStores], period: Period = HOUR, **selected: str) -> Population:
    return ReadPopulation(archive.stores, readers=2)(period, Selection(**selected))


def test_it_is_every_session_of_the_period_and_agrees_with_the_bucket() -> None:
    """The auditor draws a sample from it: what is not in it is never looked at."""
    archive = Archive()
    found = read(archive)
    assert [member.session.id for member in found.members] == sorted([archive.orders.session_id, archive.db.session_id])
    assert (found.connections, found.manifests, found.others, found.unsealed, found.findings) == (2, 2, 0, 0, ())


def test_a_selection_leaves_out_and_says_how_many() -> None:
    """A population by target is a part, and the digest is of that part."""
    archive = Archive()
    found = read(archive, target="db-prod")
    assert [member.session.id for member in found.members] == [archive.db.session_id]
    assert found.others == 1
    assert found.sha256 != read(archive).sha256
    assert read(archive, pipeline="acme/orders").sha256 != read(archive).sha256


def test_a_session_of_another_time_is_not_in_it() -> None:
    """It is in the period before, or the next, and in one of them."""
    archive = Archive()
    assert read(archive, Period(since=START - timedelta(days=3), until=START)).members == ()
    assert read(archive, Period(since=START + timedelta(hours=1), until=START + timedelta(hours=2))).members == ()


def test_the_digest_stays_when_a_session_is_closed_or_gets_a_new_secret() -> None:
    """Two reviewers a week apart compare one number."""
    archive = Archive()
    before = read(archive).sha256
    archive.stores.sessions.close(archive.orders.session_id, "done", archive.clock.now())
    archive.change_session(archive.db, verifier=None)
    assert read(archive).sha256 == before


@pytest.mark.parametrize(
    "change",
    [
        lambda archive: archive.change_session(archive.db, leaf_hop=archive.root.id),
        lambda archive: archive.change_session(archive.db, actor=archive.root.actor),
        lambda archive: archive.change_row(archive.db, peer="10.9.9.9"),
        lambda archive: archive.change_row(archive.db, manifest_sha256="00" * 32),
        lambda archive: archive.change_session(archive.db, grant=None),
    ],
)
def test_the_digest_changes_with_what_was_reviewed(change: Callable[[Archive], None]) -> None:
    """Attack: a row is changed between the review and its sign-off."""
    archive = Archive()
    before = read(archive).sha256
    change(archive)
    assert read(archive).sha256 != before


def test_anybody_can_make_the_digest_again() -> None:
    """From the JSON alone: hashes of the members, by session id."""
    archive = Archive()
    told = population_json(read(archive))
    members = told["members"]
    assert isinstance(members, list)
    leaves = [str(member["sha256"]) for member in members if isinstance(member, dict)]
    assert population_sha256(HOUR, Selection(), leaves) == told["population_sha256"]
    assert told["since"] == timestamp(HOUR.since)


def test_a_session_whose_row_was_removed_is_missing() -> None:
    """Attack: a whole session's row is taken out of the table; its manifest in the locked bucket still names it."""
    archive = Archive()
    gone = archive.db.session_id
    del archive.stores.sessions.rows[gone]
    found = read(archive)
    assert [(one.key, one.kind) for one in found.findings] == [(gone, FindingKind.MISSING)]
    assert archive.db.manifest_key in found.findings[0].what
    assert read(archive, target="orders-prod").findings == found.findings, "nobody knows on which target it was"


def test_a_connection_whose_row_was_removed_is_missing_twice_over() -> None:
    """Attack: the row goes; the manifest names it, and the broker's numbers have a hole."""
    archive = Archive()
    third = archive.connect(
        archive.grant(archive.root, "orders-prod", "app", "again", rules=("x",)), archive.root, "postgres"
    )
    archive.frame(third, FrameKind.CLOSE, exit="client")
    archive.store(third)
    del archive.stores.connections.rows[archive.db.session_id, archive.db.row.id]
    found = {one.key: one.what for one in read(archive).findings}
    assert archive.db.manifest_key in found[archive.db.row.id]
    assert "no row of its connection 2" in found["boot-1"]


def test_a_manifest_that_was_removed_is_missing() -> None:
    """The row names it, and the bucket has it no more."""
    archive = Archive()
    del archive.stores.objects.rows[archive.db.manifest_key]
    assert [one.key for one in read(archive).findings] == [archive.db.manifest_key]


def test_a_manifest_of_nothing_of_ours_is_told() -> None:
    """What lies among the manifests was put there by somebody."""
    archive = Archive()
    archive.stores.objects.rows["manifests/v1/2026-11-02/planted/x.json"] = b"{}"
    assert [one.kind for one in read(archive).findings] == [FindingKind.EXTRA]


def test_what_was_asked_for_before_the_period_is_no_hole_in_it() -> None:
    """A session of yesterday evening has its connection after midnight: a false finding is one nobody reads."""
    archive = Archive()
    within = Period(since=archive.db.row.opened_at - timedelta(seconds=1), until=START + timedelta(hours=1))
    found = read(archive, within)
    assert (found.members, found.findings, found.connections) == ((), (), 1)


def test_a_connection_that_is_open_is_said() -> None:
    """The digest changes when it ends: whoever signs should know before."""
    archive = Archive()
    archive.change_row(archive.db, sealed_at=None, manifest_key="", manifest_sha256="")
    assert read(archive).unsealed == 1


def test_a_sample_is_drawn_again_by_anybody() -> None:
    """From the seed and the ids, with nothing but SHA-256; another seed draws others; none is drawn twice."""
    archive = Archive()
    population = read(archive)
    first = population.members[0]
    made = [replace(first, session=replace(first.session, id=SessionId(f"ses_{number:026d}"))) for number in range(50)]
    population = replace(population, members=tuple(made))
    drawn = [member.session.id for member in sample(population, 5, "2026-Q4")]
    ordered = sorted((member.session.id for member in made), key=lambda one: sha256_hex(f"2026-Q4\n{one}".encode()))
    assert drawn == sorted(ordered[:5])
    assert drawn == [member.session.id for member in sample(population, 5, "2026-Q4")]
    assert drawn != [member.session.id for member in sample(population, 5, "2027-Q1")]
    assert len(sample(population, 500, "x")) == 50


def test_a_member_says_what_its_hash_is_about() -> None:
    """The auditor goes from it to the recording."""
    archive = Archive()
    told = member_json(read(archive, target="db-prod").members[0])
    assert told["connections"] == [
        {
            "id": archive.db.row.id,
            "manifest": archive.db.manifest_key,
            "manifest_sha256": archive.stores.connections.of_session(archive.db.session_id)[0].manifest_sha256,
        }
    ]
