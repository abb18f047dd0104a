"""``issuers.yaml``: who vouches for whom. Each ``kind`` is a page of this package, and fills in what is the same for
everybody who uses that issuer; ``generic`` fills in nothing.

What holds for every kind is checked here: each issuer once, addresses that cannot be listened to, a tenant where an
issuer serves many, and aliases of people that mean one person.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeAlias
from urllib.parse import SplitResult, urlsplit

from pydantic import Field

from chalicelib.config.document import Path
from chalicelib.config.issuers.generic import GenericIssuer
from chalicelib.config.issuers.github import GitHubIssuer
from chalicelib.config.issuers.gitlab import GitLabIssuer
from chalicelib.config.issuers.kubernetes import KubernetesIssuer
from chalicelib.config.model import BundleFile, Finding, Name
from chalicelib.config.targets import is_loopback
from chalicelib.domain.issuer import Issuer

Entry: TypeAlias = GitHubIssuer | GitLabIssuer | KubernetesIssuer | GenericIssuer


class IssuersFile(BundleFile):
    """issuers.yaml: who vouches for whom."""

    issuers: Annotated[
        dict[Name, Annotated[Entry, Field(discriminator="kind")]],
        Field(min_length=1, max_length=1000, description="Each issuer by a name of yours."),
    ]

    def findings(self) -> Iterator[Finding]:
        """Yield what the types alone do not refuse."""
        urls: dict[str, str] = {}
        aliases: dict[str, str] = {}
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
            yield from _aliases(path, declaration, aliases)
            yield from _tenant(path, declaration)
            yield from entry.findings(path)
            yield from _addresses(path, declaration)

    def domain(self) -> tuple[Issuer, ...]:
        return tuple(entry.domain(name) for name, entry in self.issuers.items())


def _aliases(path: Path, declaration: Issuer, aliases: dict[str, str]) -> Iterator[Finding]:
    """Yield an alias prefix that two issuers use: user 7 of one would be taken for user 7 of the other, and somebody
    could approve what they started. One that begins another is as bad: what an issuer says of its user is taken as it
    is, and user ``actor_id:7`` of ``gh`` would be user 7 of ``gh:actor_id``."""
    for prefix in dict.fromkeys(alias for alias, _ in declaration.accountable):
        aliases.setdefault(prefix, declaration.name)
        for other, owner in aliases.items():
            longer, shorter = max(prefix, other, key=len), min(prefix, other, key=len)
            if owner == declaration.name or not f"{longer}:".startswith(f"{shorter}:"):
                continue
            yield Finding(
                path=(*path, "alias"),
                message=f"{declaration.name} and {owner} both name people {longer}:..., who are not the same people",
                remedy="Give one of them another alias, and use it in approvers.yaml.",
            )


def _tenant(path: Path, declaration: Issuer) -> Iterator[Finding]:
    required = {claim for claim, _ in declaration.require}
    if declaration.many_tenants and not required & set(declaration.tenant_claims):
        claims = ", ".join(declaration.tenant_claims) or "tenant_claims, which is empty"
        yield Finding(
            path=(*path, "require"),
            message=f"{declaration.name} serves many tenants, and nothing says which is yours: anybody's job could ask",
            remedy=f"Require one of: {claims}; with your own ids as the values.",
        )


def _addresses(path: Path, declaration: Issuer) -> Iterator[Finding]:
    yield from _address((*path, "url"), "url", declaration.url)
    yield from _address((*path, "jwks_uri"), "jwks_uri", declaration.jwks_uri)
    if declaration.audience and not declaration.client_id:  # a client's id is whatever its issuer made it
        yield from _address((*path, "audience"), "audience", declaration.audience)


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
