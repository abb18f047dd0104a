"""Holding: the ten steps, and everything that may change while people think."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.asking import commitment
from broker.connection import Connection
from broker.holds import MAX_HELD, Held
from chalicelib.domain.ask import Approved, Expired, Refused, Spent, UseKind, Waiting
from chalicelib.domain.errors import BodyTooLarge, Limited, RecordingUnavailable, StoreUnavailable
from chalicelib.domain.identifiers import PersonId
from chalicelib.domain.operation import Block, Forward, Hold, Operation
from chalicelib.domain.policy import NeedsApproval
from chalicelib.domain.session import SessionStatus
from tests.fakes.broker import DBA, PERMITTED, REFUSED, World, operation, person
from tests.unit.broker.connection.test_live import frames

DELETE = "DELETE FROM orders WHERE id = 1"


def held(world: World, connection: Connection | None = None, op: Operation | None = None) -> Held:
    """Return an open hold: Held is durable and the Ask is put."""
    connection = connection or world.connect()
    op = op or operation("sql:write", DELETE)
    verdict = connection.submit(op, in_transaction=False)
    assert isinstance(verdict, Hold)
    one = connection.hold(op, verdict)
    one.open()
    return one


def approved(world: World) -> Held:
    one = held(world)
    world.answer(one.ask, "dora")
    world.poller.step()
    assert ready(one)
    return one


def ready(one: Held) -> bool:
    return one.ready


def code(verdict: Forward | Block) -> str:
    assert isinstance(verdict, Block), verdict
    return verdict.code


def uses(world: World, one: Held) -> list[str]:
    return [use.kind.value for use in world.stores.uses.of_ask(one.ask.id)]


def test_held_is_durable_before_the_ask_and_the_use_before_the_durable_verdict() -> None:
    """The promise, in order: Held durable, Ask, (answers), Use, Verdict durable, and only then Forward."""
    world = World()
    connection = world.connect()
    world.journal.clear()
    one = held(world, connection)
    world.answer(one.ask, "dora")
    verdict = one.settle()
    assert isinstance(verdict, Forward)
    assert [entry.split(" ")[0] for entry in world.journal] == [
        "objects.put_new",
        "asks.put",
        "uses.put",
        "objects.put_new",
    ]
    assert connection.durable_upto == connection.accepted
    told = [(frame["kind"], frame["meta"]) for frame in frames(world, connection)[-4:]]
    assert [kind for kind, _ in told] == ["operation", "held", "answered", "verdict"]
    assert told[1][1]["digest"] == one.ask.digest
    assert told[2][1]["people"] == ["dora"]
    assert told[3][1]["verdict"] == "forward"


def test_the_question_says_all_that_the_answer_must_be_bound_to() -> None:
    """Step 1: connection, operation, target, principal, state, exact bytes and binds, leaf hop, rules, serial."""
    world = World()
    connection = world.connect()
    op = operation("sql:write", DELETE, binds=(b"7",))
    verdict = connection.submit(op, in_transaction=False)
    assert isinstance(verdict, Hold)
    ask = connection.hold(op, verdict, (("role", "app"),)).ask
    question = ask.question
    assert (question.connection_id, question.operation_id) == (connection.id, op.id)
    assert (question.target, question.principal, question.text, question.binds) == (
        "orders-prod",
        "app_rw",
        DELETE,
        ("7",),
    )
    assert question.state == (("role", "app"),)
    assert question.leaf_hop_sha256 == world.chain.leaf.sha256()
    assert (question.rules, question.configuration_serial) == (("prod-delete",), 3)
    assert ask.excluded == (PersonId("dev"),)
    assert ask.digest == question.digest()


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        ("ssh:shell", "the account's shell: what it shows is recorded, what is typed into it is not judged"),
        ("ssh:opaque", "an empty line"),
    ],
)
def test_what_has_no_text_of_its_own_is_asked_in_words(action: str, shown: str) -> None:
    """An empty text fits no card, and nobody could ever approve a shell; the record keeps it empty."""
    world = World()
    world.policy.outcomes[action] = world.policy.outcomes["sql:write"]
    op = operation(action, "")
    assert held(world, op=op).ask.question.text == shown
    assert op.text == ""


def test_approve_x_try_y() -> None:
    """P4: an approval of X is no approval of Y, nor of X again: each is held anew, under another digest."""
    world = World()
    connection = world.connect()
    first = held(world, connection)
    world.answer(first.ask, "dora")
    assert isinstance(first.settle(), Forward)
    for text in (DELETE, "DELETE FROM orders"):
        again = held(world, connection, operation("sql:write", text))
        assert again.ask.digest != first.ask.digest
        assert code(again.settle()) == "approval_expired"
        assert uses(world, again) == ["withdrawn"]


def test_an_answer_moved_to_another_ask_does_not_count() -> None:
    """A row copied in the table: its signature covers the ask and the digest that the person saw."""
    world = World()
    connection = world.connect()
    first, second = held(world, connection), held(world, connection, operation("sql:write", "DELETE FROM orders"))
    given = world.answer(first.ask, "dora")
    world.stores.answers.rows[second.ask.id, PersonId("dora")] = replace(given, ask_id=second.ask.id)
    world.poller.step()
    assert isinstance(first.state(), Approved)
    assert isinstance(second.state(), Waiting)


@pytest.mark.parametrize("forgery", [{"key": "record"}, {"digest": "f" * 64}, {"groups": ("web",)}])
def test_an_answer_that_is_not_for_this_does_not_count(forgery: dict[str, Any]) -> None:
    """Another key, another digest, another group: waiting goes on."""
    world = World()
    one = held(world)
    world.answer(one.ask, "dora", **forgery)
    world.poller.step()
    assert not ready(one)


def test_the_developer_triggers_a_pipeline_and_approves_it() -> None:
    """security.md: who is behind the run may not answer, though they are in the group."""
    world = World()
    one = held(world)
    world.answer(one.ask, "dev")
    world.poller.step()
    assert not ready(one)


def test_one_click_does_not_approve_where_the_trigger_is_unknown() -> None:
    """security.md: two approvers, and the question says that the trigger is unknown."""
    world = World(accountable=())
    one = held(world)
    assert not one.ask.question.trigger_known
    world.answer(one.ask, "dora")
    world.poller.step()
    assert not ready(one)
    world.answer(one.ask, "eve")
    assert isinstance(one.settle(), Forward)


def test_a_refusal_refuses_and_says_by_whom_in_the_record() -> None:
    """One no ends it; the client is told so, the review who."""
    world = World()
    connection = world.connect()
    one = held(world, connection)
    world.answer(one.ask, "dora", approved=False)
    world.poller.step()
    assert isinstance(one.state(), Refused)
    assert code(one.settle()) == "approval_denied"
    answered, verdict = frames(world, connection)[-2:]
    assert (answered["meta"]["state"], answered["meta"]["people"]) == ("refused", ["dora"])
    assert (verdict["kind"], verdict["meta"]["code"]) == ("verdict", "approval_denied")


def test_nobody_answers_in_time() -> None:
    """The ask expires at the target's hold budget, the rule's ten minutes or the grant's end, whichever is first."""
    world = World()
    one = held(world)
    assert one.ask.expires_at - one.ask.created_at == timedelta(seconds=300)
    world.clock.advance(300)
    world.poller.step()
    assert isinstance(one.state(), Expired)
    assert code(one.settle()) == "approval_expired"


@pytest.mark.parametrize(("budget_s", "left_s", "expected_s"), [(3600, 3600, 600), (3600, 60, 60), (30, 3600, 30)])
def test_an_ask_expires_at_the_least_of_rule_grant_and_budget(budget_s: int, left_s: int, expected_s: int) -> None:
    """An approval must not outlive what it approves."""
    world = World()
    grant = world.session.grant
    assert grant is not None
    target = replace(world.bundle.targets["orders-prod"], hold_budget_s=budget_s)
    world.change_session(grant=replace(grant, expires_at=world.clock.now() + timedelta(seconds=left_s)))
    world.activate(targets={"orders-prod": target})
    one = held(world)
    assert one.ask.expires_at - one.ask.created_at == timedelta(seconds=expected_s)


def test_an_answer_that_came_in_time_is_good_for_the_moment_it_takes() -> None:
    """Approved before expired: the poll may come a second late."""
    world = World()
    one = held(world)
    world.clock.advance(299)
    world.answer(one.ask, "dora")
    world.clock.advance(2)
    world.liveness.step()
    assert isinstance(one.settle(), Forward)


def test_policy_changed_while_held() -> None:
    """Step 6: anything but Allow under the newest configuration refuses, though the broker's thread has not read it."""
    world = World()
    one = approved(world)
    world.activate(type(world.policy)({"sql:write": REFUSED}), read=False)
    assert code(one.settle()) == "policy_denied"
    assert uses(world, one) == ["withdrawn"]


def test_a_rule_wants_more_people_by_now() -> None:
    """One answer met the old rule; the newest wants two."""
    world = World()
    one = approved(world)
    two = NeedsApproval(rules=("prod-delete",), needs=(replace(DBA, approval=replace(DBA.approval, count=2)),))
    world.activate(type(world.policy)({"sql:write": two}))
    assert code(one.settle()) == "policy_denied"


def test_a_rule_that_nobody_was_asked_about_is_not_met_by_the_same_answers() -> None:
    """The card said rule A; the newest configuration wants B of the same group."""
    world = World()
    one = approved(world)
    other = NeedsApproval(rules=("b",), needs=(DBA, replace(DBA, rule="b")))
    world.activate(type(world.policy)({"sql:write": other}))
    assert code(one.settle()) == "policy_denied"


def test_a_configuration_that_went_back_refuses() -> None:
    """A lower serial is refused: an older rule must not judge a newer ask."""
    world = World()
    one = approved(world)
    world.bundles.bundle = replace(world.bundle, serial=2)
    assert code(one.settle()) == "configuration_invalid"


@pytest.mark.parametrize(
    ("people", "why"),
    [
        ((person("eve", "dba"),), "left"),
        ((person("dora", "web"),), "changed groups"),
        ((person("dora", "dba", aliases=("gh:actor_id:1",)),), "is behind the run"),
    ],
)
def test_an_approver_who_may_not_any_more(people: tuple[object, ...], why: str) -> None:
    """Step 6 checks the approvers: they must be in the group now, and not behind the run by what is known now."""
    world = World()
    one = approved(world)
    world.activate(people=people, read=False)
    assert code(one.settle()) == "approver_not_eligible", why
    assert uses(world, one) == ["withdrawn"]


def test_revoked_while_held() -> None:
    """Step 6 reads revocation by key: the feed's second is not waited for."""
    world = World()
    one = approved(world)
    world.revoke(f"txn:{world.session.txn}")
    assert code(one.settle()) == "grant_revoked"


def test_closed_while_held() -> None:
    """A closed session runs nothing more."""
    world = World()
    one = approved(world)
    world.change_session(status=SessionStatus.CLOSED)
    assert code(one.settle()) == "grant_revoked"


def test_expired_while_held() -> None:
    """An approval never extends a grant."""
    world = World()
    one = approved(world)
    world.clock.advance(3600)
    assert code(one.settle()) == "grant_expired"


def test_an_approval_is_used_once_by_whoever_settles() -> None:
    """P4: the second settle finds the slot taken, and is told so."""
    world = World()
    one = approved(world)
    assert isinstance(one.settle(), Forward)
    assert code(one.settle()) == "already_used"
    assert uses(world, one) == ["ran"]


def _both(one: Callable[[], object], two: Callable[[], object]) -> None:
    threads = [threading.Thread(target=one), threading.Thread(target=two)]  # noqa: TID251 the race is the test
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def test_two_racing_settles_leave_one_use_and_one_forward() -> None:
    """Both read "approved and unused"; the conditional put lets one of them run."""
    world = World()
    one = approved(world)
    start = threading.Barrier(2)
    verdicts: list[Forward | Block] = []
    read = world.poller.read

    def read_together(ask: object, now: object) -> object:
        state = read(ask, now)  # type: ignore[arg-type]
        start.wait(10)
        return state

    world.poller.read = read_together  # type: ignore[method-assign, assignment]
    _both(lambda: verdicts.append(one.settle()), lambda: verdicts.append(one.settle()))
    assert sorted(type(verdict).__name__ for verdict in verdicts) == ["Block", "Forward"]
    assert uses(world, one) == ["ran"]


def test_a_withdrawal_that_came_first_excludes_the_use() -> None:
    """Cancel, disconnect, drain or revoke: an approval that comes after is worth nothing."""
    world = World()
    connection = world.connect()
    one = held(world, connection)
    one.withdraw("cancelled")
    one.withdraw("cancelled again")
    world.answer(one.ask, "dora")
    assert code(one.settle()) == "approval_withdrawn"
    assert uses(world, one) == ["withdrawn"]
    assert [frame["kind"] for frame in frames(world, connection)][-3:] == ["answered", "verdict", "verdict"]


def test_a_withdrawal_that_came_after_changes_nothing() -> None:
    """What ran, ran: the record must not say withdrawn."""
    world = World()
    connection = world.connect()
    one = held(world, connection)
    world.answer(one.ask, "dora")
    assert isinstance(one.settle(), Forward)
    before = connection.accepted
    one.withdraw("too late")
    assert uses(world, one) == ["ran"]
    assert connection.accepted == before


def test_a_process_that_died_after_the_use_never_runs_it_again() -> None:
    """Step 10: the use without an outcome is `unknown` to a review; whoever finds it does not run it."""
    world = World()
    one = approved(world)
    assert isinstance(one.settle(), Forward)
    state = world.poller.read(one.ask, world.clock.now())
    assert isinstance(state, Spent)
    assert state.use.kind is UseKind.RAN
    assert state.use.by == f"connection:{one.ask.question.connection_id}"


def test_a_verdict_that_cannot_be_made_durable_forwards_nothing() -> None:
    """Step 8: the use is spent, and still nothing runs unrecorded."""
    world = World()
    one = approved(world)
    world.stores.fail("objects")
    assert code(one.settle()) == "recording_unavailable"
    assert uses(world, one) == ["ran"]


def test_a_held_frame_that_cannot_be_made_durable_asks_nobody() -> None:
    """Step 2 comes before step 3: nobody is asked about what is not recorded."""
    world = World()
    connection = world.connect()
    world.stores.fail("objects")
    op = operation("sql:write", DELETE)
    verdict = connection.submit(op, in_transaction=False)
    assert isinstance(verdict, Hold)
    with pytest.raises(RecordingUnavailable):
        connection.hold(op, verdict).open()
    assert world.stores.asks.rows == {}


def test_an_ask_that_may_have_been_put_is_withdrawn() -> None:
    """An answer lost on the way must not leave a card that somebody approves for nothing."""
    world = World()
    connection = world.connect()
    world.stores.fail("asks")
    op = operation("sql:write", DELETE)
    verdict = connection.submit(op, in_transaction=False)
    assert isinstance(verdict, Hold)
    one = connection.hold(op, verdict)
    with pytest.raises(StoreUnavailable):
        one.open()
    assert uses(world, one) == ["withdrawn"]


def test_what_no_card_can_show_whole_is_not_asked() -> None:
    """An approver must see all of what will run."""
    world = World()
    connection = world.connect()
    op = operation("sql:write", "DELETE FROM orders WHERE id IN (" + "1," * 100_000 + "1)")
    verdict = connection.submit(op, in_transaction=False)
    assert isinstance(verdict, Hold)
    with pytest.raises(BodyTooLarge):
        connection.hold(op, verdict).open()


@pytest.mark.parametrize("store", ["answers", "uses", "revocations", "sessions"])
def test_a_table_that_is_gone_refuses_the_approved(store: str) -> None:
    """P12: nothing runs on what could not be read, or on a use that could not be put."""
    world = World()
    one = approved(world)
    world.stores.fail(store)
    assert code(one.settle()) == "store_unavailable"


def test_a_bug_in_settling_is_a_block() -> None:
    """An exception of ours must not forward, nor reach the client as text."""
    world = World()
    one = approved(world)

    def broken(ask: object, now: object) -> object:
        raise ValueError("a bug")

    world.poller.read = broken  # type: ignore[method-assign, assignment]
    verdict = one.settle()
    assert code(verdict) == "internal"
    assert isinstance(verdict, Block)
    assert "bug" not in verdict.public


def test_answers_that_cannot_be_read_for_thirty_seconds_refuse() -> None:
    """A client must not wait for what nobody can tell; a hiccup is waited out."""
    world = World()
    one = held(world)
    world.stores.fail("answers")
    world.poller.step()
    world.clock.advance(29)
    world.poller.step()
    assert not ready(one)
    world.clock.advance(1)
    world.poller.step()
    assert ready(one)
    assert code(one.settle()) == "store_unavailable"


def test_an_outage_that_ended_starts_the_thirty_seconds_again() -> None:
    """Two hiccups are not one outage."""
    world = World()
    one = held(world)
    for _ in range(3):
        world.stores.fail("answers")
        world.poller.step()
        world.clock.advance(20)
        world.liveness.step()
        world.stores.heal("answers")
        world.poller.step()
    assert not ready(one)


def test_who_waits_is_woken_once_it_is_ready() -> None:
    """The driver sleeps: the poller's thread wakes it, also where the answer was faster than the sleeper."""
    world = World()
    one = held(world)
    woken: list[str] = []
    one.on_ready(lambda: woken.append("first"))
    world.poller.step()
    assert woken == []
    world.answer(one.ask, "dora")
    world.poller.step()
    assert woken == ["first"]
    one.on_ready(lambda: woken.append("late"))
    assert woken == ["first", "late"]


def test_the_number_of_holds_is_bounded() -> None:
    """A client that opens holds without end must not take the poller from the others."""
    world = World()
    one = held(world)
    for _ in range(MAX_HELD - 1):
        world.poller.add(Held.__new__(Held))
    with pytest.raises(Limited):
        world.poller.add(Held.__new__(Held))
    one.withdraw("room")
    world.poller.add(one)


def test_the_commitment_tells_every_two_operations_apart() -> None:
    """Lengths are in it: no bytes may move from the text into a bind, and null is not empty."""
    salt = b"s" * 32
    variants = [
        operation(text="ab"),
        operation(text="a", binds=(b"b",)),
        operation(text="a", binds=(b"b", b"")),
        operation(text="a", binds=(b"b", None)),
        operation(text="a", binds=(b"", b"b")),
        operation(text="a", binds=(b"b" + (0).to_bytes(8, "big"),)),
        operation(text="a", binds=(b"b\x01c", b"d")),
        operation(text="a", binds=(b"b", b"c\x01d")),
    ]
    assert len({commitment(salt, op) for op in variants}) == len(variants)
    assert commitment(salt, variants[0]) != commitment(b"t" * 32, variants[0])


def test_the_same_text_twice_has_two_commitments() -> None:
    """A salt: nobody can try texts against a commitment that left the broker."""
    world = World()
    connection = world.connect()
    op = operation("sql:write", DELETE)
    asks = [held(world, connection, op).ask.question.commitment for _ in range(2)]
    assert asks[0] != asks[1]


def test_the_notice_says_who_must_answer_and_until_when() -> None:
    """The waiting client must know whom to talk to."""
    one = held(World())
    assert "1 of dba" in one.notice
    assert one.ask.id in one.notice


def test_masks_of_the_newest_configuration_apply_to_what_was_approved() -> None:
    """An approval meets its rule and nothing else: the masks stay."""
    world = World()
    one = approved(world)
    world.policy.then = replace(PERMITTED, masks=("email",))
    verdict = one.settle()
    assert isinstance(verdict, Forward)
    assert (verdict.masks, verdict.durable) == (("email",), True)
