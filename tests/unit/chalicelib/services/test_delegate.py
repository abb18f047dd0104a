"""A parent lets a child in: what the ticket says, and everything that a parent may not hand down."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from chalicelib.domain.audit import AuditEvent
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.delegation import ByIssuer, ByKey
from chalicelib.domain.errors import AccessError, BadRequest, KeyProofInvalid, NotPermitted, OutOfScope
from chalicelib.domain.identifiers import HopId
from chalicelib.services.delegate import request_of
from tests.fakes.clock import START
from tests.fakes.control_plane import FILES, TOOLS_ISSUER, ControlPlane
from tests.fakes.keys import Key

TOOL: dict[str, Any] = {"issuer": TOOLS_ISSUER, "claims": {"sub": "schema-tool"}}
PATH = "/v1/delegations"


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


class Parent:
    """A run with a key, which asks ``sign`` for tickets."""

    def __init__(self, plane: ControlPlane, **token: Any) -> None:
        self.plane = plane
        self.key = Key()
        self.token = plane.token(key=self.key, **token)

    def ask(self, **body: Any) -> dict[str, Any]:
        told = self.plane.presented(self.token, "POST", PATH, self.key).told()
        asked = {"redeemer": {"key": Key().thumbprint}, "name": "deploy-svc"} | body
        sent = {name: value for name, value in asked.items() if value is not None}
        return dict(self.plane.stores.functions.invoke("sign", {"delegate": sent, **told}))


def last_event(plane: ControlPlane) -> AuditEvent:
    return plane.events.seen[-1]


def test_a_ticket_has_what_was_asked_for_and_its_text_is_kept_nowhere(plane: ControlPlane) -> None:
    """What the child will get is said to the parent; what opens it is said once."""
    parent = Parent(plane)
    told = parent.ask(scope="db-prod orders-dev/app#sql:read", duration_s=600, max_depth=2, ticket_ttl_s=30)
    assert told["scope"] == "db-prod orders-dev/app#sql:read"
    assert (told["depth"], told["max_depth"], told["name"]) == (1, 2, "deploy-svc")
    assert told["expires_at"] == timestamp(START + timedelta(seconds=30))
    assert told["hop_expires_at"] == timestamp(START + timedelta(seconds=600))
    assert told["ticket"].startswith("cst_")
    assert len(told["ticket"]) == 47
    assert told["ticket"] not in repr(plane.snapshot())
    event = last_event(plane)
    assert (event.name.value, event.subject, event.txn) == ("ticket.issued", told["ticket_id"], told["txn"])
    assert "pipeline-delegates" in event.why


def test_what_is_left_out_is_the_parents(plane: ControlPlane) -> None:
    """A child without limits of its own has its parent's, and no more."""
    told = Parent(plane).ask()
    assert (told["scope"], told["max_depth"]) == ("*", 3)
    assert told["hop_expires_at"] == timestamp(START + timedelta(hours=8))
    assert told["expires_at"] == timestamp(START + timedelta(seconds=60))


def test_a_ticket_never_outlives_the_hop_that_it_is_for(plane: ControlPlane) -> None:
    """A ticket for a minute's hop is of no use in the second."""
    told = Parent(plane).ask(duration_s=60, ticket_ttl_s=900)
    assert told["expires_at"] == told["hop_expires_at"] == timestamp(START + timedelta(seconds=60))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"scope": "*"}, id="any target"),
        pytest.param({"scope": "orders-prod"}, id="another target"),
        pytest.param({"scope": "orders-dev"}, id="any login"),
        pytest.param({"scope": "orders-dev/app orders-dev/root"}, id="another login"),
        pytest.param({"duration_s": 28_800}, id="longer"),
        pytest.param({"max_depth": 4}, id="deeper"),
        pytest.param({"max_depth": 1}, id="less deep than itself"),
    ],
)
def test_wider_scope_is_invalid_scope(plane: ControlPlane, body: dict[str, Any]) -> None:
    """P9: a child never has more than its parent; asking for it is refused, and leaves no ticket."""
    root, key = Parent(plane), Key()
    child = Parent.__new__(Parent)
    child.plane, child.key = plane, key
    child.token = plane.child(root.token, key, by=root.key, scope="orders-dev/app", duration_s=3600)
    kept = [name for name in plane.stores.once.rows if name.startswith("ticket#")]
    with pytest.raises(OutOfScope) as caught:
        child.ask(**body)
    assert caught.value.code == "invalid_scope"
    assert [name for name in plane.stores.once.rows if name.startswith("ticket#")] == kept
    assert (last_event(plane).name.value, last_event(plane).code) == ("ticket.refused", "invalid_scope")


def test_a_narrow_token_hands_down_no_more_than_it_has(plane: ControlPlane) -> None:
    """Attack: a token that was narrowed for one step asks for a child with all that the hop has."""
    parent = Parent(plane)
    parent.token = plane.exchange(plane.ci_token(), key=parent.key, scope="orders-dev").json_body["access_token"]
    assert parent.ask()["scope"] == "orders-dev"
    with pytest.raises(OutOfScope):
        parent.ask(scope="*")


def test_delegation_deeper_than_allowed(plane: ControlPlane) -> None:
    """Attack: children of children, until nobody reads the chain to its end."""
    parent = Parent(plane)
    token, key = parent.token, parent.key
    for depth in range(1, 4):
        child = Key()
        token, key = plane.child(token, child, by=key, name=f"child-{depth}"), child
    answer = plane.delegate(token, Key(), by=key)
    assert (answer.status_code, answer.json_body["code"]) == (403, "invalid_scope")
    assert max(hop.depth for hop in plane.stores.chains.rows.values()) == 3


@pytest.mark.parametrize(
    "policy",
    [
        pytest.param("", id="nothing permits it"),
        pytest.param('@id("no") forbid (principal, action == Action::"chain:delegate", resource);', id="forbidden"),
        pytest.param(
            '@id("ask") @requires("approval:dba:1") forbid (principal, action == Action::"chain:delegate", resource)'
            ' unless { context.met.contains("ask") };',
            id="people would have to be asked",
        ),
        pytest.param(
            '@id("keys") forbid (principal, action == Action::"chain:delegate", resource)'
            ' when { context.what == "key" };',
            id="a rule against children that only a key vouches for",
        ),
    ],
)
def test_only_a_rule_lets_a_child_in(plane: ControlPlane, policy: str) -> None:
    """Who may extend a chain is policy like everything else; nothing waits for people here."""
    parent = Parent(plane)
    main = FILES["policies/main.cedar"]
    if not policy:
        main = "\n".join(line for line in main.splitlines() if "pipeline-delegates" not in line)
    plane.bundles.activate(policy=main + policy)
    with pytest.raises(NotPermitted):
        parent.ask()
    assert (last_event(plane).name.value, last_event(plane).code) == ("ticket.refused", "not_permitted")


def test_a_stolen_bearer_token_lets_nobody_in(plane: ControlPlane) -> None:
    """Five minutes of somebody else's token would become hours of a child whose key the thief chose."""
    answer = plane.delegate(plane.token(run_id="5002"), Key())
    assert (answer.status_code, answer.json_body["code"]) == (401, "invalid_dpop_proof")


def test_a_parent_proves_its_key_and_each_proof_once(plane: ControlPlane) -> None:
    """Attack: a parent's request for a ticket is sent again, or its token is taken without the key."""
    parent = Parent(plane)
    told = plane.presented(parent.token, "POST", PATH, parent.key).told()
    body: Json = {"redeemer": {"key": Key().thumbprint}, "name": "x"}
    plane.stores.functions.invoke("sign", {"delegate": body, **told})
    for changed in ({}, {"proof": ""}, {"scheme": "bearer"}, {"path": "/v1/token"}):
        with pytest.raises(KeyProofInvalid):
            plane.stores.functions.invoke("sign", {"delegate": body, **told, **changed})


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/targets"), ("POST", "/v1/sessions"), ("GET", PATH)])
def test_a_look_at_the_targets_is_no_delegation(plane: ControlPlane, method: str, path: str) -> None:
    """Attack: whoever may invoke ``sign`` (a stolen API role) makes a ticket for a key of their own of what a caller
    presented with any other request. The proof is good for that request, and for nothing else."""
    parent = Parent(plane)
    told = plane.presented(parent.token, method, path, parent.key).told()
    body: Json = {"redeemer": {"key": Key().thumbprint}, "name": "thief"}
    with pytest.raises(KeyProofInvalid):
        plane.stores.functions.invoke("sign", {"delegate": body, **told})
    assert not [row for row in plane.stores.once.rows if row.startswith("ticket#")]
    assert (last_event(plane).name.value, last_event(plane).code) == ("ticket.refused", "invalid_dpop_proof")


@pytest.mark.parametrize(
    ("redeemer", "named"),
    [
        ({"issuer": "https://evil.example.com", "claims": {"sub": "schema-tool"}}, "redeemer.issuer"),
        ({"issuer": TOOLS_ISSUER, "claims": {"instance": "pod-1"}}, "sub"),
        ({"issuer": TOOLS_ISSUER, "claims": {}}, "redeemer.claims"),
    ],
    ids=["an issuer that nobody declared", "not every claim of the subject", "no claim"],
)
def test_a_ticket_names_one_redeemer(plane: ControlPlane, redeemer: dict[str, Any], named: str) -> None:
    """A ticket that fits whoever an issuer serves is a ticket for everybody."""
    with pytest.raises(BadRequest) as caught:
        Parent(plane).ask(redeemer=redeemer)
    assert named in caught.value.public


BAD_BODIES: dict[str, dict[str, Any]] = {
    "no redeemer": {"redeemer": None},
    "a redeemer that is text": {"redeemer": "deploy-svc"},
    "a key and an issuer": {"redeemer": {"key": Key().thumbprint, "issuer": TOOLS_ISSUER, "claims": {"sub": "x"}}},
    "a key that is no thumbprint": {"redeemer": {"key": "short"}},
    "a key that is a number": {"redeemer": {"key": 7}},
    "claims that are a list": {"redeemer": {"issuer": TOOLS_ISSUER, "claims": ["sub"]}},
    "a claim that is a number": {"redeemer": {"issuer": TOOLS_ISSUER, "claims": {"sub": 7}}},
    "an empty claim": {"redeemer": {"issuer": TOOLS_ISSUER, "claims": {"sub": ""}}},
    "a claim with an escape": {"redeemer": {"issuer": TOOLS_ISSUER, "claims": {"sub": "a\x1b[2J"}}},
    "a claim's name with a space": {"redeemer": {"issuer": TOOLS_ISSUER, "claims": {"sub": "x", "a b": "y"}}},
    "too many claims": {"redeemer": {"issuer": TOOLS_ISSUER, "claims": {f"c{n}": "x" for n in range(17)}}},
    "no name": {"name": None},
    "a name of a person": {"name": "Deploy Service"},
    "an endless name": {"name": "x" * 64},
    "a name that hides": {"name": "deploy‮svc"},
    "a scope that is a list": {"scope": ["orders-dev"]},
    "a scope that is none": {"scope": "orders dev prod!"},
    "an endless scope": {"scope": "x" * 1025},
    "a hop of a second": {"duration_s": 1},
    "a hop of a day": {"duration_s": 86_400},
    "a duration that is true": {"duration_s": True},
    "a duration that is text": {"duration_s": "600"},
    "a negative depth": {"max_depth": -1},
    "a depth that nobody may have": {"max_depth": 6},
    "a ticket for a second": {"ticket_ttl_s": 1},
    "a ticket for a day": {"ticket_ttl_s": 86_400},
    "a member that is not known": {"teams": ["dba"]},
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_cannot_be_one_is_refused(plane: ControlPlane, name: str) -> None:
    """The function checks for itself: whoever may invoke it is not thereby believed."""
    parent = Parent(plane)
    with pytest.raises(BadRequest):
        parent.ask(**BAD_BODIES[name])
    assert not [row for row in plane.stores.once.rows if row.startswith("ticket#")]


def test_a_body_is_read_as_it_is_written() -> None:
    """Claims in one order, so that one redeemer has one hash."""
    key = Key().thumbprint
    assert request_of({"redeemer": {"key": key}, "name": "a"}).redeemer == ByKey(thumbprint=key)
    told = request_of({"redeemer": {"issuer": "https://i", "claims": {"b": "2", "a": "1"}}, "name": "a"})
    assert told.redeemer == ByIssuer(issuer="https://i", claims=(("a", "1"), ("b", "2")))
    assert (told.scope, told.duration_s, told.max_depth, told.ticket_ttl_s) == (None, None, None, 60)


def test_a_revoked_parent_issues_nothing(plane: ControlPlane) -> None:
    """Revocation is read, not waited for."""
    parent = Parent(plane)
    (hop,) = plane.stores.chains.rows.values()
    plane.stores.revocations.revoke(f"hop:{HopId(hop.id)}", by="ops", why="leak", at=plane.clock.now())
    with pytest.raises(AccessError) as caught:
        parent.ask()
    assert caught.value.code == "grant_revoked"
