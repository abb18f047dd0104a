"""What comes in: bounded, of one content type, with no field that nobody reads. Anything else is a BadRequest by name.

Does not decide and does not log: a body may hold a token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar
from urllib.parse import parse_qs, quote

from chalice.app import Request
from pydantic import BaseModel, ValidationError

from chalicelib.domain.errors import (
    BadRequest,
    BodyTooLarge,
    KeyProofInvalid,
    TokenInvalid,
    Unauthenticated,
    UnsupportedMediaType,
)
from chalicelib.services.identify import BEARER, DPOP, Presented

MAX_BODY: Final = 64 * 1024  # the largest that we take is a click on our largest card, under 50 KB form-encoded
MAX_TOKEN: Final = 16 * 1024  # API Gateway takes 10,240 bytes of headers; a form may hold a little more
_MAX_FIELDS: Final = 32  # RFC 8693 names nine parameters; more than this is no client of ours
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
_SCHEMES: Final = {"bearer": BEARER, "dpop": DPOP}  # RFC 9110 section 11.1: a scheme's case does not count

Model = TypeVar("Model", bound=BaseModel)


def body_of(request: Request, content_type: str) -> bytes:
    """Return the raw body. Raises BodyTooLarge, UnsupportedMediaType."""
    raw = request.raw_body
    body = raw.encode() if isinstance(raw, str) else raw
    if len(body) > MAX_BODY:
        raise BodyTooLarge(f"the body is larger than {MAX_BODY} bytes")
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != content_type:
        raise UnsupportedMediaType(f"the body must be {content_type}")
    return body


def form_of(request: Request) -> Mapping[str, Sequence[str]]:
    """Return a form's fields, each with its values. Raises BadRequest and :func:`body_of`'s."""
    body = body_of(request, FORM)
    try:
        return parse_qs(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as error:
        raise BadRequest("the body is not a form") from error


def model_of(request: Request, model: type[Model]) -> Model:
    """Return the JSON body as ``model``. Raises BadRequest naming the field, and :func:`body_of`'s."""
    body = body_of(request, JSON)
    try:
        found = model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(str(part) for part in first["loc"])[:64] or "body"
        shown = field if field.isascii() and field.isprintable() else "a field"
        raise BadRequest(f"{shown}: {first['msg']}") from None
    # Readers differ in which of two they believe: who filters in front of us must not see another target than we do.
    json.loads(body, object_pairs_hook=_require_once)
    return found


def _require_once(members: list[tuple[str, object]]) -> None:
    if len({name for name, _ in members}) != len(members):
        raise BadRequest("a field is there twice")


def query_of(request: Request, known: frozenset[str]) -> Mapping[str, str]:
    """Return the query's parameters. Raises BadRequest on one that is not ``known`` or is there twice."""
    if request.query_params is None:
        return {}
    found: dict[str, str] = {}
    for name in request.query_params:
        values = request.query_params.getlist(name)
        if name not in known or len(values) != 1:
            raise BadRequest("a query parameter is not known here, or is there twice")
        found[name] = values[0]
    return found


def presented_of(request: Request) -> Presented:
    """Return what the caller presents: ``Bearer`` (RFC 6750 section 2.1) or ``DPoP`` (RFC 9449 section 7.1) with its
    proof, for the path that was called. Verifies nothing. Raises Unauthenticated, TokenInvalid, BadRequest."""
    header = _header(request, "authorization")
    if header is None:
        raise Unauthenticated("there is no Authorization header")
    named, _, token = header.partition(" ")
    scheme = _SCHEMES.get(named.lower())
    if scheme is None:
        raise Unauthenticated("the Authorization header is neither Bearer nor DPoP")
    if not _is_one_token(token, MAX_TOKEN):
        raise TokenInvalid("the access token is not one token")
    path = request.path.format(**{name: quote(value, safe="") for name, value in (request.uri_params or {}).items()})
    return Presented(token=token, scheme=scheme, proof=proof_of(request), method=request.method, path=path)


def proof_of(request: Request) -> str:
    """Return the DPoP proof, empty where there is none. Raises BadRequest on several: which one would count?"""
    proof = _header(request, "dpop")
    if proof is None:
        return ""
    if not _is_one_token(proof, MAX_TOKEN):
        raise KeyProofInvalid("the DPoP header is not one proof")
    return proof


def _header(request: Request, name: str) -> str | None:
    """Return the one value of a header. Raises BadRequest where it is there twice: API Gateway hands on the last."""
    several = request.to_original_event().get("multiValueHeaders") or {}
    values = [value for given, listed in several.items() if given.lower() == name for value in listed]
    if len(values) > 1:
        raise BadRequest(f"the header {name} is there twice")
    found: str | None = request.headers.get(name)
    return found


def _is_one_token(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and all("!" <= char <= "~" and char != "," for char in text)
