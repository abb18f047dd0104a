"""Who calls: an access token of ours turned into a verified chain.

The token says which hop; the chain is read and verified again, so that a token says no more than the hops do, and a
revocation of anything in the chain ends its tokens at once. Does not decide what the caller may do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chalicelib.domain.chain import Chain
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import GrantRevoked, TokenExpired, TokenInvalid
from chalicelib.domain.identity import Identity
from chalicelib.domain.store import Revocations
from chalicelib.identity.tokens import AccessToken
from chalicelib.services.evidence import Evidence


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """A verified caller: the chain to its own hop, its token's id, and the targets that the token may ask for."""

    chain: Chain
    token_id: str
    scope: tuple[str, ...]

    @property
    def actor(self) -> Identity:
        return self.chain.leaf.actor

    def may_ask_for(self, target: str) -> bool:
        """Return whether hop and token both cover ``target``; policy still decides."""
        return all("*" in scope or target in scope for scope in (self.scope, self.chain.leaf.scope))


class Identify:
    """Turns a bearer token into a Caller. ``verify`` is ``identity.tokens.verify_access_token`` with this service's own
    keys and addresses. Writes nothing."""

    def __init__(
        self,
        *,
        verify: Callable[[str], AccessToken],
        evidence: Evidence,
        revocations: Revocations,
        clock: Clock,
    ) -> None:
        self._verify = verify
        self._evidence = evidence
        self._revocations = revocations
        self._clock = clock

    def __call__(self, token: str) -> Caller:
        """Return who presents ``token``.

        Raises TokenInvalid, TokenExpired, ProofInvalid, GrantRevoked, StoreUnavailable.
        """
        said = self._verify(token)
        chain = self._evidence.chain(said.txn, said.hop)
        if chain.leaf.target:
            raise TokenInvalid("the token does not name a caller", hop=said.hop)
        if self._clock.now() >= chain.leaf.expires_at:
            raise TokenExpired("the chain of identities has expired", hop=said.hop)
        revoked = self._revocations.any_of(chain.liveness_keys() | {f"token:{said.token_id}"})
        if revoked is not None:
            raise GrantRevoked("this chain of identities was revoked", key=revoked.key)
        return Caller(chain=chain, token_id=said.token_id, scope=said.scope)
