"""``targets.yaml``: what can be reached, and with which login. The only place that chooses a host.

Secrets are references into the secret store, never values: a bundle is signed, shown on cards and kept for ever.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import Field

from chalicelib.config.document import Path
from chalicelib.config.model import MAX_ENTRIES, BundleFile, Finding, Line, Name, Strict
from chalicelib.domain.target import Principal, Protocol, Target

# AWS allows a secret's name letters, digits and /_+=.@-. One without a slash is refused here: it might be the password.
_PATH: Final = r"[A-Za-z0-9_+=.@-]{1,128}(/[A-Za-z0-9_+=.@-]{1,128}){1,7}"
_ARN: Final = r"arn:aws[a-z-]{0,16}:secretsmanager:[a-z0-9-]{1,32}:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,512}"
# The beginnings of well-known keys, which nobody gives to a folder of secrets.
_LOOKS_SECRET: Final = re.compile(r"(AKIA|ASIA|xox[abprs]-|gh[pousr]_|sk-|eyJ|-----)")
_IDENTIFIER: Final = r"^[a-z_][a-z0-9_$]{0,62}$"  # PostgreSQL keeps 63 bytes (NAMEDATALEN - 1)


class PrincipalEntry(Strict):
    """A login on the target."""

    credential: Annotated[
        str,
        Field(
            pattern=rf"^({_ARN}|{_PATH})$",
            description="Where the login's secret is: the ARN of a secret, or its name with at least one slash "
            "(countersign/targets/orders-prod/app). Never the secret itself.",
        ),
    ]


class TargetEntry(Strict):
    """A named thing to reach."""

    protocol: Annotated[Literal["postgres"], Field(description="What the broker speaks to it; today: postgres.")]
    environment: Annotated[Name, Field(description='Which environment it is in; policies say Env::"prod".')]
    description: Annotated[Line, Field(description="What it is, in one line for approvers.")]
    host: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?$|^::1$", description="Its name or address."),
    ]
    port: Annotated[int, Field(ge=1, le=65535, description="Its TCP port, 1 to 65535.")]
    database: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$-]{0,62}$", description="The database to open.")]
    principals: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$.@-]{0,62}$")], PrincipalEntry],
        Field(min_length=1, max_length=100, description="The logins that may be asked for, each with its credential."),
    ]
    default_principal: Annotated[str, Field(description="The login for who names none: one of principals.")]
    ca_pem: Annotated[
        str, Field(max_length=65536, description="PEM certificates of the authority that vouches for the target.")
    ] = ""
    plaintext: Annotated[bool, Field(description="True speaks to it without TLS: for 127.0.0.0/8 and ::1 only.")] = (
        False
    )
    search_path: Annotated[
        list[Annotated[str, Field(pattern=_IDENTIFIER)]],
        Field(min_length=1, max_length=16, description="Schemas pinned as the search path; pg_temp is put last."),
    ] = ["public"]  # noqa: RUF012 - pydantic copies a field's default
    tags: Annotated[
        dict[Name, Annotated[str, Field(pattern=r"^[A-Za-z0-9 ._:/@+-]{1,128}$")]],
        Field(max_length=50, description='Free labels; policies say resource.tags.contains("team=orders").'),
    ] = {}  # noqa: RUF012
    max_session_s: Annotated[
        int, Field(ge=60, le=43_200, description="The longest session, 60 to 43200 seconds (a working day's 12 hours).")
    ] = 3600
    max_connections: Annotated[
        int, Field(ge=1, le=100, description="Connections that one session may hold at once, 1 to 100.")
    ] = 4
    hold_budget_s: Annotated[
        int, Field(ge=10, le=3600, description="How long a statement may wait for a person, 10 to 3600 seconds.")
    ] = 300
    durable: Annotated[
        bool, Field(description="True forwards every statement only when its record is acknowledged by the bucket.")
    ] = False


class TargetsFile(BundleFile):
    """targets.yaml: what can be reached."""

    targets: Annotated[
        dict[Name, TargetEntry],
        Field(min_length=1, max_length=MAX_ENTRIES, description="Each target by the name that callers ask for."),
    ]

    def findings(self) -> Iterator[Finding]:
        """Yield what the types alone do not refuse."""
        for name, entry in self.targets.items():
            yield from _findings(("targets", name), entry)

    def domain(self) -> Mapping[str, Target]:
        return {name: _target(name, entry) for name, entry in self.targets.items()}


def _findings(path: Path, entry: TargetEntry) -> Iterator[Finding]:
    if entry.default_principal not in entry.principals:
        yield Finding(
            path=(*path, "default_principal"),
            message=f"default_principal {entry.default_principal!r} is not one of principals",
            remedy=f"Name one of: {', '.join(sorted(entry.principals))}.",
        )
    for login, principal in entry.principals.items():
        if _LOOKS_SECRET.match(principal.credential):
            yield Finding(
                path=(*path, "principals", login, "credential"),
                message=f"the credential of {login} looks like a secret itself",
                remedy="Put the secret into the secret store, name it here, and replace it: it has been written down.",
            )
    if "pg_temp" in entry.search_path:
        yield Finding(
            path=(*path, "search_path"),
            message="pg_temp in search_path lets a temporary table shadow a real one",
            remedy="Leave it out: it is put last.",
        )
    yield from _transport(path, entry)


def _transport(path: Path, entry: TargetEntry) -> Iterator[Finding]:
    if entry.plaintext and not is_loopback(entry.host):
        yield Finding(
            path=(*path, "plaintext"),
            message=f"plaintext to {entry.host!r} would show the credential and every row to the network",
            remedy="Use TLS: remove plaintext and give ca_pem. Only an address of 127.0.0.0/8 or ::1 may be plaintext.",
        )
    if entry.plaintext and entry.ca_pem:
        yield Finding(
            path=(*path, "ca_pem"),
            message="ca_pem verifies nothing where plaintext is true",
            remedy="Keep one of the two.",
        )
    if not entry.plaintext and not _is_ca(entry.ca_pem):
        yield Finding(
            path=(*path, "ca_pem"),
            message="ca_pem holds no certificate, so nothing would verify the target",
            remedy="Give the PEM certificates of the authority that signed the target's certificate, and no key.",
        )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a loopback address. A name never is: who answers for it may change. Pure."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ca(pem: str) -> bool:
    if "PRIVATE KEY" in pem:
        return False
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        return False
    return True


def _target(name: str, entry: TargetEntry) -> Target:
    return Target(
        name=name,
        protocol=Protocol(entry.protocol),
        environment=entry.environment,
        description=entry.description,
        host=entry.host,
        port=entry.port,
        database=entry.database,
        principals=tuple(
            Principal(name=login, credential=principal.credential) for login, principal in entry.principals.items()
        ),
        default_principal=entry.default_principal,
        ca_pem=entry.ca_pem,
        plaintext=entry.plaintext,
        search_path=tuple(entry.search_path),
        tags=tuple(sorted(entry.tags.items())),
        max_session_s=entry.max_session_s,
        max_connections=entry.max_connections,
        hold_budget_s=entry.hold_budget_s,
        durable=entry.durable,
    )
