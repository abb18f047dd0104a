"""One way through every endpoint: do what its declaration says, call the view, turn what it raises into one answer,
write one line of log.

Rules: who calls is known before a parameter or a body is read; a client sees an AccessError's public text or the word
``internal``, and never a stack, a host or a secret; no answer leaves that the endpoint does not declare; none may be
cached unless its view says so; the log line has a template of the path and no body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from aws_lambda_powertools import Logger
from chalice.app import Blueprint, Request, Response
from pydantic import BaseModel

from chalicelib.api.audit_log import log_refusal
from chalicelib.api.endpoint import Endpoint, Html, Text, TokenCheck
from chalicelib.api.errors import error_body, error_headers, oauth_error, status_of
from chalicelib.api.parse import model_of, presented_of, query_of
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import AccessError
from chalicelib.services.assembly import ApiServices
from chalicelib.services.identify import Caller, Presented

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
    """Where clients find the broker, and what verifies it: the PEM certificates, and the public line of its ssh host
    key (``ssh-ed25519 AAAA...``). ``ssh_port`` is 0 where it does not serve ssh."""

    host: str
    postgres_port: int
    ca_pem: str
    ssh_port: int = 0
    ssh_host_key: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plane:
    """What the endpoints stand on. ``slack`` is made at the first click: Bolt costs 85 ms of a cold start."""

    services: ApiServices
    slack: Callable[[], SlackEdge]
    broker: Broker
    clock: Clock


Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request, as its endpoint's declaration let it through. ``path`` holds the path's parameters."""

    request: Request
    query: Mapping[str, str]
    path: Mapping[str, str]
    who: Caller | None = None
    told: Presented | None = None
    given: BaseModel | None = None

    @property
    def caller(self) -> Caller:
        """Who calls, verified. Only where the endpoint says ``TokenCheck.HERE``."""
        if self.who is None:
            raise TypeError("the endpoint does not verify who calls")
        return self.who

    @property
    def presented(self) -> Presented:
        """What the caller presented, for a function that verifies it again. Only where a token is asked for."""
        if self.told is None:
            raise TypeError("the endpoint asks for no token")
        return self.told

    def body(self, model: type[Model]) -> Model:
        """Return the JSON body, which is of the declared model."""
        if not isinstance(self.given, model):
            raise TypeError(f"the endpoint does not take a {model.__name__}")
        return self.given


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What a view answers: a model that its endpoint declares for the status, or text."""

    status: int
    body: BaseModel | str
    headers: Mapping[str, str] = field(default_factory=dict)


View = Callable[[Plane, Call], Answered]


class Edge:
    """Answers requests. ``plane`` is called with the first request, so that importing the app reads no setting."""

    def __init__(self, plane: Callable[[], Plane], logger: Logger) -> None:
        self._plane = plane
        self._logger = logger

    def route(self, blueprint: Blueprint, endpoint: Endpoint, view: View) -> None:
        """Register ``view`` for ``endpoint``, as it declares."""

        def answer(**_path: str) -> Response:
            return self.answer(blueprint.current_request, endpoint, view)

        answer.__name__ = endpoint.name
        # Chalice would answer another content type with a body of its own shape: the endpoint says what it takes.
        blueprint.route(endpoint.path, methods=[endpoint.method], content_types=["*/*"])(answer)

    def fixed(self, blueprint: Blueprint, endpoint: Endpoint, make: Callable[[], Answered]) -> None:
        """Register what is the same for everybody and stands on nothing: no plane is made for it, nothing is logged."""

        def answer(**_path: str) -> Response:
            return _rendered(endpoint, make())

        answer.__name__ = endpoint.name
        blueprint.route(endpoint.path, methods=[endpoint.method], content_types=["*/*"])(answer)

    def answer(self, request: Request, endpoint: Endpoint, view: View) -> Response:
        """Return the view's answer, or the one for what it raised."""
        request_id = request_id_of(request)
        code = ""
        try:
            response = self._answered(request, endpoint, view)
        except AccessError as error:
            code = error.code
            log_refusal(self._logger, error, request_id)
            response = _refused(error, request_id, oauth=endpoint.oauth)
        except Exception:
            code = AccessError.code
            self._logger.exception("unhandled", extra={"request_id": request_id})
            response = _refused(AccessError(INTERNAL), request_id, oauth=endpoint.oauth)
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

    def _answered(self, request: Request, endpoint: Endpoint, view: View) -> Response:
        plane = self._plane()
        told = presented_of(request) if endpoint.token is not TokenCheck.NONE else None
        who = plane.services.identify(told) if told is not None and endpoint.token is TokenCheck.HERE else None
        query = query_of(request, endpoint.query_names())
        given = model_of(request, endpoint.body) if endpoint.body is not None and not endpoint.form else None
        call = Call(request=request, query=query, path=request.uri_params or {}, who=who, told=told, given=given)
        return _rendered(endpoint, view(plane, call))


def request_id_of(request: Request) -> str:
    """Return API Gateway's id of the request, else the invocation's; it is what a caller gives to the operators."""
    given = request.context.get("requestId") or getattr(request.lambda_context, "aws_request_id", "")
    return str(given)


def _rendered(endpoint: Endpoint, answered: Answered) -> Response:
    declared = endpoint.answers[answered.status]
    body = answered.body
    if isinstance(body, str) != issubclass(declared, Text) or not isinstance(body, str | declared):
        raise TypeError(f"{endpoint.name} does not declare such an answer")
    media = "application/json"
    if isinstance(body, str):
        media = f"{'text/html' if issubclass(declared, Html) else 'text/plain'}; charset=utf-8"
    headers: dict[str, Any] = {
        "Content-Type": media,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answered.headers,
    }
    told = body if isinstance(body, str) else body.model_dump(mode="json", exclude_none=True)
    return Response(body=told, status_code=answered.status, headers=headers)


def _refused(error: AccessError, request_id: str, *, oauth: bool) -> Response:
    status, body = oauth_error(error) if oauth else (status_of(error), error_body(error, request_id))
    headers: dict[str, Any] = {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **error_headers(error, oauth=oauth),
    }
    return Response(body=body, status_code=status, headers=headers)
