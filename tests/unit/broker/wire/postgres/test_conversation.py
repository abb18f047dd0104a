"""Whose each answer is, what a name stands for, and what the server skips after an error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.postgres.conversation import Conversation, Kind, Phase, Unsettled
from broker.wire.postgres.messages import COPY_DATA, DATA_ROW
from broker.wire.violation import RemoteViolation
from tests.unit.broker.wire.postgres.playbook import Playbook, replay
from tests.vectors.postgres.replay import SESSIONS, after_login


@pytest.mark.parametrize("name", SESSIONS)
def test_a_real_session_is_followed_to_its_end(name: str) -> None:
    """psql, psycopg's pipelines and asyncpg's cursors: every real answer fits, and nothing is left over."""
    talk = replay(after_login(name))
    assert talk.outstanding == 0
    assert talk.status == ord("I")
    assert not talk.discarding


def test_a_batch_of_statements_is_one_query() -> None:
    """Several results, one ReadyForQuery."""
    book = Playbook()
    book.query("batch")
    book.answers("T D D C C I T C Z(I)", whose="batch")
    assert book.talk.outstanding == 0


def test_a_failed_query_ends_itself_and_no_other() -> None:
    """A pipelined query behind a failed one still runs."""
    book = Playbook()
    book.query("first")
    book.query("second")
    book.answers("T E Z(I)", whose="first")
    book.answers("T C Z(I)", whose="second")
    assert book.talk.outstanding == 0


def test_after_an_error_the_server_skips_to_the_sync() -> None:
    """A simple query before the Sync is skipped too: it must not be waited for."""
    book = Playbook()
    book.parse(b"", b"one")
    book.bind(b"", b"")
    book.execute(b"", "one")
    book.query("skipped")
    book.sync()
    book.query("after")
    book.answers("1 2")
    assert [entry.tag for entry in book.talk.discarded] == []
    book.answers("E", whose="one")
    assert [entry.tag for entry in book.talk.discarded] == ["skipped"]
    assert not book.discarding()
    book.answers("Z(I)")
    book.answers("C Z(I)", whose="after")


def test_what_is_sent_while_the_server_skips_need_not_be_sent() -> None:
    """Until the Sync the server reads nothing: nothing is judged, and nothing recorded as run."""
    book = Playbook()
    book.parse(b"", b"broken")
    book.answers("E")
    assert book.discarding()
    book.sync()
    assert not book.discarding()
    book.answers("Z(I)")


def test_a_refused_execute_is_told_apart_by_its_refusal() -> None:
    """The server's error for the message that replaced it is ours to rewrite."""
    book = Playbook()
    book.parse(b"", b"one")
    book.bind(b"", b"")
    book.execute(b"", None, refused=True)
    book.sync()
    (_, _, entry, _) = book.answers("1 2 E Z(I)")
    assert entry is not None
    assert entry.refusal == b"refused"


# Names


def test_a_name_is_what_the_pipeline_says_it_is() -> None:
    """Within one pipeline what was asked for counts: behind a failure nothing runs."""
    book = Playbook()
    statement = book.parse(b"a", b"one")
    assert book.talk.statement(b"a") is statement
    assert book.bind(b"p", b"a").statement is statement


def test_parse_of_a_taken_name_cannot_pass_another_text_under_it() -> None:
    """The attack: ``a`` is a statement that needs approval; ``Parse a 'select 1'`` fails, the name being taken, and a
    Bind behind the Sync runs the old one. Judged by the new text it would run unapproved."""
    book = Playbook()
    old = book.parse(b"a", b"delete from t")
    book.sync()
    book.answers("1 Z(I)")
    book.parse(b"a", b"select 1")
    book.sync()
    with pytest.raises(Unsettled):
        book.talk.statement(b"a")
    book.answers("E Z(I)")
    assert book.talk.statement(b"a") is old


def test_a_parse_that_the_server_skipped_leaves_the_old_statement() -> None:
    """The same attack by a failure in front of the Parse."""
    book = Playbook()
    old = book.parse(b"", b"delete from t")
    book.sync()
    book.answers("1 Z(I)")
    book.execute(b"nowhere", "fails")
    book.parse(b"", b"select 1")
    book.sync()
    with pytest.raises(Unsettled):
        book.talk.statement(b"")
    book.answers("E Z(I)")
    assert book.talk.statement(b"") is old


def test_a_statement_that_was_shadowed_while_it_was_asked_for_is_not_known() -> None:
    """Two Parses of the unnamed statement, the second skipped: the server has the first, and we must not have the one
    before it."""
    book = Playbook()
    book.parse(b"", b"zero")
    book.sync()
    book.answers("1 Z(I)")
    book.parse(b"", b"first")
    book.execute(b"nowhere", "fails")
    book.parse(b"", b"second")
    book.sync()
    book.answers("1 E Z(I)")
    assert book.talk.statement(b"") is None


def test_a_refused_parse_makes_no_statement() -> None:
    """Its text never reached the server: nothing may be bound to it, in this pipeline or later."""
    book = Playbook()
    book.parse(b"a", b"drop table t", refused=True)
    assert book.talk.statement(b"a") is None
    book.sync()
    book.answers("E Z(I)")
    assert book.talk.statement(b"a") is None


def test_a_closed_statement_is_gone() -> None:
    """And at once, for what follows in the pipeline."""
    book = Playbook()
    book.parse(b"a", b"one")
    book.sync()
    book.answers("1 Z(I)")
    book.close_statement(b"a")
    assert book.talk.statement(b"a") is None
    book.sync()
    book.answers("3 Z(I)")
    assert book.talk.statement(b"a") is None


def test_portals_end_with_their_transaction() -> None:
    """A portal that is gone must not be found: SQL could declare a cursor of that name."""
    book = Playbook()
    book.query("begin")
    book.answers("C Z(T)")
    book.parse(b"", b"one")
    bound = book.bind(b"p", b"")
    book.sync()
    book.answers("1 2 Z(T)")
    assert book.talk.portal(b"p") is bound
    book.query("commit")
    book.answers("C Z(I)")
    assert book.talk.portal(b"p") is None


def test_portals_forgotten_while_they_are_asked_for_stay_forgotten() -> None:
    """COMMIT by SQL behind a Bind in the same pipeline: the answer to the Bind comes later, and must not revive it."""
    book = Playbook()
    book.parse(b"", b"one")
    book.bind(b"p", b"")
    book.talk.forget_portals()
    book.answers("1 2")
    assert book.talk.portal(b"p") is None


def test_sql_that_renames_statements_makes_every_name_unknown() -> None:
    """DEALLOCATE and PREPARE share the protocol's names."""
    book = Playbook()
    book.parse(b"a", b"one")
    book.sync()
    book.answers("1 Z(I)")
    book.talk.forget_statements()
    assert book.talk.statement(b"a") is None


def test_a_simple_query_ends_the_unnamed_statement() -> None:
    """As the server does."""
    book = Playbook()
    book.parse(b"", b"one")
    book.bind(b"", b"")
    book.sync()
    book.answers("1 2 Z(I)")
    book.query("two")
    assert book.talk.statement(b"") is None
    assert book.talk.portal(b"") is None


# Transactions


def test_in_transaction_is_never_told_too_late() -> None:
    """A hold inside a transaction freezes what it locked: where it is not known, it is assumed."""
    book = Playbook()
    assert not book.in_transaction()
    book.query("begin")
    assert book.in_transaction(), "its end is not known"
    book.answers("C Z(T)")
    assert book.in_transaction()
    book.query("rollback")
    book.answers("C Z(I)")
    assert not book.in_transaction()
    book.parse(b"", b"begin")
    assert not book.in_transaction(), "a Parse alone runs nothing"
    book.bind(b"", b"")
    book.execute(b"", "begin")
    book.answers("1 2 C")
    assert book.in_transaction(), "an implicit transaction is open until the Sync"
    book.sync()
    assert book.in_transaction(), "whether it was BEGIN is told by ReadyForQuery"
    book.answers("Z(T)")
    assert book.in_transaction()


# COPY


def test_copy_in_swallows_the_syncs_before_its_end() -> None:
    """libpq sends Execute and Sync ahead, then the data, CopyDone and another Sync: one answer for the two Syncs."""
    book = Playbook()
    book.parse(b"", b"copy t from stdin")
    book.bind(b"", b"")
    book.execute(b"", "copy")
    book.sync()
    book.answers("1 2 G")
    assert book.talk.copy_taker() is not None
    book.talk.copy_end()
    book.sync()
    book.answers("C", whose="copy")
    book.answers("Z(I)")
    assert book.talk.outstanding == 0
    assert book.talk.copy_taker() is None


def test_copy_in_that_was_sent_ahead_whole() -> None:
    """Data and end before the server said that it copies."""
    book = Playbook()
    book.query("copy")
    book.talk.copy_end()
    book.answers("G C Z(I)", whose="copy")
    assert book.talk.outstanding == 0


def test_copy_in_that_fails_before_it_read_the_sync() -> None:
    """A trigger fails before the first row: the Sync that was sent ahead is answered after all."""
    book = Playbook()
    book.parse(b"", b"copy t from stdin")
    book.bind(b"", b"")
    book.execute(b"", "copy")
    book.sync()
    book.answers("1 2 G E")
    assert book.discarding()
    book.answers("Z(I)")
    assert not book.discarding()
    assert book.talk.outstanding == 0


def test_copy_out_is_rows_of_its_run() -> None:
    """CopyData may come only inside a copy."""
    book = Playbook()
    book.query("copy")
    assert not book.talk.rows_may_come(COPY_DATA)
    book.answers("H")
    assert book.talk.rows_may_come(COPY_DATA)
    assert not book.talk.rows_may_come(DATA_ROW)
    book.answers("d d c C Z(I)", whose="copy")


def test_copy_data_that_no_copy_takes_has_no_taker() -> None:
    """The server ignores it, and so it is not sent on."""
    assert Conversation().copy_taker() is None


# Our own questions


def test_our_own_questions_are_hidden_and_whole() -> None:
    """They are asked between the client's messages and leave its names and state alone."""
    book = Playbook()
    statement = book.parse(b"", b"one")
    book.sync()
    book.answers("1 Z(I)")
    book.talk.ask("ours", 2)
    for entry in book.answers("1 2 D C 3 3 1 2 D D C 3 3", whose="ours"):
        assert entry is not None
        assert entry.hidden
    book.answers("Z(I)")
    assert book.talk.outstanding == 0
    assert book.talk.statement(b"") is statement


# A target that does not keep the protocol


@pytest.mark.parametrize("answer", [*"RKTDCI123tnsGHWdcZv"])
def test_an_answer_to_nothing_is_the_violation(answer: str) -> None:
    """Whatever is not asked for is not passed on."""
    with pytest.raises(RemoteViolation):
        Conversation().received(ord(answer), b"I")


@pytest.mark.parametrize("answer", [*"RKD123tnscdvW"])
def test_an_answer_that_does_not_fit_a_query_is_the_violation(answer: str) -> None:
    """Rows without a description would be rows without masks."""
    book = Playbook()
    book.query("one")
    with pytest.raises(RemoteViolation):
        book.talk.received(ord(answer), b"")


def test_notices_may_come_at_any_time() -> None:
    """And belong to what runs, if anything does."""
    book = Playbook()
    assert book.answers("N A S") == [None, None, None]
    book.query("one")
    book.answers("N S T N C", whose="one")


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.lists(st.sampled_from("QPBESXerdczT12CZIEsnGHN"), max_size=30))
def test_any_conversation_is_followed_or_refused(turns: list[str]) -> None:
    """Whatever client and server do, nothing but the violation and Unsettled comes out, and the queue stays sound."""
    book = Playbook()
    for turn in turns:
        try:
            match turn:
                case "Q":
                    book.query("q")
                case "P":
                    book.parse(b"", b"text")
                case "B":
                    if book.talk.statement(b"") is not None:
                        book.bind(b"", b"")
                case "E":
                    book.execute(b"", "e")
                case "S":
                    book.sync()
                case "X":
                    book.talk.copy_end()
                case _:
                    book.talk.received(ord({"e": "E", "r": "T", "d": "D", "c": "C", "z": "Z"}.get(turn, turn)), b"I")
        except Unsettled:
            continue
        except RemoteViolation:
            return
    head = book.talk.head
    assert head is None or head.phase is not Phase.DONE
    assert head is None or head.kind is not Kind.COPY_END
