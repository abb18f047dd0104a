"""A small HTTP server on 127.0.0.1 for the stack's stand-ins: bytes to Request, Response to bytes, nothing else.

Rules: loopback only; a body is at most 1 MiB, a silent client is dropped after 30 s. A browser page of another origin
may reach any loopback port of its visitor, so a request whose ``Host`` is not ours (DNS rebinding) or whose ``Origin``
is another's (cross-site request) is refused; clients that are not browsers send no Origin. It does not do TLS, keep
sessions or serve files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

from dev.output import complain
from dev.processes import background

MAX_BODY: Final = 1024 * 1024  # a card is at most 50 blocks of 3,000 characters; a stream batch stays far below too
SILENT_S: Final = 30.0
STOP_S: Final = 0.05  # how soon a stop is seen; the base class looks twice a second, which a test suite feels


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request. Header names are in lower case; ``target`` is the path and query as sent."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    def json_object(self) -> dict[str, Any]:
        """Return the body as a JSON object. Raises ValueError on anything else."""
        found = json.loads(self.body or b"{}")
        if not isinstance(found, dict):
            raise ValueError("the body is not a JSON object")  # noqa: TRY004 - the client's mistake, not a caller's
        return found

    def form(self) -> dict[str, str]:
        """Return the body as form fields, the last of each name."""
        return {name: values[-1] for name, values in parse_qs(self.body.decode(), keep_blank_values=True).items()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


Answerer: TypeAlias = Callable[[Request], Response]


def as_json(value: object, status: int = 200) -> Response:
    return Response(status=status, body=json.dumps(value, ensure_ascii=False).encode())


class LoopbackServer:
    """Serves ``answer`` on 127.0.0.1 from :meth:`start` to :meth:`stop`. ``answer`` is called in threads of its own; a
    ValueError from it is the client's mistake (400), any other exception a 500 whose text stays here."""

    def __init__(self, name: str, answer: Answerer, *, port: int = 0) -> None:
        handler: type[_Handler] = type("Handler", (_Handler,), {"answer": staticmethod(answer), "name": name})
        self._server = _Server(("127.0.0.1", port), handler)
        handler.own_port = self.port
        self._name = name
        self._started = False

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._started = True
        background(f"serve {self._name}", lambda: self._server.serve_forever(poll_interval=STOP_S))

    def stop(self) -> None:
        if self._started:  # the base class would wait for ever for a loop that never ran
            self._server.shutdown()
            self._started = False
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is not news; what our own code raised was answered and logged by the handler."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "countersign-dev"
    sys_version = ""
    timeout = SILENT_S
    answer: Answerer
    name: str
    own_port: int

    def _serve(self) -> None:
        response = self._refused() or self._answered()
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def _refused(self) -> Response | None:
        ours = {f"127.0.0.1:{self.own_port}", f"localhost:{self.own_port}"}
        if self.headers.get("Host", "").lower() not in ours:
            return self._closing(HTTPStatus.MISDIRECTED_REQUEST, "the Host header names another server")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in ours}:
            return self._closing(HTTPStatus.FORBIDDEN, "a page of another origin may not do this")
        if self.headers.get("Transfer-Encoding"):
            return self._closing(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            return self._closing(HTTPStatus.BAD_REQUEST, "the Content-Length is not a number")
        if int(length) > MAX_BODY:
            return self._closing(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BODY} bytes")
        return None

    def _closing(self, status: HTTPStatus, why: str) -> Response:
        """Refuse without having read the body: the connection cannot be used again."""
        self.close_connection = True
        return as_json({"error": why}, status)

    def _answered(self) -> Response:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(method=self.command, target=self.path, headers=headers, body=body)
        try:
            return self.answer(request)
        except ValueError as error:
            return as_json({"error": str(error)}, HTTPStatus.BAD_REQUEST)
        except Exception as error:  # noqa: BLE001 - the server's edge: whatever it was, the client gets an answer
            complain(f"{self.name}: {self.path} failed: {error!r}")
            return as_json({"error": "internal"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve  # noqa: N815 - the base class looks for these names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's own name
        """Requests are not logged, since the stand-ins carry tokens in them; nor is a client that went silent."""
