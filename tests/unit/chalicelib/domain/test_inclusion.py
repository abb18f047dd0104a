"""Inclusion proofs: every leaf of every tree has one, and nothing else has."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.inclusion import inclusion_path, root_by_path
from chalicelib.domain.recording import merkle_root

LEAVES = st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=70)


@given(leaves=LEAVES, data=st.data())
def test_each_leaf_leads_to_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    """Of every size, balanced or not: the tree is split at a power of two (RFC 9162)."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = inclusion_path(leaves, index)
    assert root_by_path(leaves[index], index, len(leaves), path) == merkle_root(leaves)


@given(leaves=LEAVES, data=st.data())
def test_nothing_else_leads_there(leaves: list[bytes], data: st.DataObject) -> None:
    """Attack: another leaf, another place, another path or another number of leaves, with the rest of a good proof."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    path, root = inclusion_path(leaves, index), merkle_root(leaves)
    assert root_by_path(leaves[index] + b"x", index, len(leaves), path) != root
    assert root_by_path(leaves[index], index, len(leaves), (*path, b"x" * 32)) != root
    assert root_by_path(leaves[index], len(leaves), len(leaves), path) is None
    assert root_by_path(leaves[index], -1, len(leaves), path) is None
    if path:
        assert root_by_path(leaves[index], index, len(leaves), path[:-1]) != root
        assert root_by_path(leaves[index], index, len(leaves), (b"\0" * 32, *path[1:])) != root


def test_a_node_does_not_pass_for_a_leaf() -> None:
    """Attack: an inner node's two hashes shown as a leaf; leaves and nodes are hashed apart."""
    leaves = [b"a", b"b", b"c"]
    inner = hashlib.sha256(b"\0a").digest() + hashlib.sha256(b"\0b").digest()
    assert root_by_path(inner, 0, 2, (hashlib.sha256(b"\0c").digest(),)) != merkle_root(leaves)


def test_a_leaf_that_is_not_there_has_no_path() -> None:
    """An index past the end must not wrap around to another leaf."""
    for index in (-1, 2):
        with pytest.raises(IndexError):
            inclusion_path([b"a", b"b"], index)
