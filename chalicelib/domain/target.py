"""A named thing to reach, from *our* registry: what a client sends never chooses a host."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chalicelib.domain.secret import Secret


class Protocol(StrEnum):
    """What the broker speaks."""

    POSTGRES = "postgres"
    SSH = "ssh"
    KUBERNETES = "kubernetes"
    GIT = "git"


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A login on a target. ``credential`` is a reference into the secret store (an ARN or a name), never a value."""

    name: str
    credential: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A named thing to reach. ``ca_pem`` verifies it; ``plaintext`` is accepted for loopback hosts only.

    ``default_principal`` names one of ``principals``. ``search_path`` is pinned in PostgreSQL's startup packet.
    """

    name: str
    protocol: Protocol
    environment: str
    description: str
    host: str
    port: int
    database: str
    principals: tuple[Principal, ...]
    default_principal: str
    ca_pem: str
    plaintext: bool
    search_path: tuple[str, ...]
    tags: tuple[tuple[str, str], ...]
    max_session_s: int
    max_connections: int
    hold_budget_s: int
    durable: bool

    def principal(self, name: str) -> Principal | None:
        """Return the principal of that name, or None."""
        return next((principal for principal in self.principals if principal.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """What a target takes for one connection, as ``mint`` returns it. ``kind`` is ``password``."""

    kind: str
    login: str
    secret: Secret
