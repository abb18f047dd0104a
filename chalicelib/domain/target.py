"""A named thing to reach, from *our* registry: what a client sends never chooses a host."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chalicelib.domain.secret import Secret

CERTIFICATE: Final = "certificate"


class Protocol(StrEnum):
    """What the broker speaks."""

    POSTGRES = "postgres"
    SSH = "ssh"
    KUBERNETES = "kubernetes"
    GIT = "git"


class RecordMode(StrEnum):
    """How much of what a target answers is recorded."""

    FULL = "full"  # results and output too, as the client saw them
    # Who asked what, verdicts and outcomes; results and output are counted and left out where policy permits
    # ``sql:record_less`` or ``ssh:record_less``, and no rule requires ``record:full``.
    STATEMENTS = "statements"


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """A login on a target, by the ``name`` that callers ask for; ``login`` is the account's own name there.

    ``credential`` is a reference into the secret store (an ARN or a name), never a value; or ``CERTIFICATE``: nothing
    is stored, ``mint`` signs a certificate for each connection.
    """

    name: str
    credential: str
    login: str = ""

    @property
    def account(self) -> str:
        return self.login or self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A named thing to reach. ``default_principal`` names one of ``principals``.

    PostgreSQL: ``ca_pem`` verifies it; ``plaintext`` is accepted for loopback hosts only; ``search_path`` is pinned in
    the startup packet. SSH: ``host_keys`` verify it, each ``TYPE BASE64`` of a host key, or ``@cert-authority TYPE
    BASE64`` of the authority that signs host certificates; there is no trust on first use. ``retention_days``: how long
    its recordings are locked, where that is longer than the bucket's default; 0: the default.
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
    host_keys: tuple[str, ...] = ()
    record: RecordMode = RecordMode.FULL
    retention_days: int = 0

    def principal(self, name: str) -> Principal | None:
        """Return the principal of that name, or None."""
        return next((principal for principal in self.principals if principal.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """What a target takes for one connection, as ``mint`` returns it.

    ``kind`` is ``password`` or ``private_key`` (OpenSSH PEM), in ``secret``; or ``certificate``: ``certificate`` is one
    OpenSSH line over the public key that the broker made for this connection, and ``secret`` is empty.
    """

    kind: str
    login: str
    secret: Secret
    certificate: str = ""
