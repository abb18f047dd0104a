"""``kind: kubernetes``: the page's own YAML, on a token as the kubelet projects it, and who must not get in."""

from __future__ import annotations

from typing import Any

import pytest

from chalicelib.domain.errors import TokenInvalid, UnknownIssuer
from tests.fakes.issuer import AUDIENCE, ISSUED, MemoryIssuer, kubernetes_claims
from tests.unit.chalicelib.config.issuers.declared import Verified, declared, documented, problems

PAGE = documented("kubernetes")
SERVICE_ACCOUNT = "e6a8680e-d103-4cce-80ea-03acbbeacf7d"
POD = "0d8b260e-ef0e-45fb-be8e-ff44f97722e8"


def test_the_page_takes_a_projected_token() -> None:
    """The uids inside ``kubernetes.io`` are who it is; names are only shown; no claim of it is news."""
    verify = Verified(PAGE)
    verified = verify(kubernetes_claims())
    assert verified.identity.subject == f"deploy:{SERVICE_ACCOUNT}"
    assert verified.identity.name == "deploy schema-tool"
    assert verified.run == POD
    assert verified.accountable == ()
    assert verified.teams == ("schema-tools",)
    assert dict(verified.evidence.attributes)["kubernetes.io/node/name"] == "worker-1"
    assert dict(verified.claims)["kubernetes.io/serviceaccount/uid"] == SERVICE_ACCOUNT
    assert verify.unknown == []


def test_an_older_cluster_names_no_node() -> None:
    """KEP-4193 came with Kubernetes 1.30."""
    assert Verified(PAGE)(kubernetes_claims(private={"node": None, "warnafter": None})).run == POD


ATTACKS: dict[str, dict[str, Any]] = {
    "another namespace": {"private": {"namespace": "default"}},
    "a token that no pod has": {"private": {"pod": None}},
    "a pod without a uid": {"private": {"pod": {"name": "schema-tool-7d9f"}}},
    "no service account": {"private": {"serviceaccount": None}},
    "a service account that is a list": {"private": {"serviceaccount": [{"uid": SERVICE_ACCOUNT}]}},
    "a service account that is a text": {"private": {"serviceaccount": SERVICE_ACCOUNT}},
    "claims beside the real ones": {
        "kubernetes.io": None,
        "kubernetes.io/namespace": "deploy",
        "kubernetes.io/serviceaccount/uid": SERVICE_ACCOUNT,
        "kubernetes.io/pod/uid": POD,
    },
    "the API server's own audience": {"aud": ["https://kubernetes.default.svc.cluster.local"]},
    "ours and the API server's": {"aud": [AUDIENCE, "https://kubernetes.default.svc.cluster.local"]},
    "a token of a year": {"exp": ISSUED + 365 * 86_400},
    "a legacy token without an end": {"exp": None},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_kubernetes_attack_is_refused(attack: str) -> None:
    """Any pod of any namespace can ask for a token with our audience, and so can whoever may call the API server."""
    with pytest.raises(TokenInvalid):
        Verified(PAGE)(kubernetes_claims(**ATTACKS[attack]))


def test_the_wrong_cluster() -> None:
    """Another issuer is unknown; one that calls itself the same has other keys."""
    with pytest.raises(UnknownIssuer):
        Verified(PAGE)(kubernetes_claims(iss="https://kubernetes.default.svc.cluster.local"))
    with pytest.raises(TokenInvalid):
        Verified(PAGE)(kubernetes_claims(), MemoryIssuer())


def test_a_namesake_in_another_namespace_is_in_no_team() -> None:
    """A service account's name means nothing without its namespace."""
    open_page = PAGE.replace("[deploy]", "[deploy, default]")
    assert Verified(open_page)(kubernetes_claims(private={"namespace": "default"})).teams == ()


@pytest.mark.parametrize("require", ["", "    require: {kubernetes.io/namespace: [deploy, default]}\n"])
def test_a_team_that_any_namespace_can_join_is_refused(require: str) -> None:
    """Attack: whoever has a namespace of the cluster makes a service account of the name that a team is declared by."""
    head, teams = PAGE.split("    require:\n")[0], "    teams:\n      - team: schema-tools\n        when: "
    name, namespace = "kubernetes.io/serviceaccount/name: schema-tool", "kubernetes.io/namespace: deploy"
    said = [problem.message for problem in problems(f"{head}{require}{teams}{{{name}}}\n")]
    assert said == ["the team schema-tools takes a service account of that name in any namespace"]
    assert not problems(f"{head}{require}{teams}{{{namespace}, {name}}}\n")
    assert not problems(f"{head}    require: {{kubernetes.io/namespace: [deploy]}}\n{teams}{{{name}}}\n")


def test_a_service_account_made_anew_is_somebody_else() -> None:
    """Its name comes back, its uid does not: a ticket for the old one is worth nothing to the new one."""
    again = {"serviceaccount": {"name": "schema-tool", "uid": "11111111-d103-4cce-80ea-03acbbeacf7d"}}
    verify = Verified(PAGE)
    assert verify(kubernetes_claims()).identity.subject != verify(kubernetes_claims(private=again)).identity.subject


def test_a_news_inside_the_private_claims_is_reported() -> None:
    """A new claim may be the one that matters; somebody should look, wherever it is."""
    verify = Verified(PAGE)
    verify(kubernetes_claims(private={"secret": {"name": "x", "uid": "y"}}))
    assert verify.unknown == ["kubernetes.io/secret"]


@pytest.mark.parametrize(
    "audience",
    [
        "https://kubernetes.default.svc.cluster.local",
        "https://kubernetes.default.svc",
        "https://kubernetes.default:443",
        "https://oidc.cluster.example.com",
    ],
)
def test_the_api_servers_audience_cannot_be_declared(audience: str) -> None:
    """Such a token lies in nearly every pod; accepting it would also teach pods to show it around."""
    found = problems(PAGE.replace(AUDIENCE, audience))
    assert [problem.line for problem in found if "API server's own" in problem.message] == [6]


def test_the_keys_are_the_clusters_own() -> None:
    """Where the cluster says itself that they are."""
    assert declared(PAGE).jwks_uri == "https://oidc.cluster.example.com/openid/v1/jwks"
    assert declared(PAGE.replace("    # jwks_uri", "    jwks_uri")).jwks_uri == "https://oidc.cluster.example.com/keys"


def test_a_misspelt_claim_is_refused() -> None:
    """A team whose claim no token has is empty: whatever a forbid says of it would never apply."""
    page = PAGE.replace("kubernetes.io/serviceaccount/name:", "kubernetes.io/serviceacount/name:")
    said = [problem.message for problem in problems(page)]
    assert said == ["no projected token has the claim 'kubernetes.io/serviceacount/name', so this never holds"]
