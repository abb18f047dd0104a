"""A question in Cedar's terms: entities and context, built from what was verified and parsed, checked by the schema.

Rules: the engine's own context fields win over a caller's of the same name; an identity's display name is not given
to Cedar, since nothing may be decided on it; an evidence attribute that is there twice is refused, because which of the
two a rule would see is anybody's guess.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC
from typing import Final, TypeAlias

import cedarpy

from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import Hop
from chalicelib.domain.identity import Assurance, Evidence, Identity
from chalicelib.domain.policy import PolicyQuestion
from chalicelib.domain.target import Protocol, Target
from chalicelib.policy.schema import CEDAR_SCHEMA, SERVICE

_WEAKEST_FIRST: Final = (Assurance.BEARER, Assurance.VOUCHED, Assurance.ATTESTED)
# A broker task holds a few hundred sessions; past that the oldest is built again (about 50 us).
_MAX_KEPT: Final = 512

SCHEMA: Final = cedarpy.Schema.from_str(CEDAR_SCHEMA)

_Who: TypeAlias = tuple[Identity, Evidence, tuple[str, ...], int]
_What: TypeAlias = tuple[str, Protocol, str, tuple[tuple[str, str], ...]]
_Facts: TypeAlias = tuple[_Who, _What | None]


def resource(target: Target | None) -> Mapping[str, str]:
    """Return the id of what is acted on: ``target``, or this service itself where there is none."""
    return _uid("Service", SERVICE) if target is None else _uid("Target", target.name)


def common_context(question: PolicyQuestion) -> Mapping[str, Json]:
    """Return the context fields that every action has, but ``met``."""
    chain = question.chain
    moment = question.now.astimezone(UTC)
    proved = {hop.evidence.assurance for hop in chain.hops}
    return {
        "originator": chain.originator.key,
        "chain": [identity.key for identity in chain.identities],
        "depth": chain.leaf.depth,
        "min_assurance": next(level.value for level in _WEAKEST_FIRST if level in proved),
        "trigger_known": question.trigger_known,
        "principal": question.principal,
        "time": {"hour": moment.hour, "weekday": moment.isoweekday()},
    }


class EntityShelf:
    """Keeps the parsed entities of recent (actor, target) pairs. Thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Facts, cedarpy.Entities] = OrderedDict()
        self._lock = threading.Lock()

    def entities(self, actor: Hop, target: Target | None) -> cedarpy.Entities:
        """Return the entities of ``actor`` and ``target``, or of the service where there is none. Raises ValueError
        where they do not fit the schema."""
        facts: _Facts = (
            (actor.actor, actor.evidence, actor.teams, actor.depth),
            None if target is None else (target.name, target.protocol, target.environment, target.tags),
        )
        with self._lock:
            if facts in self._kept:
                self._kept.move_to_end(facts)
                return self._kept[facts]
        built = cedarpy.Entities.from_json_str(json.dumps([_actor(facts[0]), _resource(facts[1])]), SCHEMA)
        with self._lock:
            self._kept[facts] = built
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return built


def _actor(who: _Who) -> Mapping[str, Json]:
    identity, evidence, teams, depth = who
    tags = dict(evidence.attributes)
    if len(tags) != len(evidence.attributes):
        raise ValueError("an evidence attribute is there twice")
    parents = [_uid("Team", team) for team in teams] + [_uid("Issuer", identity.issuer)]
    attributes: Mapping[str, Json] = {
        "issuer": identity.issuer,
        "subject": identity.subject,
        "assurance": evidence.assurance.value,
        "depth": depth,
    }
    return {"uid": _uid("Actor", identity.key), "attrs": attributes, "tags": tags, "parents": parents}


def _resource(what: _What | None) -> Mapping[str, Json]:
    if what is None:
        return {"uid": _uid("Service", SERVICE), "attrs": {"protocol": "", "tags": []}, "parents": []}
    name, protocol, environment, tags = what
    return {
        "uid": _uid("Target", name),
        "attrs": {"protocol": protocol.value, "tags": [f"{key}={value}" for key, value in tags]},
        "parents": [_uid("Env", environment)],
    }


def _uid(kind: str, name: str) -> dict[str, str]:
    # A record, never text such as Team::"x": a name with a quote in it stays a name.
    return {"type": kind, "id": name}
