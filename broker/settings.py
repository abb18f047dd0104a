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
from chalicelib.domain.secret import Secret

_MIB: Final = 1024 * 1024
# Fargate allows 90 (120 at most, of which 30 are for ending and sealing); a machine of one's own an hour, past which a
# restart would be somebody's night.
MAX_DRAIN_S: Final = 3600
_PROXY_PROTOCOLS: Final = ("", "v2")  # version 1 has no length, and no balancer of AWS's needs it


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What the broker is told. ``tls_certificate`` and ``tls_key`` are PEM, ``ssh_host_key`` an OpenSSH private key,
    None where no ssh is served: each a file, or the text itself, which ECS takes from a secret store. ``build`` and
    ``host`` say in each manifest what sealed it. ``spool``: a folder that outlives the process, for what is accepted
    and not yet in the bucket, at most ``spool_bytes``; None: no spool. ``drain_s``: how long sessions may go on once
    the broker was told to end. ``proxied``: a balancer stands before it. ``ecs_agent``: where a task of ECS asks for
    protection, empty elsewhere."""

    prefix: str
    region: str
    bucket: str
    lock_days: int
    mint_function: str
    listen_host: str
    postgres_port: int
    tls_certificate: Path | Secret
    tls_key: Path | Secret
    ssh_port: int
    ssh_host_key: Path | Secret | None
    build: str
    host: str
    bucket_key: str = ""
    spool: Path | None = None
    spool_bytes: int = MOST_BYTES
    drain_s: int = 0
    proxied: bool = False
    ecs_agent: str = ""


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
        tls_certificate=_file_or_text(env, "COUNTERSIGN_TLS_CERTIFICATE"),
        tls_key=_file_or_text(env, "COUNTERSIGN_TLS_KEY"),
        ssh_port=ssh_port,
        ssh_host_key=_file_or_text(env, "COUNTERSIGN_SSH_HOST_KEY") if ssh_port else None,
        build=env.get("COUNTERSIGN_BUILD", "source"),
        host=socket.gethostname(),
        bucket_key=env.get("COUNTERSIGN_BUCKET_KEY", ""),
        spool=Path(env["COUNTERSIGN_SPOOL"]) if env.get("COUNTERSIGN_SPOOL") else None,
        spool_bytes=_number(env, "COUNTERSIGN_SPOOL_MIB", str(MOST_BYTES // _MIB)) * _MIB,
        drain_s=_drain(env),
        proxied=_proxied(env),
        ecs_agent=env.get("ECS_AGENT_URI", ""),
    )


def _need(env: Mapping[str, str], name: str) -> str:
    value = env.get(name, "")
    if not value:
        raise ConfigurationInvalid(f"the environment variable {name} is not set")
    return value


def _file_or_text(env: Mapping[str, str], name: str) -> Path | Secret:
    """Return the file that ``name`` names, or what ``name_PEM`` holds. Raises ConfigurationInvalid, where both are set
    too: of two keys the wrong one would be used."""
    text = env.get(f"{name}_PEM", "")
    if text and env.get(name):
        raise ConfigurationInvalid(f"of the environment variables {name} and {name}_PEM only one may be set")
    return Secret(text) if text else Path(_need(env, name))


def _drain(env: Mapping[str, str]) -> int:
    seconds = _number(env, "COUNTERSIGN_DRAIN_S", "0")
    if seconds > MAX_DRAIN_S:
        raise ConfigurationInvalid(f"the environment variable COUNTERSIGN_DRAIN_S is more than {MAX_DRAIN_S}")
    return seconds


def _proxied(env: Mapping[str, str]) -> bool:
    version = env.get("COUNTERSIGN_PROXY_PROTOCOL", "")
    if version not in _PROXY_PROTOCOLS:
        raise ConfigurationInvalid("the environment variable COUNTERSIGN_PROXY_PROTOCOL is not v2")
    return bool(version)


def _number(env: Mapping[str, str], name: str, default: str) -> int:
    text = env.get(name, default)
    if not text.isascii() or not text.isdigit():
        raise ConfigurationInvalid(f"the environment variable {name} is not a whole number")
    return int(text)
