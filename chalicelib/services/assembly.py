"""The services of each function, put together over the domain's protocols: what composition roots and tests share.

Rule: a function gets what its own verbs need and no more, as its role does. Makes no call and reads no setting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import AuditLog
from chalicelib.domain.canonical import Json
from chalicelib.domain.clock import Clock
from chalicelib.domain.identity import VerifiedIdentity
from chalicelib.domain.recording import SWEEPER
from chalicelib.domain.signature import KeyPurpose
from chalicelib.domain.store import Functions, Keys, RunningCode, Signer, Stores
from chalicelib.domain.target import Protocol
from chalicelib.identity.issuers import IssuerVerifier
from chalicelib.identity.jwks import FetchJwks
from chalicelib.identity.tokens import AccessToken, TokenIssuer, verify_access_token
from chalicelib.services.archive_items import ArchiveItems
from chalicelib.services.at_once import READERS
from chalicelib.services.certify import Certify
from chalicelib.services.chains import ReadChain, ReviewChain
from chalicelib.services.close import CloseSession
from chalicelib.services.decide import Decide, SlackRequest
from chalicelib.services.delegate import Delegate
from chalicelib.services.digest_hour import DigestHours
from chalicelib.services.evidence import Evidence
from chalicelib.services.exchange import Exchange
from chalicelib.services.functions import SignWork
from chalicelib.services.grant import ENGINES
from chalicelib.services.identify import Identify
from chalicelib.services.issue import IssueToken
from chalicelib.services.keep_proof import KeepProof
from chalicelib.services.legal_holds import LegalHolds
from chalicelib.services.mint import Mint
from chalicelib.services.open_token import OpenToken
from chalicelib.services.page_answer import PasskeyCheck, origin_of
from chalicelib.services.poll import PollSession, WaitingRoom
from chalicelib.services.post_cards import CardPoster, PostCards
from chalicelib.services.proofs import Proofs
from chalicelib.services.redeem import RedeemTicket
from chalicelib.services.refresh import RefreshToken
from chalicelib.services.replays import TellReplay
from chalicelib.services.request import RequestSession
from chalicelib.services.retain import Retain
from chalicelib.services.review import Review
from chalicelib.services.reviewed import review_json
from chalicelib.services.revoke import Revoke
from chalicelib.services.root import BeginRun
from chalicelib.services.seal_orphan import SealOrphan
from chalicelib.services.settle import Settle
from chalicelib.services.show_ask import ShowAsk
from chalicelib.services.sign_off import SignOff
from chalicelib.services.sweep import Sweep
from chalicelib.services.targets import ListTargets
from chalicelib.services.tickets import Tickets
from chalicelib.services.vouch_copy import VouchCopy


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What every function is made of. ``public_url`` issues our tokens, ``audience`` takes them;
    ``approval_url`` is where people reach the approval page, empty where that is ``public_url``."""

    stores: Stores
    bundles: Bundles
    clock: Clock
    audit: AuditLog
    public_url: str
    audience: str
    approval_url: str = ""

    @property
    def approval_at(self) -> str:
        """Where people find the approval page: an address of its own where there is one, else the API's."""
        return self.approval_url or self.public_url

    def evidence(self) -> Evidence:
        return Evidence(chains=self.stores.chains, answers=self.stores.answers, keys=self.stores.keys)

    def proofs(self) -> Proofs:
        return Proofs(once=self.stores.once, clock=self.clock, public_url=self.public_url)

    def tickets(self) -> Tickets:
        return Tickets(once=self.stores.once, keys=self.stores.keys)

    def verify_token(self, *, expired_too: bool = False) -> Callable[[str], AccessToken]:
        return partial(
            verify_access_token,
            keys=self.stores.keys,
            issuer_url=self.public_url,
            audience=self.audience,
            clock=self.clock,
            expired_too=expired_too,
        )

    def identify(self) -> Identify:
        return Identify(
            verify=self.verify_token(),
            evidence=self.evidence(),
            revocations=self.stores.revocations,
            proofs=self.proofs(),
            clock=self.clock,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiServices:
    """What the API function does itself; tokens and clicks are other functions' work."""

    identify: Identify
    request: RequestSession
    poll: PollSession
    close: CloseSession
    targets: ListTargets
    revoke: Revoke
    chains: ReadChain
    replays: TellReplay
    bundles: Bundles
    functions: Functions
    keys: Keys
    show_ask: ShowAsk


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


def api_services(
    parts: Parts,
    *,
    waiters: int,
    pause: Callable[[float], None],
    served: frozenset[Protocol] = ENGINES,
) -> ApiServices:
    """Return the API's services. ``waiters``: how many may wait at once; ``pause`` sleeps for seconds; ``served``: what
    the broker listens for."""
    stores, clock, audit = parts.stores, parts.clock, parts.audit
    settle = _settle(parts, served)
    return ApiServices(
        identify=parts.identify(),
        request=RequestSession(
            bundles=parts.bundles,
            sessions=stores.sessions,
            asks=stores.asks,
            once=stores.once,
            revocations=stores.revocations,
            settle=settle,
            served=served,
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
        revoke=Revoke(
            bundles=parts.bundles,
            chains=stores.chains,
            sessions=stores.sessions,
            revocations=stores.revocations,
            clock=clock,
            audit=audit,
        ),
        chains=ReadChain(
            bundles=parts.bundles,
            chains=stores.chains,
            revocations=stores.revocations,
            clock=clock,
            audit=audit,
        ),
        replays=TellReplay(
            bundles=parts.bundles,
            sessions=stores.sessions,
            clock=clock,
            audit=audit,
        ),
        bundles=parts.bundles,
        functions=stores.functions,
        keys=stores.keys,
        show_ask=ShowAsk(
            asks=stores.asks,
            uses=stores.uses,
            evidence=parts.evidence(),
            approval_url=parts.approval_at,
            clock=clock,
        ),
    )


def _settle(parts: Parts, served: frozenset[Protocol]) -> Settle:
    stores = parts.stores
    return Settle(
        bundles=parts.bundles,
        sessions=stores.sessions,
        asks=stores.asks,
        uses=stores.uses,
        revocations=stores.revocations,
        evidence=parts.evidence(),
        served=served,
        clock=parts.clock,
        audit=parts.audit,
    )


def sign_services(parts: Parts, fetch_jwks: FetchJwks) -> SignWork:
    """Return what the ``sign`` function does."""
    stores, clock = parts.stores, parts.clock
    identify = parts.identify()
    signer = stores.signer(KeyPurpose.TOKEN.value)
    return SignWork(
        exchange=_exchange(parts, fetch_jwks, identify, signer),
        delegate=Delegate(
            bundles=parts.bundles,
            identify=identify,
            tickets=parts.tickets(),
            signer=signer,
            clock=clock,
            audit=parts.audit,
        ),
        certify=Certify(
            identify=identify,
            bundles=parts.bundles,
            sessions=stores.sessions,
            revocations=stores.revocations,
            signer=stores.signer(KeyPurpose.SSH_USER.value),
            clock=clock,
            audit=parts.audit,
        ),
    )


def _exchange(parts: Parts, fetch_jwks: FetchJwks, identify: Identify, signer: Signer) -> Exchange:
    stores, clock, proofs, evidence = parts.stores, parts.clock, parts.proofs(), parts.evidence()
    verify = Issuers(fetch_jwks, clock).verify
    issue = IssueToken(tokens=TokenIssuer(signer, parts.public_url, parts.audience, clock), clock=clock)
    return Exchange(
        begin_run=BeginRun(
            bundles=parts.bundles,
            once=stores.once,
            chains=stores.chains,
            evidence=evidence,
            revocations=stores.revocations,
            verify=verify,
            proofs=proofs,
            keep=KeepProof(vault=stores.vault, objects=stores.objects, clock=clock),
            signer=signer,
            issue=issue,
            clock=clock,
            audit=parts.audit,
        ),
        redeem=RedeemTicket(
            bundles=parts.bundles,
            once=stores.once,
            chains=stores.chains,
            evidence=evidence,
            revocations=stores.revocations,
            tickets=parts.tickets(),
            verify=verify,
            proofs=proofs,
            signer=signer,
            issue=issue,
            issuer_url=parts.public_url,
            clock=clock,
            audit=parts.audit,
        ),
        refresh=RefreshToken(
            verify=parts.verify_token(expired_too=True),
            identify=identify,
            proofs=proofs,
            issue=issue,
            clock=clock,
            audit=parts.audit,
        ),
        proofs=proofs,
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
        passkeys=PasskeyCheck(
            activations=stores.activations, once=stores.once, origin=origin_of(parts.approval_at), clock=parts.clock
        ),
        approval_url=parts.approval_at,
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
        signer=stores.signer(KeyPurpose.SSH_TARGET.value),
        evidence=parts.evidence(),
        clock=parts.clock,
        audit=parts.audit,
    )


def review_service(parts: Parts) -> ReviewChain:
    """Return what the ``review`` function does, for a caller that it has verified."""

    def reviewed(bundle: Bundle, subject: str) -> Mapping[str, Json]:
        return review_json(Review(stores=parts.stores, people=bundle.people, clock=parts.clock)(subject))

    return ReviewChain(bundles=parts.bundles, review=reviewed, clock=parts.clock, audit=parts.audit)


def sign_off_service(parts: Parts) -> SignOff:
    """Return what the ``sign_off`` function does, for a caller that it has verified."""
    return SignOff(
        bundles=parts.bundles,
        stores=parts.stores,
        evidence=parts.evidence(),
        signer=parts.stores.signer(KeyPurpose.SIGNOFF.value),
        clock=parts.clock,
        audit=parts.audit,
        readers=READERS,
    )


def open_token_service(parts: Parts) -> OpenToken:
    """Return what the ``open_token`` function does, for a caller that it has verified."""
    return OpenToken(
        bundles=parts.bundles,
        chains=parts.stores.chains,
        evidence=parts.evidence(),
        objects=parts.stores.objects,
        vault=parts.stores.vault,
        clock=parts.clock,
        audit=parts.audit,
    )


def vouch_copy_service(parts: Parts) -> VouchCopy:
    """Return what the ``vouch_copy`` function does, for a caller that it has verified."""
    return VouchCopy(
        bundles=parts.bundles,
        chains=parts.stores.chains,
        sessions=parts.stores.sessions,
        objects=parts.stores.objects,
        signer=parts.stores.signer(KeyPurpose.COPY.value),
        clock=parts.clock,
        audit=parts.audit,
    )


def hold_service(parts: Parts) -> LegalHolds:
    """Return what the ``hold`` function does, for a caller that it has verified."""
    stores = parts.stores
    return LegalHolds(
        bundles=parts.bundles,
        chains=stores.chains,
        sessions=stores.sessions,
        objects=stores.objects,
        clock=parts.clock,
        audit=parts.audit,
    )


def retain_service(parts: Parts) -> Retain:
    """Return what the ``retain`` function does. Needs no bundle."""
    return Retain(stores=parts.stores, clock=parts.clock, audit=parts.audit, workers=READERS)


def cards_service(parts: Parts, poster: CardPoster) -> PostCards:
    """Return what the ``post_cards`` and ``reconcile`` functions do. Needs no bundle."""
    stores = parts.stores
    return PostCards(
        asks=stores.asks,
        uses=stores.uses,
        once=stores.once,
        evidence=parts.evidence(),
        poster=poster,
        approval_url=parts.approval_at,
        clock=parts.clock,
        audit=parts.audit,
    )


def archive_service(parts: Parts) -> ArchiveItems:
    """Return what the ``archive_items`` function does. Needs no bundle."""
    return ArchiveItems(objects=parts.stores.objects, audit=parts.audit)


def digest_service(parts: Parts, code: RunningCode) -> DigestHours:
    """Return what the ``digest`` function does. Needs no bundle."""
    return DigestHours(
        objects=parts.stores.objects,
        copies=parts.stores.digest_copies,
        signer=parts.stores.signer(KeyPurpose.DIGEST.value),
        code=code,
        clock=parts.clock,
        audit=parts.audit,
    )


def sweep_service(parts: Parts) -> Sweep:
    """Return what the ``sweep`` function does. Needs no bundle."""
    stores = parts.stores
    seal = SealOrphan(
        objects=stores.objects,
        connections=stores.connections,
        chains=stores.chains,
        keys=stores.keys,
        signer=stores.signer(KeyPurpose.SWEEP.value),
        clock=parts.clock,
        sealed_by=SWEEPER,
        build=SWEEPER,
    )
    return Sweep(
        connections=stores.connections,
        beats=stores.beats,
        chains=stores.chains,
        seal=seal,
        clock=parts.clock,
        audit=parts.audit,
    )
