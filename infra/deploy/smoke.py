"""What a deployment is asked once it stands: does the API answer, sign, decide; does the broker let clients in.

Rules: every check is bounded in time, made from where the deployment runs, and changes nothing. A function is invoked
with an order that it must refuse: its refusal shows that its package imports, that its settings are whole and that it
answers. The broker's certificate is verified against the authority that clients are told of.
Source: PostgreSQL 17, "Message Formats" (SSLRequest); RFC 4253 section 4.2 (the server's identification).
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from infra.deploy.stage import BrokerAddress
from infra.deploy.tools import StepFailed

WITHIN_S: Final = 20.0  # a cold start of the API and of `sign` behind it takes some seconds at the first call
_SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)
_REFUSALS: Final = frozenset({"bad_request", "unauthenticated"})  # before any store is asked
_ASKED: Final = ("sign", "decide", "mint", "review")


class Invokes(Protocol):
    def answer_of(self, function: str, event: Mapping[str, Any]) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """One check: ``wrong`` is empty where it went well."""

    what: str
    wrong: str


def smoke(public_url: str, function_prefix: str, broker: BrokerAddress | None, account: Invokes) -> Iterator[Checked]:
    """Make each check in turn. ``broker`` is None where it is not to be reached from here."""
    yield _checked(f"{public_url}/healthz answers", lambda: _fetched(f"{public_url}/healthz"))
    yield _checked(f"{public_url}/.well-known/jwks.json has keys", lambda: _has_keys(public_url))
    for name in _ASKED:
        full = f"{function_prefix}{name}"
        yield _checked(f"{full} refuses an empty order", partial(_refuses, account, full))
    if broker is not None:
        place = f"{broker.host}:{broker.postgres_port}"
        yield _checked(f"{place} speaks TLS with our certificate", lambda: _speaks_tls(broker))
        if broker.ssh_port:
            yield _checked(f"{broker.host}:{broker.ssh_port} speaks ssh", lambda: _speaks_ssh(broker))


def _checked(what: str, look: Callable[[], object]) -> Checked:
    try:
        look()
    except (OSError, ValueError, StepFailed) as error:
        return Checked(what=what, wrong=str(error)[:300] or type(error).__name__)
    return Checked(what=what, wrong="")


def _fetched(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:  # noqa: S310 - the deployment's own API
            body: bytes = answer.read(1 << 20)
    except urllib.error.HTTPError as error:
        raise ValueError(f"it answers {error.code}") from error
    return body


def _has_keys(public_url: str) -> None:
    if not json.loads(_fetched(f"{public_url}/.well-known/jwks.json"))["keys"]:
        raise ValueError("it has no key")


def _refuses(account: Invokes, function: str) -> None:
    answer = account.answer_of(function, {})
    refused = answer.get("refused") if isinstance(answer, dict) else None
    if not (isinstance(refused, dict) and refused.get("code") in _REFUSALS):
        raise ValueError(f"it answers with {refused.get('code') if isinstance(refused, dict) else 'what is not ours'}")


def _speaks_tls(broker: BrokerAddress) -> None:
    context = ssl.create_default_context(cadata=broker.ca_pem or None)
    with socket.create_connection((broker.host, broker.postgres_port), timeout=WITHIN_S) as plain:
        plain.sendall(_SSL_REQUEST)
        if plain.recv(1) != b"S":
            raise ValueError("it does not offer TLS")
        with context.wrap_socket(plain, server_hostname=broker.host):
            pass


def _speaks_ssh(broker: BrokerAddress) -> None:
    with socket.create_connection((broker.host, broker.ssh_port), timeout=WITHIN_S) as plain:
        if not plain.recv(64).startswith(b"SSH-2.0-"):
            raise ValueError("it does not greet as ssh")
