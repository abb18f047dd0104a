"""Cards in Slack, by its Web API. Implements ``services.post_cards.CardPoster``.

Rule: one try, bounded in time; what fails is tried again by the reconciler, so that a slow Slack holds up no stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web import SlackResponse

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.services.card import Block
from chalicelib.services.post_cards import CardPlace

_TIMEOUT_S: Final = 5  # Slack answers in tenths of a second; ten cards at this rate still fit a stream's minute


class SlackPoster:
    """Posts to one channel. ``token`` is read at the first card and kept for the process. Thread-safe."""

    def __init__(self, *, api_url: str, token: Callable[[], Secret], channel: str) -> None:
        self._api_url = api_url if api_url.endswith("/") else f"{api_url}/"
        self._token = token
        self._channel = channel
        self._lock = threading.Lock()
        self._client: WebClient | None = None

    def post(self, text: str, blocks: Sequence[Block]) -> CardPlace:
        answer = _asked(
            lambda: self._web().chat_postMessage(
                channel=self._channel, text=text, blocks=list(blocks), unfurl_links=False, unfurl_media=False
            )
        )
        channel, ts = answer.get("channel"), answer.get("ts")
        if not isinstance(channel, str) or not isinstance(ts, str):
            raise StoreUnavailable("Slack did not say where the card is")
        return CardPlace(channel=channel, ts=ts)

    def update(self, place: CardPlace, text: str, blocks: Sequence[Block]) -> None:
        _asked(lambda: self._web().chat_update(channel=place.channel, ts=place.ts, text=text, blocks=list(blocks)))

    def _web(self) -> WebClient:
        with self._lock:
            if self._client is None:
                self._client = WebClient(
                    token=self._token().expose(), base_url=self._api_url, timeout=_TIMEOUT_S, retry_handlers=[]
                )
            return self._client


def _asked(call: Callable[[], SlackResponse]) -> SlackResponse:
    try:
        return call()
    except SlackApiError as error:
        raise StoreUnavailable("Slack did not take the card", error=str(error.response.get("error", ""))) from None
    except (SlackClientError, OSError, ValueError) as error:
        raise StoreUnavailable("Slack could not be reached", error=type(error).__name__) from None
