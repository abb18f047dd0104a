"""How checks ask over the network: one bounded request or connection, without a credential of the caller.

Rules: no redirect is followed and no proxy asked on this machine's own addresses; at most 1 MiB; certificates are
verified always, by the system's roots, ``SSL_CERT_FILE`` or the authority that is given. What cannot be reached raises
OSError (ssl's errors are among them). Sources: RFC 9110; PostgreSQL manual, "SSL Session Encryption" (SSLRequest);
RFC 4253 section 4.2 (the identification string).
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from email.message import Message
from typing import Final
from urllib.parse import urlsplit

from countersign.address import is_loopback

TIMEOUT_S: Final = 5.0  # a person waits; what takes longer is as good as down for a pipeline
_MOST_BYTES: Final = 1 << 20
_SSL_REQUEST: Final = struct.pack("!ii", 8, 80877103)
_LONGEST_BANNER: Final = 255  # RFC 4253 section 4.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An HTTP answer of any status. ``headers`` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json_object(self) -> Mapping[str, object]:
        """Return the body's JSON object, an empty one where it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None


def ask(url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None) -> Answer:
    """Return the answer to one request (POST where there is a ``body``). Raises OSError: unreachable, not trusted, or
    an address that a credential must not travel to (plain http off this machine)."""
    parts = urlsplit(url)
    loopback = is_loopback(parts.hostname or "")
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise OSError(f"{parts.scheme} to another machine is not spoken")
    handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
    if loopback:
        handlers.append(urllib.request.ProxyHandler({}))
    opener = urllib.request.build_opener(*handlers)
    request = urllib.request.Request(url, body, dict(headers or {}))  # noqa: S310 - checked above
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return _answer(response.status, response.headers, response.read(_MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers, error.read(_MOST_BYTES))
    except urllib.error.URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from error


def _answer(status: int, headers: Message, body: bytes) -> Answer:
    return Answer(status=status, headers={name.lower(): value for name, value in headers.items()}, body=body)


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """What a TLS peer showed: until when its certificate holds, in seconds since 1970."""

    ends_at_s: float


def tls_peer(host: str, port: int, *, authority: str = "", postgres: bool = False) -> Peer | None:
    """Return the verified peer's certificate; None where a PostgreSQL server speaks no TLS. Raises OSError,
    ``ssl.SSLCertVerificationError`` among them."""
    context = ssl.create_default_context(cadata=authority or None)
    with closing(socket.create_connection((host, port), TIMEOUT_S)) as plain:
        if postgres:
            plain.sendall(_SSL_REQUEST)
            if plain.recv(1) != b"S":
                return None
        with context.wrap_socket(plain, server_hostname=host) as secured:
            shown = secured.getpeercert() or {}
    return Peer(ends_at_s=float(ssl.cert_time_to_seconds(str(shown["notAfter"]))))


def ssh_banner(host: str, port: int) -> str:
    """Return the identification line of an SSH server, empty where what answers is none. Raises OSError."""
    with closing(socket.create_connection((host, port), TIMEOUT_S)) as plain:
        line = plain.recv(_LONGEST_BANNER).split(b"\n", 1)[0].rstrip(b"\r")
    return line.decode("ascii", "replace") if line.startswith(b"SSH-2.0-") else ""
