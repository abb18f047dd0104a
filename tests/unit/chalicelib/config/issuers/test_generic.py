"""``kind: generic``: people who log in, and a CI whose claims have slashes in their names."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.errors import TokenInvalid
from tests.fakes.issuer import AUDIENCE, ISSUED, person_claims
from tests.unit.chalicelib.config.issuers.declared import Verified, declared, documented, problems

PEOPLE = documented("generic")
CIRCLE = documented("generic", 1)
ORG = "2c0c2c1e-5a3f-4c57-8a39-4ac0dd5f2b11"


def test_the_page_takes_a_persons_token() -> None:
    """The client is the audience, the person is accountable, and a group in a list makes a team."""
    verify = Verified(PEOPLE)
    verified = verify(person_claims())
    assert verified.identity.subject == "00u1a2b3c4"
    assert verified.accountable == ("idp:sub:00u1a2b3c4",)
    assert verified.teams == ("security",)
    assert verify.issuer.client_id == verify.issuer.audience == "countersign-cli"
    assert verify.unknown == []


@pytest.mark.parametrize("groups", [["everyone"], [], "everyone", None, ["security-readers"], [["security"]]])
def test_a_group_that_is_not_in_the_list_makes_no_team(groups: object) -> None:
    """A list holds a value whole, at its own level, or not at all."""
    assert Verified(PEOPLE)(person_claims(groups=groups)).teams == ()


@pytest.mark.parametrize(
    "changed",
    [{"aud": "another-client"}, {"aud": ["countersign-cli", "another-client"]}, {"aud": AUDIENCE}, {"sid": None}],
)
def test_a_token_for_another_client_is_refused(changed: dict[str, Any]) -> None:
    """Every site at which a person logs in with this provider holds an ID token of theirs."""
    with pytest.raises(TokenInvalid):
        Verified(PEOPLE)(person_claims(**changed))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PEOPLE.replace("client_id: countersign-cli", "keep_alive: x"), "nobody knows this key"),
        (PEOPLE.replace("    client_id: countersign-cli", "    # none"), "audience is missing"),
        (PEOPLE + "    audience: https://countersign.example.com\n", "audience is not client_id"),
        (PEOPLE.replace("countersign-cli", '"two words"'), "pattern"),
        (CIRCLE.replace("audience: https://", "audience: http://"), "not an https address"),
        (CIRCLE.replace("    require:", "    # require:"), "serves many tenants"),
    ],
)
def test_a_wrong_generic_issuer_refuses(text: str, says: str) -> None:
    """Without an audience any token of the provider would do."""
    assert says in [problem.message for problem in problems(text) if says in problem.message].pop()


def test_an_audience_may_repeat_the_client() -> None:
    """What is true may be said twice."""
    assert declared(PEOPLE + "    audience: countersign-cli\n").audience == "countersign-cli"


def circle_claims(**changes: Any) -> dict[str, Any]:
    """Return claims as CircleCI documents them."""
    inside = {
        "org-id": ORG,
        "project-id": "c1",
        "workflow-id": "w1",
        "job-id": "j1",
        "pipeline-id": "p1",
        "pipeline-definition-id": "d1",
        "context-ids": ["x1"],
        "vcs-origin": "github.com/acme/orders",
        "vcs-ref": "refs/heads/main",
        "ssh-rerun": False,
    } | changes
    return {
        "iss": f"https://oidc.circleci.com/org/{ORG}",
        "sub": f"org/{ORG}/project/c1/user/u1",
        "aud": AUDIENCE,
        "iat": ISSUED,
        "exp": ISSUED + 3600,
        **{f"oidc.circleci.com/{name}": value for name, value in inside.items()},
    }


def test_a_claim_whose_name_has_a_slash() -> None:
    """``~1`` is a slash in a name, so that a way into a claim and a claim's own name are never the same words."""
    verify = Verified(CIRCLE)
    assert verify(circle_claims()).identity.subject == f"{ORG}:c1"
    assert verify.unknown == []


@pytest.mark.parametrize("changed", [{"org-id": "another"}, {"ssh-rerun": True}])
def test_circleci_attack_is_refused(changed: dict[str, Any]) -> None:
    """Another tenant; and a job in which a person has a shell."""
    with pytest.raises(TokenInvalid):
        Verified(CIRCLE)(circle_claims(**changed))


@pytest.mark.parametrize(("one", "other"), [("idp", "idp:sub"), ("idp:sub", "idp"), ("idp:sub", "idp:sub")])
def test_an_alias_that_begins_another_issuers_is_refused(one: str, other: str) -> None:
    """Attack: somebody at one issuer is named ``sub:7`` there, and ``idp:sub:7`` is a person of another: they are
    excluded in that person's place, and approve what they started."""

    def people(name: str, alias: str) -> str:
        return f"""\
  {name}:
    kind: generic
    url: https://{name}.example.com
    jwks_uri: https://{name}.example.com/keys
    audience: https://countersign.example.com
    algorithms: [RS256]
    many_tenants: false
    subject: [sub]
    run: [jti]
    display: [sub]
    accountable: [{{alias: "{alias}", claim: sub}}]
    keep: []
    max_lifetime_s: 600
"""

    def said(second: str) -> list[str]:
        found = problems("issuers:\n" + people("first", one) + people("second", second))
        return [problem.message for problem in found]

    assert any("not the same people" in message for message in said(other)), said(other)
    assert not said("idpx:sub")
