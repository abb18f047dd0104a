"""The control plane of the founding story: a pipeline, an agent that it lets in by key, a tool that its issuer vouches
for below that, an ssh target, and a person of security.

    world = World()
    world.runner, world.agent, world.tool       # each a Hop's holder: .token, .key
    world.carol                                 # may revoke and review anything
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import jwt
from chalice.test import HTTPResponse
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.fakes.control_plane import FILES, ControlPlane, issuer_key
from tests.fakes.keys import Key

PEOPLE_ISSUER: Final = "https://idp.example.com"
CLIENT_ID: Final = "countersign-cli"  # the audience of an id token is the client that its person logged in with
_HOST_KEY: Final = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd4sx/GVwBqsoZrDIqGeRwmdbxmhsLRYrK7NclAM1qB"
STORY: Final[Mapping[str, str]] = {
    **FILES,
    "targets.yaml": FILES["targets.yaml"]
    + f"""
  db-dev:
    protocol: ssh
    environment: dev
    description: The machine of the dev database
    host: 127.0.0.1
    port: 22
    host_keys: ["{_HOST_KEY}"]
    principals:
      deploy: {{credential: certificate, login: deploy}}
    default_principal: deploy
    max_session_s: 1800
""",
    "issuers.yaml": FILES["issuers.yaml"]
    + f"""
  people:
    kind: generic
    url: {PEOPLE_ISSUER}
    jwks_uri: {PEOPLE_ISSUER}/keys
    algorithms: [RS256]
    many_tenants: false
    subject: [sub]
    run: [sub, jti]
    display: [sub]
    accountable: []
    keep: []
    max_lifetime_s: 600
    client_id: {CLIENT_ID}
    teams:
      - {{team: security, when: {{sub: carol}}}}
""",
    "policies/main.cedar": FILES["policies/main.cedar"]
    + """
@id("security-ends") permit (principal in Team::"security", action == Action::"chain:revoke", resource);
@id("security-reviews") permit (principal in Team::"security", action == Action::"chain:review", resource);
""",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Somebody with a token, and the key that it is bound to, where it is."""

    token: str
    key: Key | None = None


class World:
    """``plane`` with a chain of three hops, and people. Each appears when a test first speaks of them."""

    def __init__(self) -> None:
        self.plane = ControlPlane(files=STORY)

    def everybody(self) -> World:
        """Let all of them appear, and return the world."""
        for holder in (self.runner, self.agent, self.tool, self.sibling, self.stranger, self.carol, self.dave):
            assert holder.token
        return self

    @cached_property
    def runner(self) -> Holder:
        return self._runner("5001")

    @cached_property
    def agent(self) -> Holder:
        return self._child(self.runner, "deploy-svc")

    @cached_property
    def tool(self) -> Holder:
        return self._child(self.agent, "schema-tool")

    @cached_property
    def sibling(self) -> Holder:
        return self._child(self.runner, "linter")

    @cached_property
    def stranger(self) -> Holder:
        return self._runner("6001")

    @cached_property
    def carol(self) -> Holder:
        return self.person("carol")

    @cached_property
    def dave(self) -> Holder:
        return self.person("dave")

    def person(self, name: str) -> Holder:
        now = int(self.plane.clock.now().timestamp())
        claims = {
            "iss": PEOPLE_ISSUER,
            "aud": CLIENT_ID,
            "sub": name,
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
        }
        token = jwt.encode(claims, issuer_key(), algorithm="RS256", headers={"kid": "ci-1"})
        answer = self.plane.exchange(token)
        assert answer.status_code == 200, answer.json_body
        return Holder(token=str(answer.json_body["access_token"]))

    def hop(self, holder: Holder) -> str:
        claims = jwt.decode(holder.token, options={"verify_signature": False})
        return str(claims["hop"])

    def txn(self, holder: Holder) -> str:
        claims = jwt.decode(holder.token, options={"verify_signature": False})
        return str(claims["txn"])

    def session(self, holder: Holder, target: str = "orders-dev", **body: Any) -> str:
        answer = self.plane.ask(holder.token, target, by=holder.key, **body)
        assert answer.status_code in (201, 202), answer.json_body
        return str(answer.json_body["session_id"])

    def get(self, holder: Holder, path: str) -> HTTPResponse:
        return self.plane.http.get(path, headers=self.plane.authorized(holder.token, "GET", path, holder.key))

    def post(self, holder: Holder, path: str, **body: Any) -> HTTPResponse:
        return self.plane.post(path, holder.token, body, by=holder.key)

    def revoke(self, holder: Holder, kind: str, id_: str, why: str = "the demo is over") -> HTTPResponse:
        return self.post(holder, "/v1/revocations", kind=kind, id=id_, why=why)

    def _runner(self, run: str) -> Holder:
        key = Key()
        return Holder(token=self.plane.token(key=key, run_id=run), key=key)

    def _child(self, parent: Holder, name: str) -> Holder:
        key = Key()
        return Holder(token=self.plane.child(parent.token, key, by=parent.key, name=name), key=key)


def ssh_key() -> str:
    """Return a new public key as its .pub file has it."""
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " me@laptop"
