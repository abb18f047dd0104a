"""``POST /v1/token`` (RFC 8693) and ``POST /v1/delegations``: what a caller sends goes to the ``sign`` function as it
came, with the proof of its key; this edge can sign nothing.

Does not read a token or a ticket, and writes neither anywhere.
"""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint, TokenCheck
from chalicelib.api.models import DelegationBody, TicketAnswer, TokenAnswer, TokenForm
from chalicelib.api.parse import form_of, proof_of
from chalicelib.domain.errors import (
    AlreadyInChain,
    GrantExpired,
    GrantRevoked,
    InvalidTarget,
    KeyProofInvalid,
    NotPermitted,
    OutOfScope,
    ProofInvalid,
    RunBound,
    TicketInvalid,
    TokenExpired,
    TokenInvalid,
    TokenReplayed,
    Unauthenticated,
    UnknownIssuer,
    UnsupportedGrantType,
)
from chalicelib.services.exchange import ACCESS_TOKEN_TYPE

EXCHANGE = Endpoint(
    method="POST",
    path="/v1/token",
    name="exchange_token",
    tag="tokens",
    summary="Exchange an issuer's token, a ticket, or an own token, for a token of ours",
    description="RFC 8693. With a DPoP proof (RFC 9449) the token is bound to the key that was proved. An issuer's "
    "token begins the run's chain, once; a ticket adds a hop below its parent's; an own token, even expired, is "
    "renewed.",
    token=TokenCheck.NONE,
    body=TokenForm,
    form=True,
    answers={200: TokenAnswer},
    oauth=True,
    refusals=(
        UnsupportedGrantType,
        InvalidTarget,
        Unauthenticated,
        TokenInvalid,
        TokenExpired,
        TokenReplayed,
        UnknownIssuer,
        KeyProofInvalid,
        RunBound,
        TicketInvalid,
        ProofInvalid,
        OutOfScope,
        AlreadyInChain,
        GrantExpired,
        GrantRevoked,
    ),
)
DELEGATE = Endpoint(
    method="POST",
    path="/v1/delegations",
    name="delegate",
    tag="tokens",
    summary="Get a ticket that lets one named redeemer in below the caller's own hop",
    description="The ticket is short and used once. Its redeemer gets no more than the caller has, in scope, time and "
    "depth. Needs a rule that permits chain:delegate.",
    token=TokenCheck.BEHIND,
    body=DelegationBody,
    answers={201: TicketAnswer},
    refusals=(NotPermitted, OutOfScope),
)


def token_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, EXCHANGE, _exchange)
    edge.route(bp, DELEGATE, _delegate)
    return bp


def _exchange(plane: Plane, call: Call) -> Answered:
    if call.request.headers.get("authorization") is not None:
        raise Unauthenticated("clients are not authenticated here: the subject token says who asks")
    form = {name: list(values) for name, values in form_of(call.request).items()}
    told = plane.services.functions.invoke("sign", {"form": form, "proof": proof_of(call.request)})
    answer = TokenAnswer.model_validate({**told, "issued_token_type": ACCESS_TOKEN_TYPE})
    return Answered(status=200, body=answer, headers={"Pragma": "no-cache"})  # RFC 6749 section 5.1 asks for it


def _delegate(plane: Plane, call: Call) -> Answered:
    wanted = call.body(DelegationBody).model_dump(exclude_unset=True)
    told = plane.services.functions.invoke("sign", {"delegate": wanted, **call.presented.told()})
    return Answered(status=201, body=TicketAnswer.model_validate(told))
