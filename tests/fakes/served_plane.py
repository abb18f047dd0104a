"""The whole control plane in memory, on a real socket: what the command line's tests speak to where the contract itself
is what is tested.

    with ServedPlane() as plane:
        main(["targets"], {"COUNTERSIGN_API": plane.public_url, ...}, clock=plane.clock)

One request at a time: the app's test client is no server. Time is the plane's own clock, which the command line must be
given too: proofs live a minute.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType
from typing import Any, Self

from tests.fakes.control_plane import ControlPlane


class ServedPlane(ControlPlane):
    """Use it as a context manager."""

    def __init__(self, **options: Any) -> None:
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        super().__init__(public_url=f"http://127.0.0.1:{self._server.server_port}", **options)
        self._pool = ThreadPoolExecutor(max_workers=1)

    def __enter__(self) -> Self:
        self._pool.submit(self._server.serve_forever, 0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._pool.shutdown()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        plane = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", "0")))
                send = getattr(plane.http, self.command.lower())
                answer = send(self.path, headers=headers, **({"body": body} if body else {}))
                self.send_response_only(answer.status_code)
                for name, value in answer.headers.items():
                    for one in value if isinstance(value, list) else [value]:
                        self.send_header(name, one)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
                return

        return Handler
