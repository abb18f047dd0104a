"""``connect``: all that a client needs to reach its target through the broker, and to verify the broker. Pure.

``env`` holds libpq's own variables for the caller to export; the broker is always verified: PostgreSQL by certificates,
ssh by the line of its host key. ``command`` is shown to people and never run: an API must not choose what runs on a
pipeline's machine.

Source: libpq, "Environment Variables"; sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT" (brackets where the port is not 22).
"""

from __future__ import annotations

from typing import Final, assert_never

from chalicelib.api.edge import Broker
from chalicelib.api.models import PostgresConnect, SshConnect
from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.target import Protocol
from chalicelib.services.standing import Granted

_SSH_PORT: Final = 22


def connect_of(granted: Granted, broker: Broker, certificate: str = "") -> PostgresConnect | SshConnect:
    """Return ``connect`` for a granted session; ``secret`` and ``PGPASSWORD`` are there only where it was taken now,
    ``certificate`` only where one was made now.

    Raises TargetUnavailable for a protocol without an engine, and for ssh where the broker does not serve it.
    """
    match granted.target.protocol:
        case Protocol.POSTGRES:
            return _postgres(granted, broker)
        case Protocol.SSH:
            return _ssh(granted, broker, certificate)
        case Protocol.KUBERNETES | Protocol.GIT:
            raise TargetUnavailable(f"sessions to {granted.target.protocol.value} targets are not served here")
        case _:
            assert_never(granted.target.protocol)


def _postgres(granted: Granted, broker: Broker) -> PostgresConnect:
    user, database = granted.session.id, granted.target.database
    env = {
        "PGHOST": broker.host,
        "PGPORT": str(broker.postgres_port),
        "PGUSER": user,
        "PGDATABASE": database,
        "PGSSLMODE": "verify-full",
    }
    secret = None if granted.secret is None else granted.secret.expose()
    return PostgresConnect(
        protocol="postgres",
        host=broker.host,
        port=broker.postgres_port,
        ca_pem=broker.ca_pem,
        user=user,
        database=database,
        env=env if secret is None else {**env, "PGPASSWORD": secret},
        command=(
            f"psql 'host={broker.host} port={broker.postgres_port} user={user} dbname={database} "
            "sslmode=verify-full sslrootcert=ca.pem'"
        ),
        secret=secret,
    )


def _ssh(granted: Granted, broker: Broker, certificate: str) -> SshConnect:
    if not broker.ssh_port or not broker.ssh_host_key:
        raise TargetUnavailable("sessions to ssh targets are not served here")
    user = granted.session.id
    named = broker.host if broker.ssh_port == _SSH_PORT else f"[{broker.host}]:{broker.ssh_port}"
    return SshConnect(
        protocol="ssh",
        host=broker.host,
        port=broker.ssh_port,
        known_hosts=f"{named} {broker.ssh_host_key}\n",
        user=user,
        env={},
        command=f"ssh -p {broker.ssh_port} -l {user} {broker.host}",
        secret=None if granted.secret is None else granted.secret.expose(),
        certificate=certificate or None,
    )
