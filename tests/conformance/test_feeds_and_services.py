"""The battery's second half: what is numbered (revocations, activations), and what is not a table."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Mapping
from datetime import timedelta

import pytest
from boto3.session import Session
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from chalicelib.domain.activation import Activation
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import (
    AlreadyExists,
    ApproverNotEligible,
    Conflict,
    NotFound,
    ProofInvalid,
    StoreUnavailable,
)
from chalicelib.domain.revocation import Revocation
from chalicelib.domain.signature import SSH_PURPOSES, KeyPurpose
from chalicelib.domain.store import ObjectVersion, Stores
from chalicelib.identity.jws import sign_sha256, verify_sha256
from chalicelib.services.key_history import read_history
from chalicelib.services.rotate_key import RotateKey
from chalicelib.settings import SystemClock
from chalicelib.store.keys import KmsKeyRing
from chalicelib.store.opened import open_stores
from dev.provision import provision
from tests.conformance.backends import Backend, new_settings
from tests.conformance.racing import RACERS, race
from tests.fakes import samples
from tests.fakes.clock import START

SHA = "ab" * 32


def test_nothing_is_revoked_at_first(empty: Stores) -> None:
    """Epoch 0 is what a broker starts from in a new deployment."""
    assert empty.revocations.epoch() == 0
    assert empty.revocations.any_of(frozenset({"txn:1", "session:2"})) is None
    assert list(empty.revocations.since(0)) == []


def test_revocations_are_found_and_fed_in_order(empty: Stores) -> None:
    """Brokers learn of them from the feed, admissions from the keys."""
    keys = [f"txn:{n}" for n in range(5)]
    made = [empty.revocations.revoke(key, by="ada", why="leaked", at=START) for key in keys]
    assert [row.number for row in made] == [1, 2, 3, 4, 5]
    assert empty.revocations.epoch() == 5
    assert list(empty.revocations.since(0)) == made
    assert list(empty.revocations.since(3)) == made[3:]
    assert list(empty.revocations.since(5)) == []
    wanted = frozenset({"txn:3", "session:x"}) | {f"hop:{n}" for n in range(150)}  # more than one batch of 100
    assert empty.revocations.any_of(wanted) == made[3]
    assert empty.revocations.any_of(frozenset()) is None


def test_revoking_twice_returns_the_first(empty: Stores) -> None:
    """A second row would take a number that says something new happened."""
    first = empty.revocations.revoke("txn:1", by="ada", why="leaked", at=START)
    assert empty.revocations.revoke("txn:1", by="ben", why="again", at=START + timedelta(hours=1)) == first
    assert empty.revocations.epoch() == 1


def test_the_names_of_the_feed_are_not_keys(empty: Stores) -> None:
    """A revoked key that reads like one of the table's own rows must not be taken for it."""
    for key in ("epoch", "feed#1", "key#x"):
        empty.revocations.revoke(key, by="ada", why="odd", at=START)
    assert empty.revocations.epoch() == 3
    assert empty.revocations.any_of(frozenset({"feed#2"})) is None
    assert [row.key for row in empty.revocations.since(0)] == ["epoch", "feed#1", "key#x"]


def test_concurrent_revocations_are_numbered_without_holes(empty: Stores) -> None:
    """A number taken twice, or skipped, would be a revocation that a broker never reads."""
    results = race(lambda n: empty.revocations.revoke(f"txn:{n // 2}", by=f"p{n}", why="race", at=START))
    assert all(isinstance(result, Revocation) for result in results), results
    feed = empty.revocations.since(0)
    assert [row.number for row in feed] == list(range(1, RACERS // 2 + 1))
    assert {row.key for row in feed} == {f"txn:{n}" for n in range(RACERS // 2)}
    for n in range(0, RACERS, 2):  # who lost got the winner's row
        assert results[n] == results[n + 1]


def test_activations_follow_each_other(empty: Stores) -> None:
    """A serial that repeats, skips or does not name what it replaces would let an old bundle come back."""
    with pytest.raises(NotFound):
        empty.activations.latest()
    for wrong in (samples.activation(0), samples.activation(2), samples.activation(1, previous_digest=SHA)):
        with pytest.raises(Conflict):
            empty.activations.put(wrong)
    first = samples.activation(1)
    empty.activations.put(first)
    second = samples.activation(2, previous_digest=first.bundle_digest)
    for wrong in (first, samples.activation(2), samples.activation(3, previous_digest=first.bundle_digest)):
        with pytest.raises(Conflict):
            empty.activations.put(wrong)
    empty.activations.put(second)
    assert empty.activations.latest() == second


def test_one_of_many_activations_wins(empty: Stores) -> None:
    """Two people push at once: one of them has to look again."""
    results = race(
        lambda n: empty.activations.put(
            Activation(serial=1, bundle_digest=f"{n:064x}", previous_digest="", author=f"p{n}", activated_at=START)
        )
    )
    won = [n for n, result in enumerate(results) if result is None]
    assert len(won) == 1
    assert sum(isinstance(result, Conflict) for result in results) == RACERS - 1
    assert empty.activations.latest().author == f"p{won[0]}"


def test_activations_pass_ten_in_order(empty: Stores) -> None:
    """As text, serial 9 sorts after serial 10."""
    previous = ""
    for serial in range(1, 12):
        empty.activations.put(samples.activation(serial, previous_digest=previous))
        previous = samples.activation(serial).bundle_digest
    assert empty.activations.latest().serial == 11


def test_an_object_is_put_once(empty: Stores) -> None:
    """A second put would replace a recording, under the same name."""
    first = empty.objects.put_new("rec/v1/a/1", b"one", content_type="application/gzip")
    for body in (b"two", b"one"):
        with pytest.raises(AlreadyExists):
            empty.objects.put_new("rec/v1/a/1", body, content_type="application/gzip")
    assert empty.objects.get("rec/v1/a/1") == b"one"
    assert empty.objects.get("rec/v1/a/1", first.version_id) == b"one"
    with pytest.raises(NotFound):
        empty.objects.get("rec/v1/a/2")


def test_one_of_many_puts_wins_and_fences_the_others(empty: Stores) -> None:
    """The sweeper's tombstone and a live broker's segment meet here."""
    results = race(lambda n: empty.objects.put_new("rec/v1/a/1", f"by {n}".encode(), content_type="text/plain"))
    won = [n for n, result in enumerate(results) if isinstance(result, ObjectVersion)]
    assert len(won) == 1
    assert sum(isinstance(result, AlreadyExists) for result in results) == RACERS - 1
    assert empty.objects.get("rec/v1/a/1") == f"by {won[0]}".encode()


def test_objects_are_listed_by_prefix(empty: Stores) -> None:
    """A review reads what a listing names; one key left out is a segment that nobody looks at."""
    for key in ("rec/v1/b/2", "rec/v1/b/1", "rec/v1/bb/1", "other"):
        empty.objects.put_new(key, b"", content_type="text/plain")
    assert list(empty.objects.keys("rec/v1/b/")) == ["rec/v1/b/1", "rec/v1/b/2"]
    assert list(empty.objects.keys("none/")) == []


def test_a_secret_is_read_by_name(backend: Backend, stores: Stores) -> None:
    """A reference that names nothing is told from an outage: the first is a mistake in the bundle."""
    backend.put_secret(stores, "orders-prod/app", "hunter2-ö")
    assert stores.secrets.get("orders-prod/app").expose() == "hunter2-ö"
    with pytest.raises(NotFound):
        stores.secrets.get("orders-prod/nobody")


def test_a_signature_verifies_under_its_own_purpose_alone(stores: Stores) -> None:
    """Each role has one key: what one of them signs must not pass for another's."""
    for purpose in set(KeyPurpose) - SSH_PURPOSES:
        signature = sign_sha256(stores.signer(purpose.value), "test+jws", SHA)
        verify_sha256(stores.keys, purpose, "test+jws", signature, SHA)
        for other in set(KeyPurpose) - {purpose}:
            with pytest.raises(ProofInvalid):
                verify_sha256(stores.keys, other, "test+jws", signature, SHA)


def test_an_ssh_key_signs_bytes_as_they_are(stores: Stores) -> None:
    """A certificate is no JWS: ``r || s`` over the certificate itself, under the key that the deployment publishes."""
    for purpose in SSH_PURPOSES:
        signer = stores.signer(purpose.value)
        signature = signer.sign_bytes(b"certificate")
        jwk = signer.public_jwk
        assert stores.keys.public_keys(purpose.value)[jwk["kid"]] == jwk
        public = ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), ec.SECP256R1()).public_key()
        assert len(signature) == 64
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        public.verify(der, b"certificate", ec.ECDSA(hashes.SHA256()))


def test_a_certificate_cannot_stand_for_a_jws_or_the_other_way_round(stores: Stores) -> None:
    """A JWS signature transplanted: a key that signed both would let the bytes of one be made to look like another."""
    for purpose in SSH_PURPOSES:
        with pytest.raises(ValueError, match="nothing else"):
            sign_sha256(stores.signer(purpose.value), "test+jws", SHA)
    for purpose in set(KeyPurpose) - SSH_PURPOSES:
        with pytest.raises(ValueError, match="nothing else"):
            stores.signer(purpose.value).sign_bytes(b"certificate")


def _number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")


def test_what_kms_cannot_sign_is_refused_before_it_is_asked(stores: Stores) -> None:
    """KMS takes 4,096 bytes; a signer that hashed first would sign what no policy of the key can see."""
    signer = stores.signer("token")
    with pytest.raises(ValueError, match="4096"):
        signer.sign("test+jws", b"x" * 4000)
    assert signer.sign("test+jws", b"x" * 2900).count(".") == 2
    authority = stores.signer("ssh-user")
    with pytest.raises(ValueError, match="4096"):
        authority.sign_bytes(b"x" * 4097)
    assert len(authority.sign_bytes(b"x" * 4096)) == 64


def test_a_function_answers_refuses_or_crashes(backend: Backend, stores: Stores) -> None:
    """A refusal keeps its code across the call; a crash is never a success and says nothing of itself."""

    def decide(payload: Mapping[str, Json]) -> Mapping[str, Json]:
        match payload["click"]:
            case "yes":
                return {"person": "ada", "echo": payload["text"]}
            case "refuse":
                raise ApproverNotEligible("You started this run.", hint="Ask a colleague.")
            case _:
                raise RuntimeError("inner host db-7.internal")

    backend.put_function(stores, "decide", decide)
    answer = stores.functions.invoke("decide", {"click": "yes", "text": "ö"})
    assert answer == {"person": "ada", "echo": "ö"}
    with pytest.raises(ApproverNotEligible) as refusal:
        stores.functions.invoke("decide", {"click": "refuse"})
    assert (refusal.value.public, refusal.value.next_step) == ("You started this run.", "Ask a colleague.")
    with pytest.raises(StoreUnavailable) as crash:
        stores.functions.invoke("decide", {"click": "crash"})
    assert "db-7" not in f"{crash.value.public}{crash.value.detail}"
    with pytest.raises(StoreUnavailable):
        stores.functions.invoke("absent", {})


def test_a_large_document_survives(stores: Stores) -> None:
    """An ask carries the text that will run: 64 KiB of it, with whatever characters it has."""
    ask = samples.ask()
    text = "SELECT 'ö\x00\u2028' -- " + hashlib.sha256(b"x").hexdigest() * 1000
    question = dataclasses.replace(ask.question, text=text)
    ask = dataclasses.replace(ask, question=question, digest=question.digest())
    stores.asks.put(ask)
    assert stores.asks.get(ask.id) == ask


def test_what_is_sealed_opens_under_its_own_context_alone(stores: Stores) -> None:
    """The end of a token is bound by the context: another end, another chain, and it is noise."""
    context = {"countersign:txn": "01m6dsg7e0fwejtv7egfb0rbxm", "countersign:expires": "2026-11-02T09:35:00.000Z"}
    sealed = stores.vault.seal(b"the issuer's token", context)
    assert b"token" not in sealed.sealed + sealed.data_key
    assert stores.vault.open(sealed, context) == b"the issuer's token"
    for other in ({}, {**context, "countersign:expires": "2026-11-02T09:30:00.000Z"}, {**context, "more": "x"}):
        with pytest.raises(ProofInvalid):
            stores.vault.open(sealed, other)


def test_what_was_sealed_and_altered_does_not_open(stores: Stores) -> None:
    """Neither text, nonce nor wrapped key, nor a key from another sealing."""
    context = {"countersign:txn": "01m6dsg7e0fwejtv7egfb0rbxm"}
    one, two = stores.vault.seal(b"one", context), stores.vault.seal(b"two", context)
    flipped = bytes([one.sealed[0] ^ 1]) + one.sealed[1:]
    for altered in (
        dataclasses.replace(one, sealed=flipped),
        dataclasses.replace(one, sealed=b""),
        dataclasses.replace(one, nonce=two.nonce),
        dataclasses.replace(one, data_key=two.data_key),
        dataclasses.replace(one, data_key=one.data_key[:-1]),
    ):
        with pytest.raises(ProofInvalid):
            stores.vault.open(altered, context)


def test_a_key_is_changed_and_what_the_one_before_signed_verifies_in_a_new_process(backend: Backend) -> None:
    """A function that starts cold after a change knows both keys; else every hop of before would be refused by it."""
    if backend.name == "memory":
        pytest.skip("the keys of KMS")
    settings = new_settings()
    made = provision(settings)
    stores = open_stores(settings)
    payload = "ab" * 32
    before = sign_sha256(stores.signer("token"), "countersign-hop+jws", payload)
    kms = Session().client("kms", region_name=settings.region)
    key = kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    rotate = RotateKey(
        objects=stores.objects, ring=KmsKeyRing(stores.clients, stores.keys), clock=SystemClock(), by="ops"
    )
    assert [rotate.begin(KeyPurpose.TOKEN).number, rotate(KeyPurpose.TOKEN, key).number] == [1, 2]
    cold = open_stores(settings)
    after = sign_sha256(cold.signer("token"), "countersign-hop+jws", payload)
    for signature in (before, after):
        verify_sha256(cold.keys, KeyPurpose.TOKEN, "countersign-hop+jws", signature, payload)
    assert set(cold.keys.public_keys("token")) == {key, made.keys["token"].rpartition("/")[2]}
    assert read_history(cold.objects).findings == ()
    assert [entry.number for entry in read_history(cold.objects).of("token")] == [1, 2]
