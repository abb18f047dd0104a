"""Block Kit as Slack's API treats it: the limits that it enforces, and how it rewrites what it was given.

Rules: only what our cards may use is known (header, section, preformatted text, context, actions with buttons,
divider); anything else is ``invalid_blocks``, so that a card which real Slack would refuse fails here first. What
Slack stores differs from what it was sent, and the message in an interaction's payload is what it stored: missing
``block_id`` and ``action_id`` are made up, ``verbatim`` and ``emoji`` are filled in, bare ``&``, ``<`` and ``>`` are
escaped. A verifier that compares a card byte for byte would pass against a stand-in that did not do this, and fail
against Slack.
Source: docs.slack.dev, "Block Kit reference" (block limits), "Formatting message text" (escaping).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

Block: TypeAlias = dict[str, Any]

MAX_BLOCKS: Final = 50
_ENTITY: Final = re.compile(r"&(?!(?:amp|lt|gt);)")
_CONTROL: Final = re.compile(r"<(?=[@#!]|https?://|mailto:)[^<>\n]*>")


class InvalidBlocks(ValueError):
    """Slack would answer ``invalid_blocks``; the text says where."""


def stored_blocks(blocks: object) -> list[Block]:
    """Return ``blocks`` as Slack stores them. Raises InvalidBlocks where Slack would refuse them."""
    if not isinstance(blocks, list) or len(blocks) > MAX_BLOCKS:
        raise InvalidBlocks(f"blocks is a list of at most {MAX_BLOCKS}")
    stored = [_block(block, f"/blocks/{place}") for place, block in enumerate(blocks)]
    _unique([block["block_id"] for block in stored], "block_id")
    return stored


def buttons(blocks: Sequence[Mapping[str, Any]]) -> list[tuple[str, Block]]:
    """Return every button, each with its block's id, in the order shown."""
    found: list[tuple[str, Block]] = []
    for block in blocks:
        held = [*block.get("elements", []), block.get("accessory")]
        found += [(block["block_id"], item) for item in held if isinstance(item, dict) and item.get("type") == "button"]
    return found


def _block(block: object, where: str) -> Block:
    if not isinstance(block, dict):
        raise InvalidBlocks(f"{where} is not an object")
    block_id = _short(block.get("block_id") or secrets.token_urlsafe(4)[:5], 255, f"{where}/block_id")
    kind = block.get("type")
    known = {"type": kind, "block_id": block_id}
    match kind:
        case "divider":
            return known
        case "header":
            return known | {"text": _text(block.get("text"), 150, f"{where}/text", plain=True)}
        case "section":
            return known | _section(block, where)
        case "rich_text":
            elements = _list(block.get("elements"), 10, f"{where}/elements")
            return known | {"elements": [_preformatted(item, f"{where}/elements") for item in elements]}
        case "context":
            elements = _list(block.get("elements"), 10, f"{where}/elements")
            return known | {"elements": [_text(item, 3000, f"{where}/elements") for item in elements]}
        case "actions":
            elements = _list(block.get("elements"), 25, f"{where}/elements")
            held = [_button(item, f"{where}/elements") for item in elements]
            _unique([item["action_id"] for item in held], f"{where} action_id")
            return known | {"elements": held}
    raise InvalidBlocks(f"{where}: type {kind!r} is not one that our cards use")


def _section(block: Block, where: str) -> Block:
    found: Block = {}
    if "text" in block:
        found["text"] = _text(block["text"], 3000, f"{where}/text")
    if "fields" in block:
        fields = _list(block["fields"], 10, f"{where}/fields")
        found["fields"] = [_text(item, 2000, f"{where}/fields") for item in fields]
    if "accessory" in block:
        found["accessory"] = _button(block["accessory"], f"{where}/accessory")
    if "text" not in found and "fields" not in found:
        raise InvalidBlocks(f"{where} has neither text nor fields")
    return found


def _preformatted(item: object, where: str) -> Block:
    """Text in rich text is not mark-up: Slack neither reads nor escapes it, and adds how the box is drawn."""
    if not isinstance(item, dict) or item.get("type") != "rich_text_preformatted":
        raise InvalidBlocks(f"{where} is not preformatted text, the one kind of rich text that our cards use")
    parts = _list(item.get("elements"), 10, f"{where}/elements")
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
        raise InvalidBlocks(f"{where}/elements is not of type text")
    texts = [{"type": "text", "text": _short(part.get("text"), 12_000, f"{where}/text")} for part in parts]
    return {"type": "rich_text_preformatted", "elements": texts, "border": int(item.get("border", 0))}


def _button(item: object, where: str) -> Block:
    if not isinstance(item, dict) or item.get("type") != "button":
        raise InvalidBlocks(f"{where} is not a button")
    found: Block = {"type": "button", "text": _text(item.get("text"), 75, f"{where}/text", plain=True)}
    found["action_id"] = _short(item.get("action_id") or secrets.token_urlsafe(4)[:5], 255, f"{where}/action_id")
    if "url" in item:
        found["url"] = _short(item["url"], 3000, f"{where}/url")
        if not found["url"].startswith(("https://", "http://")):
            raise InvalidBlocks(f"{where}/url is no address")
    if "value" in item:
        found["value"] = _short(item["value"], 2000, f"{where}/value")
    if "style" in item:
        if item["style"] not in ("primary", "danger"):
            raise InvalidBlocks(f"{where}/style is primary or danger")
        found["style"] = item["style"]
    if "confirm" in item:
        found["confirm"] = _confirm(item["confirm"], f"{where}/confirm")
    return found


def _confirm(item: object, where: str) -> Block:
    if not isinstance(item, dict):
        raise InvalidBlocks(f"{where} is not an object")
    found: Block = {
        "title": _text(item.get("title"), 100, f"{where}/title", plain=True),
        "text": _text(item.get("text"), 300, f"{where}/text"),
        "confirm": _text(item.get("confirm"), 30, f"{where}/confirm", plain=True),
        "deny": _text(item.get("deny"), 30, f"{where}/deny", plain=True),
    }
    return found | ({"style": item["style"]} if "style" in item else {})


def _text(item: object, limit: int, where: str, *, plain: bool = False) -> Block:
    if not isinstance(item, dict) or item.get("type") not in (("plain_text",) if plain else ("plain_text", "mrkdwn")):
        raise InvalidBlocks(f"{where} is not a text object of a type that may stand here")
    text = escaped(_short(item.get("text"), limit, where))
    if item["type"] == "plain_text":
        return {"type": "plain_text", "text": text, "emoji": bool(item.get("emoji", True))}
    return {"type": "mrkdwn", "text": text, "verbatim": bool(item.get("verbatim", False))}


def escaped(text: str) -> str:
    """Return ``text`` with what is neither an entity nor a control sequence of Slack's escaped. Pure."""
    text = _ENTITY.sub("&amp;", text)
    parts: list[str] = []
    end = 0
    for match in _CONTROL.finditer(text):
        parts += [_bare(text[end : match.start()]), match.group()]
        end = match.end()
    return "".join([*parts, _bare(text[end:])])


def _bare(text: str) -> str:
    return text.replace("<", "&lt;").replace(">", "&gt;")


def _short(value: object, limit: int, where: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        raise InvalidBlocks(f"{where} is a text of 1 to {limit} characters")
    return value


def _list(value: object, limit: int, where: str) -> list[Any]:
    if not isinstance(value, list) or not 1 <= len(value) <= limit:
        raise InvalidBlocks(f"{where} is a list of 1 to {limit}")
    return value


def _unique(values: Sequence[str], what: str) -> None:
    if len(set(values)) != len(values):
        raise InvalidBlocks(f"{what} is not unique")
