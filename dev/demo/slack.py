"""The approvers' side of the demo: sees cards through the stand-in's contract, and clicks them as a person would."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chalicelib.domain.clock import Clock
from dev.demo.waiting import DemoBroken, wait_for

CARD_WITHIN_S = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """An open card: its message, what it says line by line, and its buttons (label, action id)."""

    ts: str
    lines: tuple[str, ...]
    buttons: tuple[tuple[str, str], ...]

    def text(self) -> str:
        return "\n".join(self.lines)


class Approvers:
    """Reads ``messages``, posts to ``click``."""

    def __init__(self, slack: Mapping[str, Any], clock: Clock) -> None:
        self._slack = slack
        self._clock = clock
        self._seen: set[str] = set()

    @property
    def page(self) -> str:
        return str(self._slack["page"])

    def next_card(self) -> Card:
        """Wait for an open card that was not returned before. Raises DemoBroken."""

        def look() -> Card | None:
            new = (message for message in self._messages() if message["ts"] not in self._seen)
            return next((_card(message) for message in new if message["state"] == "open"), None)

        card = wait_for("a card in Slack", look, self._clock, CARD_WITHIN_S)
        self._seen.add(card.ts)
        return card

    def click(self, card: Card, label: str, user_id: str) -> dict[str, Any]:
        """Press the button whose label begins with ``label``; return what the app answered. Raises DemoBroken."""
        action = next((action for text, action in card.buttons if text.lower().startswith(label.lower())), None)
        if action is None:
            raise DemoBroken(f"the card has no button {label!r}, only {[text for text, _ in card.buttons]}")
        body = json.dumps({"message_ts": card.ts, "action_id": action, "user_id": user_id}).encode()
        request = urllib.request.Request(  # noqa: S310 - the stack's own address
            self._slack["click"], data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return dict(json.load(answer))

    def wait_closed(self, card: Card, within_s: float) -> dict[str, Any]:
        """Wait until the card has no button any more; return the message. Raises DemoBroken."""

        def look() -> dict[str, Any] | None:
            return next((one for one in self._messages() if one["ts"] == card.ts and one["state"] == "closed"), None)

        return wait_for("the card to close", look, self._clock, within_s)

    def whispered(self, card: Card, user_id: str) -> list[str]:
        """Return what only ``user_id`` saw below the card."""
        message = next(one for one in self._messages() if one["ts"] == card.ts)
        return [_said(one) for one in message["ephemerals"] if one["user"] == user_id]

    def _messages(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(self._slack["messages"], timeout=10) as answer:  # noqa: S310
            return list(json.load(answer))


def _said(message: Mapping[str, Any]) -> str:
    return " ".join(_lines(message)) or plain(str(message["text"]))


def _card(message: Mapping[str, Any]) -> Card:
    held = [item for block in message["blocks"] for item in block.get("elements", []) if item.get("type") == "button"]
    pressed = tuple((str(item["text"]["text"]), str(item["action_id"])) for item in held)
    buttons = "   ".join(f"[ {text} ]" for text, _ in pressed)
    return Card(ts=message["ts"], lines=(*_lines(message), buttons), buttons=pressed)


def _lines(message: Mapping[str, Any]) -> list[str]:
    """Return what a card says, one line a text of it."""
    texts: list[str] = []
    for block in message["blocks"]:
        fields = [_text(field) for field in block.get("fields", [])]
        texts += [f"{label:<8}{value}" for label, value in zip(fields[::2], fields[1::2], strict=False)]
        for item in (block.get("text"), *block.get("elements", [])):
            match item:
                case {"type": "plain_text" | "mrkdwn"}:
                    texts.append(_text(item))
                case {"type": "rich_text_preformatted", "elements": [*parts]}:
                    texts.append("    " + "".join(str(part["text"]) for part in parts).replace("\n", "\n    "))
    return [line for text in texts for line in text.splitlines() if line.strip()]


def _text(item: Mapping[str, Any]) -> str:
    """Return a text object's words. In plain text nothing is mark-up, but Slack's three entities are decoded."""
    text = str(item["text"])
    return plain(text) if item["type"] == "mrkdwn" else _decoded(text)


def _decoded(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def plain(mrkdwn: str) -> str:
    """Return Slack's mrkdwn as a terminal shows it. Pure."""
    text = re.sub(r"```\n?|`|(?<!\w)[*_](?=\S)|(?<=\S)[*_](?!\w)", "", mrkdwn)
    text = re.sub(r"<!date\^[^|>]*\|([^>]*)>|<[^|>]*\|([^>]*)>", lambda found: found[1] or found[2], text)
    return _decoded(re.sub(r":[a-z_]+: ?", "", text))
