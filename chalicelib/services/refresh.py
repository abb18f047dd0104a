"""A token of a hop becomes the next one of the same hop, for whoever proves the hop's key. Runs in ``sign``.

Rules: the token may have expired, the hop may not; a token that is bound to no key is not renewed, or a stolen one
would last as long as its run; the new token has no more scope than the old one. Source: RFC 8693 section 1 (a token of
one's own is exchanged), RFC 9449 section 5 (what is bound is renewed with the same key).
"""

from __future__ import annotations

from collections.abc import Callable

from chalicelib.domain.audit import Acting, AuditEvent, AuditLog, AuditName
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import KeyProofInvalid, TokenInvalid
from chalicelib.identity.dpop import Proof
from chalicelib.identity.tokens import AccessToken
from chalicelib.services.identify import Identify
from chalicelib.services.issue import Issued, IssueToken, narrowed
from chalicelib.services.proofs import Proofs


class RefreshToken:
    """``verify`` is ``identity.tokens.verify_access_token`` that takes expired tokens too."""

    def __init__(
        self,
        *,
        verify: Callable[[str], AccessToken],
        identify: Identify,
        proofs: Proofs,
        issue: IssueToken,
        clock: Clock,
        audit: AuditLog,
    ) -> None:
        self._verify = verify
        self._identify = identify
        self._proofs = proofs
        self._issue = issue
        self._clock = clock
        self._audit = audit

    def __call__(self, token: str, proof: Proof, scope: tuple[str, ...] | None) -> Issued:
        """Return the next token of the hop that ``token`` names. ``proof`` was verified and not counted.

        Raises TokenInvalid, TokenExpired where the hop ended, KeyProofInvalid, ProofInvalid, GrantRevoked, OutOfScope,
        StoreUnavailable.
        """
        said = self._verify(token)
        caller = self._identify.caller(said, lambda key: _require_key(key, proof))
        told = narrowed(scope, said.scope)
        self._proofs.count(proof)
        issued = self._issue(caller.chain, scope=told)
        self._audit.record(
            AuditEvent(
                name=AuditName.TOKEN_EXCHANGED,
                at=self._clock.now(),
                subject=caller.chain.leaf.id,
                txn=caller.chain.txn,
                actor=caller.actor.key,
                acting=Acting.of(caller.chain),
            )
        )
        return issued


def _require_key(key: str, proof: Proof) -> None:
    if not key:
        raise TokenInvalid("a token that is bound to no key is not renewed", hint="Fetch a new token from your issuer.")
    if proof.thumbprint != key:
        raise KeyProofInvalid("the DPoP proof is of another key than the token's")
