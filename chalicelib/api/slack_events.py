"""``POST /slack/events``: what Slack sends goes to the Slack edge with its raw body, which is what is signed."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint, Text, TokenCheck
from chalicelib.api.models import SlackForm
from chalicelib.api.parse import FORM, body_of
from chalicelib.domain.errors import BadRequest, Unauthenticated

EVENTS = Endpoint(
    method="POST",
    path="/slack/events",
    name="slack_events",
    tag="approvals",
    summary="Slack's interactivity URL: requests are signed by Slack",
    token=TokenCheck.NONE,
    body=SlackForm,
    form=True,
    answers={200: Text, 400: Text, 404: Text},
    refusals=(Unauthenticated,),
)


def slack_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, EVENTS, _events)
    return bp


def _events(plane: Plane, call: Call) -> Answered:
    try:
        body = body_of(call.request, FORM).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not text") from error
    answer = plane.slack().handle(body, {name.lower(): value for name, value in call.request.headers.items()})
    return Answered(status=answer.status, body=answer.body)
