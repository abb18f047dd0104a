"""``/v1/copies``: somebody made a copy of evidence, and has its hash signed. The ``vouch_copy`` function does it, with
its own key, and verifies the caller and the rules itself; this edge hands on what was presented."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint
from chalicelib.api.models import CopyAnswer, CopyBody
from chalicelib.domain.errors import NotFound

VOUCH_COPY = Endpoint(
    method="POST",
    path="/v1/copies",
    name="copy_evidence",
    tag="chains",
    summary="Have a copy of evidence vouched for",
    description="Needs a rule that permits chain:review (context.what is copy). The answer is a signed statement: who "
    "copied what, when, and the hash of the copy's list of files. It becomes the event evidence.copied. It hands out "
    "nothing of the evidence, and says nothing of whether it is sound.",
    body=CopyBody,
    answers={201: CopyAnswer},
    refusals=(NotFound,),
)


def copies_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, VOUCH_COPY, _vouch)
    return bp


def _vouch(plane: Plane, call: Call) -> Answered:
    body = call.body(CopyBody).model_dump(mode="json")
    told = plane.services.functions.invoke("vouch_copy", {"copy": body, **call.presented.told()})
    return Answered(status=201, body=CopyAnswer.model_validate(dict(told)))
