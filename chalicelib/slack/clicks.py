"""Requests from Slack: a click is handed to the ``decide`` function as it came, and its answer told to who clicked.

Rules: Slack's signature is checked before anything is parsed; ``decide`` checks it again, so this edge decides nothing.
Only the two signature headers are passed on (``x-slack-bolt-*`` would steer Bolt's own dispatch). The answer is
acknowledged within the same call and nothing runs after it, since a Lambda is frozen then. Bolt's own logger is kept
quiet: at lower levels it writes whole bodies.

Source: https://docs.slack.dev/interactivity/handling-user-interaction (3 seconds, response_url).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from slack_bolt import Ack, App, BoltRequest
from slack_bolt.authorization import AuthorizeResult
from slack_sdk.errors import SlackClientError
from slack_sdk.webhook import WebhookClient

from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import AccessError, BadRequest, Unauthenticated
from chalicelib.domain.store import Functions
from chalicelib.services.card import APPROVE, APPROVE_ON_PAGE, DENY
from chalicelib.services.decide import SlackRequest

_RESPOND_TIMEOUT_S: Final = 2  # Slack wants our answer within 3 s, and ``decide`` has run already
# The API's role holds no bot token: cards are posted by another function. Bolt wants a word in its place.
_NO_TOKEN: Final = "not-held-here"

_log = logging.getLogger(__name__)
_bolt_log = logging.getLogger("countersign.bolt")
_bolt_log.setLevel(logging.CRITICAL)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlackAnswer:
    """What Slack gets back."""

    status: int
    body: str


class Clicks:
    """Handles what Slack sends. Thread-safe."""

    def __init__(self, *, verify: Callable[[SlackRequest], bool], functions: Functions) -> None:
        self._verify = verify
        self._functions = functions
        self._bolt = App(
            logger=_bolt_log,
            process_before_response=True,
            authorize=_authorize,
            # The signature is checked by us before Bolt sees a byte, with a clock that is passed in.
            request_verification_enabled=False,
            ssl_check_enabled=False,
            url_verification_enabled=False,
        )
        for action in (APPROVE, DENY):
            self._bolt.action(action)(self._clicked)
        self._bolt.action(APPROVE_ON_PAGE)(_followed)

    def handle(self, body: str, headers: Mapping[str, str]) -> SlackAnswer:
        """Return the answer to a request; ``headers`` by lower-case name. Raises Unauthenticated, StoreUnavailable."""
        request = SlackRequest(
            body=body,
            timestamp=headers.get("x-slack-request-timestamp", ""),
            signature=headers.get("x-slack-signature", ""),
        )
        if not self._verify(request):
            raise Unauthenticated("this request is not signed by Slack, or it is too old")
        signed: dict[str, str | Sequence[str]] = {
            "content-type": "application/x-www-form-urlencoded",
            "x-slack-request-timestamp": request.timestamp,
            "x-slack-signature": request.signature,
        }
        try:
            answer = self._bolt.dispatch(BoltRequest(body=body, headers=signed))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            # Bolt reads a payload as if Slack alone could send one; what breaks it is no click of ours.
            raise BadRequest("this is not a request that Slack's interactivity sends") from error
        return SlackAnswer(status=answer.status, body=answer.body if answer.status == 200 else "")

    def _clicked(self, ack: Ack, req: BoltRequest, body: Mapping[str, Any]) -> None:
        payload: Mapping[str, Json] = {
            "body": req.raw_body,
            "timestamp": req.headers["x-slack-request-timestamp"][0],
            "signature": req.headers["x-slack-signature"][0],
        }
        try:
            text = str(self._functions.invoke("decide", payload).get("text", ""))
        except AccessError as error:
            text = f"Not counted ({error.code}): {error.public}. {error.next_step}"
        ack()
        _tell(body.get("response_url"), text)


def _followed(ack: Ack) -> None:
    """Slack tells that a link was followed, and warns the person where nobody takes note. It is no answer."""
    ack()


def _authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult:
    """Answer Bolt's question without a call to Slack: who may click is ``decide``'s to say."""
    return AuthorizeResult(
        enterprise_id=enterprise_id, team_id=team_id, bot_token=_NO_TOKEN, bot_id="B", bot_user_id="U"
    )


def _tell(response_url: object, text: str) -> None:
    """Tell the person, and nobody else. What was decided stands whether or not they could be told."""
    if not isinstance(response_url, str) or not _may_be_told(response_url):
        _log.warning("a click has no address to answer to")
        return
    try:
        WebhookClient(response_url, timeout=_RESPOND_TIMEOUT_S, retry_handlers=[]).send(
            text=text, response_type="ephemeral", replace_original=False
        )
    except (SlackClientError, OSError, ValueError) as error:
        _log.warning("a person could not be told: %s", type(error).__name__)


def _may_be_told(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return True
    try:
        return parts.scheme == "http" and ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.scheme == "http" and parts.hostname == "localhost"
