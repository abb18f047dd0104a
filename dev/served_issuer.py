"""What every issuer of the stack is: a server on loopback with a key of its own, and an address that mints."""

from __future__ import annotations

from abc import ABC, abstractmethod

from chalicelib.domain.clock import Clock
from dev.loopback import LoopbackServer, Request, Response
from dev.token_key import TokenKey


class ServedIssuer(ABC):
    """A server that signs tokens. Port 0 takes a free one."""

    def __init__(self, clock: Clock, name: str, algorithm: str, port: int) -> None:
        self._clock = clock
        self._key = TokenKey(algorithm)
        self._server = LoopbackServer(name, self.answer, port=port)

    @abstractmethod
    def answer(self, request: Request) -> Response:
        """Serve one request; any other path is 404."""

    @property
    def url(self) -> str:
        return self._server.url

    @property
    def mint_url(self) -> str:
        return f"{self.url}/mint"

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
