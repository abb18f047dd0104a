"""A policy that permits what a test names, for services that ask about this service itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from chalicelib.config.bundle import Bundle
from chalicelib.domain.policy import Allow, Decision, Deny, PolicyQuestion
from chalicelib.domain.target import Target
from chalicelib.services.access import stand_in


@dataclass(kw_only=True)
class Permitting:
    """Implements ``Policy``: an action and what it is done to, ``chain:revoke session``, is permitted where named.
    ``bound``: the permit wants a key. Implements ``Bundles`` too, over a bundle of that policy."""

    permitted: set[str] = field(default_factory=set)
    bound: bool = False
    asked: list[PolicyQuestion] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return "00" * 32

    def decide(self, question: PolicyQuestion) -> Decision:
        self.asked.append(question)
        if f"{question.action} {question.context['what']}" in self.permitted:
            return Allow(rules=("r",), masks=(), durable=False, record_full=False, bound=self.bound)
        return Deny(rules=(), public="no", hint="")

    def covers_session(self, rule: str) -> bool:
        return False

    def current(self) -> Bundle:
        target: Target = stand_in("orders-prod")
        return Bundle(
            digest="11" * 32,
            serial=1,
            targets={"orders-prod": target},
            issuers=(),
            people=(),
            masks={},
            policy=self,
        )

    def for_new_sessions(self) -> Bundle:
        return self.current()
