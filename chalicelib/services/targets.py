"""What a caller may ask for: the targets whose session policy does not flatly refuse, permitted or with approval."""

from __future__ import annotations

from chalicelib.config.bundle import Bundles
from chalicelib.domain.clock import Clock
from chalicelib.domain.policy import Deny
from chalicelib.domain.target import Target
from chalicelib.services.access import session_policy
from chalicelib.services.identify import Caller
from chalicelib.services.request import DEFAULT_DURATION_S


class ListTargets:
    """Writes nothing; a target that the caller may not ask for is not in the answer."""

    def __init__(self, *, bundles: Bundles, clock: Clock) -> None:
        self._bundles = bundles
        self._clock = clock

    def __call__(self, caller: Caller) -> tuple[Target, ...]:
        """Return them by name. Raises ConfigurationInvalid, StoreUnavailable."""
        bundle = self._bundles.for_new_sessions()
        now = self._clock.now()
        found = []
        for name, target in sorted(bundle.targets.items()):
            decided = session_policy(
                bundle=bundle,
                chain=caller.chain,
                target=target,
                principal=target.default_principal,
                duration_s=min(DEFAULT_DURATION_S, target.max_session_s),
                now=now,
            )
            if caller.may_open(name, "") and not isinstance(decided(frozenset()), Deny):
                found.append(target)
        return tuple(found)
