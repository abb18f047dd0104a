"""The whole control plane in one process: the real app, services, policy and signatures, over memory stores.

What is not real here is AWS (memory stores that keep the contracts), time, the CI's issuer (a real RSA key), and Slack
(:class:`Workspace`, which keeps blocks as Slack does and signs its clicks with the real scheme).

    plane = ControlPlane()
    answer = plane.ask(plane.token(), "orders-dev")         # POST /v1/sessions
    plane.workspace.click(plane, plane.cards()[0], "UALICE")  # a signed POST /slack/events
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import html
import io
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import jwt
from aws_lambda_powertools import Logger
from chalice.test import Client, HTTPResponse
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from chalicelib.api.application import application
from chalicelib.api.audit_log import LogAudit
from chalicelib.api.edge import Broker, Plane
from chalicelib.config.bundle import Bundle
from chalicelib.config.files import bundle_digest, encode_bundle
from chalicelib.config.loader import load_bundle
from chalicelib.domain.activation import Activation, bundle_key
from chalicelib.domain.ask import Ask
from chalicelib.domain.audit import AuditEvent
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.secret import Secret
from chalicelib.domain.store import Functions
from chalicelib.identity.jws import sign_activation
from chalicelib.policy.engine import compile_policy
from chalicelib.services.assembly import (
    Parts,
    api_services,
    cards_service,
    decide_service,
    hold_service,
    mint_service,
    open_token_service,
    review_service,
    sign_off_service,
    sign_services,
    vouch_copy_service,
)
from chalicelib.services.exchange import ACCESS_TOKEN_TYPE, TICKET_TYPE
from chalicelib.services.functions import (
    decide_handler,
    hold_handler,
    mint_handler,
    open_token_handler,
    review_handler,
    sign_handler,
    sign_off_handler,
    vouch_copy_handler,
)
from chalicelib.services.identify import BEARER, DPOP, Presented
from chalicelib.services.post_cards import AnswerPut, AskPut, CardPlace, PostCards, Record
from chalicelib.slack.clicks import Clicks
from chalicelib.slack.signature import SlackSignature
from tests.fakes.clock import FakeClock
from tests.fakes.contract import held_to_contract
from tests.fakes.keys import PUBLIC_URL as OUR_URL
from tests.fakes.keys import Key
from tests.fakes.memory import MemoryStores

ROOT: Final = Path(__file__).resolve().parents[2]
PUBLIC_URL: Final = OUR_URL
AUDIENCE: Final = f"{PUBLIC_URL}/v1"
ISSUER: Final = "https://token.actions.githubusercontent.com"
TOOLS_ISSUER: Final = "https://tools.example.com"
SIGNING_SECRET: Final = "8f742231b10e8888abcd99yyyzzz85a5"
TEAM: Final = "T0ACME"
CHANNEL: Final = "C0APPROVALS"
BROKER: Final = Broker(
    host="broker.example.com",
    postgres_port=5432,
    ca_pem="-----BEGIN CERTIFICATE-----\nMII\n-----END",
    ssh_port=2222,
    ssh_host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd4sx/GVwBqsoZrDIqGeRwmdbxmhsLRYrK7NclAM1qB",
)

_TARGET: Final = """
  {name}:
    protocol: postgres
    environment: {environment}
    description: The {name} database
    host: 127.0.0.1
    port: 5432
    database: orders
    plaintext: true
    principals:
      app: {{credential: countersign/targets/{name}/app}}
    default_principal: app
    max_session_s: 1800
"""
FILES: Final[Mapping[str, str]] = {
    "targets.yaml": "targets:"
    + _TARGET.format(name="orders-prod", environment="prod")
    + _TARGET.format(name="orders-dev", environment="dev")
    + _TARGET.format(name="payroll", environment="prod"),
    "issuers.yaml": f"""
issuers:
  github:
    kind: github
    root: run
    audience: {PUBLIC_URL}
    require: {{repository_owner_id: ["9001"]}}
    teams:
      - {{team: pipeline, when: {{repository_id: "700"}}}}
  tools:
    kind: generic
    url: {TOOLS_ISSUER}
    jwks_uri: {TOOLS_ISSUER}/keys
    audience: {PUBLIC_URL}
    algorithms: [RS256]
    many_tenants: false
    subject: [sub]
    run: [sub, instance]
    display: [sub]
    accountable: []
    keep: [instance]
    max_lifetime_s: 600
    teams:
      - {{team: pipeline, when: {{sub: schema-tool}}}}
""",
    "approvers.yaml": f"""
groups: {{dba: Databases, release: Deployments}}
people:
  alice: {{name: Alice, groups: [dba], slack: {{team: {TEAM}, user: UALICE}}}}
  bob: {{name: Bob, groups: [dba], slack: {{team: {TEAM}, user: UBOB}}}}
  carol: {{name: Carol, groups: [release], slack: {{team: {TEAM}, user: UCAROL}}}}
  dave: {{name: Dave, groups: [dba], slack: {{team: {TEAM}, user: UDAVE}}, aliases: ["gh:actor_id:1001"]}}
""",
    "masking.yaml": "masks: {}\n",
    "policies/main.cedar": """
@id("pipeline-opens") permit (principal in Team::"pipeline", action == Action::"session:open", resource);
@id("prod-open") @requires("approval:dba:1") @hint("ask the dba on call")
forbid (principal, action == Action::"session:open", resource in Env::"prod")
    unless { context.met.contains("prod-open") };
@id("pipeline-delegates") permit (principal in Team::"pipeline", action == Action::"chain:delegate", resource);
@id("no-payroll") @hint("payroll is closed to pipelines")
forbid (principal, action, resource == Target::"payroll");
""",
}


@lru_cache(1)
def issuer_key() -> rsa.RSAPrivateKey:
    """The CI issuer's key: one for the whole test run, since making one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@lru_cache(16)
def bundle_of(files: tuple[tuple[str, str], ...], serial: int) -> Bundle:
    return load_bundle({name: text.encode() for name, text in files}, compile_policy, serial=serial)


class ActiveFiles:
    """Implements ``Bundles`` over files in memory; ``activate`` replaces some of them under the next serial."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)
        self.serial = 1
        self.activated: Callable[[], object] = lambda: None
        self.epoch_at: datetime | None = None

    def activate(self, **changed: str) -> None:
        """``activate(approvers="...")`` replaces approvers.yaml, ``policy`` the policy file."""
        names = {"policy": "policies/main.cedar"}
        self.files |= {names.get(name, f"{name}.yaml"): text for name, text in changed.items()}
        self.serial += 1
        self.activated()

    def current(self) -> Bundle:
        bundle = bundle_of(tuple(sorted(self.files.items())), self.serial)
        return bundle if self.epoch_at is None else replace(bundle, epoch_at=self.epoch_at)

    def for_new_sessions(self) -> Bundle:
        return self.current()


@dataclass(kw_only=True)
class Card:
    """A message in the workspace's channel."""

    place: CardPlace
    text: str
    blocks: list[dict[str, Any]]

    @property
    def ask_id(self) -> str:
        return next((str(b["value"]) for b in _buttons(self.blocks)), "")

    @property
    def is_open(self) -> bool:
        return bool(_buttons(self.blocks))


@dataclass(kw_only=True)
class Workspace:
    """Slack: keeps cards, and clicks them. Implements ``CardPoster``; ``down`` makes every call fail,
    ``while_posting`` happens while Slack takes its time."""

    cards: list[Card] = field(default_factory=list)
    down: bool = False
    while_posting: Callable[[], object] = field(default=lambda: None)

    def post(self, text: str, blocks: Sequence[Mapping[str, Json]]) -> CardPlace:
        self._check()
        self.while_posting()
        place = CardPlace(channel=CHANNEL, ts=f"1700000000.{len(self.cards):06d}")
        self.cards.append(Card(place=place, text=text, blocks=stored(blocks)))
        return place

    def update(self, place: CardPlace, text: str, blocks: Sequence[Mapping[str, Json]]) -> None:
        self._check()
        card = next(card for card in self.cards if card.place == place)
        card.text, card.blocks = text, stored(blocks)

    def _check(self) -> None:
        if self.down:
            raise StoreUnavailable("Slack could not be reached")


def stored(blocks: Sequence[Mapping[str, Json]]) -> list[dict[str, Any]]:
    """Return blocks as Slack gives them back: with ids, filled-in flags, and the three characters escaped."""
    kept: list[dict[str, Any]] = json.loads(json.dumps(list(blocks)))
    for block in kept:
        block["block_id"] = secrets.token_urlsafe(4)
        _fill(block)
    return kept


def _fill(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _fill(item)
    if not isinstance(node, dict):
        return
    if node.get("type") == "mrkdwn":
        node["verbatim"] = False
    if node.get("type") == "plain_text":
        node["emoji"] = True
    if isinstance(node.get("text"), str):
        node["text"] = html.escape(html.unescape(node["text"]), quote=False)
    for item in list(node.values()):
        _fill(item)


def _buttons(blocks: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [item for block in blocks if block["type"] == "actions" for item in block["elements"]]


@dataclass(kw_only=True)
class Events:
    """Takes audit events."""

    seen: list[AuditEvent] = field(default_factory=list)

    def record(self, event: AuditEvent) -> None:
        self.seen.append(event)

    def names(self) -> list[str]:
        return [event.name.value for event in self.seen]


class ControlPlane:
    """The app over HTTP (:attr:`http`), and its functions behind memory's Lambda."""

    def __init__(self, *, waiters: int = 4, files: Mapping[str, str] = FILES, public_url: str = PUBLIC_URL) -> None:
        """``public_url``: where it is reached, where something serves it on a socket (``served_plane``)."""
        self.clock = FakeClock()
        self.paused_s = 0.0
        self.on_pause: Callable[[], object] = lambda: None
        self.stores = MemoryStores()
        self.public_url = public_url
        self.bundles = ActiveFiles({name: text.replace(PUBLIC_URL, public_url) for name, text in files.items()})
        self.bundles.activated = self._activate
        self._activate()
        self.events = Events()
        self.workspace = Workspace()
        self.log = io.StringIO()
        self.logger = Logger(service=f"test-{secrets.token_hex(4)}", stream=self.log)
        self.parts = Parts(
            stores=self.stores,
            bundles=self.bundles,
            clock=self.clock,
            audit=self.events,
            public_url=public_url,
            audience=f"{public_url}/v1",
        )
        self.signature = SlackSignature(lambda: Secret(SIGNING_SECRET), self.clock)
        self.poster: PostCards = cards_service(self.parts, self.workspace)
        self.decide = decide_service(self.parts, self.signature)
        self.mint = mint_service(self.parts)
        functions = self.stores.functions
        functions.register("sign", sign_handler(sign_services(self.parts, self.issuer_keys)))
        functions.register("decide", decide_handler(self.decide))
        functions.register("mint", mint_handler(self.mint))
        functions.register("review", review_handler(self.parts.identify(), review_service(self.parts)))
        functions.register("open_token", open_token_handler(self.parts.identify(), open_token_service(self.parts)))
        functions.register("sign_off", sign_off_handler(self.parts.identify(), sign_off_service(self.parts)))
        functions.register("vouch_copy", vouch_copy_handler(self.parts.identify(), vouch_copy_service(self.parts)))
        functions.register("hold", hold_handler(self.parts.identify(), hold_service(self.parts)))
        self.plane = self._plane(functions, waiters)
        self.app = application(lambda: self.plane, self.logger)
        self.http = held_to_contract(Client(self.app, stage_name="local", project_dir=str(ROOT)).http)

    def _plane(self, functions: Functions, waiters: int) -> Plane:
        clicks = Clicks(verify=self.signature, functions=functions)
        return Plane(
            services=api_services(self.parts, waiters=waiters, pause=self._pause),
            slack=lambda: clicks,
            broker=BROKER,
            clock=self.clock,
        )

    def _activate(self) -> None:
        """Put the bundle that is active now, and its signed activation, where a deployment has them."""
        files = {name: text.encode() for name, text in self.bundles.files.items()}
        bundle_digest_now, rows = bundle_digest(files), self.stores.activations.rows
        if bundle_key(bundle_digest_now) not in self.stores.objects.rows:
            self.stores.objects.put_new(
                bundle_key(bundle_digest_now), encode_bundle(files), content_type="application/json"
            )
        made = Activation(
            serial=self.bundles.serial,
            bundle_digest=bundle_digest_now,
            previous_digest=rows[-1].bundle_digest if rows else "",
            author="tests",
            activated_at=self.clock.now(),
        )
        self.stores.activations.put(sign_activation(self.stores.signer("activation"), made))

    def _pause(self, seconds: float) -> None:
        self.paused_s += seconds
        self.clock.advance(seconds)
        self.on_pause()

    # -- the CI's issuer -------------------------------------------------------------------------------------------

    def issuer_keys(self, _jwks_uri: str) -> Mapping[str, Any]:
        jwk = RSAAlgorithm.to_jwk(issuer_key().public_key(), as_dict=True)
        return {"keys": [{**jwk, "kid": "ci-1", "alg": "RS256", "use": "sig"}]}

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return the claims of a fresh token of one run; None leaves a claim out."""
        now = int(self.clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": self.public_url,
            "sub": "repo:acme/orders:ref:refs/heads/main",
            "iat": now,
            "nbf": now - 5,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
            "repository": "acme/orders",
            "repository_id": "700",
            "repository_owner_id": "9001",
            "workflow": "deploy",
            "run_id": "5001",
            "run_attempt": "1",
            "event_name": "push",
            "ref": "refs/heads/main",
            "actor": "dave-dunn",
            "actor_id": "1001",
        }
        return {name: value for name, value in (claims | changed).items() if value is not None}

    def ci_token(self, **changed: Any) -> str:
        return jwt.encode(self.claims(**changed), issuer_key(), algorithm="RS256", headers={"kid": "ci-1"})

    # -- HTTP ------------------------------------------------------------------------------------------------------

    def exchange(
        self, token: str, *, key: Key | None = None, proof: str | None = None, **changed: str | None
    ) -> HTTPResponse:
        """``POST /v1/token`` with a good form, changed; None leaves a field out. ``key`` is proved, else ``proof`` is
        the ``DPoP`` header as it is."""
        form: dict[str, str | None] = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "audience": PUBLIC_URL,
        }
        sent = urlencode({name: value for name, value in (form | changed).items() if value is not None})
        shown = key.proof(self.clock, "POST", "/v1/token") if key is not None else proof
        return self.post_form("/v1/token", sent, **({} if shown is None else {"dpop": shown}))

    def post_form(self, path: str, body: str, **headers: str) -> HTTPResponse:
        given = {"content-type": "application/x-www-form-urlencoded"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        return self.http.post(path, headers=given, body=body.encode())

    def token(self, *, key: Key | None = None, **changed: Any) -> str:
        """Return an access token of a run, of ``key`` where one is given."""
        answer = self.exchange(self.ci_token(**changed), key=key)
        assert answer.status_code == 200, answer.json_body
        return str(answer.json_body["access_token"])

    def redeem(
        self, ticket: str, *, key: Key | None = None, actor_token: str | None = None, **changed: str | None
    ) -> HTTPResponse:
        """``POST /v1/token`` with a ticket, by whoever has ``key`` and, where its issuer is named, ``actor_token``."""
        form: dict[str, str | None] = {
            "subject_token_type": TICKET_TYPE,
            "actor_token": actor_token,
            "actor_token_type": None if actor_token is None else "urn:ietf:params:oauth:token-type:jwt",
        }
        return self.exchange(ticket, key=key, **(form | changed))

    def refresh(self, token: str, *, key: Key | None = None, **changed: str | None) -> HTTPResponse:
        """``POST /v1/token`` with an access token of ours."""
        return self.exchange(token, key=key, **({"subject_token_type": ACCESS_TOKEN_TYPE} | changed))

    def authorized(self, token: str, method: str, path: str, key: Key | None) -> dict[str, str]:
        """Return the headers with which ``token`` is presented: with a proof of ``key`` where it is bound to one."""
        if key is None:
            return {"authorization": f"Bearer {token}"}
        return {"authorization": f"DPoP {token}", "dpop": key.proof(self.clock, method, path, token)}

    def presented(self, token: str, method: str, path: str, key: Key | None = None) -> Presented:
        """Return what a service is told of the same request."""
        proof = key.proof(self.clock, method, path, token) if key is not None else ""
        return Presented(token=token, scheme=DPOP if key is not None else BEARER, proof=proof, method=method, path=path)

    def delegate(
        self, token: str, redeemer: Key | Mapping[str, Any], *, by: Key | None = None, **body: Any
    ) -> HTTPResponse:
        """``POST /v1/delegations`` by the hop of ``token`` and its key ``by``, for a key or what names the redeemer."""
        named = {"key": redeemer.thumbprint} if isinstance(redeemer, Key) else redeemer
        return self.post("/v1/delegations", token, {"redeemer": named, "name": "deploy-svc"} | body, by=by)

    def ticket(self, token: str, redeemer: Key | Mapping[str, Any], *, by: Key | None = None, **body: Any) -> str:
        """Return the text of a ticket."""
        answer = self.delegate(token, redeemer, by=by, **body)
        assert answer.status_code == 201, answer.json_body
        return str(answer.json_body["ticket"])

    def child(self, token: str, key: Key, *, by: Key | None = None, **body: Any) -> str:
        """Return an access token of a child that the hop of ``token`` let in, and whose key is ``key``."""
        answer = self.redeem(self.ticket(token, key, by=by, **body), key=key)
        assert answer.status_code == 200, answer.json_body
        return str(answer.json_body["access_token"])

    def tool_token(self, **changed: Any) -> str:
        """Return a fresh token of ``TOOLS_ISSUER`` about a tool; None leaves a claim out."""
        now = int(self.clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": TOOLS_ISSUER,
            "aud": self.public_url,
            "sub": "schema-tool",
            "instance": "pod-1",
            "iat": now,
            "exp": now + 300,
            "jti": secrets.token_hex(8),
        }
        told = {name: value for name, value in (claims | changed).items() if value is not None}
        return jwt.encode(told, issuer_key(), algorithm="RS256", headers={"kid": "ci-1"})

    def post(
        self,
        path: str,
        token: str,
        body: Mapping[str, Any],
        *,
        by: Key | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HTTPResponse:
        """``POST`` of JSON by the hop of ``token`` and its key ``by``."""
        given = self.authorized(token, "POST", path, by) | {"content-type": "application/json", **(headers or {})}
        return self.http.post(path, headers=given, body=json.dumps(dict(body)).encode())

    def ask(
        self,
        token: str,
        target: str,
        *,
        key: str | None = None,
        by: Key | None = None,
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> HTTPResponse:
        """``POST /v1/sessions``. ``key`` is the Idempotency-Key, ``by`` the key that the token is bound to."""
        given = {"idempotency-key": key} if key is not None else {}
        sent = {"target": target, "reason": "deploy 7"} | body
        return self.post("/v1/sessions", token, sent, by=by, headers={**given, **(headers or {})})

    def targets(self, token: str, *, by: Key | None = None) -> list[dict[str, Any]]:
        """``GET /v1/targets``."""
        answer = self.http.get("/v1/targets", headers=self.authorized(token, "GET", "/v1/targets", by))
        listed: list[dict[str, Any]] = answer.json_body["targets"]
        return listed

    def poll(self, token: str, session_id: str, query: str = "", *, by: Key | None = None) -> HTTPResponse:
        path = f"/v1/sessions/{session_id}"
        return self.http.get(f"{path}{query}", headers=self.authorized(token, "GET", path, by))

    def close(self, token: str, session_id: str, *, by: Key | None = None) -> HTTPResponse:
        path = f"/v1/sessions/{session_id}"
        return self.http.delete(path, headers=self.authorized(token, "DELETE", path, by))

    # -- Slack -----------------------------------------------------------------------------------------------------

    def pump(self) -> int:
        """Deliver every ask and answer to the card poster, as the tables' streams do (at least once)."""
        records: list[Record] = [AskPut(ask_id=ask_id) for ask_id in self.stores.asks.rows]
        records += [AnswerPut(ask_id=ask_id) for ask_id, _ in self.stores.answers.rows]
        return self.poster(records)

    def card(self) -> Card:
        """Return the one card, after pumping."""
        self.pump()
        (card,) = self.workspace.cards
        return card

    def payload(self, card: Card, user: str, action: str = "approve", **changed: Any) -> dict[str, Any]:
        """Return what Slack would send for a click on ``card``."""
        return {
            "type": "block_actions",
            "team": {"id": TEAM},
            "user": {"id": user, "team_id": TEAM},
            "api_app_id": "A1",
            "channel": {"id": card.place.channel},
            "message": {"ts": card.place.ts, "blocks": card.blocks},
            "container": {"type": "message", "channel_id": card.place.channel, "message_ts": card.place.ts},
            "actions": [
                {"type": "button", "action_id": action, "block_id": "b", "value": card.ask_id, "action_ts": "1.1"}
            ],
            "trigger_id": secrets.token_hex(4),
        } | changed

    def signed(self, body: str, *, age_s: float = 0, secret: str = SIGNING_SECRET) -> dict[str, str]:
        """Return the headers with which Slack sends ``body``, ``age_s`` seconds ago."""
        stamp = str(int(self.clock.now().timestamp() - age_s))
        mac = hmac.new(secret.encode(), f"v0:{stamp}:{body}".encode(), hashlib.sha256).hexdigest()
        return {"x_slack_request_timestamp": stamp, "x_slack_signature": f"v0={mac}"}

    def send(self, payload: Mapping[str, Any], *, age_s: float = 0, secret: str = SIGNING_SECRET) -> HTTPResponse:
        body = urlencode({"payload": json.dumps(payload)})
        return self.post_form("/slack/events", body, **self.signed(body, age_s=age_s, secret=secret))

    def click(self, card: Card, user: str, action: str = "approve", **changed: Any) -> HTTPResponse:
        return self.send(self.payload(card, user, action, **changed))

    # -- state -----------------------------------------------------------------------------------------------------

    def snapshot(self) -> Mapping[str, Any]:
        """Return every row of every store, to compare."""
        names = ("chains", "sessions", "connections", "asks", "answers", "uses", "revocations", "once")
        return {name: copy.deepcopy(getattr(self.stores, name).rows) for name in names}

    def the_ask(self) -> Ask:
        (ask,) = self.stores.asks.rows.values()
        return ask

    def replace_ask(self, **changed: Any) -> None:
        """Change the one Ask in its table, as whoever can write the table could."""
        ask = self.the_ask()
        self.stores.asks.rows[ask.id] = replace(ask, **changed)

    def log_audit(self) -> LogAudit:
        return LogAudit(self.logger)
