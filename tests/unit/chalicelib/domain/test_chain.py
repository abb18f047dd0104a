"""What a hop hashes, for ever, and which hops make a chain."""

from __future__ import annotations

import dataclasses
import itertools
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.chain import HOP_VERSION, Chain, Hop, HopKind, chain_to
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import HopId, Txn
from chalicelib.domain.identity import Assurance, Identity
from chalicelib.identity.jws import hop_purpose, sign_hop
from chalicelib.services.evidence import Evidence
from tests.fakes import samples
from tests.fakes.clock import START
from tests.fakes.memory import MemoryStores
from tests.fakes.signer import MemoryKeys
from tests.vectors import make_hops
from tests.vectors.make_hops import vectors

PINNED = json.loads((Path(make_hops.__file__).parent / "hops.json").read_text())["hops"]


def named(pinned: dict[str, Any]) -> str:
    return f"{pinned['kind']} of version {pinned['hashed']['v']}"


def test_every_version_of_a_hop_has_its_vectors() -> None:
    """What was signed under the first version must verify for as long as somebody reviews it."""
    assert [named(pinned) for pinned in PINNED] == [
        f"{kind} of version {version}"
        for version in (1, 2, 3, HOP_VERSION)
        for kind in ("origin", "delegate", "target")
    ]


@pytest.mark.parametrize("pinned", PINNED, ids=named)
def test_a_hops_hash_is_pinned(pinned: dict[str, Any]) -> None:
    """Every chain ever signed rests on these bytes: another hash here means another hop version."""
    hop = vectors(pinned["hashed"]["v"])[pinned["kind"]]
    assert hop.hashed() == pinned["hashed"]
    assert hop.sha256() == pinned["sha256"]


@pytest.mark.parametrize("pinned", PINNED, ids=named)
def test_a_pinned_hash_is_that_of_its_text(pinned: dict[str, Any]) -> None:
    """An auditor recomputes it with nothing but JSON with sorted keys and SHA-256."""
    text = json.dumps(pinned["hashed"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert sha256_hex(text.encode()) == pinned["sha256"]


def test_the_hash_covers_every_field_but_the_signature() -> None:
    """A field outside the hash could be changed in the table without anybody seeing it."""
    hop = samples.target_hop(samples.origin())
    other = {
        "txn": Txn("x"),
        "id": HopId("x"),
        "depth": 9,
        "kind": HopKind.DELEGATE,
        "parent": None,
        "parent_sha256": "x",
        "originator": samples.AGENT,
        "actor": samples.AGENT,
        "evidence": dataclasses.replace(hop.evidence, assurance=Assurance.BEARER),
        "accountable": (),
        "teams": (),
        "scope": (),
        "key_thumbprint": "x",
        "target": "x",
        "principal": "x",
        "serial": "x",
        "issued_at": hop.issued_at + timedelta(milliseconds=1),
        "expires_at": hop.expires_at + timedelta(milliseconds=1),
        "max_depth": 9,
        "ticket": "x",
        "rules": ("x",),
        "version": 5,
    }
    assert set(other) == {field.name for field in dataclasses.fields(Hop)} - {"signature"}
    for name, value in other.items():
        assert samples.changed(hop, **{name: value}).sha256() != hop.sha256(), name
    assert dataclasses.replace(hop, signature="x").sha256() == hop.sha256()


@pytest.mark.parametrize("name", ["issuer", "subject", "name"])
@pytest.mark.parametrize("whose", ["actor", "originator"])
def test_the_hash_covers_every_part_of_an_identity(whose: str, name: str) -> None:
    """A name shown to an approver is part of what was signed."""
    hop = samples.origin()
    identity: Identity = getattr(hop, whose)
    changed = samples.changed(hop, **{whose: samples.changed(identity, **{name: "x"})})
    assert changed.sha256() != hop.sha256()


def family() -> tuple[Hop, Hop, Hop]:
    root = samples.origin()
    delegate = samples.child(root)
    return root, delegate, samples.target_hop(delegate)


def mapped(*hops: Hop) -> dict[HopId, Hop]:
    return {hop.id: hop for hop in hops}


def test_a_chain_is_its_hops_from_the_origin() -> None:
    """The leaf names the rest; siblings are no part of it."""
    root, delegate, target = family()
    sibling = samples.child(root)
    chain = chain_to(mapped(target, sibling, root, delegate), target.id)
    assert chain.hops == (root, delegate, target)
    assert (chain.leaf, chain.txn, chain.originator) == (target, root.txn, root.originator)
    assert chain.accountable == root.accountable
    assert chain.identities == (root.actor, delegate.actor, target.actor)
    assert chain_to(mapped(root, delegate), root.id).hops == (root,)


def test_the_accountable_are_those_of_the_origin_alone() -> None:
    """A later hop that names nobody must not make anybody eligible to approve."""
    root = samples.origin()
    later = dataclasses.replace(samples.child(root), accountable=())
    assert chain_to(mapped(root, later), later.id).accountable == ("gh:actor_id:123",)


def test_any_part_of_a_chain_can_be_revoked() -> None:
    """Revoking a parent ends its descendants: each of these keys ends the leaf's connections."""
    root, delegate, _ = family()
    keys = chain_to(mapped(root, delegate), delegate.id).liveness_keys()
    assert keys == {
        f"txn:{root.txn}",
        f"hop:{root.id}",
        f"hop:{delegate.id}",
        f"identity:{samples.RUNNER.key}",
        f"identity:{samples.AGENT.key}",
        f"issuer:{samples.RUNNER.issuer}",
        f"issuer:{samples.AGENT.issuer}",
    }


def relinked(parent: Hop, hop: Hop, **changes: Any) -> Hop:
    """Return ``hop`` with changes, hash-linked to ``parent`` again: only the change itself can be found wrong."""
    return dataclasses.replace(hop, **{"parent_sha256": parent.sha256(), **changes})


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"parent_sha256": "00" * 32}, id="the parent was rewritten"),
        pytest.param({"depth": 2}, id="a depth was skipped"),
        pytest.param({"depth": 0}, id="no depth was added"),
        pytest.param({"txn": Txn("other")}, id="a hop of another chain"),
        pytest.param({"originator": samples.AGENT}, id="the originator was swapped"),
        pytest.param({"expires_at": START + timedelta(hours=2)}, id="the child outlives its parent"),
        pytest.param({"scope": ("*",)}, id="the child may go to any target"),
        pytest.param({"scope": ("orders-prod", "payroll")}, id="the child has a target more"),
        pytest.param({"max_depth": 4}, id="the child hands down deeper than it may"),
        pytest.param({"max_depth": 0}, id="the child is deeper than its own depth"),
        pytest.param({"kind": HopKind.ORIGIN}, id="a second origin"),
        pytest.param({"kind": HopKind.TARGET, "target": "payroll", "principal": "app"}, id="a target out of scope"),
    ],
)
def test_a_broken_link_is_no_chain(changes: dict[str, Any]) -> None:
    """Each would let a child be somebody's whose it is not, or last longer than it may."""
    root = samples.origin()
    delegate = relinked(root, samples.child(root), **changes)
    with pytest.raises(ProofInvalid):
        chain_to(mapped(root, delegate), delegate.id)


def test_a_first_version_hop_cannot_hand_down() -> None:
    """Its hash covers no depth, so one that somebody wrote into the row must not make it a parent."""
    root = dataclasses.replace(samples.origin(), version=1, max_depth=0)
    assert chain_to(mapped(root), root.id).leaf == root
    planted = dataclasses.replace(root, max_depth=3)
    assert planted.sha256() == root.sha256()
    for hop in (planted, dataclasses.replace(root, ticket="tkt_x")):
        with pytest.raises(ProofInvalid):
            chain_to(mapped(hop), hop.id)


def test_rules_outside_a_hops_hash_are_no_rules() -> None:
    """Attack: a row of the second version is given rules, so that a review says what allowed its delegation."""
    root = dataclasses.replace(samples.origin(), version=2)
    assert chain_to(mapped(root), root.id).leaf == root
    planted = dataclasses.replace(root, rules=("anybody-may",))
    assert planted.sha256() == root.sha256()
    with pytest.raises(ProofInvalid):
        chain_to(mapped(planted), planted.id)


def test_everybody_behind_any_hop_is_involved() -> None:
    """The people behind a child's own run must not approve what it does under somebody else's."""
    root = samples.origin()
    other = dataclasses.replace(samples.child(root), accountable=("k8s:7", "gh:actor_id:123"))
    assert chain_to(mapped(root, other), other.id).involved == ("gh:actor_id:123", "k8s:7")


def test_a_chain_allows_what_every_hop_of_it_does() -> None:
    """Only the intersection is a child's authority; the target hop's own empty scope takes nothing away."""
    root = dataclasses.replace(samples.origin(), scope=("orders-prod", "db-prod"))
    delegate = relinked(root, samples.child(root), scope=("orders-prod/app#sql:read",))
    chain = chain_to(mapped(root, delegate), delegate.id)
    assert chain.allows("orders-prod", "app")
    assert chain.allows("orders-prod", "app", "sql:read")
    assert not chain.allows("orders-prod", "app", "sql:write")
    assert not chain.allows("orders-prod", "admin")
    assert not chain.allows("db-prod", "app")
    target = dataclasses.replace(samples.target_hop(delegate), scope=())
    assert chain_to(mapped(root, delegate, target), target.id).allows("orders-prod", "app", "sql:read")


ALTERED: dict[str, Any] = {
    "txn": Txn("other"),
    "id": HopId("hop_other"),
    "depth": 7,
    "parent": HopId("hop_other"),
    "parent_sha256": "00" * 32,
    "originator": samples.AGENT,
    "actor": Identity(issuer="https://evil.example.com", subject="x", name="deploy-svc"),
    "evidence": dataclasses.replace(samples.origin().evidence, token_id="other"),
    "accountable": (),
    "teams": ("dba",),
    "scope": ("*",),
    "key_thumbprint": "other",
    "target": "payroll",
    "principal": "root",
    "serial": "other",
    "issued_at": START - timedelta(days=1),
    "expires_at": START + timedelta(days=1),
    "max_depth": 5,
    "ticket": "tkt_other",
    "rules": ("anybody-may",),
    "version": 1,
}


OTHER_KIND = {
    HopKind.ORIGIN: HopKind.DELEGATE,
    HopKind.DELEGATE: HopKind.TARGET,
    HopKind.TARGET: HopKind.DELEGATE,
}


@given(whose=st.integers(min_value=0, max_value=2), name=st.sampled_from([*sorted(ALTERED), "kind"]))
def test_a_chain_with_any_altered_hop_fails(whose: int, name: str) -> None:
    """Every field of every hop is held by its own signature and by the link of the hop below it."""
    signer = MemoryKeys()
    hops: list[Hop] = []
    for make in (lambda _: samples.origin(), samples.child, samples.target_hop):
        unsigned = make(hops[-1] if hops else samples.origin())
        hops.append(sign_hop(signer.signer(hop_purpose(unsigned).value), unsigned))
    chains = MemoryStores()
    chains.keys = signer
    value = OTHER_KIND[hops[whose].kind] if name == "kind" else ALTERED[name]
    altered = samples.changed(hops[whose], **{name: value})
    assert altered != hops[whose]
    for hop in [*hops[:whose], altered, *hops[whose + 1 :]]:
        chains.chains.rows[hops[0].txn, len(chains.chains.rows), hop.id] = hop
    evidence = Evidence(chains=chains.chains, answers=chains.answers, keys=chains.keys)
    with pytest.raises(ProofInvalid):
        evidence.chain(hops[0].txn, hops[-1].id)


def test_nothing_comes_after_a_target() -> None:
    """A target's login delegates to nobody."""
    root = samples.origin()
    target = samples.target_hop(root)
    after = samples.child(target)
    with pytest.raises(ProofInvalid):
        chain_to(mapped(root, target, after), after.id)


def test_a_missing_hop_is_no_chain() -> None:
    """A deleted row must not shorten the story."""
    root, delegate, target = family()
    with pytest.raises(ProofInvalid):
        chain_to(mapped(root, target), target.id)
    with pytest.raises(ProofInvalid):
        chain_to(mapped(delegate, target), target.id)
    with pytest.raises(ProofInvalid):
        chain_to({}, root.id)


def test_a_loop_ends() -> None:
    """Two rows that name each other must not hold a broker's thread for ever."""
    root = samples.origin()
    one = dataclasses.replace(samples.child(root), id=HopId("hop_a"), parent=HopId("hop_b"))
    two = dataclasses.replace(samples.child(root), id=HopId("hop_b"), parent=HopId("hop_a"))
    with pytest.raises(ProofInvalid):
        chain_to(mapped(one, two), one.id)


@pytest.mark.parametrize("changes", [{"depth": 1}, {"kind": HopKind.DELEGATE}, {"parent_sha256": "ab" * 32}])
def test_a_false_origin_is_no_chain(changes: dict[str, Any]) -> None:
    """A delegate that drops its parent would be the originator of a chain of its own."""
    root = dataclasses.replace(samples.origin(), **changes)
    with pytest.raises(ProofInvalid):
        chain_to(mapped(root), root.id)


@given(depth=st.integers(min_value=1, max_value=3), seconds=st.lists(st.integers(0, 3600), min_size=6, max_size=6))
def test_a_chain_never_lasts_longer_further_down(depth: int, seconds: list[int]) -> None:
    """Whatever expiries children claim, a chain that is accepted narrows."""
    hops = [samples.origin()]
    for number in range(depth):
        expires = START + timedelta(seconds=seconds[number])
        hops.append(dataclasses.replace(samples.child(hops[-1]), expires_at=expires))
    try:
        chain: Chain | None = chain_to(mapped(*hops), hops[-1].id)
    except ProofInvalid:
        chain = None
    narrows = all(child.expires_at <= parent.expires_at for parent, child in itertools.pairwise(hops))
    assert (chain is not None) is narrows


def test_the_canonical_form_is_what_is_hashed() -> None:
    """The hash is over the canonical bytes and nothing beside them."""
    hop = samples.origin()
    assert hop.sha256() == sha256_hex(canonical(hop.hashed()))


def test_an_older_hop_that_names_a_kept_token_is_no_chain() -> None:
    """Attack: outside the hash of versions 1 to 3, the name of a kept token could be written into any row."""
    root = dataclasses.replace(samples.origin(), version=3)
    named_after = dataclasses.replace(root, evidence=dataclasses.replace(root.evidence, kept_sha256="ab" * 32))
    assert named_after.sha256() == root.sha256()
    assert chain_to(mapped(root), root.id).leaf == root
    with pytest.raises(ProofInvalid):
        chain_to(mapped(named_after), named_after.id)
