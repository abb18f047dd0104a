"""A value that remembers its digest: it must never be another's."""

from __future__ import annotations

from dataclasses import replace

from tests.fakes.archive import Archive


def test_a_copy_of_a_value_has_a_digest_of_its_own() -> None:
    """Attack: change a hop whose hash was asked for before, and keep that hash."""
    hop = Archive().tool
    known = hop.sha256()
    assert hop.sha256() == known
    assert replace(hop, principal="root").sha256() != known
    assert replace(hop) == hop
    assert replace(hop).sha256() == known
