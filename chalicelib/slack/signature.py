"""Slack's signature over a request: version ``v0``, HMAC-SHA256 over time and raw body, good for 300 seconds.

Used twice for each click: at the edge, so that nothing unsigned goes on, and in ``decide``, which believes no edge.
Source: https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Final

from slack_sdk.signature import Clock as SlackClock
from slack_sdk.signature import SignatureVerifier

from chalicelib.domain.clock import Clock
from chalicelib.domain.secret import Secret
from chalicelib.services.decide import SlackRequest

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}\Z")  # the verifier calls int(): other digits and signs must not reach it
_SIGNATURE: Final = re.compile(r"v0=[0-9a-f]{64}\Z")


class _OurClock(SlackClock):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now().timestamp()


class SlackSignature:
    """Verifies requests. ``secret`` is read at the first one and kept for the process. Thread-safe."""

    def __init__(self, secret: Callable[[], Secret], clock: Clock) -> None:
        self._secret = secret
        self._clock = clock
        self._lock = threading.Lock()
        self._verifier: SignatureVerifier | None = None

    def __call__(self, request: SlackRequest) -> bool:
        """Return whether the request is Slack's and at most 300 s old. Raises StoreUnavailable, NotFound."""
        if not _TIMESTAMP.match(request.timestamp) or not _SIGNATURE.match(request.signature):
            return False
        return self._verifying().is_valid(request.body, request.timestamp, request.signature)

    def _verifying(self) -> SignatureVerifier:
        with self._lock:
            if self._verifier is None:
                self._verifier = SignatureVerifier(self._secret().expose(), _OurClock(self._clock))
            return self._verifier
