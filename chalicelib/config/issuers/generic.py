"""``kind: generic``: any other OpenID Connect issuer, everything written out; and issuers at which people log in.

With ``client_id`` people log in there (``countersign login``, the device flow of RFC 8628): the audience of an ID token
is then that client (OpenID Connect Core section 2), and no address.

Source: OpenID Connect Core 1.0 sections 2 and 3.1.3.7, and the issuer's own documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from chalicelib.config.document import Path
from chalicelib.config.issuers.entry import Algorithm, AliasPrefix, Claim, Claims, IssuerEntry, Url, Values, pairs
from chalicelib.config.model import Finding, Strict


class AccountableEntry(Strict):
    """How a claim names somebody behind the run."""

    alias: Annotated[AliasPrefix, Field(description="Alias prefix: gl:user_id makes gl:user_id:7. One an issuer.")]
    claim: Annotated[Claim, Field(description="The claim with the person's immutable id.")]


class GenericIssuer(IssuerEntry):
    """Any OpenID Connect issuer; everything is written out."""

    kind: Annotated[Literal["generic"], Field(description="generic: nothing is preset.")]
    url: Annotated[Url, Field(description="The exact iss.")]
    jwks_uri: Annotated[Url, Field(description="Where its keys are.")]
    audience: Annotated[
        str,
        Field(
            max_length=512,
            description="The only accepted audience: your API's own origin, https://countersign.example.com; absent "
            "where client_id is there.",
        ),
    ] = ""
    client_id: Annotated[
        str,
        Field(
            pattern=r"^[!-~]{0,255}$",
            description="People log in there with this public client (countersign login); absent where it vouches for "
            "no people.",
        ),
    ] = ""
    algorithms: Annotated[list[Algorithm], Field(min_length=1, max_length=2, description="Accepted: RS256, ES256.")]
    many_tenants: Annotated[
        bool, Field(description="True where it serves others too; then require must hold one of tenant_claims.")
    ]
    tenant_claims: Annotated[
        list[Claim], Field(max_length=20, description="Claims that name the tenant and that it never gives to another.")
    ] = []  # noqa: RUF012 - pydantic copies a field's default
    subject: Annotated[
        list[Claim], Field(min_length=1, max_length=10, description="Claims that together are the immutable subject.")
    ]
    run: Annotated[
        list[Claim],
        Field(min_length=1, max_length=10, description="Claims that together are the immutable run and job."),
    ]
    display: Annotated[
        list[Claim], Field(min_length=1, max_length=10, description="Claims shown to people as the name.")
    ]
    accountable: Annotated[
        list[AccountableEntry],
        Field(max_length=10, description="The people behind a run; none: every trigger is unknown."),
    ]
    unknown_trigger: Annotated[
        dict[Claim, Values],
        Field(max_length=20, description="Claims and values with which those people are not known."),
    ] = {}  # noqa: RUF012
    keep: Annotated[
        list[Claim], Field(max_length=50, description='Claims kept for policies (principal.getTag("ref")) and cards.')
    ]
    ignore: Annotated[
        list[Claim], Field(max_length=100, description="Claims that are known and not used; any other is reported.")
    ] = []  # noqa: RUF012
    max_lifetime_s: Annotated[
        int, Field(ge=60, le=86_400, description="The longest accepted exp - iat, 60 to 86400 seconds.")
    ]

    def claims(self) -> Claims:
        return Claims(
            algorithms=tuple(self.algorithms),
            many_tenants=self.many_tenants,
            tenant_claims=tuple(self.tenant_claims),
            require=(),
            forbid=(),
            subject=tuple(self.subject),
            run=tuple(self.run),
            display=tuple(self.display),
            accountable=tuple((entry.alias, entry.claim) for entry in self.accountable),
            unknown_trigger=pairs(self.unknown_trigger),
            keep=tuple(self.keep),
            ignore=tuple(self.ignore),
            max_lifetime_s=self.max_lifetime_s,
        )

    def addresses(self) -> tuple[str, str]:
        return self.url, self.jwks_uri

    def accepted(self) -> str:
        return self.audience or self.client_id

    def login_client(self) -> str:
        return self.client_id

    def findings(self, path: Path) -> Iterator[Finding]:
        """Yield an audience that is missing, or that is not the client's."""
        if not self.audience and not self.client_id:
            yield Finding(
                path=(*path, "audience"),
                message="audience is missing, so nothing says that a token is for this service",
                remedy="Add it: your API's own origin; or client_id, where people log in at this issuer.",
            )
        if self.client_id and self.audience not in ("", self.client_id):
            yield Finding(
                path=(*path, "audience"),
                message="audience is not client_id, which is the audience of the tokens that people get there",
                remedy="Leave audience out; declare workloads of this issuer under another url.",
            )
