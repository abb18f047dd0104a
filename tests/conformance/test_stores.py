"""One battery over every implementation of the domain's protocols: memory, ministack, moto.

What unit tests rely on when they use the memory stores is what production relies on, because of this file.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta

import pytest

from chalicelib.domain.ask import UseKind
from chalicelib.domain.connection import Beat
from chalicelib.domain.errors import AlreadyDecided, AlreadyExists, AlreadyUsed, Conflict, NotFound
from chalicelib.domain.identifiers import AskId, ConnectionId, SessionId, new_ask_id, new_session_id, new_txn
from chalicelib.domain.secret import Secret
from chalicelib.domain.session import Session, SessionStatus
from chalicelib.domain.store import Stores
from chalicelib.domain.verifier import verifier_of
from tests.conformance.racing import RACERS, race
from tests.fakes import samples
from tests.fakes.clock import START

LATER = START + timedelta(minutes=2)
UNKNOWN_SESSION = SessionId("ses_" + "0" * 26)


def granted(stores: Stores) -> Session:
    session = samples.session()
    stores.sessions.create(session)
    return stores.sessions.grant(session.id, samples.grant(session))


def test_a_chain_reads_back_exactly_as_it_was_signed(stores: Stores) -> None:
    """A byte lost on the way would break every hash and signature after it."""
    root = dataclasses.replace(samples.origin(), signature="a.b.c")
    leaf = samples.target_hop(root)
    other = samples.origin()
    for hop in (root, leaf, other):
        stores.chains.put(hop)
    found = stores.chains.hops(root.txn)
    assert found == {root.id: root, leaf.id: leaf}
    assert found[leaf.id].sha256() == leaf.sha256()


def test_a_hop_is_never_replaced(stores: Stores) -> None:
    """A second put would rewrite who did something."""
    hop = samples.origin()
    stores.chains.put(hop)
    with pytest.raises(AlreadyExists):
        stores.chains.put(dataclasses.replace(hop, accountable=()))
    assert stores.chains.hops(hop.txn)[hop.id].accountable == hop.accountable


def test_an_unknown_chain_is_empty(stores: Stores) -> None:
    """The caller tells ProofInvalid from an outage by this."""
    assert stores.chains.hops(new_txn(START)) == {}


def test_a_session_reads_back_and_is_created_once(stores: Stores) -> None:
    """An id taken twice would give one caller another's session."""
    session = samples.session()
    stores.sessions.create(session)
    assert stores.sessions.get(session.id) == session
    with pytest.raises(AlreadyExists):
        stores.sessions.create(dataclasses.replace(session, token_id="other"))
    assert stores.sessions.get(session.id).token_id == session.token_id
    with pytest.raises(NotFound):
        stores.sessions.get(UNKNOWN_SESSION)


def test_a_days_sessions_are_listed_and_many_are_read_by_their_keys(empty: Stores) -> None:
    """A review of a period is of every session of its days, in order, and of no other; one that is gone is left out."""
    made = [
        dataclasses.replace(samples.session(), id=new_session_id(at), created_at=at)
        for at in (START, START + timedelta(hours=1), START + timedelta(days=1), START - timedelta(hours=10))
    ]
    for session in made:
        empty.sessions.create(session)
    assert list(empty.sessions.created_on(START.date())) == [made[0].id, made[1].id]
    assert list(empty.sessions.created_on(START.date() - timedelta(days=1))) == [made[3].id]
    assert list(empty.sessions.created_on(START.date() - timedelta(days=9))) == []
    wanted = [made[2].id, UNKNOWN_SESSION, made[0].id, made[2].id]
    assert list(empty.sessions.get_many(wanted)) == [made[2], made[0]]
    assert list(empty.sessions.get_many([])) == []
    empty.sessions.close(made[0].id, "done", LATER)
    assert list(empty.sessions.created_on(START.date())) == [made[0].id, made[1].id], "a change moves it nowhere"


def test_only_a_pending_session_is_granted(stores: Stores) -> None:
    """A grant on a closed session would open it again."""
    session = samples.session()
    stores.sessions.create(session)
    grant = samples.grant(session)
    after = stores.sessions.grant(session.id, grant)
    assert (after.status, after.grant) == (SessionStatus.GRANTED, grant)
    assert stores.sessions.get(session.id) == after
    with pytest.raises(Conflict):
        stores.sessions.grant(session.id, grant)
    stores.sessions.close(session.id, "done", LATER)
    with pytest.raises(Conflict):
        stores.sessions.grant(session.id, grant)
    with pytest.raises(NotFound):
        stores.sessions.grant(UNKNOWN_SESSION, grant)


def test_a_secret_is_replaced_and_only_on_a_granted_session(stores: Stores) -> None:
    """A verifier on a pending or closed session would be a login before or after its time."""
    pending = samples.session()
    stores.sessions.create(pending)
    first, second = verifier_of(Secret("one")), verifier_of(Secret("two"))
    with pytest.raises(Conflict):
        stores.sessions.rekey(pending.id, first, only_first=False)
    session = granted(stores)
    stores.sessions.rekey(session.id, first, only_first=True)
    with pytest.raises(Conflict):
        stores.sessions.rekey(session.id, second, only_first=True)
    assert stores.sessions.get(session.id).verifier == first
    stores.sessions.rekey(session.id, second, only_first=False)
    assert stores.sessions.get(session.id) == dataclasses.replace(session, verifier=second)
    stores.sessions.close(session.id, "done", LATER)
    with pytest.raises(Conflict):
        stores.sessions.rekey(session.id, first, only_first=False)


def test_a_session_closes_once(stores: Stores) -> None:
    """The first reason is the true one; closing again must be harmless, since both planes may try."""
    session = granted(stores)
    closed = stores.sessions.close(session.id, "revoked", LATER)
    assert (closed.status, closed.close_reason, closed.closed_at) == (SessionStatus.CLOSED, "revoked", LATER)
    assert stores.sessions.close(session.id, "again", LATER + timedelta(hours=1)) == closed
    assert stores.sessions.get(session.id) == closed
    with pytest.raises(NotFound):
        stores.sessions.close(UNKNOWN_SESSION, "x", LATER)


def test_one_of_many_grants_wins(stores: Stores) -> None:
    """Two grants for one session would be two permissions, of which records name one."""
    session = samples.session()
    stores.sessions.create(session)
    grants = [samples.grant(session) for _ in range(RACERS)]
    results = race(lambda number: stores.sessions.grant(session.id, grants[number]))
    won = [number for number, result in enumerate(results) if isinstance(result, Session)]
    assert len(won) == 1
    assert sum(isinstance(result, Conflict) for result in results) == RACERS - 1
    assert stores.sessions.get(session.id).grant == grants[won[0]]


def test_a_close_wins_over_what_races_with_it(stores: Stores) -> None:
    """A grant or a new secret that lands on a close must not undo it."""
    session = samples.session()
    stores.sessions.create(session)
    verifier = verifier_of(Secret("one"))

    def run(number: int) -> object:
        match number % 3:
            case 0:
                return stores.sessions.close(session.id, "done", LATER)
            case 1:
                return stores.sessions.grant(session.id, samples.grant(session))
            case _:
                stores.sessions.rekey(session.id, verifier, only_first=False)
                return None

    results = race(run, racers=6)
    assert all(not isinstance(result, Exception) or isinstance(result, Conflict) for result in results)
    after = stores.sessions.get(session.id)
    assert (after.status, after.close_reason) == (SessionStatus.CLOSED, "done")
    was_granted = any(isinstance(result, Session) for result in (results[1], results[4]))
    assert (after.grant is not None) is was_granted


def test_the_sessions_of_a_chain_are_found_oldest_first(stores: Stores) -> None:
    """A review that missed one would be a review of something else."""
    leaf = samples.origin()
    made = sorted((samples.session(leaf) for _ in range(3)), key=lambda session: session.id)
    for session in reversed(made):
        stores.sessions.create(session)
    stores.sessions.create(samples.session())
    assert list(stores.sessions.of_txn(leaf.txn)) == made


def test_a_connection_is_put_once_and_sealed_once(stores: Stores) -> None:
    """A second seal would put another recording in the place of the first."""
    row = samples.connection_row()
    stores.connections.put(row)
    with pytest.raises(AlreadyExists):
        stores.connections.put(dataclasses.replace(row, peer="10.0.0.1"))
    stores.connections.seal(row.session_id, row.id, at=LATER, exit="client", key="manifests/x", sha256="ab")
    sealed = dataclasses.replace(row, sealed_at=LATER, exit="client", manifest_key="manifests/x", manifest_sha256="ab")
    assert stores.connections.get(row.session_id, row.id) == sealed
    with pytest.raises(Conflict):
        stores.connections.seal(row.session_id, row.id, at=LATER, exit="again", key="manifests/y", sha256="cd")
    with pytest.raises(NotFound):
        stores.connections.get(row.session_id, ConnectionId("con_0"))
    assert stores.connections.get(row.session_id, row.id) == sealed


def test_one_of_many_seals_wins(stores: Stores) -> None:
    """The broker and the sweeper may both try to seal."""
    row = samples.connection_row()
    stores.connections.put(row)
    results = race(
        lambda number: stores.connections.seal(
            row.session_id, row.id, at=LATER, exit=f"e{number}", key=f"k{number}", sha256="ab"
        )
    )
    won = [number for number, result in enumerate(results) if result is None]
    assert len(won) == 1
    assert stores.connections.get(row.session_id, row.id).manifest_key == f"k{won[0]}"


def test_the_connections_of_a_session_and_of_no_other(stores: Stores) -> None:
    """The cap on connections counts these."""
    first = samples.connection_row()
    second = samples.connection_row(first.session_id)
    for row in (first, second, samples.connection_row()):
        stores.connections.put(row)
    expected = sorted([first, second], key=lambda row: row.id)
    assert list(stores.connections.of_session(first.session_id)) == expected


def test_an_ask_is_put_once_and_keeps_its_digest(stores: Stores) -> None:
    """Answers name the digest: a question that came back changed would not be the one that was asked."""
    ask = samples.ask()
    stores.asks.put(ask)
    assert stores.asks.get(ask.id) == ask
    assert stores.asks.get(ask.id).question.digest() == ask.digest
    with pytest.raises(AlreadyExists):
        stores.asks.put(dataclasses.replace(ask, excluded=()))
    assert stores.asks.get(ask.id).excluded == ask.excluded
    with pytest.raises(NotFound):
        stores.asks.get(AskId("ask_0"))


def test_recent_asks_are_found_in_order(empty: Stores) -> None:
    """The reconciler posts a card for each that has none; one left out would wait for nobody."""
    asks = [dataclasses.replace(samples.ask(), created_at=START + timedelta(seconds=n)) for n in range(4)]
    for ask in reversed(asks):
        empty.asks.put(ask)
    assert list(empty.asks.since(START + timedelta(seconds=1))) == asks[1:]
    assert list(empty.asks.since(START + timedelta(seconds=2, microseconds=1))) == asks[3:]
    assert list(empty.asks.since(START + timedelta(days=1))) == []


def test_a_person_answers_once(stores: Stores) -> None:
    """The first answer stands: a refusal cannot be talked out of somebody afterwards."""
    ask = samples.ask()
    first = samples.answer(ask, samples.ADA)
    stores.answers.put(first)
    with pytest.raises(AlreadyDecided):
        stores.answers.put(first)
    with pytest.raises(AlreadyDecided):
        stores.answers.put(dataclasses.replace(first, approved=False))
    second = samples.answer(ask, samples.BEN)
    stores.answers.put(second)
    assert list(stores.answers.of_ask(ask.id)) == [first, second]
    assert list(stores.answers.of_ask(new_ask_id(START))) == []


def test_one_of_many_answers_of_one_person_wins(stores: Stores) -> None:
    """Two clicks at once, one yes and one no, are one answer."""
    ask = samples.ask()
    results = race(
        lambda number: stores.answers.put(dataclasses.replace(samples.answer(ask), approved=number % 2 == 0))
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, AlreadyDecided) for result in results) == RACERS - 1
    assert len(stores.answers.of_ask(ask.id)) == 1


def test_a_withdrawal_and_a_use_take_the_same_slot(stores: Stores) -> None:
    """What was withdrawn must not run, and what ran cannot be withdrawn."""
    ask_id = new_ask_id(START)
    results = race(
        lambda number: stores.uses.put(
            samples.use(ask_id, UseKind.RAN if number % 2 else UseKind.WITHDRAWN)
            if number < 2
            else dataclasses.replace(samples.use(ask_id), by=f"broker:{number}")
        )
    )
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, AlreadyUsed) for result in results) == RACERS - 1
    assert len(stores.uses.of_ask(ask_id)) == 1


def test_uses_read_back(stores: Stores) -> None:
    """An approval for several runs has a slot for each."""
    ask_id = new_ask_id(START)
    first = samples.use(ask_id)
    second = dataclasses.replace(first, n=2)
    for use in (second, first):
        stores.uses.put(use)
    assert list(stores.uses.of_ask(ask_id)) == [first, second]


def test_a_claim_is_won_by_exactly_one(stores: Stores) -> None:
    """A token that two requests carry at once must be good for one of them."""
    value = new_txn(START)
    results = race(lambda number: stores.once.claim("token", value, f"p{number}", expires_at=LATER, now=START))
    won = [number for number, result in enumerate(results) if result is None]
    assert len(won) == 1
    assert {result for result in results if result is not None} == {f"p{won[0]}"}


def test_a_claim_lasts_until_it_expires_and_no_longer(stores: Stores) -> None:
    """Tables remove expired rows days late, so the time itself must decide."""
    value = new_txn(START)
    assert stores.once.claim("token", value, "a", expires_at=LATER, now=START) is None
    before = LATER - timedelta(seconds=1)
    assert stores.once.claim("token", value, "b", expires_at=LATER, now=before) == "a"
    assert stores.once.held("token", value, now=before) == "a"
    assert stores.once.held("token", value, now=LATER) is None
    assert stores.once.claim("token", value, "c", expires_at=LATER + timedelta(days=1), now=LATER) is None
    assert stores.once.held("token", value, now=LATER) == "c"


def test_a_number_only_ever_goes_up(stores: Stores) -> None:
    """A copied authenticator shows by a counter that stands still or goes back; digits are not compared as words."""
    value = new_txn(START)

    def advance(number: int, now: datetime = START) -> bool:
        return stores.once.advance("passkey", value, number, expires_at=LATER, now=now)

    assert [advance(number) for number in (9, 9, 10, 9, 2**32 - 1, 11)] == [True, False, True, False, True, False]
    assert stores.once.held("passkey", value, now=START) is not None
    assert stores.once.advance("passkey", value, 1, expires_at=LATER + timedelta(days=1), now=LATER)


def test_of_two_with_one_number_one_goes_on(stores: Stores) -> None:
    """The authenticator and its copy, at the same moment."""
    value = new_txn(START)
    results = race(lambda _: stores.once.advance("passkey", value, 5, expires_at=LATER, now=START))
    assert results.count(True) == 1
    assert results.count(False) == len(results) - 1


def test_an_answer_keeps_its_assertion(stores: Stores) -> None:
    """What it proves is checked again by every reader, so it must come back whole."""
    ask = samples.ask()
    stores.asks.put(ask)
    answer = dataclasses.replace(samples.answer(ask), assertion=samples.assertion())
    stores.answers.put(answer)
    assert list(stores.answers.of_ask(ask.id)) == [answer]


def test_claims_of_different_kinds_do_not_meet(stores: Stores) -> None:
    """An Idempotency-Key must not be able to use up a token's id."""
    value = new_txn(START)
    assert stores.once.claim("token", value, "a", expires_at=LATER, now=START) is None
    assert stores.once.claim("idempotency", value, "b", expires_at=LATER, now=START) is None
    assert stores.once.held("slack", value, now=START) is None


def test_what_is_not_sealed_is_listed_until_it_is(stores: Stores) -> None:
    """The sweeper finds a dead broker's rows by this, and must not find the sealed ones again for ever."""
    first, second = samples.connection_row(), samples.connection_row()
    for row in (first, second):
        stores.connections.put(row)
    assert {first.id, second.id} <= {row.id for row in stores.connections.unsealed()}
    stores.connections.seal(first.session_id, first.id, at=LATER, exit="client", key="manifests/x", sha256="ab")
    left = {row.id for row in stores.connections.unsealed()}
    assert (first.id in left, second.id in left) == (False, True)


def test_the_rows_of_a_boot_in_order_of_their_numbers(stores: Stores) -> None:
    """They were put into many sessions; only the boot's own count shows that none is missing."""
    boot = f"boot_{samples.connection_row().id}"
    rows = [dataclasses.replace(samples.connection_row(), boot=boot, number=number) for number in (3, 1, 2)]
    for row in rows:
        stores.connections.put(row)
    assert [row.number for row in stores.connections.of_boot(boot, 0, 10)] == [1, 2, 3]
    assert [row.number for row in stores.connections.of_boot(boot, 1, 1)] == [2]
    assert list(stores.connections.of_boot("boot_nobodys", 0, 10)) == []


def test_a_beat_is_replaced_by_the_next(stores: Stores) -> None:
    """Only the last one says whether a broker lives."""
    boot = f"boot_{samples.connection_row().id}"
    assert stores.beats.last(boot) is None
    for at in (START, LATER):
        stores.beats.put(Beat(boot=boot, at=at))
    assert stores.beats.last(boot) == Beat(boot=boot, at=LATER)


def test_the_index_of_what_is_not_sealed_forgets_what_is(stores: Stores) -> None:
    """With every row of every year in it, the sweeper's question would grow until it is answered no more."""
    rows = getattr(stores.connections, "_rows", None)
    if rows is None:
        pytest.skip("memory has no index")
    row = samples.connection_row()
    stores.connections.put(row)
    assert row.id in {found.id for found in rows.unsealed.query("open")}
    stores.connections.seal(row.session_id, row.id, at=LATER, exit="client", key="manifests/x", sha256="ab")
    assert row.id not in {found.id for found in rows.unsealed.query("open")}
