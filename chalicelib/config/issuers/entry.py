"""What every kind of issuer has, and what a kind says of itself: the base of each page in this package.

A kind is a page: one module with its claims as data (:class:`Claims`, from the vendor's own page, which it names), the
keys that an operator may write beside the common ones, and what of those would let strangers in. Everything else, from
the address of the keys to the teams, is here and the same for all. A claim inside another is named with ``/`` between
the members' names (``kubernetes.io/serviceaccount/uid``); a ``/`` in a member's own name is written ``~1``
(``oidc.circleci.com~1org-id``), a ``~`` as ``~0``.

Add one so: a module like ``gitlab``, its class in ``issuers.Entry``, a page in ``docs/issuers``, its attacks in
``tests/unit/chalicelib/config/issuers``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from chalicelib.config.document import Path
from chalicelib.config.model import Finding, Name, Strict
from chalicelib.domain.issuer import Issuer, TeamRule

Claim: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_./:~-]{0,127}$")]
Value: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
Values: TypeAlias = Annotated[list[Value], Field(min_length=1, max_length=1000)]
Algorithm: TypeAlias = Literal["RS256", "ES256"]
Url: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
AliasPrefix: TypeAlias = Annotated[str, Field(pattern=r"^[!-9;-~][!-~]{0,62}[!-9;-~]$")]
Pairs: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]


class TeamEntry(Strict):
    """Puts an identity in a team."""

    team: Annotated[Name, Field(description='The team; policies say principal in Team::"orders-pipeline".')]
    when: Annotated[
        dict[Claim, Value],
        Field(
            min_length=1,
            max_length=20,
            description='Claims that must all equal, or, where one is a list, hold it: {repository_id: "700"}; quote '
            "numbers.",
        ),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What tokens of one kind of issuer hold, as ``domain.issuer.Issuer`` says each: what an operator cannot take away.

    ``require`` and ``forbid`` come before the operator's own.
    """

    algorithms: tuple[str, ...]
    many_tenants: bool
    tenant_claims: tuple[str, ...]
    require: Pairs
    forbid: Pairs
    subject: tuple[str, ...]
    run: tuple[str, ...]
    display: tuple[str, ...]
    accountable: tuple[tuple[str, str], ...]
    unknown_trigger: Pairs
    keep: tuple[str, ...]
    ignore: tuple[str, ...]
    max_lifetime_s: int
    max_age_s: int = 0


class IssuerEntry(Strict):
    """What every kind of issuer has. A kind adds ``kind``, ``url`` and ``jwks_uri``."""

    require: Annotated[
        dict[Claim, Values],
        Field(max_length=50, description="Claims that must be there, each with one of the values; quote numbers."),
    ] = {}  # noqa: RUF012 - pydantic copies a field's default
    forbid: Annotated[
        dict[Claim, Values], Field(max_length=50, description="Claims that refuse a token when they have such a value.")
    ] = {}  # noqa: RUF012
    teams: Annotated[list[TeamEntry], Field(max_length=1000, description="Which identities are in which team.")] = []  # noqa: RUF012

    @abstractmethod
    def claims(self) -> Claims:
        """Return what its tokens hold."""

    @abstractmethod
    def addresses(self) -> tuple[str, str]:
        """Return the exact ``iss``, and where the keys are."""

    @abstractmethod
    def accepted(self) -> str:
        """Return the one accepted audience."""

    def login_client(self) -> str:
        """Return the public client with which people log in here; empty where none do."""
        return ""

    def findings(self, path: Path) -> Iterator[Finding]:  # noqa: ARG002 - where a kind's own findings are
        """Yield what the types alone do not refuse, of this kind."""
        yield from ()

    def domain(self, name: str) -> Issuer:
        """Return the declaration."""
        said = self.claims()
        url, jwks_uri = self.addresses()
        return Issuer(
            name=name,
            url=url,
            jwks_uri=jwks_uri,
            algorithms=said.algorithms,
            audience=self.accepted(),
            many_tenants=said.many_tenants,
            tenant_claims=said.tenant_claims,
            require=said.require + pairs(self.require),
            forbid=said.forbid + pairs(self.forbid),
            subject=said.subject,
            run=said.run,
            display=said.display,
            accountable=said.accountable,
            unknown_trigger=said.unknown_trigger,
            keep=said.keep,
            ignore=said.ignore,
            teams=tuple(TeamRule(team=entry.team, when=tuple(entry.when.items())) for entry in self.teams),
            max_lifetime_s=said.max_lifetime_s,
            max_age_s=said.max_age_s,
            client_id=self.login_client(),
        )


class WorkloadIssuer(IssuerEntry):
    """An issuer of workloads' tokens, which name this service as their audience."""

    audience: Annotated[
        Url, Field(description="The only accepted audience: your API's own origin, https://countersign.example.com.")
    ]

    def accepted(self) -> str:
        return self.audience


def pairs(claims: Mapping[str, list[str]]) -> Pairs:
    return tuple((claim, tuple(values)) for claim, values in claims.items())
