"""Lambda functions with roles of their own, called and waited for.

The answer is ``{"ok": {...}}`` or ``{"refused": {"code", "public", "hint"}}``; anything else, a crash above all, is
StoreUnavailable: what a function of ours did not say, it did not do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from chalicelib.domain.canonical import Json, canonical
from chalicelib.domain.errors import StoreUnavailable, refused
from chalicelib.store.clients import Clients, calling


class LambdaFunctions:
    """Implements ``domain.store.Functions``. A function's full name is ``prefix`` and the name it is called by."""

    def __init__(self, clients: Clients, prefix: str) -> None:
        self._clients = clients
        self._prefix = prefix

    def invoke(self, name: str, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        with calling("lambda"):
            answer = self._clients.functions().invoke(
                FunctionName=f"{self._prefix}{name}", InvocationType="RequestResponse", Payload=canonical(payload)
            )
            body = answer["Payload"].read()
        if answer.get("FunctionError"):
            # The body holds the exception and its stack, which may quote what was sent: it stays in the function's log.
            raise StoreUnavailable("a function failed", function=name, error=str(answer["FunctionError"]))
        told = _object(body, name)
        if "ok" in told and isinstance(told["ok"], dict):
            return told["ok"]
        if "refused" in told and isinstance(told["refused"], dict):
            raise refused(told["refused"])
        raise StoreUnavailable("a function answered in a way that is not known", function=name)


def _object(body: bytes, name: str) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise StoreUnavailable("a function answered in a way that is not known", function=name)
    return told
