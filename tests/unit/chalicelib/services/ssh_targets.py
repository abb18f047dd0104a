"""The control plane's files with ssh targets: one login by certificate, one by a stored key, one of another name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.fakes.control_plane import FILES

SSH_TARGET: Final = """
  db-host:
    protocol: ssh
    environment: dev
    description: The machine of the orders database
    host: 127.0.0.1
    port: 2222
    principals:
      deploy: {credential: certificate, login: deploy-svc}
      legacy: {credential: countersign/targets/db-host/legacy}
    default_principal: deploy
    host_keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJd4sx/GVwBqsoZrDIqGeRwmdbxmhsLRYrK7NclAM1qB"]
    max_session_s: 1800
"""
SSH_FILES: Final[Mapping[str, str]] = {**FILES, "targets.yaml": FILES["targets.yaml"] + SSH_TARGET}
BOUND: Final = """
@id("on-a-key") @requires("bound")
forbid (principal, action == Action::"session:open", resource in Env::"dev")
    unless { context.met.contains("on-a-key") };
"""


def new_public_key() -> str:
    """Return a new key's line, as the broker makes one for each connection and a client has one of its own."""
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
