"""A token of ours for a hop, and what the token endpoint answers of it: how every kind of exchange ends.

Rules: a token says no more than its hop does; it may say less, in targets and logins. An action that it leaves out
would still be allowed inside a session, which is judged by the hop: who wants fewer actions delegates, and a narrower
token that nothing would enforce is refused. Source: RFC 8693 section 2.2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chalicelib.domain.chain import Chain
from chalicelib.domain.clock import Clock
from chalicelib.domain.errors import OutOfScope
from chalicelib.domain.identifiers import HopId, Txn, ulid
from chalicelib.domain.scope import ANY, Permission, permission, within
from chalicelib.domain.secret import Secret
from chalicelib.identity.tokens import TokenIssuer

TOKEN_LIFETIME_S: Final = 300  # long enough to ask for a session, short enough to steal in vain


@dataclass(frozen=True, kw_only=True, slots=True)
class Issued:
    """The answer of RFC 8693 section 2.2.1, with the hop that the token names. ``bound``: its tokens are DPoP's."""

    access_token: Secret
    bound: bool
    expires_in: int
    scope: tuple[str, ...]
    txn: Txn
    hop: HopId
    hop_expires_at: datetime


class IssueToken:
    """Mints tokens of a verified chain's leaf. Writes nothing."""

    def __init__(self, *, tokens: TokenIssuer, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    def __call__(self, chain: Chain, *, scope: tuple[str, ...], at_most_s: int = TOKEN_LIFETIME_S) -> Issued:
        """Return a token for ``scope``, which :func:`narrowed` has found to be the hop's, for ``at_most_s`` at most.

        Raises TokenInvalid where the chain does not fit a token, TokenExpired where its leaf ended, StoreUnavailable.
        """
        now = self._clock.now()
        token = self._tokens.mint(chain, f"tok_{ulid(now)}", min(TOKEN_LIFETIME_S, at_most_s), scope)
        return Issued(
            access_token=token.token,
            bound=bool(chain.leaf.key_thumbprint),
            expires_in=int((token.expires_at - now).total_seconds()),
            scope=scope,
            txn=chain.txn,
            hop=chain.leaf.id,
            hop_expires_at=chain.leaf.expires_at,
        )


def narrowed(wanted: tuple[str, ...] | None, has: tuple[str, ...]) -> tuple[str, ...]:
    """Return the scope of a token where ``wanted`` is asked for and the hop, or the token before, has ``has``; None
    asks for all of it. Raises OutOfScope. Pure."""
    if wanted is None:
        return has
    if not within(wanted, has):
        raise OutOfScope("the scope asked for is more than you have", has=" ".join(has))
    if any(_leaves_out_actions(permission(text), permission(held)) for text in wanted for held in has):
        raise OutOfScope(
            "a token narrows targets and logins, not the actions inside a session",
            hint="Delegate to a child with fewer actions, or leave the action out.",
        )
    return wanted


def _leaves_out_actions(wanted: Permission, held: Permission) -> bool:
    meet = _meet(wanted.target, held.target) and _meet(wanted.principal, held.principal)
    all_of_it = Permission(target=ANY, action=wanted.action)
    return meet and not all_of_it.covers(Permission(target=held.target, action=held.action))


def _meet(one: str, other: str) -> bool:
    return one == other or ANY in (one, other)
