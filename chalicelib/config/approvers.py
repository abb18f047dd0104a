"""``approvers.yaml``: who may answer an Ask, where they are in Slack, and by which names issuers know them.

People who approve nothing belong here too: through ``aliases`` somebody who starts a run is known, and so excluded from
approving it. A Slack user or an alias that two people shared would let one answer as the other, so neither may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from chalicelib.config.model import MAX_ENTRIES, BundleFile, Finding, Line, Name, Strict
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.identity import Person


class SlackPlace(Strict):
    """Where somebody is in Slack."""

    team: Annotated[str, Field(pattern=r"^[TE][A-Z0-9]{2,20}$", description="The workspace's id, T...")]
    user: Annotated[str, Field(pattern=r"^[UW][A-Z0-9]{2,20}$", description="The member's id, U... (not the name).")]


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

    def domain(self) -> tuple[Person, ...]:
        return tuple(
            Person(
                id=PersonId(person),
                name=entry.name,
                groups=tuple(entry.groups),
                slack_team=entry.slack.team,
                slack_user=entry.slack.user,
                aliases=tuple(entry.aliases),
            )
            for person, entry in self.people.items()
        )
