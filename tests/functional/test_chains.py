"""``/v1/chains`` and ``/v1/reviews``: who may look, what is shown, and that it can be verified without us."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jwt
import pytest

from chalicelib.domain.audit import AuditName
from chalicelib.domain.canonical import Json, digest
from chalicelib.domain.errors import AccessError
from chalicelib.services.assembly import review_service
from chalicelib.services.functions import review_handler
from tests.functional.world import Holder, World

UNKNOWN = "01m6dsg7e0fwejtv7egfb0rbxm"


@pytest.fixture
def world() -> World:
    return World().everybody()


@pytest.mark.parametrize("who", ["runner", "agent", "tool", "carol"])
def test_an_actor_and_security_see_every_hop(world: World, who: str) -> None:
    """The whole chain from its origin, also for its last hop: a tool can show whose work it does."""
    holder: Holder = getattr(world, who)
    body = world.get(holder, f"/v1/chains/{world.txn(world.tool)}").json_body
    assert [hop["actor"]["name"] for hop in body["hops"] if hop["depth"] in (0, 2)] == [
        "acme/orders deploy",
        "schema-tool",
    ]
    assert [hop["depth"] for hop in body["hops"]] == [0, 1, 1, 2]
    assert body["hops"][-1]["parent"] == world.hop(world.agent)
    assert body["hops"][-1]["assurance"] == "vouched"


def test_what_is_shown_verifies_with_the_published_keys_alone(world: World) -> None:
    """Whoever does not believe us computes each hash from what it covers, and checks each signature over it."""
    keys = world.plane.http.get("/v1/keys").json_body["token"]["keys"]
    known = {key["kid"]: jwt.PyJWK(key).key for key in keys}
    body = world.get(world.runner, f"/v1/chains/{world.txn(world.runner)}").json_body
    for hop in body["hops"]:
        assert digest(hop["hashed"]) == hop["sha256"]
        kid = jwt.get_unverified_header(hop["signature"])["kid"]
        assert jwt.decode(hop["signature"], known[kid], algorithms=["ES256"]) == {"sha256": hop["sha256"]}
        assert hop["hashed"]["parent"] in (None, hop["parent"])


def test_a_hop_that_was_changed_is_shown_as_it_is(world: World) -> None:
    """A look vouches for nothing: who verifies sees it, and the table's other rows too."""
    ((key, hop),) = [item for item in world.plane.stores.chains.rows.items() if item[1].id == world.hop(world.tool)]
    world.plane.stores.chains.rows[key] = replace(hop, teams=("admins",))
    body = world.get(world.runner, f"/v1/chains/{world.txn(world.runner)}").json_body
    shown = body["hops"][-1]
    assert shown["teams"] == ["admins"]
    assert jwt.decode(shown["signature"], options={"verify_signature": False})["sha256"] != shown["sha256"]


def test_a_revoked_hop_is_shown_as_ended_with_all_below_it(world: World) -> None:
    """Somebody who looks in an incident must not read that what is dead lives."""
    world.revoke(world.runner, "hop", world.hop(world.agent))
    body = world.get(world.runner, f"/v1/chains/{world.txn(world.runner)}").json_body
    ended = {hop["id"] for hop in body["hops"] if hop["revoked"]}
    assert ended == {world.hop(world.agent), world.hop(world.tool)}


@pytest.mark.parametrize("who", ["stranger", "dave"])
@pytest.mark.parametrize("path", ["/v1/chains/", "/v1/reviews/"])
def test_an_unknown_id_and_a_forbidden_one_are_one_answer(world: World, who: str, path: str) -> None:
    """Attack: finding out which runs and sessions there are."""
    holder: Holder = getattr(world, who)
    session = world.session(world.tool)
    texts = set()
    for subject in (world.txn(world.runner), session, UNKNOWN, f"ses_{UNKNOWN}", "x"):
        answer = world.get(holder, path + subject)
        assert answer.status_code == 404
        body = {name: value for name, value in answer.json_body.items() if name != "request_id"}
        texts.add(json.dumps([body, sorted((name, str(value)) for name, value in answer.headers.items())]))
    assert len(texts) == 1
    assert {event.code for event in world.plane.events.seen if event.name is AuditName.CHAIN_REVIEWED} == {"not_found"}


def test_a_review_is_for_whom_a_rule_permits_and_is_recorded(world: World) -> None:
    """Even the root of the chain gets none without the rule: it shows what everybody in it did."""
    session = world.session(world.tool)
    for subject in (world.txn(world.tool), session):
        assert world.get(world.runner, f"/v1/reviews/{subject}").status_code == 404
        answer = world.get(world.carol, f"/v1/reviews/{subject}")
        assert answer.status_code == 200
        assert answer.json_body["verified"] is True
        assert answer.json_body["txn"] == world.txn(world.tool)
        assert [one["id"] for one in answer.json_body["sessions"]] == [session]
    looks = [event for event in world.plane.events.seen if event.name is AuditName.CHAIN_REVIEWED and not event.code]
    assert [(event.txn, event.session_id) for event in looks] == [(world.txn(world.tool), ""), ("", session)]


def test_the_review_function_believes_nobody(world: World) -> None:
    """Attack: whoever may invoke the function asks it for a review without, or with somebody's, token. Being invoked is
    no authority: the caller is verified again, and policy asked there."""
    handler = review_handler(world.plane.parts.identify(), review_service(world.plane.parts))
    path = f"/v1/reviews/{world.txn(world.tool)}"

    def invoked(**told: Any) -> str:
        try:
            handler({"subject": world.txn(world.tool), **told})
        except AccessError as error:
            return type(error).__name__
        return "answered"

    assert invoked() == "BadRequest"
    forged = world.plane.presented("not.a.token", "GET", path).told()
    assert invoked(**forged) == "TokenInvalid"
    assert invoked(**world.plane.presented(world.runner.token, "GET", path, world.runner.key).told()) == "NotFound"
    assert invoked(**world.plane.presented(world.runner.token, "GET", path).told()) == "KeyProofInvalid"
    for other in ("/v1/targets", f"/v1/chains/{world.txn(world.tool)}"):  # what an auditor showed for something else
        shown = world.plane.presented(world.carol.token, "GET", other).told()
        assert invoked(**shown) == "KeyProofInvalid"
    good = world.plane.presented(world.carol.token, "GET", path).told()
    before = world.plane.snapshot()
    assert invoked(**good) == "answered"
    assert world.plane.snapshot() == before


def test_a_review_is_an_outage_where_its_function_is(world: World) -> None:
    """A crash tells nothing of itself, and is not an empty review."""
    world.plane.stores.functions.register("review", _dies)
    answer = world.get(world.carol, f"/v1/reviews/{world.txn(world.tool)}")
    assert (answer.status_code, answer.json_body["code"]) == (503, "store_unavailable")


def _dies(_payload: Mapping[str, Json]) -> Mapping[str, Json]:
    raise RuntimeError("the function died here")
