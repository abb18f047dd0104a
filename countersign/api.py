"""The HTTP client: one request at a time, everything bounded, and refusals turned into Failures.

Rules: no redirect is followed (a redirect would take the token elsewhere); no proxy for loopback; a response has
at most ``MAX_BODY`` bytes and ``DEADLINE_S`` seconds whatever rate it drips at; 429 and 503 are tried again after
``Retry-After``, and a lost connection only where repeating is harmless; both within ``RETRY_BUDGET_S``. Certificates
are always verified, by the system's roots or ``SSL_CERT_FILE``.

What it does not do: know what an answer means (``sessions``), or print.
Source: RFC 9110 sections 10.2.3 (Retry-After), 15.4 (redirects); the contract in ``docs/http_api.md``.
"""

from __future__ import annotations

import http.client
import json
import random
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, NoReturn, Protocol

from chalicelib.domain.secret import Secret
from countersign.address import Address
from countersign.failures import Exit, Failure, exit_of

MAX_BODY: Final = 1 << 20  # the largest honest answer (a listing of targets) is far below; a larger one is an attack
DEADLINE_S: Final = 25.0  # API Gateway itself gives up after 29 s; our longest call waits 5 s at the service
_SOCKET_S: Final = 10.0  # silence on one read or connect
RETRY_BUDGET_S: Final = 60.0
_MOST_TRIES: Final = 6
_CLOCK_OFF_S: Final = 30.0  # the service takes proofs of the last 60 s: half of that is no network delay
_CHUNK: Final = 64 * 1024
_AGENT: Final = "countersign-cli/1"


class Clock(Protocol):
    """Time and waiting, as ``settings.SystemClock`` gives them."""

    def now(self) -> datetime: ...

    def monotonic_s(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class Presented(Protocol):
    """What a request presents of who sends it. Asked at each sending: a proof counts once, so a retry has another."""

    def headers(self, method: str, url: str) -> Mapping[str, str]: ...


class Bearer:
    """A token that whoever holds it may use: only for the CI's own runner, never for a token of ours."""

    def __init__(self, token: Secret) -> None:
        self._token = token

    def headers(self, _method: str, _url: str) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self._token.expose()}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """A response that is JSON: its status, its object, and in how many seconds the service wants to be asked again (0:
    it did not say)."""

    status: int
    body: Mapping[str, object]
    retry_after_s: float


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None  # urllib then raises the 3xx as an HTTPError, which no caller of ours takes for an answer


class HttpClient:
    """Speaks to one service. Not thread-safe; holds no token: each call is given the one that it may use."""

    def __init__(self, address: Address, clock: Clock, *, budget_s: float = RETRY_BUDGET_S) -> None:
        self.address = address
        self._clock = clock
        self._budget_s = budget_s
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if address.loopback:
            handlers.append(urllib.request.ProxyHandler({}))
        else:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
        self._opener = urllib.request.build_opener(*handlers)

    def call(
        self,
        method: str,
        url: str,
        *,
        presented: Presented | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool,
    ) -> Response:
        """Send and return the answer of a success (2xx). Raises Failure otherwise: the service's own refusal, or
        unreachable. ``repeatable``: a repeat changes nothing more than the first did."""
        sent = {"Accept": "application/json", "User-Agent": _AGENT, **(headers or {})}
        started = self._clock.monotonic_s()
        for attempt in range(_MOST_TRIES):
            wait_s, failure = 0.0, Failure(Exit.UNREACHABLE, "")
            if presented is not None:
                sent |= presented.headers(method, url)
            try:
                return self._once(urllib.request.Request(url, body, sent, method=method))  # noqa: S310 - Address checked it
            except _Busy as busy:
                wait_s, failure = busy.retry_after_s, busy.failure
            except (OSError, http.client.HTTPException) as error:
                failure = self._unreachable(error)
                if not (repeatable or _never_sent(error)):
                    raise failure from error
                wait_s = 0.5 * 2**attempt * random.uniform(0.5, 1)  # noqa: S311 - jitter, so that a crowd spreads
            if self._clock.monotonic_s() - started + wait_s > self._budget_s:
                raise failure
            self._clock.sleep(wait_s)
        raise failure

    def _once(self, request: urllib.request.Request) -> Response:
        try:
            with self._opener.open(request, timeout=_SOCKET_S) as response:
                body = _object(self._read(response), response.status)
                told = _seconds(response.headers.get("Retry-After", ""))
                return Response(status=response.status, body=body, retry_after_s=told)
        except urllib.error.HTTPError as error:
            with error:
                data = self._read(error)
            try:
                _refuse(error.code, data, error.headers.get("Retry-After", ""))
            except Failure as failure:
                if failure.code == "invalid_dpop_proof":
                    failure.hint = self._clock_hint(error.headers.get("Date", "")) or failure.hint
                raise

    def _clock_hint(self, date: str) -> str:
        """Return what to do where it is this machine's clock that makes our proofs wrong (RFC 9449 section 11.1)."""
        try:
            there = parsedate_to_datetime(date)
            off_s = (self._clock.now() - there).total_seconds()
        except (TypeError, ValueError):
            return ""
        if abs(off_s) < _CLOCK_OFF_S:
            return ""
        where = "ahead of" if off_s > 0 else "behind"
        return f"This machine's clock is {abs(off_s):.0f} s {where} the service's: set it."

    def _read(self, response: http.client.HTTPResponse | urllib.error.HTTPError) -> bytes:
        """Return the body, within the bounds: a peer that drips a byte now and then ends at the deadline too."""
        until = self._clock.monotonic_s() + DEADLINE_S
        parts: list[bytes] = []
        size = 0
        while chunk := response.read1(_CHUNK):
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_BODY:
                raise Failure(Exit.UNREACHABLE, f"the service answered with more than {MAX_BODY} bytes")
            if self._clock.monotonic_s() > until:
                raise Failure(Exit.UNREACHABLE, f"the service took more than {DEADLINE_S:.0f} s to send its answer")
        return b"".join(parts)

    def _unreachable(self, error: Exception) -> Failure:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return Failure(
                Exit.UNREACHABLE,
                f"the certificate of {self.address.origin} is not trusted: {reason.verify_message}",
                hint="Set SSL_CERT_FILE to the authority that signed it; it is never accepted unverified.",
            )
        return Failure(
            Exit.UNREACHABLE,
            f"{self.address.origin} cannot be reached: {_said(reason)}",
            hint="Check COUNTERSIGN_API and the network; nothing was granted.",
        )


def _said(reason: object) -> str:
    """Return the system's words without its number ("Connection refused")."""
    return reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)


class _Busy(Exception):
    """The service said not now (429, 503)."""

    def __init__(self, retry_after_s: float, failure: Failure) -> None:
        super().__init__(failure.message)
        self.retry_after_s = retry_after_s
        self.failure = failure


def _never_sent(error: Exception) -> bool:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, ConnectionRefusedError)


def _object(data: bytes, status: int) -> Mapping[str, object]:
    """Return the JSON object in ``data``; an empty 204 is an empty one. Raises Failure on anything else."""
    if not data and status == 204:
        return {}
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Failure(
            Exit.UNREACHABLE, "what answered is not Countersign: no JSON", hint="Check COUNTERSIGN_API."
        ) from error
    if not isinstance(value, dict):
        raise Failure(Exit.UNREACHABLE, "what answered is not Countersign: no JSON object")
    return value


def _refuse(status: int, data: bytes, retry_after: str) -> NoReturn:
    """Raise what an answer other than 2xx means. Our own error shape, RFC 6749's, and API Gateway's ``message``."""
    if 300 <= status < 400:
        raise Failure(
            Exit.UNREACHABLE,
            f"the service answered with a redirect ({status}), which is never followed",
            hint="Set COUNTERSIGN_API to the service's final address.",
        )
    try:
        told = _object(data, status)
    except Failure:
        told = {}
    code = text_of(told, "code") or text_of(told, "error")
    message = text_of(told, "message") or text_of(told, "error_description") or text_of(told, "error")
    failure = Failure(
        exit_of(code, status),
        message or f"the service answered {status} and no reason",
        hint=text_of(told, "hint"),
        code=code,
        request_id=text_of(told, "request_id"),
    )
    if status in {429, 503}:
        raise _Busy(max(_seconds(retry_after), 1.0), failure)
    raise failure


def _seconds(text: str) -> float:
    """Return a Retry-After in seconds, 0 for a date or nonsense. Nine digits already pass every budget of ours."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0


def text_of(value: Mapping[str, object], name: str) -> str:
    """Return the member ``name`` if it is text, else an empty one. Pure."""
    found = value.get(name)
    return found if isinstance(found, str) else ""
