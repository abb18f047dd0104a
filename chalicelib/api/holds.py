"""``/v1/holds``: put a legal hold on evidence, lift one, list them. The ``hold`` function does it, and verifies the
caller and the rules itself; this edge hands on what was presented."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint
from chalicelib.api.models import HoldAnswer, HoldBody, HoldsAnswer, LiftAnswer, LiftBody
from chalicelib.domain.errors import AlreadyExists, Limited, NotFound, NotPermitted

HOLD = Endpoint(
    method="POST",
    path="/v1/holds",
    name="hold_evidence",
    tag="chains",
    summary="Put a legal hold on the evidence of a session, a chain or a target",
    description="Needs a rule that permits evidence:hold (context.what is session, chain or target). It reaches what "
    "is written later too, and ends only when it is lifted. It is carried out within the hour.",
    body=HoldBody,
    answers={201: HoldAnswer},
    refusals=(NotPermitted, NotFound, Limited),
)
LIFT = Endpoint(
    method="POST",
    path="/v1/holds/{hold_id}/lift",
    name="lift_hold",
    tag="chains",
    summary="Lift a legal hold",
    description="Needs a rule that permits evidence:lift. Who has a part in a session or chain lifts no hold on it. "
    "Objects that another hold is on stay held; the rest stay for as long as their lock.",
    body=LiftBody,
    answers={201: LiftAnswer},
    refusals=(NotPermitted, NotFound, AlreadyExists),
)
LIST = Endpoint(
    method="GET",
    path="/v1/holds",
    name="list_holds",
    tag="chains",
    summary="List every legal hold, lifted ones too",
    description="Needs a rule that permits evidence:hold on a target.",
    answers={200: HoldsAnswer},
    refusals=(NotPermitted, Limited),
)


def holds_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, HOLD, _hold)
    edge.route(bp, LIFT, _lift)
    edge.route(bp, LIST, _list)
    return bp


def _hold(plane: Plane, call: Call) -> Answered:
    body = call.body(HoldBody).model_dump(mode="json")
    told = plane.services.functions.invoke("hold", {"hold": body, **call.presented.told()})
    return Answered(status=201, body=HoldAnswer.model_validate(dict(told)))


def _lift(plane: Plane, call: Call) -> Answered:
    lift = {"id": call.path["hold_id"], **call.body(LiftBody).model_dump(mode="json")}
    told = plane.services.functions.invoke("hold", {"lift": lift, **call.presented.told()})
    return Answered(status=201, body=LiftAnswer.model_validate(dict(told)))


def _list(plane: Plane, call: Call) -> Answered:
    told = plane.services.functions.invoke("hold", {"list": True, **call.presented.told()})
    return Answered(status=200, body=HoldsAnswer.model_validate(dict(told)))
