"""A stand-in for Slack's Web API, and the channel in which cards can be seen and clicked.

Rules: what the app calls answers as Slack does (HTTP 200 with ``ok``, the token checked, blocks checked by
``slack_blocks``); a click is sent to the app's ``/slack/events`` as Slack sends it: a form with the payload, signed
over the bytes with the signing secret. The click says only which button: value, blocks and text are those of the
stored message. Messages live in memory. Anybody on this machine may click as anybody: whether that person may answer
is the product's to decide.
Sources: docs.slack.dev: "chat.postMessage", "chat.update", "block_actions payload", "Verifying requests from Slack",
"Handling user interaction" (response_url: five uses within 30 minutes).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlencode

from chalicelib.domain.clock import Clock
from chalicelib.domain.secret import Secret
from dev.loopback import LoopbackServer, Request, Response, as_json
from dev.settings import ROOT
from dev.slack_blocks import Block, InvalidBlocks, buttons, stored_blocks

APP_ID: Final = "A0COUNTER"
BOT_ID: Final = "B0COUNTER"
BOT_USER: Final = "U0COUNTER"
CHANNEL: Final = "C0APPROVALS"
CHANNEL_NAME: Final = "access-approvals"
SCOPES: Final = "chat:write"  # integrations/slack/manifest.json
MAX_MESSAGES: Final = 500  # what one demo or test session makes; the oldest go first
RESPONSE_URL_USES: Final = 5
CLICK_S: Final = 15.0  # Slack itself gives an app 3 s and then shows a warning; `late` says when that would have been
SLACK_PATIENCE_S: Final = 3.0
_PAGE: Final = ROOT / "dev" / "slack_page"
_FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
# Cards carry text that a stranger wrote: nothing inline runs, and nothing is fetched from anywhere else.
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """Somebody who can click: Slack's ids of the user and of their team, and a name for people."""

    user_id: str
    team: str
    name: str
    groups: tuple[str, ...] = ()


@dataclass(kw_only=True, slots=True)
class Message:
    """A message as Slack keeps it, and what only one person saw below it."""

    channel: str
    ts: str
    text: str
    blocks: list[Block]
    edited: bool = False
    ephemerals: list[dict[str, Any]] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        is_open = bool(buttons(self.blocks))
        return {
            "channel": self.channel,
            "ts": self.ts,
            "message_ts": self.ts,
            "text": self.text,
            "blocks": self.blocks,
            "state": "open" if is_open else "closed",
            "edited": self.edited,
            "ephemerals": self.ephemerals,
        }


class SlackStandin:
    """The workspace and its server."""

    def __init__(
        self, clock: Clock, *, members: Sequence[Member], bot_token: Secret, signing_secret: Secret, port: int = 0
    ) -> None:
        self._clock = clock
        self._members = tuple(members)
        self._team = self._members[0].team if self._members else "T0LOCAL"
        self._bot_token = bot_token
        self._signing_secret = signing_secret
        self._events_url = ""
        self._lock = threading.Lock()
        self._messages: list[Message] = []
        self._response_urls: dict[str, tuple[str, str, int]] = {}
        self._last_ts = 0
        self._server = LoopbackServer("slack", self.answer, port=port)
        self._methods: Mapping[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "auth.test": self._auth_test,
            "chat.postMessage": self._post_message,
            "chat.update": self._update,
            "chat.delete": self._delete,
            "chat.postEphemeral": self._post_ephemeral,
            "users.info": self._user_info,
        }

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def api_url(self) -> str:
        """What the app's client takes as its base, trailing slash included."""
        return f"{self.url}/api/"

    def send_clicks_to(self, events_url: str) -> None:
        self._events_url = events_url

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def answer(self, request: Request) -> Response:
        """Serve one request; any other path is 404."""
        path = request.path
        if request.method == "GET" and path in _FILES:
            name, content_type = _FILES[path]
            body = (_PAGE / name).read_bytes()
            return Response(body=body, content_type=content_type, headers={"Content-Security-Policy": _CSP})
        if request.method == "GET" and path == "/messages":
            return as_json(self.messages())
        if request.method == "GET" and path == "/workspace":
            return as_json(self._workspace())
        if request.method == "POST" and path == "/click":
            return self._clicked(request.json_object())
        if request.method == "POST" and path.startswith("/respond/"):
            return self._responded(path.removeprefix("/respond/"), request.json_object())
        if path.startswith("/api/"):
            # Slack says with every answer what the token may do.
            return replace(
                as_json(self._called(path.removeprefix("/api/"), request)), headers={"x-oauth-scopes": SCOPES}
            )
        return as_json({"error": "not found"}, 404)

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages, oldest first, each with its blocks as stored."""
        with self._lock:
            return json.loads(json.dumps([message.shown() for message in self._messages]))  # type: ignore[no-any-return]

    # What the app calls.

    def _called(self, method: str, request: Request) -> dict[str, Any]:
        if not self._bot_token.equals(request.headers.get("authorization", "").removeprefix("Bearer ")):
            return {"ok": False, "error": "invalid_auth"}
        run = self._methods.get(method)
        if run is None:
            return {"ok": False, "error": "unknown_method", "req_method": method}
        is_json = request.headers.get("content-type", "").startswith("application/json")
        arguments = request.json_object() if is_json else dict(request.form())
        for name in ("blocks", "attachments"):
            if isinstance(arguments.get(name), str):
                arguments[name] = json.loads(arguments[name])
        try:
            with self._lock:
                return run(arguments)
        except InvalidBlocks as error:
            return {"ok": False, "error": "invalid_blocks", "response_metadata": {"messages": [f"[ERROR] {error}"]}}

    def _auth_test(self, _: dict[str, Any]) -> dict[str, Any]:
        who = {"user_id": BOT_USER, "user": "countersign", "bot_id": BOT_ID}
        return {"ok": True, "team_id": self._team, "team": "Acme", "url": f"{self.url}/"} | who

    def _post_message(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("channel") != CHANNEL:
            return {"ok": False, "error": "channel_not_found"}
        blocks = stored_blocks(arguments.get("blocks") or [])
        text = str(arguments.get("text") or "")
        if not blocks and not text:
            return {"ok": False, "error": "no_text"}
        message = Message(channel=CHANNEL, ts=self._next_ts(), text=text, blocks=blocks)
        self._messages = [*self._messages, message][-MAX_MESSAGES:]
        return {"ok": True, "channel": CHANNEL, "ts": message.ts, "message": self._as_slack_shows(message)}

    def _update(self, arguments: dict[str, Any]) -> dict[str, Any]:
        message = self._find(str(arguments.get("ts", "")))
        if message is None or arguments.get("channel") != CHANNEL:
            return {"ok": False, "error": "message_not_found"}
        self._replace(message, arguments)
        return {"ok": True, "channel": CHANNEL, "ts": message.ts, "text": message.text}

    def _replace(self, message: Message, arguments: dict[str, Any]) -> None:
        blocks = stored_blocks(arguments["blocks"]) if arguments.get("blocks") is not None else message.blocks
        message.text = str(arguments.get("text") or message.text)
        message.blocks = blocks
        message.edited = True

    def _delete(self, arguments: dict[str, Any]) -> dict[str, Any]:
        message = self._find(str(arguments.get("ts", "")))
        if message is None:
            return {"ok": False, "error": "message_not_found"}
        self._messages.remove(message)
        return {"ok": True, "channel": CHANNEL, "ts": message.ts}

    def _post_ephemeral(self, arguments: dict[str, Any]) -> dict[str, Any]:
        if arguments.get("channel") != CHANNEL:
            return {"ok": False, "error": "channel_not_found"}
        ts = self._next_ts()
        if self._messages:
            self._whisper(self._messages[-1], str(arguments.get("user", "")), arguments, ts)
        return {"ok": True, "message_ts": ts}

    def _whisper(self, message: Message, user: str, arguments: dict[str, Any], ts: str) -> None:
        blocks = stored_blocks(arguments.get("blocks") or [])
        message.ephemerals.append({"user": user, "ts": ts, "text": str(arguments.get("text") or ""), "blocks": blocks})

    def _user_info(self, arguments: dict[str, Any]) -> dict[str, Any]:
        member = next((found for found in self._members if found.user_id == arguments.get("user")), None)
        if member is None:
            return {"ok": False, "error": "user_not_found"}
        profile = {"real_name": member.name, "display_name": member.name}
        user = {"id": member.user_id, "team_id": member.team, "name": _handle(member), "real_name": member.name}
        return {"ok": True, "user": {**user, "profile": profile, "is_bot": False}}

    # What a person does.

    def _clicked(self, click: dict[str, Any]) -> Response:
        ts, action_id, user_id = (str(click.get(name, "")) for name in ("message_ts", "action_id", "user_id"))
        with self._lock:
            message = self._find(ts)
            pressed = next(
                (found for found in buttons(message.blocks if message else []) if found[1]["action_id"] == action_id),
                None,
            )
            if message is None or pressed is None or not user_id:
                offered = [item["action_id"] for _, item in buttons(message.blocks)] if message else []
                return as_json({"error": "no such message or button", "offered": offered}, 404)
            payload = self._interaction(message, *pressed, user_id)
        return self._send(payload)

    def _interaction(self, message: Message, block_id: str, button: Block, user_id: str) -> dict[str, Any]:
        token = secrets.token_urlsafe(16)
        self._response_urls[token] = (message.ts, user_id, RESPONSE_URL_USES)
        member = next((found for found in self._members if found.user_id == user_id), None)
        handle, team = (_handle(member), member.team) if member else (user_id.lower(), self._team)
        pressed = {name: value for name, value in button.items() if name != "confirm"}
        return {
            "type": "block_actions",
            "user": {"id": user_id, "username": handle, "name": handle, "team_id": team},
            "api_app_id": APP_ID,
            "token": "deprecated-verification-token",
            "container": {
                "type": "message",
                "message_ts": message.ts,
                "channel_id": message.channel,
                "is_ephemeral": False,
            },
            "trigger_id": f"{secrets.randbelow(10**13)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}",
            "team": {"id": team, "domain": "acme"},
            "enterprise": None,
            "is_enterprise_install": False,
            "channel": {"id": message.channel, "name": CHANNEL_NAME},
            "message": self._as_slack_shows(message),
            "state": {"values": {}},
            "response_url": f"{self.url}/respond/{token}",
            "actions": [{**pressed, "block_id": block_id, "action_ts": self._next_ts()}],
        }

    def _send(self, payload: dict[str, Any]) -> Response:
        body = urlencode({"payload": json.dumps(payload, separators=(",", ":"))}).encode()
        timestamp = str(int(self._clock.now().timestamp()))
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": signature(self._signing_secret, timestamp, body),
        }
        began = self._clock.monotonic_s()
        status, text = _post(self._events_url, body, headers)
        took = self._clock.monotonic_s() - began
        answer = {"status": status, "body": text, "took_ms": int(took * 1000), "late": took > SLACK_PATIENCE_S}
        return as_json(answer | {"ok": status == 200})

    def _responded(self, token: str, arguments: dict[str, Any]) -> Response:
        with self._lock:
            ts, user, left = self._response_urls.get(token, ("", "", 0))
            message = self._find(ts)
            if message is None or left < 1:
                return as_json({"ok": False, "error": "expired_url"}, 404)
            self._response_urls[token] = (ts, user, left - 1)
            if arguments.get("delete_original"):
                self._messages.remove(message)
            elif arguments.get("replace_original"):
                self._replace(message, arguments)
            else:
                self._whisper(message, user, arguments, self._next_ts())
        return Response(body=b"ok", content_type="text/plain")

    # What both share; the lock is held.

    def _find(self, ts: str) -> Message | None:
        return next((message for message in self._messages if message.ts == ts), None)

    def _next_ts(self) -> str:
        """Slack names a message by its time in microseconds, never twice in one channel."""
        self._last_ts = max(self._last_ts + 1, int(self._clock.now().timestamp() * 1_000_000))
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def _as_slack_shows(self, message: Message) -> dict[str, Any]:
        known = {"user": BOT_USER, "bot_id": BOT_ID, "app_id": APP_ID, "team": self._team, "type": "message"}
        return known | {"ts": message.ts, "text": message.text, "blocks": message.blocks}

    def _workspace(self) -> dict[str, Any]:
        people = [{"id": who.user_id, "name": who.name, "groups": list(who.groups)} for who in self._members]
        return {"team": self._team, "channel": CHANNEL_NAME, "people": people}


def signature(secret: Secret, timestamp: str, body: bytes) -> str:
    """Return the ``X-Slack-Signature`` of ``body`` at ``timestamp``. Pure."""
    base = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.new(secret.expose().encode(), base, hashlib.sha256).hexdigest()


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
    """Return status and text; 0 and why where nothing answered."""
    request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")  # noqa: S310 - our own API
    try:
        with urllib.request.urlopen(request, timeout=CLICK_S) as answer:  # noqa: S310
            return answer.status, answer.read(65536).decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(65536).decode(errors="replace")
    except (OSError, ValueError) as error:
        return 0, f"nothing answered: {error}"


def _handle(member: Member) -> str:
    return member.name.lower().replace(" ", ".")
