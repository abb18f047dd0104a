"""``POST /v1/signoffs``: who may sign a review off, of what, and what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from chalice.test import HTTPResponse

from chalicelib.domain.canonical import Json, timestamp
from chalicelib.domain.errors import KeyProofInvalid
from chalicelib.domain.identifiers import SessionId
from chalicelib.domain.signoff import Period, Selection
from chalicelib.services.population import ReadPopulation
from chalicelib.services.signoffs import signoff_of, signoffs_of
from tests.fakes.control_plane import TEAM, ControlPlane, issuer_key
from tests.fakes.keys import Key
from tests.functional.world import CLIENT_ID, PEOPLE_ISSUER, STORY, Holder, World

FILES = {
    **STORY,
    "approvers.yaml": f"""
groups: {{dba: Databases, security: Reviews}}
people:
  alice: {{name: Alice, groups: [dba], slack: {{team: {TEAM}, user: UALICE}}, aliases: ["idp:sub:alice"]}}
  carol: {{name: Carol, groups: [security], slack: {{team: {TEAM}, user: UCAROL}}, aliases: ["idp:sub:carol"]}}
  dave: {{name: Dave, groups: [dba], slack: {{team: {TEAM}, user: UDAVE}},
         aliases: ["gh:actor_id:1001", "idp:sub:dave"]}}
""",
    "policies/main.cedar": STORY["policies/main.cedar"]
    + """
@id("dba-reviews") permit (principal in Team::"people", action == Action::"chain:review", resource);
""",
}


def _files() -> dict[str, str]:
    people = STORY["issuers.yaml"].replace(
        "    display: [sub]\n    accountable: []\n    keep: []\n    max_lifetime_s: 600\n    client_id",
        "    display: [sub]\n    accountable:\n      - {alias: 'idp:sub', claim: sub}\n"
        "    keep: []\n    max_lifetime_s: 600\n    client_id",
    )
    everybody = "".join(f"      - {{team: people, when: {{sub: {who}}}}}\n" for who in ("alice", "dave", "mallory"))
    return {**FILES, "issuers.yaml": people + everybody}


class Reviewed(World):
    """A day on which the pipeline and its agent opened sessions, one of them on Alice's approval."""

    def __init__(self) -> None:
        super().__init__()
        self.plane = ControlPlane(files=_files())
        self.began = self.plane.clock.now()
        self.sessions = [self.session(self.runner), self.session(self.agent)]
        self.approved = self.session(self.runner, "orders-prod")
        self.plane.click(self.plane.card(), "UALICE")
        self.plane.clock.advance(60)
        self.period = Period(since=self.began - timedelta(hours=1), until=self.plane.clock.now())
        self.plane.clock.advance(60)

    def login(self, name: str, key: Key | None) -> Holder:
        """Somebody who logged in with the command line, whose key their token is bound to."""
        now = int(self.plane.clock.now().timestamp())
        claims = {"iss": PEOPLE_ISSUER, "aud": CLIENT_ID, "sub": name, "iat": now, "exp": now + 300, "jti": f"j{now}"}
        token = jwt.encode(claims, issuer_key(), algorithm="RS256", headers={"kid": "ci-1"})
        answer = self.plane.exchange(token, key=key)
        assert answer.status_code == 200, answer.json_body
        return Holder(token=str(answer.json_body["access_token"]), key=key)

    def digest(self, **selected: str) -> str:
        return ReadPopulation(self.plane.stores)(self.period, Selection(**selected)).sha256

    def sign(self, holder: Holder, **changed: Any) -> HTTPResponse:
        body = {
            "since": timestamp(self.period.since),
            "until": timestamp(self.period.until),
            "keep_others": True,
        } | changed
        if "population_sha256" not in body:
            body["population_sha256"] = self.digest()
        return self.post(holder, "/v1/signoffs", **body)

    def audited(self, name: str) -> list[Any]:
        return [event for event in self.plane.events.seen if event.name.value == name]

    def kept(self) -> list[str]:
        return [key for key in self.plane.stores.objects.rows if key.startswith("signoffs/")]


@pytest.fixture
def day() -> Reviewed:
    return Reviewed()


def carol(day: Reviewed) -> Holder:
    return day.login("carol", Key())


def refused(answer: HTTPResponse, status: int, code: str) -> None:
    assert (answer.status_code, answer.json_body["code"]) == (status, code), answer.json_body


def test_a_person_outside_signs_and_it_is_kept_signed_and_told(day: Reviewed) -> None:
    """Who, which sessions, what was decided of each identity: signed, put once, an event."""
    agent = day.hop(day.agent)
    identity = next(hop.actor.key for hop in day.plane.stores.chains.rows.values() if hop.id == agent)
    answer = day.sign(carol(day), revoke=[identity], note="Q4")
    assert answer.status_code == 201, answer.json_body
    assert (answer.json_body["reviewer"], answer.json_body["sessions"], answer.json_body["kept"]) == ("carol", 3, 1)
    assert answer.json_body["revoked"] == [identity]
    (key,) = day.kept()
    assert key == answer.json_body["key"]
    signoff = signoff_of(day.plane.stores.objects.rows[key])
    assert (signoff.population_sha256, signoff.note, signoff.unknown_triggers) == (day.digest(), "Q4", 0)
    assert {(ruling.identity, ruling.keep) for ruling in signoff.rulings if not ruling.keep} == {(identity, False)}
    population = ReadPopulation(day.plane.stores)(day.period, Selection())
    read, faults = signoffs_of(day.plane.stores.objects, day.plane.stores.keys, population, day.plane.clock.now())
    assert (read, faults) == ((signoff,), ())
    (event,) = day.audited("review.signed")
    assert (event.subject, event.why) == (signoff.id, f"population {day.digest()}")
    assert "revoked" not in json.dumps(list(day.plane.stores.revocations.rows)), "it revokes nothing by itself"


@pytest.mark.parametrize(
    ("who", "why"),
    [("dave", "started the run"), ("alice", "approved a session"), ("mallory", "nobody knows who that is")],
)
def test_whoever_is_in_the_reviewed_population_does_not_sign_it_off(day: Reviewed, who: str, why: str) -> None:
    """Attack: the developer signs their own pipeline's review, an approver their own approvals, a stranger anything."""
    refused(day.sign(day.login(who, Key())), 403, "reviewer_not_eligible")
    assert day.kept() == [], why
    assert [event.code for event in day.audited("review.sign_refused")] == ["reviewer_not_eligible"]


def test_who_acted_in_it_does_not_sign_it_off(day: Reviewed) -> None:
    """Attack: a person who opened a session themselves signs for it."""
    holder = carol(day)
    hop = day.plane.stores.chains.rows
    root = next(row for row in hop.values() if row.id == day.hop(holder))
    session = day.plane.stores.sessions.get(SessionId(day.sessions[0]))
    own = replace(session, txn=root.txn, leaf_hop=root.id, actor=root.actor, originator=root.actor)
    day.plane.stores.sessions.rows[session.id] = own
    refused(day.sign(holder), 403, "reviewer_not_eligible")


def test_who_approved_one_statement_in_it_does_not_sign_it_off(day: Reviewed) -> None:
    """An approval inside a session counts as much as one of the session."""
    (ask,) = day.plane.stores.asks.rows.values()
    session = day.plane.stores.sessions.get(SessionId(day.approved))
    day.plane.stores.sessions.rows[session.id] = replace(session, ask_id=None)
    assert ask.question.session_id == session.id
    refused(day.sign(day.login("alice", Key())), 403, "reviewer_not_eligible")


@pytest.mark.parametrize("who", ["runner", "agent"])
def test_a_pipeline_or_its_agent_signs_nothing(day: Reviewed, who: str) -> None:
    """Attack: what is reviewed reviews itself."""
    refused(day.sign(getattr(day, who)), 403, "reviewer_not_eligible")


def test_an_agent_that_a_person_let_in_signs_nothing(day: Reviewed) -> None:
    """A sign-off is in person: a token that was handed down is somebody else's."""
    files = dict(day.plane.bundles.files)
    files["policies/main.cedar"] += (
        '@id("all-delegate") permit (principal, action == Action::"chain:delegate", resource);\n'
    )
    day.plane.bundles.activate(policy=files["policies/main.cedar"])
    holder, key = carol(day), Key()
    token = day.plane.child(holder.token, key, by=holder.key, name="assistant")
    refused(day.sign(Holder(token=token, key=key)), 403, "reviewer_not_eligible")


def test_a_token_without_a_key_signs_nothing(day: Reviewed) -> None:
    """Attack: a reviewer's token was taken from somewhere."""
    refused(day.sign(day.login("carol", None)), 403, "reviewer_not_eligible")


def test_without_a_rule_nobody_signs(day: Reviewed) -> None:
    """To be outside is not enough."""
    policy = day.plane.bundles.files["policies/main.cedar"].replace("security-reviews", "x")
    policy = policy.replace('Action::"chain:review"', 'Action::"chain:revoke"')
    day.plane.bundles.activate(policy=policy)
    refused(day.sign(carol(day)), 403, "not_permitted")


def _another_digest(day: Reviewed) -> dict[str, Any]:
    return {"population_sha256": "0" * 64}


def _a_session_more(day: Reviewed) -> dict[str, Any]:
    body = {"population_sha256": day.digest()}
    session = day.plane.stores.sessions.get(SessionId(day.sessions[0]))
    name = SessionId(day.sessions[0][:-1] + ("0" if day.sessions[0][-1] != "0" else "1"))
    day.plane.stores.sessions.rows[name] = replace(session, id=name)
    return body


def _a_session_less(day: Reviewed) -> dict[str, Any]:
    body = {"population_sha256": day.digest()}
    del day.plane.stores.sessions.rows[SessionId(day.sessions[0])]
    return body


def _something_is_missing(day: Reviewed) -> dict[str, Any]:
    day.plane.stores.objects.rows["manifests/v1/2026-11-02/ses_01m6dsg7e0fwejtv7egfb0rbxm/con_x.json"] = b"{}"
    return {}


@pytest.mark.parametrize("change", [_another_digest, _a_session_more, _a_session_less, _something_is_missing])
def test_another_population_than_the_one_reviewed(day: Reviewed, change: Callable[[Reviewed], dict[str, Any]]) -> None:
    """Attack: sessions are added or removed between the review and the signature."""
    holder = carol(day)
    refused(day.sign(holder, **change(day)), 409, "conflict")
    assert day.kept() == []


@pytest.mark.parametrize(
    "body",
    [
        {"keep_others": False},
        {"keep_others": False, "keep": ["https://nobody#1"]},
        {"revoke": ["https://nobody#1"]},
        {"keep": ["https://nobody#1"], "revoke": ["https://nobody#1"]},
        {"note": "two\nlines"},
        {"until": "2099-01-01T00:00:00.000Z"},
        {"since": "2026-11-03T00:00:00.000Z", "until": "2026-11-02T00:00:00.000Z"},
        {"since": "yesterday"},
        {"target": "payroll"},
    ],
)
def test_a_wrong_sign_off_is_a_wrong_call(day: Reviewed, body: dict[str, Any]) -> None:
    """An identity without a decision would be kept by silence."""
    if "target" in body:
        body = {**body, "population_sha256": day.digest(target=body["target"])}
    refused(day.sign(carol(day), **body), 400, "bad_request")
    assert day.kept() == []


def test_a_hop_that_was_altered_to_name_nobody_is_not_believed(day: Reviewed) -> None:
    """Attack: the developer has themselves taken out of the root's row, and signs."""
    rows = day.plane.stores.chains.rows
    key, root = next((key, hop) for key, hop in rows.items() if hop.id == day.hop(day.runner))
    rows[key] = replace(root, accountable=())
    refused(day.sign(day.login("dave", Key())), 401, "proof_invalid")
    assert day.kept() == []


def test_a_run_of_which_nobody_knows_who_is_behind_is_counted(day: Reviewed) -> None:
    """The reviewer could be; whoever reads the sign-off is told."""
    files = day.plane.bundles.files
    day.plane.bundles.activate(approvers=files["approvers.yaml"].replace('"gh:actor_id:1001", ', ""))
    answer = day.sign(carol(day))
    assert (answer.status_code, answer.json_body["unknown_triggers"]) == (201, 3)


def test_a_bucket_that_takes_nothing_is_no_sign_off(day: Reviewed) -> None:
    """What was not kept was not signed."""
    holder = carol(day)
    digest = day.digest()
    day.plane.stores.fail("objects")
    refused(day.sign(holder, population_sha256=digest), 503, "store_unavailable")
    assert day.audited("review.signed") == []


def test_the_function_takes_no_other_requests_proof(day: Reviewed) -> None:
    """Attack: whoever may invoke the function shows it a proof that the reviewer made to look at targets."""
    holder = carol(day)
    presented = day.plane.presented(holder.token, "GET", "/v1/targets", holder.key)
    body: dict[str, Json] = {"since": timestamp(day.period.since), "until": timestamp(day.period.until)}
    with pytest.raises(KeyProofInvalid):
        day.plane.stores.functions.invoke(
            "sign_off", {"signoff": {**body, "population_sha256": day.digest()}, **presented.told()}
        )
