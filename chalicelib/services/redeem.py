"""A ticket becomes a hop under the parent that issued it, and a token of that hop. Runs in the ``sign`` function.

Rules: the redeemer proves a key of its own, and is the one that the ticket names: by that key, or by a token that its
issuer signed about it. Whoever fails this learns one thing, that the ticket is not theirs, and uses nothing up. What
the parent may hand down is read and narrowed again under its hop as it is now: a revoked parent lets nobody in. Nobody
is in a chain twice. Of any number who redeem at once one wins. The child's own key binds its tokens; nothing of the
parent's is handed on. Does not decide whether the parent may delegate: ``delegate`` did, and its rules are in the
ticket.

Source: RFC 8693 section 2.1 (the ticket is the subject token, what the child proves is the actor's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from chalicelib.config.bundle import Bundle, Bundles
from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.chain import Chain, Hop, HopKind
from chalicelib.domain.clock import Clock
from chalicelib.domain.delegation import ByIssuer, ByKey, Ticket
from chalicelib.domain.epoch import is_of_before
from chalicelib.domain.errors import AccessError, AlreadyExists, AlreadyInChain, GrantRevoked
from chalicelib.domain.identifiers import new_hop_id
from chalicelib.domain.identity import Assurance, Identity, VerifiedIdentity
from chalicelib.domain.identity import Evidence as Proved
from chalicelib.domain.scope import Wanted, narrow
from chalicelib.domain.store import Chains, Once, Revocations, Signer
from chalicelib.identity.dpop import Proof
from chalicelib.identity.jws import sign_hop
from chalicelib.services.evidence import Evidence
from chalicelib.services.issue import Issued, IssueToken, narrowed
from chalicelib.services.proofs import Proofs
from chalicelib.services.root import claim_token
from chalicelib.services.tickets import Redemption, Tickets, ticket_invalid


@dataclass(frozen=True, kw_only=True, slots=True)
class _Child:
    """Who redeems, as proved. ``token`` is the issuer's about it; None where its key is all that is known of it."""

    identity: Identity
    proved: Proved
    accountable: tuple[str, ...]
    teams: tuple[str, ...]
    token: VerifiedIdentity | None


@dataclass(kw_only=True, slots=True)
class _About:
    """What is known so far of a redemption, for its audit event."""

    subject: str = ""
    txn: str = ""
    actor: str = ""
    why: str = ""


class RedeemTicket:
    """Lets a child in. ``verify`` is that of ``BeginRun``; ``issuer_url`` is ours, which vouches for keys."""

    def __init__(
        self,
        *,
        bundles: Bundles,
        once: Once,
        chains: Chains,
        evidence: Evidence,
        revocations: Revocations,
        tickets: Tickets,
        verify: Callable[[Bundle, str], VerifiedIdentity],
        proofs: Proofs,
        signer: Signer,
        issue: IssueToken,
        issuer_url: str,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._bundles = bundles
        self._once = once
        self._chains = chains
        self._evidence = evidence
        self._revocations = revocations
        self._tickets = tickets
        self._verify = verify
        self._proofs = proofs
        self._signer = signer
        self._issue = issue
        self._issuer_url = issuer_url
        self._clock = clock
        self._audit = audit

    def __call__(self, text: str, actor_token: str | None, proof: str, scope: tuple[str, ...] | None) -> Issued:
        """Return a token of the new hop. ``proof`` is the ``DPoP`` header as it came, or nothing.

        Raises KeyProofInvalid, TicketInvalid, AlreadyInChain, OutOfScope, GrantRevoked, what ``verify``
        raises of the actor's token, TokenReplayed, StoreUnavailable. Audits either way.
        """
        about = _About()
        try:
            return self._redeem(text, actor_token, proof, scope, about)
        except AccessError as error:
            self._record(AuditName.TICKET_REFUSED, about, error.code)
            raise

    def _redeem(
        self, text: str, actor_token: str | None, proof_text: str, scope: tuple[str, ...] | None, about: _About
    ) -> Issued:
        now = self._clock.now()
        proof = self._proofs.at_token_endpoint(proof_text)
        about.actor = f"{self._issuer_url}#key:{proof.thumbprint}"
        # Before the ticket is looked at, so that a stranger's bad token gets the same answer whatever the ticket is.
        token = self._verify(self._bundles.for_new_sessions(), actor_token) if actor_token is not None else None
        if token is not None:
            about.actor = token.identity.key
        ticket = self._tickets.find(text, now)
        if is_of_before(ticket.issued_at, self._bundles.current().epoch_at):
            raise ticket_invalid("issued before the store was restored", ticket=ticket.id)
        about.subject, about.txn, about.why = ticket.id, ticket.txn, f"under {ticket.parent}"
        _require_named(ticket, proof, token)
        parent = self._parent(ticket)
        child = self._child(ticket, parent, proof, token)
        self._require_admissible(parent, child, proof)
        place = self._place(ticket, proof, now)
        hop = sign_hop(self._signer, _delegate(ticket, parent, child, place, now))
        told = narrowed(scope, hop.scope)
        self._proofs.count(proof)
        if token is not None:
            claim_token(self._once, token, now, purpose=ticket.id)
        # Before the ticket is used up: what no token can hold fails here.
        issued = self._issue(Chain(hops=(*parent.hops, hop)), scope=told)
        self._tickets.use(ticket, place, now)
        self._put(hop, ticket)
        about.subject, about.why = hop.id, f"ticket {ticket.id} of {ticket.parent}"
        self._record(AuditName.CHAIN_EXTENDED, about, "")
        return issued

    def _place(self, ticket: Ticket, proof: Proof, now: datetime) -> Redemption:
        """Return the hop that this redemption makes: the one that the same key was about to make where a function died
        between using the ticket up and putting it. Raises TicketInvalid for every other ticket that was used."""
        used = self._tickets.used(ticket, now)
        # The hops are asked too: who could take the row away cannot take a hop's signed name of its ticket away.
        became = any(hop.ticket == ticket.id for hop in self._chains.hops(ticket.txn).values())
        if became or (used is not None and used.key != proof.thumbprint):
            raise ticket_invalid("redeemed before", ticket=ticket.id)
        return used or Redemption(hop=new_hop_id(now), key=proof.thumbprint)

    def _put(self, hop: Hop, ticket: Ticket) -> None:
        try:
            self._chains.put(hop)
        except AlreadyExists:  # by the same key a moment ago, unless it was our own call, whose answer was lost
            if self._chains.hops(hop.txn)[hop.id].signature != hop.signature:
                raise ticket_invalid("redeemed before", ticket=ticket.id) from None

    def _parent(self, ticket: Ticket) -> Chain:
        parent = self._evidence.chain(ticket.txn, ticket.parent)
        if parent.leaf.sha256() != ticket.parent_sha256:
            raise ticket_invalid("its parent is another hop", ticket=ticket.id)
        return parent

    def _child(self, ticket: Ticket, parent: Chain, proof: Proof, token: VerifiedIdentity | None) -> _Child:
        if token is not None:
            return _Child(
                identity=token.identity,
                proved=token.evidence,
                accountable=token.accountable,
                teams=token.teams,
                token=token,
            )
        return _Child(
            identity=Identity(issuer=self._issuer_url, subject=f"key:{proof.thumbprint}", name=ticket.name),
            proved=Proved(
                kind="key",
                token_id=sha256_hex(f"{proof.thumbprint}#{proof.jti}".encode()),
                claims_sha256=proof.claims_sha256,
                assurance=Assurance.VOUCHED,
                # Its parent's, as its teams are: else a rule against a branch would end at a key of that branch.
                attributes=parent.leaf.evidence.attributes,
            ),
            accountable=(),
            teams=parent.leaf.teams,
            token=None,
        )

    def _require_admissible(self, parent: Chain, child: _Child, proof: Proof) -> None:
        keys = {f"identity:{child.identity.key}", f"issuer:{child.identity.issuer}"}
        revoked = self._revocations.any_of(parent.liveness_keys() | keys)
        if revoked is not None:
            raise GrantRevoked("this identity, or the chain that the ticket is for, was revoked", key=revoked.key)
        known = {hop.key_thumbprint for hop in parent.hops}
        if child.identity.key in {identity.key for identity in parent.identities} or proof.thumbprint in known:
            raise AlreadyInChain("whoever redeems this ticket is in its chain already", hop=parent.leaf.id)

    def _record(self, name: AuditName, about: _About, code: str) -> None:
        self._audit.record(
            AuditEvent(
                name=name,
                at=self._clock.now(),
                code=code,
                subject=about.subject,
                txn=about.txn,
                actor=about.actor,
                why=about.why,
            )
        )


def _require_named(ticket: Ticket, proof: Proof, token: VerifiedIdentity | None) -> None:
    """Raise TicketInvalid unless the ticket names whoever proved this."""
    match ticket.redeemer:
        case ByKey(thumbprint=named):
            if token is None and proof.thumbprint == named:
                return
        case ByIssuer(issuer=issuer, claims=claims):
            if token is not None and token.identity.issuer == issuer and set(claims) <= set(token.claims):
                return
    raise ticket_invalid("it names somebody else", ticket=ticket.id)


def _delegate(ticket: Ticket, parent: Chain, child: _Child, place: Redemption, now: datetime) -> Hop:
    """Return the child's hop. Raises OutOfScope where the parent's hop has less than the ticket says."""
    wanted = Wanted(scope=ticket.scope, expires_at=ticket.hop_expires_at, max_depth=ticket.max_depth)
    authority = narrow(parent.leaf.authority, wanted)
    return Hop(
        txn=parent.txn,
        id=place.hop,
        depth=authority.depth,
        kind=HopKind.DELEGATE,
        parent=parent.leaf.id,
        parent_sha256=parent.leaf.sha256(),
        originator=parent.originator,
        actor=child.identity,
        evidence=child.proved,
        accountable=child.accountable,
        teams=child.teams,
        scope=authority.scope,
        key_thumbprint=place.key,
        target="",
        principal="",
        serial="",
        issued_at=now,
        expires_at=authority.expires_at,
        max_depth=authority.max_depth,
        ticket=ticket.id,
        rules=ticket.rules,
    )
