"""A copy of evidence reads as the stores that it was copied from, whichever these are: so a review of either is one."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chalicelib.domain.identifiers import AskId, SessionId
from chalicelib.domain.reading import EvidenceStores
from chalicelib.domain.store import Stores
from chalicelib.services.copy_evidence import copy_evidence
from chalicelib.services.review import Review
from chalicelib.store.folder import open_folder
from chalicelib.store.folder_copy import FolderCopy
from chalicelib.store.opened import open_stores
from countersign.__main__ import main
from dev.provision import provision
from tests.conformance.backends import Backend, new_settings
from tests.fakes.api_server import ID_TOKEN, ApiServer
from tests.fakes.archive import PEOPLE, ArchiveIn
from tests.fakes.clock import START
from tests.fakes.waiting_clock import WaitingClock


def test_a_copy_reads_as_its_original(stores: Stores, tmp_path: Path) -> None:
    """A row or byte that the copy lost or changed would make the auditor's review another one than ours."""
    archive = ArchiveIn(stores)
    stores.revocations.revoke(f"hop:{archive.deploy.id}", by="carol", why="image", at=archive.clock.now())
    copy_evidence(stores, archive.txn, FolderCopy(tmp_path / "copy"), archive.clock)
    copied, faults = open_folder(tmp_path / "copy")
    assert faults == ()
    assert copied.chains.hops(archive.txn) == stores.chains.hops(archive.txn)
    kept = [replace(session, verifier=None) for session in stores.sessions.of_txn(archive.txn)]
    assert list(copied.sessions.of_txn(archive.txn)) == kept
    for on in (archive.orders, archive.db):
        assert list(copied.connections.of_session(on.session_id)) == list(stores.connections.of_session(on.session_id))
        assert list(copied.objects.keys(f"rec/v1/{on.session_id}/")) == on.segments
        for key in (*on.segments, on.manifest_key):
            assert copied.objects.get(key) == stores.objects.get(key)
    for ask_id in _asks(stores, archive.orders.session_id):
        assert copied.asks.get(ask_id) == stores.asks.get(ask_id)
        assert list(copied.answers.of_ask(ask_id)) == list(stores.answers.of_ask(ask_id))
        assert list(copied.uses.of_ask(ask_id)) == list(stores.uses.of_ask(ask_id))
    revoked = frozenset({f"hop:{archive.deploy.id}"})
    assert copied.revocations.any_of(revoked) == stores.revocations.any_of(revoked) is not None
    assert copied.keys.public_keys("record") == stores.keys.public_keys("record")


def test_a_review_of_a_copy_is_the_review_of_its_original(stores: Stores, tmp_path: Path) -> None:
    """It runs on the folder unmodified, and says the same."""
    archive = ArchiveIn(stores)
    copy_evidence(stores, archive.txn, FolderCopy(tmp_path / "copy"), archive.clock)
    copied, _ = open_folder(tmp_path / "copy")
    readers: list[EvidenceStores] = [stores, copied]
    ours, theirs = (Review(stores=each, people=PEOPLE, clock=archive.clock)(archive.txn) for each in readers)
    assert ours == theirs
    assert ours.verified


def test_the_auditors_commands_on_a_deployment(backend: Backend, tmp_path: Path) -> None:
    """Fingerprints at onboarding, later a review, a copy and a verification: online or not."""
    if backend.name == "memory":
        pytest.skip("the commands read a deployment")
    settings = new_settings()
    provision(settings)
    environment = {
        "COUNTERSIGN_PREFIX": settings.prefix,
        "COUNTERSIGN_BUCKET": settings.bucket,
        "AWS_REGION": settings.region,
    }

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        out = io.StringIO()
        clock = WaitingClock(START + timedelta(minutes=30))  # no hour of it is over yet, so that no digest is missing
        code = main([*arguments, "--json"], environment, out=out, err=io.StringIO(), clock=clock)
        return code, json.loads(out.getvalue())

    archive = ArchiveIn(open_stores(settings))
    trust, folder = str(tmp_path / "trust.txt"), str(tmp_path / "copy")
    code, told = run("verify", "--write-trust", trust)
    assert (code, sorted(told["keys"])) == (
        0,
        ["activation", "answer", "copy", "digest", "record", "signoff", "sweep", "token"],
    )
    assert run("verify", "--write-trust", trust)[0] == 64, "an earlier file is never replaced"
    for more in ([], ["--trust", trust]):
        code, told = run("verify", archive.txn, *more)
        assert (code, told["anchored_by"], told["checked"]["frames"]) == (0, "file" if more else "aws", 20)
    assert run("review", archive.db.session_id)[1]["verified"] is True
    code, told = run("evidence", archive.txn, folder)
    assert (code, told["findings"], len(told["sha256"])) == (0, [], 64)
    assert run("evidence", archive.txn, folder)[0] == 64
    assert run("verify", folder, "--trust", trust, "--sha256", told["sha256"])[0] == 0
    assert run("verify", folder)[0] == 78


def test_a_replay_of_the_deployment_is_told_before_a_byte_is_shown(backend: Backend, tmp_path: Path) -> None:
    """The service is told who, what and which part; where it is not there or refuses, nothing is shown and nothing is
    written; of a copy nobody is told, and that is said."""
    if backend.name == "memory":
        pytest.skip("the commands read a deployment")
    settings = new_settings()
    provision(settings)
    archive, clock = ArchiveIn(open_stores(settings)), WaitingClock()
    deployment = {
        "COUNTERSIGN_PREFIX": settings.prefix,
        "COUNTERSIGN_BUCKET": settings.bucket,
        "AWS_REGION": settings.region,
    }
    session, page = archive.orders.session_id, tmp_path / "replay.html"

    def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = main(["replay", *arguments], deployment | environment, out=out, err=err, clock=clock)
        return code, out.getvalue(), err.getvalue()

    with ApiServer() as api:
        service = {"COUNTERSIGN_API": api.url, "COUNTERSIGN_ID_TOKEN": ID_TOKEN, "XDG_STATE_HOME": api.state.name}
        for more in ((), ("--json",), ("--find", "delete"), ("--html", str(page))):
            code, out, err = run(session, *more)
            assert (code, "DELETE" in out, "COUNTERSIGN_API" in out + err) == (64, False, True), (out, err)
            for status, said in ((404, "not_found"), (503, "store_unavailable")):
                body = json.dumps({"code": said, "message": "no", "hint": "", "request_id": "r"}).encode()
                for _ in range(9):  # a service that is busy is asked again
                    api.answer("POST /v1/replays", status=status, body=body)
                code, out, err = run(session, *more, **service)
                assert code != 0
                assert "DELETE" not in out + err
                api.forget("POST /v1/replays")
        assert not page.exists()
        api.seen.clear()
        code, out, _ = run(session, "--speed", "1000", "--from", "op_3", **service)
        assert (code, "DELETE FROM orders" in out, "DROP TABLE" in out) == (0, True, False)
        code, out, _ = run(archive.txn, "--json", "--connection", archive.db.row.id, **service)
        assert (code, json.loads(out)["recordings"][0]["target"]) == (0, "db-prod")
        assert run(archive.txn, "--html", str(page), **service)[0] == 0
        assert run(session, "--from", "5m", "--speed", "1000", **service)[0] == 0
        told = [json.loads(seen.body) for seen in api.calls("POST /v1/replays")]
        assert told == [
            {"session_id": session, "form": "terminal", "begin": "op_3"},
            {"session_id": archive.db.session_id, "form": "json", "connection_id": archive.db.row.id},
            {"session_id": session, "form": "page"},
            {"session_id": archive.db.session_id, "form": "page"},
            {"session_id": session, "form": "terminal", "begin": "300 s"},
        ]
        assert "DELETE FROM orders" in page.read_text()
    copy_evidence(archive.stores, archive.txn, FolderCopy(tmp_path / "copy"), archive.clock)
    code, out, err = run(str(tmp_path / "copy"), "--speed", "1000")
    assert (code, "DELETE" in out, "nobody is told" in err) == (78, True, True)


def test_the_review_of_a_period_on_a_deployment(backend: Backend, tmp_path: Path) -> None:
    """Every session of a day, its population, a sample, a page and a table; and the target's own log against them."""
    if backend.name == "memory":
        pytest.skip("the commands read a deployment")
    settings = new_settings()
    provision(settings)
    environment = {
        "COUNTERSIGN_PREFIX": settings.prefix,
        "COUNTERSIGN_BUCKET": settings.bucket,
        "AWS_REGION": settings.region,
    }
    stores = open_stores(settings)
    archive, other = ArchiveIn(stores), ArchiveIn(stores)

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        out = io.StringIO()
        clock = WaitingClock(START + timedelta(hours=2))
        code = main([*arguments, "--json"], environment, out=out, err=io.StringIO(), clock=clock)
        return code, json.loads(out.getvalue())

    day = ("--since", "2026-11-02", "--until", "2026-11-02T10:00:00Z")
    page, table = tmp_path / "review.html", tmp_path / "review.csv"
    code, told = run("review", *day, "--target", "db-prod", "--html", str(page), "--csv", str(table))
    assert (code, told["verified"], told["sessions"]) == (0, True, 2), told["findings"]
    assert {chain["txn"] for chain in told["chains"]} == {archive.txn, other.txn}
    assert (page.stat().st_mode & 0o777, page.read_text()[:15]) == (0o600, "<!doctype html>")
    assert len(table.read_text().splitlines()) > 10
    assert run("review", *day, "--html", str(page))[0] == 64, "what was there is never replaced"
    code, whole = run("review", *day, "--population")
    assert (code, whole["sessions"], whole["manifests_compared"], whole["findings"]) == (0, 4, 4, [])
    assert whole["hours_without_digest"] == 10
    code, drawn = run("review", *day, "--sample", "2", "--seed", "Q4")
    assert (code, len(drawn["sample"]), drawn["population_sha256"]) == (0, 2, whole["population_sha256"])
    code, listed = run("review", *day, "--pipeline", "acme/orders", "--brief")
    assert (code, len(listed["sessions"]), listed["verified"]) == (0, 4, None)
    log = tmp_path / "auth.log"
    log.write_text("2026-11-02T09:00:00Z db sshd[1]: Server listening\n")
    code, told = run("reconcile", "db-prod", "--log", str(log), "--until", "2026-11-02T10:00:00Z")
    assert (code, len(told["connections_without_login"])) == (65, 2)


def _asks(stores: Stores, session_id: SessionId) -> list[AskId]:
    session = stores.sessions.get(session_id)
    assert session.ask_id is not None
    return [session.ask_id]
