"""The keys of other issuers: fetched from the address that the declaration pins, and kept for a while.

Rules: https off loopback; no redirect is followed and no proxy asked, since either would let somebody else answer; a
bounded answer in a bounded time. Keys are kept for five minutes. An unknown ``kid`` fetches anew at most once a minute,
and a failed fetch is not repeated for ten seconds, so that tokens with made-up key ids, or an issuer that is down,
cannot make us a source of load or fill our functions with waiting calls.
"""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import ConfigurationInvalid, StoreUnavailable
from chalicelib.identity.compact import Malformed, json_object

CACHE_S: Final = 300.0  # as long as issuers' own Cache-Control commonly says
UNKNOWN_KID_S: Final = 60.0  # a new key works within a minute; tokens with invented ones cost the issuer no more calls
FAILED_S: Final = 10.0  # an issuer that is down is not asked by every caller, and is found again soon
TIMEOUT_S: Final = 3.0  # API Gateway's caller waits; an issuer answers in tens of milliseconds
MAX_BYTES: Final = 256 * 1024  # the largest JWKS in use (a cloud's) is about 60 KB
MAX_KEYS: Final = 200  # far above any issuer in use; each costs memory and a parse

FetchJwks: TypeAlias = Callable[[str], Mapping[str, Any]]
"""From the pinned address to its JWK Set as parsed JSON. Raises StoreUnavailable."""


def fetch_jwks(jwks_uri: str) -> Mapping[str, Any]:
    """Fetch the JWK Set at ``jwks_uri``. Raises StoreUnavailable, and ConfigurationInvalid for an address that may not
    be asked."""
    parts = urlsplit(jwks_uri)
    if not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))):
        raise ConfigurationInvalid(f"keys are fetched over https alone, not from {jwks_uri!r}")
    request = urllib.request.Request(jwks_uri, headers={"Accept": "application/json"})  # noqa: S310 - checked above
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as response:
            body: bytes = response.read(MAX_BYTES + 1)
            if response.status != 200 or len(body) > MAX_BYTES:
                raise StoreUnavailable("an issuer's keys could not be read", status=response.status, size=len(body))
        return json_object(body)
    except (OSError, HTTPException, Malformed) as error:
        raise StoreUnavailable("an issuer's keys could not be read", error=type(error).__name__) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetched:
    """A JWK Set as its address gave it, and when."""

    jwks: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class IssuerKey:
    """One key of an issuer, and the set that it came in."""

    jwk: Mapping[str, Any]
    fetched: Fetched


class IssuerKeys:
    """Keeps the keys of every issuer. Thread-safe: a fetch for one issuer waits for no other issuer's."""

    def __init__(self, fetch: FetchJwks, clock: Clock) -> None:
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}

    def key(self, jwks_uri: str, kid: str) -> IssuerKey | None:
        """Return the public JWK with that id and the set that it is in, or None where the issuer has none. Raises
        StoreUnavailable."""
        with self._lock:
            kept = self._kept.setdefault(jwks_uri, _Kept(lock=threading.Lock()))
        with kept.lock:
            now = self._clock.monotonic_s()
            age_s = now - kept.fetched_at_s if kept.fetched_at_s is not None else None
            fresh = age_s is not None and age_s < CACHE_S and (kid in kept.keys or age_s < UNKNOWN_KID_S)
            if not fresh:
                self._refresh(kept, jwks_uri, now)
            jwk = kept.keys.get(kid)
            return IssuerKey(jwk=jwk, fetched=kept.fetched) if jwk is not None and kept.fetched is not None else None

    def _refresh(self, kept: _Kept, jwks_uri: str, now: float) -> None:
        if kept.failed_at_s is not None and now - kept.failed_at_s < FAILED_S:
            raise StoreUnavailable("an issuer's keys could not be read", jwks_uri=jwks_uri, error="failed just now")
        try:
            jwks = self._fetch(jwks_uri)
            kept.keys, kept.fetched = _by_kid(jwks), Fetched(jwks=jwks, at=self._clock.now())
        except StoreUnavailable:
            kept.failed_at_s = now
            raise
        kept.fetched_at_s, kept.failed_at_s = now, None


@dataclass(slots=True)
class _Kept:
    lock: threading.Lock
    keys: Mapping[str, Mapping[str, Any]]
    fetched: Fetched | None
    fetched_at_s: float | None
    failed_at_s: float | None

    def __init__(self, lock: threading.Lock) -> None:
        self.lock = lock
        self.keys = {}
        self.fetched = None
        self.fetched_at_s = None
        self.failed_at_s = None


def _by_kid(jwks: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the keys that verify signatures, by id. One id on two keys names neither."""
    listed = jwks.get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise StoreUnavailable("an issuer's keys could not be read", error="not a JWK Set")
    found: dict[str, Mapping[str, Any]] = {}
    twice: set[str] = set()
    for jwk in listed:
        if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or jwk.get("use", "sig") == "enc":
            continue
        if jwk["kid"] in found:
            twice.add(jwk["kid"])
        found[jwk["kid"]] = jwk
    return {kid: jwk for kid, jwk in found.items() if kid not in twice}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other error: the address was pinned."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER: Final = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))
