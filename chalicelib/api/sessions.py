"""``/v1/sessions`` and ``/v1/targets``: ask for a session, look at one's own, close it, list what may be asked for."""

from __future__ import annotations

from chalice.app import Blueprint, Request, Response
from pydantic import BaseModel, ConfigDict

from chalicelib.api.connect import connect_of
from chalicelib.api.edge import Edge, Plane, json_answer
from chalicelib.api.parse import bearer_of, model_of, query_of
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.errors import BadRequest
from chalicelib.domain.session import AccessRequest
from chalicelib.services.poll import retry_after_s
from chalicelib.services.request import DEFAULT_DURATION_S
from chalicelib.services.settle import Take
from chalicelib.services.standing import Granted, Pending, Standing

_POLL = frozenset({"wait_s", "take"})
_NONE: frozenset[str] = frozenset()


class SessionBody(BaseModel):
    """The body of ``POST /v1/sessions``. Values are checked by the service; here are the names and types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    target: str
    reason: str
    principal: str | None = None
    duration_s: int = DEFAULT_DURATION_S
    ssh_public_key: str | None = None


def sessions_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)

    @bp.route("/v1/sessions", methods=["POST"], content_types=["*/*"])
    def request_session() -> Response:
        return edge.answer(bp.current_request, _request)

    @bp.route("/v1/sessions/{session_id}", methods=["GET"], content_types=["*/*"])
    def poll_session(session_id: str) -> Response:
        return edge.answer(bp.current_request, lambda plane, request: _poll(plane, request, session_id))

    @bp.route("/v1/sessions/{session_id}", methods=["DELETE"], content_types=["*/*"])
    def close_session(session_id: str) -> Response:
        return edge.answer(bp.current_request, lambda plane, request: _close(plane, request, session_id))

    @bp.route("/v1/targets", methods=["GET"], content_types=["*/*"])
    def list_targets() -> Response:
        return edge.answer(bp.current_request, _targets)

    return bp


def _request(plane: Plane, request: Request) -> Response:
    caller = plane.services.identify(bearer_of(request))
    query_of(request, _NONE)
    body = model_of(request, SessionBody)
    if body.ssh_public_key is not None:
        # Said of every target alike: whether one is an ssh target is nobody's business who may not reach it.
        raise BadRequest("ssh_public_key: sessions to ssh targets are not served here")
    asked = AccessRequest(
        target=body.target, principal=body.principal or "", reason=body.reason, duration_s=body.duration_s
    )
    key = request.headers.get("idempotency-key")
    return _standing(plane, plane.services.request(caller, asked, key), created=201)


def _poll(plane: Plane, request: Request, session_id: str) -> Response:
    caller = plane.services.identify(bearer_of(request))
    query = query_of(request, _POLL)
    standing = plane.services.poll(
        caller, session_id, wait_s=_seconds(query.get("wait_s", "0")), take=_take(query.get("take", "true"))
    )
    return _standing(plane, standing, created=200)


def _close(plane: Plane, request: Request, session_id: str) -> Response:
    caller = plane.services.identify(bearer_of(request))
    query_of(request, _NONE)
    session = plane.services.close(caller, session_id)
    return json_answer(200, {"session_id": session.id, "status": session.status.value, "txn": session.txn})


def _targets(plane: Plane, request: Request) -> Response:
    caller = plane.services.identify(bearer_of(request))
    query_of(request, _NONE)
    listed: list[Json] = [
        {
            "name": target.name,
            "protocol": target.protocol.value,
            "environment": target.environment,
            "description": target.description,
        }
        for target in plane.services.targets(caller)
    ]
    return json_answer(200, {"targets": listed})


def _standing(plane: Plane, standing: Standing, *, created: int) -> Response:
    if isinstance(standing, Granted):
        return json_answer(created, _granted(plane, standing))
    return json_answer(202, _pending(standing), {"Retry-After": str(retry_after_s())})


def _granted(plane: Plane, granted: Granted) -> dict[str, Json]:
    return {
        "session_id": granted.session.id,
        "status": "granted",
        "txn": granted.session.txn,
        "expires_at": timestamp(granted.grant.expires_at),
        "connect": connect_of(granted, plane.broker),
    }


def _pending(pending: Pending) -> dict[str, Json]:
    needs: list[Json] = [
        {
            "rule": need.rule,
            "group": need.approval.group,
            "count": need.approval.count,
            "missing": count,
            "hint": need.hint,
        }
        for need, count in pending.missing
    ]
    return {
        "session_id": pending.session.id,
        "status": "pending",
        "txn": pending.session.txn,
        "approval": {
            "id": pending.ask.id,
            "needs": needs,
            "trigger_known": pending.ask.question.trigger_known,
            "expires_at": timestamp(pending.ask.expires_at),
        },
        "poll": f"/v1/sessions/{pending.session.id}?wait_s=5",
    }


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 2):
        raise BadRequest("wait_s is a whole number from 0 to 5")
    return int(text)


def _take(text: str) -> Take:
    match text:
        case "true":
            return Take.FIRST
        case "false":
            return Take.NOT
        case _:
            raise BadRequest("take is true or false")
