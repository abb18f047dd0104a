"""``GET /v1/chains/{txn}/token``: the issuer's token is kept with the first hop, and nobody's before it expired."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta

import jwt
import pytest

from chalicelib.domain.canonical import digest, sha256_hex
from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.identifiers import Txn
from chalicelib.domain.kept_proof import KeptProof, kept_key, read_kept, read_proof
from chalicelib.identity.jws import sign_hop
from chalicelib.services.kept_check import require_vouched
from tests.fakes.control_plane import ControlPlane
from tests.fakes.keys import Key
from tests.functional.world import World

SPENT_S = 301 + 300  # the CI's token lives 300 s, and other verifiers' clocks get five minutes more


@pytest.fixture
def world() -> World:
    return World()


def root_of(world: World, txn: str) -> Hop:
    return next(hop for hop in world.plane.stores.chains.hops(Txn(txn)).values() if hop.kind is HopKind.ORIGIN)


def kept_of(world: World, hop: Hop) -> KeptProof:
    return read_kept(world.plane.stores.objects.rows[kept_key(hop.txn, hop.evidence.kept_sha256)])


def test_who_initiated_is_the_issuers_word_and_not_ours(world: World) -> None:
    """Attack: whoever has our keys signs a chain for somebody who never began it. The issuer's token is theirs to sign,
    and anybody verifies it with nothing of ours but the hash in the hop."""
    txn = world.txn(world.runner)
    hop = root_of(world, txn)
    world.plane.clock.advance(SPENT_S)
    answer = world.get(world.person("carol"), f"/v1/chains/{txn}/token")
    assert answer.status_code == 200, answer.json_body
    body = answer.json_body
    assert (body["txn"], body["hop"], body["kept_sha256"]) == (txn, hop.id, hop.evidence.kept_sha256)
    proof = json.loads(body["proof"])
    (key,) = proof["jwks"]["keys"]
    claims = jwt.decode(
        proof["token"], jwt.PyJWK(key).key, algorithms=["RS256"], options={"verify_exp": False, "verify_aud": False}
    )
    assert digest(claims) == hop.evidence.claims_sha256
    assert claims["run_id"] == "5001"
    assert sha256_hex(body["proof"].encode()) == kept_of(world, hop).proof_sha256
    require_vouched(hop, body["proof"].encode())


def test_a_token_that_still_lives_is_nobodys_to_read(world: World) -> None:
    """Attack: an auditor, or who has an auditor's session, takes the token of a running job and is that job
    elsewhere."""
    txn = world.txn(world.runner)
    for seconds in (0, 300, 299):  # also when it expired: other verifiers' clocks may be minutes behind
        world.plane.clock.advance(seconds)
        answer = world.get(world.person("carol"), f"/v1/chains/{txn}/token")
        assert (answer.status_code, answer.json_body["code"]) == (403, "proof_sealed")
    world.plane.clock.advance(1)
    assert world.get(world.person("carol"), f"/v1/chains/{txn}/token").status_code == 200


def test_an_end_that_was_put_forward_opens_nothing(world: World) -> None:
    """Attack: whoever writes bucket and hops dates a kept token back, to have it opened while it lives. Its end is
    bound to the encryption."""
    txn = world.txn(world.runner)
    hop = root_of(world, txn)
    kept = kept_of(world, hop)
    forged = dataclasses.replace(kept, expires_at=kept.expires_at - timedelta(hours=1)).document()
    put_in(world, hop, forged)
    answer = world.get(world.person("carol"), f"/v1/chains/{txn}/token")
    assert (answer.status_code, answer.json_body["code"]) == (401, "proof_invalid")


def put_in(world: World, hop: Hop, body: bytes) -> None:
    """Put another object and a hop that names it, signed with the token key: what a thief of that key does."""
    stores, sha256 = world.plane.stores, sha256_hex(body)
    stores.objects.rows[kept_key(hop.txn, sha256)] = body
    other = dataclasses.replace(hop, evidence=dataclasses.replace(hop.evidence, kept_sha256=sha256), signature="")
    stores.chains.rows[hop.txn, hop.depth, hop.id] = sign_hop(stores.signer("token"), other)


def test_a_sealed_token_that_lives_longer_than_it_says_is_not_given_out(world: World) -> None:
    """The end in the object is what ``sign`` wrote; the token's own counts besides, whoever sealed it."""
    txn = world.txn(world.runner)
    hop = root_of(world, txn)
    kept = kept_of(world, hop)
    plain = world.plane.stores.vault.open(kept.data, kept.context())
    early = dataclasses.replace(kept, expires_at=kept.expires_at - timedelta(hours=1))
    resealed = dataclasses.replace(early, data=world.plane.stores.vault.seal(plain, early.context()))
    put_in(world, hop, resealed.document())
    answer = world.get(world.person("carol"), f"/v1/chains/{txn}/token")
    assert (answer.status_code, answer.json_body["code"]) == (403, "proof_sealed")


def _another_chains(world: World, hop: Hop) -> None:
    other = root_of(world, world.txn(world.stranger))
    key, stolen = kept_key(hop.txn, hop.evidence.kept_sha256), kept_key(other.txn, other.evidence.kept_sha256)
    world.plane.stores.objects.rows[key] = world.plane.stores.objects.rows[stolen]


def _flipped(world: World, hop: Hop) -> None:
    key = kept_key(hop.txn, hop.evidence.kept_sha256)
    body = bytearray(world.plane.stores.objects.rows[key])
    body[body.index(b'"sealed":"') + 20] ^= 1
    world.plane.stores.objects.rows[key] = bytes(body)


def _hop_altered(world: World, hop: Hop) -> None:
    other = dataclasses.replace(hop, evidence=dataclasses.replace(hop.evidence, kept_sha256="0" * 64))
    world.plane.stores.chains.rows[hop.txn, hop.depth, hop.id] = other


def _redated(world: World, hop: Hop) -> None:
    kept = dataclasses.replace(kept_of(world, hop), kept_at=hop.issued_at - timedelta(days=1))
    world.plane.stores.objects.rows[kept_key(hop.txn, hop.evidence.kept_sha256)] = kept.document()


@pytest.mark.parametrize("tamper", [_another_chains, _flipped, _hop_altered, _redated])
def test_another_object_in_its_place_is_refused(world: World, tamper: Callable[[World, Hop], None]) -> None:
    """Attack: another chain's token, or an altered one, stands for this chain's."""
    txn = world.txn(world.runner)
    tamper(world, root_of(world, txn))
    world.plane.clock.advance(SPENT_S)
    answer = world.get(world.person("carol"), f"/v1/chains/{txn}/token")
    assert (answer.status_code, answer.json_body["code"]) == (401, "proof_invalid")


@pytest.mark.parametrize("who", ["dave", "runner"])
def test_who_may_not_review_learns_nothing(world: World, who: str) -> None:
    """A stranger, and the chain's own runner: an unknown chain and a forbidden token are one answer."""
    txn = world.txn(world.runner)
    holder = world.runner if who == "runner" else world.dave
    texts = {
        json.dumps({**world.get(holder, f"/v1/chains/{one}/token").json_body, "request_id": ""})
        for one in (txn, "01m6dsg7e0fwejtv7egfb0rbxm")
    }
    assert len(texts) == 1
    assert json.loads(texts.pop())["code"] == "not_found"


def test_reading_is_audited_and_the_token_is_in_no_log(world: World) -> None:
    """Who reads what names people leaves a fact; the fact must not be another copy of the token."""
    txn = world.txn(world.runner)
    token = read_proof(opened(world, root_of(world, txn))).token.expose()
    world.get(world.person("carol"), f"/v1/chains/{txn}/token")
    world.plane.clock.advance(SPENT_S)
    world.get(world.person("carol"), f"/v1/chains/{txn}/token")
    told = [event for event in world.plane.events.seen if event.name.value.startswith("proof.")]
    assert [(event.name.value, event.code, event.txn) for event in told] == [
        ("proof.refused", "proof_sealed", txn),
        ("proof.opened", "", txn),
    ]
    assert all(event.actor.endswith("#carol") for event in told)
    assert token.split(".")[1] not in world.plane.log.getvalue() + repr(world.plane.events.seen)
    assert all(token.split(".")[1].encode() not in body for body in world.plane.stores.objects.rows.values())


def opened(world: World, hop: Hop) -> bytes:
    kept = kept_of(world, hop)
    return world.plane.stores.vault.open(kept.data, kept.context())


def test_what_cannot_be_kept_begins_no_chain(plane: ControlPlane) -> None:
    """A hop without its proof would be our word again: an outage of the key or of the bucket refuses the exchange, and
    the run is not locked out by it."""
    key = Key()
    for store in ("vault", "objects"):
        plane.stores.fail(store)
        assert plane.exchange(plane.ci_token(), key=key).status_code == 503
        plane.stores.heal(store)
        assert not plane.stores.chains.rows
    assert plane.exchange(plane.ci_token(), key=key).status_code == 200


def test_a_root_whose_maker_died_after_keeping_keeps_the_token_of_who_made_it(plane: ControlPlane) -> None:
    """The hop names the token that its own claims are of, and never the one of the exchange that died."""
    key = Key()
    plane.stores.fail("chains")
    assert plane.exchange(plane.ci_token(), key=key).status_code == 503
    plane.stores.heal("chains")
    assert plane.exchange(plane.ci_token(), key=key).status_code == 200
    (hop,) = plane.stores.chains.rows.values()
    kept = read_kept(plane.stores.objects.rows[kept_key(hop.txn, hop.evidence.kept_sha256)])
    assert kept.claims_sha256 == hop.evidence.claims_sha256
    require_vouched(hop, plane.stores.vault.open(kept.data, kept.context()))


def test_a_token_of_other_claims_does_not_vouch_for_the_hop(world: World) -> None:
    """What verifies by the issuer's keys and is another run's is no proof of this one."""
    hop, other = root_of(world, world.txn(world.runner)), root_of(world, world.txn(world.stranger))
    with pytest.raises(ProofInvalid):
        require_vouched(hop, opened(world, other))
