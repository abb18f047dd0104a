"""Every issuer of the stack: the CI's, a cluster's, and the identity provider for people. It mints nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chalicelib.domain.clock import Clock
from chalicelib.domain.identity import Person
from dev.cluster_issuer import ClusterIssuer
from dev.configuration import CI, CLUSTER, PEOPLE
from dev.issuer import Issuer
from dev.people_issuer import CLIENT_ID, PeopleIssuer


class Issuers:
    """The three servers. ``api`` is the API's origin: what tokens of machines are for."""

    def __init__(self, clock: Clock, *, api: str, people: Sequence[Person]) -> None:
        self.ci = Issuer(clock, audience=api)
        self.cluster = ClusterIssuer(clock, audience=api)
        self.people = PeopleIssuer(clock, people=people)

    def start(self) -> None:
        for server in (self.ci, self.cluster, self.people):
            server.start()

    def stop(self) -> None:
        for server in (self.ci, self.cluster, self.people):
            server.stop()

    def places(self) -> dict[str, str]:
        """Return their addresses, by the names under which a bundle's stand for them."""
        return {CI: self.ci.url, CLUSTER: self.cluster.url, PEOPLE: self.people.url}

    def described(self) -> dict[str, Any]:
        """Return what the ready file says of them."""
        people, cluster = self.people, self.cluster
        return {
            "url": self.ci.url,
            "mint": self.ci.mint_url,
            "runner": self.ci.runner_url(),
            "kubernetes": {"url": cluster.url, "mint": cluster.mint_url},
            "people": {
                "url": people.url,
                "mint": people.mint_url,
                "device": people.device_url,
                "client_id": CLIENT_ID,
            },
        }
