"""Whether the broker here accepts and answers: ``python -m broker.health`` (exit 0, or 1), for the container.

Rules: it reads the broker's own settings and speaks to its ports as a stranger does, so that a loop that hangs is seen,
and not only a socket that is open; behind a balancer it sends that one's health check. It proves nothing about the
target, the tables or the bucket: a container that is replaced because the bucket is away would end its sessions and
mend nothing. While the broker leaves it is unhealthy: nobody new is to come.
"""

from __future__ import annotations

import socket
import sys
from typing import Final

from broker.settings import Settings, read_settings
from broker.wire.postgres.startup import SSL_REQUEST, encode_request
from broker.wire.proxy import LOCAL_HEADER
from chalicelib.domain.errors import AccessError

WITHIN_S: Final = 3.0  # an answer takes a millisecond; the container's own timeout is longer
_EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 compared with, not bound


def answers(settings: Settings) -> bool:
    """Say whether every port that ``settings`` name answers as it should. Blocks for some seconds at most."""
    host = _EVERYWHERE.get(settings.listen_host, settings.listen_host)
    postgres = (encode_request(SSL_REQUEST), b"S")
    ssh = (b"", b"S")  # ssh's server speaks first: SSH-2.0-
    ports = [(settings.postgres_port, *postgres)]
    if settings.ssh_port:
        ports.append((settings.ssh_port, *ssh))
    if settings.proxied:
        ports = [(port, LOCAL_HEADER, b"") for port, _, _ in ports]
    return all(_answers(host, port, said, expected) for port, said, expected in ports)


def _answers(host: str, port: int, said: bytes, expected: bytes) -> bool:
    try:
        with socket.create_connection((host, port), timeout=WITHIN_S) as probe:
            probe.sendall(said)
            return probe.recv(1) == expected
    except OSError:
        return False


def main() -> int:
    """Return the exit status: 0 where it answers."""
    try:
        return 0 if answers(read_settings()) else 1
    except AccessError as error:
        sys.stderr.write(f"{error.public}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
