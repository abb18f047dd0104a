"""Claims inside claims: one name leads to one place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.identity.claims import claim_at, unknown_claims

CLAIMS: dict[str, Any] = {
    "sub": "x",
    "kubernetes.io": {"namespace": "deploy", "serviceaccount": {"uid": "u1"}, "list": [{"uid": "u2"}]},
    "oidc.example/org-id": "7",
    "a~b": "tilde",
    "a~1b": "tilde and one",
    "kubernetes": {"io": "by a dot"},
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sub", "x"),
        ("kubernetes.io/namespace", "deploy"),
        ("kubernetes.io/serviceaccount/uid", "u1"),
        ("oidc.example~1org-id", "7"),
        ("a~0b", "tilde"),
        ("a~01b", "tilde and one"),
        ("oidc.example/org-id", None),
        ("kubernetes.io.namespace", None),
        ("sub/x", None),
        ("kubernetes.io/list/0/uid", None),
        ("kubernetes.io/list/uid", None),
        ("absent/absent", None),
        ("", None),
    ],
)
def test_a_name_leads_to_one_place(name: str, value: object) -> None:
    """A lookup that tries two ways lets whoever can add a claim put one in front of another."""
    assert claim_at(CLAIMS, name) == value


def test_what_nobody_declared_is_named_where_it_is() -> None:
    """An object is looked into where something in it is declared, and is one claim otherwise."""
    known = {"sub", "kubernetes.io/namespace", "oidc.example~1org-id", "a~0b", "a~01b", "kubernetes"}
    assert unknown_claims(CLAIMS, known) == ("kubernetes.io/list", "kubernetes.io/serviceaccount")
    assert unknown_claims(CLAIMS, known | {"kubernetes.io"}) == ()


NAMES = st.text(alphabet="ab/~.01", min_size=1, max_size=4)


@given(st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=8))
def test_every_reported_name_leads_back(claims: object) -> None:
    """What a report calls unknown can be declared under that very name, and is then known."""
    told = {"top": claims}
    names = unknown_claims(told, {"top/declared"})
    assert all(claim_at(told, name) is not None for name in names)
    assert unknown_claims(told, {"top/declared", *names}) == ()
