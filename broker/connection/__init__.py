"""Connection: one admitted transport, and the one way to open it."""

from broker.connection.gateway import Gateway
from broker.connection.live import Connection

__all__ = ["Connection", "Gateway"]
