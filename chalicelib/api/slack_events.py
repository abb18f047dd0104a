"""``POST /slack/events``: what Slack sends goes to the Slack edge with its raw body, which is what is signed."""

from __future__ import annotations

from chalice.app import Blueprint, Request, Response

from chalicelib.api.edge import Edge, Plane
from chalicelib.api.parse import FORM, body_of
from chalicelib.domain.errors import BadRequest


def slack_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)

    @bp.route("/slack/events", methods=["POST"], content_types=["*/*"])
    def events() -> Response:
        return edge.answer(bp.current_request, _events)

    return bp


def _events(plane: Plane, request: Request) -> Response:
    try:
        body = body_of(request, FORM).decode()
    except UnicodeDecodeError as error:
        raise BadRequest("the body is not text") from error
    answer = plane.slack().handle(body, {name.lower(): value for name, value in request.headers.items()})
    headers: dict[str, str | list[str]] = {"Content-Type": "text/plain", "Cache-Control": "no-store"}
    return Response(body=answer.body, status_code=answer.status, headers=headers)
