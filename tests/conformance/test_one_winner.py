"""What only one of many may have, through the whole ``sign`` function and over each store that there is."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import RunBound, TicketInvalid
from chalicelib.domain.store import Stores
from chalicelib.services.assembly import sign_services
from chalicelib.services.exchange import GRANT_TYPE, TICKET_TYPE
from chalicelib.services.functions import Handler, sign_handler
from tests.conformance.racing import race
from tests.fakes.control_plane import ControlPlane
from tests.fakes.keys import Key

CALLERS = 50
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"


def sign_over(plane: ControlPlane, stores: Stores) -> Handler:
    """Return the ``sign`` function of ``plane``'s issuers and bundle, with its state in ``stores``."""
    return sign_handler(sign_services(replace(plane.parts, stores=stores), plane.issuer_keys))


def exchange(sign: Handler, plane: ControlPlane, token: str, kind: str, key: Key) -> Mapping[str, Any]:
    form = {"grant_type": [GRANT_TYPE], "subject_token": [token], "subject_token_type": [kind]}
    return sign({"form": form, "proof": key.proof(plane.clock, "POST", "/v1/token")})


def test_one_ticket_redeemed_by_fifty_callers_has_one_winner(stores: Stores) -> None:
    """A child that shares its key would be many children of whom records name one."""
    plane, parent, child = ControlPlane(), Key(), Key()
    sign = sign_over(plane, stores)
    root = exchange(sign, plane, plane.ci_token(run_id=secrets.token_hex(8)), ID_TOKEN, parent)
    told = plane.presented(root["access_token"], "POST", "/v1/delegations", parent).told()
    body: Json = {"redeemer": {"key": child.thumbprint}, "name": "deploy-svc"}
    ticket = str(sign({"delegate": body, **told})["ticket"])
    results = race(lambda _: exchange(sign, plane, ticket, TICKET_TYPE, child), racers=CALLERS)
    won = [result for result in results if not isinstance(result, Exception)]
    assert len(won) == 1
    assert {type(result) for result in results if isinstance(result, Exception)} == {TicketInvalid}
    hops = stores.chains.hops(root["txn"])
    assert sorted(hop.depth for hop in hops.values()) == [0, 1]
    assert won[0]["hop"] in hops


def test_one_run_begun_by_many_keys_at_once_has_one_root(stores: Stores) -> None:
    """Every process of the job that fetches the job's token races for it; one has the run."""
    plane, run = ControlPlane(), secrets.token_hex(8)
    sign = sign_over(plane, stores)
    tokens = [plane.ci_token(run_id=run) for _ in range(8)]
    results = race(lambda number: exchange(sign, plane, tokens[number], ID_TOKEN, Key()))
    won = [result for result in results if not isinstance(result, Exception)]
    assert len(won) == 1
    assert {type(result) for result in results if isinstance(result, Exception)} == {RunBound}
    assert list(stores.chains.hops(won[0]["txn"])) == [won[0]["hop"]]
