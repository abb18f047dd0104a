"""``/v1/asks``: the approval page, what it shows, and what it sends; and the page that registers a passkey.

Nobody logs in here: an Ask's id is what lets its card be read, and a passkey says who answers. The answer goes to the
``decide`` function as it came, which believes nothing of what this edge says.
"""

from __future__ import annotations

import base64

from chalice.app import Blueprint

from chalicelib.api.approval_pages import APPROVE_HEADERS, APPROVE_PAGE, REGISTER_HEADERS, REGISTER_PAGE
from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint, Html, TokenCheck
from chalicelib.api.models import AskCard, AskShown, PasskeyAnswerBody, Told
from chalicelib.domain.canonical import timestamp
from chalicelib.domain.errors import (
    AlreadyDecided,
    AlreadyUsed,
    ApprovalExpired,
    ApprovalWithdrawn,
    ApproverNotEligible,
    NotFound,
    ProofInvalid,
)
from chalicelib.domain.identifiers import ASK_ID, AskId

PAGE = Endpoint(
    method="GET",
    path="/v1/asks/{ask_id}/approve",
    name="approval_page",
    tag="approvals",
    summary="The page on which an Ask is answered with a passkey",
    description="The same for every Ask: one file, no third party, a policy that knows its script by hash.",
    token=TokenCheck.NONE,
    answers={200: Html},
    refusals=(NotFound,),
)
CARD = Endpoint(
    method="GET",
    path="/v1/asks/{ask_id}/card",
    name="approval_card",
    tag="approvals",
    summary="What the approval page shows: the Slack card's own blocks, and what a passkey signs",
    description="For whoever has the link, as the card is for whoever is in the channel. Nothing of the question is "
    "told once it is answered, expired or withdrawn.",
    token=TokenCheck.NONE,
    answers={200: AskShown},
    refusals=(NotFound, ProofInvalid),
)
ANSWER = Endpoint(
    method="POST",
    path="/v1/asks/{ask_id}/answers",
    name="answer_with_passkey",
    tag="approvals",
    summary="Answer an Ask with a passkey's assertion (W3C Web Authentication)",
    description="The challenge is SHA-256 over the Ask's id and digest, yes or no, and the hash of the blocks shown. "
    "The passkey must be registered in the active configuration, and its user verified. It says who answers: whoever "
    "is behind the run is refused all the same.",
    token=TokenCheck.NONE,
    body=PasskeyAnswerBody,
    answers={200: Told},
    refusals=(
        NotFound,
        ProofInvalid,
        ApproverNotEligible,
        AlreadyDecided,
        AlreadyUsed,
        ApprovalExpired,
        ApprovalWithdrawn,
    ),
)
REGISTER = Endpoint(
    method="GET",
    path="/v1/passkeys/register",
    name="register_page",
    tag="approvals",
    summary="The page that makes a passkey, and the lines of approvers.yaml for it",
    description="It sends nothing to us: a passkey counts once the configuration that names it is reviewed and active.",
    token=TokenCheck.NONE,
    answers={200: Html},
    fixed=True,
)


def approvals_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, PAGE, _page)
    edge.route(bp, CARD, _card)
    edge.route(bp, ANSWER, _answer)
    edge.fixed(bp, REGISTER, lambda: Answered(status=200, body=REGISTER_PAGE, headers=REGISTER_HEADERS))
    return bp


def _page(plane: Plane, call: Call) -> Answered:  # noqa: ARG001 - every view takes the plane
    _ask_id(call)
    return Answered(status=200, body=APPROVE_PAGE, headers=APPROVE_HEADERS)


def _card(plane: Plane, call: Call) -> Answered:
    shown = plane.services.show_ask(_ask_id(call))
    card = None
    if shown.card is not None:
        card = AskCard(
            blocks=shown.card.blocks,
            card_sha256=shown.card.card_sha256,
            approve_challenge=_base64url(shown.card.approve),
            deny_challenge=_base64url(shown.card.deny),
        )
    told = AskShown(id=shown.ask_id, status=shown.status, expires_at=timestamp(shown.expires_at), card=card)
    return Answered(status=200, body=told)


def _answer(plane: Plane, call: Call) -> Answered:
    body = call.body(PasskeyAnswerBody).model_dump(mode="json")
    told = plane.services.functions.invoke("decide", {"on_page": {"ask_id": _ask_id(call), **body}})
    return Answered(status=200, body=Told(text=str(told.get("text", ""))))


def _ask_id(call: Call) -> AskId:
    found = call.path["ask_id"]
    if not ASK_ID.match(found):  # before a table is asked: what is none of ours costs nothing
        raise NotFound("there is no such request for approval", hint="Follow the link on the card.")
    return AskId(found)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
