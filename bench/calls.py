"""The AWS calls of a running stack, by who makes them: a relay between its parts and the emulator that reads requests.

Rules: bytes pass unchanged, so that signatures hold; a call is named by its sender's access key, service, operation and
what it is on (a table, a prefix of the bucket, a key's alias), and sized by its body, which is what DynamoDB and S3
charge by. What a client sends again after no answer is not counted: that is this machine's weather. It does not see
what AWS does by itself (reading streams, delivering logs), nor Invoke, which the stack's own ``Function`` counts.
Source: docs.aws.amazon.com, "Signature Version 4" (where a request names key, region and service).
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from dev.processes import background

READ_BYTES: Final = 64 * 1024
LOOK_S: Final = 0.1  # how soon an idle connection sees the end
_CREDENTIAL: Final = re.compile(r"Credential=([^/]+)/\d{8}/[^/]+/([a-z0-9-]+)/aws4_request")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HEAD_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request to AWS. ``size`` is its body's, in bytes; ``keys`` is how many rows a batch names, else 1."""

    access_key: str
    service: str
    operation: str
    on: str
    size: int
    keys: int


class Counter:
    """Relays what the parts of a stack send; :meth:`between` is a stack's option, :meth:`taken` gives what came."""

    def __init__(self) -> None:
        self._heard: list[Call] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._upstream: tuple[str, int] = ("", 0)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listening.settimeout(LOOK_S)

    def between(self, url: str) -> str:
        """Relay to ``url`` from now on, and return the URL that the parts are to use instead."""
        to = urlsplit(url)
        self._upstream = (to.hostname or "", to.port or 0)
        background("count calls", self._accept)
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def taken(self) -> list[Call]:
        """Return the calls since the last time."""
        with self._lock:
            heard, self._heard = self._heard, []
        return heard

    def stop(self) -> None:
        self._stopped.set()
        self._listening.close()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                client = self._listening.accept()[0]
            except TimeoutError:
                continue
            except OSError:
                return
            background("count a connection", partial(self._relay, client))

    def _relay(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._upstream, timeout=5)
        except OSError:
            client.close()
            return
        requests = Requests(self._note)
        background("answers", partial(self._pass_on, server, client, lambda _piece: None))
        self._pass_on(client, server, requests.take)

    def _pass_on(self, source: socket.socket, sink: socket.socket, look: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            source.settimeout(LOOK_S)  # the other way may have closed it before this one began
            while not self._stopped.is_set():
                try:
                    piece = source.recv(READ_BYTES)
                except TimeoutError:
                    continue
                if not piece:
                    break
                look(piece)
                sink.sendall(piece)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _note(self, call: Call) -> None:
        with self._lock:
            self._heard.append(call)


class Requests:
    """The requests of one HTTP/1.1 connection, read from its bytes as they come."""

    def __init__(self, note: Callable[[Call], None]) -> None:
        self._note = note
        self._rest = b""

    def take(self, piece: bytes) -> None:
        """Tell of each request that is whole by now."""
        self._rest += piece
        for head, body in iter(self._next, None):
            if _header(head, "amz-sdk-request").partition(";")[0] in ("", "attempt=1"):
                self._note(call_of(head, body))

    def _next(self) -> tuple[str, bytes] | None:
        head, found, rest = self._rest.partition(_HEAD_END)
        if not found:
            return None
        text = head.decode("latin-1")
        length = int(_header(text, "content-length") or 0)
        if len(rest) < length:
            return None
        self._rest = rest[length:]
        return text, rest[:length]


def call_of(head: str, body: bytes) -> Call:
    """Return what a request asks of AWS. Raises ValueError on one that is not signed. Pure."""
    signed = _CREDENTIAL.search(_header(head, "authorization"))
    if signed is None:
        raise ValueError("a request that is not signed")
    service = signed[2]
    method, target = head.split(" ", 2)[:2]
    named = _header(head, "x-amz-target").rpartition(".")[2]
    told: dict[str, Any] = json.loads(body or b"{}") if named else {}
    if service == "s3":
        operation, on = _of_bucket(method, target)
    elif named:
        operation, on = named, _resource(told)
    else:
        operation, on = parse_qs(body.decode()).get("Action", [method])[0], ""
    keys = sum(len(one["Keys"]) for one in told.get("RequestItems", {}).values() if "Keys" in one)
    return Call(access_key=signed[1], service=service, operation=operation, on=on, size=len(body), keys=keys or 1)


def _of_bucket(method: str, target: str) -> tuple[str, str]:
    """Return the operation, with what is asked of the object, and the first part of its key."""
    at = urlsplit(target)
    _bucket, _, key = at.path.lstrip("/").partition("/")
    query = parse_qs(at.query, keep_blank_values=True)
    about = next((name for name in ("object-lock", "retention", "legal-hold", "tagging") if name in query), "")
    if not key:
        return ("list" if not about else f"{method} {about}"), query.get("prefix", [""])[0].partition("/")[0]
    return f"{method} {about}".strip(), key.partition("/")[0]


def _resource(body: dict[str, Any]) -> str:
    """Return the name of the table, key or secret that a JSON request is on."""
    if "RequestItems" in body:
        return ",".join(sorted(_last(name) for name in body["RequestItems"]))
    if "TransactItems" in body:
        return ",".join(_last(name) for name in _tables(body["TransactItems"]))
    named = body.get("TableName") or body.get("KeyId") or body.get("SecretId") or ""
    return _last(str(named)) + (f" by {body['IndexName']}" if "IndexName" in body else "")


def _tables(items: list[dict[str, Any]]) -> Iterator[str]:
    for item in items:
        yield from (str(one["TableName"]) for one in item.values())


def _last(name: str) -> str:
    """Return a name without the deployment's own in front of it."""
    if _UUID.fullmatch(name):
        return "key"  # a key by its id, of which each deployment has another
    return re.sub(r"\A(?:arn:[^/]*/|alias/)?(?:countersign-[a-z0-9]+[-/])?", "", name)


def _header(head: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(.*?)\s*$", head, re.IGNORECASE | re.MULTILINE)
    return found[1] if found else ""
