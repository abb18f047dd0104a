"""A Countersign API on a real socket, for the command line's tests: it keeps the contract of issue 3, and nothing more.

Tokens are bound: each request must prove its key (RFC 9449), and each proof counts once. Only ``iat`` is not looked at:
this server has no clock, and the tests' clocks are their own.

Two ways to use it. By contract: ``api.grant_after = 2`` makes two polls answer pending before the session is granted.
By script: ``api.answer("GET /v1/targets", status=302, headers={...})`` puts one raw answer first in line for a route.
``api.seen`` holds every request, in order.

    with ApiServer() as api:
        main(["request", "orders-prod"], {"COUNTERSIGN_API": api.url, "COUNTERSIGN_ID_TOKEN": TOKEN})
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import jwt

ID_TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjaS1ydW5uZXIifQ.c2lnbmF0dXJl"
ACCESS_TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ0b2tlbiJ9."  # every token of this server begins so
TICKET = "cst_dGhlLXRpY2tldC10aGF0LWEtcGFyZW50LWhhbmRzLW8"
HOP = "hop_01j9z3k4m5n6p7q8r9s0t1v2w6"
HOP_EXPIRES = "2026-11-02T17:30:00.000Z"
SESSION = "ses_01j9z3k4m5n6p7q8r9s0t1v2w3"
TXN = "01j9z3k4m5n6p7q8r9s0t1v2w4"
SECRET = "s3cret-of-the-session_0123456789abcdefghij"
CA_PEM = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUQUJD\n-----END CERTIFICATE-----\n"
HOST_KEY = base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + bytes(range(32))).decode()
EXPIRES = "2026-11-02T10:30:00.000Z"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as it came."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


@dataclass(kw_only=True)
class Scripted:
    """One raw answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def connection(**changed: object) -> dict[str, object]:
    """Return a `connect` object as the service sends it, with ``changed`` members."""
    return {
        "protocol": "postgres",
        "host": "127.0.0.1",
        "port": 6432,
        "ca_pem": CA_PEM,
        "user": SESSION,
        "secret": SECRET,
        "database": "orders",
        "env": {"PGHOST": "127.0.0.1", "PGPORT": "6432", "PGUSER": SESSION, "PGDATABASE": "orders"},
        "command": "psql",
    } | changed


@dataclass(frozen=True, kw_only=True)
class Proved:
    """What a request's proof proved: a key, and for which token (its hash; empty where none)."""

    thumbprint: str
    token_sha256: str


def ssh_connection(**changed: object) -> dict[str, object]:
    """Return a `connect` object of an ssh session, with ``changed`` members."""
    return {
        "protocol": "ssh",
        "host": "127.0.0.1",
        "port": 2222,
        "known_hosts": f"[127.0.0.1]:2222 ssh-ed25519 {HOST_KEY}\n",
        "user": SESSION,
        "env": {},
        "command": f"ssh -p 2222 -l {SESSION} 127.0.0.1",
    } | changed


class ApiServer:
    """The server. ``grant_after`` polls answer pending first; None: it stays pending. ``refuse`` is an error's
    (status, code, message, hint) for the request itself, ``refuse_later`` for the poll in which it would be granted."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.grant_after: int | None = 0
        self.refuse: tuple[int, str, str, str] | None = None
        self.refuse_later: tuple[int, str, str, str] | None = None
        self.connect: dict[str, object] = connection()
        self.targets: list[dict[str, object]] = []
        self.closed = False
        self.state = tempfile.TemporaryDirectory(prefix="countersign-state-")  # for XDG_STATE_HOME of a test's job
        self.roots: dict[str, str] = {}  # run to the key that its root is bound to
        self.tickets: dict[str, dict[str, Any]] = {}  # ticket to its redeemer, until it is redeemed
        self.hop_over = False  # its tokens are no longer changed for new ones
        self.token_type = "DPoP"
        self.chain: dict[str, object] = {}
        self.keys: dict[str, object] = {}
        self.certificate_ends: list[str] = []  # of the next certificates; EXPIRES where there is none left
        self.certificates = 0
        self.refuse_certificate_after: int | None = None
        self.sign: Callable[[str], str] | None = None  # a real authority, where something is to believe it
        self._used: set[str] = set()  # proofs and issuers' tokens
        self._tokens: dict[str, str] = {}  # token to its key
        self._scripted: defaultdict[str, list[Scripted]] = defaultdict(list)
        self._polls = 0
        self._taken = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._pool = ThreadPoolExecutor(max_workers=1)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._pool.submit(self._server.serve_forever, 0.01)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._pool.shutdown()
        self.state.cleanup()

    def answer(self, route: str, *, status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer the next request of ``route`` (method and path) with exactly this."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._scripted[route].append(Scripted(status=status, headers=dict(headers or {}), body=raw))

    def forget(self, route: str) -> None:
        """Leave out the raw answers of ``route`` that nobody came for."""
        self._scripted.pop(route, None)

    def bind(self, token: str, thumbprint: str) -> None:
        """Take ``token`` as one of ours, bound to that key."""
        self._tokens[token] = thumbprint

    def calls(self, route: str) -> list[Seen]:
        return [seen for seen in self.seen if f"{seen.method} {seen.path}" == route]

    def reply(self, seen: Seen) -> Scripted:
        """Return the contract's answer to ``seen``."""
        route = f"{seen.method} {seen.path}"
        if self._scripted[route]:
            return self._scripted[route].pop(0)
        if route == "GET /v1/keys":
            return _json(200, self.keys)
        try:
            proved = self._proved(seen)
        except (KeyError, ValueError, jwt.PyJWTError) as error:
            return _error(401, "invalid_dpop_proof", f"the proof: {error}", "Prove the key.")
        if route == "POST /v1/token":
            return self._token(parse_qs(seen.body.decode(), strict_parsing=True), proved.thumbprint)
        scheme, _, token = seen.headers.get("Authorization", "").partition(" ")
        if scheme != "DPoP" or token not in self._tokens:
            return _error(401, "unauthenticated", "no token", "Present a valid token.")
        if (proved.thumbprint, proved.token_sha256) != (self._tokens[token], _sha256(token)):
            return _error(401, "invalid_dpop_proof", "another key or token", "Prove the key.")
        if route == "POST /v1/delegations":
            return self._delegated(json.loads(seen.body))
        if route == f"GET /v1/chains/{TXN}" and self.chain:
            return _json(200, self.chain)
        if route == "POST /v1/replays":
            return _json(201, {"session_id": json.loads(seen.body)["session_id"], "told_at": EXPIRES})
        if route == "POST /v1/revocations":
            asked = json.loads(seen.body)
            return _json(201, {"key": f"{asked['kind']}:{asked['id']}", "number": 7, "at": EXPIRES})
        if route == f"POST /v1/sessions/{SESSION}/certificate":
            return self._certified(json.loads(seen.body)["ssh_public_key"])
        if route == "POST /v1/sessions":
            return self._opened()
        if route == f"GET /v1/sessions/{SESSION}":
            return self._polled(take=seen.query.get("take") != ["false"])
        if route == f"DELETE /v1/sessions/{SESSION}":
            self.closed = True
            return _json(200, {"session_id": SESSION, "status": "closed"})
        if route == "GET /v1/targets":
            return _json(200, {"targets": self.targets})
        return _error(404, "not_found", "no such thing", "Check the name.")

    def _proved(self, seen: Seen) -> Proved:
        """Return what the request's proof proves (RFC 9449 section 4.3). Raises KeyError, ValueError, PyJWTError."""
        proof = seen.headers["DPoP"]
        header = jwt.get_unverified_header(proof)
        jwk = header["jwk"]
        if set(header) != {"alg", "jwk", "typ"} or set(jwk) != {"kty", "crv", "x", "y"}:
            raise ValueError("a header that is not exactly that of a proof")
        claims = jwt.decode(
            proof, jwt.PyJWK(jwk, algorithm="ES256").key, algorithms=["ES256"], options={"verify_iat": False}
        )
        if header["typ"] != "dpop+jwt" or not isinstance(claims["iat"], int) or len(claims["jti"]) > 128:
            raise ValueError("not a proof")
        if (claims["htm"], claims["htu"]) != (seen.method, self.url + seen.path):
            raise ValueError("for another request")
        if claims["jti"] in self._used:
            raise ValueError("used before")
        self._used.add(claims["jti"])
        thumbprint = _b64(hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest())
        return Proved(thumbprint=thumbprint, token_sha256=claims.get("ath", ""))

    def _token(self, form: Mapping[str, list[str]], thumbprint: str) -> Scripted:
        subject, kind = form["subject_token"][0], form["subject_token_type"][0].rpartition(":")[2]
        if kind == "access_token":
            if self._tokens.get(subject) != thumbprint or self.hop_over:
                return _error(400, "token_expired", "the hop has ended", "Fetch a new token.")
        elif kind == "delegation-ticket":
            redeemer = self.tickets.get(subject)
            if redeemer is None or redeemer.get("key", thumbprint) != thumbprint:
                return _error(400, "ticket_invalid", "no such ticket", "Ask the parent.")
            if ("issuer" in redeemer) != ("actor_token" in form):
                return _error(400, "ticket_invalid", "no such ticket", "Ask the parent.")
            del self.tickets[subject]
        else:
            run = _run(subject)
            if self.roots.setdefault(run, thumbprint) != thumbprint:
                return _error(400, "run_bound", "the run has its root already", "Use its key.")
            if subject in self._used:
                return _error(400, "token_replayed", "used before", "Fetch a new token.")
            self._used.add(subject)
        token = f"{ACCESS_TOKEN}{_b64(len(self._tokens).to_bytes(8, 'big'))}"
        self._tokens[token] = thumbprint
        told = {"access_token": token, "token_type": self.token_type, "expires_in": 300, "scope": "*", "txn": TXN}
        told |= {"hop": HOP, "hop_expires_at": HOP_EXPIRES}
        return _json(200, told | {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token"})

    def _delegated(self, asked: dict[str, Any]) -> Scripted:
        if self.refuse is not None:
            return _error(*self.refuse)
        self.tickets[TICKET] = asked["redeemer"]
        told = {"ticket": TICKET, "ticket_id": f"tkt_{TXN}", "txn": TXN, "parent": HOP, "name": asked["name"]}
        told |= {"scope": asked.get("scope", "*"), "depth": 1, "max_depth": 3}
        return _json(201, told | {"expires_at": EXPIRES, "hop_expires_at": HOP_EXPIRES})

    def _certified(self, public_key: str) -> Scripted:
        """A certificate in form: type, nonce, the key that was given, and no signature that anybody checks here."""
        kind = b"ssh-ed25519-cert-v01@openssh.com"
        key = base64.b64decode(public_key.split(" ")[1])[15:]
        if self.certificates == self.refuse_certificate_after:
            return _error(403, "grant_revoked", "the session was revoked", "Ask why.")
        self.certificates += 1
        ends = self.certificate_ends.pop(0) if self.certificate_ends else EXPIRES
        if self.sign is not None:
            return _json(200, {"certificate": self.sign(public_key), "expires_at": ends})
        nonce = b"\x00\x00\x00\x20" + self.certificates.to_bytes(32, "big")
        blob = len(kind).to_bytes(4, "big") + kind + nonce + key + bytes(64)
        line = f"{kind.decode()} {base64.b64encode(blob).decode()} number-{self.certificates}"
        return _json(200, {"certificate": line, "expires_at": ends})

    def _opened(self) -> Scripted:
        if self.refuse is not None:
            return _error(*self.refuse)
        return self._granted(201) if self.grant_after == 0 else self._pending()

    def _polled(self, *, take: bool) -> Scripted:
        if self.closed:
            return _error(403, "approval_withdrawn", "the request was withdrawn", "Ask again.")
        self._polls += 1
        if self.grant_after is None or self._polls <= self.grant_after:
            return self._pending()
        if self.refuse_later is not None:
            return _error(*self.refuse_later)
        return self._granted(200, with_secret=take)

    def _granted(self, status: int, *, with_secret: bool = True) -> Scripted:
        connect = dict(self.connect)
        if self._taken or not with_secret:
            connect.pop("secret", None)
        self._taken = self._taken or with_secret
        told = {"session_id": SESSION, "status": "granted", "txn": TXN, "expires_at": EXPIRES, "connect": connect}
        return _json(status, told)

    def _pending(self) -> Scripted:
        needs = [{"rule": "prod-orders", "group": "dba", "count": 1, "missing": 1, "hint": "ask the dba on call"}]
        approval = {"id": "ask_01j9z3k4m5n6p7q8r9s0t1v2w5", "needs": needs, "expires_at": EXPIRES}
        poll = f"/v1/sessions/{SESSION}?wait_s=5"
        return _json(202, {"session_id": SESSION, "status": "pending", "approval": approval, "poll": poll})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                parts = urlsplit(self.path)
                seen = Seen(
                    method=self.command,
                    path=parts.path,
                    query=parse_qs(parts.query),
                    headers={_spelled(name): value for name, value in self.headers.items()},
                    body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
                )
                answer = api.reply(seen)
                api.seen.append(seen)
                self.send_response_only(answer.status)  # without a Date that nobody put
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            do_GET = do_POST = do_DELETE = _serve  # noqa: N815 - the names that http.server calls

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's own name
                return

        return Handler


def _spelled(name: str) -> str:
    """Return a header's name as its standard writes it: urllib has its own spelling, and HTTP knows no difference."""
    return {"dpop": "DPoP"}.get(name.lower(), name)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sha256(token: str) -> str:
    return _b64(hashlib.sha256(token.encode()).digest())


def _run(token: str) -> str:
    """Return the run that an issuer's token is of; one that names none is of its own."""
    claims = jwt.decode(token, options={"verify_signature": False}) if token != ID_TOKEN else {}
    return str(claims.get("run_id") or token)


def _json(status: int, value: Mapping[str, object]) -> Scripted:
    return Scripted(status=status, headers={"Content-Type": "application/json"}, body=json.dumps(value).encode())


def _error(status: int, code: str, message: str, hint: str) -> Scripted:
    return _json(status, {"code": code, "message": message, "hint": hint, "request_id": "req-1"})
