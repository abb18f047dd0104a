"""Who may not answer for a chain, whose a session is, and what policy is asked about this service itself."""

from __future__ import annotations

import dataclasses

import pytest

from chalicelib.domain.chain import Chain
from chalicelib.domain.errors import NotFound
from chalicelib.domain.identity import Assurance, Identity
from chalicelib.services.access import CHAIN_DELEGATE, excluded_people, service_question, trigger_known
from chalicelib.services.identify import Caller
from chalicelib.services.standing import owned
from tests.fakes import samples
from tests.fakes.clock import START
from tests.fakes.control_plane import TOOLS_ISSUER, ControlPlane
from tests.fakes.keys import Key

TOOL = {"issuer": TOOLS_ISSUER, "claims": {"sub": "schema-tool"}}


def test_the_people_behind_a_childs_own_run_may_not_approve_it() -> None:
    """Attack: a developer's own pipeline is let in below somebody else's run, and the developer clicks."""
    bundle = ControlPlane().bundles.current()
    root = dataclasses.replace(samples.origin(), accountable=())
    child = dataclasses.replace(samples.child(root), accountable=("gh:actor_id:1001",))
    assert excluded_people(bundle, Chain(hops=(root,))) == ()
    assert excluded_people(bundle, Chain(hops=(root, child))) == ("dave",)


@pytest.mark.parametrize(
    ("accountable", "known"),
    [
        pytest.param(("gh:actor_id:1001",), True, id="a person of ours"),
        pytest.param(("gh:actor_id:6666",), False, id="an alias of nobody"),
        pytest.param((), False, id="an issuer that names people, and not this time"),
    ],
)
def test_a_childs_own_run_that_nobody_is_known_behind_takes_two(accountable: tuple[str, ...], known: bool) -> None:
    """Attack: an approver's own scheduled or re-run pipeline is let in below somebody else's run; its token names
    nobody who could be excluded, and the approver's one click would do."""
    bundle = ControlPlane().bundles.current()
    root = dataclasses.replace(samples.origin(), accountable=("gh:actor_id:1001",))
    actor = dataclasses.replace(root.actor, subject="9001:702")
    attested = dataclasses.replace(root.evidence, assurance=Assurance.ATTESTED)
    child = dataclasses.replace(samples.child(root), actor=actor, evidence=attested, accountable=accountable)
    assert trigger_known(bundle, Chain(hops=(root, child))) is known


def test_a_child_that_nobody_starts_leaves_the_trigger_known() -> None:
    """A pod's issuer never names people, and a key's parent is who is known: the run's own people are then all."""
    bundle = ControlPlane().bundles.current()
    root = dataclasses.replace(samples.origin(), accountable=("gh:actor_id:1001",))
    pod = dataclasses.replace(root.actor, issuer=TOOLS_ISSUER, subject="schema-tool")
    for assurance in Assurance:
        evidence = dataclasses.replace(root.evidence, assurance=assurance)
        child = dataclasses.replace(samples.child(root), actor=pod, evidence=evidence, accountable=())
        assert trigger_known(bundle, Chain(hops=(root, child)))
    assert not trigger_known(bundle, Chain(hops=(dataclasses.replace(root, accountable=()),)))


def test_a_person_who_acts_in_the_chain_may_not_approve_it() -> None:
    """Somebody who logged in and asks is an actor, and an approver of nothing that they ask."""
    bundle = ControlPlane().bundles.current()
    person = dataclasses.replace(bundle.people[0], aliases=("https://idp.example.com#7",))
    bundle = dataclasses.replace(bundle, people=(person, *bundle.people[1:]))
    actor = Identity(issuer="https://idp.example.com", subject="7", name="")
    root = dataclasses.replace(samples.origin(), actor=actor, originator=actor, accountable=())
    assert excluded_people(bundle, Chain(hops=(root,))) == (person.id,)


def test_what_is_done_to_this_service_has_no_target() -> None:
    """A rule about a target must not match it, and no approval counts."""
    plane = ControlPlane()
    chain = Chain(hops=(samples.origin(),))
    question = service_question(plane.bundles.current(), chain, CHAIN_DELEGATE, "key", START)
    assert (question.target, question.principal, question.action) == (None, "", "chain:delegate")
    assert question.context == {"what": "key"}
    assert question.met == frozenset()


def test_one_identity_that_was_let_in_twice_has_two_kinds_of_sessions() -> None:
    """Attack: the same tool, let in again with less, polls for the secret of the session that the first was granted."""
    plane, parent = ControlPlane(), Key()
    root = plane.token(key=parent)
    keys = (Key(), Key())
    callers: list[Caller] = []
    for key, scope in zip(keys, ("orders-dev", "payroll"), strict=True):
        ticket = plane.ticket(root, TOOL, by=parent, scope=scope)
        token = plane.redeem(ticket, key=key, actor_token=plane.tool_token()).json_body["access_token"]
        callers.append(plane.parts.identify()(plane.presented(token, "GET", "/v1/targets", key)))
        if scope == "orders-dev":
            session_id = plane.ask(token, "orders-dev", by=key).json_body["session_id"]
    first, second = callers
    assert first.actor == second.actor
    assert owned(plane.stores.sessions, first, session_id).id == session_id
    with pytest.raises(NotFound):
        owned(plane.stores.sessions, second, session_id)
