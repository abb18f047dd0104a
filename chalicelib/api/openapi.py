"""The contract as OpenAPI 3.1, made from the endpoints' declarations: ``GET /openapi.json`` and ``docs/openapi.json``.

Nothing is written here about any one route: what a declaration does not say is not in the document. It is the same
for every deployment and every start, so that the committed copy can be compared byte by byte.

Source: OpenAPI Specification 3.1.1; JSON Schema 2020-12; RFC 6750 and RFC 9449 for the two ways to present a token.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from chalice.app import Blueprint
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from chalicelib.api import approvals, chains, copies, holds, public, replays, sessions, signoffs, slack_events, token
from chalicelib.api.edge import Answered, Edge
from chalicelib.api.endpoint import Endpoint, Html, Parameter, Text, TokenCheck
from chalicelib.api.errors import oauth_error, status_of
from chalicelib.api.models import ASK, HOLD, SESSION_ID, SUBJECT, TXN, Document, OAuthRefusal, Refusal
from chalicelib.api.parse import FORM, JSON

VERSION: Final = "1"  # of the paths' /v1: fields and endpoints are added under it, none is changed or removed
_MAX_AGE_S: Final = 300  # as the keys: a deployment's new contract is seen within five minutes
_REF: Final = "#/components/schemas/{model}"
_IN_PATH: Final = re.compile(r"{([a-z_]+)}")

OPENAPI: Final = Endpoint(
    method="GET",
    path="/openapi.json",
    name="openapi",
    tag="service",
    summary="This document",
    token=TokenCheck.NONE,
    answers={200: Document},
    fixed=True,
)
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    token.EXCHANGE,
    token.DELEGATE,
    sessions.REQUEST,
    sessions.POLL,
    sessions.CLOSE,
    sessions.CERTIFY,
    sessions.TARGETS,
    chains.REVOKE,
    chains.READ_CHAIN,
    chains.READ_TOKEN,
    chains.REVIEW,
    signoffs.SIGN_OFF,
    holds.HOLD,
    holds.LIFT,
    holds.LIST,
    copies.VOUCH_COPY,
    replays.TELL_REPLAY,
    public.KEYS,
    public.JWKS,
    public.SSH_TARGET_CA,
    public.LOGIN,
    slack_events.EVENTS,
    approvals.PAGE,
    approvals.CARD,
    approvals.ANSWER,
    approvals.REGISTER,
    public.HEALTH,
    OPENAPI,
)
_PATH_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "session_id": Parameter(
        name="session_id", means="a session's id", schema={"type": "string", "pattern": SESSION_ID}
    ),
    "ask_id": Parameter(name="ask_id", means="an Ask's id", schema={"type": "string", "pattern": ASK}),
    "hold_id": Parameter(name="hold_id", means="a hold's id", schema={"type": "string", "pattern": HOLD}),
    "txn": Parameter(name="txn", means="a chain's id", schema={"type": "string", "pattern": TXN}),
    "subject": Parameter(
        name="subject", means="a session's id, or a chain's", schema={"type": "string", "pattern": SUBJECT}
    ),
}
_PROOF: Final = Parameter(
    name="DPoP",
    means="a proof (RFC 9449) of the key, for this method and address; each counts once",
    schema={"type": "string"},
)
_DESCRIPTION: Final = """\
Approval and credential broker. Bodies are at most 64 KiB; a field or parameter that is not in this document is refused.
A token that is bound to a key (cnf.jkt) is presented as `Authorization: DPoP` with a fresh proof in `DPoP`; one that is
not, as `Authorization: Bearer`. Errors are `{code, message, hint, request_id}`; the codes never change. API Gateway
answers in a shape of its own what never reaches us: unknown paths and methods, bodies over 10 MB, too many requests."""
_STATUS_HEADERS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("WWW-Authenticate", "which scheme, and what was wrong"),
    429: ("Retry-After", "seconds"),
    503: ("Retry-After", "seconds"),
    202: ("Retry-After", "seconds"),
}


def openapi_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    headers = {"Cache-Control": f"max-age={_MAX_AGE_S}"}
    edge.fixed(bp, OPENAPI, lambda: Answered(status=200, body=Document(dict(document())), headers=headers))
    return bp


@lru_cache(1)
def document() -> Mapping[str, Any]:
    """Return the document. Pure: the same for the same declarations."""
    refs, schemas = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, refs)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Countersign",
            "version": VERSION,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": ".", "description": "where this document is"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "Bearer", "bearerFormat": "JWT", "description": "RFC 6750"},
                "dpop": {"type": "http", "scheme": "DPoP", "description": "RFC 9449, with the header DPoP"},
            },
        },
    }


def document_text() -> str:
    """Return the document as it is committed: sorted, two spaces, a line's end at its end. Running this module prints
    it."""
    return json.dumps(document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _schemas() -> tuple[Mapping[type[BaseModel], Mapping[str, Any]], Mapping[str, Any]]:
    """Return model to its reference, and name to its schema. What comes in is described as what is taken, what goes out
    as what is given."""
    models: dict[type[BaseModel], None] = {Refusal: None, OAuthRefusal: None}
    for endpoint in ENDPOINTS:
        if endpoint.body is not None:
            models[endpoint.body] = None
        models |= {model: None for model in endpoint.answers.values() if issubclass(model, BaseModel)}
    refs, defined = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas = {name: _tidied(schema) for name, schema in defined["$defs"].items()}
    return {model: refs[model, "validation"] for model in models}, schemas


def _tidied(schema: Any) -> Any:
    """Return the schema without what is pydantic's own: titles that repeat names, and defaults of null, which says in
    pydantic that a field may be left out and would say here that null is taken."""
    if isinstance(schema, list):
        return [_tidied(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: {key: _tidied(item) for key, item in value.items()} if name == "properties" else _tidied(value)
        for name, value in schema.items()
        if name != "title" and not (name == "default" and value is None)
    }


def _operation(endpoint: Endpoint, refs: Mapping[type[BaseModel], Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": endpoint.name, "tags": [endpoint.tag], "summary": endpoint.summary}
    if endpoint.description:
        found["description"] = endpoint.description
    parameters = list(_parameters(endpoint))
    if parameters:
        found["parameters"] = parameters
    if endpoint.body is not None:
        media = FORM if endpoint.form else JSON
        found["requestBody"] = {"required": True, "content": {media: {"schema": refs[endpoint.body]}}}
    found["responses"] = _responses(endpoint, refs)
    found["security"] = [] if endpoint.token is TokenCheck.NONE else [{"bearer": []}, {"dpop": []}]
    return found


def _parameters(endpoint: Endpoint) -> Iterable[dict[str, Any]]:
    for name in _IN_PATH.findall(endpoint.path):
        yield _parameter(_PATH_PARAMETERS[name], "path", required=True)
    for parameter in endpoint.query:
        yield _parameter(parameter, "query")
    for parameter in endpoint.headers:
        yield _parameter(parameter, "header")
    if endpoint.token is not TokenCheck.NONE or endpoint.oauth:
        yield _parameter(_PROOF, "header")


def _parameter(parameter: Parameter, place: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": place,
        "required": required,
        "description": parameter.means,
        "schema": parameter.schema,
    }


def _responses(endpoint: Endpoint, refs: Mapping[type[BaseModel], Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, model in sorted(endpoint.answers.items()):
        media, schema = (_text_of(model), {"type": "string"}) if issubclass(model, Text) else (JSON, refs[model])
        found[str(status)] = _response(
            status, endpoint.summary if status < 400 else "Not what this takes", media, schema
        )
    shape = OAuthRefusal if endpoint.oauth else Refusal
    for status, codes in sorted(_refusals(endpoint).items()):
        listed = {"properties": {"code": {"enum": codes}}}
        told = _response(status, f"`{'`, `'.join(codes)}`", JSON, {"allOf": [refs[shape], listed]})
        if str(status) in found:  # text of Slack's, or JSON of ours
            told["content"] |= found[str(status)]["content"]
        found[str(status)] = told
    return found


def _text_of(kind: type[Text]) -> str:
    return "text/html" if issubclass(kind, Html) else "text/plain"


def _refusals(endpoint: Endpoint) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for kind in endpoint.all_refusals():
        status = oauth_error(kind(""))[0] if endpoint.oauth else status_of(kind(""))
        found.setdefault(status, []).append(kind.code)
    return found


def _response(status: int, means: str, media: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"description": means, "content": {media: {"schema": schema}}}
    if status in _STATUS_HEADERS:
        name, told = _STATUS_HEADERS[status]
        found["headers"] = {name: {"required": True, "description": told, "schema": {"type": "string"}}}
    return found


if __name__ == "__main__":
    sys.stdout.write(document_text())
