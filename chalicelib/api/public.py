"""What anybody may read: the keys that verify what we sign, where people log in, the contract itself, and whether the
function answers at all."""

from __future__ import annotations

from typing import Final

from chalice.app import Blueprint

from chalicelib.api.edge import Answered, Call, Edge, Plane
from chalicelib.api.endpoint import Endpoint, Text, TokenCheck
from chalicelib.api.models import Health, KeysAnswer, KeySet, Login, LoginAnswer
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.ssh_certificates import authority_line
from chalicelib.identity.tokens import jwks

# A verifier may keep the keys this long; a new key is published that much before it signs.
KEYS_MAX_AGE_S: Final = 300
_KEYS: Final = {"Cache-Control": f"max-age={KEYS_MAX_AGE_S}"}
LOGIN_SCOPE: Final = "openid"  # an id token is all that is exchanged here; more would be more than is needed

JWKS = Endpoint(
    method="GET",
    path="/.well-known/jwks.json",
    name="token_keys",
    tag="keys",
    summary="The keys that verify our tokens (RFC 7517)",
    token=TokenCheck.NONE,
    answers={200: KeySet},
)
KEYS = Endpoint(
    method="GET",
    path="/v1/keys",
    name="all_keys",
    tag="keys",
    summary="The keys that verify whatever we sign, by purpose",
    description="For whoever verifies hops, answers, manifests and certificates without us. An auditor compares them "
    "with fingerprints that came another way.",
    token=TokenCheck.NONE,
    answers={200: KeysAnswer},
)
SSH_TARGET_CA = Endpoint(
    method="GET",
    path="/.well-known/ssh-target-ca.pub",
    name="ssh_target_authority",
    tag="keys",
    summary="What a target's sshd trusts: the file that TrustedUserCAKeys names",
    token=TokenCheck.NONE,
    answers={200: Text},
)
LOGIN = Endpoint(
    method="GET",
    path="/v1/login",
    name="login",
    tag="keys",
    summary="The issuers at which people log in, each with its public client",
    token=TokenCheck.NONE,
    answers={200: LoginAnswer},
)
HEALTH = Endpoint(
    method="GET",
    path="/healthz",
    name="health",
    tag="service",
    summary="Whether the function answers; it asks no store",
    token=TokenCheck.NONE,
    answers={200: Health},
    fixed=True,
)


def public_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)
    edge.route(bp, JWKS, _jwks)
    edge.route(bp, KEYS, _keys)
    edge.route(bp, SSH_TARGET_CA, _ssh_target_ca)
    edge.route(bp, LOGIN, _login)
    edge.fixed(bp, HEALTH, lambda: Answered(status=200, body=Health(status="ok")))
    return bp


def _jwks(plane: Plane, call: Call) -> Answered:  # noqa: ARG001 - every view takes the call
    found = jwks(plane.services.keys)
    return Answered(status=200, body=KeySet(keys=[dict(key) for key in found["keys"]]), headers=_KEYS)


def _keys(plane: Plane, call: Call) -> Answered:  # noqa: ARG001
    found = {purpose.value: _key_set(plane, purpose) for purpose in KeyPurpose}
    return Answered(status=200, body=KeysAnswer(found), headers=_KEYS)


def _ssh_target_ca(plane: Plane, call: Call) -> Answered:  # noqa: ARG001
    known = plane.services.keys.public_keys(KeyPurpose.SSH_TARGET.value)
    lines = [f"{authority_line(known[kid])} countersign {kid}\n" for kid in sorted(known)]
    return Answered(status=200, body="".join(lines), headers=_KEYS)


def _login(plane: Plane, call: Call) -> Answered:  # noqa: ARG001
    listed = [
        Login(name=issuer.name, issuer=issuer.url, client_id=issuer.client_id, scope=LOGIN_SCOPE)
        for issuer in plane.services.bundles.current().issuers
        if issuer.client_id
    ]
    return Answered(status=200, body=LoginAnswer(issuers=listed), headers=_KEYS)


def _key_set(plane: Plane, purpose: KeyPurpose) -> KeySet:
    known = plane.services.keys.public_keys(purpose.value)
    return KeySet(keys=[{**known[kid], "kid": kid, "use": "sig", "alg": "ES256"} for kid in sorted(known)])
