"""``targets.yaml``: what can be reached, and with which login. The only place that chooses a host.

Secrets are references into the secret store, never values: a bundle is signed, shown on cards and kept for ever. Host
keys of ssh targets are written out: there is no trust on first use.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from chalicelib.config.document import Path
from chalicelib.config.model import MAX_ENTRIES, BundleFile, Finding, Line, Name, Strict
from chalicelib.domain.target import CERTIFICATE, Principal, Protocol, RecordMode, Target

# AWS allows a secret's name letters, digits and /_+=.@-. One without a slash is refused here: it might be the password.
_PATH: Final = r"[A-Za-z0-9_+=.@-]{1,128}(/[A-Za-z0-9_+=.@-]{1,128}){1,7}"
_ARN: Final = r"arn:aws[a-z-]{0,16}:secretsmanager:[a-z0-9-]{1,32}:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,512}"
# The beginnings of well-known keys, which nobody gives to a folder of secrets.
_LOOKS_SECRET: Final = re.compile(r"(AKIA|ASIA|xox[abprs]-|gh[pousr]_|sk-|eyJ|-----)")
_LENGTH_BYTES: Final = 4  # RFC 4251 section 5: the length before each field
# A typing error must not lock terabytes for a century: nobody can shorten what is locked in COMPLIANCE mode. The bucket
# policy refuses locks past this as well (infra/bucket/policy.json).
MAX_RETENTION_DAYS: Final = 3650
_IDENTIFIER: Final = r"^[a-z_][a-z0-9_$]{0,62}$"  # PostgreSQL keeps 63 bytes (NAMEDATALEN - 1)


Days: TypeAlias = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,3}d$")]
_LABEL: Final = r"[A-Za-z0-9 ._:/@+-]{1,128}"
TagText: TypeAlias = Annotated[str, Field(pattern=rf"^[a-z][a-z0-9_-]{{0,62}}={_LABEL}$")]


class PrincipalEntry(Strict):
    """A login on a PostgreSQL target."""

    credential: Annotated[
        str,
        Field(
            pattern=rf"^({_ARN}|{_PATH})$",
            description="Where the login's secret is: the ARN of a secret, or its name with at least one slash "
            "(countersign/targets/orders-prod/app). Never the secret itself.",
        ),
    ]


class SshPrincipalEntry(Strict):
    """A login on an ssh target, by the name that callers ask for."""

    credential: Annotated[
        str,
        Field(
            pattern=rf"^({CERTIFICATE}|{_ARN}|{_PATH})$",
            description=f"{CERTIFICATE}: one is signed for each connection and nothing is stored, which needs "
            "TrustedUserCAKeys on the target. Else where the login's private key is: the ARN of a secret, or its name "
            "with at least one slash. Never the key itself.",
        ),
    ]
    login: Annotated[
        str,
        Field(
            pattern=r"^([a-z_][a-z0-9_.-]{0,31})?$",  # useradd's own limit, and nothing that a shell or sshd reads
            description="The account's own name on the target; absent: the name that callers ask for.",
        ),
    ] = ""


LoginName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$.@-]{0,62}$")]
# Each Debian and Ubuntu login works as it is; one with other characters is named by ``login``.
SshLoginName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.-]{0,31}$")]
_HOST_KEY: Final = (
    r"^(@cert-authority )?(ssh-ed25519|ecdsa-sha2-nistp256|ecdsa-sha2-nistp384|ecdsa-sha2-nistp521|ssh-rsa) "
    r"[A-Za-z0-9+/]{16,2800}={0,2}$"  # to RSA keys of 16384 bits, the largest that OpenSSH makes
)


class _Target(Strict):
    """What targets of every protocol have."""

    environment: Annotated[Name, Field(description='Which environment it is in; policies say Env::"prod".')]
    description: Annotated[Line, Field(description="What it is, in one line for approvers.")]
    host: Annotated[
        str,
        Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?$|^::1$", description="Its name or address."),
    ]
    port: Annotated[int, Field(ge=1, le=65535, description="Its TCP port, 1 to 65535.")]
    default_principal: Annotated[str, Field(description="The login for who names none: one of principals.")]
    tags: Annotated[
        dict[Name, Annotated[str, Field(pattern=rf"^{_LABEL}$")]],
        Field(max_length=50, description='Free labels; policies say resource.tags.contains("team=orders").'),
    ] = {}  # noqa: RUF012 - pydantic copies a field's default
    max_session_s: Annotated[
        int, Field(ge=60, le=43_200, description="The longest session, 60 to 43200 seconds (a working day's 12 hours).")
    ] = 3600
    max_connections: Annotated[
        int, Field(ge=1, le=100, description="Connections that one session may hold at once, 1 to 100.")
    ] = 4
    hold_budget_s: Annotated[
        int, Field(ge=10, le=3600, description="How long an operation may wait for a person, 10 to 3600 seconds.")
    ] = 300
    durable: Annotated[
        bool, Field(description="True forwards every operation only when its record is acknowledged by the bucket.")
    ] = False
    record: Annotated[
        Literal["full", "statements"],
        Field(
            description="full: results and output are recorded too, as the client saw them. statements: they may be "
            "counted and left out, where a policy permits sql:record_less or ssh:record_less; the recording says so."
        ),
    ] = "full"
    retention: Annotated[
        Days | None,
        Field(
            description=f"How long its recordings are locked, in days (400d), at most {MAX_RETENTION_DAYS}d; never "
            "shorter than the bucket's default, which holds where this is absent."
        ),
    ] = None


class PostgresTarget(_Target):
    """A PostgreSQL database."""

    protocol: Annotated[Literal["postgres"], Field(description="postgres: a PostgreSQL database.")]
    database: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$-]{0,62}$", description="The database to open.")]
    principals: Annotated[
        dict[LoginName, PrincipalEntry],
        Field(min_length=1, max_length=100, description="The logins that may be asked for, each with its credential."),
    ]
    ca_pem: Annotated[
        str, Field(max_length=65536, description="PEM certificates of the authority that vouches for the target.")
    ] = ""
    plaintext: Annotated[bool, Field(description="True speaks to it without TLS: for 127.0.0.0/8 and ::1 only.")] = (
        False
    )
    search_path: Annotated[
        list[Annotated[str, Field(pattern=_IDENTIFIER)]],
        Field(min_length=1, max_length=16, description="Schemas pinned as the search path; pg_temp is put last."),
    ] = ["public"]  # noqa: RUF012

    def findings(self, path: Path) -> Iterator[Finding]:
        """Yield what the types alone do not refuse, of this protocol."""
        if "pg_temp" in self.search_path:
            yield Finding(
                path=(*path, "search_path"),
                message="pg_temp in search_path lets a temporary table shadow a real one",
                remedy="Leave it out: it is put last.",
            )
        yield from _transport(path, self)

    def domain(self, name: str) -> Target:
        return _target(
            name,
            self,
            principals=tuple(
                Principal(name=login, credential=principal.credential) for login, principal in self.principals.items()
            ),
            database=self.database,
            ca_pem=self.ca_pem,
            plaintext=self.plaintext,
            search_path=tuple(self.search_path),
        )


class SshTarget(_Target):
    """A machine with an OpenSSH server."""

    protocol: Annotated[Literal["ssh"], Field(description="ssh: a machine with an OpenSSH server.")]
    principals: Annotated[
        dict[SshLoginName, SshPrincipalEntry],
        Field(min_length=1, max_length=100, description="The logins that may be asked for, each with its credential."),
    ]
    host_keys: Annotated[
        list[Annotated[str, Field(pattern=_HOST_KEY)]],
        Field(
            min_length=1,
            max_length=16,
            description="What verifies it, each a line of its /etc/ssh/ssh_host_*_key.pub without the comment "
            "(ssh-ed25519 AAAA...), or @cert-authority and the key of the authority that signs host certificates. "
            "Nothing is trusted on first use.",
        ),
    ]

    def findings(self, path: Path) -> Iterator[Finding]:
        """Yield what the types alone do not refuse, of this protocol."""
        for index, line in enumerate(self.host_keys):
            kind, _, blob = line.removeprefix("@cert-authority ").partition(" ")
            if not _is_key(kind, blob):
                yield Finding(
                    path=(*path, "host_keys", index),
                    message=f"host key {index + 1} is not a whole {kind} key, so nothing would ever match it",
                    remedy="Copy the line again: ssh-keyscan -t ed25519 HOST, compared with the target's own file.",
                )

    def domain(self, name: str) -> Target:
        return _target(
            name,
            self,
            principals=tuple(
                Principal(name=asked, credential=principal.credential, login=principal.login)
                for asked, principal in self.principals.items()
            ),
            host_keys=tuple(self.host_keys),
        )


TargetEntry: TypeAlias = PostgresTarget | SshTarget


class TargetsFile(BundleFile):
    """targets.yaml: what can be reached."""

    targets: Annotated[
        dict[Name, Annotated[TargetEntry, Field(discriminator="protocol")]],
        Field(min_length=1, max_length=MAX_ENTRIES, description="Each target by the name that callers ask for."),
    ]
    retention: Annotated[
        dict[TagText, Days],
        Field(
            max_length=100,
            description="How long the recordings of targets with a tag are locked (class=cardholder: 400d); the "
            "longest of a target's own and its tags' counts.",
        ),
    ] = {}  # noqa: RUF012 - pydantic copies a field's default

    def findings(self) -> Iterator[Finding]:
        """Yield what the types alone do not refuse."""
        for name, entry in self.targets.items():
            yield from _findings(("targets", name), entry)
            if entry.retention is not None:
                yield from _retention(("targets", name, "retention"), entry.retention)
        known = {_label(tag) for entry in self.targets.values() for tag in entry.tags.items()}
        for label, days in self.retention.items():
            yield from _retention(("retention", label), days)
            if label not in known:
                yield Finding(
                    path=("retention", label),
                    message=f"no target has the tag {label}",
                    remedy="Give the tag to a target, or remove the line: a misspelt one would keep nothing longer.",
                )

    def domain(self) -> Mapping[str, Target]:
        return {
            name: replace(entry.domain(name), retention_days=self._retention_days(entry))
            for name, entry in self.targets.items()
        }

    def _retention_days(self, entry: TargetEntry) -> int:
        asked = [self.retention[label] for tag in entry.tags.items() if (label := _label(tag)) in self.retention]
        return max((_days(text) for text in (*asked, *filter(None, [entry.retention]))), default=0)


def _label(tag: tuple[str, str]) -> str:
    return "=".join(tag)


def _days(text: str) -> int:
    return int(text.removesuffix("d"))


def _retention(path: Path, text: str) -> Iterator[Finding]:
    if _days(text) > MAX_RETENTION_DAYS:
        yield Finding(
            path=path,
            message=f"{text} is longer than {MAX_RETENTION_DAYS}d, and nobody can shorten a lock",
            remedy=f"Ask for at most {MAX_RETENTION_DAYS}d; what must stay longer is held (countersign hold).",
        )


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
    yield from entry.findings(path)


def _transport(path: Path, entry: PostgresTarget) -> Iterator[Finding]:
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


def _is_key(kind: str, blob: str) -> bool:
    """Whether ``blob`` is base64 of a key that says of itself that it is of this kind (RFC 4253 section 6.6). Pure."""
    try:
        data = base64.b64decode(blob, validate=True)
    except ValueError:
        return False
    rest, parts = data, 0
    while len(rest) >= _LENGTH_BYTES:  # the whole of it must be length-prefixed fields: a line cut short is not
        end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES], "big")
        if end > len(rest):
            return False
        rest, parts = rest[end:], parts + 1
    named = _LENGTH_BYTES + len(kind)
    return not rest and parts > 1 and data[:named] == len(kind).to_bytes(_LENGTH_BYTES, "big") + kind.encode()


def _target(
    name: str,
    entry: TargetEntry,
    *,
    principals: tuple[Principal, ...],
    database: str = "",
    ca_pem: str = "",
    plaintext: bool = False,
    search_path: tuple[str, ...] = (),
    host_keys: tuple[str, ...] = (),
) -> Target:
    return Target(
        name=name,
        protocol=Protocol(entry.protocol),
        environment=entry.environment,
        description=entry.description,
        host=entry.host,
        port=entry.port,
        database=database,
        principals=principals,
        default_principal=entry.default_principal,
        ca_pem=ca_pem,
        plaintext=plaintext,
        search_path=search_path,
        tags=tuple(sorted(entry.tags.items())),
        max_session_s=entry.max_session_s,
        max_connections=entry.max_connections,
        hold_budget_s=entry.hold_budget_s,
        durable=entry.durable,
        host_keys=host_keys,
        record=RecordMode(entry.record),
    )
