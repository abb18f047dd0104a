"""The review of a period: every chain as whole as alone, and a list that claims nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from chalicelib.domain.errors import RowUnreadable
from chalicelib.domain.signoff import Period, Selection
from chalicelib.services.period_review import PeriodReview, ReviewedPeriod, listed_json, period_json
from chalicelib.services.population import ReadPopulation
from chalicelib.services.review import Review
from chalicelib.services.reviewed import FindingKind
from tests.fakes.archive import PEOPLE, Archive, ArchiveIn
from tests.fakes.clock import START

HOUR = Period(since=START - timedelta(minutes=30), until=START + timedelta(minutes=30))


def reviewing(archive: Archive) -> PeriodReview:
    review = Review(stores=archive.stores, people=PEOPLE, clock=archive.clock)
    return PeriodReview(stores=archive.stores, review=review, people=PEOPLE, readers=2)


def reviewed(archive: Archive, **selected: str) -> ReviewedPeriod:
    population = ReadPopulation(archive.stores)(HOUR, Selection(**selected))
    return reviewing(archive)(population, archive.clock.now())


def test_every_chain_of_the_period_is_reviewed() -> None:
    """Two runs of an hour, each with all its sessions, and each as a review of it alone says."""
    archive = Archive()
    other = ArchiveIn(archive.stores)
    found = reviewed(archive)
    assert {chain.txn for chain in found.chains} == {archive.txn, other.txn}
    assert (found.sessions, found.verified) == (4, True)
    alone = Review(stores=archive.stores, people=PEOPLE, clock=archive.clock)(archive.txn)
    (one,) = [chain for chain in found.chains if chain.txn == archive.txn]
    assert one.sessions == alone.sessions


def test_of_one_target_only_its_sessions_with_the_hops_above_them() -> None:
    """An owner of db-prod sees who came there, through whom, and nothing of what they did elsewhere."""
    archive = Archive()
    (chain,) = reviewed(archive, target="db-prod").chains
    assert [session.target for session in chain.sessions] == ["db-prod"]
    assert [hop.identity.name for hop in chain.hops] == [
        "acme/orders deploy",
        "deploy-svc",
        "schema-tool",
        "deploy@db-prod",
    ]


def test_a_change_in_one_of_many_is_found() -> None:
    """Nothing is weaker for being one of many."""
    archive = Archive()
    ArchiveIn(archive.stores)
    archive.stores.objects.rows[archive.db.segments[0]] = b"x"
    found = reviewed(archive)
    assert [finding.key for finding in found.findings] == [archive.db.segments[0]]
    assert not found.verified


def test_a_session_whose_whole_chain_is_gone_is_named() -> None:
    """It cannot be reviewed, and must not be left out for that."""
    archive = Archive()
    archive.stores.chains.rows.clear()
    found = reviewed(archive)
    assert [(finding.key, finding.kind) for finding in found.findings] == [(archive.txn, FindingKind.MISSING)]


def test_a_row_that_nobody_can_read_is_named_and_hides_no_other() -> None:
    """Attack: one row with a moment of the year 10000, and no review of that month ever again."""
    archive = Archive()
    other = ArchiveIn(archive.stores)

    class Damaged:
        """The stores, one of them replaced."""

        def __init__(self, **replaced: Any) -> None:
            self.replaced = replaced

        def __getattr__(self, name: str) -> Any:
            return self.replaced.get(name) or getattr(archive.stores, name)

    class Unreadable:
        """A store that reads all but what belongs to the first archive."""

        def __init__(self, inner: Any, bad: set[str]) -> None:
            self.inner, self.bad = inner, bad

        def __getattr__(self, name: str) -> Any:
            def read(asked: Any) -> Any:
                if self.bad & ({asked} if isinstance(asked, str) else set(asked)):
                    raise RowUnreadable("a stored row cannot be read", kind="Hop")
                return getattr(self.inner, name)(asked)

            return read if name in ("hops", "of_session", "get_many") else getattr(self.inner, name)

    for store, bad in (
        ("chains", archive.txn),
        ("sessions", archive.db.session_id),
        ("connections", archive.db.session_id),
    ):
        damaged: Any = Damaged(**{store: Unreadable(getattr(archive.stores, store), {bad})})
        population = ReadPopulation(damaged)(HOUR, Selection())
        review = Review(stores=damaged, people=PEOPLE, clock=archive.clock)
        found = PeriodReview(stores=damaged, review=review, people=PEOPLE)(population, archive.clock.now())
        assert (bad, "has a Hop row that is nothing that we wrote") in {(one.key, one.what) for one in found.findings}
        assert other.txn in {chain.txn for chain in found.chains}, store


def test_json_is_every_chains_and_says_which_period() -> None:
    """A program that files it must not have to know what was asked for."""
    archive = Archive()
    told = period_json(reviewed(archive))
    assert (told["sessions"], told["verified"], told["target"]) == (2, True, "")
    chains = told["chains"]
    assert isinstance(chains, list)
    assert len(chains) == 1


def test_a_list_says_what_the_tables_say() -> None:
    """Who, through whom, to what, on which rule, who answered; without a recording or a signature."""
    archive = Archive()
    population = ReadPopulation(archive.stores)(HOUR, Selection())
    archive.stores.fail("objects")
    orders, db = reviewing(archive).listed(population)
    assert orders.through == ("acme/orders deploy",)
    assert db.through == ("acme/orders deploy", "deploy-svc", "schema-tool")
    assert [(person, name, approved) for person, name, approved, _ in orders.answers] == [("alice", "Alice", True)]
    assert (db.answers, db.rules, db.exits, db.assurance) == ((), ("schema-tools-open",), ("client",), "attested")
    assert listed_json(db)["through"] == list(db.through)


def test_a_list_survives_a_loop_of_hops() -> None:
    """Attack: a hop that is its own ancestor would never end."""
    archive = Archive()
    archive.change_hop(archive.root, parent=archive.tool.id)
    population = ReadPopulation(archive.stores)(HOUR, Selection())
    assert len(reviewing(archive).listed(population)) == 2
