"""Whether policy permits what a caller does to this service itself: delegate, revoke, review. Asks and decides nothing
beyond it; an approval cannot be met here, since nothing waits for people.
"""

from __future__ import annotations

from datetime import datetime

from chalicelib.config.bundle import Bundle
from chalicelib.domain.policy import Allow
from chalicelib.services.access import service_question
from chalicelib.services.identify import Caller


def permits(bundle: Bundle, caller: Caller, action: str, what: str, now: datetime) -> Allow | None:
    """Return the permit for ``action`` on ``what``, else None: also where a rule wants a key and the token has none.
    Pure but for policy."""
    outcome = bundle.policy.decide(service_question(bundle, caller.chain, action, what, now))
    if not isinstance(outcome, Allow) or (outcome.bound and not caller.key_thumbprint):
        return None
    return outcome
