"""The access review: what it says of a sound record, and that no change to a record goes unsaid."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.domain.canonical import sha256_hex
from chalicelib.domain.chain import Hop
from chalicelib.domain.errors import NotFound
from chalicelib.domain.identifiers import SessionId
from chalicelib.domain.identity import Assurance
from chalicelib.domain.recording import FrameKind, Gap, LeftOut, segment_key
from chalicelib.identity.jws import sign_answer, sign_hop
from chalicelib.services.recordings import _result_in, _result_line, read_recording
from chalicelib.services.review import Review
from chalicelib.services.reviewed import AccessReview, FindingKind, review_json
from chalicelib.services.standing import CLOSED_BY_OWNER, CLOSED_BY_OWNER_WHY
from tests.fakes import aftermath
from tests.fakes.archive import DELETE, PEOPLE, Archive, Connected
from tests.fakes.broker import World


def review(archive: Archive, what: str = "") -> AccessReview:
    return Review(stores=archive.stores, people=PEOPLE, clock=archive.clock)(what or archive.txn)


def test_the_three_questions_are_answered() -> None:
    """Who initiated it; which hops did what; was each step approved and recorded: and nothing is found wrong."""
    found = review(archive := Archive(), archive.orders.session_id)
    assert found.findings == ()
    assert found.verified
    assert found.initiator.name == "acme/orders deploy"
    assert found.accountable == (("gh:actor_id:1001", "Dave"),)
    assert [(hop.kind, hop.verified) for hop in found.hops] == [("origin", True), ("target", True)]
    (session,) = found.sessions
    assert [(a.name, a.approved, a.rules, a.verified) for a in session.approvals] == [
        ("Alice", True, ("prod-open",), True)
    ]
    read, blocked, held = session.operations
    assert (read.text, read.verdict, read.tag, read.recorded) == (
        "SELECT email FROM customers",
        "mask",
        "SELECT 2",
        True,
    )
    assert (blocked.verdict, blocked.code, blocked.rules, blocked.status) == ("block", "policy_denied", ("no-ddl",), "")
    assert (held.held, held.verdict, held.rules, held.tag) == (True, "forward", ("prod-write", "works"), "DELETE 1")
    assert held.text == DELETE
    assert [approval.name for approval in held.approvals] == ["Alice"]
    (recording,) = session.recordings
    assert (recording.segments, recording.frames, recording.gaps, recording.verified) == (2, 11, (), True)


def test_the_tree_of_a_chain() -> None:
    """Three hops, each with what it may and what it opened: the founding story's answer."""
    archive = Archive()
    found = review(archive)
    assert found.findings == ()
    hops = {hop.identity.name: hop for hop in found.hops}
    root, deploy, tool = (hops[name] for name in ("acme/orders deploy", "deploy-svc", "schema-tool"))
    assert (root.parent, deploy.parent, tool.parent) == ("", root.id, deploy.id)
    assert (root.scope, deploy.scope) == (("*",), ("db-prod", "orders-prod#sql:read"))
    assert tool.scope == ("db-prod/deploy#ssh:exec",)
    assert (deploy.assurance, tool.assurance, deploy.max_depth) == ("vouched", "attested", 3)
    assert (root.sessions, deploy.sessions, tool.sessions) == (
        (archive.orders.session_id,),
        (),
        (archive.db.session_id,),
    )
    assert tool.teams == ("schema-tools",)
    assert (deploy.ticket, deploy.key_thumbprint) == (archive.deploy.ticket, archive.deploy.key_thumbprint)
    ssh = next(session for session in found.sessions if session.target == "db-prod")
    assert [(op.text, op.status, op.tag) for op in ssh.operations] == [
        ("uptime", "ok", "exit 0"),
        ("cat /nowhere", "error", "exit 1"),
        ("systemctl stop postgresql", "", ""),
    ]


def test_a_sessions_review_has_the_hops_above_it_and_no_other() -> None:
    """Who may see one session's review need not see what its siblings did."""
    archive = Archive()
    names = [hop.identity.name for hop in review(archive, archive.db.session_id).hops]
    assert names == ["acme/orders deploy", "deploy-svc", "schema-tool", "deploy@db-prod"]


def test_what_was_revoked_is_said_with_all_that_is_below_it() -> None:
    """By whom, why and when, and that a child ended with its parent; the hop above lives."""
    archive = Archive()
    archive.stores.revocations.revoke(f"hop:{archive.deploy.id}", by="carol", why="image", at=archive.clock.now())
    archive.stores.revocations.revoke(
        f"session:{archive.orders.session_id}", by="dave", why="done", at=archive.clock.now()
    )
    found = review(archive)
    revoked = {
        hop.identity.name: hop.revoked and (hop.revoked.key, hop.revoked.by, hop.revoked.why) for hop in found.hops
    }
    key = f"hop:{archive.deploy.id}"
    assert revoked == {
        "acme/orders deploy": None,
        "app@orders-prod": None,
        "deploy-svc": (key, "carol", "image"),
        "schema-tool": (key, "carol", "image"),
        "deploy@db-prod": (key, "carol", "image"),
    }
    assert [session.revoked and session.revoked.by for session in found.sessions] == ["dave", None]
    assert found.verified, "a revocation is a fact and no fault"


def test_a_session_that_its_owner_closed_is_not_called_revoked() -> None:
    """Closing is how every session ends; a review that calls each of them revoked hides the one that was."""
    archive = Archive()
    session, now = archive.stores.sessions.get(archive.orders.session_id), archive.clock.now()
    assert session.actor.key == archive.root.actor.key
    archive.stores.revocations.revoke(f"session:{session.id}", by=session.actor.key, why=CLOSED_BY_OWNER_WHY, at=now)
    archive.stores.sessions.close(session.id, CLOSED_BY_OWNER, now)
    closed = next(one for one in review(archive).sessions if one.id == session.id)
    assert (closed.revoked, closed.close_reason, closed.closed_at) == (None, CLOSED_BY_OWNER, now)
    archive.stores.revocations.revoke("target:orders-prod", by="carol", why="leak", at=now)
    closed = next(one for one in review(archive).sessions if one.id == session.id)
    assert closed.revoked is not None
    assert closed.revoked.key == "target:orders-prod", "a close hides nothing else"


@pytest.mark.parametrize(("by", "why"), [("carol", CLOSED_BY_OWNER_WHY), ("", "stop it"), ("carol", "stop it")])
def test_a_revocation_does_not_hide_behind_the_close_that_follows_it(by: str, why: str) -> None:
    """Attack: what was revoked in an incident is closed by its owner a second later, and looks like any other."""
    archive = Archive()
    session, now = archive.stores.sessions.get(archive.orders.session_id), archive.clock.now()
    archive.stores.revocations.revoke(f"session:{session.id}", by=by or session.actor.key, why=why, at=now)
    archive.stores.sessions.close(session.id, CLOSED_BY_OWNER, now)
    found = next(one for one in review(archive).sessions if one.id == session.id)
    assert found.revoked is not None
    assert found.revoked.why == why


@pytest.mark.parametrize("key", ["txn:{txn}", "identity:{issuer}#9001:700", "issuer:{issuer}"])
def test_a_revocation_of_the_chain_or_an_identity_is_the_hops(key: str) -> None:
    """What ends a hop need not name it."""
    archive = Archive()
    key = key.format(txn=archive.txn, issuer=archive.root.actor.issuer)
    archive.stores.revocations.revoke(key, by="carol", why="x", at=archive.clock.now())
    assert all(hop.revoked is not None and hop.revoked.key == key for hop in review(archive).hops)


def test_json_is_whole_and_plain() -> None:
    """What the API and ``--json`` give: values that any program reads, findings by name."""
    archive = Archive()
    archive.stores.objects.rows.pop(archive.db.segments[1])
    told = json.loads(json.dumps(review_json(review(archive))))
    assert told["verified"] is False
    assert told["findings"][0] == {"key": archive.db.segments[1], "kind": "missing", "what": "is missing"}
    assert told["hops"][0]["issued_at"] == "2026-11-02T09:30:00.000Z"
    assert told["sessions"][1]["leaf_hop"] == archive.tool.id


@pytest.mark.parametrize("what", ["x", "ses_01m6dsg7e0fwejtv7egfb0rbxm", "01m6dsg7e0pbvvkxmpvansh0q7"])
def test_what_does_not_exist(what: str) -> None:
    """A wrong id is told as such, not as an empty and therefore spotless review."""
    with pytest.raises(NotFound):
        review(Archive(), what)


def _edit_frame(archive: Archive) -> None:
    key = archive.orders.segments[0]
    raw = gzip.decompress(archive.stores.objects.rows[key])
    assert b"FROM customers" in raw
    archive.stores.objects.rows[key] = gzip.compress(raw.replace(b"FROM customers", b"FROM countries"), mtime=0)


def _edit_frame_and_hashes(archive: Archive) -> None:
    _edit_frame(archive)
    stored = archive.stores.objects.rows[archive.orders.segments[0]]
    hashes = {"sha256_raw": sha256_hex(gzip.decompress(stored)), "sha256_stored": sha256_hex(stored)}
    archive.change_manifest(archive.orders, lambda document: document["segments"][0].update(hashes))


def _answer_to_another_question(archive: Archive) -> None:
    signer = archive.stores.signer("answer")
    for key, given in archive.stores.answers.rows.items():
        archive.stores.answers.rows[key] = sign_answer(signer, replace(given, digest="0" * 64))


def _change_ask(archive: Archive) -> None:
    ask_id, ask = next((key, ask) for key, ask in archive.stores.asks.rows.items() if ask.question.text)
    question = replace(ask.question, text="DELETE FROM orders WHERE id = 8")
    archive.stores.asks.rows[ask_id] = replace(ask, question=question)


def _drop_ask(archive: Archive) -> None:
    ask_id = next(key for key, ask in archive.stores.asks.rows.items() if ask.question.text)
    del archive.stores.asks.rows[ask_id]


def _change_request(archive: Archive) -> None:
    request = archive.stores.sessions.rows[archive.orders.session_id].request
    archive.change_session(archive.orders, request=replace(request, reason="nothing to see"))


def _change_grant(archive: Archive, **changed: object) -> None:
    grant = archive.stores.sessions.rows[archive.db.session_id].grant
    assert grant is not None
    archive.change_session(archive.db, grant=replace(grant, **changed))  # type: ignore[arg-type] # a test's choice


def _wider(archive: Archive, hop: Hop) -> None:
    """Sign a hop with more than its parent, as a ``sign`` that erred would, and those below it anew."""
    signed = sign_hop(archive.stores.signer("token"), replace(hop, scope=("*",)))
    archive.change_hop(hop, scope=signed.scope, signature=signed.signature)


def _earlier(archive: Archive) -> None:
    archive.change_row(archive.orders, opened_at=archive.orders.row.opened_at.replace(hour=3))


TAMPERED: dict[str, tuple[Callable[[Archive], object], str]] = {
    "a frame was edited": (_edit_frame, "was changed"),
    "a frame was edited and the manifest adapted": (_edit_frame_and_hashes, "does not add up"),
    "a segment is missing": (lambda a: a.stores.objects.rows.pop(a.orders.segments[1]), "is missing"),
    "a segment was emptied": (lambda a: a.stores.objects.rows.update({a.orders.segments[0]: b""}), "was cut"),
    "a segment was taken out of the manifest": (
        lambda a: a.change_manifest(a.orders, lambda d: d["segments"].pop()),
        "does not add up",
    ),
    "the manifest is gone": (lambda a: a.stores.objects.rows.pop(a.orders.manifest_key), "is missing"),
    "the manifest is no manifest": (lambda a: a.change_manifest(a.orders, lambda d: d.clear()), "not a manifest"),
    "the manifest's exit was changed": (
        lambda a: a.change_manifest(a.orders, lambda d: d.update(exit="x")),
        "does not verify",
    ),
    "the row names another manifest": (
        lambda a: a.change_row(a.orders, manifest_sha256="0" * 64),
        "is not the manifest that",
    ),
    "the row was never sealed": (lambda a: a.change_row(a.orders, sealed_at=None), "is not sealed"),
    "the row is of another chain": (lambda a: a.change_row(a.orders, target_hop="hop_x"), "of another chain"),
    "the row's exit was changed": (lambda a: a.change_row(a.orders, exit="drained"), "the row was altered"),
    "the row's peer was changed": (lambda a: a.change_row(a.db, peer="10.9.9.9"), "which the broker signed"),
    "the row's time was changed": (_earlier, "names another one before it"),
    "the row is gone": (
        lambda a: a.stores.connections.rows.pop((a.db.session_id, a.db.row.id)),
        "has no connection",
    ),
    "the session is gone": (lambda a: a.stores.sessions.rows.pop(a.db.session_id), "has no connection"),
    "an answer was changed": (lambda a: a.change_answers(via="slack:x"), "does not verify"),
    "the card of an answer was changed": (lambda a: a.change_answers(card="[]"), "its card is not"),
    "an answer to another question": (_answer_to_another_question, "answers something else"),
    "the answers are gone": (lambda a: a.stores.answers.rows.clear(), "without the approvals"),
    "the question was changed": (_change_ask, "was changed after"),
    "the ask is gone": (_drop_ask, "nothing shows who was asked"),
    "the approval was never used": (lambda a: a.stores.uses.rows.clear(), "without using"),
    "a hop was changed": (lambda a: a.change_hop(a.root, accountable=("gh:actor_id:9",)), "was changed after"),
    "a hop is gone": (lambda a: a.stores.chains.rows.pop((a.txn, 1, a.deploy.id)), "is missing"),
    "a hop has more than its parent": (lambda a: _wider(a, a.tool), "is not a part of its parent"),
    "a vouched hop was called attested": (
        lambda a: a.change_hop(a.deploy, evidence=replace(a.deploy.evidence, assurance=Assurance.ATTESTED)),
        "was changed after",
    ),
    "the session was changed": (_change_request, "is not what"),
    "the grant was moved": (lambda a: _change_grant(a, target="payroll"), "holds a grant that is for something else"),
    "the grant's rules were changed": (lambda a: _change_grant(a, rules=("all-is-well",)), "its row was altered"),
    "the grant lives longer than its hop": (
        lambda a: _change_grant(a, expires_at=a.tool.expires_at.replace(year=2100)),
        "for longer than the hop",
    ),
    "the session names another actor": (lambda a: a.change_session(a.db, actor=a.root.actor), "names another actor"),
    "an object was put beside the recording": (
        lambda a: a.stores.objects.rows.update({segment_key(a.db.session_id, a.db.row.id, 9): b"x"}),
        "belongs to no connection",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_no_change_goes_unsaid(name: str) -> None:
    """Each is something that an administrator could do to a table or a bucket; the review must say it."""
    tamper, said = TAMPERED[name]
    archive = Archive()
    tamper(archive)
    found = review(archive)
    assert not found.verified
    assert any(said in str(finding) for finding in found.findings), found.findings


def test_a_manifest_signed_by_another_of_our_keys() -> None:
    """Only the broker's key seals; the token key of a stolen ``sign`` must not."""
    archive = Archive()
    manifest = archive.stores.objects.rows.pop(archive.orders.manifest_key)
    archive.change_row(archive.orders, sealed_at=None)
    segments = json.loads(manifest)["segments"]
    assert len(segments) == 2
    archive.seal(archive.orders, (), key="token")
    (kind,) = {finding.kind for finding in review(archive).findings if finding.key == archive.orders.manifest_key}
    assert kind is FindingKind.OTHER_KEY


def test_an_operation_outside_the_delegated_scope_is_found() -> None:
    """A broker that erred, or was changed, ran what the chain may not; the record shows it, so the review must."""
    archive = Archive()
    frames = archive.db.frames
    wrong = [
        replace(frame, meta=tuple((name, ["ssh:shell"] if name == "actions" else value) for name, value in frame.meta))
        for frame in frames
    ]
    archive.store_again(archive.db, wrong)
    found = [finding for finding in review(archive).findings if finding.kind is FindingKind.WIDER]
    assert [finding.key for finding in found] == ["op_4", "op_5"], "op_6 was blocked, which is as it should be"


def test_a_hole_in_the_numbers_and_an_admitted_gap() -> None:
    """What was lost is named by the manifest; what is missing and not named was taken out."""
    archive = Archive()
    kept = [frame for frame in archive.orders.frames if frame.seq not in (3, 4)]
    archive.store_again(archive.orders, kept, gaps=(Gap(first=3, last=3, why="x"),))
    findings = [str(finding) for finding in review(archive).findings]
    assert any("lacks 1 frames, the first is 4" in finding for finding in findings)
    assert any("lost frames 3 to 3" in finding for finding in findings)


def test_numbers_chosen_to_exhaust_the_reader() -> None:
    """Attack: who makes a copy signs a gap of a billion billion frames, and the auditor's machine counts them."""
    archive = Archive()
    frames = [replace(archive.orders.frames[0], seq=10**18), *archive.orders.frames]
    archive.store_again(archive.orders, frames, gaps=(Gap(first=20, last=10**18 - 1, why="x"),))
    findings = [str(finding) for finding in review(archive).findings]
    assert any("lacks 8 frames, the first is 12" in finding for finding in findings), findings


def unseal(archive: Archive, on: Connected) -> None:
    archive.change_row(on, sealed_at=None, manifest_key="", manifest_sha256="")
    del archive.stores.objects.rows[on.manifest_key]


def test_what_a_dead_broker_left_is_shown_and_not_verified() -> None:
    """A recording without a manifest is not an empty one: a review that said "nothing was done" would be a lie."""
    archive = Archive()
    unseal(archive, archive.orders)
    found = review(archive, archive.orders.session_id)
    (session,) = found.sessions
    assert [operation.text for operation in session.operations][1:] == ["DROP TABLE orders", DELETE]
    assert not any(operation.recorded for operation in session.operations)
    (recording,) = session.recordings
    assert (recording.frames, recording.verified) == (len(archive.orders.frames), False)
    assert [finding.kind for finding in found.findings] == [FindingKind.UNSEALED]


def test_a_segment_taken_out_of_what_a_dead_broker_left() -> None:
    """The links are all that is there without a manifest, and they must be looked at."""
    archive = Archive()
    unseal(archive, archive.orders)
    del archive.stores.objects.rows[archive.orders.segments[0]]
    findings = review(archive, archive.orders.session_id).findings
    assert any("does not follow the segment before it" in str(finding) for finding in findings)


def test_names_of_people_are_of_the_bundle() -> None:
    """A person whom the bundle no longer knows is shown by their id, never left out."""
    archive = Archive()
    found = Review(stores=archive.stores, people=(), clock=archive.clock)(SessionId(archive.orders.session_id))
    assert [approval.name for approval in found.sessions[0].approvals] == ["alice"]
    assert found.accountable == (("gh:actor_id:1001", ""),)


def test_a_manifest_that_hides_what_was_left_out() -> None:
    """Frames say that results were left out and the signed manifest does not: whoever sealed it did not read them."""
    archive = Archive()
    on = archive.orders
    told = (("op", "op_1"), ("status", "ok"), ("left_out", LeftOut(rows=9, bytes=90).told()))
    outcome = replace(on.frames[-1], seq=len(on.frames) + 1, kind=FrameKind.OUTCOME, meta=told)
    archive.store_again(on, [*on.frames, outcome])
    assert [(found.key, found.kind) for found in review(archive).findings] == [
        (on.manifest_key, FindingKind.ALTERED),
    ]


def long_recording() -> tuple[World, list[str]]:
    """A recording of 40 segments of rows, sealed, and their keys. Whoever alters one keeps its version."""
    world = World()
    world.stores.objects._version = lambda key: "v1"  # type: ignore[method-assign]
    connection = world.connect()
    for number in range(40):
        lines = "\n".join(f'["{number}","{line}"]' for line in range(100))
        connection.recording.accept(FrameKind.ROWS, "s2c", lines, (("op", "op_1"), ("columns", ["n", "line"])))
        connection.recording.flush()
    connection.close("client_left")
    keys = sorted(key for key in world.stores.objects.rows if key.startswith("rec/"))
    assert len(keys) > 40
    return world, keys


def test_a_long_recording_is_read_ahead_in_its_order() -> None:
    """More segments than are read at once: every frame once, in order, whether its text is kept or not."""
    world, _ = long_recording()
    row = aftermath.row(world)
    hop = world.stores.chains.hops(row.txn)[row.target_hop].sha256()
    for texts in (False, True):
        read = read_recording(world.stores.objects, world.stores.keys, row, hop, texts=texts)
        assert read.recording.verified
        assert [frame["seq"] for frame in read.frames] == list(range(1, len(read.frames) + 1))
        assert {frame["txn"] for frame in read.frames} == {row.txn}
        assert ["text" in frame for frame in read.frames if frame["kind"] == "rows"] == [texts] * 40


@pytest.mark.parametrize("place", [0, 7, 8, 9, 20, 39])
@pytest.mark.parametrize("done", ["missing", "altered", "truncated", "out_of_order"])
def test_a_tampered_segment_of_a_long_recording_is_named(place: int, done: str) -> None:
    """What is read ahead is checked like what is not: each is named by its key, and nothing else is."""
    world, keys = long_recording()
    stored = world.stores.objects.rows
    match done:
        case "missing":
            del stored[keys[place]]
        case "altered":
            raw = gzip.decompress(stored[keys[place]])
            stored[keys[place]] = gzip.compress(raw[:-30] + b"x" + raw[-29:], mtime=0)
        case "truncated":
            stored[keys[place]] = stored[keys[place]][:-9]
        case _:
            stored[keys[place]] = stored[keys[place + 1]]
    assert [(found.key, found.kind.value) for found in aftermath.findings(world)] == [(keys[place], done)]


def test_a_line_that_only_looks_like_a_frame_of_results() -> None:
    """A recording of somebody else's, in a segment that verifies: skipping its text must not skip its ids."""
    world, _ = long_recording()
    manifest = aftermath.manifest(world)
    ours = _result_line(manifest)
    line = world.stores.objects.rows
    raw = gzip.decompress(line[manifest.segments[5].key])
    (mine,) = [one for one in raw.splitlines() if b'"kind":"rows"' in one]
    assert _result_in(mine, 0, len(mine), ours) == {"seq": mine_seq(mine), "kind": "rows", **ours.ids}
    for before, after in (
        (manifest.session_id, "ses_" + "0" * 26),
        (manifest.connection_id, "con_" + "0" * 26),
        (f'"txn":"{manifest.txn}"', '"txn":"' + "0" * 26 + '"'),
        ('"dir":"s2c"', '"dir":"c2s"'),
        ('"kind":"rows"', '"kind":"operation"'),
        ('{"v":1', '{"x":"},{","v":1'),
    ):
        forged = mine.replace(before.encode(), after.encode())
        assert forged != mine
        assert _result_in(forged, 0, len(forged), ours) is None


def mine_seq(line: bytes) -> int:
    return int(json.loads(line)["seq"])
