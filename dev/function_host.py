"""One function of the app in a process of its own, with its role's credentials: ``python -m dev.function_host NAME``.

Rules: one event a line on standard input, one answer a line on the original standard output; whatever the code prints
goes to standard error, the log. The handler is the app's own, looked up in Chalice's handler map and called as Lambda
calls it. An exception is answered as Lambda does (``errorMessage``, ``errorType``) without the stack trace, which
stays in the log.
Source: docs.aws.amazon.com, "Lambda function handler in Python", "AWS Lambda context object in Python".
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from chalicelib.domain.clock import Clock
from dev.settings import SystemClock


@dataclass(kw_only=True)
class Context:
    """What Lambda passes beside the event."""

    function_name: str
    invoked_function_arn: str
    aws_request_id: str
    timeout_s: float
    clock: Clock
    memory_limit_in_mb: int = 512
    function_version: str = "$LATEST"
    log_group_name: str = field(default="/aws/lambda/local")
    log_stream_name: str = "local"

    def __post_init__(self) -> None:
        self._ends = self.clock.monotonic_s() + self.timeout_s

    def get_remaining_time_in_millis(self) -> int:
        return max(0, int((self._ends - self.clock.monotonic_s()) * 1000))


def answer(handler: Any, invocation: dict[str, Any], clock: Clock) -> dict[str, Any]:
    """Return ``{"payload": ...}``, and ``"error": true`` where the handler raised."""
    context = Context(
        function_name=invocation["name"],
        invoked_function_arn=invocation["arn"],
        aws_request_id=invocation["request_id"],
        timeout_s=invocation["timeout_s"],
        clock=clock,
    )
    try:
        return {"payload": json.loads(json.dumps(handler(invocation["event"], context)))}
    except Exception as error:  # noqa: BLE001 - Lambda's own edge: any exception is a function error
        traceback.print_exc()
        return {"payload": {"errorMessage": str(error), "errorType": type(error).__name__}, "error": True}


def serve(handler: Any, events: BinaryIO, answers: BinaryIO, clock: Clock) -> None:
    """Answer events until standard input ends."""
    for line in events:
        answers.write(json.dumps(answer(handler, json.loads(line), clock)).encode() + b"\n")
        answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a print in a handler must not be read as an answer
    name = sys.argv[1]
    handler = importlib.import_module("app").app.handler_map[name]
    answers.write(b'{"ready": true}\n')
    answers.flush()
    serve(handler, sys.stdin.buffer, answers, SystemClock())


if __name__ == "__main__":
    main()
