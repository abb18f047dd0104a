"""An issuer of tokens in memory: real keys, claims of each vendor's documented shape, and every liberty an attacker
would take."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.issuer import Issuer, TeamRule
from tests.fakes.clock import START

URL: Final = "https://token.actions.githubusercontent.com"
JWKS_URI: Final = f"{URL}/.well-known/jwks"
AUDIENCE: Final = "https://countersign.example.com"
ISSUED: Final = int(START.timestamp())

DECLARATION: Final = Issuer(
    name="github",
    url=URL,
    jwks_uri=JWKS_URI,
    algorithms=("RS256",),
    audience=AUDIENCE,
    many_tenants=True,
    tenant_claims=("repository_owner_id",),
    require=(("repository_owner_id", ("9001", "9002")),),
    forbid=(("event_name", ("pull_request", "workflow_run")),),
    subject=("repository_owner_id", "repository_id"),
    run=("run_id", "run_attempt"),
    display=("repository", "workflow"),
    accountable=(("gh:actor_id", "actor_id"),),
    unknown_trigger=(("event_name", ("schedule",)), ("run_attempt", ("2", "3"))),
    keep=("ref", "environment", "protected"),
    ignore=("sub",),
    teams=(TeamRule(team="orders", when=(("repository_id", "700"), ("ref", "refs/heads/main"))),),
    max_lifetime_s=600,
)


def claims(**changes: Any) -> dict[str, Any]:
    """Return whole and valid claims, with changes; a change to None leaves the claim out."""
    found = {
        "iss": URL,
        "aud": AUDIENCE,
        "sub": "repo:acme/orders:ref:refs/heads/main",
        "jti": "0f1e2d3c",
        "iat": ISSUED,
        "nbf": ISSUED - 600,
        "exp": ISSUED + 300,
        "repository": "acme/orders",
        "repository_id": "700",
        "repository_owner_id": "9001",
        "workflow": "deploy",
        "event_name": "push",
        "run_id": "42",
        "run_attempt": "1",
        "actor_id": "123",
        "ref": "refs/heads/main",
    } | changes
    return {name: value for name, value in found.items() if value is not None}


def gitlab_claims(**changes: Any) -> dict[str, Any]:
    """Return claims as GitLab documents them (docs.gitlab.com, "Token payload"), of a protected branch, for us; a
    change to None leaves a claim out."""
    found = {
        "namespace_id": "72",
        "namespace_path": "my-group",
        "project_id": "20",
        "project_path": "my-group/my-project",
        "user_id": "1",
        "user_login": "sample-user",
        "user_email": "sample-user@example.com",
        "user_access_level": "developer",
        "user_identities": [{"provider": "github", "extern_uid": "2435223452345"}],
        "pipeline_id": "574",
        "pipeline_source": "push",
        "job_id": "302",
        "ref": "main",
        "ref_type": "branch",
        "ref_path": "refs/heads/main",
        "ref_protected": "true",
        "groups_direct": ["mygroup/mysubgroup", "myothergroup/myothersubgroup"],
        "environment": "production",
        "environment_protected": "false",
        "deployment_tier": "production",
        "environment_action": "start",
        "runner_id": 1,
        "runner_environment": "self-hosted",
        "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        "project_visibility": "private",
        "ci_config_ref_uri": "gitlab.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
        "ci_config_sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        "jti": "235b3a54-b797-45c7-ae9a-f72d7bc6ef5b",
        "iss": "https://gitlab.com",
        "iat": ISSUED,
        "nbf": ISSUED - 5,
        "exp": ISSUED + 3600,
        "sub": "project_path:my-group/my-project:ref_type:branch:ref:main",
        "aud": AUDIENCE,
    } | changes
    return {name: value for name, value in found.items() if value is not None}


def kubernetes_claims(*, private: Mapping[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Return claims as Kubernetes 1.30 projects them into a pod, for us; ``private`` changes what is inside
    ``kubernetes.io``. A change to None leaves a claim out."""
    inside = {
        "namespace": "deploy",
        "node": {"name": "worker-1", "uid": "517eb86e-b863-451b-bf70-86cb61439a3a"},
        "pod": {"name": "schema-tool-7d9f", "uid": "0d8b260e-ef0e-45fb-be8e-ff44f97722e8"},
        "serviceaccount": {"name": "schema-tool", "uid": "e6a8680e-d103-4cce-80ea-03acbbeacf7d"},
        "warnafter": ISSUED + 3600,
    } | dict(private or {})
    found = {
        "aud": [AUDIENCE],
        "exp": ISSUED + 3600,
        "iat": ISSUED,
        "iss": "https://oidc.cluster.example.com",
        "jti": "e51f1fbc-4733-4b85-a59f-ba80c0523874",
        "kubernetes.io": {name: value for name, value in inside.items() if value is not None},
        "nbf": ISSUED,
        "sub": "system:serviceaccount:deploy:schema-tool",
    } | changes
    return {name: value for name, value in found.items() if value is not None}


def person_claims(**changes: Any) -> dict[str, Any]:
    """Return the claims of an ID token as an identity provider gives a public client for a person who logged in (OpenID
    Connect Core section 2); a change to None leaves a claim out."""
    found = {
        "iss": "https://id.example.com",
        "sub": "00u1a2b3c4",
        "aud": "countersign-cli",
        "azp": "countersign-cli",
        "iat": ISSUED,
        "auth_time": ISSUED - 30,
        "exp": ISSUED + 3600,
        "sid": "9f86d081884c7d65",
        "name": "Carol Chen",
        "email": "carol@example.com",
        "groups": ["everyone", "security"],
    } | changes
    return {name: value for name, value in found.items() if value is not None}


class MemoryIssuer:
    """Signs what it is asked to (RS256, or RS512 where the header says so), gives its keys, and counts how often."""

    def __init__(self, kid: str = "key-1", bits: int = 2048) -> None:
        self.kid = kid
        self.down = False
        self.fetched: list[str] = []
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=bits)

    def token(self, told: Mapping[str, Any] | None = None, **header: Any) -> str:
        """Return a token of ``told``, else of :func:`claims`; a header member of None is left out."""
        return self.raw(json.dumps(dict(told if told is not None else claims())).encode(), **header)

    def raw(self, payload: bytes, **header: Any) -> str:
        """Return a signed token around whatever bytes."""
        members = {"alg": "RS256", "typ": "JWT", "kid": self.kid} | header
        text = json.dumps({name: value for name, value in members.items() if value is not None}).encode()
        signed = f"{segment(text)}.{segment(payload)}"
        digest = hashes.SHA512() if members["alg"] == "RS512" else hashes.SHA256()
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), digest)
        return f"{signed}.{segment(signature)}"

    def jwk(self) -> dict[str, str]:
        numbers = self._key.public_key().public_numbers()
        return {"kty": "RSA", "kid": self.kid, "use": "sig", "n": _number(numbers.n), "e": _number(numbers.e)}

    def fetch(self, jwks_uri: str) -> Mapping[str, Any]:
        """Stand for ``jwks.fetch_jwks``."""
        self.fetched.append(jwks_uri)
        if self.down:
            raise StoreUnavailable("an issuer's keys could not be read")
        return {"keys": [self.jwk()]}


def segment(data: bytes) -> str:
    """Return the base64url text of ``data``."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _number(value: int) -> str:
    return segment(value.to_bytes((value.bit_length() + 7) // 8, "big"))
