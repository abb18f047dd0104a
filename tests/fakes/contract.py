"""Holds every answer of the app to its own OpenAPI document: status, content type, headers, and the body's schema.

What is written in the document and what is answered are made by different code; this compares them for every request
that a test makes, whatever the test is about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import jsonschema_rs
from chalice.test import HTTPResponse

from chalicelib.api.openapi import document


class Http(Protocol):
    """Chalice's test client."""

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> HTTPResponse: ...

    def get(self, path: str, **given: Any) -> HTTPResponse: ...

    def post(self, path: str, **given: Any) -> HTTPResponse: ...

    def delete(self, path: str, **given: Any) -> HTTPResponse: ...


def held_to_contract(http: Any) -> Http:
    """Return Chalice's test client, each of whose answers is compared with the document before it is given."""
    plain = http.request

    def request(method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> HTTPResponse:
        answer: HTTPResponse = plain(method, path, headers=headers, body=body)
        check(method, path, answer.status_code, answer.headers, answer.body)
        return answer

    http.request = request
    held: Http = http
    return held


def check(method: str, path: str, status: int, headers: Mapping[str, Any], body: bytes) -> None:
    """Raise AssertionError where the answer is none that the document has for that method and path. What no route
    takes is not ours to answer."""
    operation = _operations().get((method, _template(path.partition("?")[0])))
    if operation is None:
        return
    response = operation["responses"].get(str(status))
    assert response is not None, f"{method} {path}: {status} is not in the document: {body[:300]!r}"
    given = {name.lower(): value for name, value in headers.items()}
    media = str(given["content-type"]).partition(";")[0]
    assert media in response["content"], f"{method} {path}: {status} is not {media} by the document"
    for name, header in response.get("headers", {}).items():
        assert name.lower() in given or not header["required"], f"{method} {path}: {status} lacks {name}"
    value = json.loads(body) if media == "application/json" else body.decode()
    errors = [error.message for error in _validator(method, _template(path.partition("?")[0]), status, media)(value)]
    assert not errors, f"{method} {path}: {status}: {errors}"


@lru_cache(1)
def _operations() -> Mapping[tuple[str, str], Any]:
    paths = json.loads(json.dumps(document()["paths"]))
    return {(method.upper(), path): operation for path, item in paths.items() for method, operation in item.items()}


def _template(path: str) -> str:
    for template in document()["paths"]:
        if re.fullmatch(re.sub(r"{[a-z_]+}", "[^/]+", template.replace(".", r"\.")), path):
            return str(template)
    return path


@lru_cache(256)
def _validator(method: str, template: str, status: int, media: str) -> Any:
    schema = _operations()[method, template]["responses"][str(status)]["content"][media]["schema"]
    whole = {**schema, "components": json.loads(json.dumps(document()["components"]))}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True).iter_errors
