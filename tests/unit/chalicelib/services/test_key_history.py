"""A signing key is introduced by the one before: what verifies after a change, and what no forged history makes
verify."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from chalicelib.domain.errors import BadRequest, Conflict, NotFound, StoreUnavailable
from chalicelib.domain.identifiers import new_hop_id
from chalicelib.domain.key_history import KEY_SIGNATURE_TYPE, KeyEntry, entry_key, read_entry
from chalicelib.domain.signature import KeyPurpose, signed_payload
from chalicelib.identity.jws import sign_hop
from chalicelib.services.anchors import key_thumbprint
from chalicelib.services.copy_evidence import copy_evidence
from chalicelib.services.key_history import read_history
from chalicelib.services.reviewed import FindingKind
from chalicelib.services.rotate_key import RotateKey
from chalicelib.services.verify import Anchor, EvidenceSource, Verification, verify
from chalicelib.store.folder import open_folder
from chalicelib.store.folder_copy import FolderCopy
from countersign.trust import Trust
from tests.fakes.archive import Archive
from tests.fakes.clock import START, FakeClock
from tests.fakes.signer import MemoryKeyRing, MemorySigner

TOKEN = KeyPurpose.TOKEN


class Rotated:
    """An archive whose keys were listed by an auditor, and whose token key was changed since: twice, with ``times``."""

    def __init__(self, times: int = 1) -> None:
        self.archive = Archive()
        self.ring = MemoryKeyRing(self.archive.stores.keys)
        self.rotate = RotateKey(objects=self.archive.stores.objects, ring=self.ring, clock=FakeClock(), by="ops")
        self.trust = listed(self.archive)
        for purpose in (TOKEN, KeyPurpose.RECORD):
            self.rotate.begin(purpose)
        for number in range(times):
            self.rotate(TOKEN, self.ring.make("token", f"token-key-{number + 2}"))

    def entry(self, number: int) -> KeyEntry:
        return read_entry(self.archive.stores.objects.rows[entry_key(TOKEN, number)])

    def put(self, entry: KeyEntry, at: int = 0) -> None:
        self.archive.stores.objects.rows[entry_key(TOKEN, at or entry.number)] = entry.document()

    def verify(self, anchors: Trust | None = None, anchor: Anchor = Anchor.AWS) -> Verification:
        source = EvidenceSource(stores=self.archive.stores, anchor=anchor)
        return verify(self.archive.txn, source, anchors, FakeClock())


def listed(archive: Archive) -> Trust:
    keys = archive.stores.keys
    return Trust(
        keys=frozenset(
            (one.value, key_thumbprint(jwk)) for one in KeyPurpose for jwk in keys.public_keys(one.value).values()
        )
    )


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_later_key_is_trusted_through_the_history(times: int) -> None:
    """The fingerprints of onboarding go on to hold: what the first key signed verifies, and what a later one signs, by
    AWS's word as by the auditor's own file."""
    rotated = Rotated(times)
    rotated.archive.sign(dataclasses.replace(rotated.archive.root, id=new_hop_id(START), signature=""))
    for anchors in (None, rotated.trust):
        found = rotated.verify(anchors)
        assert [one for one in found.findings if one.key.startswith(("keys/", "hop_"))] == []
        assert found.anchor is (Anchor.AWS if anchors is None else Anchor.FILE)


def test_re_sign_everything_with_a_new_key() -> None:
    """Attack: whoever keeps tables and bucket makes a key of their own and signs anew. Without a history that leads to
    it from a key of the auditor's, nothing that it signed verifies."""
    rotated = Rotated(0)
    del rotated.archive.stores.objects.rows[entry_key(TOKEN, 1)]
    rotated.archive.stores.keys.rotate("token")
    for place, hop in list(rotated.archive.stores.chains.rows.items()):
        if hop.signature and hop.kind.value != "target":
            signer = rotated.archive.stores.signer("token")
            rotated.archive.stores.chains.rows[place] = sign_hop(signer, dataclasses.replace(hop, signature=""))
    assert rotated.verify(None).findings == (), "online KMS says that it is the key"
    kinds = {one.kind for one in rotated.verify(rotated.trust).findings}
    assert kinds == {FindingKind.OTHER_KEY}


def test_a_key_of_now_that_is_in_no_history_is_named() -> None:
    """Attack: the alias is pointed at another key. KMS vouches that it is the key of now, and nobody introduced it."""
    rotated = Rotated()
    rotated.archive.stores.keys.rotate("record")
    for anchors in (None, rotated.trust):
        found = [one for one in rotated.verify(anchors).findings if one.key.startswith("keys/")]
        assert {one.kind for one in found} == {FindingKind.OTHER_KEY}


def _forged(rotated: Rotated, number: int, thief: MemorySigner, previous: MemorySigner | None) -> KeyEntry:
    before = rotated.entry(number - 1)
    unsigned = dataclasses.replace(
        before, number=number, jwk=dict(thief.jwk()), previous_sha256=before.sha256(), signed_by_previous=""
    )
    payload = signed_payload(unsigned.sha256())
    return dataclasses.replace(
        unsigned,
        signed_by_itself=thief.sign(KEY_SIGNATURE_TYPE, payload),
        signed_by_previous=(previous or thief).sign(KEY_SIGNATURE_TYPE, payload),
    )


def test_a_key_that_the_one_before_did_not_introduce_is_not_believed() -> None:
    """Attack: an entry for a thief's key is put behind the last one, signed by itself or by another purpose's key."""
    for previous in (None, "record"):
        rotated = Rotated()
        thief = MemorySigner("thief", TOKEN)
        signer = None if previous is None else rotated.archive.stores.signer(previous)
        rotated.put(_forged(rotated, 3, thief, signer))
        history = read_history(rotated.archive.stores.objects)
        assert [(one.key, one.kind) for one in history.findings] == [(entry_key(TOKEN, 3), FindingKind.OTHER_KEY)]
        assert len(history.of("token")) == 2
        for anchors in (None, rotated.trust):
            assert [one.key for one in rotated.verify(anchors).findings] == [entry_key(TOKEN, 3)]


def test_a_key_whose_holder_took_no_part_is_not_believed() -> None:
    """Attack: with the key of now somebody else's public key is named as the next, to have what that one signs
    believed."""
    rotated = Rotated()
    thief = MemorySigner("thief", TOKEN)
    entry = _forged(rotated, 3, thief, rotated.archive.stores.signer("token"))
    own = rotated.archive.stores.signer("token").sign(KEY_SIGNATURE_TYPE, signed_payload(entry.sha256()))
    rotated.put(dataclasses.replace(entry, signed_by_itself=own))
    history = read_history(rotated.archive.stores.objects)
    assert [(one.key, one.kind) for one in history.findings] == [(entry_key(TOKEN, 3), FindingKind.OTHER_KEY)]


def _flip(rotated: Rotated) -> None:
    rotated.put(dataclasses.replace(rotated.entry(2), by="somebody else"))


def _truncate(rotated: Rotated) -> None:
    rows = rotated.archive.stores.objects.rows
    rows[entry_key(TOKEN, 2)] = rows[entry_key(TOKEN, 2)][:-2]


def _remove(rotated: Rotated) -> None:
    del rotated.archive.stores.objects.rows[entry_key(TOKEN, 2)]


def _duplicate(rotated: Rotated) -> None:
    rotated.put(rotated.entry(3), at=2)


def _another_purposes(rotated: Rotated) -> None:
    rows = rotated.archive.stores.objects.rows
    rows[entry_key(TOKEN, 2)] = rows[entry_key(KeyPurpose.RECORD, 1)]


@pytest.mark.parametrize(
    ("tamper", "kind"),
    [
        (_flip, FindingKind.OTHER_KEY),
        (_truncate, FindingKind.ALTERED),
        (_remove, FindingKind.MISSING),
        (_duplicate, FindingKind.SWAPPED),
        (_another_purposes, FindingKind.SWAPPED),
    ],
)
def test_a_history_that_was_tampered_with_is_named(tamper: Callable[[Rotated], None], kind: FindingKind) -> None:
    """A line with a hole introduces nobody: what stands behind the hole is not believed either."""
    rotated = Rotated(2)
    tamper(rotated)
    history = read_history(rotated.archive.stores.objects)
    assert [(one.key, one.kind) for one in history.findings] == [(entry_key(TOKEN, 2), kind)]
    assert len(history.of("token")) == 1


def test_a_copy_carries_the_history_and_nobody_vouches_for_its_keys_alone(tmp_path: Path) -> None:
    """Keys that came with the evidence are UNANCHORED however long their history; with one fingerprint of onboarding
    the line to the key of now holds, offline."""
    rotated = Rotated(2)
    copy_evidence(rotated.archive.stores, rotated.archive.txn, FolderCopy(tmp_path / "copy"), FakeClock())
    stores, faults = open_folder(tmp_path / "copy")
    assert faults == ()
    source = EvidenceSource(stores=stores)
    alone, trusted = (verify(stores.subject, source, each, FakeClock()) for each in (None, rotated.trust))
    assert (alone.findings, alone.anchor, alone.holds) == ((), Anchor.NOBODY, False)
    assert (trusted.findings, trusted.anchor, trusted.holds) == ((), Anchor.FILE, True)


def test_a_change_that_broke_off_is_finished_by_doing_it_again() -> None:
    """Between the entry and the alias an operator's machine may die: the old key signs on, and the same call ends
    it."""
    rotated = Rotated(0)
    key = rotated.ring.make("token", "next")
    rotated.ring.fails_at = "point"
    with pytest.raises(StoreUnavailable):
        rotated.rotate(TOKEN, key)
    assert rotated.ring.current("token") == "token-key-1"
    with pytest.raises(Conflict):
        rotated.rotate(TOKEN, rotated.ring.make("token", "another"))
    rotated.ring.fails_at = ""
    assert rotated.rotate(TOKEN, key).number == 2
    assert rotated.rotate(TOKEN, key).number == 2, "and once more changes nothing"
    assert (rotated.ring.current("token"), rotated.ring.before["token"]) == ("next", "token-key-1")


def test_a_key_is_used_once_and_must_be_there() -> None:
    """An earlier key that came back would make what it signed since look introduced."""
    rotated = Rotated()
    with pytest.raises(BadRequest):
        rotated.rotate(TOKEN, "token-key-1")
    with pytest.raises(NotFound):
        rotated.rotate(TOKEN, "no such key")


def test_a_key_that_was_changed_past_the_history_is_not_introduced_by_it() -> None:
    """Attack: the alias is pointed at a thief's key, and the operator's next change would vouch for it."""
    rotated = Rotated()
    rotated.archive.stores.keys.rotate("token")
    with pytest.raises(Conflict):
        rotated.rotate(TOKEN, rotated.ring.make("token", "good"))
    with pytest.raises(Conflict):
        rotated.rotate.begin(TOKEN)


def test_a_history_that_does_not_hold_is_not_carried_on() -> None:
    """What an operator adds to a broken line would be signed, and believed by nobody."""
    rotated = Rotated()
    _flip(rotated)
    with pytest.raises(Conflict):
        rotated.rotate(TOKEN, rotated.ring.make("token", "good"))
