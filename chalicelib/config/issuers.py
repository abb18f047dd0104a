"""``issuers.yaml``: who vouches for whom. A preset fills in what is the same for everybody who uses that issuer.

``kind: github`` is GitHub Actions. Its preset rests on ids, which GitHub never gives to another (``repository_id``,
``repository_owner_id``, ``actor_id``); never on ``sub``, whose form each organisation may change and which has changed
by default. What others outside the repository can start (pull requests, ``workflow_run``, issue comments) is refused.
Who is behind a run is known for what a person started once: for a schedule, a dispatch through the API, a bot, or a
re-run (``actor_id`` stays that of the first starter), the trigger counts as unknown.

``kind: generic`` is any other OpenID Connect issuer, everything written out.

Source: docs.github.com, "OpenID Connect reference" and "Events that trigger workflows".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import Field

from chalicelib.config.document import Path
from chalicelib.config.model import BundleFile, Finding, Name, Strict
from chalicelib.config.targets import is_loopback
from chalicelib.domain.issuer import Issuer, TeamRule

GITHUB_URL: Final = "https://token.actions.githubusercontent.com"
_GITHUB_TENANT: Final = ("repository_owner_id", "repository_id", "enterprise_id")
_GITHUB_SUBJECT: Final = ("repository_owner_id", "repository_id")
_GITHUB_RUN: Final = ("run_id", "run_attempt")
_GITHUB_JOB: Final = (*_GITHUB_RUN, "check_run_id")
_GITHUB_DISPLAY: Final = ("repository", "workflow")
_GITHUB_ACCOUNTABLE: Final = (("gh:actor_id", "actor_id"),)
_GITHUB_FORBID: Final = (("event_name", ("pull_request", "pull_request_target", "workflow_run", "issue_comment")),)
_GITHUB_UNKNOWN_TRIGGER: Final = (
    ("event_name", ("schedule", "repository_dispatch")),
    ("actor", ("github-actions[bot]", "dependabot[bot]", "renovate[bot]")),
    # Claims are compared, not counted, so each attempt past the first is written out. GitHub stops long before this.
    ("run_attempt", tuple(str(attempt) for attempt in range(2, 1001))),
)
_GITHUB_KEEP: Final = (
    *("repository", "ref", "environment", "event_name", "workflow_ref", "job_workflow_ref", "runner_environment"),
    *("actor", "run_id", "run_attempt", "sha"),
)
_GITHUB_IGNORE: Final = (
    *("actor_id", "base_ref", "check_run_id", "enterprise", "enterprise_id", "environment_node_id", "head_ref"),
    *("issuer_scope", "job_workflow_sha", "ref_protected", "ref_type", "repository_id", "repository_owner"),
    *("repository_owner_id", "repository_visibility", "run_number", "sub", "workflow", "workflow_sha"),
)
# GitHub's sample token: valid 5 minutes after iat; twice that leaves room for a change of theirs and for no more.
_GITHUB_LIFETIME_S: Final = 600

Claim: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_./:-]{0,127}$")]
Value: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]
Values: TypeAlias = Annotated[list[Value], Field(min_length=1, max_length=1000)]
Algorithm: TypeAlias = Literal["RS256", "ES256"]
Url: TypeAlias = Annotated[str, Field(min_length=1, max_length=512)]


class TeamEntry(Strict):
    """Puts an identity in a team."""

    team: Annotated[Name, Field(description='The team; policies say principal in Team::"orders-pipeline".')]
    when: Annotated[
        dict[Claim, Value],
        Field(
            min_length=1,
            max_length=20,
            description='Claims that must all equal: {repository_id: "700"}; quote numbers.',
        ),
    ]


class AccountableEntry(Strict):
    """How a claim names somebody behind the run."""

    alias: Annotated[
        str, Field(pattern=r"^[!-9;-~][!-~]{0,62}[!-9;-~]$", description="Alias prefix: gl:user_id makes gl:user_id:7.")
    ]
    claim: Annotated[Claim, Field(description="The claim with the person's immutable id.")]


class _Issuer(Strict):
    """What every kind of issuer has."""

    audience: Annotated[
        Url, Field(description="The only accepted audience: your API's own origin, https://countersign.example.com.")
    ]
    require: Annotated[
        dict[Claim, Values],
        Field(max_length=50, description="Claims that must be there, each with one of the values; quote numbers."),
    ] = {}  # noqa: RUF012 - pydantic copies a field's default
    forbid: Annotated[
        dict[Claim, Values], Field(max_length=50, description="Claims that refuse a token when they have such a value.")
    ] = {}  # noqa: RUF012
    teams: Annotated[list[TeamEntry], Field(max_length=1000, description="Which identities are in which team.")] = []  # noqa: RUF012


class GitHubIssuer(_Issuer):
    """GitHub Actions, GitHub Enterprise Server, or a local issuer of tokens of that shape."""

    kind: Annotated[Literal["github"], Field(description="github: the preset for GitHub Actions.")]
    url: Annotated[Url, Field(description="The exact iss; absent: github.com's.")] = GITHUB_URL
    jwks_uri: Annotated[
        str, Field(max_length=512, description="Where its keys are; absent: url and /.well-known/jwks.")
    ] = ""
    root: Annotated[
        Literal["job", "run"],
        Field(
            description="What begins a chain: each job (its token must have the claim check_run_id, as github.com's "
            "has), or the run as a whole, for servers that do not name the job."
        ),
    ] = "job"

    def domain(self, name: str) -> Issuer:
        return Issuer(
            name=name,
            url=self.url,
            jwks_uri=self.jwks_uri or f"{self.url}/.well-known/jwks",
            algorithms=("RS256",),
            audience=self.audience,
            many_tenants=True,
            tenant_claims=_GITHUB_TENANT,
            require=_pairs(self.require),
            # The preset's come first and cannot be taken away: each lets an outsider start the run.
            forbid=_GITHUB_FORBID + _pairs(self.forbid),
            subject=_GITHUB_SUBJECT,
            run=_GITHUB_JOB if self.root == "job" else _GITHUB_RUN,
            display=_GITHUB_DISPLAY,
            accountable=_GITHUB_ACCOUNTABLE,
            unknown_trigger=_GITHUB_UNKNOWN_TRIGGER,
            keep=_GITHUB_KEEP,
            ignore=_GITHUB_IGNORE,
            teams=_teams(self.teams),
            max_lifetime_s=_GITHUB_LIFETIME_S,
        )


class GenericIssuer(_Issuer):
    """Any OpenID Connect issuer; everything is written out."""

    kind: Annotated[Literal["generic"], Field(description="generic: nothing is preset.")]
    url: Annotated[Url, Field(description="The exact iss.")]
    jwks_uri: Annotated[Url, Field(description="Where its keys are.")]
    algorithms: Annotated[list[Algorithm], Field(min_length=1, max_length=2, description="Accepted: RS256, ES256.")]
    many_tenants: Annotated[
        bool, Field(description="True where it serves others too; then require must hold one of tenant_claims.")
    ]
    tenant_claims: Annotated[
        list[Claim], Field(max_length=20, description="Claims that name the tenant and that it never gives to another.")
    ] = []  # noqa: RUF012
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

    def domain(self, name: str) -> Issuer:
        return Issuer(
            name=name,
            url=self.url,
            jwks_uri=self.jwks_uri,
            algorithms=tuple(self.algorithms),
            audience=self.audience,
            many_tenants=self.many_tenants,
            tenant_claims=tuple(self.tenant_claims),
            require=_pairs(self.require),
            forbid=_pairs(self.forbid),
            subject=tuple(self.subject),
            run=tuple(self.run),
            display=tuple(self.display),
            accountable=tuple((entry.alias, entry.claim) for entry in self.accountable),
            unknown_trigger=_pairs(self.unknown_trigger),
            keep=tuple(self.keep),
            ignore=tuple(self.ignore),
            teams=_teams(self.teams),
            max_lifetime_s=self.max_lifetime_s,
        )


class IssuersFile(BundleFile):
    """issuers.yaml: who vouches for whom."""

    issuers: Annotated[
        dict[Name, Annotated[GitHubIssuer | GenericIssuer, Field(discriminator="kind")]],
        Field(min_length=1, max_length=1000, description="Each issuer by a name of yours."),
    ]

    def findings(self) -> Iterator[Finding]:
        """Yield what the types alone do not refuse."""
        urls: dict[str, str] = {}
        for name, entry in self.issuers.items():
            path = ("issuers", name)
            declaration = entry.domain(name)
            owner = urls.setdefault(declaration.url, name)
            if owner != name:
                yield Finding(
                    path=(*path, "url"),
                    message=f"{name} and {owner} declare the same issuer, so which rules hold is anybody's guess",
                    remedy="Make one declaration of the two.",
                )
            yield from _tenant(path, declaration)
            for key in ("url", "jwks_uri", "audience"):
                yield from _address((*path, key), key, getattr(declaration, key))

    def domain(self) -> tuple[Issuer, ...]:
        return tuple(entry.domain(name) for name, entry in self.issuers.items())


def _tenant(path: Path, declaration: Issuer) -> Iterator[Finding]:
    required = {claim for claim, _ in declaration.require}
    if declaration.many_tenants and not required & set(declaration.tenant_claims):
        claims = ", ".join(declaration.tenant_claims) or "tenant_claims, which is empty"
        yield Finding(
            path=(*path, "require"),
            message=f"{declaration.name} serves many tenants, and nothing says which is yours: anybody's job could ask",
            remedy=f"Require one of: {claims}; with your own ids as the values.",
        )


def _address(path: Path, key: str, url: str) -> Iterator[Finding]:
    parts = _split(url)
    secure = parts is not None and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    )
    plain = (
        parts is not None and parts.hostname and not (parts.query or parts.fragment or parts.username or parts.password)
    )
    if not secure or not plain or url.endswith("/") or not url.isascii() or not url.isprintable() or " " in url:
        yield Finding(
            path=path,
            message=f"{key} {url!r} is not an https address (http: for 127.0.0.0/8 and ::1 only)",
            remedy="Write https://host/path, without a slash at the end, user, query or fragment.",
        )


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises on a port that is none
        return parts
    except ValueError:
        return None


def _pairs(claims: Mapping[str, list[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((claim, tuple(values)) for claim, values in claims.items())


def _teams(entries: list[TeamEntry]) -> tuple[TeamRule, ...]:
    return tuple(TeamRule(team=entry.team, when=tuple(entry.when.items())) for entry in entries)
