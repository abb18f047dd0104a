"""``connect``: all that a client needs to reach its target through the broker, and to verify the broker. Pure.

``env`` holds libpq's own variables for the caller to export; the broker's certificate is always verified. ``command``
is shown to people and never run: an API must not choose what runs on a pipeline's machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from chalicelib.api.edge import Broker
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import TargetUnavailable
from chalicelib.domain.target import Protocol
from chalicelib.services.standing import Granted


def connect_of(granted: Granted, broker: Broker) -> Mapping[str, Json]:
    """Return ``connect`` for a granted session; ``secret`` and ``PGPASSWORD`` are there only where it was taken now.

    Raises TargetUnavailable for a protocol without an engine.
    """
    match granted.target.protocol:
        case Protocol.POSTGRES:
            return _postgres(granted, broker)
        case Protocol.SSH | Protocol.KUBERNETES | Protocol.GIT:
            raise TargetUnavailable(f"sessions to {granted.target.protocol.value} targets are not served here")
        case _:
            assert_never(granted.target.protocol)


def _postgres(granted: Granted, broker: Broker) -> Mapping[str, Json]:
    user, database = granted.session.id, granted.target.database
    env: dict[str, Json] = {
        "PGHOST": broker.host,
        "PGPORT": str(broker.postgres_port),
        "PGUSER": user,
        "PGDATABASE": database,
        "PGSSLMODE": "verify-full",
    }
    connect: dict[str, Json] = {
        "protocol": Protocol.POSTGRES.value,
        "host": broker.host,
        "port": broker.postgres_port,
        "ca_pem": broker.ca_pem,
        "user": user,
        "database": database,
        "env": env,
        "command": (
            f"psql 'host={broker.host} port={broker.postgres_port} user={user} dbname={database} "
            "sslmode=verify-full sslrootcert=ca.pem'"
        ),
    }
    if granted.secret is not None:
        secret = granted.secret.expose()
        connect["secret"] = secret
        env["PGPASSWORD"] = secret
    return connect
