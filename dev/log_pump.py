"""What feeds ``watch_targets`` and ``events`` at AWS and not here: the targets' logs and our own, as CloudWatch Logs
subscriptions.

Rules: a log is followed from its beginning, whole line after whole line; only lines with one of the filter's words are
delivered, as a subscription's filter pattern does, since a target logs everything and a refused login is rare. Batches
and lines are bounded as CloudWatch bounds them. What cannot be delivered is tried ``TRIES`` times, then left out with a
word on standard error.
Sources: docs.aws.amazon.com, "Using subscription filters" (event), "CloudWatch Logs quotas" (event size), "Filter
pattern syntax" (``?A ?B``); RFC 3339 time stamps as rsyslog and journald write them.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import StoreUnavailable
from dev.lambdas import Answered
from dev.output import complain

GROUP: Final = "/countersign/targets/"
FUNCTIONS_GROUP: Final = "/aws/lambda/"
BROKER_GROUP: Final = "/countersign/"
AUDITED: Final = ('"audit":',)  # in AWS: '{ $.audit.uid = * }'
BATCH: Final = 100
TRIES: Final = 3
MAX_LINE: Final = 256 * 1024
_READ: Final = 1024 * 1024  # of a log at a time
# How sshd and PostgreSQL begin to say that they let somebody not in. In AWS: '?Failed ?Invalid ?...'.
FILTER: Final = (
    "Failed",
    "Invalid",
    "invalid",
    "not allowed",
    "error:",
    "fatal:",
    "exceeded",
    "authenticating",
    "FATAL",
)


class LogPump:
    """Follows one target's log and gives ``deliver`` what the filter lets through."""

    def __init__(
        self,
        target: str,
        log: Path,
        deliver: Callable[[object], Answered],
        clock: Clock,
        *,
        account: str,
        program: str = "",
        words: Sequence[str] = FILTER,
        group: str = GROUP,
    ) -> None:
        """The log's group is ``group`` and then ``target``, whose log it is. ``program``, such as ``sshd[7]``, is whose
        lines they are where a host's syslog would say so: each gets what syslog puts before it."""
        self._target = target
        self._log = log
        self._deliver = deliver
        self._clock = clock
        self._account = account
        self._program = program
        self._words = tuple(words)
        self._group = f"{group}{target}"
        self._offset = 0
        self._count = 0

    def step(self) -> int:
        """Read what is new and deliver it; return how many lines that was. Raises OSError where it cannot be read."""
        with self._log.open("rb") as log:
            log.seek(self._offset)
            new = log.read(_READ)
        whole = new.rfind(b"\n") + 1 if len(new) < _READ or b"\n" in new else len(new)
        self._offset += whole
        lines = [line[:MAX_LINE].decode(errors="replace") for line in new[:whole].splitlines()]
        for first in range(0, len(lines), BATCH):
            self._give([line for line in lines[first : first + BATCH] if any(word in line for word in self._words)])
        return len(lines)

    def _give(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        event = subscription_event(self._told(lines))
        for _ in range(TRIES):
            try:
                if not self._deliver(event).failed:
                    return
            except StoreUnavailable:
                continue
        complain(f"{len(lines)} lines of {self._target}'s log were left out after {TRIES} tries")

    def _told(self, lines: Sequence[str]) -> Mapping[str, Any]:
        now = self._clock.now()
        before = f"{now:%Y-%m-%dT%H:%M:%S.%f}+00:00 {self._target} {self._program}: " if self._program else ""
        first, self._count = self._count, self._count + len(lines)
        events = [
            {"id": f"{first + place:056d}", "timestamp": int(now.timestamp() * 1000), "message": f"{before}{line}"}
            for place, line in enumerate(lines)
        ]
        return {
            "messageType": "DATA_MESSAGE",
            "owner": self._account,
            "logGroup": self._group,
            "logStream": "local",
            "subscriptionFilters": ["refused-logins"],
            "logEvents": events,
        }


def subscription_event(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the event in which CloudWatch Logs delivers ``told``. Pure."""
    packed = gzip.compress(json.dumps(told, ensure_ascii=False).encode(), mtime=0)
    return {"awslogs": {"data": base64.b64encode(packed).decode()}}
