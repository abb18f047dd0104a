"""One HTTP call for the tests of the stack's servers: what came back, whatever the status."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any


def call(url: str, body: object = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """GET, or POST ``body`` (as JSON where it is not bytes); return the status and the JSON, else the text."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, _read(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _read(error.read())


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()
