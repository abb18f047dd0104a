"""``/v1/signoffs``: a person signs the review of a period off. The ``sign_off`` function does it, with its own key, and
verifies the caller, the rules and the population itself; this edge hands on what was presented."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint
from chalicelib.api.models import SignoffAnswer, SignoffBody
from chalicelib.domain.errors import Conflict, Limited, NotPermitted, ReviewerNotEligible

SIGN_OFF = Endpoint(
    method="POST",
    path="/v1/signoffs",
    name="sign_review",
    tag="chains",
    summary="Sign the access review of a period off",
    description="For a person who logged in themselves, with a key, whom a rule permits chain:review, and who has no "
    "part in what they sign: who acted, is behind a run or answered in it is refused. The population is read again and "
    "must be the one named. It revokes nothing by itself.",
    body=SignoffBody,
    answers={201: SignoffAnswer},
    refusals=(ReviewerNotEligible, NotPermitted, Conflict, Limited),
)


def signoffs_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, SIGN_OFF, _sign_off)
    return bp


def _sign_off(plane: Plane, call: Call) -> Answered:
    body = call.body(SignoffBody).model_dump(mode="json")
    told = plane.services.functions.invoke("sign_off", {"signoff": body, **call.presented.told()})
    return Answered(status=201, body=SignoffAnswer.model_validate(dict(told)))
