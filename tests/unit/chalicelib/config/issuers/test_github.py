"""``kind: github``: the page's own YAML, on a token as github.com gives it."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.errors import TokenInvalid
from tests.fakes.issuer import claims
from tests.unit.chalicelib.config.issuers.declared import Verified, declared, documented, problems

PAGE = documented("github")


def test_the_page_takes_githubs_token() -> None:
    """What a user pastes works, and no claim of it is news."""
    verify = Verified(PAGE)
    verified = verify(claims(check_run_id="8001"))
    assert verified.identity.subject == "9001:700"
    assert verified.run == "42:1:8001"
    assert verified.accountable == ("gh:actor_id:123",)
    assert verified.teams == ("orders-pipeline",)
    assert verify.unknown == []


@pytest.mark.parametrize(
    "changed",
    [
        {"repository_owner_id": "666"},
        {"event_name": "pull_request"},
        {"event_name": "pull_request_target"},
        {"event_name": "workflow_run"},
        {"event_name": "issue_comment"},
        {"check_run_id": None},
        {"aud": "https://github.com/acme"},
    ],
)
def test_what_others_can_start_is_refused(changed: dict[str, Any]) -> None:
    """A stolen ticket is redeemed by the attacker's own repository: the CI's issuer serves the world."""
    with pytest.raises(TokenInvalid):
        Verified(PAGE)(claims(check_run_id="8001") | changed)


def test_two_servers_name_their_people_apart() -> None:
    """User 7 of one server is not user 7 of the other: as one alias, either could approve what the other started."""
    other = """\
  ghes:
    kind: github
    url: https://ghes.example/_services/token
    audience: https://countersign.example.com
    require: {repository_owner_id: ["1"]}
"""
    assert [found.message for found in problems(PAGE + other) if "not the same people" in found.message]
    assert not problems(PAGE + other + "    alias: ghes:actor_id\n")
    assert declared(PAGE).accountable == (("gh:actor_id", "actor_id"),)
