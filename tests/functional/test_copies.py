"""``POST /v1/copies`` and `countersign evidence --archive`: who may have a copy vouched for, and what is kept of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chalice.test import HTTPResponse

from chalicelib.domain.canonical import canonical
from chalicelib.domain.copy_statement import COPY_SIGNATURE_TYPE, copy_key, parse_statement
from chalicelib.domain.errors import AlreadyExists
from chalicelib.domain.signature import KeyPurpose
from chalicelib.identity.jws import verify_sha256
from chalicelib.services.anchors import fingerprints, trust_text
from chalicelib.services.verify import verify
from countersign.evidence_archive import make_archive
from countersign.evidence_source import open_source
from countersign.failures import Failure
from countersign.output import Output
from countersign.service import Service
from countersign.settings import read_settings
from countersign.trust import read_trust
from tests.fakes.memory import MemoryStores
from tests.fakes.served_plane import ServedPlane
from tests.fakes.waiting_clock import WaitingClock
from tests.functional.world import STORY, Holder, World

COPY = {"sha256": "ab" * 32, "files": 12, "bytes": 34_567}
FILES = {
    **STORY,
    "policies/main.cedar": STORY["policies/main.cedar"]
    + '@id("all-copy") permit (principal, action == Action::"chain:review", resource);\n',
}


@pytest.fixture
def world() -> World:
    return World()


def vouch(world: World, holder: Holder, subject: str, **changed: Any) -> HTTPResponse:
    return world.post(holder, "/v1/copies", subject=subject, **{**COPY, **changed})


def kept(world: World) -> list[str]:
    return [key for key in world.plane.stores.objects.rows if key.startswith("copies/")]


def audited(world: World) -> list[tuple[str, str, str]]:
    names = ("evidence.copied", "evidence.copy_refused")
    return [(one.name.value, one.code, one.actor) for one in world.plane.events.seen if one.name.value in names]


def test_a_copy_is_stated_signed_kept_and_told(world: World) -> None:
    """Who, of what, which hash, when: by a key of its own, and put once."""
    session = world.session(world.runner)
    answer = vouch(world, world.carol, session)
    assert answer.status_code == 201, answer.json_body
    statement = parse_statement(canonical(answer.json_body["statement"]))
    verify_sha256(
        world.plane.stores.keys, KeyPurpose.COPY, COPY_SIGNATURE_TYPE, statement.signature, statement.digest()
    )
    assert (statement.subject, statement.sha256, statement.files, statement.bytes) == (session, "ab" * 32, 12, 34_567)
    assert statement.stated_at == world.plane.clock.now()
    assert kept(world) == [answer.json_body["key"]] == [copy_key(statement.id, statement.stated_at)]
    assert parse_statement(world.plane.stores.objects.rows[answer.json_body["key"]]) == statement
    assert statement.hop == world.hop(world.carol)
    assert audited(world) == [("evidence.copied", "", statement.copied_by)]
    assert vouch(world, world.carol, world.txn(world.runner)).status_code == 201


@pytest.mark.parametrize("who", ["runner", "agent", "stranger"])
def test_who_may_not_review_may_not_copy(world: World, who: str) -> None:
    """Attack: a pipeline has a doctored copy of its own evidence signed. It is told, and nothing is kept."""
    session = world.session(world.runner)
    answer = vouch(world, getattr(world, who), session)
    assert (answer.status_code, answer.json_body["code"]) == (404, "not_found")
    assert kept(world) == []
    assert [event[:2] for event in audited(world)] == [("evidence.copy_refused", "not_found")]


@pytest.mark.parametrize("subject", ["ses_01m6dsg7e0fwejtv7egfb0rbxm", "01m6dsg7e0fwejtv7egfb0rbxm"])
def test_a_copy_of_nothing_is_not_stated(world: World, subject: str) -> None:
    """What is not there and what may not be seen are one answer."""
    answer = vouch(world, world.carol, subject)
    assert (answer.status_code, kept(world)) == (404, [])


@pytest.mark.parametrize(
    "changed", [{"sha256": "x"}, {"files": 0}, {"bytes": -1}, {"files": 100_001}, {"subject": "x"}, {"more": 1}]
)
def test_what_is_no_copy_is_refused(world: World, changed: dict[str, Any]) -> None:
    """A statement over nonsense would be a signature that somebody can show around."""
    body = {"subject": world.session(world.runner), **COPY, **changed}
    assert world.post(world.carol, "/v1/copies", **body).status_code == 400
    assert kept(world) == []


def test_nothing_is_given_out_that_could_not_be_kept(world: World) -> None:
    """A statement that the bucket has never heard of is no witness."""
    session = world.session(world.runner)
    assert world.carol.token
    world.plane.stores.fail("objects")
    answer = vouch(world, world.carol, session)
    world.plane.stores.heal("objects")
    assert answer.status_code == 503
    assert "signature" not in json.dumps(answer.json_body)
    assert kept(world) == []


# -- the command's work, against the real service --------------------------------------------------------------------


@pytest.fixture
def plane() -> Iterator[ServedPlane]:
    with ServedPlane(files=FILES) as served:
        yield served


class Auditor:
    """Somebody with the stores' rights and an identity at the service."""

    def __init__(self, plane: ServedPlane, folder: Path) -> None:
        self.plane, self.folder = plane, folder
        self.clock = WaitingClock(plane.clock.now())
        self.stores: MemoryStores = plane.stores
        environment = {
            "COUNTERSIGN_API": plane.public_url,
            "COUNTERSIGN_ID_TOKEN": plane.ci_token(run_id="6001"),
            "XDG_STATE_HOME": str(folder / "state"),
            "PATH": os.defpath,
        }
        self.service = Service(read_settings(environment), self.clock)
        asked = {"target": "orders-dev", "reason": "deploy 7"}
        self.session = str(self.service.post("/v1/sessions", asked, repeatable=False).body["session_id"])
        self.trust = folder / "trust.txt"
        self.trust.write_text(trust_text(fingerprints(plane.stores.keys), self.clock.now()))

    def archive(self, out: Path) -> None:
        make_archive(self.stores, self.service, self.session, out, self.clock, {})


def test_an_archive_is_made_stated_and_verifies(plane: ServedPlane, tmp_path: Path) -> None:
    """The whole way: copied, hashed, stated by the service, packed; and nothing is left beside it."""
    auditor = Auditor(plane, tmp_path)
    out = tmp_path / "evidence.tar"
    auditor.archive(out)
    source = open_source(str(out), {}, Output(as_json=True, colour=False))
    found = verify(source.subject, source.evidence, read_trust(str(auditor.trust)), auditor.clock)
    assert (found.findings, found.holds) == ((), True)
    assert found.around is not None
    statement = found.around.statement
    assert statement is not None
    assert plane.stores.objects.rows[copy_key(statement.id, statement.stated_at)]
    assert (found.around.configurations, found.around.events) == (1, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evidence.tar", "state", "trust.txt"]
    report = json.loads(source.stores.files.read("REPORT.json"))  # type: ignore[attr-defined] # a copy has files
    assert (report["subject"], report["anchored_by"], report["findings"]) == (auditor.session, "aws", [])
    text = source.stores.files.read("REPORT.txt").decode()  # type: ignore[attr-defined] # a copy has files
    assert text.startswith(f"VERIFIED  {auditor.session}\n")


def test_without_the_services_word_there_is_no_archive(plane: ServedPlane, tmp_path: Path) -> None:
    """Attack: who may read and may not review makes an archive that looks like a stated one."""
    auditor = Auditor(plane, tmp_path)
    plane.stores.fail("functions")
    with pytest.raises(Failure):
        auditor.archive(tmp_path / "evidence.tar")
    plane.stores.heal("functions")
    assert not list(tmp_path.glob("evidence*")) + list(tmp_path.glob(".countersign*"))
    (tmp_path / "there.tar").write_bytes(b"the only one")
    with pytest.raises((Failure, AlreadyExists)):
        auditor.archive(tmp_path / "there.tar")
    assert (tmp_path / "there.tar").read_bytes() == b"the only one"
    with pytest.raises(Failure):
        auditor.archive(tmp_path / "no-such-folder" / "evidence.tar")
