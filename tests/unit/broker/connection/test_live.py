"""An operation on an open connection: policy, record, and only then forward; whatever fails is a Block."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from typing import Any

import pytest

from broker.connection import Connection
from chalicelib.domain.epoch import epoch_key
from chalicelib.domain.errors import GrantExpired, GrantRevoked, RecordingUnavailable, StoreUnavailable
from chalicelib.domain.masking import mask_text
from chalicelib.domain.operation import Act, Block, Forward, Hold
from chalicelib.domain.policy import NeedsApproval
from chalicelib.domain.recording import LeftOut
from chalicelib.domain.target import RecordMode
from tests.fakes.aftermath import manifest, review, swept, told
from tests.fakes.broker import DBA, PERMITTED, World, operation


def frames(world: World, connection: Connection) -> list[dict[str, Any]]:
    """Return every recorded frame, in order, with its meta decoded."""
    connection.flush()
    found = []
    for key in sorted(world.stores.objects.rows):
        if key.startswith("rec/") and connection.id in key:
            for line in gzip.decompress(world.stores.objects.rows[key]).splitlines():
                frame = json.loads(line)
                if frame["kind"] != "segment":
                    found.append({**frame, "meta": json.loads(frame["meta"])})
    return found


def kinds(world: World, connection: Connection) -> list[str]:
    return [frame["kind"] for frame in frames(world, connection)]


def code(verdict: object) -> str:
    assert isinstance(verdict, Block), verdict
    return verdict.code


def test_a_permitted_operation_is_forwarded_and_its_frame_was_accepted_first() -> None:
    """policy, then record, then forward."""
    world = World()
    connection = world.connect()
    before = connection.accepted
    verdict = connection.submit(operation(), in_transaction=False)
    assert verdict == Forward(ruling=verdict.ruling, masks=(), durable=False, record_full=True)
    assert connection.accepted == before + 1
    frame = frames(world, connection)[-1]
    assert (frame["text"], frame["meta"]["verdict"], frame["meta"]["rules"]) == ("SELECT 1", "forward", ["read"])
    assert frame["meta"]["configuration_serial"] == 3


def test_a_refused_operation_is_recorded_too() -> None:
    """An access review shows what was tried."""
    world = World()
    connection = world.connect()
    assert code(connection.submit(operation("sql:privilege", "SET ROLE x"), in_transaction=False)) == "policy_denied"
    assert frames(world, connection)[-1]["meta"]["code"] == "policy_denied"


def test_an_operation_of_no_acts_is_blocked() -> None:
    """What nobody could name nobody may run."""
    world = World()
    connection = world.connect()
    verdict = connection.submit(replace(operation(), acts=()), in_transaction=False)
    assert code(verdict) == "policy_denied"


def test_the_worst_act_decides_for_all() -> None:
    """A statement that is allowed must not carry one that is not."""
    world = World()
    connection = world.connect()
    acts = tuple(Act(action=action, context=()) for action in ("sql:read", "sql:write", "sql:privilege"))
    assert code(connection.submit(replace(operation(), acts=acts), in_transaction=False)) == "policy_denied"
    assert isinstance(connection.submit(replace(operation(), acts=acts[:2]), in_transaction=False), Hold)


def test_masks_are_the_union_over_the_acts() -> None:
    """What one act reads may come back through another's rows."""
    world = World()
    world.policy.outcomes["sql:read"] = replace(PERMITTED, masks=("email",))
    world.policy.outcomes["sql:opaque"] = replace(PERMITTED, masks=("card",), record_full=True)
    connection = world.connect()
    acts = tuple(Act(action=action, context=()) for action in ("sql:read", "sql:opaque"))
    verdict = connection.submit(replace(operation(), acts=acts), in_transaction=False)
    assert isinstance(verdict, Forward)
    assert (verdict.masks, verdict.record_full) == (("card", "email"), True)


@pytest.mark.parametrize("action", ["sql:define", "sql:opaque"])
def test_what_defines_or_cannot_be_read_is_durable(action: str) -> None:
    """architecture, "Accepted and durable": a lost task must not lose these."""
    verdict = World().connect().submit(operation(action), in_transaction=False)
    assert isinstance(verdict, Forward)
    assert verdict.durable


def test_a_durable_rule_or_target_makes_it_durable() -> None:
    """Rule and target can ask for more than the class does."""
    world = World()
    world.policy.outcomes["sql:read"] = replace(PERMITTED, durable=True)
    verdict = world.connect().submit(operation(), in_transaction=False)
    assert isinstance(verdict, Forward)
    assert verdict.durable
    world = World()
    world.activate(targets={"orders-prod": replace(world.bundle.targets["orders-prod"], durable=True)})
    verdict = world.connect().submit(operation(), in_transaction=False)
    assert isinstance(verdict, Forward)
    assert verdict.durable


def test_a_rule_that_wants_a_bound_session_blocks_a_bearers_operation() -> None:
    """`bound` is a requirement at every stage."""
    world = World()
    world.policy.outcomes["sql:read"] = replace(PERMITTED, bound=True)
    assert code(world.connect().submit(operation(), in_transaction=False)) == "policy_denied"


def test_an_operation_that_needs_people_is_held_or_refused_inside_a_transaction() -> None:
    """security.md: a hold inside an open transaction freezes a table."""
    world = World()
    connection = world.connect()
    op = operation("sql:write", "DELETE FROM orders")
    assert isinstance(connection.submit(op, in_transaction=False), Hold)
    verdict = connection.submit(op, in_transaction=True)
    assert code(verdict) == "held_in_transaction"
    assert verdict.ruling.rules == ("prod-delete",)


def test_an_approval_needs_two_people_where_the_trigger_is_unknown() -> None:
    """security.md: where nobody knows who is behind the run, one answer could be their own."""
    world = World(accountable=())
    verdict = world.connect().submit(operation("sql:write", "DELETE"), in_transaction=False)
    assert isinstance(verdict, Hold)
    assert [need.approval.count for need in verdict.needs] == [2]


@pytest.mark.parametrize(
    "op",
    [
        operation(text=f"UPDATE t SET a = '{mask_text('email')}'"),
        operation(binds=(b"x", mask_text("email").encode())),
        replace(operation(), exact=b"\xff" + mask_text("card").encode()),
    ],
    ids=["text", "bind", "exact bytes"],
)
def test_an_orm_writes_the_mask_back(op: Any) -> None:
    """security.md: an Operation that contains the sentinel is Blocked, wherever it is."""
    assert code(World().connect().submit(op, in_transaction=False)) == "mask_written_back"


def test_an_exception_in_policy_is_a_block() -> None:
    """Fail closed: policy never raises by contract, and if it does, nothing is forwarded."""
    world = World()
    connection = world.connect()
    world.policy.raises = ValueError("a bug in a rule")
    verdict = connection.submit(operation("sql:read", "SELECT 2"), in_transaction=False)
    assert isinstance(verdict, Block)
    assert "bug" not in verdict.public


def test_an_exception_anywhere_else_is_a_block_with_the_code_internal() -> None:
    """An operation that our own code chokes on is not forwarded."""
    world = World()
    connection = world.connect()
    broken = replace(operation(), acts=(Act(action="sql:read", context=(("x", 1.5),)),))  # type: ignore[arg-type]
    assert code(connection.submit(broken, in_transaction=False)) == "internal"
    unwritable = replace(operation(), shown_binds=("\ud800",))
    assert code(connection.submit(unwritable, in_transaction=False)) == "internal"


def test_a_failed_recorder_forwards_nothing() -> None:
    """P6: whatever policy says, an operation that is not recorded is not forwarded."""
    world = World()
    connection = world.connect()
    connection.recording.stop()
    assert code(connection.submit(operation(), in_transaction=False)) == "recording_unavailable"
    with pytest.raises(RecordingUnavailable):
        connection.check_alive()
    assert isinstance(connection.ending(), RecordingUnavailable)


def test_revocation_of_any_liveness_key_stops_and_ends_the_connection() -> None:
    """A revoked session's next operation is refused within the feed's second."""
    world = World()
    connection = world.connect()
    world.revoke(f"identity:{world.session.actor.key}")
    world.liveness.step()
    assert code(connection.submit(operation(), in_transaction=False)) == "grant_revoked"
    assert isinstance(connection.ending(), GrantRevoked)


def test_a_raised_epoch_ends_an_open_connection() -> None:
    """A restore happens while a broker runs on: what was admitted before is as void as what was not yet."""
    world = World()
    connection = world.connect()
    world.revoke(epoch_key(world.session.epoch))
    world.liveness.step()
    assert code(connection.submit(operation(), in_transaction=False)) == "grant_revoked"
    assert isinstance(connection.ending(), GrantRevoked)


def test_a_stale_feed_forwards_nothing_and_after_thirty_seconds_ends_connections() -> None:
    """architecture: not read for 5 s nothing is forwarded; 30 s connections end."""
    world = World()
    connection = world.connect()
    world.clock.advance(5.1)
    assert code(connection.submit(operation(), in_transaction=False)) == "store_unavailable"
    assert connection.ending() is None
    world.clock.advance(25)
    assert isinstance(connection.ending(), StoreUnavailable)


def test_the_grants_end_is_the_connections_end() -> None:
    """Expiry is by our clock, in an open connection too."""
    world = World()
    connection = world.connect()
    world.clock.advance(3600)
    world.liveness.step()
    assert code(connection.submit(operation(), in_transaction=False)) == "grant_expired"
    assert isinstance(connection.ending(), GrantExpired)
    with pytest.raises(GrantExpired):
        connection.check_alive()


def test_who_listens_hears_once_that_the_connection_must_end() -> None:
    """The driver sleeps until told: a revocation must wake it, and not every second again."""
    world = World()
    connection = world.connect()
    heard: list[int] = []
    connection.on_progress(lambda: heard.append(1))
    world.liveness.step()
    assert heard == []
    world.revoke(f"session:{world.session.id}")
    world.liveness.step()
    world.liveness.step()
    assert heard == [1]


def test_a_new_bundle_decides_the_next_operation_of_an_open_connection() -> None:
    """architecture, "Configuration": a kept decision never outlives its bundle."""
    world = World()
    connection = world.connect()
    assert isinstance(connection.submit(operation(), in_transaction=False), Forward)
    refusing = type(world.policy)({"session:open": PERMITTED})
    world.activate(refusing)
    assert code(connection.submit(operation(), in_transaction=False)) == "policy_denied"


def test_a_configuration_that_cannot_be_read_blocks() -> None:
    """After the bundles' own grace nothing is judged by rules that nobody can vouch for."""
    world = World()
    connection = world.connect()
    world.bundles.error = StoreUnavailable("no activations")
    world.configuration.step()
    assert code(connection.submit(operation(), in_transaction=False)) == "store_unavailable"


def test_a_preview_records_nothing() -> None:
    """A batch is looked at whole before any of it is sent; what is looked at did not happen."""
    world = World()
    connection = world.connect()
    before = connection.accepted
    assert isinstance(connection.preview(operation()), Forward)
    assert connection.accepted == before


def test_a_sessions_approval_covers_operations_only_where_the_rule_says_so() -> None:
    """architecture, "Policy": @covers("session")."""
    world = World()
    world.policy.outcomes["session:open"] = NeedsApproval(rules=("prod-delete",), needs=(DBA,))
    world.answer(world.ask_for_session((DBA,)), "dora")
    connection = world.connect()
    op = operation("sql:write", "DELETE FROM orders")
    assert isinstance(connection.submit(op, in_transaction=False), Hold)
    world.policy.covers = frozenset({"prod-delete"})
    assert isinstance(connection.submit(op, in_transaction=False), Forward)


def test_what_came_of_it_is_recorded_by_kind() -> None:
    """Every kind of frame that an engine may write, as docs/data_schema.md names them."""
    world = World()
    connection = world.connect()
    op = operation()
    connection.rows(op.id, ["a"], ['["1"]', '["2"]'])
    connection.notice("NOTICE", "00000", "hello")
    connection.data(op.id, "c2s", "1\t2\n")
    connection.outcome(op.id, status="ok", tag="SELECT 2", rows=2, bytes=10, duration_ms=3)
    found = frames(world, connection)[-4:]
    assert [frame["kind"] for frame in found] == ["rows", "notice", "data", "outcome"]
    assert found[0]["text"] == '["1"]\n["2"]'
    assert found[3]["meta"]["tag"] == "SELECT 2"


def test_rows_are_cut_between_rows() -> None:
    """A frame holds 64 KiB; a row that is cut in two could not be read back as JSON."""
    world = World()
    connection = world.connect()
    line = json.dumps(["x" * 30_000])
    connection.rows(operation().id, ["a"], [line] * 5)
    texts = [frame["text"] for frame in frames(world, connection) if frame["kind"] == "rows"]
    assert [len(text.splitlines()) for text in texts] == [2, 2, 1]
    assert all(json.loads(row) for text in texts for row in text.splitlines())


def test_a_stream_and_a_terminal_are_recorded_with_what_replays_them() -> None:
    """A replay needs the stream of each piece, and every size that the terminal had."""
    world = World()
    connection = world.connect()
    op = operation()
    connection.terminal(op.id, "xterm", 80, 24)
    connection.data(op.id, "s2c", "hello", stream="stderr")
    connection.data(op.id, "s2c", "1")
    terminal, streamed, plain = frames(world, connection)[-3:]
    assert terminal["kind"] == "terminal"
    assert terminal["meta"] == {"op": op.id, "term": "xterm", "cols": 80, "rows": 24}
    assert streamed["meta"] == {"op": op.id, "encoding": "utf-8", "stream": "stderr"}
    assert plain["meta"] == {"op": op.id, "encoding": "utf-8"}


def test_what_is_left_out_of_the_record_is_said_in_frames_and_manifest() -> None:
    """record: statements: which operation, how many rows and bytes, why; and a review that verifies says the same."""
    world = World()
    world.policy.outcomes["sql:record_less"] = PERMITTED
    target = replace(world.bundle.targets["orders-prod"], record=RecordMode.STATEMENTS)
    world.activate(targets={"orders-prod": target})
    connection = world.connect()
    op = operation()
    verdict = connection.submit(op, in_transaction=False)
    assert isinstance(verdict, Forward)
    assert not verdict.record_full
    connection.outcome(op.id, status="ok", tag="suspended", rows=3, left_out=LeftOut(outcomes=1, rows=3, bytes=30))
    connection.outcome(op.id, status="ok", tag="SELECT 4", rows=4, left_out=LeftOut(outcomes=1, rows=1, bytes=12))
    found = frames(world, connection)
    assert found[0]["meta"]["record"] == "statements"
    metas = {frame["kind"]: frame["meta"] for frame in found}
    assert metas["operation"]["recorded"] == "statements"
    assert metas["outcome"]["left_out"] == {"rows": 1, "bytes": 12, "why": "record:statements"}
    connection.close("client_left")
    assert manifest(world).signed()["left_out"] == {"outcomes": 2, "rows": 4, "bytes": 42, "why": "record:statements"}
    seen = review(world)
    assert seen.findings == ()
    (reviewed,) = [one for session in seen.sessions for one in session.operations]
    assert (reviewed.left_rows, reviewed.left_bytes) == (4, 42)


def test_a_recording_that_is_whole_says_nothing_of_what_was_left_out() -> None:
    """The member is there only where something was: manifests of before it stay as they were signed."""
    world = World()
    connection = world.connect()
    op = operation()
    connection.submit(op, in_transaction=False)
    connection.outcome(op.id, status="ok")
    assert frames(world, connection)[0]["meta"]["record"] == "full"
    assert "left_out" not in frames(world, connection)[-1]["meta"]
    connection.close("client_left")
    assert "left_out" not in manifest(world).signed()


def test_a_swept_recording_says_what_was_left_out() -> None:
    """Its broker died: whoever seals for it reads the same from the frames."""
    world = World()
    connection = world.connect()
    op = operation()
    connection.submit(op, in_transaction=False)
    connection.outcome(op.id, status="ok", left_out=LeftOut(outcomes=1, rows=3, bytes=30))
    connection.recording.flush()
    assert swept(world).sealed == 1
    assert manifest(world).left_out == LeftOut(outcomes=1, rows=3, bytes=30)
    assert [kind for kind, _ in told(world)] == ["lost"], "the tail alone"
