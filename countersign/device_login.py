"""Logs a person in at their identity provider from a terminal: the device flow, RFC 8628.

The service says which provider it takes people's word from, and as which client we ask; the provider's own discovery
document must name that very issuer, so that no other can answer in its place. The person opens the address and types
the code; what comes back is an ID token, which is exchanged at once and never kept.

Rules: https off loopback for every address; each word of the provider that is shown is made safe first; polls no faster
than the provider allows, and no longer than its code lives. What it does not do: verify the ID token (the service
does), or open a browser. Source: RFC 8628 sections 3.1 to 3.5; OpenID Connect Discovery 1.0 sections 4.1 and 4.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

from chalicelib.domain.secret import Secret
from countersign.address import Address, parse_address
from countersign.api import Clock, HttpClient, text_of
from countersign.failures import Exit, Failure
from countersign.vouching import ID_TOKEN, Issued, is_token

DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
_INTERVAL_S: Final = 5  # where the provider names none: RFC 8628 section 3.2
_SLOWER_S: Final = 5  # what slow_down adds: section 3.5
_LONGEST_S: Final = 1800  # a code that lives longer is not waited for longer: nobody is at that terminal any more
_CODE: Final = re.compile(r"[\x20-\x7e]{1,64}\Z")
_TOKEN_CODE: Final = re.compile(r"[\x21-\x7e]{1,4096}\Z")
_WEB: Final = re.compile(r"[\x21-\x7e]{1,1024}\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """Where people log in: the service's word."""

    name: str
    issuer: str
    client_id: str
    scope: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Invitation:
    """What the person is shown. ``complete`` is the address with the code in it; empty where there is none."""

    address: str
    code: str
    complete: str


def provider_of(told: object, wanted: str) -> Provider:
    """Return the provider called ``wanted``, or the only one. Raises Failure: usage, or an answer without sense."""
    if not isinstance(told, list) or not all(isinstance(entry, dict) for entry in told):
        raise Failure(Exit.UNREACHABLE, "the service's answer makes no sense: issuers")
    found = [Provider(**{name: text_of(entry, name) for name in Provider.__slots__}) for entry in told]
    named = [provider for provider in found if not wanted or provider.name == wanted]
    names = ", ".join(provider.name for provider in found)
    if not found:
        raise Failure(
            Exit.DENIED,
            "nobody logs in here: the service takes no provider's word for people",
            hint="An operator declares one in issuers.yaml, with its client_id.",
        )
    if len(named) != 1:
        raise Failure(Exit.USAGE, f"say where to log in: --issuer, one of {names}")
    return named[0]


class DeviceLogin:
    """One login."""

    def __init__(self, provider: Provider, clock: Clock) -> None:
        """Raises Failure where the provider's address is none that a person's login may go to."""
        self._provider = provider
        self._clock = clock
        self._http = HttpClient(_service_at(provider.issuer, "the provider's address"), clock)

    def log_in(self, show: Callable[[Invitation], None]) -> Issued:
        """Return the person's ID token once they agreed; ``show`` is called with what they need. Raises Failure:
        refused, too late, or the provider's words make no sense."""
        device_url, token_url = self._discovered()
        asked = {"client_id": self._provider.client_id, "scope": self._provider.scope or "openid"}
        told = self._post(device_url, asked)
        code, user_code = text_of(told, "device_code"), text_of(told, "user_code")
        address, complete = text_of(told, "verification_uri"), text_of(told, "verification_uri_complete")
        if not _TOKEN_CODE.match(code) or not _CODE.match(user_code):
            raise _senseless("device_code")
        for url in (address, complete) if complete else (address,):
            if not _WEB.match(url):
                raise _senseless("verification_uri")
            _service_at(url, "the address to log in at")
        show(Invitation(address=address, code=user_code, complete=complete))
        return self._waited(token_url, code, told)

    def _discovered(self) -> tuple[str, str]:
        issuer = self._provider.issuer
        told = self._http.call("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration", repeatable=True).body
        if text_of(told, "issuer") != issuer:
            raise Failure(
                Exit.UNREACHABLE,
                "what answers at the provider's address says that it is another provider",
                hint="Nothing was sent to it. Ask an operator whether issuers.yaml names the right address.",
            )
        found = text_of(told, "device_authorization_endpoint"), text_of(told, "token_endpoint")
        for url in found:
            if not _WEB.match(url):
                raise Failure(Exit.UNREACHABLE, "the provider offers no login from a terminal (RFC 8628)")
            _service_at(url, "an address that the provider names")
        return found

    def _waited(self, token_url: str, code: str, told: Mapping[str, object]) -> Issued:
        interval_s = _seconds(told.get("interval"), _INTERVAL_S)
        until_s = self._clock.monotonic_s() + min(_seconds(told.get("expires_in"), _LONGEST_S), _LONGEST_S)
        form = {"grant_type": DEVICE_CODE, "device_code": code, "client_id": self._provider.client_id}
        while self._clock.monotonic_s() < until_s:
            self._clock.sleep(interval_s)
            try:
                answer = self._post(token_url, form)
            except Failure as failure:
                match failure.code:
                    case "authorization_pending":
                        continue
                    case "slow_down":
                        interval_s += _SLOWER_S
                        continue
                    case "access_denied":
                        raise Failure(Exit.DENIED, "the login was refused", code=failure.code) from failure
                    case "expired_token":
                        break
                if failure.exit_code is Exit.UNREACHABLE:
                    interval_s += _SLOWER_S  # section 3.5: after a time-out too, less often
                    continue
                raise
            token = text_of(answer, "id_token")
            if not is_token(token):
                raise _senseless("id_token")
            return Issued(token=Secret(token), kind=ID_TOKEN, run="")
        raise Failure(Exit.DENIED, "nobody logged in in time", hint="`countersign login` begins again.")

    def _post(self, url: str, form: Mapping[str, str]) -> Mapping[str, object]:
        http = HttpClient(_service_at(url, "an address that the provider names"), self._clock)
        return http.call("POST", url, body=urlencode(form).encode(), headers=_FORM, repeatable=False).body


def _service_at(url: str, what: str) -> Address:
    """Return the address of ``url``'s origin. Raises Failure on plain http off loopback, or a login in it."""
    parts = urlsplit(url)
    return parse_address(f"{parts.scheme}://{parts.netloc}", what)


def _seconds(told: object, default: int) -> int:
    """Return a number of seconds that is one, else ``default``."""
    return told if isinstance(told, int) and not isinstance(told, bool) and 0 < told <= _LONGEST_S else default


def _senseless(member: str) -> Failure:
    return Failure(Exit.UNREACHABLE, f"the provider's answer makes no sense: {member}")
