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
from chalicelib.domain.chain import Chain, Hop, HopKind, chain_to
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import HopId, Txn
from chalicelib.domain.identity import Assurance, Identity
from tests.fakes import samples
from tests.fakes.clock import START
from tests.vectors import make_hops
from tests.vectors.make_hops import vectors

PINNED = json.loads((Path(make_hops.__file__).parent / "hops.json").read_text())["hops"]


@pytest.mark.parametrize("pinned", PINNED, ids=lambda pinned: pinned["kind"])
def test_a_hops_hash_is_pinned(pinned: dict[str, Any]) -> None:
    """Every chain ever signed rests on these bytes: another hash here means another hop version."""
    hop = vectors()[pinned["kind"]]
    assert hop.hashed() == pinned["hashed"]
    assert hop.sha256() == pinned["sha256"]


@pytest.mark.parametrize("pinned", PINNED, ids=lambda pinned: pinned["kind"])
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
        "version": 2,
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
    ],
)
def test_a_broken_link_is_no_chain(changes: dict[str, Any]) -> None:
    """Each would let a child be somebody's whose it is not, or last longer than it may."""
    root = samples.origin()
    delegate = relinked(root, samples.child(root), **changes)
    with pytest.raises(ProofInvalid):
        chain_to(mapped(root, delegate), delegate.id)


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


@given(depth=st.integers(min_value=1, max_value=6), seconds=st.lists(st.integers(0, 3600), min_size=6, max_size=6))
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
