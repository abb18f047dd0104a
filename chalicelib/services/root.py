"""An issuer's token becomes the root of its run's chain. Runs in the ``sign`` function.

Rules: an issuer's token counts once. A run has one root: its first exchange makes ``txn`` and the signed origin hop,
bound to the key that it proved. Whoever proves that key again, with a new token of the same run, continues the same hop
and gets no more than it has; anybody else of the job, who can fetch the job's token just as well, gets nothing. A root
that began without a key is nobody's to continue. It is refused, too, where the token names other people behind the run.
No token of ours outlives the issuer's token that it came from. The issuer's token itself is kept, sealed, before its
hop is put.

Between the claim of the run and its hop a function may die: then whoever proves the claim's key makes the hop, and
where the claim has no key, whoever puts the hop, and no second one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.chain import Chain, Hop, HopKind
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import (
    AlreadyExists,
    GrantExpired,
    GrantRevoked,
    RunBound,
    TokenExpired,
    TokenInvalid,
    TokenReplayed,
)
from chalicelib.domain.identifiers import HOP_ID, TXN, HopId, Txn, new_hop_id, new_txn
from chalicelib.domain.identity import VerifiedIdentity
from chalicelib.domain.scope import ANY, DEFAULT_DEPTH
from chalicelib.domain.store import Chains, Once, Revocations, Signer
from chalicelib.identity.dpop import Proof
from chalicelib.identity.issuers import LEEWAY_S
from chalicelib.identity.jws import sign_hop
from chalicelib.services.evidence import Evidence
from chalicelib.services.issue import Issued, IssueToken, narrowed
from chalicelib.services.keep_proof import KeepProof
from chalicelib.services.proofs import Proofs

RUN_LIFETIME: Final = timedelta(hours=8)  # a working day; GitHub's own limit for a hosted job is 6 hours
# A run's root is remembered for longer than any CI lets a run live (GitHub: 35 days), so that it never gets a second.
RUN_MEMORY: Final = timedelta(days=40)
ROOT_SCOPE: Final = (ANY,)
_LEEWAY: Final = timedelta(seconds=LEEWAY_S)  # a token that the verifier still takes must still be remembered


class BeginRun:
    """Exchanges an issuer's token. ``verify`` returns what it says by its declaration in the bundle; ``signer`` is the
    token key's."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        once: Once,
        chains: Chains,
        evidence: Evidence,
        revocations: Revocations,
        verify: Callable[[Bundle, str], VerifiedIdentity],
        proofs: Proofs,
        keep: KeepProof,
        signer: Signer,
        issue: IssueToken,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._once = once
        self._chains = chains
        self._evidence = evidence
        self._revocations = revocations
        self._verify = verify
        self._proofs = proofs
        self._keep = keep
        self._signer = signer
        self._issue = issue
        self._clock = clock
        self._audit = audit

    def __call__(self, subject_token: str, proof: Proof | None, scope: tuple[str, ...] | None) -> Issued:
        """Return a token of the run's root, made now or continued. ``proof`` was verified and not counted.

        Raises Unauthenticated and its kinds, OutOfScope, GrantExpired, GrantRevoked, ConfigurationInvalid,
        StoreUnavailable. Writes nothing where it raises, but for the claim of a token and a proof that were good.
        """
        now = self._clock.now()
        told = narrowed(scope, ROOT_SCOPE)
        who = self._verify(self._bundles.for_new_sessions(), subject_token)
        self._require_alive(frozenset({f"identity:{who.identity.key}", f"issuer:{who.identity.issuer}"}))
        left = int((who.expires_at - now).total_seconds())
        if left <= 0:
            raise TokenExpired("the token has expired")
        if proof is not None:
            self._proofs.count(proof)
        claim_token(self._once, who, now)
        chain = self._root(who, proof.thumbprint if proof is not None else "", now)
        self._require_alive(chain.liveness_keys())
        issued = self._issue(chain, scope=told, at_most_s=left)
        self._audit.record(
            AuditEvent(
                name=AuditName.TOKEN_EXCHANGED,
                at=now,
                subject=chain.leaf.id,
                txn=chain.txn,
                actor=who.identity.key,
                acting=Acting.of(chain),
            )
        )
        return issued

    def _root(self, who: VerifiedIdentity, key: str, now: datetime) -> Chain:
        """Return the chain of the run's one root, which whoever proves ``key`` (empty: none) may speak for."""
        txn, hop_id = new_txn(now), new_hop_id(now)
        run = sha256_hex(canonical([who.identity.issuer, who.run]))
        ours = canonical({"txn": txn, "hop": hop_id, "key": key}).decode()
        held = self._once.claim("run", run, ours, expires_at=now + RUN_MEMORY, now=now)
        if held is not None:
            first = json.loads(held)
            txn, hop_id = Txn(first["txn"]), HopId(first["hop"])
            # Whoever can write the table must not choose words that we then sign.
            if first.get("key", "") != key or not TXN.match(txn) or not HOP_ID.match(hop_id):
                raise _bound(who, txn)
        if hop_id not in self._chains.hops(txn):
            self._put(_origin(who, txn, hop_id, key, now, self._keep(txn, who)), who)
        elif not key:
            raise _bound(who, txn)
        chain = self._evidence.chain(txn, hop_id)
        if chain.leaf.key_thumbprint != key:  # the claim is a row that could be written; what the hop says is signed
            raise _bound(who, txn)
        _require_same_run(chain.leaf, who, now)
        return chain

    def _put(self, hop: Hop, who: VerifiedIdentity) -> None:
        made = sign_hop(self._signer, hop)
        try:
            self._chains.put(made)
        except AlreadyExists:
            # Another exchange of the run put it a moment ago, or our own call did and its answer was lost. With a key
            # either is ours; without one only our own signature shows that it was us.
            if not hop.key_thumbprint and self._chains.hops(hop.txn)[hop.id].signature != made.signature:
                raise _bound(who, hop.txn) from None

    def _require_alive(self, keys: frozenset[str]) -> None:
        revoked = self._revocations.any_of(keys)
        if revoked is not None:
            raise GrantRevoked("this identity or its chain was revoked", key=revoked.key)


def claim_token(once: Once, who: VerifiedIdentity, now: datetime, purpose: str = "") -> None:
    """Use an issuer's token up, for whatever it is presented. Where ``purpose`` names a ticket, the same token may come
    again with that ticket, which is itself used once. Raises TokenReplayed, StoreUnavailable."""
    value = sha256_hex(canonical([who.identity.issuer, who.evidence.token_id]))
    held = once.claim("token", value, purpose, expires_at=who.expires_at + _LEEWAY, now=now)
    if held is not None and not (purpose and held == purpose):
        raise TokenReplayed("this token was exchanged before", actor=who.identity.key)


def _bound(who: VerifiedIdentity, txn: Txn) -> RunBound:
    return RunBound("this run has its root already, and this is not the key of it", actor=who.identity.key, txn=txn)


def _origin(who: VerifiedIdentity, txn: Txn, hop_id: HopId, key: str, now: datetime, kept_sha256: str) -> Hop:
    return Hop(
        txn=txn,
        id=hop_id,
        depth=0,
        kind=HopKind.ORIGIN,
        parent=None,
        parent_sha256="",
        originator=who.identity,
        actor=who.identity,
        evidence=replace(who.evidence, kept_sha256=kept_sha256),
        accountable=who.accountable,
        teams=who.teams,
        scope=ROOT_SCOPE,
        key_thumbprint=key,
        target="",
        principal="",
        serial="",
        issued_at=now,
        expires_at=now + RUN_LIFETIME,
        max_depth=DEFAULT_DEPTH,
    )


def _require_same_run(hop: Hop, who: VerifiedIdentity, now: datetime) -> None:
    if now >= hop.expires_at:
        raise GrantExpired("the run has used up its time", hint="Start a new run.", hop=hop.id)
    if hop.actor.key != who.identity.key:
        raise TokenInvalid("this run began as another identity", hop=hop.id)
    if set(who.accountable) != set(hop.accountable):
        # A re-run under the same id: who started it could otherwise approve it, as nobody whom the hop excludes.
        raise TokenInvalid("this run began with other people behind it", hint="Start a new run.", hop=hop.id)
    if set(hop.teams) - set(who.teams):
        raise TokenInvalid("this run began with more than its identity has now", hint="Start a new run.", hop=hop.id)
