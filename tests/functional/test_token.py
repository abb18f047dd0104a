"""``POST /v1/token``: the exchange, one root for a run, and every way of asking wrongly."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from chalicelib.domain.chain import Hop, HopKind
from chalicelib.domain.errors import AccessError, RunBound
from chalicelib.identity.jws import verify_hop
from chalicelib.identity.tokens import verify_access_token
from tests.fakes.control_plane import AUDIENCE, PUBLIC_URL, ControlPlane
from tests.fakes.keys import Key


def test_an_issuers_token_becomes_ours_and_the_first_hop(plane: ControlPlane) -> None:
    """The chain begins here: what is signed must be what the issuer said, and verify with the published keys."""
    answer = plane.exchange(plane.ci_token())
    assert answer.status_code == 200
    body = answer.json_body
    assert body["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 300, "*")
    assert answer.headers["Cache-Control"] == "no-store"
    said = verify_access_token(
        body["access_token"], keys=plane.stores.keys, issuer_url=PUBLIC_URL, audience=AUDIENCE, clock=plane.clock
    )
    (hop,) = plane.stores.chains.rows.values()
    verify_hop(hop, plane.stores.keys)
    assert (said.txn, said.hop, body["txn"]) == (hop.txn, hop.id, hop.txn)
    assert hop.kind is HopKind.ORIGIN
    assert hop.accountable == ("gh:actor_id:1001",)
    assert hop.actor.subject == "9001:700"


def test_the_published_keys_verify_the_token(plane: ControlPlane) -> None:
    """A verifier elsewhere has nothing but the JWKS: without it our tokens are opaque to everybody."""
    token = plane.token()
    listed = plane.http.get("/.well-known/jwks.json")
    assert listed.headers["Cache-Control"] == "max-age=300"
    (key,) = listed.json_body["keys"]
    assert (key["use"], key["alg"], key["kty"]) == ("sig", "ES256", "EC")
    claims = jwt.decode(
        token, jwt.PyJWK(key).key, algorithms=["ES256"], audience=AUDIENCE, options={"verify_exp": False}
    )
    assert claims["iss"] == PUBLIC_URL
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"


def test_a_token_of_ours_never_outlives_the_issuers(plane: ControlPlane) -> None:
    """Else a stolen CI token of one second is five minutes of access."""
    now = int(plane.clock.now().timestamp())
    assert plane.exchange(plane.ci_token(exp=now + 40)).json_body["expires_in"] == 40


def test_whoever_proves_the_key_continues_the_runs_chain(plane: ControlPlane) -> None:
    """A run has one root, and it is its key's: a later step of the same job comes back to the same hop."""
    key = Key()
    first = plane.exchange(plane.ci_token(), key=key).json_body
    assert (first["token_type"], first["hop_expires_at"]) == ("DPoP", "2026-11-02T17:30:00.000Z")
    plane.clock.advance(600)
    second = plane.exchange(plane.ci_token(), key=key).json_body
    assert (second["txn"], second["hop"]) == (first["txn"], first["hop"])
    assert len(plane.stores.chains.rows) == 1
    other = plane.exchange(plane.ci_token(run_id="5002"), key=key).json_body
    assert other["txn"] != first["txn"]


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_second_root_for_the_run_by_another_process_of_the_job(
    plane: ControlPlane, first: bool, second: bool
) -> None:
    """Attack: any process of the job can fetch the job's token again, and would leave its own hop behind with a root
    of its own, or share the first one's. Without the first one's key there is neither, whoever had a key."""
    assert plane.exchange(plane.ci_token(), key=Key() if first else None).status_code == 200
    before = plane.snapshot()
    answer = plane.exchange(plane.ci_token(), key=Key() if second else None)
    assert (answer.status_code, answer.json_body["code"]) == (400, "run_bound")
    assert plane.snapshot()["chains"] == before["chains"]
    event = plane.events.seen[-1]
    assert (event.name.value, event.code) == ("token.refused", "run_bound")
    assert event.actor.endswith("#9001:700")
    assert event.txn


@pytest.mark.parametrize(
    "changed",
    [{"actor_id": "2002"}, {"event_name": "schedule"}, {"repository_id": "701"}],
    ids=["other people behind it", "nobody named behind it", "another identity"],
)
def test_a_run_that_began_otherwise_is_not_continued(plane: ControlPlane, changed: dict[str, str]) -> None:
    """A token of the same run that says more, or other people, must not borrow the first one's chain: whoever started
    the re-run could approve it, as the hop excludes somebody else."""
    key = Key()
    plane.token(key=key)
    before = plane.snapshot()
    answer = plane.exchange(plane.ci_token(**changed), key=key)
    assert (answer.status_code, answer.json_body["code"]) == (400, "token_invalid")
    assert plane.snapshot()["chains"] == before["chains"]


def test_a_run_gets_no_more_than_its_eight_hours(plane: ControlPlane) -> None:
    """A job that runs for days must not keep a chain alive by asking again and again."""
    key = Key()
    plane.token(key=key)
    plane.clock.advance(8 * 3600)
    answer = plane.exchange(plane.ci_token(), key=key)
    assert (answer.status_code, answer.json_body["code"]) == (400, "grant_expired")


def test_racing_first_exchanges_of_one_key_make_one_root(plane: ControlPlane) -> None:
    """Two steps of a job that start together with the key that they share must not make two chains of one run."""
    key = Key()
    answers = _race(plane, [key] * 12)
    assert all(isinstance(answer, Mapping) for answer in answers)
    assert len({answer["hop"] for answer in answers if isinstance(answer, Mapping)}) == 1
    assert len(plane.stores.chains.rows) == 1


@pytest.mark.parametrize("keyed", [True, False])
def test_racing_first_exchanges_of_strangers_leave_one_root_and_one_token(plane: ControlPlane, keyed: bool) -> None:
    """Whoever comes first has the run; the others have nothing of it, however close they came."""
    answers = _race(plane, [Key() if keyed else None for _ in range(12)])
    assert len([answer for answer in answers if isinstance(answer, Mapping)]) == 1
    assert [type(answer) for answer in answers if not isinstance(answer, Mapping)] == [RunBound] * 11
    assert len(plane.stores.chains.rows) == 1


def test_a_root_whose_maker_died_is_made_by_its_own_key(plane: ControlPlane) -> None:
    """Between claiming the run and putting its hop a function may die: the run must not be locked out for 40 days, and
    its claim is nobody else's meanwhile."""
    key = Key()
    plane.stores.fail("chains")
    assert plane.exchange(plane.ci_token(), key=key).status_code == 503
    plane.stores.heal("chains")
    for other in (Key(), None):
        assert plane.exchange(plane.ci_token(), key=other).json_body["code"] == "run_bound"
    assert not plane.stores.chains.rows
    assert plane.exchange(plane.ci_token(), key=key).status_code == 200
    assert len(plane.stores.chains.rows) == 1


def test_a_root_without_a_key_whose_maker_died_is_made_once_by_another_without(plane: ControlPlane) -> None:
    """Nothing tells the retry from a stranger there, so the first who makes the hop has it, and a key never."""
    plane.stores.fail("chains")
    assert plane.exchange(plane.ci_token()).status_code == 503
    plane.stores.heal("chains")
    assert plane.exchange(plane.ci_token(), key=Key()).json_body["code"] == "run_bound"
    assert plane.exchange(plane.ci_token()).status_code == 200
    assert plane.exchange(plane.ci_token()).json_body["code"] == "run_bound"
    assert len(plane.stores.chains.rows) == 1


def test_a_put_whose_answer_was_lost_is_known_again(plane: ControlPlane) -> None:
    """The store took the hop and its client, which heard nothing, put it again: the run must not lose its root."""
    put = plane.stores.chains.put

    def twice(hop: Hop) -> None:
        put(hop)
        put(hop)

    plane.stores.chains.put = twice  # type: ignore[method-assign]
    assert plane.exchange(plane.ci_token()).status_code == 200
    assert len(plane.stores.chains.rows) == 1


def test_a_forged_claim_of_the_run_gives_nobody_its_hop(plane: ControlPlane) -> None:
    """Attack: who can write the table names their own key in the run's claim. What the hop says is signed."""
    key, thief = Key(), Key()
    plane.token(key=key)
    (row,) = [name for name in plane.stores.once.rows if name.startswith("run#")]
    text, until = plane.stores.once.rows[row]
    plane.stores.once.rows[row] = (text.replace(key.thumbprint, thief.thumbprint), until)
    assert plane.exchange(plane.ci_token(), key=thief).json_body["code"] == "run_bound"


def test_a_token_for_less_opens_less(plane: ControlPlane) -> None:
    """RFC 8693 section 2.1: a step that needs one target asks for one, and a thief of its token has one."""
    answer = plane.exchange(plane.ci_token(), scope="orders-dev/app").json_body
    assert answer["scope"] == "orders-dev/app"
    assert plane.ask(answer["access_token"], "orders-dev").status_code == 201
    assert plane.ask(answer["access_token"], "orders-prod").json_body["code"] == "policy_denied"
    assert [target["name"] for target in plane.targets(answer["access_token"])] == ["orders-dev"]


def test_a_token_for_less_takes_no_secret_of_what_it_could_not_ask_for(plane: ControlPlane) -> None:
    """Attack: a step that has a token for one target polls the run's session to another, and takes its secret."""
    key = Key()
    whole = plane.token(key=key)
    session_id = plane.ask(whole, "orders-prod", by=key).json_body["session_id"]
    narrow = plane.refresh(whole, key=key, scope="orders-dev").json_body["access_token"]
    plane.click(plane.card(), "UALICE")
    answer = plane.poll(narrow, session_id, by=key)
    assert (answer.status_code, answer.json_body["code"]) == (403, "policy_denied")
    assert plane.stores.sessions.rows[session_id].verifier is None
    assert plane.poll(whole, session_id, by=key).json_body["connect"]["secret"]


@pytest.mark.parametrize("member", ["txn", "hop"])
def test_a_forged_claim_of_the_run_puts_no_words_into_a_signed_hop(plane: ControlPlane, member: str) -> None:
    """Attack: who can write the table claims a run before it begins, with ids that are lines and escapes wherever they
    are shown, and exchanges a token: we would sign them."""
    key = Key()
    plane.token(key=key)
    plane.stores.chains.rows.clear()
    (row,) = [name for name in plane.stores.once.rows if name.startswith("run#")]
    text, until = plane.stores.once.rows[row]
    plane.stores.once.rows[row] = (json.dumps(json.loads(text) | {member: "x\n\x1b[2J"}), until)
    assert plane.exchange(plane.ci_token(), key=key).json_body["code"] == "run_bound"
    assert not plane.stores.chains.rows


def test_an_unknown_a_forbidden_and_an_unscoped_target_are_one_answer(plane: ControlPlane) -> None:
    """Attack: a narrow token is used to learn which targets there are beyond it."""
    token = plane.exchange(plane.ci_token(), scope="orders-dev").json_body["access_token"]
    told = [plane.ask(token, name).json_body for name in ("orders-prod", "payroll", "no-such-target")]
    assert len({json.dumps(body | {"request_id": ""}, sort_keys=True) for body in told}) == 1


def test_a_bad_proof_is_refused_and_the_token_stays_good(plane: ControlPlane) -> None:
    """A client that gets its clock or address wrong must be able to try again with the token that it has."""
    token, key = plane.ci_token(), Key()
    late = key.proof(plane.clock, "POST", "/v1/token", iat=int(plane.clock.now().timestamp()) - 61)
    for proof in ("x.y.z", late, key.proof(plane.clock, "POST", "/v1/sessions")):
        answer = plane.exchange(token, proof=proof)
        assert (answer.status_code, answer.json_body["error"]) == (400, "invalid_dpop_proof")
    assert not any(plane.snapshot().values())
    assert plane.exchange(token, key=Key()).status_code == 200


def test_a_proof_is_not_written_down_for_a_strangers_token(plane: ControlPlane) -> None:
    """Attack: proofs of made-up keys cost nothing, and each would be a row."""
    assert plane.exchange("x" * 40, key=Key()).json_body["code"] == "token_invalid"
    assert not any(plane.snapshot().values())


def test_a_replayed_issuers_token(plane: ControlPlane) -> None:
    """Attack: a token from a log, or from another process of the job, is exchanged a second time."""
    token = plane.ci_token()
    assert plane.exchange(token).status_code == 200
    before = plane.snapshot()
    answer = plane.exchange(token)
    assert answer.status_code == 400
    assert answer.json_body["error"] == "invalid_request"
    assert answer.json_body["code"] == "token_replayed"
    assert plane.snapshot() == before


def test_a_token_without_a_jti_is_replayed_no_better(plane: ControlPlane) -> None:
    """Where the issuer names no id, the token's own hash must do, or such a token could be used for ever."""
    token = plane.ci_token(jti=None)
    assert plane.exchange(token).status_code == 200
    assert plane.exchange(token).json_body["code"] == "token_replayed"


Forge = Callable[[ControlPlane], str]


def _unsigned(plane: ControlPlane) -> str:
    return jwt.encode(plane.claims(), "", algorithm="none", headers={"kid": "ci-1"})


def _strangers_key(plane: ControlPlane) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return jwt.encode(plane.claims(), key, algorithm="RS256", headers={"kid": "ci-1"})


def _altered(plane: ControlPlane) -> str:
    head, body, signature = plane.ci_token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["repository_id"] = "999"
    return ".".join([head, base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode(), signature])


BAD_TOKENS: dict[str, tuple[Forge, str]] = {
    "unsigned": (_unsigned, "token_invalid"),
    "signed by a stranger": (_strangers_key, "token_invalid"),
    "altered after signing": (_altered, "token_invalid"),
    "expired": (lambda plane: plane.ci_token(iat=1, nbf=1, exp=301), "token_expired"),
    "not yet valid": (lambda plane: plane.ci_token(nbf=int(plane.clock.now().timestamp()) + 900), "token_invalid"),
    "for another audience": (lambda plane: plane.ci_token(aud="https://elsewhere.example.com"), "token_invalid"),
    "of another issuer": (lambda plane: plane.ci_token(iss="https://evil.example.com"), "unknown_issuer"),
    "of another organisation": (lambda plane: plane.ci_token(repository_owner_id="6666"), "token_invalid"),
    "without the tenant's claim": (lambda plane: plane.ci_token(repository_owner_id=None), "token_invalid"),
    "of a pull request": (lambda plane: plane.ci_token(event_name="pull_request_target"), "token_invalid"),
    "not a token": (lambda plane: "x" * 40, "token_invalid"),
    "larger than any token": (lambda plane: "a." * 10_000 + "b", "token_invalid"),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_a_bad_token_is_refused_and_nothing_is_written(plane: ControlPlane, name: str) -> None:
    """Each is an attack on who may begin a chain; a row that it left behind would be a foothold or a denial."""
    forge, code = BAD_TOKENS[name]
    answer = plane.exchange(forge(plane))
    assert (answer.status_code, answer.json_body["error"], answer.json_body["code"]) == (400, "invalid_request", code)
    assert set(answer.json_body) == {"error", "error_description", "code"}
    assert not any(plane.snapshot().values())


BAD_FORMS: dict[str, tuple[dict[str, Any], int, str, str]] = {
    "no grant_type": ({"grant_type": None}, 400, "invalid_request", "bad_request"),
    "another grant_type": ({"grant_type": "password"}, 400, "unsupported_grant_type", "unsupported_grant_type"),
    "no subject_token": ({"subject_token": None}, 400, "invalid_request", "bad_request"),
    "empty subject_token": ({"subject_token": ""}, 400, "invalid_request", "bad_request"),
    "no subject_token_type": ({"subject_token_type": None}, 400, "invalid_request", "bad_request"),
    "another subject_token_type": (
        {"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        400,
        "invalid_request",
        "bad_request",
    ),
    "an actor token": ({"actor_token": "x"}, 400, "invalid_request", "bad_request"),
    "another requested type": (
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        400,
        "invalid_request",
        "bad_request",
    ),
    "another audience": ({"audience": "https://elsewhere.example.com"}, 400, "invalid_target", "invalid_target"),
    "another resource": ({"resource": "https://elsewhere.example.com"}, 400, "invalid_target", "invalid_target"),
    "a scope that is none": ({"scope": "orders-dev  payroll"}, 400, "invalid_request", "bad_request"),
    "a scope of fewer actions, which no token enforces": (
        {"scope": "orders-dev#sql:read"},
        400,
        "invalid_scope",
        "invalid_scope",
    ),
    "a client secret": ({"client_secret": "x"}, 401, "invalid_client", "unauthenticated"),
    "an unknown field": ({"colour": "red"}, 400, "invalid_request", "bad_request"),
}


@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_bad_form_is_refused_and_nothing_is_written(plane: ControlPlane, name: str) -> None:
    """RFC 8693's parameters, each wrong once: the error is the RFC's, the good token stays unused."""
    changed, status, word, code = BAD_FORMS[name]
    token = plane.ci_token()
    answer = plane.exchange(token, **changed)
    assert (answer.status_code, answer.json_body["error"], answer.json_body["code"]) == (status, word, code)
    assert not any(plane.snapshot().values())
    assert plane.exchange(token).status_code == 200


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({"content_type": "application/json"}, "{}", 415, "unsupported_media_type"),
        ({"content_type": "text/plain"}, "a=b", 415, "unsupported_media_type"),
        ({}, "x=" + "y" * 70_000, 413, "body_too_large"),
        ({}, "grant_type", 400, "bad_request"),
        ({}, "grant_type=a&grant_type=b", 400, "bad_request"),
        ({}, "grant_type=%ff", 400, "bad_request"),
        ({}, "&".join(f"a{n}=b" for n in range(100)), 400, "bad_request"),
        ({"authorization": "Basic eA=="}, "grant_type=a", 401, "unauthenticated"),
    ],
    ids=["json", "text", "oversize", "no form", "repeated", "not UTF-8", "too many fields", "client authentication"],
)
def test_what_is_not_a_form_is_refused(
    plane: ControlPlane, headers: dict[str, str], body: str, status: int, code: str
) -> None:
    """What the parser cannot read must be told as such, in the endpoint's own error shape, and leave nothing."""
    answer = plane.post_form("/v1/token", body, **headers)
    assert (answer.status_code, answer.json_body["code"]) == (status, code)
    assert "error" in answer.json_body
    assert not any(plane.snapshot().values())


def test_a_revoked_identity_gets_no_token(plane: ControlPlane) -> None:
    """Revoking a pipeline must stop its next run too, not only the chains that it has."""
    plane.stores.revocations.revoke(
        "identity:https://token.actions.githubusercontent.com#9001:700", by="ops", why="left", at=plane.clock.now()
    )
    answer = plane.exchange(plane.ci_token())
    assert (answer.status_code, answer.json_body["error"]) == (400, "access_denied")
    assert answer.json_body["code"] == "grant_revoked"
    assert not plane.stores.chains.rows


def _race(plane: ControlPlane, keys: Sequence[Key | None]) -> Sequence[Mapping[str, Any] | AccessError]:
    """Exchange a token of one run for each key at once; return each answer or refusal."""
    asked = [
        {
            "form": _form(plane.ci_token()),
            "proof": key.proof(plane.clock, "POST", "/v1/token") if key is not None else "",
        }
        for key in keys
    ]
    start = threading.Barrier(len(asked))

    def one(payload: Mapping[str, Any]) -> Mapping[str, Any] | AccessError:
        start.wait(timeout=30)
        try:
            return plane.stores.functions.invoke("sign", payload)
        except AccessError as error:
            return error

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(one, asked))


def _form(token: str) -> dict[str, Any]:
    return {
        "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "subject_token": [token],
        "subject_token_type": ["urn:ietf:params:oauth:token-type:id_token"],
    }
