"""Who may end what: everybody what is their own, others by a rule, and nobody learns what there is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from chalicelib.domain.audit import AuditName
from chalicelib.domain.chain import Hop, chain_to
from chalicelib.domain.errors import BadRequest, NotFound, StoreUnavailable
from chalicelib.domain.identifiers import new_grant_id, new_hop_id, new_session_id, new_txn
from chalicelib.domain.identity import Identity
from chalicelib.services.identify import Caller
from chalicelib.services.revoke import MAX_ID, MAX_WHY, Revocable, Revoke
from tests.fakes import samples
from tests.fakes.clock import FakeClock
from tests.fakes.control_plane import Events
from tests.fakes.memory import MemoryStores
from tests.unit.chalicelib.services.deciding import Permitting


class Tree:
    """root → left → leaf, and root → right: with a session opened by each, and a chain of somebody else's."""

    def __init__(self) -> None:
        self.stores, self.events, self.policy, clock = MemoryStores(), Events(), Permitting(), FakeClock()
        self.root = replace(samples.origin(), max_depth=3, scope=("*",))
        self.left, self.right = self._below(self.root, "left"), self._below(self.root, "right")
        self.leaf = self._below(self.left, "leaf")
        self.foreign = replace(samples.origin(), max_depth=3)
        self.hops = {"root": self.root, "left": self.left, "right": self.right, "leaf": self.leaf}
        for hop in (*self.hops.values(), self.foreign):
            self.stores.chains.put(hop)
        self.sessions = {name: samples.session(hop) for name, hop in (self.hops | {"foreign": self.foreign}).items()}
        for session in self.sessions.values():
            self.stores.sessions.create(session)
        self.revoke = Revoke(
            bundles=self.policy,
            chains=self.stores.chains,
            sessions=self.stores.sessions,
            revocations=self.stores.revocations,
            clock=clock,
            audit=self.events,
        )

    def _below(self, parent: Hop, name: str) -> Hop:
        actor = Identity(issuer="https://countersign.example.com", subject=f"key:{name}", name=name)
        return replace(samples.child(parent), actor=actor, id=new_hop_id(FakeClock().now()))

    def caller(self, name: str, key: str = "") -> Caller:
        rows = self.stores.chains.hops(self.root.txn)
        return Caller(chain=chain_to(rows, self.hops[name].id), token_id="t", scope=("*",), key_thumbprint=key)


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.mark.parametrize(
    ("who", "whose"),
    [("root", "root"), ("root", "left"), ("root", "leaf"), ("left", "left"), ("left", "leaf"), ("leaf", "leaf")],
)
def test_a_caller_ends_its_own_hop_and_what_is_below_it(tree: Tree, who: str, whose: str) -> None:
    """A parent must be able to stop what it let in, without anybody's leave."""
    hop, session = tree.hops[whose], tree.sessions[whose]
    assert tree.revoke(tree.caller(who), "hop", hop.id, "done").key == f"hop:{hop.id}"
    assert tree.revoke(tree.caller(who), "session", session.id, "done").key == f"session:{session.id}"
    assert tree.events.names() == [AuditName.CHAIN_REVOKED.value] * 2
    assert {event.why for event in tree.events.seen} == {"done"}
    assert not tree.policy.asked


@pytest.mark.parametrize(
    ("who", "whose"),
    [
        ("left", "root"),
        ("left", "right"),
        ("leaf", "left"),
        ("right", "leaf"),
        ("right", "foreign"),
        ("root", "foreign"),
    ],
)
def test_a_sibling_or_a_child_ends_nothing_of_another(tree: Tree, who: str, whose: str) -> None:
    """Attack: a tool stops its siblings, or the pipeline that started it. It is told what a stranger is told."""
    hop = tree.foreign if whose == "foreign" else tree.hops[whose]
    for kind, id_ in (("hop", hop.id), ("session", tree.sessions[whose].id)):
        with pytest.raises(NotFound) as refused:
            tree.revoke(tree.caller(who), kind, id_, "x")
        with pytest.raises(NotFound) as missing:
            tree.revoke(tree.caller(who), kind, _unknown(kind), "x")
        assert (refused.value.public, refused.value.next_step) == (missing.value.public, missing.value.next_step)
    assert not tree.stores.revocations.rows
    assert set(tree.events.names()) == {AuditName.REVOCATION_REFUSED.value}


def test_only_the_root_ends_the_whole_chain(tree: Tree) -> None:
    """A child that could end the chain would end its parent."""
    with pytest.raises(NotFound):
        tree.revoke(tree.caller("leaf"), "txn", tree.root.txn, "x")
    assert tree.revoke(tree.caller("root"), "txn", tree.root.txn, "x").key == f"txn:{tree.root.txn}"
    with pytest.raises(NotFound):
        tree.revoke(tree.caller("root"), "txn", tree.foreign.txn, "x")


@pytest.mark.parametrize("kind", list(Revocable))
def test_a_rule_permits_any_kind_and_only_the_kinds_that_it_names(tree: Tree, kind: Revocable) -> None:
    """Security ends anything; a rule for sessions alone must not end targets."""
    id_ = {
        Revocable.HOP: tree.foreign.id,
        Revocable.SESSION: tree.sessions["foreign"].id,
        Revocable.TXN: tree.foreign.txn,
        Revocable.GRANT: new_grant_id(FakeClock().now()),
        Revocable.IDENTITY: "https://idp.example.com#user:7",
        Revocable.ISSUER: "https://idp.example.com",
        Revocable.TARGET: "orders-prod",
        Revocable.TOKEN: "tok_01m6dsg7e0fwejtv7egfb0rbxm",
    }[kind]
    tree.policy.permitted = {f"chain:revoke {other}" for other in Revocable if other is not kind}
    with pytest.raises(NotFound):
        tree.revoke(tree.caller("leaf"), kind.value, id_, "x")
    tree.policy.permitted = {f"chain:revoke {kind}"}
    revocation = tree.revoke(tree.caller("leaf"), kind.value, id_, "x")
    assert (revocation.key, revocation.by) == (f"{kind}:{id_}", tree.leaf.actor.key)


@pytest.mark.parametrize("kind", ["session", "txn", "target"])
def test_whoever_may_is_told_of_what_is_not_there(tree: Tree, kind: str) -> None:
    """A mistyped id must not look like something that was ended."""
    tree.policy.permitted = {f"chain:revoke {kind}"}
    with pytest.raises(NotFound):
        tree.revoke(tree.caller("leaf"), kind, _unknown(kind), "x")
    assert not tree.stores.revocations.rows


def test_a_rule_that_wants_a_key_permits_no_bearer(tree: Tree) -> None:
    """A stolen token must not end production, where the rule asks for a bound one."""
    tree.policy.permitted, tree.policy.bound = {"chain:revoke target"}, True
    with pytest.raises(NotFound):
        tree.revoke(tree.caller("leaf"), "target", "orders-prod", "x")
    assert tree.revoke(tree.caller("leaf", key="k"), "target", "orders-prod", "x").number == 1


@pytest.mark.parametrize(
    ("kind", "id_", "why"),
    [
        ("connection", "con_1", "x"),
        ("hop", "ses_01m6dsg7e0fwejtv7egfb0rbxm", "x"),
        ("hop", "", "x"),
        ("session", "hop_01m6dsg7e0fwejtv7egfb0rbxm", "x"),
        ("txn", "txn:01m6dsg7e0fwejtv7egfb0rbxm", "x"),
        ("identity", "dave", "x"),
        ("identity", "https://idp.example.com", "x"),
        ("identity", "https://idp.example.com#a\nb", "x"),
        ("issuer", "idp.example.com", "x"),
        ("target", "Orders", "x"),
        ("token", "eyJhbGciOiJFUzI1NiJ9.e30.c2ln", "x"),
        ("identity", "https://idp.example.com#" + "x" * MAX_ID, "x"),
        ("target", "orders-prod", ""),
        ("target", "orders-prod", "  "),
        ("target", "orders-prod", "a\nb"),
        ("target", "orders-prod", "a\u2028b"),
        ("target", "orders-prod", "a\u202eb"),
        ("identity", "https://idp.example.com#a\u2028b", "x"),
        ("identity", "https://idp.example.com#a\x9b2Jb", "x"),
        ("identity", "https://idp.example.com#a\u202eb", "x"),
        ("target", "orders-prod", "x" * (MAX_WHY + 1)),
    ],
)
def test_what_is_no_key_is_refused_before_anything(tree: Tree, kind: str, id_: str, why: str) -> None:
    """A key that nothing has would be a revocation that ends nothing, and looks like one."""
    with pytest.raises(BadRequest):
        tree.revoke(tree.caller("root"), kind, id_, why)
    assert not tree.stores.revocations.rows


def test_revoking_twice_answers_the_first(tree: Tree) -> None:
    """A retried call must not number the same end twice."""
    first = tree.revoke(tree.caller("root"), "hop", tree.left.id, "first")
    assert tree.revoke(tree.caller("root"), "hop", tree.left.id, "second") == first


def test_a_changed_hop_keeps_nobody_from_ending_it(tree: Tree) -> None:
    """Attack: whoever can write the table breaks a hop's signature so that its parent cannot stop it."""
    key = (tree.leaf.txn, tree.leaf.depth, tree.leaf.id)
    tree.stores.chains.rows[key] = replace(tree.leaf, scope=("*", "x"), signature="broken")
    assert tree.revoke(tree.caller("left"), "hop", tree.leaf.id, "x").number == 1


def test_a_ring_of_hops_ends(tree: Tree) -> None:
    """Attack: hops that are each other's parents would hold the function until it is killed."""
    caller = tree.caller("right")
    key = (tree.left.txn, tree.left.depth, tree.left.id)
    tree.stores.chains.rows[key] = replace(tree.left, parent=tree.leaf.id)
    with pytest.raises(NotFound):
        tree.revoke(caller, "hop", tree.leaf.id, "x")


def test_an_unread_store_is_no_refusal_of_nothing(tree: Tree) -> None:
    """Nothing is guessed: an outage says that it is one, and is audited."""
    tree.stores.fail("sessions")
    with pytest.raises(StoreUnavailable):
        tree.revoke(tree.caller("root"), "session", tree.sessions["left"].id, "x")
    assert [event.code for event in tree.events.seen] == ["store_unavailable"]


def _unknown(kind: str) -> str:
    now = FakeClock().now()
    made = {"hop": new_hop_id(now), "session": new_session_id(now), "txn": new_txn(now), "target": "no-such-target"}
    return str(made[kind])
