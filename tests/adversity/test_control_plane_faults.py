"""Every store of the control plane is out of reach, one at a time and one call at a time, under every endpoint.

P12: it fails closed, says so in the documented shape, and leaves nothing half done: no session without its ask, no
grant on what could not be read, no answer twice; and once the store is back, the same call again completes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from chalice.test import HTTPResponse

from chalicelib.domain.errors import StoreUnavailable
from chalicelib.domain.session import SessionStatus
from tests.fakes.control_plane import ControlPlane
from tests.fakes.keys import Key

STORES = ("chains", "sessions", "connections", "asks", "answers", "uses", "revocations", "once", "functions")
CALLS = 40  # more than any endpoint makes; the test checks that the last ones were not reached


@dataclass
class Scene:
    """A control plane in the state that an endpoint needs."""

    plane: ControlPlane
    token: str
    session_id: str = ""
    key: Key = field(default_factory=Key)
    child: Key = field(default_factory=Key)
    ticket: str = ""


def _scene() -> Scene:
    plane = ControlPlane()
    return Scene(plane=plane, token=plane.token())


def _keyed() -> Scene:
    plane, key = ControlPlane(), Key()
    return Scene(plane=plane, token=plane.token(key=key), key=key)


def _ticketed() -> Scene:
    scene = _keyed()
    scene.ticket = scene.plane.ticket(scene.token, scene.child, by=scene.key)
    return scene


def _pending() -> Scene:
    scene = _scene()
    answer = scene.plane.ask(scene.token, "orders-prod", key="k")
    scene.session_id = str(answer.json_body["session_id"])
    scene.plane.card()
    return scene


def _approved() -> Scene:
    scene = _pending()
    scene.plane.click(scene.plane.workspace.cards[0], "UALICE")
    return scene


def _granted() -> Scene:
    scene = _approved()
    assert scene.plane.poll(scene.token, scene.session_id).json_body["status"] == "granted"
    return scene


def _closed(scene: Scene) -> bool:
    return all(found.status is SessionStatus.CLOSED for found in scene.plane.stores.sessions.rows.values())


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One endpoint: what must be there, the call, and whether what it is for has happened, wholly. ``spent``: what the
    same call answers where the first one's effect was not lost."""

    before: Callable[[], Scene]
    call: Callable[[Scene], HTTPResponse]
    done: Callable[[Scene], bool]
    good: tuple[int, ...] = (200,)
    spent: int = 404


ENDPOINTS: Mapping[str, Endpoint] = {
    "POST /v1/token": Endpoint(
        before=_scene,
        call=lambda scene: scene.plane.exchange(scene.plane.ci_token(run_id="77"), key=scene.key),
        done=lambda scene: len(scene.plane.stores.chains.rows) == 2,
    ),
    "POST /v1/token, own": Endpoint(
        before=_keyed,
        call=lambda scene: scene.plane.refresh(scene.token, key=scene.key),
        done=lambda scene: len(scene.plane.stores.chains.rows) == 1,
    ),
    "POST /v1/token, ticket": Endpoint(
        before=_ticketed,
        call=lambda scene: scene.plane.redeem(scene.ticket, key=scene.child),
        done=lambda scene: [hop.depth for hop in scene.plane.stores.chains.rows.values()] == [0, 1],
        spent=400,  # a ticket is used once, by whoever did not hear of it too: its parent issues another
    ),
    "POST /v1/delegations": Endpoint(
        before=_keyed,
        call=lambda scene: scene.plane.delegate(scene.token, scene.child, by=scene.key),
        done=lambda scene: any(name.startswith("ticket#") for name in scene.plane.stores.once.rows),
        good=(201,),
    ),
    "POST /v1/sessions, allowed": Endpoint(
        before=_scene,
        call=lambda scene: scene.plane.ask(scene.token, "orders-dev", key="k"),
        done=lambda scene: (
            [found.status for found in scene.plane.stores.sessions.rows.values()] == [SessionStatus.GRANTED]
        ),
        good=(201,),
    ),
    "POST /v1/sessions, to be approved": Endpoint(
        before=_scene,
        call=lambda scene: scene.plane.ask(scene.token, "orders-prod", key="k"),
        done=lambda scene: len(scene.plane.stores.sessions.rows) == len(scene.plane.stores.asks.rows) == 1,
        good=(202,),
    ),
    "GET /v1/sessions/{id}, approved": Endpoint(
        before=_approved,
        call=lambda scene: scene.plane.poll(scene.token, scene.session_id),
        done=lambda scene: len(scene.plane.stores.uses.rows) == 1,
    ),
    "DELETE /v1/sessions/{id}": Endpoint(
        before=_granted,
        call=lambda scene: scene.plane.close(scene.token, scene.session_id),
        done=lambda scene: _closed(scene) and bool(scene.plane.stores.revocations.rows),
        good=(200, 204),
    ),
    "POST /slack/events": Endpoint(  # always 200: Slack shows a person no other status, so words go to response_url
        before=_pending,
        call=lambda scene: scene.plane.click(scene.plane.workspace.cards[0], "UALICE"),
        done=lambda scene: len(scene.plane.stores.answers.rows) == 1,
    ),
}


def _unavailable(name: str, answer: HTTPResponse) -> bool:
    """Say whether this is the documented answer for a store that is out of reach."""
    body = json.loads(answer.body or b"{}")
    known = {"error", "error_description", "code"} if name.startswith("POST /v1/token") else {"code", "message", "hint"}
    return answer.status_code == 503 and body["code"] == "store_unavailable" and known <= set(body)


@contextmanager
def _fault(plane: ControlPlane, number: int, *, after: bool) -> Iterator[list[str]]:
    """Fail the call ``number`` (from 1) to any store, before or after its effect; give the names of those made."""
    gate = plane.stores._gate
    enter = gate.enter
    depth = 0
    seen: list[str] = []

    @contextmanager
    def failing(name: str) -> Iterator[None]:
        nonlocal depth
        depth += 1
        try:
            with enter(name):
                hit = False
                if depth == 1:
                    seen.append(name)
                    hit = len(seen) == number
                if hit and not after:
                    raise StoreUnavailable("injected", store=name)
                yield
                if hit:
                    raise StoreUnavailable("injected after its effect", store=name)
        finally:
            depth -= 1

    gate.enter = failing  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        gate.enter = enter  # type: ignore[method-assign]


def _assert_consistent(scene: Scene) -> None:
    """What holds at every moment, whatever failed."""
    stores = scene.plane.stores
    for session in stores.sessions.rows.values():
        if session.ask_id is not None:
            assert session.ask_id in stores.asks.rows
        if session.status is SessionStatus.GRANTED and session.ask_id is not None:
            assert [use for use in stores.uses.rows.values() if use.ask_id == session.ask_id]
            assert [given for given in stores.answers.rows.values() if given.ask_id == session.ask_id]
        if session.status is SessionStatus.CLOSED:
            assert f"session:{session.id}" in stores.revocations.rows
    assert len(stores.answers.rows) <= 1
    assert len(stores.uses.rows) <= 1


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", ENDPOINTS)
def test_a_store_out_of_reach(name: str, store: str) -> None:
    """An outage of one store: done without it, or refused as documented; and done once it is back."""
    endpoint = ENDPOINTS[name]
    scene = endpoint.before()
    scene.plane.stores.fail(store)
    answer = endpoint.call(scene)
    scene.plane.stores.heal(store)
    assert answer.status_code in endpoint.good or _unavailable(name, answer), (answer.status_code, answer.body)
    _assert_consistent(scene)
    assert endpoint.call(scene).status_code in (*endpoint.good, endpoint.spent)
    assert endpoint.done(scene)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", ENDPOINTS)
def test_any_one_call_may_fail(name: str, after: bool) -> None:
    """Each single store call of an endpoint, lost before its effect or after it; then the same again."""
    endpoint = ENDPOINTS[name]
    for number in range(1, CALLS):
        scene = endpoint.before()
        with _fault(scene.plane, number, after=after) as seen:
            answer = endpoint.call(scene)
        if len(seen) < number:
            assert number > 1
            break
        where = (name, number, seen, answer.status_code, answer.body)
        assert answer.status_code in endpoint.good or _unavailable(name, answer), where
        _assert_consistent(scene)
        again = endpoint.call(scene)
        assert again.status_code in (*endpoint.good, endpoint.spent), (*where, again.status_code, again.body)
        assert endpoint.done(scene), where
        _assert_consistent(scene)
    else:
        pytest.fail("the endpoint makes more calls than the sweep reaches")
