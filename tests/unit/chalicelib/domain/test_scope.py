"""What a hop may ask for and do, and how it is handed down: never more, in any respect, by any sequence."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.errors import BadRequest, OutOfScope
from chalicelib.domain.scope import (
    MAX_DEPTH,
    MAX_PERMISSIONS,
    Authority,
    Permission,
    Wanted,
    allows,
    narrow,
    parse_scope,
    permission,
    within,
)
from tests.fakes.clock import START

TARGETS = ("orders-prod", "db-prod", "payroll")
PRINCIPALS = ("app", "deploy", "root")
ACTIONS = ("sql:read", "sql:write", "ssh:exec")


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        ("*", Permission(target="*")),
        ("db-prod", Permission(target="db-prod")),
        ("db-prod/deploy", Permission(target="db-prod", principal="deploy")),
        ("db-prod#ssh", Permission(target="db-prod", action="ssh")),
        ("db-prod/deploy#ssh:exec", Permission(target="db-prod", principal="deploy", action="ssh:exec")),
        ("*/deploy#*", Permission(target="*", principal="deploy")),
    ],
)
def test_a_permission_is_read_as_it_is_written(text: str, stated: Permission) -> None:
    """Tokens, hops and tickets carry the text for years: it must mean one thing."""
    assert permission(text) == stated


@pytest.mark.parametrize(
    "text",
    [
        *("", "/deploy", "#ssh", "db-prod/", "db-prod#", "db-prod#ssh:", "db-prod#:exec", "db-prod#ssh:exec:x"),
        *("DB", "db prod", "db-prod\n", "db-prod/a b", "db-prod#SSH", "**", "db-*", "db-prod//x", "-db", "a" * 64),
        *("db-prod#ssh:*", "db-prod/1x", "dü", "db-prod#ssh/deploy"),
    ],
)
def test_what_is_no_permission_is_refused_and_permits_nothing(text: str) -> None:
    """A word that two readers take two ways is a scope that two services enforce differently."""
    with pytest.raises(BadRequest):
        permission(text)
    assert not within([text], ["*"])
    assert not within(["db-prod"], [text])
    assert not allows([text], "db-prod", "deploy")


def test_a_scope_has_one_spelling() -> None:
    """Hops are hashed: the same authority must not have two hashes, and what another word covers says nothing."""
    assert parse_scope("orders-prod db-prod/deploy db-prod orders-prod") == ("db-prod", "orders-prod")
    assert parse_scope("*/*#* db-prod") == ("*",)


@pytest.mark.parametrize("text", ["", " ", "a  b", " a", "a ", " ".join(f"t{n}" for n in range(MAX_PERMISSIONS + 1))])
def test_a_scope_that_is_none_is_refused(text: str) -> None:
    """An empty scope would be read as all by somebody, and an endless one is a load on every check."""
    with pytest.raises(BadRequest):
        parse_scope(text)


def test_an_action_does_not_limit_opening_but_each_operation() -> None:
    """A scope of reads must be able to open the session in which it reads, and nothing in it may write."""
    scope = ("orders-prod/app#sql:read",)
    assert allows(scope, "orders-prod", "app")
    assert allows(scope, "orders-prod", "")
    assert allows(scope, "orders-prod", "app", "sql:read")
    assert not allows(scope, "orders-prod", "app", "sql:write")
    assert not allows(scope, "orders-prod", "admin")
    assert not allows(scope, "payroll", "app")
    assert allows(("orders-prod#sql",), "orders-prod", "app", "sql:write")
    assert not allows(("orders-prod#sql",), "orders-prod", "app", "sqlx:write")


@pytest.mark.parametrize(
    ("child", "parent", "held"),
    [
        ("db-prod/deploy#ssh:exec", "db-prod#ssh", True),
        ("db-prod/deploy", "db-prod", True),
        ("db-prod", "*", True),
        ("*", "db-prod orders-prod", False),
        ("db-prod", "db-prod/deploy", False),
        ("db-prod", "db-prod#ssh", False),
        ("db-prod#ssh", "db-prod#ssh:exec", False),
        ("db-prod#sql:read", "db-prod#sql:rea", False),
        ("db-prod/deploy#ssh:exec", "db-prod/deploy#sql db-prod/root#ssh", False),
    ],
)
def test_each_permission_is_covered_by_one(child: str, parent: str, held: bool) -> None:
    """Two permissions that each cover half cover nothing together: half of each is more than either."""
    assert within(parse_scope(child), parse_scope(parent)) is held


permissions = st.builds(
    Permission,
    target=st.sampled_from(("*", *TARGETS)),
    principal=st.sampled_from(("*", *PRINCIPALS)),
    action=st.sampled_from(("*", "sql", "ssh", *ACTIONS)),
)
scopes = st.lists(permissions, min_size=1, max_size=4).map(lambda found: parse_scope(" ".join(map(str, found))))
ends = st.integers(min_value=0, max_value=7_200).map(lambda seconds: START + timedelta(seconds=seconds))
wanted = st.builds(
    Wanted,
    scope=st.none() | scopes,
    expires_at=st.none() | ends,
    max_depth=st.none() | st.integers(min_value=-1, max_value=7),
)
QUESTIONS = [(t, p, a) for t in TARGETS for p in PRINCIPALS for a in (None, *ACTIONS)]


def everything(scope: tuple[str, ...]) -> set[tuple[str, str, str | None]]:
    """Return all that a scope allows, of all that there is here: what it means, told without ``within``."""
    return {(t, p, a) for t, p, a in QUESTIONS if allows(scope, t, p, a)}


@given(scopes, scopes)
def test_within_means_that_nothing_more_is_allowed(child: tuple[str, ...], parent: tuple[str, ...]) -> None:
    """The comparison of words against what the words allow: if they ever differ, one of the two lets somebody in."""
    if within(child, parent):
        assert everything(child) <= everything(parent)


@given(scope=scopes, end=ends, depth=st.integers(0, 2), steps=st.lists(wanted, min_size=1, max_size=6))
def test_no_sequence_of_delegations_exceeds_any_ancestor(
    scope: tuple[str, ...], end: datetime, depth: int, steps: list[Wanted]
) -> None:
    """P9: whatever is asked for, in whatever order, each child has no more than each of its ancestors, in target,
    principal, action, time and depth; what would be more is refused and changes nothing."""
    ancestors = [Authority(scope=scope, expires_at=end, depth=depth, max_depth=3)]
    for step in steps:
        try:
            child = narrow(ancestors[-1], step)
        except OutOfScope:
            continue
        for number, ancestor in enumerate(ancestors):
            assert everything(child.scope) <= everything(ancestor.scope)
            assert within(child.scope, ancestor.scope)
            assert child.expires_at <= ancestor.expires_at
            assert child.max_depth <= min(ancestor.max_depth, MAX_DEPTH)
            assert child.depth == ancestor.depth + len(ancestors) - number
            assert child.depth <= ancestor.max_depth
        assert step.scope is None or child.scope == step.scope
        ancestors.append(child)


ROOT = Authority(scope=("orders-prod", "db-prod"), expires_at=START + timedelta(hours=1), depth=0, max_depth=2)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(Wanted(scope=("*",)), id="any target"),
        pytest.param(Wanted(scope=("payroll",)), id="another target"),
        pytest.param(Wanted(scope=("db-prod", "payroll")), id="one of two"),
        pytest.param(Wanted(scope=()), id="nothing"),
        pytest.param(Wanted(expires_at=START + timedelta(hours=1, seconds=1)), id="longer"),
        pytest.param(Wanted(max_depth=3), id="deeper"),
        pytest.param(Wanted(max_depth=0), id="no depth for itself"),
    ],
)
def test_more_than_the_parent_is_refused_and_not_cut_down(asked: Wanted) -> None:
    """A child that believes it has what it asked for fails later and worse."""
    with pytest.raises(OutOfScope) as caught:
        narrow(ROOT, asked)
    assert caught.value.code == "invalid_scope"


def test_the_deepest_hop_hands_down_nothing() -> None:
    """Depth is bounded: each hop is a line that somebody must read."""
    child = narrow(narrow(ROOT, Wanted()), Wanted(max_depth=2))
    assert (child.depth, child.max_depth) == (2, 2)
    with pytest.raises(OutOfScope):
        narrow(child, Wanted())


def test_nobody_allows_more_depth_than_there_may_be() -> None:
    """Even a row that says otherwise: a token must fit what the key signs."""
    wide = dataclasses.replace(ROOT, max_depth=99)
    with pytest.raises(OutOfScope):
        narrow(wide, Wanted(max_depth=MAX_DEPTH + 1))
