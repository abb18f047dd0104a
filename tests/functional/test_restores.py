"""A restore of the tables brings back what was ended since; raising the store's epoch makes all of before void."""

from __future__ import annotations

import copy
import dataclasses
import gzip
from typing import Any

import pytest

from chalicelib.domain.archived_item import ArchivedItem, Change, RowState, item_key
from chalicelib.domain.canonical import canonical
from chalicelib.domain.epoch import epoch_key, epoch_name
from chalicelib.domain.errors import Conflict, ProofInvalid
from chalicelib.domain.identifiers import SessionId
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import sign_activation, verify_activation
from chalicelib.services.raise_epoch import Raised, RaiseEpoch
from chalicelib.store.documents import to_document
from tests.fakes.keys import Key
from tests.functional.world import Holder, World

TABLES = ("chains", "sessions", "connections", "asks", "answers", "uses", "revocations", "once", "activations")


class Restored:
    """A world whose tables can be put back as they were, and whose archive cannot."""

    def __init__(self) -> None:
        self.world = World()
        self.plane = self.world.plane
        self.stores = self.plane.stores
        if not self.stores.activations.rows:
            self.plane._activate()
        self.sequence = 100

    def backup(self) -> dict[str, Any]:
        return {name: copy.deepcopy(getattr(self.stores, name).rows) for name in TABLES}

    def archive(self) -> None:
        """Archive every revocation and activation that is there now, as the tables' streams tell them."""
        rows_of: dict[str, list[object]] = {
            "revocations": list(self.stores.revocations.rows.values()),
            "activations": list(self.stores.activations.rows),
        }
        for table, rows in rows_of.items():
            lines = b"".join(self.line(table, row).line() for row in rows)
            self.sequence += 1
            key = item_key(table, str(self.sequence), self.plane.clock.now())
            if lines:
                self.stores.objects.put_new(key, gzip.compress(lines), content_type="application/x-ndjson")

    def line(self, table: str, row: object) -> ArchivedItem:
        self.sequence += 1
        return ArchivedItem(
            table=table,
            change=Change.INSERT,
            key=canonical({"id": f"key#{self.sequence}"}).decode(),
            state=RowState(item=to_document(row), attributes="{}"),
            before_sha256="",
            sequence=str(self.sequence),
            at=self.plane.clock.now(),
            by="",
            fault="",
        )

    def restore(self, backup: dict[str, Any]) -> None:
        for name in TABLES:
            getattr(self.stores, name).rows = copy.deepcopy(backup[name])

    def raise_epoch(self) -> Raised:
        self.plane.clock.advance(1)
        keys = self.stores.keys
        raised = RaiseEpoch(
            activations=self.stores.activations,
            revocations=self.stores.revocations,
            objects=self.stores.objects,
            signer=self.stores.signer(KeyPurpose.ACTIVATION.value),
            verify=lambda activation: verify_activation(activation, keys),
            clock=self.plane.clock,
        )(by="ops", why="restored to 09:30")
        self.plane.bundles.serial, self.plane.bundles.epoch_at = raised.serial, raised.epoch_at
        self.plane.clock.advance(1)
        return raised


@pytest.fixture
def restored() -> Restored:
    return Restored()


def refused(restored: Restored, holder: Holder, session: str) -> str:
    answer = restored.world.get(holder, f"/v1/sessions/{session}")
    return str(answer.json_body.get("code", answer.status_code))


def test_a_restore_brings_revoked_grants_back(restored: Restored) -> None:
    """Attack: a session that was revoked lives again, since the row that ended it is gone with the restore."""
    world = restored.world
    session = world.session(world.runner)
    before = restored.backup()
    assert world.revoke(world.runner, "session", session).status_code == 201
    restored.archive()
    restored.restore(before)
    assert refused(restored, world.runner, session) == "200", "the restore alone brings it back"
    raised = restored.raise_epoch()
    assert (raised.revocations, raised.unreadable) == (1, ())
    assert refused(restored, world.runner, session) == "grant_revoked"


def test_a_session_that_nobody_revoked_is_void_too(restored: Restored) -> None:
    """What was closed, refused or used up since is not known to the table: nothing of before stands, whatever it
    says."""
    world = restored.world
    session = world.session(world.runner)
    restored.raise_epoch()
    assert refused(restored, world.runner, session) == "grant_revoked"
    row = restored.stores.sessions.get(SessionId(session))
    found = restored.stores.revocations.any_of(row.liveness_keys())
    assert found is not None
    assert (found.key, found.why) == (epoch_key(""), "restored to 09:30")
    later = world.session(world.runner)
    assert refused(restored, world.runner, later) == "200"
    assert restored.stores.sessions.get(SessionId(later)).epoch == epoch_name(restored.plane.bundles.epoch_at)


def test_an_ask_of_before_is_answered_by_nobody(restored: Restored) -> None:
    """Attack: its card still hangs in the channel, and its refusal was lost with the restore."""
    plane, world = restored.plane, restored.world
    world.session(world.runner, "orders-prod")
    plane.poster.reconcile()
    (card,) = plane.workspace.cards
    before = restored.backup()
    plane.click(card, "UALICE", "deny")
    restored.restore(before)
    restored.raise_epoch()
    plane.click(card, "UBOB")
    assert not plane.stores.answers.rows
    event = plane.events.seen[-1]
    assert (event.name.value, event.code) == ("answer.refused", "approval_withdrawn")


def test_an_approved_session_of_before_is_not_granted(restored: Restored) -> None:
    """An answer of before counts for nothing, though its signature holds."""
    plane, world = restored.plane, restored.world
    session = world.session(world.runner, "orders-prod")
    plane.poster.reconcile()
    plane.click(plane.workspace.cards[0], "UALICE")
    assert plane.stores.answers.rows
    restored.raise_epoch()
    assert refused(restored, world.runner, session) == "grant_revoked"


def test_a_ticket_of_before_lets_nobody_in(restored: Restored) -> None:
    """Attack: a ticket that was redeemed is redeemed again, as the restore took its use back."""
    plane, world = restored.plane, restored.world
    for raised in (False, True):
        key = Key()
        ticket = plane.ticket(world.runner.token, key, by=world.runner.key, name="deploy-svc")
        if raised:
            restored.raise_epoch()
        answer = plane.redeem(ticket, key=key)
        assert (answer.status_code == 200) is not raised, answer.json_body
    assert answer.json_body["code"] == "ticket_invalid"


def test_a_second_restore_to_before_the_first_raise(restored: Restored) -> None:
    """The epoch itself is in a table: raised after each restore, with the activations and revocations of the first one
    put again, nothing that either ended comes back, and no process meets an epoch that went back."""
    world = restored.world
    first = world.session(world.runner)
    oldest = restored.backup()
    one = restored.raise_epoch()
    second = world.session(world.runner)
    restored.archive()
    restored.restore(oldest)
    two = restored.raise_epoch()
    assert (two.activations, two.revocations) == (1, 1)
    assert two.epoch_at > one.epoch_at
    assert two.serial == one.serial + 1
    assert two.ended == ("", epoch_name(one.epoch_at))
    assert refused(restored, world.runner, first) == "grant_revoked"
    assert refused(restored, world.runner, second) == "not_found", "it was lost with the restore"
    keys = frozenset({epoch_key(""), epoch_key(epoch_name(one.epoch_at))})
    assert restored.stores.revocations.any_of(keys) is not None
    latest = restored.stores.activations.latest()
    verify_activation(latest, restored.stores.keys)
    assert latest.epoch_at == two.epoch_at


def test_a_revoked_hop_stays_revoked_with_its_number_and_words(restored: Restored) -> None:
    """Hops live on: their revocations must be there again, or a stolen key of before is good once more."""
    world = restored.world
    token = world.agent
    before = restored.backup()
    for who, kind in ((world.agent, "hop"), (world.stranger, "hop")):
        world.revoke(who, kind, world.hop(who), why="the key leaked")
    told = dict(restored.stores.revocations.rows)
    restored.archive()
    restored.restore(before)
    restored.raise_epoch()
    again = {key: row for key, row in restored.stores.revocations.rows.items() if not key.startswith("epoch:")}
    assert again == told
    assert restored.world.get(token, "/v1/targets").json_body["code"] in ("grant_revoked", "token_expired")


def test_the_archive_cannot_make_up_an_activation(restored: Restored) -> None:
    """Attack: whoever can write the archive's prefix puts a bundle of their own behind the last one."""
    last = restored.stores.activations.rows[-1]
    forged = dataclasses.replace(last, serial=last.serial + 1, bundle_digest="0" * 64)
    lines = restored.line("activations", forged).line()
    restored.stores.objects.put_new(
        item_key("activations", "9", restored.plane.clock.now()), gzip.compress(lines), content_type="x"
    )
    with pytest.raises(ProofInvalid):
        restored.raise_epoch()
    assert not [key for key in restored.stores.revocations.rows if key.startswith("epoch:")]


def test_an_activation_that_nobody_has_any_more_stops_it(restored: Restored) -> None:
    """Serial 3 of the archive and 1 of the table: the process that saw 2 must not be told another 2."""
    last = restored.stores.activations.rows[-1]
    unsigned = dataclasses.replace(last, serial=last.serial + 2, signature="")
    signed = sign_activation(restored.stores.signer("activation"), unsigned)
    restored.stores.objects.put_new(
        item_key("activations", "9", restored.plane.clock.now()),
        gzip.compress(restored.line("activations", signed).line()),
        content_type="x",
    )
    with pytest.raises(Conflict):
        restored.raise_epoch()


def test_what_cannot_be_read_in_the_archive_is_named(restored: Restored) -> None:
    """A revocation may have stood there: the operator must know before the doors open."""
    key = item_key("revocations", "7", restored.plane.clock.now())
    restored.stores.objects.put_new(key, b"nothing of ours", content_type="x")
    assert restored.raise_epoch().unreadable == (key,)
