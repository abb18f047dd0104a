"""``POST /v1/token``: RFC 8693. The form goes to the ``sign`` function as it came; this edge can sign nothing.

Does not read the subject token, and writes it nowhere.
"""

from __future__ import annotations

from chalice.app import Blueprint, Request, Response

from chalicelib.api.edge import Edge, Plane, json_answer
from chalicelib.api.parse import form_of, query_of
from chalicelib.domain.errors import Unauthenticated
from chalicelib.services.exchange import ACCESS_TOKEN_TYPE


def token_blueprint(edge: Edge) -> Blueprint:
    bp = Blueprint(__name__)

    @bp.route("/v1/token", methods=["POST"], content_types=["*/*"])
    def exchange() -> Response:
        return edge.answer(bp.current_request, _exchange, oauth=True)

    return bp


def _exchange(plane: Plane, request: Request) -> Response:
    if request.headers.get("authorization") is not None:
        raise Unauthenticated("clients are not authenticated here: the subject token says who asks")
    query_of(request, frozenset())
    form = {name: list(values) for name, values in form_of(request).items()}
    told = plane.services.functions.invoke("sign", {"form": form})
    return json_answer(
        200,
        {
            "access_token": told["access_token"],
            "issued_token_type": ACCESS_TOKEN_TYPE,
            "token_type": "Bearer",
            "expires_in": told["expires_in"],
            "scope": told["scope"],
            "txn": told["txn"],
        },
        {"Pragma": "no-cache"},  # RFC 6749 section 5.1 asks for both
    )
