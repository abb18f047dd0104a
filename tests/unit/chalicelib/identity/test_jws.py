"""Our signatures: each kind by its own key, under its own type, over its own hash."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import pytest

from chalicelib.domain.activation import ACTIVATION_SIGNATURE_TYPE
from chalicelib.domain.ask import ANSWER_SIGNATURE_TYPE
from chalicelib.domain.chain import HOP_SIGNATURE_TYPE, Hop
from chalicelib.domain.errors import ProofInvalid
from chalicelib.domain.recording import MANIFEST_SIGNATURE_TYPE
from chalicelib.domain.signature import KeyPurpose, signed_payload
from chalicelib.identity import jws
from tests.fakes import samples
from tests.fakes.issuer import segment
from tests.fakes.signer import MemoryKeys, MemorySigner

SHA = "ab" * 32
TYPE = "test+jws"


def test_each_kind_signs_and_verifies() -> None:
    """The plain case, for all of them."""
    keys = MemoryKeys()
    token, record = keys.signer("token"), keys.signer("record")
    root = jws.sign_hop(token, samples.origin())
    for hop in (root, jws.sign_hop(token, samples.child(root)), jws.sign_hop(record, samples.target_hop(root))):
        jws.verify_hop(hop, keys)
    jws.verify_answer(jws.sign_answer(keys.signer("answer"), samples.answer(samples.ask())), keys)
    jws.verify_manifest(jws.sign_manifest(record, samples.manifest()), keys)
    jws.verify_activation(jws.sign_activation(keys.signer("activation"), samples.activation()), keys)


def test_types_are_different() -> None:
    """They keep a signature over one kind of thing from standing for another."""
    types = {HOP_SIGNATURE_TYPE, ANSWER_SIGNATURE_TYPE, MANIFEST_SIGNATURE_TYPE, ACTIVATION_SIGNATURE_TYPE, "at+jwt"}
    assert len(types) == 5


@pytest.mark.parametrize("purpose", ["answer", "record", "activation"])
def test_another_roles_key_signs_no_origin(purpose: str) -> None:
    """A thief of the broker's key must not be able to say who started a run."""
    keys = MemoryKeys()
    with pytest.raises(ProofInvalid):
        jws.verify_hop(jws.sign_hop(keys.signer(purpose), samples.origin()), keys)


def test_the_token_key_signs_no_target() -> None:
    """Which login was used is the broker's to say."""
    keys = MemoryKeys()
    with pytest.raises(ProofInvalid):
        jws.verify_hop(jws.sign_hop(keys.signer("token"), samples.target_hop(samples.origin())), keys)


@pytest.mark.parametrize("purpose", ["token", "record", "activation"])
def test_another_roles_key_signs_no_answer(purpose: str) -> None:
    """Only ``decide`` puts answers."""
    keys = MemoryKeys()
    with pytest.raises(ProofInvalid):
        jws.verify_answer(jws.sign_answer(keys.signer(purpose), samples.answer(samples.ask())), keys)


def test_an_edited_answer_does_not_verify() -> None:
    """An administrator edits an answer in the table."""
    keys = MemoryKeys()
    refusal = dataclasses.replace(samples.answer(samples.ask()), approved=False)
    signed = jws.sign_answer(keys.signer("answer"), refusal)
    with pytest.raises(ProofInvalid):
        jws.verify_answer(dataclasses.replace(signed, approved=True), keys)


def test_an_edited_hop_does_not_verify() -> None:
    """Nor does a signature taken from another hop."""
    keys = MemoryKeys()
    one, two = (jws.sign_hop(keys.signer("token"), samples.origin()) for _ in range(2))
    edited: list[Hop] = [
        dataclasses.replace(one, accountable=()),
        dataclasses.replace(one, scope=("*",)),
        dataclasses.replace(one, signature=two.signature),
        dataclasses.replace(one, signature=""),
    ]
    for hop in edited:
        with pytest.raises(ProofInvalid):
            jws.verify_hop(hop, keys)


def test_a_signature_of_another_type_does_not_verify() -> None:
    """Even by the right key over the right hash."""
    keys = MemoryKeys()
    signature = jws.sign_sha256(keys.signer("token"), "other+jws", SHA)
    with pytest.raises(ProofInvalid):
        jws.verify_sha256(keys, KeyPurpose.TOKEN, TYPE, signature, SHA)


def test_a_key_that_was_replaced_verifies_no_more() -> None:
    """``Keys`` says which keys are trusted; a signature does not."""
    keys = MemoryKeys()
    signature = jws.sign_sha256(keys.signer("token"), TYPE, SHA)
    keys.rotate("token")
    with pytest.raises(ProofInvalid):
        jws.verify_sha256(keys, KeyPurpose.TOKEN, TYPE, signature, SHA)


def forged(header: Mapping[str, object], payload: bytes = signed_payload(SHA), signature: bytes = b"x" * 64) -> str:
    return f"{segment(json.dumps(header).encode())}.{segment(payload)}.{segment(signature)}"


KID = "token-key-1"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "kid": KID, "typ": TYPE},
        {"alg": "HS256", "kid": KID, "typ": TYPE},
        {"alg": "RS256", "kid": KID, "typ": TYPE},
        {"alg": "ES256", "kid": KID, "typ": TYPE},
        {"alg": "ES256", "kid": KID},
        {"alg": "ES256", "kid": "../answer-key-1", "typ": TYPE},
        {"alg": "ES256", "kid": KID, "typ": TYPE, "jwk": MemorySigner(KID).jwk()},
        {"alg": "ES256", "kid": KID, "typ": TYPE, "crit": ["b64"], "b64": False},
        {"alg": ["ES256"], "kid": KID, "typ": TYPE},
    ],
)
def test_a_forged_header_does_not_verify(header: Mapping[str, object]) -> None:
    """No algorithm but ours, no key from the header, nothing that changes what is covered."""
    with pytest.raises(ProofInvalid):
        jws.verify_sha256(MemoryKeys(), KeyPurpose.TOKEN, TYPE, forged(header), SHA)


def test_a_header_with_a_key_does_not_verify_even_if_the_signature_does() -> None:
    """The header is exactly what ours is: whatever else it says, somebody else wrote it."""
    keys = MemoryKeys()
    good = jws.sign_sha256(keys.signer("token"), TYPE, SHA)
    _, payload, signature = good.split(".")
    header = segment(json.dumps({"alg": "ES256", "kid": KID, "typ": TYPE, "x": 1}).encode())
    with pytest.raises(ProofInvalid):
        jws.verify_sha256(keys, KeyPurpose.TOKEN, TYPE, f"{header}.{payload}.{signature}", SHA)


@pytest.mark.parametrize("signature", ["", "..", "a.b", "a.b.c.d", "\x00", "é.é.é", "a" * 20_000])
def test_garbage_is_a_proof_of_nothing(signature: str) -> None:
    """What a table holds may be anything."""
    with pytest.raises(ProofInvalid):
        jws.verify_sha256(MemoryKeys(), KeyPurpose.TOKEN, TYPE, signature, SHA)


def test_a_signature_covers_the_hash_and_no_more() -> None:
    """The payload is compared as bytes: no reader of JSON decides what it means."""
    keys = MemoryKeys()
    for payload in (b'{"sha256":"' + SHA.encode() + b'","x":1}', b'{ "sha256":"' + SHA.encode() + b'"}', b"{}"):
        signature = keys.signer("token").sign(TYPE, payload)
        with pytest.raises(ProofInvalid):
            jws.verify_sha256(keys, KeyPurpose.TOKEN, TYPE, signature, SHA)
