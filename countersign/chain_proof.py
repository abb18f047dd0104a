"""Proves a chain that the service shows: each hop's hash, signature and link, and that it has no more than its parent.

What is believed of a hop is what its hash covers (``hashed``): the members beside it are for people who read JSON, and
one that says otherwise is a fault. ``revoked`` is the service's word alone: no hash covers what came after the hop.

What it does not do: find out that a hop is missing which the service does not show (a parent that is missing is
seen; a leaf that is not told of is not): the archive's counted digests are for that. Source: ADR 0003.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from chalicelib.domain.canonical import Json, canonical, timestamp
from chalicelib.domain.chain import HOP_SIGNATURE_TYPE, Hop, HopKind, chain_to
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import HopId, Txn
from chalicelib.domain.identity import Assurance, Evidence, Identity
from chalicelib.domain.signature import KeyPurpose
from countersign.api import text_of
from countersign.signatures import PublicKey, signed_by
from countersign.timestamps import moment_of

MOST_HOPS: Final = 10_000  # a run of eight hours that opened a connection every three seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownHop:
    """A hop as the service showed it. ``beside``: members next to ``hashed`` that say otherwise."""

    hop: Hop
    revoked: bool
    sha256: str
    beside: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HopProof:
    """What became of proving one hop: the key that signed it, and what does not hold, in sentences."""

    shown: ShownHop
    key: PublicKey | None
    faults: tuple[str, ...]


def shown_hops(told: object) -> tuple[ShownHop, ...]:
    """Return the hops of a chain's answer, parents before children. Raises ValueError where one is none."""
    if not isinstance(told, list) or not 1 <= len(told) <= MOST_HOPS:
        raise ValueError("hops")
    found = [_shown(entry) for entry in told]
    if len({shown.hop.id for shown in found}) != len(found):
        raise ValueError("a hop is there twice")
    return tuple(sorted(found, key=lambda shown: (shown.hop.depth, shown.hop.id)))


def prove(shown: Sequence[ShownHop], keys: tuple[PublicKey, ...], txn: str) -> tuple[HopProof, ...]:
    """Return the proof of each hop of the chain ``txn``, in the order given. Pure."""
    by_id = {one.hop.id: one.hop for one in shown}
    return tuple(_proof(one, by_id, keys, txn) for one in shown)


def _proof(shown: ShownHop, by_id: Mapping[HopId, Hop], keys: tuple[PublicKey, ...], txn: str) -> HopProof:
    hop, faults = shown.hop, list(shown.beside)
    if hop.txn != txn:
        faults.append("it is of another chain")
    if hop.sha256() != shown.sha256:
        faults.append("its hash is not that of what it says")
    purpose = KeyPurpose.RECORD if hop.kind is HopKind.TARGET else KeyPurpose.TOKEN
    key: PublicKey | None = None
    try:
        key = signed_by(keys, purpose, HOP_SIGNATURE_TYPE, hop.signature, hop.sha256())
    except ValueError as error:
        faults.append(f"its signature: {error}")
    try:
        chain_to(by_id, hop.id)
    except ProofInvalid as error:
        where = error.detail.get("hop")
        faults.append(error.public if where in {None, hop.id} else f"{error.public} (at {where})")
    return HopProof(shown=shown, key=key, faults=tuple(faults))


def _shown(entry: object) -> ShownHop:
    if not isinstance(entry, dict) or not isinstance(entry.get("hashed"), dict):
        raise ValueError("hashed")  # noqa: TRY004 - what the service said, not what a caller passed
    hop = hop_of(entry["hashed"], text_of(entry, "signature"))
    return ShownHop(
        hop=hop,
        revoked=entry.get("revoked") is True,
        sha256=text_of(entry, "sha256"),
        beside=tuple(
            f"the service shows another {name} than the hop has"
            for name, value in _beside(hop).items()
            if name in entry and entry[name] != value
        ),
    )


def _beside(hop: Hop) -> Mapping[str, object]:
    """Return the members that an answer repeats beside ``hashed``."""
    actor = hop.actor
    return {
        "id": hop.id,
        "depth": hop.depth,
        "kind": hop.kind.value,
        "parent": hop.parent or "",
        "actor": {"iss": actor.issuer, "sub": actor.subject, "name": actor.name},
        "assurance": hop.evidence.assurance.value,
        "scope": list(hop.scope),
        "max_depth": hop.max_depth,
        "teams": list(hop.teams),
        "key_thumbprint": hop.key_thumbprint,
        "ticket": hop.ticket,
        "target": hop.target,
        "principal": hop.principal,
        "serial": hop.serial,
        "issued_at": timestamp(hop.issued_at),
        "expires_at": timestamp(hop.expires_at),
    }


def hop_of(hashed: Mapping[str, object], signature: str) -> Hop:
    """Return the hop whose :meth:`Hop.hashed` is ``hashed``, exactly. Raises ValueError where there is none. Pure."""
    try:
        hop = _hop(hashed, signature)
        same = canonical(hop.hashed()) == canonical(cast("Json", hashed))
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError("a hop lacks what every hop has") from error
    if not same:
        raise ValueError("a hop has what no hop of its version has")
    return hop


def _hop(hashed: Mapping[str, object], signature: str) -> Hop:
    evidence = _object(hashed["evidence"])
    issued_at, expires_at = moment_of(hashed["issued_at"]), moment_of(hashed["expires_at"])
    version = hashed["v"]
    if issued_at is None or expires_at is None or version not in {1, 2, 3, 4}:
        raise ValueError("a hop's times or version are none that we know")
    parent = hashed["parent"]
    return Hop(
        txn=Txn(_text(hashed["txn"])),
        id=HopId(_text(hashed["id"])),
        depth=_number(hashed["depth"]),
        kind=HopKind(_text(hashed["kind"])),
        parent=None if parent is None else HopId(_text(parent)),
        parent_sha256=_text(hashed["parent_sha256"]),
        originator=_identity(hashed["originator"]),
        actor=_identity(hashed["actor"]),
        evidence=Evidence(
            kind=_text(evidence["kind"]),
            token_id=_text(evidence["token_id"]),
            claims_sha256=_text(evidence["claims_sha256"]),
            assurance=Assurance(_text(evidence["assurance"])),
            attributes=tuple(_pair(pair) for pair in _list(evidence["attributes"])),
            kept_sha256=_text(evidence.get("kept_sha256", "")),
        ),
        accountable=_texts(hashed["accountable"]),
        teams=_texts(hashed["teams"]),
        scope=_texts(hashed["scope"]),
        key_thumbprint=_text(hashed["key_thumbprint"]),
        target=_text(hashed["target"]),
        principal=_text(hashed["principal"]),
        serial=_text(hashed["serial"]),
        issued_at=issued_at,
        expires_at=expires_at,
        max_depth=_number(hashed.get("max_depth", 0)),
        ticket=_text(hashed.get("ticket", "")),
        rules=_texts(hashed.get("rules", [])),
        signature=signature,
        version=_number(version),
    )


def _identity(value: object) -> Identity:
    told = _object(value)
    return Identity(issuer=_text(told["iss"]), subject=_text(told["sub"]), name=_text(told["name"]))


def _object(value: object) -> Mapping[str, object]:
    if isinstance(value, dict):
        return value
    raise TypeError("no object")


def _list(value: object) -> list[object]:
    if isinstance(value, list):
        return value
    raise TypeError("no list")


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    raise TypeError("no text")


def _number(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise TypeError("no number")


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _pair(value: object) -> tuple[str, str]:
    name, text = _texts(value)
    return name, text
