"""A Countersign API on a real socket, for the command line's tests: it keeps the contract of issue 2, and nothing more.

Two ways to use it. By contract: ``api.grant_after = 2`` makes two polls answer pending before the session is granted.
By script: ``api.answer("GET /v1/targets", status=302, headers={...})`` puts one raw answer first in line for a route.
``api.seen`` holds every request, in order.

    with ApiServer() as api:
        main(["request", "orders-prod"], {"COUNTERSIGN_API": api.url, "COUNTERSIGN_ID_TOKEN": TOKEN})
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

ID_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjaS1ydW5uZXIifQ.c2lnbmF0dXJl"
ACCESS_TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ0b2tlbiJ9.c2lnbmVk"
SESSION = "ses_01j9z3k4m5n6p7q8r9s0t1v2w3"
TXN = "01j9z3k4m5n6p7q8r9s0t1v2w4"
SECRET = "s3cret-of-the-session_0123456789abcdefghij"
CA_PEM = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQUJD\n-----END CERTIFICATE-----\n"
EXPIRES = "2026-11-02T10:30:00.000Z"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(kw_only=True)
class Scripted:
    """One raw answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def connection(**changed: object) -> dict[str, object]:
    """Return a `connect` object as the service sends it, with ``changed`` members."""
    return {
        "protocol": "postgres",
        "host": "127.0.0.1",
        "port": 6432,
        "ca_pem": CA_PEM,
        "user": SESSION,
        "secret": SECRET,
        "database": "orders",
        "env": {"PGHOST": "127.0.0.1", "PGPORT": "6432", "PGUSER": SESSION, "PGDATABASE": "orders"},
        "command": "psql",
    } | changed


class ApiServer:
    """The server. ``grant_after`` polls answer pending first; None: it stays pending. ``refuse`` is an error's
    (status, code, message, hint) for the request itself, ``refuse_later`` for the poll in which it would be granted."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.grant_after: int | None = 0
        self.refuse: tuple[int, str, str, str] | None = None
        self.refuse_later: tuple[int, str, str, str] | None = None
        self.connect: dict[str, object] = connection()
        self.targets: list[dict[str, object]] = []
        self.closed = False
        self._scripted: defaultdict[str, list[Scripted]] = defaultdict(list)
        self._polls = 0
        self._taken = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._pool = ThreadPoolExecutor(max_workers=1)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._pool.submit(self._server.serve_forever, 0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._pool.shutdown()

    def answer(self, route: str, *, status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer the next request of ``route`` (method and path) with exactly this."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._scripted[route].append(Scripted(status=status, headers=dict(headers or {}), body=raw))

    def calls(self, route: str) -> list[Seen]:
        return [seen for seen in self.seen if f"{seen.method} {seen.path}" == route]

    def reply(self, seen: Seen) -> Scripted:
        """Return the contract's answer to ``seen``."""
        route = f"{seen.method} {seen.path}"
        if self._scripted[route]:
            return self._scripted[route].pop(0)
        if route == "POST /v1/token":
            told = {"access_token": ACCESS_TOKEN, "token_type": "Bearer", "expires_in": 300}
            return _json(200, told | {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})
        if seen.headers.get("Authorization") != f"Bearer {ACCESS_TOKEN}":
            return _error(401, "unauthenticated", "no token", "Present a valid token.")
        if route == "POST /v1/sessions":
            return self._opened()
        if route == f"GET /v1/sessions/{SESSION}":
            return self._polled(take=seen.query.get("take") != ["false"])
        if route == f"DELETE /v1/sessions/{SESSION}":
            self.closed = True
            return _json(200, {"session_id": SESSION, "status": "closed"})
        if route == "GET /v1/targets":
            return _json(200, {"targets": self.targets})
        return _error(404, "not_found", "no such thing", "Check the name.")

    def _opened(self) -> Scripted:
        if self.refuse is not None:
            return _error(*self.refuse)
        return self._granted(201) if self.grant_after == 0 else self._pending()

    def _polled(self, *, take: bool) -> Scripted:
        if self.closed:
            return _error(403, "approval_withdrawn", "the request was withdrawn", "Ask again.")
        self._polls += 1
        if self.grant_after is None or self._polls <= self.grant_after:
            return self._pending()
        if self.refuse_later is not None:
            return _error(*self.refuse_later)
        return self._granted(200, with_secret=take)

    def _granted(self, status: int, *, with_secret: bool = True) -> Scripted:
        connect = dict(self.connect)
        if self._taken or not with_secret:
            connect.pop("secret", None)
        self._taken = self._taken or with_secret
        told = {"session_id": SESSION, "status": "granted", "txn": TXN, "expires_at": EXPIRES, "connect": connect}
        return _json(status, told)

    def _pending(self) -> Scripted:
        needs = [{"rule": "prod-orders", "group": "dba", "count": 1, "missing": 1, "hint": "ask the dba on call"}]
        approval = {"id": "ask_01j9z3k4m5n6p7q8r9s0t1v2w5", "needs": needs, "expires_at": EXPIRES}
        poll = f"/v1/sessions/{SESSION}?wait_s=5"
        return _json(202, {"session_id": SESSION, "status": "pending", "approval": approval, "poll": poll})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                parts = urlsplit(self.path)
                seen = Seen(
                    method=self.command,
                    path=parts.path,
                    query=parse_qs(parts.query),
                    headers=dict(self.headers.items()),
                    body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
                )
                answer = api.reply(seen)
                api.seen.append(seen)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
                return

        return Handler


def _json(status: int, value: Mapping[str, object]) -> Scripted:
    return Scripted(status=status, headers={"Content-Type": "application/json"}, body=json.dumps(value).encode())


def _error(status: int, code: str, message: str, hint: str) -> Scripted:
    return _json(status, {"code": code, "message": message, "hint": hint, "request_id": "req-1"})
