"""Hop and Chain: one delegation step with its evidence, and the hash-linked hops from originator to target.

Rules: a hop is signed when written and never changed; each names the hash of its parent; ``txn`` and the originator
are the same on all of them; depth grows by one. What a hop hashes is fixed for ever by :meth:`Hop.hashed` and the
vectors in ``tests/vectors/hops.json`` (ADR 0003): a new field is a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Final

from chalicelib.domain.canonical import Digested, Json, timestamp
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import HopId, Txn
from chalicelib.domain.identity import Evidence, Identity
from chalicelib.domain.scope import Authority, allows, within

# 1 had neither ``max_depth`` nor ``ticket``, 2 no ``rules``, 3 no ``kept_sha256``; all still verify.
HOP_VERSION: Final = 4
HOP_SIGNATURE_TYPE: Final = "countersign-hop+jws"


class HopKind(StrEnum):
    """What a hop stands for."""

    ORIGIN = "origin"  # the first: who the whole chain acts for
    DELEGATE = "delegate"  # a child that its parent let in
    TARGET = "target"  # the last: the principal used on the target


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop(Digested):
    """One step of a chain.

    ``scope`` is what it may ask for and do (``domain.scope``), ``max_depth`` the depth that no delegation below it
    passes. ``accountable`` are the people behind the run, as :class:`Person` aliases; empty means that the trigger is
    unknown. ``key_thumbprint`` (RFC 7638) is the key that its tokens are bound to, empty where there is none.
    ``ticket`` is the delegation ticket that let a delegate in, ``rules`` are those that allowed it. On a target hop
    ``target``, ``principal`` and ``serial`` (ours, chosen before the credential is minted) are set; else empty.
    ``signature`` is a compact JWS of type ``HOP_SIGNATURE_TYPE`` over the hash, empty only before signing.
    """

    txn: Txn
    id: HopId
    depth: int
    kind: HopKind
    parent: HopId | None
    parent_sha256: str
    originator: Identity
    actor: Identity
    evidence: Evidence
    accountable: tuple[str, ...]
    teams: tuple[str, ...]
    scope: tuple[str, ...]
    key_thumbprint: str
    target: str
    principal: str
    serial: str
    issued_at: datetime
    expires_at: datetime
    max_depth: int = 0
    ticket: str = ""
    rules: tuple[str, ...] = ()
    signature: str = ""
    version: int = HOP_VERSION

    def hashed(self) -> Mapping[str, Json]:
        """Return exactly what the hash covers: every field of its version but the signature."""
        since_2: Mapping[str, Json] = {"max_depth": self.max_depth, "ticket": self.ticket}
        since_3: Mapping[str, Json] = {"rules": list(self.rules)}
        since_4: Mapping[str, Json] = {"kept_sha256": self.evidence.kept_sha256}
        return {
            "v": self.version,
            "txn": self.txn,
            "id": self.id,
            "depth": self.depth,
            "kind": self.kind.value,
            "parent": self.parent,
            "parent_sha256": self.parent_sha256,
            "originator": _identity(self.originator),
            "actor": _identity(self.actor),
            "evidence": {
                "kind": self.evidence.kind,
                "token_id": self.evidence.token_id,
                "claims_sha256": self.evidence.claims_sha256,
                "assurance": self.evidence.assurance.value,
                "attributes": [list(pair) for pair in self.evidence.attributes],
                **(since_4 if self.version >= 4 else {}),
            },
            "accountable": list(self.accountable),
            "teams": list(self.teams),
            "scope": list(self.scope),
            "key_thumbprint": self.key_thumbprint,
            "target": self.target,
            "principal": self.principal,
            "serial": self.serial,
            "issued_at": timestamp(self.issued_at),
            "expires_at": timestamp(self.expires_at),
            **(since_2 if self.version >= 2 else {}),
            **(since_3 if self.version >= 3 else {}),
        }

    def sha256(self) -> str:
        """Return the hop's hash, 64 hexadecimal digits."""
        return self._digest_of(self.hashed)

    @property
    def authority(self) -> Authority:
        """What it may hand down."""
        return Authority(scope=self.scope, expires_at=self.expires_at, depth=self.depth, max_depth=self.max_depth)


def _identity(identity: Identity) -> Mapping[str, Json]:
    return {"iss": identity.issuer, "sub": identity.subject, "name": identity.name}


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """The hops from originator to one leaf, in order of depth. Make one with :func:`chain_to`, which checks it."""

    hops: tuple[Hop, ...]

    @property
    def txn(self) -> Txn:
        return self.hops[0].txn

    @property
    def originator(self) -> Identity:
        return self.hops[0].originator

    @property
    def leaf(self) -> Hop:
        return self.hops[-1]

    @property
    def accountable(self) -> tuple[str, ...]:
        """The people behind the run; empty where its trigger is unknown."""
        return self.hops[0].accountable

    @property
    def involved(self) -> tuple[str, ...]:
        """Everybody behind any hop: none of them may approve what the chain does."""
        return tuple(dict.fromkeys(alias for hop in self.hops for alias in hop.accountable))

    def allows(self, target: str, principal: str, action: str | None = None) -> bool:
        """Return whether every hop's scope allows it; None asks about opening a session. Policy still decides."""
        return all(allows(hop.scope, target, principal, action) for hop in self.hops if hop.kind is not HopKind.TARGET)

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Originator and every actor, in order, each once."""
        return tuple(dict.fromkeys((self.originator, *(hop.actor for hop in self.hops))))

    def liveness_keys(self) -> frozenset[str]:
        """The keys of which any revocation ends what runs under this chain."""
        keys = {f"txn:{self.txn}"}
        for hop in self.hops:
            keys |= {f"hop:{hop.id}", f"identity:{hop.actor.key}", f"issuer:{hop.actor.issuer}"}
        return frozenset(keys)


def _says_more(hop: Hop) -> bool:
    """Return whether it says something that the hash of its version does not cover: anybody may have written that."""
    return (
        (hop.version < 2 and bool(hop.max_depth or hop.ticket))
        or (hop.version < 3 and bool(hop.rules))
        or (hop.version < 4 and bool(hop.evidence.kept_sha256))
    )


def _has_no_more(parent: Hop, child: Hop) -> bool:
    """Return whether a child's authority is part of its parent's, as ``narrow`` made it. Who signs could err."""
    if child.kind is HopKind.TARGET:
        return allows(parent.scope, child.target, child.principal)
    return (
        child.kind is HopKind.DELEGATE
        and within(child.scope, parent.scope)
        and child.depth <= child.max_depth <= parent.max_depth
    )


def chain_to(hops: Mapping[HopId, Hop], leaf: HopId) -> Chain:
    """Return the chain that ends at ``leaf``, with every link checked; signatures are the caller's to check.

    Raises ProofInvalid on a missing hop, a loop, a wrong hash, depth, ``txn`` or originator, or a child that has more
    than its parent: in time, in scope, in depth. Pure.
    """
    found: list[Hop] = []
    wanted: HopId | None = leaf
    while wanted is not None:
        hop = hops.get(wanted)
        if hop is None or len(found) > len(hops):
            raise ProofInvalid("the chain of identities is not complete", hop=wanted)
        found.append(hop)
        wanted = hop.parent
    found.reverse()
    if any(_says_more(hop) for hop in found):
        raise ProofInvalid("the chain of identities says more than was signed", hop=leaf)
    root = found[0]
    if root.depth != 0 or root.kind is not HopKind.ORIGIN or root.parent_sha256:
        raise ProofInvalid("the chain of identities does not start at its origin", hop=root.id)
    for parent, child in pairwise(found):
        if (
            child.depth != parent.depth + 1
            or child.parent_sha256 != parent.sha256()
            or child.txn != root.txn
            or child.originator != root.originator
            or child.expires_at > parent.expires_at
            or parent.kind is HopKind.TARGET
            or not _has_no_more(parent, child)
        ):
            raise ProofInvalid("the chain of identities is broken", hop=child.id)
    return Chain(hops=tuple(found))
