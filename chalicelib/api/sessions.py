"""``/v1/sessions`` and ``/v1/targets``: ask for a session, look at one's own, close it, certify a key for it, list what
may be asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from chalice.app import Blueprint

from chalicelib.api.connect import connect_of
from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint, Parameter
from chalicelib.api.models import (
    Approval,
    CertificateAnswer,
    CertificateBody,
    ClosedAnswer,
    GrantedAnswer,
    ListedTarget,
    Need,
    PendingAnswer,
    SessionBody,
    TargetsAnswer,
)
from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.errors import (
    ApprovalDenied,
    ApprovalExpired,
    ApprovalWithdrawn,
    BadRequest,
    GrantExpired,
    IdempotencyConflict,
    NotFound,
    PolicyDenied,
    TargetUnavailable,
)
from chalicelib.domain.session import AccessRequest
from chalicelib.domain.target import Protocol
from chalicelib.identity.ssh_certificates import public_key_line
from chalicelib.services.poll import MAX_WAIT_S, retry_after_s
from chalicelib.services.settle import Take
from chalicelib.services.standing import Granted, Pending, Standing

_ENDED: Final = (ApprovalDenied, ApprovalExpired, ApprovalWithdrawn, PolicyDenied, GrantExpired, TargetUnavailable)

REQUEST = Endpoint(
    method="POST",
    path="/v1/sessions",
    name="request_session",
    tag="sessions",
    summary="Ask for a session: granted at once, waiting for people, or refused",
    description="ssh_public_key is for ssh targets: connect.certificate is there where the session is granted at once. "
    "For other targets it is not used.",
    body=SessionBody,
    headers=(
        Parameter(
            name="Idempotency-Key",
            means="the same request under the same key is the same session, with a new secret",
            schema={"type": "string", "pattern": "^[!-~]{1,128}$"},
        ),
    ),
    answers={201: GrantedAnswer, 202: PendingAnswer},
    refusals=(NotFound, IdempotencyConflict, *_ENDED),
)
POLL = Endpoint(
    method="GET",
    path="/v1/sessions/{session_id}",
    name="poll_session",
    tag="sessions",
    summary="How the caller's own session stands",
    query=(
        Parameter(
            name="wait_s",
            means="seconds to wait for people; few may wait at once",
            schema={"type": "integer", "minimum": 0, "maximum": MAX_WAIT_S, "default": 0},
        ),
        Parameter(
            name="take",
            means="false looks without taking the secret, which is given once",
            schema={"type": "string", "enum": ["true", "false"], "default": "true"},
        ),
    ),
    answers={200: GrantedAnswer, 202: PendingAnswer},
    refusals=(NotFound, *_ENDED),
)
CLOSE = Endpoint(
    method="DELETE",
    path="/v1/sessions/{session_id}",
    name="close_session",
    tag="sessions",
    summary="Close the caller's own session and end its live connections; it may be repeated",
    answers={200: ClosedAnswer},
    refusals=(NotFound,),
)
CERTIFY = Endpoint(
    method="POST",
    path="/v1/sessions/{session_id}/certificate",
    name="certify_key",
    tag="sessions",
    summary="Certify an ssh key for a granted ssh session, for five minutes",
    body=CertificateBody,
    answers={200: CertificateAnswer},
    refusals=(NotFound, *_ENDED),
)
TARGETS = Endpoint(
    method="GET",
    path="/v1/targets",
    name="list_targets",
    tag="sessions",
    summary="What a request would not flatly refuse",
    answers={200: TargetsAnswer},
)


def sessions_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, REQUEST, _request)
    edge.route(bp, POLL, _poll)
    edge.route(bp, CLOSE, _close)
    edge.route(bp, CERTIFY, _certify)
    edge.route(bp, TARGETS, _targets)
    return bp


def _request(plane: Plane, call: Call) -> Answered:
    body = call.body(SessionBody)
    # Before anything is asked for: a key that nobody can certify must not cost a person a click.
    key = _key(body.ssh_public_key) if body.ssh_public_key else ""
    asked = AccessRequest(target=body.target, principal=body.principal, reason=body.reason, duration_s=body.duration_s)
    standing = plane.services.request(call.caller, asked, call.request.headers.get("idempotency-key"))
    if key and isinstance(standing, Granted) and standing.target.protocol is Protocol.SSH:
        certificate = str(_certificate(plane, call, standing.session.id, key)["certificate"])
        return _standing(plane, standing, created=201, certificate=certificate)
    return _standing(plane, standing, created=201)


def _poll(plane: Plane, call: Call) -> Answered:
    standing = plane.services.poll(
        call.caller,
        call.path["session_id"],
        wait_s=_seconds(call.query.get("wait_s", "0")),
        take=_take(call.query.get("take", "true")),
    )
    return _standing(plane, standing, created=200)


def _close(plane: Plane, call: Call) -> Answered:
    session = plane.services.close(call.caller, call.path["session_id"])
    return Answered(status=200, body=ClosedAnswer(session_id=session.id, status="closed", txn=session.txn))


def _certify(plane: Plane, call: Call) -> Answered:
    made = _certificate(plane, call, call.path["session_id"], _key(call.body(CertificateBody).ssh_public_key))
    return Answered(status=200, body=CertificateAnswer.model_validate(made))


def _certificate(plane: Plane, call: Call, session_id: str, key: str) -> Mapping[str, Json]:
    """Return what ``sign`` made. It verifies the caller again, whose proof was counted here."""
    wanted: Mapping[str, Json] = {"session_id": session_id, "public_key": key}
    return plane.services.functions.invoke("sign", {"certify": wanted, **call.presented.told()})


def _targets(plane: Plane, call: Call) -> Answered:
    listed = [
        ListedTarget(
            name=target.name,
            protocol=target.protocol.value,
            environment=target.environment,
            description=target.description,
        )
        for target in plane.services.targets(call.caller)
    ]
    return Answered(status=200, body=TargetsAnswer(targets=listed))


def _standing(plane: Plane, standing: Standing, *, created: int, certificate: str = "") -> Answered:
    if isinstance(standing, Granted):
        return Answered(status=created, body=_granted(plane, standing, certificate))
    return Answered(status=202, body=_pending(standing), headers={"Retry-After": str(retry_after_s())})


def _granted(plane: Plane, granted: Granted, certificate: str) -> GrantedAnswer:
    return GrantedAnswer(
        session_id=granted.session.id,
        status="granted",
        txn=granted.session.txn,
        expires_at=timestamp(granted.grant.expires_at),
        connect=connect_of(granted, plane.broker, certificate),
    )


def _pending(pending: Pending) -> PendingAnswer:
    needs = [
        Need(
            rule=need.rule,
            group=need.approval.group,
            count=need.approval.count,
            webauthn=need.approval.webauthn,
            missing=count,
            hint=need.hint,
        )
        for need, count in pending.missing
    ]
    return PendingAnswer(
        session_id=pending.session.id,
        status="pending",
        txn=pending.session.txn,
        approval=Approval(
            id=pending.ask.id,
            needs=needs,
            trigger_known=pending.ask.question.trigger_known,
            expires_at=timestamp(pending.ask.expires_at),
        ),
        poll=f"/v1/sessions/{pending.session.id}?wait_s={MAX_WAIT_S}",
    )


def _key(line: str) -> str:
    try:
        return public_key_line(line)
    except BadRequest as error:
        raise BadRequest(f"ssh_public_key: {error.public}", hint=error.next_step) from None


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
