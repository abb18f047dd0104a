"""``kind: gitlab``: the page's own YAML, on the sample token of GitLab's documentation, and who must not get in."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from chalicelib.domain.errors import TokenExpired, TokenInvalid, UnknownIssuer
from tests.fakes.clock import START, FakeClock
from tests.fakes.issuer import MemoryIssuer, gitlab_claims
from tests.unit.chalicelib.config.issuers.declared import Verified, declared, documented, problems

PAGE = documented("gitlab")


def test_the_page_takes_gitlabs_token() -> None:
    """What a user pastes works on the documented sample, and no claim of it is news."""
    verify = Verified(PAGE)
    verified = verify(gitlab_claims())
    assert verified.identity.subject == "72:20"
    assert verified.identity.name == "my-group/my-project main"
    assert verified.run == "574:302"
    assert verified.accountable == ("gl:user_id:1",)
    assert verified.teams == ("orders-pipeline",)
    assert verify.unknown == []
    assert dict(verified.evidence.attributes)["environment"] == "production"


ATTACKS: dict[str, dict[str, Any]] = {
    "another tenant of gitlab.com": {"namespace_id": "666"},
    "a fork's merge request in our project": {"namespace_id": "666", "project_id": "999", "ref_protected": "false"},
    "a merge request's pipeline": {"pipeline_source": "merge_request_event"},
    "an external pull request": {"pipeline_source": "external_pull_request_event"},
    "an unprotected branch": {"ref_protected": "false"},
    "no word on protection": {"ref_protected": None},
    "protection that is a list": {"ref_protected": ["true"]},
    "no job": {"job_id": None},
    "the instance's default audience": {"aud": "https://gitlab.com"},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_gitlab_attack_is_refused(attack: str) -> None:
    """The issuer serves the world, and a branch is written by whoever may push."""
    with pytest.raises(TokenInvalid):
        Verified(PAGE)(gitlab_claims(**ATTACKS[attack]))


def test_the_same_path_in_another_instance_is_another_project() -> None:
    """Paths and ids repeat between instances: the issuer is part of who it is, and its keys are its own."""
    with pytest.raises(UnknownIssuer):
        Verified(PAGE)(gitlab_claims(iss="https://gitlab.example.com"))
    with pytest.raises(TokenInvalid):
        Verified(PAGE)(gitlab_claims(), MemoryIssuer())


@pytest.mark.parametrize(("after_s", "taken"), [(600 + 60, True), (600 + 61, False)])
def test_a_token_that_lives_as_long_as_its_job_is_taken_for_ten_minutes(after_s: int, taken: bool) -> None:
    """It lies in the job's environment for hours, and everything that the job starts can read it."""
    verify = Verified(PAGE, FakeClock(START + timedelta(seconds=after_s)))
    if taken:
        assert verify(gitlab_claims()).expires_at == START + timedelta(seconds=600)
    else:
        with pytest.raises(TokenExpired):
            verify(gitlab_claims())


def test_a_job_that_asks_late_says_so() -> None:
    """``max_age_s`` is the operator's choice, within the token's own life."""
    late = Verified(PAGE + "    max_age_s: 7200\n", FakeClock(START + timedelta(seconds=1800)))
    assert late(gitlab_claims()).expires_at == START + timedelta(seconds=3600)


@pytest.mark.parametrize("source", ["schedule", "trigger", "pipeline", "external", "security_orchestration_policy"])
def test_nobody_known_started_it(source: str) -> None:
    """A schedule's owner may have left years ago: naming them would let whoever wrote the job approve it."""
    assert Verified(PAGE)(gitlab_claims(pipeline_source=source)).accountable == ()


def test_unprotected_branches_only_where_the_operator_says_so() -> None:
    """The one preset that can be taken away, and it has a name."""
    verify = Verified(PAGE + "    protected_refs_only: false\n")
    assert verify(gitlab_claims(ref_protected="false")).identity.subject == "72:20"


def test_own_rules_come_on_top_of_the_preset() -> None:
    """An operator's ``forbid`` adds to what the preset refuses, and replaces nothing of it."""
    verify = Verified(PAGE + "    forbid: {user_login: [mallory]}\n")
    for changed in ({"user_login": "mallory"}, {"pipeline_source": "merge_request_event"}):
        with pytest.raises(TokenInvalid):
            verify(gitlab_claims(**changed))


def test_an_instance_of_ones_own() -> None:
    """Its keys are at its own address."""
    text = PAGE.replace("    # url: ", "    url: ")
    assert declared(text).url == "https://gitlab.example.com"
    assert declared(text).jwks_uri == "https://gitlab.example.com/oauth/discovery/keys"


def test_a_tenant_must_be_named() -> None:
    """``project_path`` is a name, and may be somebody else's tomorrow."""
    text = PAGE.replace('namespace_id: ["72"]', 'project_path: ["my-group/my-project"]')
    assert "serves many tenants" in problems(text)[0].message
