"""Attacks on the real stack, each by somebody who has what the attack needs and no more: a token, a secret that was
stolen, a role's credentials, a click. Named after the rows of security.md where there is one.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from botocore.exceptions import ClientError

from chalicelib.domain.secret import Secret
from chalicelib.identity.dpop import new_key
from chalicelib.services.exchange import ACCESS_TOKEN_TYPE
from dev.demo.waiting import wait_for
from dev.demo.witnesses import Cloud
from dev.local_stack import Stack
from dev.part_settings import FUNCTION_PREFIX, PREFIX
from dev.settings import SystemClock
from dev.slack_standin import signature
from dev.ssh_keys import make_key
from dev.targets import ORDERS
from tests.e2e.relayed import from_address
from tests.e2e.visitor import (
    READY_S,
    TICKET,
    Agent,
    Visitor,
    amount,
    card_with,
    ci_token_of,
    connect,
    environment_of,
    exchange,
    role_client,
    root_client,
    token_call,
)
from tests.unit.dev.calling import call

pytestmark = pytest.mark.e2e

CLOCK = SystemClock()
SOON_S = 10.0


@pytest.fixture(scope="module")
def visitor(stack: Stack) -> Visitor:
    return Visitor.of(stack)


@pytest.fixture(scope="module")
def session(visitor: Visitor) -> dict[str, Any]:
    return visitor.session()


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=50) as pool:
        yield pool


def plus_one(order: int) -> str:
    return f"UPDATE orders SET amount_cents = amount_cents + 1 WHERE id = {order}"


# -- sessions that end ---------------------------------------------------------------------------------------------


def _ended_within(connection: psycopg.Connection[Any], within_s: float) -> tuple[float, str]:
    """Probe until the connection is over; return after how long, and its last words."""
    began = CLOCK.monotonic_s()

    def look() -> str | None:
        try:
            connection.execute("SELECT 1")
        except psycopg.Error as error:
            return str(error) if connection.broken else None
        return None

    said = wait_for("the connection's end", look, CLOCK, within_s)
    return CLOCK.monotonic_s() - began, said


def test_a_deleted_session_ends_its_live_connection(stack: Stack, visitor: Visitor) -> None:
    """Revocation that waits for the client's next login is none."""
    session = visitor.session()
    with contextlib.closing(connect(stack, session)) as connection:
        connection.execute("SELECT 1")
        request = urllib.request.Request(
            f"{stack.ready['api']}/v1/sessions/{session['session_id']}",
            headers={"Authorization": f"Bearer {visitor.token}"},
            method="DELETE",
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert answer.status in (200, 204)
        took, said = _ended_within(connection, SOON_S)
    assert took < 5
    assert "revoked" in said
    with pytest.raises(psycopg.OperationalError):
        connect(stack, session)


def test_an_expired_grant_ends_its_live_connection(stack: Stack, visitor: Visitor) -> None:
    """The shortest session that can be asked for is a minute, so its row is given an earlier end, with root's key."""
    session = visitor.session()
    table = root_client(stack, "dynamodb")
    key = {"id": {"S": session["session_id"]}}
    document = json.loads(table.get_item(TableName=f"{PREFIX}-sessions", Key=key)["Item"]["doc"]["S"])
    document["grant"]["expires_at"] = (CLOCK.now() + timedelta(seconds=4)).isoformat().replace("+00:00", "Z")
    table.update_item(
        TableName=f"{PREFIX}-sessions",
        Key=key,
        UpdateExpression="SET doc = :d",
        ExpressionAttributeValues={":d": {"S": json.dumps(document)}},
    )
    with contextlib.closing(connect(stack, session)) as connection:
        took, said = _ended_within(connection, SOON_S)
    assert took < 4 + 3
    assert "the session is over" in said


# -- approvals -----------------------------------------------------------------------------------------------------


def _rows(stack: Stack, table: str, word: str) -> list[dict[str, Any]]:
    return Cloud(stack.ready["aws"]).documents(table, word)


def _ask_id(card: Mapping[str, Any]) -> str:
    items = (item for block in card["blocks"] for item in block.get("elements", []))
    return next(str(item["value"]) for item in items if item.get("type") == "button")


def test_fifty_clicks_at_once_are_one_answer_and_one_execution(
    stack: Stack, session: dict[str, Any], threads: ThreadPoolExecutor
) -> None:
    """A double click, a retry of Slack's, two people at once: an approval is used once, whoever races."""
    before = amount(stack, 7101)
    with contextlib.closing(connect(stack, session)) as connection:
        waiting = threads.submit(connection.execute, plus_one(7101))
        card = card_with(stack, plus_one(7101))
        answers = list(threads.map(card.click, ["UALICE", "UBOB"] * 25))
        assert waiting.result(SOON_S).statusmessage == "UPDATE 1"
    assert {answer.get("status") for answer in answers} <= {200, 404, None}  # None: the card had lost its button
    assert amount(stack, 7101) == before + 1
    ask = _ask_id(card.message)
    given = _rows(stack, "answers", ask)
    assert len(given) == len({answer["person"] for answer in given}) <= 2
    assert len(_rows(stack, "uses", ask)) == 1


@pytest.mark.parametrize("user", ["UDAVE", "UCAROL", "UMALLORY"])
def test_who_may_not_approve_changes_nothing(
    stack: Stack, session: dict[str, Any], threads: ThreadPoolExecutor, user: str
) -> None:
    """The developer behind the run, somebody of another group, a stranger: told so, twice, and nothing is answered."""
    order = {"UDAVE": 7102, "UCAROL": 7103, "UMALLORY": 7104}[user]
    before = amount(stack, order)
    with contextlib.closing(connect(stack, session)) as connection:
        waiting = threads.submit(connection.execute, plus_one(order))
        card = card_with(stack, plus_one(order))
        for _ in range(2):
            card.click(user)
        ask = _ask_id(card.message)
        assert _rows(stack, "answers", ask) == []
        assert not waiting.done()
        whispered = [json.dumps(said) for said in card.now()["ephemerals"] if said["user"] == user]
        assert whispered
        assert amount(stack, order) == before
        card.click("UALICE", "deny")
        error = waiting.exception(SOON_S)
    assert isinstance(error, psycopg.Error)
    assert error.sqlstate == "42501"
    assert amount(stack, order) == before


def _slack_secret(stack: Stack) -> Secret:
    name = environment_of(stack.part("api"))["COUNTERSIGN_SLACK_SIGNING_SECRET"]
    return Secret(root_client(stack, "secretsmanager").get_secret_value(SecretId=name)["SecretString"])


def test_a_replayed_click_answers_no_other_ask(
    stack: Stack, session: dict[str, Any], threads: ThreadPoolExecutor
) -> None:
    """Slack's request, byte for byte, is good once and for its own card: sent again, or again with its age, it does
    nothing for the statement that was held next."""
    with contextlib.closing(connect(stack, session)) as connection:
        waiting = threads.submit(connection.execute, plus_one(7105))
        card = card_with(stack, plus_one(7105))
        payload = {
            "type": "block_actions",
            "user": {"id": "UALICE", "username": "alice", "team_id": "T0LOCAL"},
            "team": {"id": "T0LOCAL", "domain": "acme"},
            "api_app_id": "A0COUNTER",
            "channel": {"id": card.message["channel"]},
            "container": {"type": "message", "message_ts": card.ts, "channel_id": card.message["channel"]},
            "message": {"ts": card.ts, "blocks": card.message["blocks"]},
            "trigger_id": "1.2.abc",
            "actions": [
                {
                    "type": "button",
                    "action_id": card.action(),
                    "value": _ask_id(card.message),
                    "block_id": "b",
                    "action_ts": "1.1",
                }
            ],
        }
        body = urlencode({"payload": json.dumps(payload)}).encode()
        secret = _slack_secret(stack)

        def sent(age_s: int, stamp: str = "") -> tuple[int, Any]:
            stamp = stamp or str(int(CLOCK.now().timestamp()) - age_s)
            headers = {
                "Content-Type": "application/x-www-form-urlencoded",
                "X-Slack-Request-Timestamp": stamp,
                "X-Slack-Signature": signature(secret, stamp, body),
            }
            return call(f"{stack.ready['api']}/slack/events", body, headers)

        assert sent(age_s=400)[0] == 401  # signed, and too old
        now = str(int(CLOCK.now().timestamp()))
        assert sent(0, now)[0] == 200
        assert waiting.result(SOON_S).statusmessage == "UPDATE 1"
        again = threads.submit(connection.execute, plus_one(7105))
        other = card_with(stack, plus_one(7105), besides=(card.ts,))
        assert other.ts != card.ts
        sent(0, now)
        assert _rows(stack, "answers", _ask_id(other.message)) == []
        assert len(_rows(stack, "uses", _ask_id(card.message))) == 1
        assert not again.done()
        other.click("UALICE", "deny")
        assert again.exception(SOON_S) is not None


def test_approve_x_try_y_through_two_connections(
    stack: Stack, session: dict[str, Any], threads: ThreadPoolExecutor
) -> None:
    """P4: what was approved on one connection runs there once; the very same bytes on another one, a changed constant,
    and a second time on the same one are each held again."""
    x, y = 7106, 7107
    before = amount(stack, x), amount(stack, y)
    with contextlib.closing(connect(stack, session)) as one, contextlib.closing(connect(stack, session)) as two:
        first = threads.submit(one.execute, plus_one(x))
        card = card_with(stack, plus_one(x))
        other = threads.submit(two.execute, plus_one(x))
        others_card = card_with(stack, plus_one(x), besides=(card.ts,))
        card.click("UALICE")
        assert first.result(SOON_S).statusmessage == "UPDATE 1"
        assert not other.done()
        others_card.click("UALICE", "deny")
        assert other.exception(SOON_S) is not None
        for sql in (plus_one(y), plus_one(x)):
            again = threads.submit(one.execute, sql)
            card_with(stack, sql, besides=(card.ts, others_card.ts)).click("UBOB", "deny")
            assert again.exception(SOON_S) is not None
    assert (amount(stack, x), amount(stack, y)) == (before[0] + 1, before[1])


# -- secrets and roles ---------------------------------------------------------------------------------------------


def test_a_stolen_secret_from_another_address_is_refused_and_audited(stack: Stack, visitor: Visitor) -> None:
    """Any process of the job reads PGPASSWORD; one that takes it elsewhere must not get in, and must be seen."""
    session = visitor.session()
    told = session["connect"]
    with contextlib.closing(connect(stack, session)) as connection:
        connection.execute("SELECT 1")
    with (
        from_address("127.0.0.2", told["port"]) as port,
        pytest.raises(psycopg.OperationalError, match="another address"),
    ):
        connect(stack, session, port=port)
    log = (stack.folder / "logs" / "broker.log").read_text()
    refused = [json.loads(line)["audit"] for line in log.splitlines() if '"connection.refused"' in line]
    assert any(event["peer"] == "127.0.0.2" and event["subject"] == told["user"] for event in refused)


def _mint(environment: Mapping[str, str], session_id: str, connection_id: str) -> dict[str, Any]:
    answer = role_client(environment, "lambda").invoke(
        FunctionName=f"{FUNCTION_PREFIX}mint",
        Payload=json.dumps({"session_id": session_id, "connection_id": connection_id}).encode(),
    )
    return dict(json.loads(answer["Payload"].read()))


def test_mint_gives_no_credential_to_who_cannot_show_a_fresh_connection(
    stack: Stack, visitor: Visitor, session: dict[str, Any]
) -> None:
    """With the broker's own credentials: a live connection has had its one, a sealed one is over, another session's is
    another's, and one that never was has none."""
    broker = environment_of(stack.part("broker"))
    mine, other = session["session_id"], visitor.session()
    with contextlib.closing(connect(stack, other)) as connection:
        connection.execute("SELECT 1")
        (live,) = [row["id"] for row in _rows(stack, "connections", other["session_id"]) if not row["sealed_at"]]
        assert _mint(broker, other["session_id"], live)["refused"]["code"] == "proof_invalid"
        assert _mint(broker, mine, live)["refused"]["code"] in ("proof_invalid", "not_found")
    wait_for(
        "the seal",
        lambda: all(row["sealed_at"] for row in _rows(stack, "connections", other["session_id"])) or None,
        CLOCK,
        SOON_S,
    )
    assert _mint(broker, other["session_id"], live)["refused"]["code"] == "proof_invalid"
    assert _mint(broker, mine, "con_" + "0" * 26)["refused"]["code"] == "not_found"


def _denied(call_: Any, **arguments: Any) -> None:
    with pytest.raises(ClientError) as refused:
        call_(**arguments)
    assert "AccessDenied" in refused.value.response["Error"]["Code"]


def test_the_api_role_cannot_mint_sign_or_answer(stack: Stack, session: dict[str, Any]) -> None:
    """All routes are one function: whoever owns it owns none of the three authorities."""
    api = environment_of(stack.part("api"))
    _denied(
        role_client(api, "lambda").invoke,
        FunctionName=f"{FUNCTION_PREFIX}mint",
        Payload=json.dumps({"session_id": session["session_id"], "connection_id": "con_" + "0" * 26}).encode(),
    )
    dynamodb = role_client(api, "dynamodb")
    item = {"ask": {"S": "ask_x"}, "person": {"S": "alice"}, "doc": {"S": "{}"}}
    _denied(dynamodb.put_item, TableName=f"{PREFIX}-answers", Item=item)
    _denied(dynamodb.put_item, TableName=f"{PREFIX}-chains", Item={"txn": {"S": "x"}, "place": {"S": "0#x"}})
    for purpose in ("token", "answer", "record"):
        _denied(
            role_client(api, "kms").sign,
            KeyId=f"alias/{PREFIX}-{purpose}",
            Message=b"x",
            SigningAlgorithm="ECDSA_SHA_256",
        )


def _shown(agent: Agent, method: str, path: str) -> dict[str, str]:
    """Return what the API's function is shown of an agent's request, and hands on to other functions."""
    url = f"{agent.stack.ready['api']}{path}"
    proof = agent.key.proof(method, url, token=agent.token, now=CLOCK.now())
    return {"token": agent.token, "scheme": "dpop", "proof": proof, "method": method, "path": path}


def test_the_api_role_signs_nothing_with_what_was_shown_for_another_request(stack: Stack) -> None:
    """Everything that a caller shows passes the API: of a look at the targets its thief makes no ticket for a key of
    their own, no certificate and no review."""
    root, carol = Agent.root(stack), Agent.person(stack, "carol")
    invoke = role_client(environment_of(stack.part("api")), "lambda").invoke
    wanted: dict[str, tuple[Agent, dict[str, Any]]] = {
        "delegate": (root, {"delegate": {"redeemer": {"key": new_key().thumbprint}, "name": "thief"}}),
        "certify": (root, {"certify": {"session_id": "ses_" + "0" * 26, "public_key": make_key().public}}),
        "review": (carol, {"subject": root.txn}),
    }
    for what, (agent, payload) in wanted.items():
        sent = json.dumps({**payload, **_shown(agent, "GET", "/v1/targets")}).encode()
        name = "review" if what == "review" else "sign"
        answer = json.loads(invoke(FunctionName=f"{FUNCTION_PREFIX}{name}", Payload=sent)["Payload"].read())
        assert answer["refused"]["code"] == "invalid_dpop_proof", what


def test_an_approved_session_that_the_api_role_gives_to_another_actor_opens_nothing(stack: Stack) -> None:
    """People approved what the run asked for: its row, rewritten to be a child's of the same chain, has no approval."""
    root = Agent.root(stack)
    child = root.vouched("deploy-svc", scope=ORDERS)
    session = root.session(ORDERS)
    hops = child.call("GET", f"/v1/chains/{root.txn}")[1]["hops"]
    (actor,) = (hop["actor"] for hop in hops if hop["id"] == child.hop)
    dynamodb = role_client(environment_of(stack.part("api")), "dynamodb")
    table = f"{PREFIX}-sessions"
    item = dynamodb.get_item(TableName=table, Key={"id": {"S": session["session_id"]}})["Item"]
    moved = json.loads(item["doc"]["S"]) | {
        "leaf_hop": child.hop,
        "actor": {"issuer": actor["iss"], "subject": actor["sub"], "name": actor["name"]},
    }
    dynamodb.put_item(TableName=table, Item={**item, "doc": {"S": json.dumps(moved)}})
    with pytest.raises(psycopg.OperationalError, match="approval is for something else"):
        connect(stack, session)


def test_a_parent_is_revoked_while_its_child_redeems(stack: Stack, threads: ThreadPoolExecutor) -> None:
    """Whichever is first: a child whose parent is revoked has nothing, not even a new token."""
    for _ in range(5):
        parent, key = Agent.root(stack), new_key()
        status, told = parent.ticket({"key": key.thumbprint}, name="deploy-svc")
        assert status == 201, told
        redeemed = threads.submit(token_call, stack, key, subject_token=told["ticket"], subject_token_type=TICKET)
        revoked = parent.call("POST", "/v1/revocations", {"kind": "hop", "id": parent.hop, "why": "race"})
        assert revoked[0] == 201, revoked
        status, answer = redeemed.result(timeout=READY_S)
        if status != 200:
            assert answer["code"] == "grant_revoked"
            continue
        child = Agent(stack=stack, key=key, token=answer["access_token"], txn=answer["txn"], hop=answer["hop"])
        assert child.call("GET", "/v1/targets")[1]["code"] == "grant_revoked"
        renewed = token_call(stack, key, subject_token=child.token, subject_token_type=ACCESS_TOKEN_TYPE)
        assert renewed[1]["code"] == "grant_revoked"


def test_the_broker_role_can_neither_answer_nor_read_a_secret(stack: Stack) -> None:
    """A broken broker is not an approver, has no target's credential of its own, and unwrites no record."""
    broker = environment_of(stack.part("broker"))
    dynamodb = role_client(broker, "dynamodb")
    item = {"ask": {"S": "ask_x"}, "person": {"S": "alice"}, "doc": {"S": "{}"}}
    _denied(dynamodb.put_item, TableName=f"{PREFIX}-answers", Item=item)
    _denied(dynamodb.put_item, TableName=f"{PREFIX}-sessions", Item={"id": {"S": "ses_x"}})
    _denied(dynamodb.put_item, TableName=f"{PREFIX}-activations", Item={"line": {"S": "x"}, "serial": {"N": "9"}})
    _denied(dynamodb.delete_item, TableName=f"{PREFIX}-revocations", Key={"id": {"S": "x"}})
    _denied(role_client(broker, "secretsmanager").get_secret_value, SecretId=f"{PREFIX}/targets/{ORDERS}/orders_app")
    _denied(
        role_client(broker, "kms").sign, KeyId=f"alias/{PREFIX}-answer", Message=b"x", SigningAlgorithm="ECDSA_SHA_256"
    )
    cloud = Cloud(stack.ready["aws"])
    s3 = role_client(broker, "s3")
    _denied(s3.delete_object, Bucket=stack.ready["aws"]["bucket"], Key=cloud.keys("rec/")[0])


# -- the API -------------------------------------------------------------------------------------------------------


def test_a_ci_token_is_taken_once(stack: Stack) -> None:
    """Any process of the job can read the job's token; the second exchange of it is an alarm and no chain."""
    token = ci_token_of(stack)
    assert exchange(stack, token)[0] == 200
    status, answer = exchange(stack, token)
    assert (status, answer["error"], answer["code"]) == (400, "invalid_request", "token_replayed")


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"aud": "https://another.example.com"}, "token_invalid"),
        ({"iss": "https://evil.example.com"}, "unknown_issuer"),
        ({"exp": 1}, "token_expired"),
        ({"repository_owner_id": "6666"}, "token_invalid"),
        ({"event_name": "pull_request"}, "token_invalid"),
    ],
    ids=["audience", "issuer", "expired", "tenant", "outsider"],
)
def test_a_token_that_is_not_for_us_begins_no_chain(stack: Stack, claims: dict[str, Any], code: str) -> None:
    """Signed by the right key or not: what is not declared is not let in."""
    before = len(_rows(stack, "chains", "txn"))
    status, answer = exchange(stack, ci_token_of(stack, **claims))
    assert status == 400
    assert answer["code"] == code
    assert len(_rows(stack, "chains", "txn")) == before


JSON, FORM = "application/json", "application/x-www-form-urlencoded"
BAD = {
    "not json": (b"{", JSON, 400),
    "a list": (b"[]", JSON, 400),
    "an unknown field": (b'{"target":"orders-prod","reason":"x","admin":true}', JSON, 400),
    "no reason": (b'{"target":"orders-prod"}', JSON, 400),
    "a wrong type": (b'{"target":7,"reason":"x"}', JSON, 400),
    "twice": (b'{"target":"a","target":"orders-prod","reason":"x"}', JSON, 400),
    "a form": (b"target=orders-prod&reason=x", FORM, 415),
    "half a megabyte": (b'{"target":"' + b"x" * 500_000 + b'"}', JSON, 413),
    "deep": (b"[" * 10_000, JSON, 400),
    "no utf-8": (b'{"target":"\xff"}', JSON, 400),
}


@pytest.mark.parametrize(("body", "content_type", "status"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_for_a_session(
    stack: Stack, visitor: Visitor, body: bytes, content_type: str, status: int
) -> None:
    """Against the live API, behind its real HTTP server: the documented shape, and nothing written."""
    before = len(_rows(stack, "sessions", "id"))
    url = f"{stack.ready['api']}/v1/sessions"
    got, answer = call(url, body, {"Content-Type": content_type, "Authorization": f"Bearer {visitor.token}"})
    assert got == status, answer
    assert set(answer) == {"code", "message", "hint", "request_id"}
    assert "Traceback" not in json.dumps(answer)
    assert len(_rows(stack, "sessions", "id")) == before


def test_a_token_that_was_changed_opens_nothing(stack: Stack, visitor: Visitor) -> None:
    """No signature, another algorithm, a claim that was edited: 401 each."""
    header, payload, signed = visitor.token.split(".")
    url = f"{stack.ready['api']}/v1/sessions"
    none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0"
    for forged in (f"{header}.{payload}.", f"{none}.{payload}.", f"{header}.{payload[:-2]}AA.{signed}", "x", ""):
        status, answer = call(url, {"target": ORDERS, "reason": "x"}, {"Authorization": f"Bearer {forged}"})
        assert (status, set(answer)) == (401, {"code", "message", "hint", "request_id"})


def test_unknown_and_forbidden_targets_cannot_be_told_apart(stack: Stack) -> None:
    """A stranger's pipeline learns no target's name: same status, same words, and about the same time."""
    stranger = Visitor.of(stack, repository="acme/other", repository_id="700999999")
    took: dict[str, list[float]] = {ORDERS: [], "no-such-target": []}
    said: dict[str, set[str]] = {ORDERS: set(), "no-such-target": set()}
    for _ in range(15):
        for target in took:
            began = CLOCK.monotonic_s()
            status, answer = stranger.ask(reason="x", target=target)
            took[target].append(CLOCK.monotonic_s() - began)
            said[target].add(json.dumps([status, {**answer, "request_id": ""}]).replace(target, "TARGET"))
    assert len(said[ORDERS]) == 1
    assert said[ORDERS] == said["no-such-target"]
    known, unknown = (statistics.median(times) for times in took.values())
    assert abs(known - unknown) < 0.5 * max(known, unknown)


# -- logs ----------------------------------------------------------------------------------------------------------


def test_no_log_of_any_part_holds_a_secret(stack: Stack, visitor: Visitor, session: dict[str, Any]) -> None:
    """After all of the above: tokens, session secrets, the target's password, Slack's, signing inputs, planted rows."""
    secrets_client = root_client(stack, "secretsmanager")
    stored = [
        secrets_client.get_secret_value(SecretId=one["ARN"])["SecretString"]
        for one in secrets_client.list_secrets(MaxResults=100)["SecretList"]
    ]
    roles = [environment_of(stack.part(name))["AWS_SECRET_ACCESS_KEY"] for name in ("api", "broker")]
    planted = stack.ready["targets"][ORDERS]["planted"]
    hidden = [visitor.ci_token, visitor.token, session["connect"]["secret"], *stored, *roles, *planted]
    assert len(stored) >= 3
    for log in sorted((stack.folder / "logs").glob("*.log")):
        if log.stem == ORDERS:  # the target's own log: what was planted there is the target's
            continue
        text = log.read_text(errors="replace")
        assert [value for value in hidden if value in text] == [], log.name
        assert "Traceback" not in text, log.name
