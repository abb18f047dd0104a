"""The settings of the broker: read from the environment once per process, here and nowhere else in ``broker``."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from broker.recorder.spool import MOST_BYTES
from chalicelib.domain.errors import ConfigurationInvalid

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the broker is told. ``tls_certificate`` and ``tls_key`` are PEM files; ``ssh_host_key`` is an OpenSSH
    private key's, None where no ssh is served; ``build`` and ``host`` say in each manifest what sealed it. ``spool``: a
    folder that outlives the process, for what is accepted and not yet in the bucket, at most ``spool_bytes``; None: no
    spool."""

    prefix: str
    region: str
    bucket: str
    lock_days: int
    mint_function: str
    listen_host: str
    postgres_port: int
    tls_certificate: Path
    tls_key: Path
    ssh_port: int
    ssh_host_key: Path | None
    build: str
    host: str
    bucket_key: str = ""
    spool: Path | None = None
    spool_bytes: int = MOST_BYTES


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings that ``environment``, else the process's own, holds. Raises ConfigurationInvalid."""
    env = os.environ if environment is None else environment
    ssh_port = _number(env, "COUNTERSIGN_LISTEN_SSH_PORT", "0")
    return Settings(
        prefix=_need(env, "COUNTERSIGN_PREFIX"),
        region=_need(env, "AWS_DEFAULT_REGION") if "AWS_DEFAULT_REGION" in env else _need(env, "AWS_REGION"),
        bucket=_need(env, "COUNTERSIGN_BUCKET"),
        lock_days=_number(env, "COUNTERSIGN_LOCK_DAYS", "1"),
        mint_function=f"{_need(env, 'COUNTERSIGN_FUNCTION_PREFIX')}mint",
        listen_host=env.get("COUNTERSIGN_LISTEN_HOST", "127.0.0.1"),
        postgres_port=_number(env, "COUNTERSIGN_LISTEN_POSTGRES_PORT", "5432"),
        tls_certificate=Path(_need(env, "COUNTERSIGN_TLS_CERTIFICATE")),
        tls_key=Path(_need(env, "COUNTERSIGN_TLS_KEY")),
        ssh_port=ssh_port,
        ssh_host_key=Path(_need(env, "COUNTERSIGN_SSH_HOST_KEY")) if ssh_port else None,
        build=env.get("COUNTERSIGN_BUILD", "source"),
        host=socket.gethostname(),
        bucket_key=env.get("COUNTERSIGN_BUCKET_KEY", ""),
        spool=Path(env["COUNTERSIGN_SPOOL"]) if env.get("COUNTERSIGN_SPOOL") else None,
        spool_bytes=_number(env, "COUNTERSIGN_SPOOL_MIB", str(MOST_BYTES // _MIB)) * _MIB,
    )


def _need(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise ConfigurationInvalid(f"the environment variable {name} is not set")
    return value


def _number(env: Mapping[str, str], name: str, default: str) -> int:
    text = env.get(name, default)
    if not text.isascii() or not text.isdigit():
        raise ConfigurationInvalid(f"the environment variable {name} is not a whole number")
    return int(text)
