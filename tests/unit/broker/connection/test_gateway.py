"""Opening a connection: the order that the promise rests on, and what each failure leaves behind."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.canonical import Json
from chalicelib.domain.chain import chain_to
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import (
    AccessError,
    Denied,
    GrantRevoked,
    Limited,
    RecordingUnavailable,
    StoreUnavailable,
)
from chalicelib.domain.operation import Block
from chalicelib.domain.recording import segment_key
from chalicelib.identity.jws import verify_hop
from tests.fakes.broker import MINT, PEER, World, operation


def only_row(world: World) -> ConnectionRow:
    (found,) = world.stores.connections.rows.values()
    return found


def test_hop_then_row_then_segment_then_mint() -> None:
    """The promise: whatever holds a credential has a hop, a row and a durable record already."""
    world = World()
    connection = world.connect()
    first = segment_key(world.session.id, connection.id, 0)
    assert world.journal == [
        "chains.put Hop",
        "connections.put ConnectionRow",
        f"objects.put_new {first}",
        f"functions.invoke {MINT}",
    ]
    assert connection.credential.secret.expose() == "minted-secret"


def test_the_target_hop_is_signed_linked_and_ours() -> None:
    """The chain ends at the principal that is used; its serial is chosen before anything is minted."""
    world = World()
    row = (world.connect(), only_row(world))[1]
    chain = chain_to(world.stores.chains.hops(world.session.txn), row.target_hop)
    hop = chain.leaf
    verify_hop(hop, world.stores.keys)
    grant = world.session.grant
    assert grant is not None
    assert (hop.target, hop.principal, hop.parent) == ("orders-prod", "app_rw", world.session.leaf_hop)
    assert hop.serial
    assert hop.evidence.token_id == row.id
    assert hop.expires_at == min(grant.expires_at, world.chain.leaf.expires_at)


def test_a_revoked_target_hop_ends_its_own_connection_alone() -> None:
    """The chain shows a hop for each connection; revoking one must not look done and end nothing."""
    world = World()
    revoked = world.connect()
    hop = only_row(world).target_hop
    other = world.connect()
    world.revoke(f"hop:{hop}")
    world.liveness.step()
    assert isinstance(revoked.ending(), GrantRevoked)
    verdict = revoked.submit(operation(), in_transaction=False)
    assert isinstance(verdict, Block)
    assert verdict.code == "grant_revoked"
    assert other.ending() is None


def test_mint_is_told_the_connection_and_nothing_else() -> None:
    """mint reads the evidence itself: an argument that it believed would be authority for whoever may invoke it."""
    world = World()
    told: list[Mapping[str, Json]] = []

    def mint(payload: Mapping[str, Json]) -> Mapping[str, Json]:
        told.append(payload)
        return {"kind": "password", "login": "app_rw", "secret": "s"}

    world.stores.functions.register(MINT, mint)
    connection = world.connect()
    assert told == [{"session_id": world.session.id, "connection_id": connection.id}]


def test_mint_is_told_the_key_that_a_certificate_is_for() -> None:
    """The broker makes a key for each connection; what mint signs opens nothing without it."""
    world = World()
    told: list[Mapping[str, Json]] = []

    def mint(payload: Mapping[str, Json]) -> Mapping[str, Json]:
        told.append(payload)
        return {"kind": "certificate", "login": "deploy", "secret": "", "certificate": "ssh-ed25519-cert A"}

    world.stores.functions.register(MINT, mint)
    connection = world.connect(public_key="ssh-ed25519 AAAA")
    assert told[0]["public_key"] == "ssh-ed25519 AAAA"
    assert connection.credential.certificate == "ssh-ed25519-cert A"


@pytest.mark.parametrize(
    "answer",
    [
        {"kind": "certificate", "login": "deploy", "secret": "s", "certificate": ""},
        {"kind": "private_key", "login": "deploy", "certificate": "c"},
        {"kind": "password", "login": "", "secret": "s"},
        {"kind": "password", "login": "x", "secret": 7},
    ],
)
def test_an_answer_of_mint_without_what_its_kind_needs(answer: Mapping[str, Json]) -> None:
    """A credential that is half there would be presented to the target half there."""
    world = World()
    world.stores.functions.register(MINT, lambda _: answer)
    with pytest.raises(StoreUnavailable):
        world.connect(public_key="ssh-ed25519 AAAA")


def test_the_credential_frame_holds_no_secret() -> None:
    """What the credential turned out to be is recorded; the secret is nowhere in the bucket."""
    world = World()
    connection = world.connect()
    connection.close("client_left")
    stored = b"".join(gzip.decompress(body) for key, body in world.stores.objects.rows.items() if key.endswith(".gz"))
    assert b'"kind":"credential"' in stored
    assert b"minted-secret" not in stored


def test_rows_of_a_boot_are_numbered_without_holes_and_chained() -> None:
    """security.md, "A connection that never got a row": a missing one must show."""
    world = World()
    for _ in range(3):
        world.connect()
        world.clock.advance(0.01)
    rows = sorted(world.stores.connections.rows.values(), key=lambda row: row.number)
    assert [row.number for row in rows] == [1, 2, 3]
    assert [row.previous_sha256 for row in rows] == ["", rows[0].sha256(), rows[1].sha256()]
    assert {row.boot for row in rows} == {"boot1"}


def test_a_put_that_failed_leaves_no_hole() -> None:
    """The number of a row that is not there goes to the next one."""
    world = World()
    admission = world.admit()
    world.stores.fail("connections")
    with pytest.raises(StoreUnavailable):
        world.gateway.open(admission)
    world.stores.heal("connections")
    world.gateway.open(admission)
    assert only_row(world).number == 1


class _AnswerLost:
    """Puts rows and then says that it could not be reached, for as long as ``lost`` is set."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.lost = True

    def put(self, row: ConnectionRow) -> None:
        self._inner.put(row)
        if self.lost:
            raise StoreUnavailable("the answer was lost")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_put_whose_answer_was_lost_counts_once() -> None:
    """Neither a hole nor the same number twice: the row is looked up before the next number is given."""
    world = World()
    table = _AnswerLost(world.stores.connections)
    world.noted = lambda name: table if name == "connections" else getattr(world.stores, name)  # type: ignore[method-assign]
    gateway = world.new_gateway("boot2")
    admission = world.admit()
    gateway.open(admission)
    table.lost = False
    world.clock.advance(0.01)
    gateway.open(admission)
    rows = sorted(world.stores.connections.rows.values(), key=lambda row: row.number)
    assert [row.number for row in rows] == [1, 2]
    assert rows[1].previous_sha256 == rows[0].sha256()


def test_no_recorder_no_session() -> None:
    """P6: with the bucket gone nothing is minted, and the row says why it ended."""
    world = World()
    world.stores.fail("objects")
    with pytest.raises(RecordingUnavailable):
        world.connect()
    assert not any(entry.startswith("functions") for entry in world.journal)
    row = only_row(world)
    assert (row.exit, row.manifest_key) == ("recording_unavailable", "")
    assert row.sealed_at is not None


def test_what_mint_refused_is_what_the_client_is_told_and_the_row_is_sealed() -> None:
    """mint verifies again; its refusal keeps its code, and the connection is recorded as refused."""
    world = World()

    def mint(payload: Mapping[str, Json]) -> Mapping[str, Json]:
        raise GrantRevoked("the session was revoked")

    world.stores.functions.register(MINT, mint)
    with pytest.raises(GrantRevoked):
        world.connect()
    row = only_row(world)
    assert (row.exit, bool(row.manifest_key)) == ("grant_revoked", True)
    assert world.audit.names() == ["connection.opened", "connection.refused"]


@pytest.mark.parametrize(
    "answer", [{}, {"kind": "password", "login": "", "secret": "s"}, {"kind": 1, "login": "a", "secret": "b"}]
)
def test_a_credential_that_is_none_is_refused(answer: Mapping[str, Json]) -> None:
    """An answer of an unknown shape is not a credential; dialling with it would be a guess."""
    world = World()
    world.stores.functions.register(MINT, lambda _: answer)
    with pytest.raises(StoreUnavailable):
        world.connect()
    assert only_row(world).exit == "store_unavailable"


def test_a_revocation_between_admission_and_opening_is_seen() -> None:
    """The feed is asked once more before anything is put."""
    world = World()
    admission = world.admit()
    world.revoke(f"txn:{world.session.txn}")
    world.liveness.step()
    with pytest.raises(GrantRevoked):
        world.gateway.open(admission)
    assert world.journal == []


def test_two_addresses_that_are_admitted_at_once_do_not_both_stay() -> None:
    """The check at admission is a read; the one after our own row is there settles who was first."""
    world = World()
    one, two = world.admit(), world.admit("198.51.100.9")
    world.gateway.open(one)
    world.clock.advance(0.01)
    with pytest.raises(Denied):
        world.gateway.open(two)
    exits = sorted(row.exit for row in world.stores.connections.rows.values())
    assert exits == ["", "denied"]


def test_more_transports_than_allowed_that_are_admitted_at_once_do_not_all_stay() -> None:
    """The cap holds across brokers, though each admission saw room."""
    world = World()
    admissions = [world.admit() for _ in range(5)]
    for admission in admissions[:4]:
        world.gateway.open(admission)
        world.clock.advance(0.01)
    with pytest.raises(Limited):
        world.gateway.open(admissions[4])


def test_an_audit_that_cannot_be_written_opens_nothing() -> None:
    """Nothing is audited by being dropped."""
    world = World()
    admission = world.admit()
    world.audit.error = StoreUnavailable("no audit")
    with pytest.raises(StoreUnavailable):
        world.gateway.open(admission)
    assert not any(entry.startswith("functions") for entry in world.journal)


def test_a_bug_while_opening_is_a_refusal_with_a_code() -> None:
    """An exception of ours is never a stack trace to the client, and the row is sealed all the same."""
    world = World()
    admission = world.admit()
    world.audit.error = ValueError("a bug")
    with pytest.raises(AccessError) as caught:
        world.gateway.open(admission)
    assert "bug" not in caught.value.public
    assert only_row(world).sealed_at is not None


def test_a_closed_connection_has_a_signed_manifest_and_a_sealed_row() -> None:
    """Closing: last segment, manifest, row; and only the first exit counts."""
    world = World()
    connection = world.connect()
    connection.close("client_left")
    connection.close("again")
    row = only_row(world)
    manifest = json.loads(world.stores.objects.get(row.manifest_key))
    assert row.exit == manifest["exit"] == "client_left"
    assert manifest["gaps"] == []
    assert manifest["signature"]
    assert world.audit.names() == ["connection.opened", "connection.sealed"]
    assert world.audit.events[0].peer == PEER


def test_a_revoked_connection_is_audited_as_revoked() -> None:
    """Security asks which sessions a revocation ended."""
    world = World()
    world.connect().close("grant_revoked")
    assert world.audit.names()[-1] == "connection.revoked"


def test_a_row_that_another_wrote_under_our_id_is_never_taken_for_ours() -> None:
    """A lost answer is resolved by comparing the whole row, not its key."""
    world = World()
    table = _AnswerLost(world.stores.connections)
    world.noted = lambda name: table if name == "connections" else getattr(world.stores, name)  # type: ignore[method-assign]

    def put(row: ConnectionRow) -> None:
        world.stores.connections.put(replace(row, peer="203.0.113.1"))
        raise StoreUnavailable("the answer was lost")

    table.put = put  # type: ignore[method-assign]
    with pytest.raises(AccessError):
        world.new_gateway("boot2").open(world.admit())
    assert "functions.invoke" not in " ".join(world.journal)
