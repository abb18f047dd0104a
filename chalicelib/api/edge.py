"""One way through every endpoint: call the view, turn what it raises into one answer, write one line of log.

Rules: a client sees an AccessError's public text or the word ``internal``, and never a stack, a host or a secret; no
answer may be cached unless its view says so; the log line has a template of the path and no body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aws_lambda_powertools import Logger
from chalice.app import Request, Response

from chalicelib.api.audit_log import log_refusal
from chalicelib.api.errors import error_body, error_headers, oauth_error, status_of
from chalicelib.domain.canonical import Json
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError
from chalicelib.services.assembly import ApiServices

INTERNAL: Final = "something went wrong on our side"


class SlackAnswer(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def body(self) -> str: ...


class SlackEdge(Protocol):
    """What handles requests from Slack (``chalicelib.slack``; edges do not know each other)."""

    def handle(self, body: str, headers: Mapping[str, str]) -> SlackAnswer: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Broker:
    """Where clients find the broker, and the PEM certificates that verify it."""

    host: str
    postgres_port: int
    ca_pem: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plane:
    """What the endpoints stand on. ``slack`` is made at the first click: Bolt costs 85 ms of a cold start."""

    services: ApiServices
    slack: Callable[[], SlackEdge]
    broker: Broker
    clock: Clock


class Edge:
    """Answers requests. ``plane`` is called with the first request, so that importing the app reads no setting."""

    def __init__(self, plane: Callable[[], Plane], logger: Logger) -> None:
        self._plane = plane
        self._logger = logger

    def answer(self, request: Request, view: Callable[[Plane, Request], Response], *, oauth: bool = False) -> Response:
        """Return the view's answer, or the one for what it raised; ``oauth`` chooses RFC 6749's shape."""
        request_id = request_id_of(request)
        code = ""
        try:
            response = view(self._plane(), request)
        except AccessError as error:
            code = error.code
            log_refusal(self._logger, error, request_id)
            response = _refused(error, request_id, oauth=oauth)
        except Exception:
            code = AccessError.code
            self._logger.exception("unhandled", extra={"request_id": request_id})
            response = _refused(AccessError(INTERNAL), request_id, oauth=oauth)
        self._logger.info(
            "answered",
            extra={
                "method": request.method,
                "path": request.path,
                "status": response.status_code,
                "code": code,
                "request_id": request_id,
            },
        )
        return response


def request_id_of(request: Request) -> str:
    """Return API Gateway's id of the request, else the invocation's; it is what a caller gives to the operators."""
    given = request.context.get("requestId") or getattr(request.lambda_context, "aws_request_id", "")
    return str(given)


def json_answer(status: int, body: Json, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer that nobody caches, unless ``headers`` say so."""
    base: dict[str, Any] = {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(body=body, status_code=status, headers={**base, **(headers or {})})


def _refused(error: AccessError, request_id: str, *, oauth: bool) -> Response:
    if oauth:
        status, body = oauth_error(error)
    else:
        status, body = status_of(error), error_body(error, request_id)
    return json_answer(status, body, error_headers(status, oauth=oauth))
