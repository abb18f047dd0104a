"""The access review: what it says of a sound record, and that no change to a record goes unsaid."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from chalicelib.domain.ask import Ask, Question, Stage, Use, UseKind
from chalicelib.domain.canonical import Json, canonical, sha256_hex
from chalicelib.domain.errors import NotFound
from chalicelib.domain.identifiers import OperationId, PersonId, new_ask_id
from chalicelib.domain.recording import (
    Frame,
    FrameKind,
    Gap,
    Manifest,
    RecordedAs,
    Segment,
    manifest_key,
    segment_header,
    segment_key,
)
from chalicelib.identity.jws import sign_answer, sign_manifest
from chalicelib.services.review import Review
from chalicelib.services.reviewed import AccessReview
from tests.fakes.samples import NEED, answer
from tests.unit.chalicelib.services.test_mint import Opened

DELETE = "DELETE FROM orders WHERE id = 7"


class Recorded(Opened):
    """A session that was approved and worked in: a masked read, a blocked statement, and one that was held and ran."""

    def __init__(self) -> None:
        super().__init__()
        self.who = RecordedAs(
            session_id=self.session_id,
            connection_id=self.row.id,
            txn=self.session.txn,
            protocol="postgres",
            actor=self.session.actor.key,
            originator=self.session.originator.key,
            target="orders-prod",
            principal="app",
        )
        self.ask = self.put_operation_ask(OperationId("op_3"))
        self.frames: list[Frame] = []
        self.frame(FrameKind.OPEN, target="orders-prod")
        self.operation("op_1", "SELECT email FROM customers", "mask")
        self.frame(FrameKind.ROWS, text='["#MASKED:email#"]', way="s2c", op="op_1", columns=["email"])
        self.frame(FrameKind.OUTCOME, op="op_1", status="ok", tag="SELECT 1", rows=1, sqlstate="", duration_ms=2)
        self.operation("op_2", "DROP TABLE orders", "block", code="policy_denied", rules=["no-ddl"])
        self.operation("op_3", DELETE, "hold", rules=["prod-write"])
        self.frame(FrameKind.HELD, op="op_3", ask=self.ask.id, digest=self.ask.digest, needs=[])
        self.frame(FrameKind.ANSWERED, op="op_3", ask=self.ask.id, state="approved", people=["alice"])
        self.frame(FrameKind.VERDICT, op="op_3", ask=self.ask.id, verdict="forward", rules=["prod-write", "works"])
        self.frame(FrameKind.OUTCOME, op="op_3", status="ok", tag="DELETE 1", rows=1, sqlstate="", duration_ms=3)
        self.frame(FrameKind.CLOSE, exit="client")
        self.store(self.frames)

    def frame(self, kind: FrameKind, *, text: str = "", way: str = "ctl", **meta: Json) -> None:
        frame = Frame(
            seq=len(self.frames) + 1,
            at=self.plane.clock.now(),
            dir=way,
            kind=kind,
            text=text,
            meta=tuple(meta.items()),
        )
        self.frames.append(frame)
        self.plane.clock.advance(0.001)

    def operation(self, op: str, text: str, verdict: str, **meta: Json) -> None:
        known: dict[str, Json] = {"rules": ["works"], "binds": [], "actions": ["sql:read"], **meta}
        self.frame(FrameKind.OPERATION, text=text, way="c2s", op=op, verdict=verdict, **known)

    def put_operation_ask(self, op: OperationId) -> Ask:
        question = Question(
            stage=Stage.OPERATION,
            session_id=self.session_id,
            connection_id=self.row.id,
            operation_id=op,
            txn=self.session.txn,
            chain=("x",),
            leaf_hop_sha256=self.hop.sha256(),
            target="orders-prod",
            principal="app",
            action="sql:write",
            text=DELETE,
            binds=(),
            literals=(),
            state=(),
            commitment="00" * 32,
            reason="deploy 7",
            duration_s=900,
            rules=("prod-write",),
            needs=(NEED,),
            trigger_known=True,
            configuration_serial=1,
            policy_digest="x",
        )
        now = self.plane.clock.now()
        ask = Ask(
            id=new_ask_id(now),
            question=question,
            digest=question.digest(),
            excluded=(),
            created_at=now,
            expires_at=now.replace(year=2100),
        )
        self.stores.asks.put(ask)
        given = replace(answer(ask), person=PersonId("alice"), answered_at=now)
        self.stores.answers.put(sign_answer(self.stores.signer("answer"), given))
        self.stores.uses.put(Use(ask_id=ask.id, n=1, kind=UseKind.RAN, by="broker:boot-1", why="", at=now))
        return ask

    def store(self, frames: list[Frame], gaps: tuple[Gap, ...] = (), key: str = "record") -> None:
        """Put two segments and the manifest, and seal the row, as the broker does."""
        half = len(frames) // 2
        segments: list[Segment] = []
        previous = ""
        for number, part in enumerate((frames[:half], frames[half:])):
            raw = segment_header(self.who, number, previous) + b"".join(frame.line(self.who) for frame in part)
            previous = sha256_hex(raw)
            body = gzip.compress(raw)
            put = self.stores.objects.put_new(
                segment_key(self.session_id, self.row.id, number), body, content_type="application/x-ndjson"
            )
            segments.append(
                Segment(
                    number=number,
                    key=put.key,
                    version_id=put.version_id if number else "",
                    raw_bytes=len(raw),
                    sha256_raw=previous,
                    sha256_stored=sha256_hex(body),
                    first=part[0].seq,
                    last=part[-1].seq,
                )
            )
        now = self.plane.clock.now()
        manifest = Manifest(
            session_id=self.session_id,
            connection_id=self.row.id,
            txn=self.session.txn,
            leaf_hop_sha256=self.hop.sha256(),
            opened_at=self.row.opened_at,
            closed_at=now,
            exit="client",
            segments=tuple(segments),
            gaps=gaps,
            policy_digest="x",
            configuration_serial=1,
            broker_build="test",
            sealed_by="boot-1",
        )
        signed = sign_manifest(self.stores.signer(key), manifest)
        self.manifest_key = manifest_key(self.session_id, self.row.id, self.row.opened_at)
        body = canonical({**signed.signed(), "signature": signed.signature})
        self.stores.objects.put_new(self.manifest_key, body, content_type="application/json")
        self.stores.connections.seal(
            self.session_id, self.row.id, at=now, exit="client", key=self.manifest_key, sha256=manifest.sha256()
        )

    def review(self, what: str = "") -> AccessReview:
        people = self.plane.bundles.current().people
        return Review(stores=self.stores, people=people, clock=self.plane.clock)(what or self.session_id)

    def rewrite(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Change the stored manifest, as whoever could replace the object would."""
        document = json.loads(self.stores.objects.rows[self.manifest_key])
        change(document)
        self.stores.objects.rows[self.manifest_key] = canonical(document)


def test_the_three_questions_are_answered() -> None:
    """Who initiated it; which hops did what; was each step approved and recorded: and nothing is found wrong."""
    review = Recorded().review()
    assert review.findings == ()
    assert review.verified
    assert review.initiator.name == "acme/orders deploy"
    assert review.accountable == (("gh:actor_id:1001", "Dave"),)
    assert [(hop.kind, hop.verified) for hop in review.hops] == [("origin", True), ("target", True)]
    (session,) = review.sessions
    assert [(a.name, a.approved, a.rules, a.verified) for a in session.approvals] == [
        ("Alice", True, ("prod-open",), True)
    ]
    read, blocked, held = session.operations
    assert (read.text, read.verdict, read.tag, read.recorded) == (
        "SELECT email FROM customers",
        "mask",
        "SELECT 1",
        True,
    )
    assert (blocked.verdict, blocked.code, blocked.rules, blocked.status) == ("block", "policy_denied", ("no-ddl",), "")
    assert (held.held, held.verdict, held.rules, held.tag) == (True, "forward", ("prod-write", "works"), "DELETE 1")
    assert [approval.name for approval in held.approvals] == ["Alice"]
    (recording,) = session.recordings
    assert (recording.segments, recording.frames, recording.gaps, recording.verified) == (2, 11, (), True)


def test_a_chain_is_reviewed_with_all_its_sessions() -> None:
    """An auditor has a txn from the target's log, and wants everything under it."""
    recorded = Recorded()
    recorded.plane.ask(recorded.plane.token(), "orders-dev")
    review = recorded.review(recorded.session.txn)
    assert [session.target for session in review.sessions] == ["orders-prod", "orders-dev"]


@pytest.mark.parametrize("what", ["", "x", "ses_01m6dsg7e0fwejtv7egfb0rbxm", "01m6dsg7e0pbvvkxmpvansh0q7"])
def test_what_does_not_exist(what: str) -> None:
    """A wrong id is told as such, not as an empty and therefore spotless review."""
    recorded = Recorded()
    with pytest.raises(NotFound):
        Review(stores=recorded.stores, people=(), clock=recorded.plane.clock)(what)


def _segment(recorded: Recorded, number: int) -> str:
    return segment_key(recorded.session_id, recorded.row.id, number)


def _edit_frame(recorded: Recorded) -> None:
    key = _segment(recorded, 0)
    raw = gzip.decompress(recorded.stores.objects.rows[key])
    assert b"FROM customers" in raw
    recorded.stores.objects.rows[key] = gzip.compress(raw.replace(b"FROM customers", b"FROM countries"))


def _edit_frame_and_hashes(recorded: Recorded) -> None:
    _edit_frame(recorded)
    stored = recorded.stores.objects.rows[_segment(recorded, 0)]
    hashes = {"sha256_raw": sha256_hex(gzip.decompress(stored)), "sha256_stored": sha256_hex(stored)}
    recorded.rewrite(lambda document: document["segments"][0].update(hashes))


def _change_answers(recorded: Recorded, **changed: Any) -> None:
    for key, given in recorded.stores.answers.rows.items():
        recorded.stores.answers.rows[key] = replace(given, **changed)


def _answer_to_another_question(recorded: Recorded) -> None:
    signer = recorded.stores.signer("answer")
    for key, given in recorded.stores.answers.rows.items():
        recorded.stores.answers.rows[key] = sign_answer(signer, replace(given, digest="0" * 64))


def _change_ask(recorded: Recorded) -> None:
    question = replace(recorded.ask.question, text="DELETE FROM orders WHERE id = 8")
    recorded.stores.asks.rows[recorded.ask.id] = replace(recorded.ask, question=question)


def _change_hop(recorded: Recorded) -> None:
    key = next(iter(recorded.stores.chains.rows))
    recorded.stores.chains.rows[key] = replace(recorded.stores.chains.rows[key], accountable=("gh:actor_id:9",))


def _change_row(recorded: Recorded, **changed: Any) -> None:
    for key, row in recorded.stores.connections.rows.items():
        recorded.stores.connections.rows[key] = replace(row, **changed)


TAMPERED: dict[str, tuple[Callable[[Recorded], object], str]] = {
    "a frame was edited": (_edit_frame, "was changed"),
    "a frame was edited and the manifest adapted": (_edit_frame_and_hashes, "does not add up"),
    "a segment is missing": (lambda r: r.stores.objects.rows.pop(_segment(r, 1)), "is missing"),
    "a segment was emptied": (lambda r: r.stores.objects.rows.update({_segment(r, 0): b""}), "was changed"),
    "a segment was taken out of the manifest": (lambda r: r.rewrite(lambda d: d["segments"].pop()), "does not add up"),
    "the manifest is gone": (lambda r: r.stores.objects.rows.pop(r.manifest_key), "no such object"),
    "the manifest is no manifest": (lambda r: r.rewrite(lambda d: d.clear()), "not a manifest"),
    "the manifest's exit was changed": (lambda r: r.rewrite(lambda d: d.update(exit="x")), "does not verify"),
    "the row names another manifest": (lambda r: _change_row(r, manifest_sha256="0" * 64), "sealed with"),
    "the row was never sealed": (lambda r: _change_row(r, sealed_at=None), "is not sealed"),
    "the row is of another chain": (lambda r: _change_row(r, target_hop="hop_x"), "of another chain"),
    "an answer was changed": (lambda r: _change_answers(r, via="slack:x"), "does not verify"),
    "an answer to another question": (_answer_to_another_question, "does not verify"),
    "the answers are gone": (lambda r: r.stores.answers.rows.clear(), "without the approvals"),
    "the question was changed": (_change_ask, "was changed after"),
    "the ask is gone": (lambda r: r.stores.asks.rows.pop(r.ask.id), "nothing shows who was asked"),
    "the approval was never used": (lambda r: r.stores.uses.rows.clear(), "without using"),
    "a hop was changed": (_change_hop, "hop_"),
    "the session was changed": (
        lambda r: r.change_session(request=replace(r.session.request, reason="nothing to see")),
        "is not what",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_no_change_goes_unsaid(name: str) -> None:
    """Each is something that an administrator could do to a table or a bucket; the review must say it."""
    tamper, said = TAMPERED[name]
    recorded = Recorded()
    tamper(recorded)
    review = recorded.review()
    assert not review.verified
    assert any(said in finding for finding in review.findings), review.findings


def test_a_manifest_signed_by_another_of_our_keys() -> None:
    """Only the broker's key seals; the token key of a stolen ``sign`` must not."""
    recorded = Recorded()
    recorded.stores.objects.rows.clear()
    _change_row(recorded, sealed_at=None)
    recorded.store(recorded.frames, key="token")
    assert any("does not verify" in finding for finding in recorded.review().findings)


def test_a_hole_in_the_numbers_and_an_admitted_gap() -> None:
    """What was lost is named by the manifest; what is missing and not named was taken out."""
    recorded = Recorded()
    recorded.stores.objects.rows.clear()
    _change_row(recorded, sealed_at=None)
    recorded.store(
        [frame for frame in recorded.frames if frame.seq not in (3, 4)], gaps=(Gap(first=3, last=3, why="x"),)
    )
    findings = recorded.review().findings
    assert any("1 frames are missing, the first is 4" in finding for finding in findings)
    assert any("frames 3 to 3 were lost" in finding for finding in findings)


def test_what_a_dead_broker_left_is_shown_and_not_verified() -> None:
    """A recording without a manifest is not an empty one: a review that said "nothing was done" would be a lie."""
    recorded = Recorded()
    _change_row(recorded, sealed_at=None, manifest_key="", manifest_sha256="")
    review = recorded.review()
    (session,) = review.sessions
    assert [operation.text for operation in session.operations][1:] == ["DROP TABLE orders", DELETE]
    assert not any(operation.recorded for operation in session.operations)
    (recording,) = session.recordings
    assert (recording.frames, recording.verified) == (len(recorded.frames), False)
    assert [finding for finding in review.findings if "is not sealed" not in finding] == []


def test_a_segment_taken_out_of_what_a_dead_broker_left() -> None:
    """The links are all that is there without a manifest, and they must be looked at."""
    recorded = Recorded()
    _change_row(recorded, sealed_at=None, manifest_key="", manifest_sha256="")
    del recorded.stores.objects.rows[_segment(recorded, 0)]
    findings = recorded.review().findings
    assert any("does not follow the segment before it" in finding for finding in findings)
