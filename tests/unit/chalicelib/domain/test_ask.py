"""An approval is folded from facts: what counts, what does not, and what comes before what."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.ask import (
    Answer,
    Approved,
    Expired,
    Question,
    Refused,
    Spent,
    Stage,
    UseKind,
    Waiting,
    fold_approval,
    raise_unknown_trigger,
)
from chalicelib.domain.identifiers import AskId, PersonId, SessionId, Txn
from chalicelib.domain.passkey import Passkey, answer_challenge
from chalicelib.domain.requirement import Approval
from chalicelib.domain.session import ApprovalNeed
from tests.fakes import samples
from tests.fakes.clock import START

SOON = START + timedelta(minutes=1)
AFTER = START + timedelta(minutes=6)
TWO = ApprovalNeed(rule="prod-delete", approval=Approval(group="dba", count=2), hint="")
SECURITY = ApprovalNeed(rule="pii", approval=Approval(group="security", count=1), hint="")


def test_one_yes_of_one_is_approved() -> None:
    """The plain case."""
    ask = samples.ask()
    answer = samples.answer(ask)
    assert fold_approval(ask, [], [], SOON) == Waiting(missing=((samples.NEED, 1),), answers=())
    assert fold_approval(ask, [answer], [], SOON) == Approved(answers=(answer,))


def test_approve_x_try_y_is_held_again() -> None:
    """An answer for another digest is an answer to something else (P4)."""
    ask = samples.ask()
    other = dataclasses.replace(samples.answer(ask), digest="00" * 32)
    assert isinstance(fold_approval(ask, [other], [], SOON), Waiting)
    elsewhere = dataclasses.replace(samples.answer(ask), ask_id=AskId("ask_other"))
    assert isinstance(fold_approval(ask, [elsewhere], [], SOON), Waiting)


def test_developer_triggers_a_pipeline_and_approves_it() -> None:
    """Who is behind the run does not count, neither for it nor against it."""
    ask = samples.ask()
    for approved in (True, False):
        own = dataclasses.replace(samples.answer(ask, PersonId("okta|runner")), approved=approved)
        assert fold_approval(ask, [own], [], SOON) == Waiting(missing=((samples.NEED, 1),), answers=())


def test_one_person_counts_once() -> None:
    """Two answers of one person are one person."""
    ask = samples.ask(TWO)
    answers = [samples.answer(ask), dataclasses.replace(samples.answer(ask), via="slack:again")]
    assert fold_approval(ask, answers, [], SOON) == Waiting(missing=((TWO, 1),), answers=tuple(answers))
    assert isinstance(fold_approval(ask, [answers[0], samples.answer(ask, samples.BEN)], [], SOON), Approved)


def test_a_click_meets_no_need_that_wants_a_passkey() -> None:
    """And an answer with one meets both kinds: whoever answered on the page has done more than click."""
    with_passkey = ApprovalNeed(rule="high", approval=Approval(group="dba", count=1, webauthn=True), hint="")
    ask = samples.ask(samples.NEED, with_passkey)
    click = samples.answer(ask)
    assert fold_approval(ask, [click], [], SOON) == Waiting(missing=((with_passkey, 1),), answers=(click,))
    asserted = dataclasses.replace(click, assertion=samples.assertion())
    assert isinstance(fold_approval(ask, [asserted], [], SOON), Approved)


def test_a_need_for_a_passkey_is_in_the_digest_and_the_others_are_as_they_were() -> None:
    """What was signed before there were passkeys must still verify; what wants one is not taken for what does not."""
    assert samples.NEED.told() == ["prod-write", "dba", 1]
    high = dataclasses.replace(samples.NEED, approval=Approval(group="dba", count=1, webauthn=True))
    assert high.told() == ["prod-write", "dba", 1, "webauthn"]
    assert samples.ask(high).digest != samples.ask(samples.NEED).digest
    assert "assertion" not in samples.answer(samples.ask()).signed()


@pytest.mark.parametrize("field", ["client_data", "authenticator_data", "signature"])
def test_an_answers_signature_covers_every_part_of_its_assertion(field: str) -> None:
    """Or the proof could be taken out of a signed answer and another put in."""
    answer = dataclasses.replace(samples.answer(samples.ask()), assertion=samples.assertion())
    other: dict[str, Any] = {field: "eA"}
    changed = dataclasses.replace(samples.assertion(), **other)
    assert dataclasses.replace(answer, assertion=changed).sha256() != answer.sha256()
    for part in (
        dataclasses.replace(samples.assertion(), passkey=Passkey(id="other", public_key="a2V5", rp="rp.example.com")),
        dataclasses.replace(samples.assertion(), activation=samples.activation(2)),
    ):
        assert dataclasses.replace(answer, assertion=part).sha256() != answer.sha256()


def test_a_challenge_is_of_one_answer_alone() -> None:
    """Were a part left out, one touch of a key would be good for two answers."""
    said: dict[str, Any] = {"ask_id": "ask_1", "digest": "d", "card_sha256": "c", "approved": True}
    made = {answer_challenge(**said)}
    for name, value in {"ask_id": "ask_2", "digest": "e", "card_sha256": "d", "approved": False}.items():
        made.add(answer_challenge(**{**said, name: value}))
    assert len(made) == 5
    assert {len(challenge) for challenge in made} == {32}


def test_every_need_must_be_met_by_its_own_group() -> None:
    """A dba cannot answer for security; one person in both groups can answer for both."""
    ask = samples.ask(samples.NEED, SECURITY)
    dba = samples.answer(ask)
    assert fold_approval(ask, [dba], [], SOON) == Waiting(missing=((SECURITY, 1),), answers=(dba,))
    both = dataclasses.replace(dba, groups=("dba", "security"))
    assert isinstance(fold_approval(ask, [both], [], SOON), Approved)


def test_one_refusal_ends_it() -> None:
    """Whatever others said."""
    ask = samples.ask()
    refusal = dataclasses.replace(samples.answer(ask, samples.BEN), approved=False)
    assert fold_approval(ask, [samples.answer(ask), refusal], [], SOON) == Refused(by=samples.BEN)


def test_an_answer_after_expiry_does_not_count() -> None:
    """The card was void when it was clicked."""
    ask = samples.ask()
    late = dataclasses.replace(samples.answer(ask), answered_at=ask.expires_at + timedelta(seconds=1))
    assert fold_approval(ask, [late], [], AFTER) == Expired()
    in_time = dataclasses.replace(late, answered_at=ask.expires_at)
    assert isinstance(fold_approval(ask, [in_time], [], AFTER), Approved)


@pytest.mark.parametrize("kind", list(UseKind))
def test_an_approval_is_used_once(kind: UseKind) -> None:
    """Used or withdrawn, nothing else about it matters any more."""
    ask = samples.ask()
    use = samples.use(ask.id, kind)
    refusal = dataclasses.replace(samples.answer(ask), approved=False)
    assert fold_approval(ask, [refusal], [use], AFTER) == Spent(use=use)


def test_an_ask_that_needs_nobody_is_never_approved() -> None:
    """An empty list of needs is a mistake somewhere, and a mistake must not open anything."""
    ask = dataclasses.replace(samples.ask(), question=samples.question())
    assert isinstance(fold_approval(ask, [samples.answer(ask)], [], SOON), Waiting)
    assert fold_approval(ask, [], [], ask.expires_at) == Expired()


PEOPLE = [samples.ADA, samples.BEN, PersonId("okta|cy"), PersonId("okta|runner")]


@given(
    st.lists(
        st.tuples(st.sampled_from(PEOPLE), st.booleans(), st.sampled_from(["dba", "security"]), st.booleans()),
        max_size=6,
    ),
    st.integers(min_value=1, max_value=3),
)
def test_approved_means_enough_different_people_said_yes(
    told: list[tuple[PersonId, bool, str, bool]], count: int
) -> None:
    """Whatever answers there are: approved only with ``count`` eligible people of the group, and no eligible no."""
    ask = samples.ask(ApprovalNeed(rule="r", approval=Approval(group="dba", count=count), hint=""))
    answers = [
        dataclasses.replace(
            samples.answer(ask, person), approved=yes, groups=(group,), digest=ask.digest if right else "00" * 32
        )
        for person, yes, group, right in told
    ]
    eligible = [(p, yes, group) for p, yes, group, right in told if right and p not in ask.excluded]
    people = {person for person, yes, group in eligible if yes and group == "dba"}
    expected = len(people) >= count and all(yes for _, yes, _ in eligible)
    assert isinstance(fold_approval(ask, answers, [], SOON), Approved) is expected


def test_nobody_known_behind_the_run_takes_two() -> None:
    """One of two may be whoever started it; the other is then somebody else."""
    three = ApprovalNeed(rule="r", approval=Approval(group="dba", count=3), hint="")
    raised = raise_unknown_trigger([samples.NEED, three])
    assert [need.approval.count for need in raised] == [2, 3]
    assert raise_unknown_trigger(raised) == raised


def changed_question() -> dict[str, Any]:
    return {
        "stage": Stage.REQUEST,
        "session_id": SessionId("x"),
        "connection_id": "x",
        "operation_id": "x",
        "txn": Txn("x"),
        "chain": ("x",),
        "leaf_hop_sha256": "x",
        "target": "x",
        "principal": "x",
        "action": "x",
        "text": "DELETE FROM orders",
        "binds": ("x",),
        "literals": ("x",),
        "state": (("search_path", "x"),),
        "commitment": "x",
        "reason": "x",
        "duration_s": 1,
        "rules": ("x",),
        "needs": (TWO,),
        "trigger_known": False,
        "configuration_serial": 2,
        "policy_digest": "x",
    }


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Question)])
def test_the_digest_covers_every_field_of_the_question(name: str) -> None:
    """What an approver saw is what runs: a field outside the digest could change after the click."""
    question = samples.question(samples.NEED)
    assert dataclasses.replace(question, **{name: changed_question()[name]}).digest() != question.digest()


def test_a_digest_does_not_run_fields_together() -> None:
    """('a', 'b') and ('ab',) are different binds."""
    question = samples.question(samples.NEED)
    one = dataclasses.replace(question, binds=("a", "b"))
    assert one.digest() != dataclasses.replace(question, binds=("ab",)).digest()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ask_id", "x"),
        ("person", "x"),
        ("approved", False),
        ("digest", "x"),
        ("groups", ("x",)),
        ("card_sha256", "x"),
        ("via", "x"),
        ("answered_at", AFTER),
        ("assertion", samples.assertion()),
    ],
)
def test_an_answers_signature_covers_what_was_said(name: str, value: object) -> None:
    """All but the card's text, which its hash stands for, and the signature itself."""
    answer = samples.answer(samples.ask())
    changes: dict[str, Any] = {name: value}
    assert dataclasses.replace(answer, **changes).sha256() != answer.sha256()
    uncovered = {field.name for field in dataclasses.fields(Answer)} - {
        *("ask_id", "person", "approved", "digest", "groups", "card_sha256", "via", "answered_at", "assertion")
    }
    assert uncovered == {"card", "signature"}
