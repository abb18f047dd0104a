"""Lambda's Invoke API on loopback, in front of the app's functions, each in a process under its own role.

Rules: only a caller whose signature verifies and whose policy allows it is served (``invocation``); a function runs
one event at a time and, like Lambda, has a timeout after which its process is replaced; a crash is answered with
``X-Amz-Function-Error``, never with the stack. At most ``QUEUED`` calls wait for one function: the rest are throttled
(429).
Source: docs.aws.amazon.com, API reference of AWS Lambda, "Invoke".
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.errors import AccessError, Denied, StoreUnavailable, Unauthenticated
from dev.invocation import DESCRIBE, INVOKE, Callers
from dev.loopback import LoopbackServer, Request, Response, as_json
from dev.processes import Child, background
from dev.settings import ROOT

FUNCTION_TIMEOUT_S: Final = 30.0  # the longest of ours at AWS is 30 s too
COLD_START_S: Final = 30.0  # importing the app takes 0.6 s alone, and some seconds while the whole stack starts
QUEUED: Final = 32
_PATH: Final = re.compile(r"/2015-03-31/functions/([A-Za-z0-9_:-]{1,140})/(invocations|configuration)\Z")
_METHODS: Final = {"invocations": "POST", "configuration": "GET"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """What a function gave back: JSON, and whether it is an error of the function."""

    payload: Any
    failed: bool


class Function:
    """One function's process; thread-safe. With ``early`` it starts at once, so that its cold start runs beside the
    others'; else at its first call."""

    def __init__(self, name: str, arn: str, start: Callable[[], Child], *, early: bool = True) -> None:
        self.name = name
        self.arn = arn
        self.invoked = 0  # how often; what costs are reckoned from
        self._start = start
        self._one_at_a_time = threading.Lock()
        self._waiting = threading.Semaphore(QUEUED)
        self._child: Child | None = start() if early else None
        self._ready = False

    def invoke(self, event: object) -> Answered:
        """Run one event. Raises StoreUnavailable where the queue is full; a crash or timeout is a failed answer."""
        if not self._waiting.acquire(blocking=False):
            raise StoreUnavailable(f"too many calls wait for {self.name}")
        try:
            with self._one_at_a_time:
                self.invoked += 1
                return self._run(event)
        finally:
            self._waiting.release()

    def warm(self) -> None:
        """Wait for the cold start. Raises StoreUnavailable with the log's end."""
        with self._one_at_a_time:
            if self._child is not None and not self._warmed(self._child):
                raise StoreUnavailable(f"{self.name} did not start:\n{self._child.log_tail()}")

    def _run(self, event: object) -> Answered:
        child = self._child = self._child or self._start()
        if not self._warmed(child):
            tail = child.log_tail()
            self.stop()
            return _failed("Runtime.ExitError", f"{self.name} did not start: {tail[-300:]}")
        invocation = {
            "name": self.name,
            "arn": self.arn,
            "request_id": str(uuid.uuid4()),
            "timeout_s": FUNCTION_TIMEOUT_S,
            "event": event,
        }
        found = _exchange(child, json.dumps(invocation).encode() + b"\n", FUNCTION_TIMEOUT_S)
        if found is None:
            self.stop()
            return _failed("Sandbox.Timedout", f"{self.name} crashed, or took more than {FUNCTION_TIMEOUT_S:.0f} s")
        return Answered(payload=found["payload"], failed=bool(found.get("error")))

    def _warmed(self, child: Child) -> bool:
        if not self._ready:
            self._ready = _exchange(child, b"", COLD_START_S) is not None
        return self._ready

    def stop(self) -> None:
        """End the process; the next call starts a new one. Stopping twice does nothing."""
        child, self._child, self._ready = self._child, None, False
        if child is not None:
            child.stop(grace_s=1.0)


class Lambdas:
    """The API and the functions behind it, by full name."""

    def __init__(self, functions: Mapping[str, Function], callers: Callers, *, port: int = 0) -> None:
        self._functions = dict(functions)
        self._callers = callers
        self._server = LoopbackServer("lambda", self.answer, port=port)

    @property
    def url(self) -> str:
        return self._server.url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        for function in self._functions.values():
            function.stop()

    def answer(self, request: Request) -> Response:
        found = _PATH.match(request.path)
        if found is None or request.method != _METHODS[found[2]]:
            return _refused(
                404, "ResourceNotFoundException", "only Invoke and GetFunctionConfiguration are served here"
            )
        function = self._functions.get(found[1].rpartition(":")[2])
        described = found[2] == "configuration"
        try:
            # What does not exist is found missing by whoever may ask for it, so that its name alone is checked.
            arn = function.arn if function else self._absent(found[1]) if described else "unknown"
            self._callers.check(request, arn, DESCRIBE if described else INVOKE)
            if function is None:
                return _refused(404, "ResourceNotFoundException", f"Function not found: {found[1]}")
            return _described(function) if described else self._invoke(function, request)
        except Unauthenticated as error:
            return _refused(403, "InvalidSignatureException", error.public)
        except Denied as error:
            return _refused(403, "AccessDeniedException", error.public)
        except AccessError as error:
            return _refused(429, "TooManyRequestsException", error.public)

    def _absent(self, name: str) -> str:
        there = next(iter(self._functions.values()), None)
        return "unknown" if there is None else f"{there.arn.rpartition(':')[0]}:{name.rpartition(':')[2]}"

    def _invoke(self, function: Function, request: Request) -> Response:
        event = json.loads(request.body or b"{}")
        match request.headers.get("x-amz-invocation-type", "RequestResponse"):
            case "DryRun":
                return Response(status=204)
            case "Event":
                background(f"event for {function.name}", lambda: function.invoke(event))
                return Response(status=202)
        answered = function.invoke(event)
        failed = {"X-Amz-Function-Error": "Unhandled"} if answered.failed else {}
        return Response(
            body=json.dumps(answered.payload).encode(), headers={"X-Amz-Executed-Version": "$LATEST", **failed}
        )


def _exchange(child: Child, line: bytes, within_s: float) -> dict[str, Any] | None:
    """Write ``line`` and return the next answer; None where the process died or was too slow, and is dead now."""
    too_late = threading.Timer(within_s, child.kill)
    too_late.daemon = True
    too_late.start()
    try:
        child.stdin.write(line)
        child.stdin.flush()
        answer = child.stdout.readline()
        return json.loads(answer) if answer else None
    except (OSError, ValueError):
        return None
    finally:
        too_late.cancel()


def _described(function: Function) -> Response:
    """What GetFunctionConfiguration says, as far as it is of use here: at AWS the hash is of the uploaded package."""
    told = {"FunctionName": function.arn.rpartition(":")[2], "FunctionArn": function.arn, "CodeSha256": _code_sha256()}
    return as_json(told)


@lru_cache(1)
def _code_sha256() -> str:
    """Return the hash of what the functions run, in base64: of their files here, since there is no package."""
    hashed = hashlib.sha256()
    for file in (ROOT / "app.py", *sorted((ROOT / "chalicelib").rglob("*.py"))):
        hashed.update(f"{file.relative_to(ROOT)}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    return base64.b64encode(hashed.digest()).decode()


def host_command(name: str) -> list[str]:
    """Return the command of a function's process."""
    return [sys.executable, "-m", "dev.function_host", name]


def start_host(name: str, *, environment: Mapping[str, str], log: Path, cwd: Path = ROOT) -> Child:
    """Start the process of the function ``name`` of the app in ``cwd``."""
    return Child(f"function {name}", host_command(name), environment=environment, log=log, pipes=True, cwd=cwd)


def _failed(kind: str, why: str) -> Answered:
    return Answered(payload={"errorType": kind, "errorMessage": why}, failed=True)


def _refused(status: int, kind: str, why: str) -> Response:
    body = as_json({"Type": "User", "message": why}, status).body
    return Response(status=status, body=body, headers={"X-Amzn-ErrorType": kind})
