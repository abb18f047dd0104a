"""The loaded bundle: what both planes read. Loading and validating is in ``loader``; which one is active, in
``active``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chalicelib.domain.identity import Person
from chalicelib.domain.issuer import Issuer
from chalicelib.domain.masking import MaskRule
from chalicelib.domain.passkey import Passkey
from chalicelib.domain.policy import Policy
from chalicelib.domain.target import Target


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One configuration, whole and validated. ``digest`` is over its files; ``serial`` is its Activation's, 0 for a
    bundle that is not active, and ``epoch_at`` the store's epoch that it names."""

    digest: str
    serial: int
    targets: Mapping[str, Target]
    issuers: tuple[Issuer, ...]
    people: tuple[Person, ...]
    masks: Mapping[str, MaskRule]
    policy: Policy
    epoch_at: datetime | None = None

    def person_in_slack(self, team: str, user: str) -> Person | None:
        """Return the one person with that Slack team and user id, or None."""
        return next((p for p in self.people if p.slack_team == team and p.slack_user == user), None)

    def person_with_passkey(self, passkey_id: str) -> tuple[Person, Passkey] | None:
        """Return the one person who registered that passkey, with it, or None."""
        return next(((p, key) for p in self.people for key in p.passkeys if key.id == passkey_id), None)

    def people_behind(self, accountable: tuple[str, ...]) -> tuple[Person, ...]:
        """Return the people of whom an alias is in ``accountable``."""
        return tuple(p for p in self.people if set(p.aliases) & set(accountable))

    def knows_who_is_behind(self, accountable: tuple[str, ...]) -> bool:
        """Return whether somebody is named and every alias is a person of ours: else whoever is behind the run could
        be the one who answers for it under another name."""
        known = {alias for person in self.people for alias in person.aliases}
        return bool(accountable) and set(accountable) <= known


class Bundles(Protocol):
    """Gives the active bundle."""

    def current(self) -> Bundle:
        """Return the bundle that operations are decided by, read at most 10 s ago. A newer one that cannot be loaded
        leaves the old in force for 10 minutes. Raises ConfigurationInvalid or StoreUnavailable."""
        ...

    def for_new_sessions(self) -> Bundle:
        """Return the bundle that a new session is decided by: the same, but with no grace for a newer one that cannot
        be loaded. Raises ConfigurationInvalid or StoreUnavailable."""
        ...
