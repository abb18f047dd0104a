"""What ``verify`` says of the kept proof of a chain: each tampering is named, by the object that it is in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import pytest

from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.kept_proof import kept_key, proof_sha256, read_kept
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import sign_hop
from chalicelib.services.reviewed import FindingKind
from chalicelib.services.verify import Anchor, EvidenceSource, Verification, verify
from tests.fakes.archive import Archive, ArchiveIn
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import MemoryIssuer
from tests.fakes.memory import MemoryStores


def key_of(archive: ArchiveIn[MemoryStores]) -> str:
    return kept_key(archive.txn, archive.root.evidence.kept_sha256)


def plain(archive: Archive) -> bytes:
    kept = read_kept(archive.stores.objects.rows[key_of(archive)])
    return archive.stores.vault.open(kept.data, kept.context())


def verified(archive: Archive, opened: bytes | None = None) -> Verification:
    given: dict[str, bytes] = {archive.txn: opened} if opened is not None else {}
    source = EvidenceSource(stores=archive.stores, anchor=Anchor.AWS, opened=given)
    return verify(archive.txn, source, None, FakeClock())


def test_a_sealed_proof_is_whole_and_an_opened_one_is_the_issuers() -> None:
    """A verifier that looked at nothing would pass too, so it counts."""
    archive = Archive()
    sealed, opened = verified(archive), verified(archive, plain(archive))
    assert (sealed.findings, opened.findings) == ((), ())
    assert (sealed.checked.tokens_kept, sealed.checked.tokens_opened) == (1, 0)
    assert (opened.checked.tokens_kept, opened.checked.tokens_opened) == (1, 1)


def _removed(archive: Archive) -> None:
    del archive.stores.objects.rows[key_of(archive)]


def _flipped(archive: Archive) -> None:
    body = bytearray(archive.stores.objects.rows[key_of(archive)])
    body[body.index(b'"sealed":"') + 20] ^= 1
    archive.stores.objects.rows[key_of(archive)] = bytes(body)


def _truncated(archive: Archive) -> None:
    archive.stores.objects.rows[key_of(archive)] = archive.stores.objects.rows[key_of(archive)][:-9]


def _swapped(archive: Archive) -> None:
    other = ArchiveIn(archive.stores)
    archive.stores.objects.rows[key_of(archive)] = archive.stores.objects.rows[key_of(other)]


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (_removed, FindingKind.MISSING),
        (_flipped, FindingKind.ALTERED),
        (_truncated, FindingKind.ALTERED),
        (_swapped, FindingKind.ALTERED),
    ],
)
def test_a_kept_token_that_was_tampered_with_is_named(tamper: Callable[[Archive], None], kind: FindingKind) -> None:
    """Attack: the one thing that is not our word is taken away or replaced."""
    archive = Archive()
    tamper(archive)
    assert [(one.key, one.kind) for one in verified(archive).findings] == [(key_of(archive), kind)]


def test_a_hop_that_names_another_chains_token_is_named() -> None:
    """Attack: with the token key a hop is signed anew, over the kept token of another run."""
    archive = Archive()
    other = ArchiveIn(archive.stores)
    evidence = dataclasses.replace(archive.root.evidence, kept_sha256=other.root.evidence.kept_sha256)
    forged = dataclasses.replace(archive.root, evidence=evidence, signature="")
    objects = archive.stores.objects.rows
    objects[kept_key(archive.txn, evidence.kept_sha256)] = objects[key_of(other)]
    place = (archive.txn, 0, archive.root.id)
    archive.stores.chains.rows[place] = sign_hop(archive.stores.signer(KeyPurpose.TOKEN.value), forged)
    kinds = {one.kind for one in verified(archive).findings if one.key == kept_key(archive.txn, evidence.kept_sha256)}
    assert kinds == {FindingKind.SWAPPED}


def test_a_first_hop_of_this_version_that_keeps_nothing_is_named() -> None:
    """Attack: with the token key a chain is signed that no issuer ever began."""
    archive = Archive()
    evidence = dataclasses.replace(archive.root.evidence, kept_sha256="")
    forged = dataclasses.replace(archive.root, evidence=evidence, signature="")
    place = (archive.txn, 0, archive.root.id)
    archive.stores.chains.rows[place] = sign_hop(archive.stores.signer(KeyPurpose.TOKEN.value), forged)
    found = [(one.key, one.kind) for one in verified(archive).findings]
    assert (archive.root.id, FindingKind.MISSING) in found


def test_an_opened_token_that_is_not_the_sealed_one_is_named() -> None:
    """Attack: with the copy goes another token, or the same with other keys beside it."""
    archive = Archive()
    said = json.loads(plain(archive))
    for changed in ({**said, "token": said["token"] + "A"}, {**said, "jwks": {"keys": [MemoryIssuer().jwk()]}}):
        found = verified(archive, canonical(changed)).findings
        assert [(one.key, one.kind) for one in found] == [(f"opened/{archive.txn}.json", FindingKind.ALTERED)]


def test_a_sealed_token_that_its_issuer_did_not_sign_is_named() -> None:
    """Attack: who could seal sealed a token of their own making."""
    archive = Archive()
    said = json.loads(plain(archive))
    forged = canonical({**said, "jwks": {"keys": [{**MemoryIssuer().jwk(), "kid": "key-1"}]}})
    kept = read_kept(archive.stores.objects.rows[key_of(archive)])
    body = dataclasses.replace(kept, proof_sha256=proof_sha256(forged)).document()
    evidence = dataclasses.replace(archive.root.evidence, kept_sha256=sha256_hex(body))
    archive.stores.objects.rows[kept_key(archive.txn, sha256_hex(body))] = body
    hop = dataclasses.replace(archive.root, evidence=evidence, signature="")
    archive.stores.chains.rows[archive.txn, 0, hop.id] = sign_hop(archive.stores.signer("token"), hop)
    found = [(one.key, one.kind) for one in verified(archive, forged).findings]
    assert (f"opened/{archive.txn}.json", FindingKind.OTHER_KEY) in found
