"""What anybody may read: the keys that verify our tokens, and whether the function answers at all."""

from __future__ import annotations

from chalice.app import Blueprint, Request, Response

from chalicelib.api.edge import Edge, Plane, json_answer
from chalicelib.identity.tokens import jwks

# A verifier may keep the keys this long; a new key is published that much before it signs.
_JWKS_MAX_AGE_S = 300


def public_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)

    @bp.route("/.well-known/jwks.json", methods=["GET"], content_types=["*/*"])
    def keys() -> Response:
        return edge.answer(bp.current_request, _keys)

    @bp.route("/healthz", methods=["GET"], content_types=["*/*"])
    def health() -> Response:
        return json_answer(200, {"status": "ok"})

    return bp


def _keys(plane: Plane, request: Request) -> Response:  # noqa: ARG001 - every view takes the request
    keys = jwks(plane.services.keys)
    return json_answer(
        200, {"keys": [dict(key) for key in keys["keys"]]}, {"Cache-Control": f"max-age={_JWKS_MAX_AGE_S}"}
    )
