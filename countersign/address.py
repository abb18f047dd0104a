"""Which addresses this process talks to: https, or http on this very machine.

The attack: a false API address collects CI tokens. So a token travels over plain http to a loopback address only, an
address holds no login, and where a service names a further address (``poll``), it is followed only on its own origin.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from countersign.failures import Exit, Failure

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """A service's base: ``origin`` (scheme, host, port), and the path under which it lives, without a last slash."""

    origin: str
    path: str
    loopback: bool

    def url(self, path: str) -> str:
        """Return the URL of ``path``, which begins with a slash."""
        return f"{self.origin}{self.path}{path}"


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is this machine: an address of 127.0.0.0/8 or ::1, or the name localhost (RFC 6761
    section 6.3). Any other name is not, wherever it resolves to now. Pure."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_address(text: str, what: str) -> Address:
    """Return the address that ``text`` states; ``what`` names the setting in the message. Raises Failure (usage)."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Failure(Exit.USAGE, f"{what} is not an address: {error}") from error
    if parts.scheme not in {"https", "http"} or not host:
        raise Failure(Exit.USAGE, f"{what} is not an address like https://countersign.example.com")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise Failure(Exit.USAGE, f"{what} may hold a host, a port and a path, and nothing else")
    ipv6 = ":" in host
    if not (ipv6 or _HOST.match(host)) or not _PATH.match(parts.path.rstrip("/")):
        raise Failure(Exit.USAGE, f"{what} holds characters that an address of ours never has")
    loopback = is_loopback(host)
    if parts.scheme == "http" and not loopback:
        raise Failure(
            Exit.USAGE,
            f"{what} is plain http on another machine",
            hint="Tokens travel over https only; http is accepted for this machine's own loopback address.",
        )
    shown = f"[{host}]" if ipv6 else host
    origin = f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")
    return Address(origin=origin, path=parts.path.rstrip("/"), loopback=loopback)


def same_origin(address: Address, told: str) -> str:
    """Return ``told`` (a path, or a whole URL) as a URL on ``address``'s origin. Raises Failure where it leads
    elsewhere: a token is never taken to an address that a response names. Pure."""
    if told.startswith("/") and not told.startswith("//") and "\\" not in told:
        # A path may be told from the origin's root or from the service's own base.
        under_base = address.path and (told == address.path or told.startswith(f"{address.path}/"))
        return f"{address.origin}{told}" if under_base else address.url(told)
    if told.startswith(f"{address.origin}/"):
        return told
    raise Failure(Exit.UNREACHABLE, "the service named an address that is not its own; it was not followed")
