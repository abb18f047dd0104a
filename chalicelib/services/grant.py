"""The Grant: what policy permitted, capped by the target and by the caller's own authority. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from chalicelib.config.bundle import Bundle
from chalicelib.domain.chain import Chain
from chalicelib.domain.errors import PolicyDenied, TargetUnavailable
from chalicelib.domain.identifiers import SessionId, new_grant_id
from chalicelib.domain.policy import Allow
from chalicelib.domain.session import Grant
from chalicelib.domain.target import Protocol, Target

# What the broker has an engine for. A grant for anything else would be a login that nothing answers.
ENGINES: Final = frozenset({Protocol.POSTGRES, Protocol.SSH})
# Where a client can prove a key of its own as it enters: with ssh, by a certificate that ``certify`` signs.
TAKES_A_KEY: Final = frozenset({Protocol.SSH})


def listening(*, ssh: bool) -> frozenset[Protocol]:
    """Return what a deployment serves whose broker listens for PostgreSQL, and for ``ssh`` where it says so. Pure."""
    return ENGINES if ssh else ENGINES - {Protocol.SSH}


def require_served(target: Target, permitted: Allow, served: frozenset[Protocol]) -> None:
    """Raise where the session could not be used: TargetUnavailable for a protocol that is not among those ``served`` by
    this deployment, PolicyDenied where a rule wants the session bound to a key, and the protocol knows no such thing.

    Where it does, the broker's admission holds the rule: it lets in the key and not the secret.
    """
    if target.protocol not in served:
        raise TargetUnavailable(f"sessions to {target.protocol.value} targets are not served here", target=target.name)
    if permitted.bound and target.protocol not in TAKES_A_KEY:
        raise PolicyDenied("a rule requires a session that is bound to a key of yours", rules=permitted.rules)


def new_grant(
    *,
    session_id: SessionId,
    bundle: Bundle,
    chain: Chain,
    target: Target,
    principal: str,
    duration_s: int,
    permitted: Allow,
    met: tuple[str, ...],
    now: datetime,
) -> Grant:
    """Return the grant from ``now``, for no longer than was asked, the target allows and the caller's hop lives."""
    seconds = min(duration_s, target.max_session_s)
    return Grant(
        id=new_grant_id(now),
        session_id=session_id,
        target=target.name,
        principal=principal,
        not_before=now,
        expires_at=min(now + timedelta(seconds=seconds), chain.leaf.expires_at),
        rules=permitted.rules,
        met=met,
        policy_digest=bundle.policy.digest,
        configuration_serial=bundle.serial,
        max_connections=target.max_connections,
    )
