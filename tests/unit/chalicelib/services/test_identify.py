"""Who calls: a token of ours, with the key that its hop is bound to, and every way of showing less."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.domain.chain import Chain
from chalicelib.domain.errors import (
    AccessError,
    GrantRevoked,
    KeyProofInvalid,
    ProofInvalid,
    TokenExpired,
    TokenInvalid,
)
from chalicelib.identity.tokens import TokenIssuer
from chalicelib.services.identify import BEARER, DPOP, Caller, Presented
from tests.fakes.control_plane import AUDIENCE, PUBLIC_URL, ControlPlane
from tests.fakes.keys import Key

METHOD, PATH = "GET", "/v1/targets"


@pytest.fixture
def plane() -> ControlPlane:
    return ControlPlane()


def identified(plane: ControlPlane, presented: Presented, *, count_once: bool = True) -> Caller:
    return plane.parts.identify()(presented, count_once=count_once)


def test_a_bound_token_with_its_proof_is_its_hop(plane: ControlPlane) -> None:
    """What every other service goes on."""
    key = Key()
    caller = identified(plane, plane.presented(plane.token(key=key), METHOD, PATH, key))
    assert caller.key_thumbprint == key.thumbprint == caller.chain.leaf.key_thumbprint
    assert caller.actor.subject == "9001:700"
    assert caller.scope == ("*",)


def test_an_unbound_token_is_a_bearers(plane: ControlPlane) -> None:
    """A run that began without a key goes on without one."""
    assert identified(plane, plane.presented(plane.token(), METHOD, PATH)).key_thumbprint == ""


def _stolen(plane: ControlPlane, token: str, key: Key) -> Presented:
    return plane.presented(token, METHOD, PATH, Key())


def _without_proof(plane: ControlPlane, token: str, key: Key) -> Presented:
    return replace(plane.presented(token, METHOD, PATH, key), proof="")


def _downgraded(plane: ControlPlane, token: str, key: Key) -> Presented:
    return plane.presented(token, METHOD, PATH)


def _downgraded_with_proof(plane: ControlPlane, token: str, key: Key) -> Presented:
    return replace(plane.presented(token, METHOD, PATH, key), scheme=BEARER)


def _for_another_path(plane: ControlPlane, token: str, key: Key) -> Presented:
    return replace(plane.presented(token, METHOD, "/v1/sessions", key), path=PATH)


def _for_another_method(plane: ControlPlane, token: str, key: Key) -> Presented:
    return replace(plane.presented(token, "DELETE", PATH, key), method=METHOD)


def _over_another_token(plane: ControlPlane, token: str, key: Key) -> Presented:
    other = plane.token(key=key, run_id="5002")
    return replace(plane.presented(other, METHOD, PATH, key), token=token)


def _made_for_the_token_endpoint(plane: ControlPlane, token: str, key: Key) -> Presented:
    proof = key.proof(plane.clock, "POST", "/v1/token")
    return replace(plane.presented(token, METHOD, PATH, key), proof=proof)


Theft = Callable[[ControlPlane, str, Key], Presented]
THEFTS: dict[str, Theft] = {
    "a token stolen without its key": _stolen,
    "a token without any proof": _without_proof,
    "a bound token downgraded to Bearer": _downgraded,
    "a bound token downgraded to Bearer beside a proof": _downgraded_with_proof,
    "a proof for another path": _for_another_path,
    "a proof for another method": _for_another_method,
    "a proof over another token": _over_another_token,
    "a proof for the token endpoint": _made_for_the_token_endpoint,
}


@pytest.mark.parametrize("name", THEFTS)
def test_a_token_stolen_without_its_key(plane: ControlPlane, name: str) -> None:
    """Attack: the token is in a log, an environment, a request that the thief saw. Without its key it is a text."""
    key = Key()
    token = plane.token(key=key)
    with pytest.raises(KeyProofInvalid):
        identified(plane, THEFTS[name](plane, token, key))
    identified(plane, plane.presented(token, METHOD, PATH, key))


def test_a_dpop_proof_replayed(plane: ControlPlane) -> None:
    """Attack: the whole request is sent again by who saw it."""
    key = Key()
    presented = plane.presented(plane.token(key=key), METHOD, PATH, key)
    identified(plane, presented)
    with pytest.raises(KeyProofInvalid):
        identified(plane, presented)
    plane.clock.advance(59)
    with pytest.raises(KeyProofInvalid):
        identified(plane, presented)


def test_a_function_behind_the_one_that_counted_the_proof_takes_it(plane: ControlPlane) -> None:
    """It verifies the caller for itself, and must not take the first one's work for a replay."""
    key = Key()
    presented = plane.presented(plane.token(key=key), METHOD, PATH, key)
    identified(plane, presented)
    for _ in range(2):
        identified(plane, presented, count_once=False)


def test_two_keys_may_use_one_proof_id(plane: ControlPlane) -> None:
    """Attack: proofs with the ids that another caller will use, to lock them out."""
    key, thief = Key(), Key()
    token, other = plane.token(key=key), plane.token(key=thief, run_id="5002")
    for one, its in ((other, thief), (token, key)):
        proof = its.proof(plane.clock, METHOD, PATH, one, jti="1")
        identified(plane, Presented(token=one, scheme=DPOP, proof=proof, method=METHOD, path=PATH))


def test_a_token_that_is_bound_otherwise_than_its_hop_is_none(plane: ControlPlane) -> None:
    """The two are written together: where they differ somebody else wrote one of them."""
    key = Key()
    chain = identified(plane, plane.presented(plane.token(key=key), METHOD, PATH, key)).chain
    unbound = Chain(hops=(replace(chain.leaf, key_thumbprint=""),))
    tokens = TokenIssuer(plane.stores.signer("token"), PUBLIC_URL, AUDIENCE, plane.clock)
    token = tokens.mint(unbound, "tok_other", 300).token.expose()
    for presented in (plane.presented(token, METHOD, PATH), plane.presented(token, METHOD, PATH, key)):
        with pytest.raises(TokenInvalid):
            identified(plane, presented)


def test_an_unbound_token_does_not_become_bound(plane: ControlPlane) -> None:
    """A proof of any key beside it would look like strength that is not there."""
    with pytest.raises(KeyProofInvalid):
        identified(plane, plane.presented(plane.token(), METHOD, PATH, Key()))


def _revoked(kind: str) -> Callable[[ControlPlane, Caller], None]:
    def revoke(plane: ControlPlane, caller: Caller) -> None:
        names = {
            "txn": caller.chain.txn,
            "hop": caller.chain.hops[0].id,
            "identity": caller.chain.hops[0].actor.key,
            "issuer": caller.chain.hops[0].actor.issuer,
            "token": caller.token_id,
        }
        plane.stores.revocations.revoke(f"{kind}:{names[kind]}", by="ops", why="leak", at=plane.clock.now())

    return revoke


def _cut_off(plane: ControlPlane, caller: Caller) -> None:
    root = caller.chain.hops[0]
    del plane.stores.chains.rows[root.txn, root.depth, root.id]


def _rewritten(plane: ControlPlane, caller: Caller) -> None:
    leaf = caller.chain.leaf
    plane.stores.chains.rows[leaf.txn, leaf.depth, leaf.id] = replace(leaf, key_thumbprint=Key().thumbprint)


ENDS: dict[str, tuple[Callable[[ControlPlane, Caller], None], type[AccessError]]] = {
    "its run is revoked": (_revoked("txn"), GrantRevoked),
    "its parent's hop is revoked": (_revoked("hop"), GrantRevoked),
    "its originator is revoked": (_revoked("identity"), GrantRevoked),
    "its issuer is revoked": (_revoked("issuer"), GrantRevoked),
    "the token is revoked": (_revoked("token"), GrantRevoked),
    "the token has expired": (lambda plane, _: plane.clock.advance(301), TokenExpired),
    "a hop is missing": (_cut_off, ProofInvalid),
    "a hop was rewritten for another key": (_rewritten, ProofInvalid),
    "the keys were changed": (lambda plane, _: plane.stores.keys.rotate("token"), TokenInvalid),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_childs_token_ends_with_what_it_stands_on(plane: ControlPlane, name: str) -> None:
    """A token says which hop; what the hops and the revocations say now is what counts."""
    key, parent = Key(), Key()
    token = plane.child(plane.token(key=parent), key, by=parent)
    caller = identified(plane, plane.presented(token, METHOD, PATH, key))
    end, refusal = ENDS[name]
    end(plane, caller)
    with pytest.raises(refusal):
        identified(plane, plane.presented(token, METHOD, PATH, key))


def test_a_caller_opens_what_its_token_and_every_hop_cover(plane: ControlPlane) -> None:
    """The token may say less than the hop, a parent less than its child's token: only the intersection opens."""
    key, parent = Key(), Key()
    ticket = plane.ticket(plane.token(key=parent), key, by=parent, scope="orders-dev payroll/app")
    token = plane.redeem(ticket, key=key, scope="orders-dev/app payroll/app").json_body["access_token"]
    caller = identified(plane, plane.presented(token, METHOD, PATH, key))
    assert caller.may_open("orders-dev", "app")
    assert caller.may_open("orders-dev", "")
    assert not caller.may_open("orders-dev", "root")
    assert not caller.may_open("orders-prod", "app")
    assert not replace(caller, scope=("*",)).may_open("orders-prod", "app")
