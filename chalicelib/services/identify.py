"""Who calls: an access token of ours turned into a verified chain.

The token says which hop; the chain is read and verified again, so that a token says no more than the hops do, and a
revocation of anything in the chain ends its tokens at once. A hop that is bound to a key has tokens that are worth
nothing without it: they come as ``DPoP`` with a proof, and never as ``Bearer``, or a thief would leave the proof out
(RFC 9449 section 7.2). Does not decide what the caller may do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Chain
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import GrantRevoked, KeyProofInvalid, TokenExpired, TokenInvalid
from chalicelib.domain.identity import Identity
from chalicelib.domain.scope import allows
from chalicelib.domain.store import Revocations
from chalicelib.identity.tokens import AccessToken
from chalicelib.services.evidence import Evidence
from chalicelib.services.proofs import Proofs

BEARER: Final = "bearer"
DPOP: Final = "dpop"


@dataclass(frozen=True, kw_only=True, slots=True)
class Presented:
    """What a request shows of who sends it: its ``Authorization`` (``scheme`` is ``BEARER`` or ``DPOP``), its ``DPoP``
    header or nothing, and the method and path (no query) that the proof must be for."""

    token: str
    scheme: str
    proof: str
    method: str
    path: str

    def require_for(self, method: str, *paths: str) -> None:
        """Raise KeyProofInvalid unless the request was one for what is done now. A proof is over method and path, so
        that whoever may invoke a function cannot make a ticket of somebody's look at the list of targets."""
        if self.method != method or self.path not in paths:
            raise KeyProofInvalid("what was presented was for another request than this one")

    def told(self) -> Mapping[str, Json]:
        """Return it as one function of ours hands it to another."""
        return {
            "token": self.token,
            "scheme": self.scheme,
            "proof": self.proof,
            "method": self.method,
            "path": self.path,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """A verified caller: the chain to its own hop, its token's id, what the token may ask for, and the key that it
    proved, empty where its hop is bound to none."""

    chain: Chain
    token_id: str
    scope: tuple[str, ...]
    key_thumbprint: str = ""

    @property
    def actor(self) -> Identity:
        return self.chain.leaf.actor

    def may_open(self, target: str, principal: str) -> bool:
        """Return whether every hop and the token cover opening ``target`` as ``principal`` (empty: as anybody); policy
        still decides."""
        return self.chain.allows(target, principal) and allows(self.scope, target, principal)


class Identify:
    """Turns what a request shows into a Caller. ``verify`` is ``identity.tokens.verify_access_token`` with this
    service's own keys and addresses. Writes nothing but that a proof was used."""

    def __init__(
        self,
        *,
        verify: Callable[[str], AccessToken],
        evidence: Evidence,
        revocations: Revocations,
        proofs: Proofs,
        clock: Clock,
    ) -> None:
        self._verify = verify
        self._evidence = evidence
        self._revocations = revocations
        self._proofs = proofs
        self._clock = clock

    def __call__(self, presented: Presented, *, count_once: bool = True) -> Caller:
        """Return who presents a token. ``count_once`` is False where another function counted the proof already.

        Raises TokenInvalid, TokenExpired, KeyProofInvalid, ProofInvalid, GrantRevoked, StoreUnavailable.
        """
        said = self._verify(presented.token)
        return self.caller(said, lambda key: self._require_key(key, presented, count_once=count_once))

    def caller(self, said: AccessToken, require_key: Callable[[str], None]) -> Caller:
        """Return whom a verified token names, once ``require_key`` has taken the thumbprint that its hop is bound to
        (empty: none). Raises as a call does."""
        chain = self._evidence.chain(said.txn, said.hop)
        if chain.leaf.target or chain.leaf.key_thumbprint != said.key_thumbprint:
            raise TokenInvalid("the token does not name a caller", hop=said.hop)
        require_key(chain.leaf.key_thumbprint)
        if self._clock.now() >= chain.leaf.expires_at:
            raise TokenExpired("the chain of identities has expired", hop=said.hop)
        revoked = self._revocations.any_of(chain.liveness_keys() | {f"token:{said.token_id}"})
        if revoked is not None:
            raise GrantRevoked("this chain of identities was revoked", key=revoked.key)
        return Caller(chain=chain, token_id=said.token_id, scope=said.scope, key_thumbprint=chain.leaf.key_thumbprint)

    def _require_key(self, key: str, presented: Presented, *, count_once: bool) -> None:
        if not key:
            if presented.scheme != BEARER:
                raise KeyProofInvalid("this token is bound to no key", hint="Present it as a Bearer token.")
            return
        if presented.scheme != DPOP:
            raise KeyProofInvalid("this token is bound to a key: present it as DPoP, with a proof")
        proof = self._proofs.proved(
            presented.proof, presented.method, presented.path, presented.token, count_once=False
        )
        if proof.thumbprint != key:
            raise KeyProofInvalid("the DPoP proof is of another key than the token's")
        if count_once:
            self._proofs.count(proof)
