"""Values of the domain that are whole and valid: a test changes what it is about with ``dataclasses.replace``."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any, Final, TypeVar

from chalicelib.domain.activation import Activation
from chalicelib.domain.ask import Answer, Ask, Question, Stage, Use, UseKind
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.delegation import ByKey, Ticket
from chalicelib.domain.identifiers import (
    AskId,
    HopId,
    PersonId,
    SessionId,
    Txn,
    new_ask_id,
    new_connection_id,
    new_grant_id,
    new_hop_id,
    new_session_id,
    new_ticket_id,
    new_txn,
)
from chalicelib.domain.identity import Assurance, Evidence, Identity
from chalicelib.domain.passkey import Assertion, Passkey
from chalicelib.domain.recording import Manifest, Segment
from chalicelib.domain.requirement import Approval
from chalicelib.domain.scope import DEFAULT_DEPTH
from chalicelib.domain.session import AccessRequest, ApprovalNeed, Grant, Session, SessionStatus
from tests.fakes.clock import START

ISSUER: Final = "https://token.actions.githubusercontent.com"
RUNNER: Final = Identity(issuer=ISSUER, subject="9001:700100200", name="acme/orders deploy")
AGENT: Final = Identity(issuer="https://countersign.example.com", subject="agent:7", name="migrator")
ADA: Final = PersonId("okta|ada")
BEN: Final = PersonId("okta|ben")
NEED: Final = ApprovalNeed(rule="prod-write", approval=Approval(group="dba", count=1), hint="ask the dba on call")


T = TypeVar("T")


def changed(value: T, **fields: Any) -> T:
    """Return the dataclass ``value`` with other values in fields whose names a test works out."""
    copied: Any = value
    replaced: T = dataclasses.replace(copied, **fields)
    return replaced


def origin(txn: Txn | None = None) -> Hop:
    """Return an unsigned first hop."""
    evidence = Evidence(
        kind="oidc:github",
        token_id="jti-1",
        claims_sha256="ab" * 32,
        assurance=Assurance.ATTESTED,
        attributes=(("repository", "acme/orders"), ("ref", "refs/heads/main")),
    )
    return Hop(
        txn=txn if txn is not None else new_txn(START),
        id=new_hop_id(START),
        depth=0,
        kind=HopKind.ORIGIN,
        parent=None,
        parent_sha256="",
        originator=RUNNER,
        actor=RUNNER,
        evidence=evidence,
        accountable=("gh:actor_id:123",),
        teams=("orders-pipeline",),
        scope=("orders-prod",),
        key_thumbprint="",
        target="",
        principal="",
        serial="",
        issued_at=START,
        expires_at=START + timedelta(hours=1),
        max_depth=DEFAULT_DEPTH,
    )


def child(parent: Hop) -> Hop:
    """Return an unsigned delegate of ``parent``, with all that it has."""
    return dataclasses.replace(
        parent,
        id=new_hop_id(START),
        depth=parent.depth + 1,
        kind=HopKind.DELEGATE,
        parent=parent.id,
        parent_sha256=parent.sha256(),
        actor=AGENT,
        ticket=new_ticket_id(START) if parent.version >= 2 else "",
        signature="",
    )


def target_hop(parent: Hop) -> Hop:
    """Return the unsigned last hop under ``parent``."""
    hop = dataclasses.replace(child(parent), kind=HopKind.TARGET, target="orders-prod", principal="app", serial="s-1")
    return dataclasses.replace(
        hop, ticket="", actor=Identity(issuer="countersign:target:orders-prod", subject="app", name="app")
    )


def ticket(parent: Hop | None = None) -> Ticket:
    """Return an unsigned ticket for a key, with all that ``parent`` has."""
    parent = parent if parent is not None else origin()
    return Ticket(
        id=new_ticket_id(START),
        txn=parent.txn,
        parent=parent.id,
        parent_sha256=parent.sha256(),
        redeemer=ByKey(thumbprint="NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
        name="deploy-svc",
        scope=parent.scope,
        max_depth=parent.max_depth,
        hop_expires_at=parent.expires_at,
        rules=("pipeline-delegates",),
        issued_at=START,
        expires_at=START + timedelta(minutes=1),
    )


def session(leaf: Hop | None = None) -> Session:
    """Return a pending session."""
    leaf = leaf if leaf is not None else origin()
    return Session(
        id=new_session_id(START),
        txn=leaf.txn,
        status=SessionStatus.PENDING,
        request=AccessRequest(target="orders-prod", principal="", reason="deploy 7", duration_s=900),
        actor=leaf.actor,
        originator=leaf.originator,
        leaf_hop=leaf.id,
        token_id="tok-1",
        created_at=START,
        ask_id=None,
        grant=None,
        verifier=None,
        closed_at=None,
        close_reason="",
    )


def grant(of: Session) -> Grant:
    return Grant(
        id=new_grant_id(START),
        session_id=of.id,
        target=of.request.target,
        principal="app",
        not_before=START,
        expires_at=START + timedelta(minutes=15),
        rules=("pipelines-read",),
        met=(),
        policy_digest="cd" * 32,
        configuration_serial=1,
        max_connections=4,
    )


def connection_row(session_id: SessionId | None = None) -> ConnectionRow:
    return ConnectionRow(
        id=new_connection_id(START),
        session_id=session_id if session_id is not None else new_session_id(START),
        txn=new_txn(START),
        leaf_hop=new_hop_id(START),
        target_hop=HopId(new_hop_id(START)),
        target="orders-prod",
        principal="app",
        peer="127.0.0.1",
        boot="boot-1",
        number=1,
        previous_sha256="",
        opened_at=START,
    )


def question(*needs: ApprovalNeed) -> Question:
    return Question(
        stage=Stage.OPERATION,
        session_id=new_session_id(START),
        connection_id="con_1",
        operation_id="op_1",
        txn=new_txn(START),
        chain=(RUNNER.key,),
        leaf_hop_sha256="ef" * 32,
        target="orders-prod",
        principal="app",
        action="sql:write",
        text="DELETE FROM orders WHERE id = 7",
        binds=(),
        literals=(),
        state=(("database", "orders"),),
        commitment="01" * 32,
        reason="deploy 7",
        duration_s=900,
        rules=tuple(need.rule for need in needs),
        needs=needs,
        trigger_known=True,
        configuration_serial=1,
        policy_digest="cd" * 32,
    )


def ask(*needs: ApprovalNeed) -> Ask:
    """Return an ask for ``needs``, else for one approval by one dba."""
    asked = question(*(needs or (NEED,)))
    return Ask(
        id=new_ask_id(START),
        question=asked,
        digest=asked.digest(),
        excluded=(PersonId("okta|runner"),),
        created_at=START,
        expires_at=START + timedelta(minutes=5),
    )


def answer(to: Ask, person: PersonId = ADA) -> Answer:
    """Return an unsigned yes by a dba."""
    return Answer(
        ask_id=to.id,
        person=person,
        approved=True,
        digest=to.digest,
        groups=("dba",),
        card_sha256="23" * 32,
        card="[]",
        via="slack:T1/U1/C1/1.0",
        answered_at=START + timedelta(minutes=1),
    )


def assertion() -> Assertion:
    """Return an assertion that proves nothing, of the shape of one that does."""
    return Assertion(
        passkey=Passkey(id="cGFzc2tleS1vZi1hZGE", public_key="a2V5", rp="rp.example.com"),
        client_data="e30",
        authenticator_data="AAAA",
        signature="AAAA",
        activation=activation(),
    )


def use(ask_id: AskId, kind: UseKind = UseKind.RAN) -> Use:
    return Use(ask_id=ask_id, n=1, kind=kind, by="broker:boot-1", why="", at=START)


def activation(serial: int = 1, previous_digest: str = "") -> Activation:
    return Activation(
        serial=serial,
        bundle_digest=f"{serial:064x}",
        previous_digest=previous_digest,
        author="ada",
        activated_at=START,
    )


def manifest() -> Manifest:
    """Return an unsigned manifest of one segment."""
    row = connection_row()
    segment = Segment(
        number=0,
        key="rec/v1/s/c/000000.ndjson.gz",
        version_id="v1",
        raw_bytes=100,
        sha256_raw="45" * 32,
        sha256_stored="67" * 32,
        first=0,
        last=3,
    )
    return Manifest(
        session_id=row.session_id,
        connection_id=row.id,
        txn=row.txn,
        leaf_hop_sha256="ef" * 32,
        opened_at=START,
        closed_at=START + timedelta(minutes=1),
        exit="client",
        segments=(segment,),
        gaps=(),
        policy_digest="cd" * 32,
        configuration_serial=1,
        broker_build="test",
        sealed_by="broker:boot-1",
    )
