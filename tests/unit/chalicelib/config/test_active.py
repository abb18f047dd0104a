"""Which bundle is active: the newest signed one, never an older, and how long the old one rules when it cannot be."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from chalicelib.config.active import READ_EVERY_S, ActiveBundle
from chalicelib.config.files import bundle_digest, encode_bundle
from chalicelib.domain.activation import Activation, bundle_key
from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.errors import ConfigurationInvalid, NotFound, StoreUnavailable
from chalicelib.domain.store import ObjectFacts, ObjectVersion
from chalicelib.policy.engine import CedarPolicy, compile_policy
from tests.fakes.clock import FakeClock
from tests.unit.chalicelib.config.bundles import POLICY, files

FIRST, SECOND = files(), files(policy=POLICY + '@id("more") forbid (principal, action, resource in Env::"prod");\n')


@dataclass(kw_only=True)
class Table:
    """Holds one activation, which a test may set to anything: what is attacked here is the table itself."""

    newest: Activation | None = None
    down: bool = False
    reads: int = 0
    gate: threading.Event | None = None
    entered: threading.Event = field(default_factory=threading.Event)

    def put(self, activation: Activation) -> None:
        self.newest = activation

    def latest(self) -> Activation:
        self.reads += 1
        if self.gate is not None:
            self.entered.set()
            self.gate.wait(10)
        if self.down:
            raise StoreUnavailable("down")
        if self.newest is None:
            raise NotFound("nothing was ever activated")
        return self.newest


@dataclass(kw_only=True)
class Bucket:
    bodies: dict[str, bytes] = field(default_factory=dict)
    down: bool = False

    def put_new(self, key: str, body: bytes, *, content_type: str, keep_days: int = 0) -> ObjectVersion:
        self.bodies[key] = body
        return ObjectVersion(key=key, version_id="1")

    def get(self, key: str, version_id: str | None = None) -> bytes:
        if self.down:
            raise StoreUnavailable("down")
        if key not in self.bodies:
            raise NotFound("no such object")
        return self.bodies[key]

    def facts(self, key: str, version_id: str | None = None) -> ObjectFacts:
        return ObjectFacts(key=key, version_id="1", size=len(self.get(key)), sha256=sha256_hex(self.get(key)))

    def keys(self, prefix: str) -> list[str]:
        return sorted(self.bodies)


class World:
    """A table, a bucket, and the bundle that is read from them; an activation is signed where its author says so."""

    def __init__(self) -> None:
        self.table, self.bucket, self.clock = Table(), Bucket(), FakeClock()
        self.compiled = 0
        self.active = ActiveBundle(
            activations=self.table,
            objects=self.bucket,
            verify=self.verify,
            compile_policy=self.compile,
            clock=self.clock,
        )

    def verify(self, activation: Activation) -> None:
        if activation.signature != "good":
            raise ConfigurationInvalid("the signature does not hold")

    def compile(self, texts: Mapping[str, str]) -> CedarPolicy:
        self.compiled += 1
        return compile_policy(texts)

    def activate(
        self, given: dict[str, bytes], serial: int, signature: str = "good", epoch_at: datetime | None = None
    ) -> None:
        found = bundle_digest(given)
        self.bucket.bodies[bundle_key(found)] = encode_bundle(given)
        self.table.newest = Activation(
            serial=serial,
            bundle_digest=found,
            previous_digest="",
            author="alice",
            activated_at=self.clock.now(),
            signature=signature,
            epoch_at=epoch_at,
        )

    def new_sessions_stopped(self) -> bool:
        try:
            self.active.for_new_sessions()
        except ConfigurationInvalid:
            return True
        return False


@pytest.fixture
def world() -> World:
    made = World()
    made.activate(FIRST, 1)
    assert made.active.current().serial == 1
    return made


def test_the_active_bundle_is_read_at_most_every_ten_seconds(world: World) -> None:
    """Every operation asks for it; the table is asked once in 10 s, and a push arrives within them."""
    world.activate(SECOND, 2)
    world.clock.advance(9.9)
    assert (world.active.current().serial, world.table.reads) == (1, 1)
    world.clock.advance(0.1)
    bundle = world.active.current()
    assert (bundle.serial, bundle.digest, world.table.reads) == (2, bundle_digest(SECOND), 2)
    assert world.active.for_new_sessions() is bundle


def test_the_same_bundle_is_not_loaded_twice(world: World) -> None:
    """Nothing changed, or only the serial: compiling costs milliseconds."""
    world.clock.advance(10)
    world.active.current()
    world.activate(FIRST, 2)
    world.clock.advance(10)
    assert world.active.current().serial == 2
    assert world.compiled == 1


def test_without_any_activation_nothing_is_served() -> None:
    """Fail closed before the first deploy is done, at both doors; it heals without a restart."""
    world = World()
    for door in (world.active.current, world.active.for_new_sessions):
        with pytest.raises(ConfigurationInvalid):
            door()
    world.activate(FIRST, 1)
    world.clock.advance(10)
    assert world.active.current().serial == 1


def unsigned(world: World) -> None:
    world.activate(SECOND, 2, signature="bad")


def no_object(world: World) -> None:
    world.activate(SECOND, 2)
    world.bucket.bodies.clear()


def swapped_object(world: World) -> None:
    world.activate(SECOND, 2)
    world.bucket.bodies[bundle_key(bundle_digest(SECOND))] = encode_bundle(files())


def no_bundle(world: World) -> None:
    world.activate(SECOND, 2)
    world.bucket.bodies[bundle_key(bundle_digest(SECOND))] = b"[]"


def invalid_bundle(world: World) -> None:
    world.activate(files(policy="nonsense;"), 2)


def lower_serial(world: World) -> None:
    world.activate(SECOND, 0)


def another_bundle_under_the_same_serial(world: World) -> None:
    world.activate(SECOND, 1)


def row_deleted(world: World) -> None:
    world.table.newest = None


def bucket_down(world: World) -> None:
    world.activate(SECOND, 2)
    world.bucket.down = True


@pytest.mark.parametrize(
    "attack",
    [
        unsigned,
        no_object,
        swapped_object,
        no_bundle,
        invalid_bundle,
        lower_serial,
        another_bundle_under_the_same_serial,
        row_deleted,
        bucket_down,
    ],
)
def test_a_newer_one_that_cannot_be_used_stops_new_sessions_at_once_and_operations_after_ten_minutes(
    world: World, attack: object
) -> None:
    """Whatever stops it: what runs goes on for a while under the old rules, and nothing new begins."""
    assert callable(attack)
    attack(world)
    world.clock.advance(10)
    assert world.active.current().serial == 1
    assert world.new_sessions_stopped()
    for _ in range(59):
        world.clock.advance(10)
        assert world.active.current().digest == bundle_digest(FIRST)
    world.clock.advance(10)
    with pytest.raises(ConfigurationInvalid):
        world.active.current()
    world.bucket.down = False
    world.activate(SECOND, 3)
    world.clock.advance(10)
    assert world.active.current().serial == 3
    assert not world.new_sessions_stopped()


def test_ten_minutes_count_from_the_first_failure_not_the_last(world: World) -> None:
    """One broken activation after another must not keep the old rules for ever."""
    for serial in range(2, 62):
        world.activate(files(policy="nonsense;"), serial)
        world.clock.advance(10)
        world.active.current()
    world.activate(files(policy="other nonsense;"), 99)
    world.clock.advance(10)
    with pytest.raises(ConfigurationInvalid):
        world.active.current()


def test_an_unsigned_high_serial_does_not_lock_out_the_next_real_one(world: World) -> None:
    """A serial counts as seen only once its signature was verified."""
    world.activate(SECOND, 1_000_000, signature="bad")
    world.clock.advance(10)
    assert world.new_sessions_stopped()
    world.activate(SECOND, 2)
    world.clock.advance(10)
    assert world.active.for_new_sessions().serial == 2


def test_an_unreachable_store_is_borne_for_thirty_seconds(world: World) -> None:
    """An outage must not become a way to keep old rules; a short one must not stop everybody."""
    world.table.down = True
    for _ in range(2):
        world.clock.advance(10)
        assert world.active.current().serial == 1
        assert world.active.for_new_sessions().serial == 1
    world.clock.advance(10)
    for door in (world.active.current, world.active.for_new_sessions):
        with pytest.raises(StoreUnavailable):
            door()
    world.table.down = False
    world.clock.advance(10)
    assert world.active.current().serial == 1


def test_an_outage_does_not_forget_that_a_newer_one_is_broken(world: World) -> None:
    """Cutting the store off must not reopen the door to new sessions."""
    unsigned(world)
    world.clock.advance(10)
    assert world.new_sessions_stopped()
    world.table.down = True
    world.clock.advance(10)
    assert world.new_sessions_stopped()


def test_a_refusal_says_nothing_of_the_bundle(world: World) -> None:
    """What is wrong with it is its author's to read, not a caller's."""
    world.activate(files(policy='@id("secret-rule") nonsense;'), 2)
    world.clock.advance(10)
    with pytest.raises(ConfigurationInvalid) as caught:
        world.active.for_new_sessions()
    assert "secret-rule" not in caught.value.public + caught.value.next_step
    assert caught.value.detail["why"]


def test_whoever_has_a_bundle_does_not_wait_for_a_slow_store(world: World) -> None:
    """One thread reads; the others go on with what is known."""
    world.table.gate = threading.Event()
    world.clock.advance(10)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(world.active.current)
        assert world.table.entered.wait(10)
        assert world.active.current().serial == 1
        assert not slow.done()
        world.table.gate.set()
        assert slow.result(10).serial == 1
    assert world.table.reads == 2


def test_who_was_idle_waits_too_and_is_not_refused(world: World) -> None:
    """Requests that meet after a quiet time: one reads, and the others must not take the age for an outage."""
    world.active.current()
    world.table.gate = threading.Event()
    world.clock.advance(60)
    world.table.entered.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(world.active.for_new_sessions)
        assert world.table.entered.wait(10)
        second = pool.submit(world.active.for_new_sessions)
        world.table.gate.set()
        assert (first.result(10).serial, second.result(10).serial) == (1, 1)


def test_a_read_that_failed_is_tried_again_in_a_second(world: World) -> None:
    """After a quiet time one lost answer would else refuse every session for ten seconds."""
    world.active.current()
    world.clock.advance(60)
    world.table.down = True
    with pytest.raises(StoreUnavailable):
        world.active.for_new_sessions()
    world.table.down = False
    world.clock.advance(1)
    assert world.active.for_new_sessions().serial == 1


def test_who_has_none_waits_for_the_first() -> None:
    """At the start of a process every thread gets the bundle, and it is read once."""
    world = World()
    world.activate(FIRST, 1)
    world.table.gate = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(world.active.current) for _ in range(4)]
        assert world.table.entered.wait(10)
        world.table.gate.set()
        assert [reader.result(10).serial for reader in readers] == [1, 1, 1, 1]
    assert world.table.reads == 1


def test_a_changed_signature_over_the_same_row_is_checked_again(world: World) -> None:
    """The row is verified on every read, not only when its serial is new."""
    assert world.table.newest is not None
    world.table.newest = replace(world.table.newest, signature="bad")
    world.clock.advance(10)
    assert world.new_sessions_stopped()


def test_the_stores_epoch_comes_with_the_activation_and_never_goes_back(world: World) -> None:
    """Attack: an activation without the epoch, or with an earlier one, would bring what a restore gave back to life."""
    raised = world.clock.now()
    world.activate(FIRST, 2, epoch_at=raised)
    world.clock.advance(READ_EVERY_S)
    assert (world.active.current().serial, world.active.current().epoch_at) == (2, raised)
    for serial, earlier in ((3, None), (4, raised - timedelta(seconds=1))):
        world.activate(SECOND, serial, epoch_at=earlier)
        world.clock.advance(READ_EVERY_S)
        assert world.active.current().epoch_at == raised
        assert world.new_sessions_stopped()
    world.activate(SECOND, 5, epoch_at=raised)
    world.clock.advance(READ_EVERY_S)
    assert (world.active.for_new_sessions().serial, world.active.current().epoch_at) == (5, raised)
