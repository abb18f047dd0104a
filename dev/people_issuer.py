"""The local identity provider for people: they log in on a page, the command line waits (the device flow).

Rules: whoever opens the page says who they are, by choosing one of the bundle's people: it vouches for nobody, and
nobody's password is in it. A code is confirmed or denied once, ends after ten minutes, and gives one id_token; who
polls faster than told is told to slow down, by five seconds more each time. ``POST /device`` does what the page does;
``POST /mint`` makes an id_token of the claims given, for tests.
Sources: RFC 8628 sections 3.1 to 3.5; OpenID Connect Core 1.0 section 2 (id_token).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from chalicelib.domain.clock import Clock
from chalicelib.domain.identity import Person
from dev.loopback import Request, Response, as_json
from dev.served_issuer import ServedIssuer
from dev.settings import ROOT
from dev.token_key import ES256

CLIENT_ID: Final = "countersign-cli"
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
CODE_S: Final = 600
TOKEN_S: Final = 300
INTERVAL_S: Final = 1  # RFC 8628 says 5 where nothing is said; this server has one user
SLOWER_S: Final = 5  # section 3.5: what each slow_down adds
_EARLY_S: Final = 0.1  # a client that waits exactly the interval may be early by its timer's grain
MAX_CODES: Final = 100  # what one machine's tests have open; the oldest go first
_LETTERS: Final = "BCDFGHJKLMNPQRSTVWXZ"  # section 6.1: no vowels, so that no code is a word
_PAGE: Final = ROOT / "dev" / "people_page"
_FILES: Final = {
    "/device": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(kw_only=True, slots=True)
class _Code:
    """One login that waits: ``person`` once confirmed, ``denied`` once denied."""

    device_code: str
    user_code: str
    expires_s: float
    interval_s: float = INTERVAL_S
    polled_s: float | None = None
    person: Person | None = None
    denied: bool = False


class PeopleIssuer(ServedIssuer):
    """The provider's server. ``people`` are those who can log in."""

    def __init__(self, clock: Clock, *, people: Sequence[Person], port: int = 0) -> None:
        super().__init__(clock, "people issuer", ES256, port)
        self._people = {str(person.id): person for person in people}
        self._lock = threading.Lock()
        self._codes: list[_Code] = []

    @property
    def device_url(self) -> str:
        """The page where a person confirms a code."""
        return f"{self.url}/device"

    def answer(self, request: Request) -> Response:
        """Serve one request; any other path is 404."""
        if request.method == "GET" and request.path in _FILES:
            name, content_type = _FILES[request.path]
            body = (_PAGE / name).read_bytes()
            return Response(body=body, content_type=content_type, headers={"Content-Security-Policy": _CSP})
        match request.method, request.path:
            case "GET", "/.well-known/openid-configuration":
                return as_json(self._discovery())
            case "GET", "/jwks":
                return as_json(self._key.jwks())
            case "GET", "/people":
                return as_json([_shown(person) for person in self._people.values()])
            case "POST", "/device_authorization":
                return self._begin(request.form())
            case "POST", "/token":
                return self._poll(request.form())
            case "POST", "/device":
                return self._decided(request.json_object())
            case "POST", "/mint":
                return as_json({"token": self.mint(request.json_object())})
        return as_json({"error": "not found"}, 404)

    def mint(self, claims: Mapping[str, Any]) -> str:
        """Return a signed id_token of ``claims`` and of the defaults that they do not set; where ``sub`` is one of the
        people, name and groups are theirs."""
        now = int(self._clock.now().timestamp())
        person = self._people.get(str(claims.get("sub")))
        theirs = {"name": person.name, "groups": list(person.groups)} if person else {}
        times = {"iat": now, "exp": now + TOKEN_S, "auth_time": now}
        made = {"iss": self.url, "aud": CLIENT_ID, "jti": secrets.token_hex(16), **times, **theirs}
        return self._key.sign({**made, **claims})

    def _discovery(self) -> dict[str, object]:
        return self._key.discovery(
            self.url,
            token_endpoint=f"{self.url}/token",
            device_authorization_endpoint=f"{self.url}/device_authorization",
            grant_types_supported=[DEVICE_GRANT],
            token_endpoint_auth_methods_supported=["none"],
            scopes_supported=["openid", "profile", "groups"],
        )

    # What the command line asks.

    def _begin(self, form: Mapping[str, str]) -> Response:
        if form.get("client_id") != CLIENT_ID:
            return _error("invalid_client", 401)
        user_code = "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(2))
        code = _Code(
            device_code=secrets.token_urlsafe(32), user_code=user_code, expires_s=self._clock.monotonic_s() + CODE_S
        )
        with self._lock:
            self._codes = [*self._codes, code][-MAX_CODES:]
        return as_json(
            {
                "device_code": code.device_code,
                "user_code": user_code,
                "verification_uri": self.device_url,
                "verification_uri_complete": f"{self.device_url}?user_code={user_code}",
                "expires_in": CODE_S,
                "interval": INTERVAL_S,
            }
        )

    def _poll(self, form: Mapping[str, str]) -> Response:
        if form.get("grant_type") != DEVICE_GRANT:
            return _error("unsupported_grant_type")
        if form.get("client_id") != CLIENT_ID:
            return _error("invalid_client", 401)
        with self._lock:
            code = next((one for one in self._codes if one.device_code == form.get("device_code")), None)
            refused = "invalid_grant" if code is None else self._not_yet(code)
            if code is None or refused or code.person is None:
                return _error(refused)
            self._codes.remove(code)  # section 3.5: a code is used once
            token = self.mint({"sub": str(code.person.id)})
        return as_json({"access_token": token, "token_type": "Bearer", "expires_in": TOKEN_S, "id_token": token})

    def _not_yet(self, code: _Code) -> str:
        """Return the error of section 3.5 for a poll of now, or the empty text."""
        now = self._clock.monotonic_s()
        before, code.polled_s = code.polled_s, now
        if now >= code.expires_s:
            return "expired_token"
        if code.denied:
            return "access_denied"
        if before is not None and now - before < code.interval_s - _EARLY_S:
            code.interval_s += SLOWER_S
            return "slow_down"
        return "" if code.person else "authorization_pending"

    # What a person does.

    def _decided(self, said: Mapping[str, Any]) -> Response:
        """``{"user_code", "person", "decision": "confirm" | "deny"}``, once for each code."""
        typed = str(said.get("user_code", "")).upper().replace("-", "").replace(" ", "")
        person = self._people.get(str(said.get("person", "")))
        with self._lock:
            code = next((one for one in self._codes if one.user_code.replace("-", "") == typed), None)
            over = code is not None and (code.denied or code.person or self._clock.monotonic_s() >= code.expires_s)
            if code is None or over:
                return as_json({"error": "no login waits for this code"}, 404)
            match said.get("decision"):
                case "confirm" if person is not None:
                    code.person = person
                case "confirm":
                    return as_json({"error": "no such person", "people": sorted(self._people)}, 404)
                case "deny":
                    code.denied = True
                case _:
                    raise ValueError("decision is confirm or deny")
        return as_json({"ok": True, "person": person.name if person else ""})


def _shown(person: Person) -> dict[str, object]:
    return {"id": str(person.id), "name": person.name, "groups": list(person.groups)}


def _error(code: str, status: int = 400) -> Response:
    return as_json({"error": code}, status)
