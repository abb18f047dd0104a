"""The service that a command speaks to: its checked address, one HTTP client, and the caller's identity there."""

from __future__ import annotations

import json
from collections.abc import Mapping

from countersign.address import parse_address
from countersign.api import Clock, HttpClient, Response
from countersign.failures import Exit, Failure
from countersign.settings import Settings
from countersign.tokens import Tokens


class Service:
    """One service and one caller."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Raises Failure (usage) where nobody said where the service is, or at no address of ours."""
        if not settings.api:
            raise Failure(
                Exit.USAGE,
                "nobody said where Countersign is",
                hint="Set COUNTERSIGN_API to its address, or use --api. `countersign dev` prints its own.",
            )
        self.address = parse_address(settings.api, "the address of Countersign (COUNTERSIGN_API, --api)")
        self.clock = clock
        self.http = HttpClient(self.address, clock)
        self.tokens = Tokens(settings, self.http, clock)

    def get(self, url: str) -> Response:
        """Return the answer to a question by the caller; ``url`` is one of ``address``. Raises Failure."""
        return self.http.call("GET", url, presented=self.tokens.presented(), repeatable=True)

    def post(
        self,
        path: str,
        body: Mapping[str, object],
        *,
        repeatable: bool,
        headers: Mapping[str, str] | None = None,
        http: HttpClient | None = None,
    ) -> Response:
        """Return the answer to a JSON object that the caller sends, by ``http`` where it is not the usual client.
        Raises Failure."""
        return (http or self.http).call(
            "POST",
            self.address.url(path),
            presented=self.tokens.presented(),
            body=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
            repeatable=repeatable,
        )

    def public(self, path: str) -> Response:
        """Return what the service tells anybody. Raises Failure."""
        return self.http.call("GET", self.address.url(path), repeatable=True)
