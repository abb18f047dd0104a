"""The services of each function, put together over the domain's protocols: what composition roots and tests share.

Rule: a function gets what its own verbs need and no more, as its role does. Makes no call and reads no setting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import AuditLog
from chalicelib.domain.clock import Clock
from chalicelib.domain.identity import VerifiedIdentity
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Functions, Keys, Stores
from chalicelib.identity.issuers import IssuerVerifier
from chalicelib.identity.jwks import FetchJwks
from chalicelib.identity.tokens import TokenIssuer, verify_access_token
from chalicelib.services.close import CloseSession
from chalicelib.services.decide import Decide, SlackRequest
from chalicelib.services.evidence import Evidence
from chalicelib.services.exchange import Exchange
from chalicelib.services.identify import Identify
from chalicelib.services.mint import Mint
from chalicelib.services.poll import PollSession, WaitingRoom
from chalicelib.services.post_cards import CardPoster, PostCards
from chalicelib.services.request import RequestSession
from chalicelib.services.settle import Settle
from chalicelib.services.targets import ListTargets


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What every function is made of. ``public_url`` issues our tokens, ``audience`` takes them."""

    stores: Stores
    bundles: Bundles
    clock: Clock
    audit: AuditLog
    public_url: str
    audience: str

    def evidence(self) -> Evidence:
        return Evidence(chains=self.stores.chains, answers=self.stores.answers, keys=self.stores.keys)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiServices:
    """What the API function does itself; tokens and clicks are other functions' work."""

    identify: Identify
    request: RequestSession
    poll: PollSession
    close: CloseSession
    targets: ListTargets
    functions: Functions
    keys: Keys


class Issuers:
    """Keeps one verifier for the declarations of the active bundle, so that issuers' keys stay cached."""

    def __init__(self, fetch_jwks: FetchJwks, clock: Clock) -> None:
        self._fetch = fetch_jwks
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: tuple[str, IssuerVerifier] | None = None

    def verify(self, bundle: Bundle, token: str) -> VerifiedIdentity:
        """Return who ``token`` is about, by the declarations of ``bundle``; raises as IssuerVerifier.verify."""
        with self._lock:
            if self._kept is None or self._kept[0] != bundle.digest:
                self._kept = (bundle.digest, IssuerVerifier(bundle.issuers, self._fetch, self._clock))
            verifier = self._kept[1]
        return verifier.verify(token)


def api_services(parts: Parts, *, waiters: int, pause: Callable[[float], None]) -> ApiServices:
    """Return the API's services. ``waiters``: how many may wait at once; ``pause`` sleeps for seconds."""
    stores, clock, audit = parts.stores, parts.clock, parts.audit
    evidence = parts.evidence()
    settle = Settle(
        bundles=parts.bundles,
        sessions=stores.sessions,
        asks=stores.asks,
        uses=stores.uses,
        revocations=stores.revocations,
        evidence=evidence,
        clock=clock,
        audit=audit,
    )
    verify = partial(
        verify_access_token, keys=stores.keys, issuer_url=parts.public_url, audience=parts.audience, clock=clock
    )
    return ApiServices(
        identify=Identify(verify=verify, evidence=evidence, revocations=stores.revocations, clock=clock),
        request=RequestSession(
            bundles=parts.bundles,
            sessions=stores.sessions,
            asks=stores.asks,
            once=stores.once,
            revocations=stores.revocations,
            settle=settle,
            clock=clock,
            audit=audit,
        ),
        poll=PollSession(
            sessions=stores.sessions,
            settle=settle,
            room=WaitingRoom(once=stores.once, places=waiters, clock=clock),
            clock=clock,
            pause=pause,
        ),
        close=CloseSession(
            sessions=stores.sessions, uses=stores.uses, revocations=stores.revocations, clock=clock, audit=audit
        ),
        targets=ListTargets(bundles=parts.bundles, clock=clock),
        functions=stores.functions,
        keys=stores.keys,
    )


def exchange_service(parts: Parts, fetch_jwks: FetchJwks) -> Exchange:
    """Return what the ``sign`` function does."""
    stores, clock = parts.stores, parts.clock
    signer = stores.signer(KeyPurpose.TOKEN.value)
    return Exchange(
        bundles=parts.bundles,
        once=stores.once,
        chains=stores.chains,
        evidence=parts.evidence(),
        revocations=stores.revocations,
        verify=Issuers(fetch_jwks, clock).verify,
        signer=signer,
        tokens=TokenIssuer(signer, parts.public_url, parts.audience, clock),
        audiences=frozenset({parts.public_url, parts.audience}),
        clock=clock,
        audit=parts.audit,
    )


def decide_service(parts: Parts, verify_slack: Callable[[SlackRequest], bool]) -> Decide:
    """Return what the ``decide`` function does."""
    stores = parts.stores
    return Decide(
        bundles=parts.bundles,
        asks=stores.asks,
        uses=stores.uses,
        once=stores.once,
        evidence=parts.evidence(),
        verify_slack=verify_slack,
        answers=stores.answers,
        signer=stores.signer(KeyPurpose.ANSWER.value),
        clock=parts.clock,
        audit=parts.audit,
    )


def mint_service(parts: Parts) -> Mint:
    """Return what the ``mint`` function does."""
    stores = parts.stores
    return Mint(
        bundles=parts.bundles,
        sessions=stores.sessions,
        connections=stores.connections,
        asks=stores.asks,
        uses=stores.uses,
        revocations=stores.revocations,
        once=stores.once,
        secrets=stores.secrets,
        evidence=parts.evidence(),
        clock=parts.clock,
        audit=parts.audit,
    )


def cards_service(parts: Parts, poster: CardPoster) -> PostCards:
    """Return what the ``post_cards`` and ``reconcile`` functions do. Needs no bundle."""
    stores = parts.stores
    return PostCards(
        asks=stores.asks,
        uses=stores.uses,
        once=stores.once,
        evidence=parts.evidence(),
        poster=poster,
        clock=parts.clock,
        audit=parts.audit,
    )
