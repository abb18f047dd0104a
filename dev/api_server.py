"""The Chalice app over HTTP, as ``chalice local`` serves it: ``python -m dev.api_server PORT``.

Rules: loopback only; bodies are bounded as API Gateway bounds them (10 MB) and a silent client is dropped after 29 s,
its integration timeout. It runs the routes alone: streams and schedules are the pump's. Settings and credentials come
from the process's environment.
Source: chalice 1.34, ``chalice.local``; "Amazon API Gateway quotas".
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any, Final

from chalice.config import Config
from chalice.local import ChaliceRequestHandler, create_local_server

MAX_BODY: Final = 10 * 1000 * 1000
SILENT_S: Final = 29
BACKLOG: Final = 128  # the base class lets 5 wait, and a burst of pipelines would be refused where AWS takes it
STAGE: Final = "local"


class Handler(ChaliceRequestHandler):
    """Chalice's own, with the bounds that API Gateway puts in front of it."""

    timeout = SILENT_S

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        length = self.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return self._refuse(400, "Bad Request")
        if int(length) > MAX_BODY:
            return self._refuse(413, "Request Too Long")
        if self.headers.get("transfer-encoding"):
            return self._refuse(411, "Length Required")
        return True

    def _refuse(self, status: int, message: str) -> bool:
        body = json.dumps({"message": message}).encode()
        self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        return False

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        """Requests are the app's to log: a line here would hold query strings."""


def main() -> None:
    server = create_local_server(
        importlib.import_module("app").app, Config(chalice_stage=STAGE), "127.0.0.1", int(sys.argv[1])
    )
    wrapped = server.server.RequestHandlerClass
    server.server.RequestHandlerClass = lambda *given: Handler(*given, **wrapped.keywords)
    server.server.socket.listen(BACKLOG)
    server.server.serve_forever()


if __name__ == "__main__":
    main()
