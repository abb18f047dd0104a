"""A verified who, who vouches for it, and how strong that is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.kept_proof import IssuerProof
from chalicelib.domain.passkey import Passkey


class Assurance(StrEnum):
    """How an identity was proved, strongest first."""

    ATTESTED = "attested"  # an issuer signed a token about the workload itself
    VOUCHED = "vouched"  # its parent named its key; nobody else knows it
    BEARER = "bearer"  # it showed a secret that anybody who read it could show


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who: ``issuer`` is the exact issuer string, ``subject`` an immutable id that the issuer never gives to another.

    ``name`` is for people only and may change; nothing is ever decided on it.
    """

    issuer: str
    subject: str
    name: str

    @property
    def key(self) -> str:
        """The text that rules, revocations and records use."""
        return f"{self.issuer}#{self.subject}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What proved an identity, kept on its hop: enough to check later, and no token.

    ``claims_sha256`` is over the canonical claims; ``token_id`` is the issuer's ``jti`` or the token's SHA-256;
    ``attributes`` are the claims that the issuer's declaration keeps for policy and cards (ref, environment, ...); whom
    its parent vouches for has its parent's. ``kept_sha256`` is the hash of the stored object that keeps the token
    itself (``domain.kept_proof``): on an origin hop always, from the fourth version of hops on; else empty.
    """

    kind: str
    token_id: str
    claims_sha256: str
    assurance: Assurance
    attributes: tuple[tuple[str, str], ...]
    kept_sha256: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedIdentity:
    """What an issuer's token said, after verification and by that issuer's declaration.

    ``run`` is the immutable id of the run and job, to which one root is bound; ``accountable`` are the people behind
    the run as the issuer names them (``gh:actor_id:123``), matched with people's aliases; empty where the trigger is
    unknown. ``teams`` are those that the declaration puts the identity in. ``claims`` are those that it declares and
    that are one text each, by name: what a ticket for this issuer is compared with. ``proof`` is the token with the
    keys that verified it.
    """

    identity: Identity
    evidence: Evidence
    run: str
    accountable: tuple[str, ...]
    teams: tuple[str, ...]
    expires_at: datetime
    proof: IssuerProof
    claims: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Somebody who may answer an Ask: the IdP's id, where they are in Slack, what they may approve for, and the
    passkeys that they registered."""

    id: PersonId
    name: str
    groups: tuple[str, ...]
    slack_team: str
    slack_user: str
    aliases: tuple[str, ...]
    passkeys: tuple[Passkey, ...] = ()
