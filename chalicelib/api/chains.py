"""``/v1/revocations``, ``/v1/chains`` and ``/v1/reviews``: end what is under a chain, look at it, review it.

A review reads every table and the recordings: the ``review`` function does, with an auditor's role, and verifies the
caller and the rules itself; this edge hands on what was presented.
"""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint
from chalicelib.api.models import (
    Actor,
    ChainAnswer,
    ChainHop,
    IssuerTokenAnswer,
    ReviewAnswer,
    RevocationAnswer,
    RevocationBody,
)
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import Limited, NotFound, ProofInvalid, ProofSealed
from chalicelib.domain.identity import Identity
from chalicelib.services.chains import SeenHop

REVOKE = Endpoint(
    method="POST",
    path="/v1/revocations",
    name="revoke",
    tag="chains",
    summary="End a hop, a session, a chain, or whatever else a chain stands on",
    description="A caller may end its own hop, a hop below it, a session opened at or below it, and from the root its "
    "chain; everything else needs a rule that permits chain:revoke. What may not be revoked and what is not there are "
    "one answer. Live connections end within seconds. It may be repeated.",
    body=RevocationBody,
    answers={201: RevocationAnswer},
    refusals=(NotFound,),
)
READ_CHAIN = Endpoint(
    method="GET",
    path="/v1/chains/{txn}",
    name="read_chain",
    tag="chains",
    summary="The hops of a chain, with what their signatures cover",
    description="For an actor of the chain; for others with a rule that permits chain:review.",
    answers={200: ChainAnswer},
    refusals=(NotFound, Limited),
)
READ_TOKEN = Endpoint(
    method="GET",
    path="/v1/chains/{txn}/token",
    name="read_issuer_token",
    tag="chains",
    summary="The issuer's token that a chain began with, and the keys that verify it",
    description="Needs a rule that permits chain:review (context.what is token). It was kept encrypted, and is given "
    "out when it has expired, and not before. Each reading is audited.",
    answers={200: IssuerTokenAnswer},
    refusals=(NotFound, ProofSealed, ProofInvalid),
)
REVIEW = Endpoint(
    method="GET",
    path="/v1/reviews/{subject}",
    name="read_review",
    tag="chains",
    summary="The access review of a session or of a chain with all its sessions",
    description="Needs a rule that permits chain:review. Above 5 MB it is made on the command line.",
    answers={200: ReviewAnswer},
    refusals=(NotFound, Limited),
)


def chains_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, REVOKE, _revoke)
    edge.route(bp, READ_CHAIN, _read)
    edge.route(bp, READ_TOKEN, _token)
    edge.route(bp, REVIEW, _review)
    return bp


def _revoke(plane: Plane, call: Call) -> Answered:
    body = call.body(RevocationBody)
    made = plane.services.revoke(call.caller, body.kind, body.id, body.why)
    return Answered(status=201, body=RevocationAnswer(key=made.key, number=made.number, at=timestamp(made.at)))


def _read(plane: Plane, call: Call) -> Answered:
    hops = plane.services.chains(call.caller, call.path["txn"])
    first = hops[0].hop
    answer = ChainAnswer(txn=first.txn, originator=_actor(first.originator), hops=[_hop(seen) for seen in hops])
    return Answered(status=200, body=answer)


def _token(plane: Plane, call: Call) -> Answered:
    told = plane.services.functions.invoke("open_token", {"txn": call.path["txn"], **call.presented.told()})
    return Answered(status=200, body=IssuerTokenAnswer.model_validate(dict(told)))


def _review(plane: Plane, call: Call) -> Answered:
    told = plane.services.functions.invoke("review", {"subject": call.path["subject"], **call.presented.told()})
    return Answered(status=200, body=ReviewAnswer(dict(told)))


def _hop(seen: SeenHop) -> ChainHop:
    hop = seen.hop
    return ChainHop(
        id=hop.id,
        depth=hop.depth,
        kind=hop.kind.value,
        parent=hop.parent or "",
        actor=_actor(hop.actor),
        assurance=hop.evidence.assurance.value,
        scope=list(hop.scope),
        max_depth=hop.max_depth,
        teams=list(hop.teams),
        key_thumbprint=hop.key_thumbprint,
        ticket=hop.ticket,
        target=hop.target,
        principal=hop.principal,
        serial=hop.serial,
        issued_at=timestamp(hop.issued_at),
        expires_at=timestamp(hop.expires_at),
        revoked=seen.revoked,
        sha256=hop.sha256(),
        signature=hop.signature,
        hashed=dict(hop.hashed()),
    )


def _actor(identity: Identity) -> Actor:
    return Actor(iss=identity.issuer, sub=identity.subject, name=identity.name)
