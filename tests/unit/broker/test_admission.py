"""Who is let in: a grant is necessary and never sufficient."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import timedelta
from typing import Any

import pytest

from broker.admission import Admission
from chalicelib.domain.audit import AuditName
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import (
    AccessError,
    ApproverNotEligible,
    ConfigurationInvalid,
    Denied,
    GrantExpired,
    GrantRevoked,
    Limited,
    NotFound,
    PolicyDenied,
    ProofInvalid,
    StoreUnavailable,
)
from chalicelib.domain.identifiers import ConnectionId, new_hop_id
from chalicelib.domain.identity import Assurance
from chalicelib.domain.policy import NeedsApproval
from chalicelib.domain.session import SessionStatus
from chalicelib.domain.verifier import stranger_verifier
from tests.fakes.broker import DBA, PEER, PERMITTED, REFUSED, World, person


def row(world: World, number: int, *, peer: str = PEER) -> ConnectionRow:
    return ConnectionRow(
        id=ConnectionId(f"con_{number}"),
        session_id=world.session.id,
        txn=world.session.txn,
        leaf_hop=world.session.leaf_hop,
        target_hop=world.session.leaf_hop,
        target="orders-prod",
        principal="app_rw",
        peer=peer,
        boot="another",
        number=number,
        previous_sha256="",
        opened_at=world.clock.now(),
    )


def test_a_granted_session_is_admitted_with_everything_read_again() -> None:
    """The happy path: what is refused below is refused for its own reason."""
    world = World()
    admission = world.admit()
    assert admission.session == world.session
    assert admission.target.name == "orders-prod"
    assert admission.configuration_serial == 3
    assert f"session:{world.session.id}" in admission.liveness
    assert f"txn:{world.session.txn}" in admission.liveness
    assert world.audit.events == []


def test_nobody_else_can_make_an_admission() -> None:
    """An Admission is proof: code that holds one must have got it from admit."""
    admission = World().admit()
    values: dict[str, Any] = {f.name: getattr(admission, f.name) for f in fields(admission)}
    with pytest.raises(TypeError):
        Admission(**{**values, "token": object()})


def test_the_verifier_of_a_usable_session_is_its_own() -> None:
    """SCRAM must be able to succeed for the one who has the secret."""
    world = World()
    assert world.admissions.verifier(world.session.id) == world.session.verifier


@pytest.mark.parametrize("why", ["unknown", "grammar", "closed", "pending", "expired", "no secret yet"])
def test_a_stranger_cannot_tell_why_a_login_does_not_work(why: str) -> None:
    """User enumeration: every login that is not usable gets the same kind of verifier, after one read."""
    world = World()
    login: str = world.session.id
    match why:
        case "unknown":
            login = "ses_" + "0" * 26
        case "grammar":
            login = "postgres"
        case "closed":
            world.change_session(status=SessionStatus.CLOSED)
        case "pending":
            world.change_session(status=SessionStatus.PENDING, grant=None)
        case "expired":
            world.clock.advance(3601)
        case "no secret yet":
            world.change_session(verifier=None)
    assert world.admissions.verifier(login) == stranger_verifier(login, b"p" * 32)


def test_a_login_that_is_no_session_id_still_costs_a_read() -> None:
    """The time of the answer must not tell a well-formed guess from garbage: with the table gone both fail alike."""
    world = World()
    world.stores.fail("sessions")
    for login in ("postgres", world.session.id):
        with pytest.raises(StoreUnavailable):
            world.admissions.verifier(login)


def _refused(world: World, kind: type[AccessError], peer: str = PEER) -> None:
    with pytest.raises(kind):
        world.admit(peer)
    assert world.audit.names()[-1] == "connection.refused"
    assert world.audit.events[-1].code == kind.code
    assert world.audit.events[-1].peer == peer


def test_a_closed_session_is_refused() -> None:
    """Closing must end what the grant allowed."""
    world = World()
    world.change_session(status=SessionStatus.CLOSED)
    _refused(world, GrantRevoked)


def test_a_pending_session_is_refused() -> None:
    """A session that nobody granted opens nothing, whatever its row says besides."""
    world = World()
    world.change_session(status=SessionStatus.PENDING)
    _refused(world, Denied)


def test_a_login_that_is_no_session_is_refused_and_its_text_is_not_logged() -> None:
    """A person may type a password where the login goes: the audit must not keep it."""
    world = World()
    with pytest.raises(NotFound):
        world.admissions.admit("hunter2", PEER)
    assert world.audit.events[-1].subject == ""


def test_a_grant_moved_to_another_target_is_refused() -> None:
    """Somebody with the table's rights points a granted session at another target."""
    world = World()
    world.change_session(request=replace(world.session.request, target="hr-prod"))
    _refused(world, ProofInvalid)


def test_an_expired_grant_is_refused() -> None:
    """Expiry is compared with our clock, not with a table's TTL."""
    world = World()
    world.clock.advance(3600)
    world.liveness.step()
    _refused(world, GrantExpired)


def test_a_hop_that_nobody_signed_is_refused() -> None:
    """A row in the chains table is no evidence: its signature is."""
    world = World()
    forged = replace(world.chain.leaf, id=new_hop_id(world.clock.now()), signature="e30.e30.AA")
    world.stores.chains.put(forged)
    world.change_session(leaf_hop=forged.id)
    _refused(world, ProofInvalid)


def test_a_hop_signed_with_the_brokers_key_is_no_origin() -> None:
    """The record key must not be able to make identities."""
    world = World()
    world.stores.keys.rotate("token")
    _refused(world, ProofInvalid)


def test_a_session_of_another_actor_than_its_chains_leaf_is_refused() -> None:
    """The session's row names who acts; the signed hop must agree."""
    world = World()
    world.change_session(actor=replace(world.session.actor, subject="repo:evil/fork"))
    _refused(world, ProofInvalid)


def test_a_chain_whose_scope_leaves_the_target_out_is_refused() -> None:
    """A child's hop narrows what it may reach, whatever session its row was given."""
    for scope in ("other", "orders-prod/reader", "orders-prod/reader#sql:read"):
        world = World()
        world.delegate(scope)
        _refused(world, PolicyDenied)


def test_a_child_is_admitted_to_what_its_scope_names() -> None:
    """The refusal above is for the target and login; a scope that limits actions opens, and limits each operation."""
    for scope in ("*", "orders-prod", "orders-prod/app_rw", "*/app_rw#sql:read", "orders-prod#sql:read"):
        world = World()
        child = world.delegate(scope)
        assert world.admit().chain.leaf == child


@pytest.mark.parametrize("key", ["session:{s}", "txn:{t}", "target:orders-prod", "token:tok-1", "grant:{g}", "hop:{h}"])
def test_a_revocation_of_any_key_is_refused(key: str) -> None:
    """Revocation is read by key at admission, though the feed of this process began later."""
    world = World()
    grant = world.session.grant
    assert grant is not None
    named = key.format(s=world.session.id, t=world.session.txn, g=grant.id, h=world.session.leaf_hop)
    world.revoke(named)
    _refused(world, GrantRevoked)


def test_a_rule_that_forbids_by_now_refuses_a_granted_session() -> None:
    """A grant is necessary, not sufficient: the request stage is evaluated again."""
    world = World()
    world.policy.outcomes["session:open"] = REFUSED
    _refused(world, PolicyDenied)


def test_a_rule_that_wants_a_bound_session_refuses_a_bearer() -> None:
    """Any process of the job reads PGPASSWORD: the secret alone must not open what a rule wants a key for."""
    world = World()
    world.policy.outcomes["session:open"] = replace(PERMITTED, bound=True)
    _refused(world, PolicyDenied)
    event = world.audit.events[-1]
    assert (event.name, event.code, event.peer) == (AuditName.CONNECTION_REFUSED, "policy_denied", PEER)


def test_a_rule_that_wants_a_bound_session_lets_its_key_in() -> None:
    """The same session, entered with a certificate on a key of the actor's own."""
    world = World()
    world.policy.outcomes["session:open"] = replace(PERMITTED, bound=True)
    assert world.admit(bound=True).bound


@pytest.mark.parametrize("proved", list(Assurance))
def test_a_secret_is_bearer_and_a_key_is_as_sure_as_its_actor(proved: Assurance) -> None:
    """What runs on a borrowed secret is recorded as bearer, however well its owner was proved; and a key that a parent
    vouched for makes nobody attested."""
    world = World()
    world.delegate("*", evidence=replace(world.chain.leaf.evidence, assurance=proved))
    secret, key = world.admit(), world.admit(bound=True)
    assert (secret.assurance, secret.bound) == (Assurance.BEARER, False)
    assert (key.assurance, key.bound) == (proved, True)


def test_a_target_that_left_the_registry_is_refused() -> None:
    """The target is resolved from our registry at every connection."""
    world = World()
    world.activate(targets={})
    _refused(world, PolicyDenied)


def test_a_broken_newer_configuration_opens_nothing_new() -> None:
    """for_new_sessions has no grace."""
    world = World()
    world.bundles.error = ConfigurationInvalid("broken")
    _refused(world, ConfigurationInvalid)


def test_a_broker_with_an_older_configuration_than_the_grant_refuses() -> None:
    """Both planes refuse a lower serial: an old rule must not judge what a newer one granted."""
    world = World()
    grant = world.session.grant
    assert grant is not None
    world.change_session(grant=replace(grant, configuration_serial=9))
    _refused(world, PolicyDenied)


def approved_session() -> World:
    world = World()
    world.policy.outcomes["session:open"] = NeedsApproval(rules=("prod-delete",), needs=(DBA,))
    return world


def test_a_session_is_admitted_on_the_answers_that_its_ask_has() -> None:
    """The approval that granted the session still stands: answers verify, the fold says approved."""
    world = approved_session()
    world.answer(world.ask_for_session((DBA,)), "dora")
    admission = world.admit()
    assert admission.approvals.rules == {"prod-delete"}
    assert [answer.person for answer in admission.approvals.answers] == ["dora"]


def test_a_grant_that_claims_an_approval_that_nobody_gave_is_refused() -> None:
    """Somebody with the table's rights writes `met` into the grant."""
    world = approved_session()
    world.ask_for_session((DBA,))
    _refused(world, PolicyDenied)


def test_an_answer_signed_with_another_key_does_not_count() -> None:
    """Only `decide` can answer: the broker's own key cannot."""
    world = approved_session()
    world.answer(world.ask_for_session((DBA,)), "dora", key="record")
    _refused(world, PolicyDenied)


def test_an_answer_to_another_digest_does_not_count() -> None:
    """An approval counts for the question that the person saw."""
    world = approved_session()
    world.answer(world.ask_for_session((DBA,)), "dora", digest="f" * 64)
    _refused(world, PolicyDenied)


def test_an_ask_rewritten_after_the_answers_is_refused() -> None:
    """The digest is computed from the question that is stored, not believed."""
    world = approved_session()
    ask = world.ask_for_session((DBA,))
    world.answer(ask, "dora")
    world.stores.asks.rows[ask.id] = replace(ask, question=replace(ask.question, principal="superuser"))
    _refused(world, ProofInvalid)


def test_an_ask_of_another_session_is_refused() -> None:
    """An approval satisfies the session that asked, not whichever row names it."""
    world = approved_session()
    ask = world.ask_for_session((DBA,), session_id="ses_" + "0" * 26)
    world.answer(ask, "dora")
    _refused(world, ProofInvalid)


def test_an_approval_does_not_follow_a_session_to_another_actor() -> None:
    """Attack: whoever can write the table makes an approved session a child's, which nobody would have approved."""
    world = approved_session()
    world.answer(world.ask_for_session((DBA,)), "dora")
    world.delegate("*")
    _refused(world, ProofInvalid)


@pytest.mark.parametrize("changed", [{"duration_s": 7200}, {"reason": "another"}])
def test_an_approved_request_that_was_rewritten_is_refused(changed: dict[str, Any]) -> None:
    """Attack: people approved an hour for one reason, and the row says more by now."""
    world = approved_session()
    world.answer(world.ask_for_session((DBA,)), "dora")
    world.change_session(request=replace(world.session.request, **changed))
    _refused(world, ProofInvalid)


def test_a_grant_moved_to_another_login_is_refused() -> None:
    """Somebody with the table's rights gives a session a login that it did not ask for."""
    world = World()
    assert world.session.grant is not None
    world.change_session(grant=replace(world.session.grant, principal="superuser"))
    _refused(world, ProofInvalid)


def test_a_rule_that_wants_more_people_by_now_is_not_met() -> None:
    """What is required is read from the newest configuration, not from the old ask."""
    world = approved_session()
    world.answer(world.ask_for_session((DBA,)), "dora")
    two = replace(DBA, approval=replace(DBA.approval, count=2))
    world.policy.outcomes["session:open"] = NeedsApproval(rules=("prod-delete",), needs=(two,))
    _refused(world, PolicyDenied)


def test_the_developer_triggers_a_pipeline_and_nobody_knows_who() -> None:
    """Where the trigger is unknown one approver may be the requester: one answer is not enough, two are."""
    world = World(accountable=())
    world.policy.outcomes["session:open"] = NeedsApproval(rules=("prod-delete",), needs=(DBA,))
    ask = world.ask_for_session((DBA,))
    world.answer(ask, "dora")
    _refused(world, PolicyDenied)
    world.answer(ask, "eve")
    assert world.admit().approvals.rules == {"prod-delete"}


def test_a_reader_of_pgpassword_connects_from_another_address() -> None:
    """security.md: one source address per session; another is refused and audited, even after the first has gone."""
    world = World()
    world.stores.connections.put(replace(row(world, 1), sealed_at=world.clock.now()))
    _refused(world, Denied, peer="198.51.100.9")
    assert world.audit.events[-1].why == "the session is used from another address"


def test_more_connections_than_the_grant_allows_are_refused() -> None:
    """security.md: the connection cap counts unsealed rows of every broker."""
    world = World()
    for number in range(4):
        world.stores.connections.put(row(world, number))
    _refused(world, Limited)
    world.stores.connections.seal(
        world.session.id, ConnectionId("con_0"), at=world.clock.now(), exit="client_left", key="", sha256=""
    )
    world.admit()


def test_a_stale_feed_admits_nobody() -> None:
    """Fail closed: revocations mean nothing then."""
    world = World()
    world.clock.advance(6)
    _refused(world, StoreUnavailable)


@pytest.mark.parametrize("store", ["sessions", "chains", "connections", "revocations", "asks", "answers", "uses"])
def test_every_table_that_is_gone_refuses(store: str) -> None:
    """P12: nothing is guessed where a table cannot be read."""
    world = approved_session()
    world.answer(world.ask_for_session((DBA,)), "dora")
    world.stores.fail(store)
    _refused(world, StoreUnavailable)


def test_a_refusal_that_cannot_be_audited_stays_the_same_refusal() -> None:
    """The audit log's failure must neither let in nor hide the reason."""
    world = World()
    world.change_session(status=SessionStatus.CLOSED)
    world.audit.error = StoreUnavailable("no audit")
    with pytest.raises(GrantRevoked):
        world.admit()


def test_an_approver_who_left_opens_nothing_any_more() -> None:
    """mint would refuse as well: the approvers are checked under the newest configuration wherever they count."""
    world = approved_session()
    world.answer(world.ask_for_session((DBA,)), "dora")
    world.activate(people=(person("eve", "dba"),))
    _refused(world, ApproverNotEligible)


def test_a_session_of_a_longer_grant_than_its_hop_ends_with_the_hop() -> None:
    """A hop that is over vouches for nothing any more."""
    world = World()
    grant = world.session.grant
    assert grant is not None
    world.change_session(grant=replace(grant, expires_at=world.clock.now() + timedelta(hours=9)))
    world.clock.advance(7201)
    world.liveness.step()
    _refused(world, GrantExpired)
