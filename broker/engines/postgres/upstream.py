"""The broker as a client of the target: dial, TLS, log in with the minted credential, and ask for the catalogue.

Rules: host, port and CA come from our registry alone; TLS 1.2 or newer with the name verified, plaintext only for a
target on loopback that says so; exactly one byte is read before TLS (CVE-2021-23222: what a man in the middle plants
behind it would be taken for encrypted); an error before TLS is never shown (CVE-2024-10977). SCRAM with channel binding
where offered, MD5 if the target insists, cleartext only inside TLS or on loopback. ``search_path`` is pinned in the
startup packet with ``pg_temp`` last, which survives RESET and DISCARD ALL; ``application_name`` begins with the txn.
Whatever goes wrong is TargetUnavailable, without the target's address in its public text.

Source: PostgreSQL 15, chapters 55.2.1, 55.3; libpq 34.19 (sslmode verify-full).
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import re
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from broker.engines.channel import Channel, ChannelClosed, ReceiveBuffer
from broker.engines.flow import Runs
from broker.engines.postgres.binding import endpoint_hash
from broker.wire.postgres import fields, messages, scram, startup
from broker.wire.postgres.framing import FrameReader, frame, server_reader
from broker.wire.violation import RemoteViolation
from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.identifiers import Txn
from chalicelib.domain.secret import Secret
from chalicelib.domain.target import Target

DIAL_S: Final = 10.0  # as long as a client's own handshake may take
CATALOGUE_S: Final = 10.0
CANCEL_S: Final = 5.0
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024  # one of the broker's own queries; the catalogue says the same of itself
APPLICATION_NAME_BYTES: Final = 63  # NAMEDATALEN - 1: the server cuts what is longer, and would cut the client's part
_PLAIN_NAME: Final = re.compile(r"[a-z_][a-z0-9_]*\Z")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Upstream:
    """A target that is logged in and idle. ``parameters`` are its ParameterStatus values."""

    channel: Channel
    reader: FrameReader
    parameters: dict[bytes, bytes] = field(default_factory=dict)
    process: int = 0
    secret: bytes = b""
    _frames: list[tuple[int, bytes]] = field(default_factory=list)

    async def message(self) -> tuple[int, bytes]:
        """Return the next message as (type, body)."""
        while not self._frames:
            frames = self.reader.feed(await self.channel.receive())
            self._frames = [(kind, frames.data[start + 5 : end]) for kind, start, end in frames.spans]
        return self._frames.pop(0)

    @property
    def settled(self) -> bool:
        """Whether everything that the target sent was read."""
        return not self._frames and not self.reader.buffered and not self.channel.unread


async def dial(
    target: Target, *, login: str, secret: Secret, parameters: Mapping[str, str], buffer: ReceiveBuffer, runs: Runs
) -> Upstream:
    """Return the target logged in as ``login``, ready for a query. Raises TargetUnavailable."""
    channel: Channel | None = None
    try:
        async with asyncio.timeout(DIAL_S):
            channel = await _connect(target, buffer)
            upstream = Upstream(channel, server_reader())
            wanted = {"user": login, "database": target.database, **parameters}
            channel.write(startup.encode_startup(wanted))
            await _authenticate(upstream, target, login, secret, runs)
            await _until_ready(upstream)
            return upstream
    except (OSError, TimeoutError, ChannelClosed, RemoteViolation, scram.ProofRefused) as error:
        if channel is not None:
            channel.abort()
        raise TargetUnavailable("the target could not be reached", why=repr(error), target=target.name) from error
    except BaseException:
        if channel is not None:
            channel.abort()
        raise


def target_parameters(target: Target, txn: Txn, client: Mapping[str, str]) -> dict[str, str]:
    """Return the startup parameters for the target: the client's own that are allowed, and ours on top. Pure.

    ``standard_conforming_strings`` and ``client_encoding`` are pinned because the statement parser assumes them: with
    another value the same bytes are other literals.
    """
    kept = {name: value for name, value in client.items() if name not in ("database", "application_name")}
    return {
        **kept,
        "application_name": application_name(txn, client.get("application_name", "")),
        "client_encoding": "UTF8",
        "standard_conforming_strings": "on",
        "search_path": search_path(target),
    }


def search_path(target: Target) -> str:
    """Return the pinned path: the target's, with ``pg_temp`` last, so that no temporary table stands for a real one
    (an unlisted ``pg_temp`` would be searched first). Pure."""
    return ", ".join(_quoted(name) for name in (*_without_temp(target.search_path), "pg_temp"))


def application_name(txn: Txn, client: str) -> str:
    """Return ``txn:TXN`` and as much of the client's own name as fits, in ASCII as the server would make it. Pure."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in client)
    return f"txn:{txn} {shown}".strip()[:APPLICATION_NAME_BYTES]


def _without_temp(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in path if name != "pg_temp")


def _quoted(name: str) -> str:
    return name if _PLAIN_NAME.match(name) else '"' + name.replace('"', '""') + '"'


def is_loopback(host: str) -> bool:
    """Whether ``host`` is an address (or the name) of this machine alone. Pure."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def client_context(ca_pem: str) -> ssl.SSLContext:
    """Return the TLS of the client's side: our CA for this target and no other, the name checked, TLS 1.2 at least."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_pem)
    return context


async def _connect(target: Target, buffer: ReceiveBuffer) -> Channel:
    loop = asyncio.get_running_loop()
    plaintext = target.plaintext and is_loopback(target.host)
    if not plaintext and not target.ca_pem:
        raise TargetUnavailable("the target has no CA to be verified with", target=target.name)
    _, channel = await loop.create_connection(lambda: Channel(buffer), target.host, target.port)
    try:
        if not plaintext:
            await _encrypt(channel, target)
    except BaseException:
        channel.abort()
        raise
    return channel


async def _encrypt(channel: Channel, target: Target) -> None:
    channel.write(startup.encode_request(startup.SSL_REQUEST))
    answer = await channel.receive()
    if answer != b"S" or channel.unread:
        raise RemoteViolation("the target does not begin TLS")
    context = client_context(target.ca_pem)
    await channel.start_tls(context, server_side=False, server_hostname=target.host)


async def _authenticate(upstream: Upstream, target: Target, login: str, secret: Secret, runs: Runs) -> None:
    exchange: scram.ScramClient | None = None
    proved = False
    while True:
        kind, body = await upstream.message()
        if kind == messages.ERROR:
            raise _refused(body, target)
        if kind in (messages.NOTICE, ord("v")):
            continue
        if kind != messages.AUTHENTICATION:
            raise RemoteViolation("something else where authentication is")
        reader = messages.Body(body)
        method, rest = reader.int32(), reader.rest()
        match method:
            case 0:
                if exchange is not None and not proved:
                    raise RemoteViolation("the target skipped its proof")
                return
            case 3:
                if upstream.channel.tls is None and not is_loopback(target.host):
                    raise RemoteViolation("a cleartext password over plaintext")
                upstream.channel.write(frame(b"p", secret.expose().encode() + b"\0"))
            case 5:
                upstream.channel.write(frame(b"p", _md5(login, secret, rest) + b"\0"))
            case 10:
                exchange = _begin_scram(upstream, secret, rest)
            case 11 if exchange is not None:
                # Off the loop: a target may ask for a million rounds of PBKDF2, half a second of everybody's time.
                upstream.channel.write(frame(b"p", await runs.run(exchange.final, rest)))
            case 12 if exchange is not None:
                exchange.verify(rest)
                proved = True
            case _:
                raise RemoteViolation("an authentication method that is not known")


def _begin_scram(upstream: Upstream, secret: Secret, offered: bytes) -> scram.ScramClient:
    names = [name.decode("ascii", "replace") for name in offered.split(b"\0") if name]
    tls = upstream.channel.tls
    certificate = tls.getpeercert(True) if tls is not None else None
    exchange = scram.ScramClient(
        secret.expose(),
        offered=names,
        nonce=secrets.token_urlsafe(18),
        binding=endpoint_hash(certificate) if certificate else None,
    )
    first = exchange.first
    size = len(first).to_bytes(4, "big")
    upstream.channel.write(frame(b"p", exchange.mechanism.encode() + b"\0" + size + first))
    return exchange


def _md5(login: str, secret: Secret, salt: bytes) -> bytes:
    """PostgreSQL's own MD5 exchange (chapter 55.2.1): a target that insists on it gets it, over verified TLS."""
    inner = hashlib.md5(secret.expose().encode() + login.encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


async def _until_ready(upstream: Upstream) -> None:
    while True:
        kind, body = await upstream.message()
        match kind:
            case messages.PARAMETER_STATUS:
                name, value = messages.parse_parameter_status(body)
                upstream.parameters[name] = value
            case messages.BACKEND_KEY:
                upstream.process, upstream.secret = messages.parse_backend_key(body)
            case messages.READY:
                return
            case messages.NOTICE:
                continue
            case messages.ERROR:
                raise RemoteViolation("the target refused the login's settings")
            case _:
                raise RemoteViolation("something else before the first query")


def _refused(body: bytes, target: Target) -> TargetUnavailable:
    told = fields.parse_fields(body)
    return TargetUnavailable(
        "the target refused the broker's login",
        target=target.name,
        sqlstate=told.get("C", b"").decode("ascii", "replace"),
        message=told.get("M", b"").decode("utf-8", "replace"),
    )


async def ask(upstream: Upstream, text: str) -> list[list[str | None]]:
    """Return the rows of one of the broker's own statements, as text. Raises TargetUnavailable."""
    try:
        async with asyncio.timeout(CATALOGUE_S):
            return await _ask(upstream, text)
    except (TimeoutError, ChannelClosed, RemoteViolation) as error:
        raise TargetUnavailable("the target's catalogue could not be read", why=repr(error)) from error


async def _ask(upstream: Upstream, text: str) -> list[list[str | None]]:
    upstream.channel.write(messages.encode_query(text.encode()))
    rows: list[list[str | None]] = []
    taken, failure = 0, ""
    while True:
        kind, body = await upstream.message()
        match kind:
            case messages.DATA_ROW:
                taken += len(body)
                if taken > MAX_ANSWER_BYTES:
                    raise RemoteViolation("an answer that is too large")
                values = messages.parse_row(body)
                rows.append([None if value is None else value.decode("utf-8", "surrogateescape") for value in values])
            case messages.ERROR:
                failure = fields.parse_fields(body).get("C", b"").decode("ascii", "replace")
            case messages.READY if failure:
                raise TargetUnavailable("the target's catalogue could not be read", sqlstate=failure)
            case messages.READY:
                return rows
            case messages.ROW_DESCRIPTION | messages.COMMAND_COMPLETE | messages.NOTICE | messages.PARAMETER_STATUS:
                continue
            case _:
                raise RemoteViolation("an answer that does not fit the question")


async def cancel(target: Target, process: int, secret: bytes, buffer: ReceiveBuffer) -> None:
    """Ask the target to cancel what ``process`` runs. Best effort, as PostgreSQL's own cancel is; never raises."""
    try:
        async with asyncio.timeout(CANCEL_S):
            channel = await _connect(target, buffer)
            try:
                channel.write(startup.encode_cancel(process, secret))
                await channel.wait_closed()
            finally:
                channel.abort()
    except (OSError, TimeoutError, ChannelClosed, RemoteViolation, TargetUnavailable) as error:
        _log.warning("a cancel did not reach the target", extra={"target": target.name, "why": type(error).__name__})
