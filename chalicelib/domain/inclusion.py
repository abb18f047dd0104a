"""Inclusion proofs: that one leaf is in a Merkle tree, shown with hashes alone and nothing of the other leaves.

Why: an hourly digest counts everybody's rows. A copy of one chain's evidence shows that its own rows are among them
with the rows themselves and a path of hashes each, and gives nothing of its neighbours away. Pure.
Source: RFC 9162 sections 2.1.3.1 (path) and 2.1.3.2 (verification); the tree is ``domain.recording.merkle_root``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from chalicelib.domain.recording import merkle_root


def inclusion_path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the audit path of leaf ``index``, the deepest sibling first. Raises IndexError where there is none."""
    if not 0 <= index < len(leaves):
        raise IndexError("the tree has no such leaf")
    if len(leaves) == 1:
        return ()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = leaves[:split], leaves[split:]
    if index < split:
        return (*inclusion_path(left, index), merkle_root(right))
    return (*inclusion_path(right, index - split), merkle_root(left))


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Return the root of the tree of ``size`` leaves in which ``leaf`` stands at ``index`` and has this path; None
    where no such tree has a path of that length."""
    if not 0 <= index < size:
        return None
    node, last = index, size - 1
    found = hashlib.sha256(b"\x00" + leaf).digest()
    for sibling in path:
        if last == 0:
            return None
        if node & 1 or node == last:
            found = hashlib.sha256(b"\x01" + sibling + found).digest()
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            found = hashlib.sha256(b"\x01" + found + sibling).digest()
        node >>= 1
        last >>= 1
    return found if last == 0 else None
