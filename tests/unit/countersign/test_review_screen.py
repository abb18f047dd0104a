"""The review's screen: an auditor's three questions, answered so that nothing hostile in it takes effect."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from chalicelib.domain.identity import Identity
from chalicelib.domain.recording import Gap
from chalicelib.services.reviewed import (
    AccessReview,
    Finding,
    FindingKind,
    ReviewedApproval,
    ReviewedHop,
    ReviewedOperation,
    ReviewedRecording,
    ReviewedRevocation,
    ReviewedSession,
    review_json,
)
from countersign.printable import width
from countersign.review_screen import MOST_OPERATIONS, screen

START = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
SESSION_ID = "ses_01j9z3k4m5n6p7q8r9s0t1v2w3"
CONNECTION = "con_01j9z3k4m5n6p7q8r9s0t1v2w6"
RUNNER = Identity(issuer="https://token.actions.githubusercontent.com", subject="700100200", name="acme/orders main")
APPROVAL = ReviewedApproval(
    ask_id="ask_1",
    person="alice",
    name="Alice Adams",
    approved=True,
    at=START + timedelta(minutes=1),
    groups=("dba",),
    rules=("prod-write",),
    via="slack:T/U/C/1",
    verified=True,
)
SELECT = ReviewedOperation(
    id="op_1",
    connection_id=CONNECTION,
    at=START + timedelta(minutes=2),
    text="SELECT id,\n  email FROM customers",
    actions=("sql:read",),
    binds=(),
    held=False,
    verdict="mask",
    code="",
    rules=("orders-pipeline-works", "pii"),
    ask_id="",
    approvals=(),
    status="ok",
    tag="SELECT 3",
    rows=3,
    sqlstate="",
    duration_ms=2,
    recorded=True,
)
DROP = replace(
    SELECT, id="op_2", text="DROP TABLE orders", verdict="block", rules=("prod-no-ddl",), status="refused", tag=""
)
DELETE = replace(
    SELECT,
    id="op_3",
    text="DELETE FROM orders WHERE id = $1",
    binds=("17",),
    held=True,
    verdict="forward",
    rules=("prod-write",),
    approvals=(APPROVAL,),
    tag="DELETE 1",
)
RECORDING = ReviewedRecording(
    connection_id=CONNECTION,
    target_hop="hop_9",
    peer="127.0.0.1",
    opened_at=START,
    sealed_at=START + timedelta(minutes=3),
    exit="closed",
    manifest_key=f"manifests/v1/2026-11-02/{SESSION_ID}/{CONNECTION}.json",
    segments=2,
    frames=14,
    gaps=(),
    verified=True,
)
SESSION = ReviewedSession(
    id=SESSION_ID,
    leaf_hop="hop_1",
    target="orders-prod",
    principal="orders_app",
    reason="migration 42",
    status="closed",
    close_reason="closed_by_owner",
    closed_at=START + timedelta(minutes=2),
    requested_at=START,
    granted_at=START + timedelta(minutes=1),
    expires_at=START + timedelta(hours=1),
    rules=("orders-pipeline-opens", "prod-open"),
    actor=RUNNER,
    approvals=(APPROVAL,),
    operations=(SELECT, DROP, DELETE),
    recordings=(RECORDING,),
    revoked=None,
)
ROOT = ReviewedHop(
    id="hop_1",
    parent="",
    depth=0,
    max_depth=3,
    kind="origin",
    identity=RUNNER,
    scope=("*",),
    teams=("pipeline",),
    key_thumbprint="",
    ticket="",
    rules=(),
    revoked=None,
    sessions=(SESSION_ID,),
    assurance="attested",
    attributes=(),
    target="",
    principal="",
    issued_at=START,
    expires_at=START + timedelta(hours=1),
    verified=True,
)
TARGET = replace(
    ROOT,
    id="hop_9",
    parent="hop_1",
    depth=1,
    kind="target",
    identity=Identity(issuer="target:orders-prod", subject="orders_app", name="orders_app@orders-prod"),
    scope=(),
    sessions=(),
    target="orders-prod",
    principal="orders_app",
)
REVOCATION = ReviewedRevocation(key="hop:hop_2", by="carol", why="image replaced", at=START + timedelta(minutes=5))
DEPLOY = replace(
    ROOT,
    id="hop_2",
    parent="hop_1",
    depth=1,
    kind="delegate",
    identity=replace(RUNNER, name="deploy-svc"),
    scope=("db-prod",),
    ticket="tkt_1",
    assurance="vouched",
    sessions=(),
)
TOOL = replace(
    DEPLOY, id="hop_3", parent="hop_2", depth=2, identity=replace(RUNNER, name="schema-tool"), assurance="attested"
)
REVIEW = AccessReview(
    txn="01j9z3k4m5n6p7q8r9s0t1v2w4",
    initiator=RUNNER,
    initiator_assurance="attested",
    initiator_attributes=(("ref", "refs/heads/main"),),
    accountable=(("gh:actor_id:1001", "Dave Dunn"),),
    hops=(ROOT, TARGET),
    sessions=(SESSION,),
    findings=(),
    reviewed_at=START + timedelta(days=1),
)


def plain(text: str, *_styles: str) -> str:
    return text


def shown(review: AccessReview, *, every: bool = False, columns: int = 110) -> str:
    return "\n".join(screen(review, plain, columns, every=every))


def with_operations(*operations: ReviewedOperation) -> AccessReview:
    return replace(REVIEW, sessions=(replace(SESSION, operations=operations),))


def line_with(text: str, part: str) -> str:
    (line,) = [line for line in text.splitlines() if part in line]
    return line


def test_the_three_questions() -> None:
    """Who initiated it; who did what; was each step approved and recorded: each has its place and its words."""
    text = shown(REVIEW)
    order = ["VERIFIED", "WHO INITIATED IT", "THROUGH WHOM, AND WHAT WAS DONE", "SESSION", "recorded: con_"]
    assert sorted(order, key=text.index) == order
    assert "acme/orders main  attested by https://token.actions" in text
    assert "behind the run: Dave Dunn (gh:actor_id:1001)" in text
    assert "asked at 09:30:00; approved by Alice Adams (alice) at 09:31:00" in text
    assert "granted by orders-pipeline-opens + prod-open; until 10:30:00, closed at 09:32:00" in text
    assert "allowed by orders-pipeline-works + pii, none required; recorded" in text
    assert "blocked by prod-no-ddl; recorded" in text
    assert "approved by Alice Adams (alice) at 09:31:00; prod-write; recorded" in text
    assert "no gaps: signed, verified" in text
    assert "FINDINGS" not in text
    assert "UNUSUAL" not in text


def chain() -> AccessReview:
    """Three hops, of which the middle one was revoked; the last one opened a session on another target."""
    revoked = replace(DEPLOY, revoked=REVOCATION)
    below = replace(TOOL, revoked=REVOCATION, sessions=("ses_2",))
    session = replace(
        SESSION, id="ses_2", leaf_hop="hop_3", target="db-prod", operations=(), recordings=(), approvals=()
    )
    return replace(REVIEW, hops=(ROOT, TARGET, revoked, below), sessions=(SESSION, session))


def test_the_tree_has_each_session_under_the_hop_that_opened_it() -> None:
    """Which downstream agent did what: a flat list would leave it to the reader to put the two together."""
    lines = shown(chain(), columns=100).splitlines()
    order = [
        "acme/orders main  attested  hop_1",
        "SESSION orders-prod",
        "└─ deploy-svc  VOUCHED  hop_2",
        "└─ schema-tool  attested  hop_3",
        "SESSION db-prod",
    ]
    found = [next(n for n, line in enumerate(lines) if part in line and n > 6) for part in order]
    assert found == sorted(found)
    depths = [lines[n].index(part.lstrip("└─ ")) for n, part in zip(found, order, strict=True)]
    assert depths == [2, 5, 5, 8, 11]
    assert "may db-prod; less than its parent; depth 1 of 3" in lines[found[2] + 1]
    assert "vouched for by acme/orders main, let in at 09:30:00; ticket tkt_1" in lines[found[2] + 2]
    assert max(width(line) for line in lines) <= 100


def test_what_was_revoked_is_said_at_its_place_and_once_at_the_top() -> None:
    """An auditor must see who ended it and why; that all below ended too is one fact and not a list of them."""
    text = shown(chain())
    unusual = text[: text.index("WHO INITIATED IT")]
    assert "deploy-svc was revoked at 09:35:00 by carol: image replaced" in unusual
    assert "schema-tool was revoked" not in unusual
    assert "deploy-svc is vouched" in unusual
    assert "REVOKED at 09:35:00 by carol: image replaced" in text
    assert "REVOKED at 09:35:00 with the hop above it (hop:hop_2)" in text


@pytest.mark.parametrize(
    ("review", "words"),
    [
        (replace(REVIEW, hops=(ROOT, replace(TARGET, assurance="bearer"))), "with its secret alone"),
        (with_operations(replace(SELECT, actions=("ssh:shell",))), "ran 1 opaque operation"),
        (with_operations(replace(SELECT, status="unknown")), "ended while 1 operation ran: how much"),
        (with_operations(replace(SELECT, status="")), "1 operation of which no end was recorded"),
        (replace(REVIEW, accountable=()), "its trigger is unknown"),
        (replace(REVIEW, sessions=(replace(SESSION, revoked=REVOCATION),)), "was revoked at 09:35:00 by carol"),
    ],
)
def test_what_is_unusual_stands_first(review: AccessReview, words: str) -> None:
    """A reader who stops after the first lines has seen what an auditor would ask about."""
    text = shown(review)
    assert words in text[: text.index("WHO INITIATED IT")].replace("\n    ", " ")


def test_what_is_so_for_many_is_said_once() -> None:
    """Every PostgreSQL session is entered by its secret: a line for each would hide the one that matters."""
    sessions = tuple(replace(SESSION, id=f"ses_{n}") for n in range(5))
    again = replace(DEPLOY, id="hop_7")
    text = shown(replace(REVIEW, hops=(ROOT, replace(TARGET, assurance="bearer"), DEPLOY, again), sessions=sessions))
    unusual = text[text.index("UNUSUAL") : text.index("WHO INITIATED IT")].splitlines()[1:-1]
    assert [line.split(":")[0].strip() for line in unusual] == ["deploy-svc is vouched (2 hops)", "orders-prod"]
    assert "5 sessions were entered with their secret alone" in unusual[1]


def test_what_was_refused_is_no_opaque_operation_that_ran() -> None:
    """A line that nobody could read and that was blocked did nothing: it is no news at the top."""
    refused = replace(SELECT, actions=("ssh:opaque",), verdict="block", status="")
    assert "UNUSUAL" not in shown(with_operations(refused))


def test_a_hop_or_session_that_hangs_on_nothing_is_shown() -> None:
    """Attack: a hop whose parent was removed, or that names itself, takes what was done under it off the screen."""
    loop = replace(DEPLOY, parent="hop_3")
    lost = replace(SESSION, id="ses_3", leaf_hop="hop_gone")
    text = shown(replace(REVIEW, hops=(ROOT, loop, TOOL), sessions=(SESSION, lost)))
    for part in ("hop_2", "hop_3", "ses_3"):
        assert part in text


def test_it_is_one_screen() -> None:
    """An auditor reads it without scrolling: 50 lines at most, none wider than asked, whatever was done."""
    many = [replace(SELECT, id=f"op_{n}", text="SELECT " + "x, " * 500) for n in range(1000)]
    lines = shown(with_operations(*many, DROP), columns=100).splitlines()
    assert len(lines) <= 50
    assert max(width(line) for line in lines) <= 100
    assert any("DROP TABLE" in line for line in lines), "what was stopped comes before what was merely done"
    assert f"and {1001 - MOST_OPERATIONS} more" in "\n".join(lines)


def test_all_shows_all() -> None:
    """What was counted can be looked at."""
    many = [replace(SELECT, id=f"op_{n}", text=f"SELECT {n}") for n in range(100)]
    text = shown(with_operations(*many), every=True)
    assert "SELECT 99" in text
    assert "more" not in text


def test_recorded_escapes_in_the_auditors_terminal() -> None:
    """Attack: a statement, a reason, a name or a finding holds an escape sequence or turns the writing around."""
    hostile = "\x1b]0;pwned\x07\x1b[2J\u202e\x9b31m"
    operation = replace(
        SELECT, text=hostile, binds=(hostile,), rules=(hostile,), tag=hostile, verdict=hostile, code=hostile
    )
    recording = replace(RECORDING, peer=hostile, manifest_key=hostile, connection_id=hostile)
    session = replace(
        SESSION,
        reason=hostile,
        target=hostile,
        principal=hostile,
        close_reason=hostile,
        approvals=(replace(APPROVAL, name=hostile),),
        operations=(operation, replace(DELETE, approvals=(replace(APPROVAL, name=hostile),))),
        recordings=(recording,),
    )
    who = replace(RUNNER, name=hostile, subject=hostile, issuer=hostile)
    review = replace(
        REVIEW,
        txn=hostile,
        initiator=who,
        initiator_attributes=((hostile, hostile),),
        accountable=((hostile, hostile),),
        hops=(
            replace(ROOT, identity=who, kind=hostile, assurance=hostile, scope=(hostile,)),
            replace(
                TOOL,
                parent="hop_1",
                ticket=hostile,
                teams=(hostile,),
                identity=who,
                revoked=ReviewedRevocation(key=hostile, by=hostile, why=hostile, at=START),
            ),
        ),
        sessions=(session, replace(session, granted_at=None), replace(session, id=hostile, leaf_hop=hostile)),
        findings=(Finding(key=hostile, kind=FindingKind.ALTERED, what=hostile),),
    )
    text = shown(review)
    assert not set(text) & set("\x1b\x07\x9b\u202e")
    assert not set(json.dumps(review_json(review))) & set("\x1b\x07\x9b\u202e")


def test_a_statement_cannot_forge_a_line() -> None:
    """Attack: a newline in a statement writes a further, false line of the review."""
    forged = "SELECT 1\n  09:31:00  forwarded      DROP TABLE audit"
    assert "\n  09:31:00  forwarded      DROP" not in shown(with_operations(replace(SELECT, text=forged)))


def test_what_does_not_verify_never_looks_as_if_it_did() -> None:
    """A reader who sees only one part of the screen must see it there too."""
    session = replace(
        SESSION,
        approvals=(replace(APPROVAL, verified=False),),
        operations=(replace(SELECT, recorded=False),),
        recordings=(replace(RECORDING, verified=False, gaps=(Gap(first=3, last=9, why="task lost"),)),),
    )
    review = replace(
        REVIEW,
        hops=(replace(ROOT, verified=False), replace(TARGET, verified=False)),
        sessions=(session,),
        findings=(Finding(key="hop_1", kind=FindingKind.ALTERED, what="does not verify"),),
    )
    text = shown(review)
    assert "NOT VERIFIED" in text.splitlines()[0]
    assert "NOT VERIFIED" in line_with(text, "  attested  hop_1  ")
    assert "TARGET HOP NOT VERIFIED" in line_with(text, "2 segments")
    assert "SIGNATURE NOT VERIFIED" in line_with(text, "asked at")
    assert "RECORD NOT VERIFIED" in text
    assert "gap 3 to 9 (task lost):" in text
    assert "NOT VERIFIED" in line_with(text, "2 segments")
    assert "altered  hop_1 does not verify" in text
    assert "signed, verified" not in text


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (
            replace(DELETE, verdict="block", approvals=(replace(APPROVAL, approved=False),)),
            "refused by Alice Adams (alice) at",
        ),
        (replace(DELETE, verdict="block", approvals=(), code="approval_expired"), "not approved (approval_expired)"),
        (replace(DELETE, verdict="hold", approvals=(), status=""), "no verdict was recorded"),
        (replace(DELETE, approvals=()), "approved by nobody"),
        (replace(SELECT, rules=()), "allowed by no rule, none required"),
        (replace(DROP, code="mask_written_back"), "blocked by prod-no-ddl (mask_written_back)"),
        (replace(DELETE, status="unknown", tag=""), "cut off"),
        (replace(DELETE, status="unknown", tag="grant_revoked"), "cut off: grant_revoked"),
        (replace(SELECT, status="error", sqlstate="42P01", tag=""), "error 42P01"),
        (replace(SELECT, status=""), "outcome unknown"),
        (replace(SELECT, status="error", tag="exit 3"), "error exit 3"),
        (replace(SELECT, status="ok", tag="exit 0"), "exit 0"),
        (replace(SELECT, text="", actions=("ssh:shell",)), "(an interactive shell)"),
        (replace(SELECT, left_rows=9, left_bytes=81), "9 rows unrecorded"),
        (replace(SELECT, left_bytes=1010), "1010 bytes unrecorded"),
    ],
)
def test_every_end_that_an_operation_can_have_is_said(operation: ReviewedOperation, words: str) -> None:
    """A held statement that nobody answered is not one that was refused, and neither is one that ran."""
    assert words in shown(with_operations(operation))


def test_the_rule_that_asked_is_seen_where_there_are_many() -> None:
    """Which rule wanted a person is the answer; the others may be cut where the line is full."""
    rules = ("a-rule-with-a-long-name", "another-rule-with-a-long-name", "one-more-rule-with-a-long-name", "prod-write")
    text = shown(with_operations(replace(DELETE, rules=rules)), columns=90)
    assert "approved by Alice Adams (alice) at 09:31:00; prod-write + a-rule" in text


def test_an_unknown_trigger_is_said() -> None:
    """Where nobody is accountable the auditor must see it, not an empty place."""
    assert "behind the run: unknown" in shown(replace(REVIEW, accountable=()))


def test_a_session_that_was_never_granted() -> None:
    """A refusal is part of the story: who refused, and that nothing was opened."""
    session = replace(
        SESSION,
        granted_at=None,
        expires_at=None,
        rules=(),
        approvals=(replace(APPROVAL, approved=False),),
        operations=(),
        recordings=(),
    )
    text = shown(replace(REVIEW, sessions=(session,)))
    assert "asked at 09:30:00; refused by Alice Adams (alice) at 09:31:00" in text
    assert "never granted" in text
    assert "nothing was done" in text
    assert "no connection was opened" in text


def test_json_holds_all_of_it() -> None:
    """Programs get every operation and times that they can read."""
    told = json.loads(json.dumps(review_json(REVIEW)))
    assert told["verified"] is True
    assert told["sessions"][0]["operations"][2]["approvals"][0]["at"] == "2026-11-02T09:31:00.000Z"
    assert [op["id"] for op in told["sessions"][0]["operations"]] == ["op_1", "op_2", "op_3"]
