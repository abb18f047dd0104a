"""``approvers.yaml``: who may answer an Ask, where they are in Slack, and by which names issuers know them.

People who approve nothing belong here too: through ``aliases`` somebody who starts a run is known, and so excluded from
approving it. A Slack user, an alias or a passkey that two people shared would let one answer as the other, so none may
be. A passkey is theirs because this file, reviewed and signed with its bundle, says so: there is no table of keys, and
so none to which somebody could add their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field

from chalicelib.config.model import MAX_ENTRIES, BundleFile, Finding, Line, Name, Strict
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.identity import Person
from chalicelib.domain.passkey import Passkey

# The whole DER of a P-256 key but its point (RFC 5480), or the beginning of an RSA key's of 2048 bits or more: what was
# cut short, or is another kind of key, is told here and not to the person who cannot approve with it one night.
_PUBLIC_KEY: Final = r"^(MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE[A-Za-z0-9+/]{86}==|MII[A-Za-z0-9+/]{380,1100}={0,2})$"


class SlackPlace(Strict):
    """Where somebody is in Slack."""

    team: Annotated[str, Field(pattern=r"^[TE][A-Z0-9]{2,20}$", description="The workspace's id, T...")]
    user: Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{2,20}$", description="The member's id, U... (not the name).")]


class PasskeyEntry(Strict):
    """A passkey or security key, as the registration page of the deployment shows it (/v1/passkeys/register)."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{16,1366}$", description="The credential's id, base64url.")]
    public_key: Annotated[
        str,
        Field(pattern=_PUBLIC_KEY, description="Its SubjectPublicKeyInfo, base64: P-256 (ES256) or RSA (RS256)."),
    ]
    rp: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?){0,10}$",
            max_length=253,
            description="The host that it was registered at: that of the approval page.",
        ),
    ]
    note: Annotated[Line, Field(description="Which one it is, for people.")] = "passkey"


class PersonEntry(Strict):
    """Somebody."""

    name: Annotated[Line, Field(description="The name that cards and reviews show.")]
    groups: Annotated[list[Name], Field(max_length=50, description="What they may approve for; may be empty.")]
    slack: Annotated[SlackPlace, Field(description="Where they are in Slack.")]
    aliases: Annotated[
        list[Annotated[str, Field(pattern=r"^[!-~]{3,200}$")]],
        Field(
            max_length=50,
            description="How issuers name them: gh:actor_id:1001. Whoever starts a run never approves it.",
        ),
    ] = []  # noqa: RUF012 - pydantic copies a field's default
    passkeys: Annotated[
        list[PasskeyEntry],
        Field(max_length=20, description="With which they answer where a rule says approval:GROUP:COUNT:webauthn."),
    ] = []  # noqa: RUF012 - the same


class ApproversFile(BundleFile):
    """approvers.yaml: who may approve what."""

    groups: Annotated[
        dict[Name, Line],
        Field(min_length=1, max_length=1000, description="Each approving group, and what it approves."),
    ]
    people: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9@._+-]{0,127}$")], PersonEntry],
        Field(min_length=1, max_length=MAX_ENTRIES, description="Each person by their id at your identity provider."),
    ]

    def findings(self) -> Iterator[Finding]:
        """Yield what the types alone do not refuse."""
        slack: dict[tuple[str, str], str] = {}
        aliases: dict[str, str] = {}
        passkeys: dict[str, str] = {}
        for person, entry in self.people.items():
            path = ("people", person)
            for group in entry.groups:
                if group not in self.groups:
                    yield Finding(
                        path=(*path, "groups"),
                        message=f"{person} is in group {group!r}, which groups does not have",
                        remedy=f"Use one of: {', '.join(sorted(self.groups))}; or add it to groups.",
                    )
            owner = slack.setdefault((entry.slack.team, entry.slack.user), person)
            if owner != person:
                yield Finding(
                    path=(*path, "slack", "user"),
                    message=f"{person} has the Slack user of {owner}, so one could answer as the other",
                    remedy="Give each person their own Slack user id.",
                )
            for alias in entry.aliases:
                owner = aliases.setdefault(alias, person)
                if owner != person:
                    yield Finding(
                        path=(*path, "aliases"),
                        message=f"{person} has the alias {alias} of {owner}",
                        remedy="Keep it with the person whose account it is.",
                    )
            for place, passkey in enumerate(entry.passkeys):
                if passkey.id in passkeys:
                    yield Finding(
                        path=(*path, "passkeys", place),
                        message=f"{person} has a passkey that {passkeys[passkey.id]} has",
                        remedy="Keep it once, with the person who holds it.",
                    )
                passkeys.setdefault(passkey.id, person)

    def domain(self) -> tuple[Person, ...]:
        return tuple(
            Person(
                id=PersonId(person),
                name=entry.name,
                groups=tuple(entry.groups),
                slack_team=entry.slack.team,
                slack_user=entry.slack.user,
                aliases=tuple(entry.aliases),
                passkeys=tuple(
                    Passkey(id=passkey.id, public_key=passkey.public_key, rp=passkey.rp) for passkey in entry.passkeys
                ),
            )
            for person, entry in self.people.items()
        )
