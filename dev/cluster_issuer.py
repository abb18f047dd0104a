"""The local cluster's issuer: mints tokens of the shape that Kubernetes projects into a pod.

Rules: RS256, as a cluster signs (``token_key``); ``POST /mint`` takes a JSON object of claims, merged deep into those
of a pod of the demo's: a claim given as ``null`` is left out, also inside ``kubernetes.io``. Each call is a new pod,
since its uid is what ends with it. Anybody on this machine may mint: it vouches for nobody.
Sources: kubernetes.io, "Managing Service Accounts" (bound tokens), KEP-1205, KEP-4193 (jti, node).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Final

from chalicelib.domain.clock import Clock
from dev.loopback import Request, Response, as_json
from dev.served_issuer import ServedIssuer
from dev.token_key import RS256

LIFETIME_S: Final = 3600  # what a projected volume asks for where nobody says otherwise (expirationSeconds)
NAMESPACE: Final = "deploy"
SERVICE_ACCOUNT: Final = "schema-tool"
# Fixed, as a service account's uid is until somebody deletes it: the demo's bundle names it.
SERVICE_ACCOUNT_UID: Final = "7d1c2f60-5b1e-4c63-9a55-0c2f4d9b8e11"
_NODE: Final = {"name": "node-1", "uid": "2b9b5f2e-7c0c-4c4e-8b5e-53a3f7f4a1d0"}


class ClusterIssuer(ServedIssuer):
    """The issuer's server. ``audience`` is what a token is for where the caller names none."""

    def __init__(self, clock: Clock, *, audience: str, port: int = 0) -> None:
        super().__init__(clock, "cluster issuer", RS256, port)
        self._audience = audience

    def answer(self, request: Request) -> Response:
        """Serve one request; any other path is 404."""
        match request.method, request.path:
            case "GET", "/.well-known/openid-configuration":
                return as_json(self._key.discovery(self.url))
            case "GET", "/jwks" | "/openid/v1/jwks":  # the second is where a cluster has it
                return as_json(self._key.jwks())
            case "POST", "/mint":
                return as_json({"token": self.mint(request.json_object())})
        return as_json({"error": "not found"}, 404)

    def mint(self, claims: Mapping[str, Any]) -> str:
        """Return a signed token of ``claims`` over those of a new pod."""
        now = int(self._clock.now().timestamp())
        filled = merged(self._pod(now), claims)
        if "sub" not in claims:
            bound = filled.get("kubernetes.io") or {}
            account = bound.get("serviceaccount") or {}
            filled["sub"] = f"system:serviceaccount:{bound.get('namespace')}:{account.get('name')}"
        return self._key.sign(filled)

    def _pod(self, now: int) -> dict[str, Any]:
        pod = str(uuid.uuid4())
        return {
            "iss": self.url,
            "aud": [self._audience],
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME_S,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": {
                "namespace": NAMESPACE,
                "node": dict(_NODE),
                "pod": {"name": f"{SERVICE_ACCOUNT}-{pod[:5]}", "uid": pod},
                "serviceaccount": {"name": SERVICE_ACCOUNT, "uid": SERVICE_ACCOUNT_UID},
            },
        }


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``over`` laid over it, object by object; None in ``over`` leaves a member out. Pure."""
    found = dict(base)
    for name, value in over.items():
        below = found.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            found[name] = merged(below, value)
        elif value is None:
            found.pop(name, None)
        else:
            found[name] = value
    return found
