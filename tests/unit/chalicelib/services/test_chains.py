"""Looking at a chain and reviewing one: for its actors, for whom a rule permits, and for nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from chalicelib.config.bundle import Bundle
from chalicelib.domain.audit import AuditName
from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Hop
from chalicelib.domain.errors import Limited, NotFound
from chalicelib.domain.identifiers import new_hop_id, new_txn
from chalicelib.services.chains import MAX_HOPS, MAX_REVIEW, ReadChain, ReviewChain
from tests.fakes import samples
from tests.fakes.clock import FakeClock
from tests.unit.chalicelib.services.test_revoke import Tree

UNKNOWN = "01m6dsg7e0fwejtv7egfb0rbxm"


def reading(tree: Tree) -> ReadChain:
    return ReadChain(
        bundles=tree.policy,
        chains=tree.stores.chains,
        revocations=tree.stores.revocations,
        clock=FakeClock(),
        audit=tree.events,
    )


def reviewing(tree: Tree, review: Mapping[str, Json]) -> ReviewChain:
    def made(_bundle: Bundle, subject: str) -> Mapping[str, Json]:
        if subject == UNKNOWN:
            raise NotFound("there is no such chain")
        return review

    return ReviewChain(bundles=tree.policy, review=made, clock=FakeClock(), audit=tree.events)


@pytest.fixture
def tree() -> Tree:
    return Tree()


def test_an_actor_sees_its_whole_chain_from_the_root(tree: Tree) -> None:
    """The tool at the end may show who called it; nobody's leave is needed and nothing is audited."""
    seen = reading(tree)(tree.caller("leaf"), tree.root.txn)
    assert [row.hop.depth for row in seen] == [0, 1, 1, 2]
    assert not any(row.revoked for row in seen)
    assert (tree.policy.asked, tree.events.seen) == ([], [])


def test_what_is_below_a_revoked_hop_is_shown_as_ended(tree: Tree) -> None:
    """Revocation is evaluated: a look that showed a dead hop as alive would be believed."""
    tree.stores.revocations.revoke(f"hop:{tree.left.id}", by="x", why="x", at=FakeClock().now())
    tree.stores.revocations.revoke(f"identity:{tree.right.actor.key}", by="x", why="x", at=FakeClock().now())
    ended = {row.hop.id for row in reading(tree)(tree.caller("root"), tree.root.txn) if row.revoked}
    assert ended == {tree.left.id, tree.leaf.id, tree.right.id}
    tree.stores.revocations.revoke(f"txn:{tree.root.txn}", by="x", why="x", at=FakeClock().now())
    assert all(row.revoked for row in reading(tree)(tree.caller("root"), tree.root.txn))


def test_a_revoked_target_ends_its_target_hops(tree: Tree) -> None:
    """A target that is taken out of service ends the connections to it, and no hop of a caller."""
    tree.stores.chains.put(samples.target_hop(tree.leaf))
    tree.stores.revocations.revoke("target:orders-prod", by="x", why="x", at=FakeClock().now())
    ended = [row.hop.kind.value for row in reading(tree)(tree.caller("root"), tree.root.txn) if row.revoked]
    assert ended == ["target"]


def test_a_stranger_cannot_tell_a_chain_from_none(tree: Tree) -> None:
    """Attack: finding out which runs there are. What is refused and what is missing are one answer, and audited."""
    texts = set()
    for txn in (tree.foreign.txn, UNKNOWN, "../x"):
        with pytest.raises(NotFound) as refused:
            reading(tree)(tree.caller("root"), txn)
        texts.add((refused.value.public, refused.value.next_step))
    assert len(texts) == 1
    assert {event.code for event in tree.events.seen} == {"not_found"}


def test_a_rule_permits_looking_at_others_and_the_look_is_recorded(tree: Tree) -> None:
    """Who looks at what others did is a fact for auditors too."""
    tree.policy.permitted = {"chain:review chain"}
    (row,) = reading(tree)(tree.caller("root"), tree.foreign.txn)
    assert row.hop.id == tree.foreign.id
    (event,) = tree.events.seen
    assert (event.name, event.txn, event.code) == (AuditName.CHAIN_REVIEWED, tree.foreign.txn, "")


def test_a_chain_that_is_too_long_to_answer_says_where_to_read_it(tree: Tree) -> None:
    """A chain grows a hop with every connection: past the bound the answer would be cut off in the middle."""
    for _ in range(MAX_HOPS):
        tree.stores.chains.put(_another(tree.left))
    with pytest.raises(Limited) as refused:
        reading(tree)(tree.caller("root"), tree.root.txn)
    assert f"countersign review {tree.root.txn}" in refused.value.next_step


def test_a_review_needs_a_rule_even_of_ones_own_chain(tree: Tree) -> None:
    """A review shows statements and approvals of everybody in the chain: being in it is no right to that."""
    with pytest.raises(NotFound):
        reviewing(tree, {"txn": "x"})(tree.caller("root"), tree.root.txn)
    tree.policy.permitted = {"chain:review session"}
    assert reviewing(tree, {"txn": "x"})(tree.caller("root"), tree.sessions["leaf"].id) == {"txn": "x"}
    with pytest.raises(NotFound):
        reviewing(tree, {"txn": "x"})(tree.caller("root"), tree.root.txn)
    assert [event.code for event in tree.events.seen] == ["not_found", "", "not_found"]


def test_a_review_of_nothing_is_told_as_a_review_that_is_not_permitted(tree: Tree) -> None:
    """One answer, also for whoever may."""
    with pytest.raises(NotFound) as refused:
        reviewing(tree, {})(tree.caller("root"), tree.root.txn)
    tree.policy.permitted = {"chain:review chain"}
    for subject in (UNKNOWN, "x" * 200):
        with pytest.raises(NotFound) as missing:
            reviewing(tree, {})(tree.caller("root"), subject)
        assert missing.value.public == refused.value.public
    assert not any("xxx" in repr(event) for event in tree.events.seen)  # what was sent may be anything


def test_a_review_past_the_bound_is_not_cut(tree: Tree) -> None:
    """Lambda would answer an error without a word; the caller is told how to get it."""
    tree.policy.permitted = {"chain:review chain"}
    with pytest.raises(Limited) as refused:
        reviewing(tree, {"text": "x" * MAX_REVIEW})(tree.caller("root"), tree.root.txn)
    assert "countersign review" in refused.value.next_step


def _another(parent: Hop) -> Hop:
    return replace(samples.child(parent), id=new_hop_id(FakeClock().now()), txn=parent.txn)


def test_new_ids_are_ids() -> None:
    """The unknown id of these tests has an id's form: else they would test the form."""
    assert len(new_txn(FakeClock().now())) == len(UNKNOWN)
