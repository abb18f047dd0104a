"""Scope: what a hop may ask for and do, and :func:`narrow`, the one place where authority is handed down.

A scope is a set of permissions, each written ``TARGET[/PRINCIPAL][#ACTION]`` (an OAuth scope token, RFC 6749 section
3.3): ``*`` is everything; ``db-prod`` every login and action there; ``db-prod/deploy#ssh:exec`` one action as one
login; ``orders-prod#sql`` the whole group ``sql:...``. An action never limits *opening* a session, which any permission
on the target and principal allows; it limits each operation inside.

Rules: a child has no more than its parent, in target, principal, action, time and depth; asking for more is refused and
never cut down in silence, since a caller that believes it has what it asked for fails later and worse. A permission is
covered by *one* permission of the parent: unions are not taken apart, which may refuse what two together would cover
and can never let through what none does. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final

from chalicelib.domain.errors import BadRequest, OutOfScope

ANY: Final = "*"
MAX_PERMISSIONS: Final = 32  # a token carries them, and KMS signs 4,096 bytes
DEFAULT_DEPTH: Final = 3  # delegations below a root, where nobody says otherwise: the founding story takes two
MAX_DEPTH: Final = 5  # the most that anybody may allow: each hop costs a token 230 bytes and a reviewer a line
_TOKEN: Final = re.compile(
    r"(?P<target>\*|[a-z0-9][a-z0-9_-]{0,62})"
    r"(?:/(?P<principal>\*|[A-Za-z_][A-Za-z0-9_$.@-]{0,62}))?"
    r"(?:#(?P<action>\*|[a-z][a-z0-9_]{0,31}(?::[a-z][a-z0-9_]{0,31})?))?\Z"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Permission:
    """One target, one principal and one action (or group of them), each ``*`` for any."""

    target: str
    principal: str = ANY
    action: str = ANY

    def covers(self, other: Permission) -> bool:
        """Return whether everything that ``other`` allows is allowed by this one alone."""
        return (
            self.target in (ANY, other.target)
            and self.principal in (ANY, other.principal)
            and (self.action in (ANY, other.action) or other.action.startswith(f"{self.action}:"))
        )

    def __str__(self) -> str:
        principal = "" if self.principal == ANY else f"/{self.principal}"
        action = "" if self.action == ANY else f"#{self.action}"
        return f"{self.target}{principal}{action}"


@lru_cache(maxsize=1024)  # a review asks of each operation whether every hop above it allows it
def permission(text: str) -> Permission:
    """Return the permission that one scope token states. Raises BadRequest."""
    found = _TOKEN.match(text)
    if found is None:
        raise BadRequest("scope is TARGET[/PRINCIPAL][#ACTION], words apart by spaces; * is any")
    said = {name: value for name, value in found.groupdict().items() if value is not None}
    return Permission(**said)


def parse_scope(text: str) -> tuple[str, ...]:
    """Return the scope that ``text`` states, in its one spelling: each permission once, sorted, none that another
    covers. Raises BadRequest where it is none, is empty, or has more than ``MAX_PERMISSIONS``."""
    words = text.split(" ")
    if not 1 <= len(words) <= MAX_PERMISSIONS:
        raise BadRequest(f"scope is 1 to {MAX_PERMISSIONS} permissions")
    found = {permission(word) for word in words}
    kept = [one for one in found if not any(other != one and other.covers(one) for other in found)]
    return tuple(sorted(str(one) for one in kept))


def within(child: Iterable[str], parent: Iterable[str]) -> bool:
    """Return whether each permission of ``child`` is covered by one of ``parent``. False where either is no scope."""
    try:
        has = [permission(text) for text in parent]
        return all(any(one.covers(permission(text)) for one in has) for text in child)
    except BadRequest:
        return False


def allows(scope: Iterable[str], target: str, principal: str, action: str | None = None) -> bool:
    """Return whether ``scope`` allows ``action`` on ``target`` as ``principal``; None asks about opening a session. An
    empty ``principal`` asks whether any would do."""
    for text in scope:
        try:
            one = permission(text)
        except BadRequest:
            continue  # what is no permission permits nothing
        who = principal or one.principal
        what = one.action if action is None else action
        if one.covers(Permission(target=target, principal=who, action=what)):
            return True
    return False


@dataclass(frozen=True, kw_only=True, slots=True)
class Authority:
    """What a hop may hand down: its scope, its end, its depth, and the depth that nothing below it may pass."""

    scope: tuple[str, ...]
    expires_at: datetime
    depth: int
    max_depth: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What is asked for under a parent. None: as much as the parent has."""

    scope: tuple[str, ...] | None = None
    expires_at: datetime | None = None
    max_depth: int | None = None


def narrow(parent: Authority, wanted: Wanted) -> Authority:
    """Return the child's authority: what is ``wanted``, one level deeper. Raises OutOfScope where that is more than
    ``parent`` has in any respect. ``narrow(narrow(p, a), b)`` is never more than ``p``; nothing makes it wider.
    """
    scope = parent.scope if wanted.scope is None else wanted.scope
    expires_at = parent.expires_at if wanted.expires_at is None else wanted.expires_at
    max_depth = parent.max_depth if wanted.max_depth is None else wanted.max_depth
    if not scope or not within(scope, parent.scope):
        raise OutOfScope("the scope asked for is more than its parent has", has=" ".join(parent.scope))
    if expires_at > parent.expires_at:
        raise OutOfScope("the time asked for ends after its parent's")
    if parent.depth + 1 > parent.max_depth:
        raise OutOfScope("the chain may not grow deeper", hint="Ask at a hop nearer to the origin.")
    if not parent.depth + 1 <= max_depth <= min(parent.max_depth, MAX_DEPTH):
        raise OutOfScope("the depth asked for is more than its parent may hand down, or less than its own")
    return Authority(scope=tuple(scope), expires_at=expires_at, depth=parent.depth + 1, max_depth=max_depth)
