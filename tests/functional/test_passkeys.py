"""Answers with a passkey: which count, that a click does not where a rule wants one, and that every reader of an answer
checks its assertion again."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from chalicelib.domain.activation import bundle_key
from chalicelib.domain.ask import Answer
from chalicelib.domain.canonical import canonical, sha256_hex
from chalicelib.domain.errors import PasskeyRequired
from chalicelib.domain.passkey import Assertion, answer_challenge
from chalicelib.identity.jws import sign_answer, verify_answer
from chalicelib.services.decide import SlackRequest
from chalicelib.services.review import Review
from chalicelib.services.reviewed import FindingKind
from tests.fakes.control_plane import FILES, ControlPlane
from tests.fakes.passkey import ATTESTED, EXTENDED, PRESENT, VERIFIED, SoftPasskey, base64url

PAGE_HOST: Final = "countersign.example.com"
POLICY: Final = FILES["policies/main.cedar"]
HIGH: Final = POLICY.replace("approval:dba:1", "approval:dba:1:webauthn")


class High(ControlPlane):
    """A plane whose rule for prod wants a passkey; who may and who may not approve have one each."""

    def __init__(self) -> None:
        self.keys = {name: SoftPasskey() for name in ("alice", "bob", "carol", "dave")}
        super().__init__(files={**FILES, "approvers.yaml": self.approvers(), "policies/main.cedar": HIGH})

    def approvers(self, *without: str) -> str:
        text = FILES["approvers.yaml"]
        for name, key in self.keys.items():
            if name not in without:
                text = text.replace(f"{name}: {{", f"{name}: {{passkeys: [{key.entry()}], ")
        return text

    def asked(self) -> tuple[str, str]:
        """Return the token and the session of somebody who waits."""
        token = self.token(run_id=f"9{len(self.stores.asks.rows)}")
        answer = self.ask(token, "orders-prod")
        assert answer.status_code == 202, answer.json_body
        return token, str(answer.json_body["session_id"])

    def shown(self, ask_id: str = "") -> dict[str, Any]:
        """``GET /v1/asks/ID/card``."""
        found: dict[str, Any] = self.http.get(f"/v1/asks/{ask_id or self.last()}/card").json_body
        return found

    def last(self) -> str:
        return str(list(self.stores.asks.rows)[-1])

    def answer(self, body: dict[str, Any], ask_id: str = "") -> tuple[int, str]:
        """``POST /v1/asks/ID/answers``; return the status, and the code or the text."""
        sent = self.http.post(
            f"/v1/asks/{ask_id or self.last()}/answers",
            headers={"content-type": "application/json"},
            body=json.dumps(body).encode(),
        )
        return sent.status_code, str(sent.json_body.get("code", sent.json_body.get("text")))

    def given(self) -> Answer:
        (answer,) = self.stores.answers.rows.values()
        return answer

    def findings(self, session_id: str) -> list[tuple[FindingKind, str]]:
        found = Review(stores=self.stores, people=(), clock=self.clock)(session_id)
        return [(finding.kind, finding.what) for finding in found.findings]


@pytest.fixture
def high() -> High:
    return High()


def test_a_passkey_approves_what_a_rule_marked_for_one(high: High) -> None:
    """The whole way: a link on the card, the card's own blocks on the page, one signed answer that keeps the
    assertion, the grant, and a review that has nothing to say."""
    token, session_id = high.asked()
    card = high.card()
    shown = high.shown()
    assert shown["status"] == "open"
    (actions,) = [block for block in shown["card"]["blocks"] if block["type"] == "actions"]
    link, deny = actions["elements"]
    assert link["url"] == f"https://{PAGE_HOST}/v1/asks/{high.last()}/approve"
    assert (link["action_id"], deny["action_id"]) == ("approve_on_page", "deny")
    assert "1 person of dba with a passkey" in json.dumps(card.blocks)
    assert high.poll(token, session_id).json_body["approval"]["needs"][0]["webauthn"] is True
    status, text = high.answer(high.keys["alice"].answer(shown["card"]))
    assert (status, text.startswith("Approved.")) == (200, True)
    answer = high.given()
    verify_answer(answer, high.stores.keys)
    assert (answer.person, answer.approved, answer.via) == (
        "alice",
        True,
        f"webauthn:{PAGE_HOST}/{high.keys['alice'].id[:16]}",
    )
    assert answer.assertion is not None
    assert answer.assertion.passkey == high.keys["alice"].registered()
    assert sha256_hex(answer.card.encode()) == answer.card_sha256 == shown["card"]["card_sha256"]
    assert high.poll(token, session_id).status_code == 200
    assert high.findings(session_id) == []
    high.pump()
    assert "Approved by alice with a passkey" in json.dumps(card.blocks)


def test_a_deny_with_a_passkey_refuses(high: High) -> None:
    """No is signed as yes is, and over another challenge."""
    token, session_id = high.asked()
    status, text = high.answer(high.keys["bob"].answer(high.shown()["card"], approved=False))
    assert (status, text) == (200, "You refused it. Nothing will run.")
    assert high.poll(token, session_id).json_body["code"] == "approval_denied"


# -- clicks ------------------------------------------------------------------------------------------------------------


def test_a_stolen_slack_account_clicks_approve_where_a_rule_wants_a_passkey(high: High) -> None:
    """Attack: the card has no such button; whoever holds the session, or Slack's signing secret, sends the click all
    the same, with the very blocks of the card."""
    token, session_id = high.asked()
    payload = high.payload(high.card(), "UALICE") | {}
    payload["actions"][0]["value"] = high.last()
    body = urlencode({"payload": json.dumps(payload)})
    headers = high.signed(body)
    with pytest.raises(PasskeyRequired):
        high.decide(
            SlackRequest(
                body=body, timestamp=headers["x_slack_request_timestamp"], signature=headers["x_slack_signature"]
            )
        )
    assert not high.stores.answers.rows
    assert high.poll(token, session_id).status_code == 202
    assert [event.code for event in high.events.seen if event.name.value == "answer.refused"] == ["passkey_required"]


def test_following_the_link_is_no_answer(high: High) -> None:
    """Slack tells us that a link was followed: it is taken note of, or the person sees a warning, and nothing more."""
    high.asked()
    before = high.snapshot()
    assert high.click(high.card(), "UALICE", "approve_on_page").status_code == 200
    after = high.snapshot()
    assert after["answers"] == before["answers"] == {}


def test_anybody_who_may_answer_may_refuse_from_slack(high: High) -> None:
    """Stopping must not wait for a key that lies at home."""
    token, session_id = high.asked()
    assert high.click(high.card(), "UALICE", "deny").status_code == 200
    assert high.poll(token, session_id).json_body["code"] == "approval_denied"


# -- assertions that must not count ------------------------------------------------------------------------------------


def _of_another(high: High, **changed: Any) -> dict[str, Any]:
    """An assertion of Alice's that is sound in itself, over another challenge."""
    ask, card = high.the_ask(), high.shown()["card"]
    said: dict[str, Any] = {"digest": ask.digest, "card_sha256": card["card_sha256"], "approved": True} | changed
    ask_id = said.pop("ask_id", ask.id)
    made = high.keys["alice"].assertion(answer_challenge(ask_id, **said))
    return {"approved": True, "card_sha256": card["card_sha256"], "passkey_id": high.keys["alice"].id, **made}


def _alice(**how: Any) -> Callable[[High], dict[str, Any]]:
    return lambda high: high.keys["alice"].answer(high.shown()["card"], **how)


def _flipped(part: str) -> Callable[[High], dict[str, Any]]:
    def change(high: High) -> dict[str, Any]:
        body = high.keys["alice"].answer(high.shown()["card"])
        raw = bytearray(base64.urlsafe_b64decode(body[part] + "=" * (-len(body[part]) % 4)))
        raw[-1] ^= 1
        return body | {part: base64url(bytes(raw))}

    return change


def _other_key(high: High) -> dict[str, Any]:
    """Mallory signs, and says that it was Alice's passkey."""
    return SoftPasskey().answer(high.shown()["card"]) | {"passkey_id": high.keys["alice"].id}


UNSOUND: Final[dict[str, Callable[[High], dict[str, Any]]]] = {
    "another site": _alice(origin="https://countersign.example.org"),
    "a page beside ours": _alice(origin="https://evil.countersign.example.com"),
    "our host without TLS": _alice(origin="http://countersign.example.com"),
    "another port of our host": _alice(origin="https://countersign.example.com:8443"),
    "an origin that is no text": _alice(origin=["https://countersign.example.com"]),
    "another relying party": _alice(rp="example.com"),
    "a person who was not verified": _alice(flags=PRESENT),
    "a key that nobody touched": _alice(flags=VERIFIED),
    "a registration": _alice(type="webauthn.create"),
    "a frame in another site": _alice(crossOrigin=True),
    "a frame that hides it": _alice(topOrigin="https://evil.example.com"),
    "no challenge": _alice(challenge=None),
    "client data that is no JSON": _alice(text="{"),
    "client data that says everything twice": _alice(text='{"type":"webauthn.get","type":"webauthn.get"}'),
    "bytes after the end": _alice(extra=b"\0"),
    "extensions that are none": _alice(flags=PRESENT | VERIFIED | EXTENDED, extra=b"\xff\xff"),
    "a credential that is none": _alice(flags=PRESENT | VERIFIED | ATTESTED, extra=b"\0"),
    "yes for no": lambda high: _of_another(high, approved=False),
    "another ask": lambda high: _of_another(high, ask_id="ask_01k9vq3v5000000000000000aa"),
    "another digest": lambda high: _of_another(high, digest="0" * 64),
    "another card": lambda high: _of_another(high, card_sha256="0" * 64),
    "a card that was never shown": lambda high: _alice()(high) | {"card_sha256": "0" * 64},
    "a changed signature": _flipped("signature"),
    "changed authenticator data": _flipped("authenticator_data"),
    "changed client data": _flipped("client_data"),
    "somebody else's key": _other_key,
    "padding where none belongs": lambda high: _alice()(high) | {"signature": "A"},
}


@pytest.mark.parametrize("name", UNSOUND)
def test_an_assertion_that_is_not_of_this_answer(high: High, name: str) -> None:
    """Attack: replayed, made elsewhere, for something else, or by somebody else. None is an answer, and none says more
    than that."""
    high.asked()
    assert high.answer(UNSOUND[name](high)) == (401, "proof_invalid")
    assert not high.stores.answers.rows


@pytest.mark.parametrize("who", ["dave", "carol"])
def test_the_developer_who_triggered_it_approves_it_with_a_passkey(high: High, who: str) -> None:
    """Attack: Dave started the run and is a dba with a passkey of his own; Carol has one and is in another group. A
    passkey says who answers and not that they may."""
    high.asked()
    assert high.answer(high.keys[who].answer(high.shown()["card"])) == (403, "approver_not_eligible")
    assert not high.stores.answers.rows


def test_a_passkey_that_nobody_registered(high: High) -> None:
    """Attack: anybody can open the registration page; what it makes counts when the bundle has it."""
    high.asked()
    stranger = SoftPasskey()
    assert high.answer(stranger.answer(high.shown()["card"])) == (403, "approver_not_eligible")
    high.bundles.activate(approvers=high.approvers().replace(high.keys["bob"].entry(), stranger.entry()))
    assert high.answer(stranger.answer(high.shown()["card"]))[0] == 200
    assert high.given().person == "bob"


def test_the_same_assertion_twice(high: High) -> None:
    """A delivery that is repeated is not a second person, and changes nothing."""
    high.asked()
    body = high.keys["alice"].answer(high.shown()["card"])
    assert high.answer(body)[0] == 200
    assert high.answer(body) == (409, "already_decided")


def test_a_copied_authenticator(high: High) -> None:
    """Attack: a copy of the key signs with a counter that the original has passed, or with none."""
    alice = high.keys["alice"]
    high.asked()
    assert high.answer(alice.answer(high.shown()["card"]))[0] == 200
    high.asked()
    for counter in (7, 3, None):
        alice.counter = counter
        assert high.answer(alice.answer(high.shown()["card"])) == (401, "proof_invalid"), counter
    alice.counter = 8
    assert high.answer(alice.answer(high.shown()["card"]))[0] == 200


def test_a_synced_passkey_keeps_no_counter(high: High) -> None:
    """Its counter is 0 for ever (WebAuthn 6.1.1): that it stands still is no sign of a copy."""
    high.keys["alice"].counter = None
    for _ in range(2):
        high.asked()
        assert high.answer(high.keys["alice"].answer(high.shown()["card"]))[0] == 200


def test_a_windows_key_of_rsa(high: High) -> None:
    """Older TPMs sign RS256 alone; shorter than 2,048 bits is refused."""
    for bits, expected in ((2048, 200), (1024, 401)):
        key = SoftPasskey(bits=bits)
        high.asked()
        ask = high.last()
        entry = key.entry() if bits == 2048 else json.dumps(json.loads(high.keys["bob"].entry()) | {"id": key.id})
        high.bundles.activate(approvers=high.approvers().replace(high.keys["bob"].entry(), entry))
        assert high.answer(key.answer(high.shown(ask)["card"]), ask)[0] == expected


def test_two_people_with_a_passkey_each(high: High) -> None:
    """The second may still look at the card as it was before the first had answered."""
    two = HIGH.replace("dba:1:webauthn", "dba:2:webauthn")
    high.bundles.activate(policy=two)
    token, session_id = high.asked()
    before = high.shown()["card"]
    assert high.answer(high.keys["alice"].answer(before))[1].endswith("1 more is needed.")
    assert high.shown()["card"]["card_sha256"] != before["card_sha256"]
    assert high.answer(high.keys["bob"].answer(before))[0] == 200
    assert high.poll(token, session_id).status_code == 200


def test_while_the_configuration_changes_an_answer_waits(high: High) -> None:
    """A process may know the old bundle for ten seconds: it must not put the new activation's name to it."""
    high.asked()
    card = high.shown()["card"]
    high.bundles.activate(policy=HIGH + "\n")
    high.bundles.serial -= 1
    assert high.answer(high.keys["alice"].answer(card)) == (503, "store_unavailable")
    assert not high.stores.answers.rows


# -- every reader checks again -----------------------------------------------------------------------------------------


def _forged(high: High, assertion: Assertion | None) -> None:
    """Put an answer of Alice's as whoever stole the answer key and may write its table could."""
    ask = high.the_ask()
    card = canonical(high.shown()["card"]["blocks"]).decode()
    made = Answer(
        ask_id=ask.id,
        person=next(person.id for person in high.bundles.current().people if person.id == "alice"),
        approved=True,
        digest=ask.digest,
        groups=("dba",),
        card_sha256=sha256_hex(card.encode()),
        card=card,
        via="slack:T0ACME/UALICE/C1/1.0",
        answered_at=high.clock.now(),
        assertion=assertion,
    )
    high.stores.answers.put(sign_answer(high.stores.signer("answer"), made))


def _by(high: High, key: SoftPasskey) -> Assertion:
    ask = high.the_ask()
    challenge = answer_challenge(ask.id, ask.digest, high.shown()["card"]["card_sha256"], approved=True)
    made = key.assertion(challenge)
    return Assertion(passkey=key.registered(), activation=high.stores.activations.latest(), **made)


def test_who_stole_the_answer_key_signs_a_yes_without_an_assertion(high: High) -> None:
    """Attack: ``decide``'s key signs whatever its thief writes. The answer verifies, and counts for nothing here."""
    token, session_id = high.asked()
    _forged(high, None)
    assert high.poll(token, session_id).status_code == 202


def test_who_stole_the_answer_key_makes_a_passkey_of_their_own(high: High) -> None:
    """Attack: the assertion is sound, by a key that the thief calls Alice's. No bundle has it: nothing is granted, and
    whoever reads the evidence later is told."""
    token, session_id = high.asked()
    _forged(high, _by(high, SoftPasskey()))
    assert high.poll(token, session_id).json_body["code"] == "policy_denied"
    kind, what = high.findings(session_id)[0]
    assert (kind, "its passkey was not alice's in configuration 1" in what) == (FindingKind.ALTERED, True)


ALTERED: Final[dict[str, Callable[[Assertion, High], Assertion]]] = {
    "another signature": lambda a, high: replace(a, signature=a.signature[:-4] + "AAAA"),
    "another passkey's id": lambda a, high: replace(a, passkey=replace(a.passkey, id=high.keys["bob"].id)),
    "a configuration that nobody signed": lambda a, high: replace(a, activation=replace(a.activation, serial=9)),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_assertion_that_was_changed_and_signed_anew_is_a_finding(high: High, name: str) -> None:
    """Attack: the same thief changes what the answer keeps, so that it proves less than it did."""
    _, session_id = high.asked()
    _forged(high, ALTERED[name](_by(high, high.keys["alice"]), high))
    assert [kind for kind, _ in high.findings(session_id)] == [FindingKind.ALTERED]


@pytest.mark.parametrize("lost", [True, False], ids=["missing", "changed"])
def test_a_bundle_that_is_gone_or_changed_cannot_vouch(high: High, lost: bool) -> None:
    """An auditor who cannot see whose passkey it was must not be told that it holds."""
    _, session_id = high.asked()
    assert high.answer(high.keys["alice"].answer(high.shown()["card"]))[0] == 200
    assert high.findings(session_id) == []
    objects, key = high.stores.objects.rows, bundle_key(high.stores.activations.latest().bundle_digest)
    if lost:
        del objects[key]
    else:
        objects[key] = objects[key].replace(b"Alice", b"Aline")
    ((kind, what),) = high.findings(session_id)
    assert kind is FindingKind.ALTERED
    assert ("is missing" in what) is lost


def test_a_passkey_that_was_taken_away_approves_nothing_any_more(high: High) -> None:
    """It was lost, and removed from the bundle, between the answer and the grant."""
    token, session_id = high.asked()
    assert high.answer(high.keys["alice"].answer(high.shown()["card"]))[0] == 200
    high.bundles.activate(approvers=high.approvers("alice"))
    assert high.poll(token, session_id).json_body["code"] == "policy_denied"


@pytest.mark.parametrize(
    ("policy", "asked"),
    [(HIGH, "a click"), (POLICY.replace("approval:dba:1", "approval:dba:2"), "one person")],
    ids=["a click for a passkey", "one person for two"],
)
def test_an_ask_that_asks_for_less_than_the_rule(high: High, policy: str, asked: str) -> None:
    """Attack: whoever can put an Ask (a stolen API role) writes its needs too, and asks for a click of one person. It
    is answered in good faith; what counts is what the rule wants."""
    high.bundles.activate(policy=policy)
    token, session_id = high.asked()
    ask = high.the_ask()
    (need,) = ask.question.needs
    less = replace(need, approval=replace(need.approval, count=1, webauthn=False))
    question = replace(ask.question, needs=(less,))
    high.replace_ask(question=question, digest=question.digest())
    assert high.click(high.card(), "UALICE").status_code == 200
    assert len(high.stores.answers.rows) == 1, asked
    assert high.poll(token, session_id).json_body["code"] == "policy_denied"


# -- the page's own requests -------------------------------------------------------------------------------------------


def test_what_is_not_open_any_more_shows_nothing_of_the_question(high: High) -> None:
    """A link lives in a channel's history for years; what it shows must not."""
    token, session_id = high.asked()
    assert "orders-prod" in json.dumps(high.shown())
    high.close(token, session_id)
    shown = high.shown()
    assert (shown["status"], "card" in shown) == ("withdrawn", False)
    high.asked()
    high.clock.advance(900)
    assert high.shown()["status"] == "expired"
    assert "orders-prod" not in json.dumps(high.shown())


def test_a_link_that_names_no_ask(high: High) -> None:
    """Guesses cost a look at a pattern, and find nothing."""
    for guess in ("ask_01k9vq3v5000000000000000aa", "x", "ses_01k9vq3v5000000000000000aa"):
        assert high.http.get(f"/v1/asks/{guess}/card").json_body["code"] == "not_found"
    assert high.answer(SoftPasskey().answer({"approve_challenge": "A" * 43, "card_sha256": "0" * 64}), "ask_x") == (
        404,
        "not_found",
    )


WRONG: Final[dict[str, dict[str, Any]]] = {
    "nothing": {},
    "a field too many": {"person": "alice"},
    "a yes that is a word": {"approved": "yes"},
    "a hash that is none": {"card_sha256": "x"},
    "a signature that is too long": {"signature": "A" * 5000},
    "markup": {"passkey_id": "<script>"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_body_that_no_page_of_ours_sends(high: High, name: str) -> None:
    """Refused for its shape, before anything is asked of a key; and by ``decide`` too, which anybody may invoke who
    may invoke it."""
    high.asked()
    body = high.keys["alice"].answer(high.shown()["card"]) | WRONG[name] if WRONG[name] else {}
    assert high.answer(body) == (400, "bad_request")
    assert not high.stores.answers.rows


@pytest.mark.parametrize("path", ["/v1/asks/ask_01k9vq3v5000000000000000aa/approve", "/v1/passkeys/register"])
def test_the_pages_reach_nothing_and_cannot_be_framed(high: High, path: str) -> None:
    """Attack: another site frames the page and has a person touch their key on top of it; or a text that got into it
    runs. The policy lets one script and one style run, by hash."""
    answer = high.http.get(path)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b"://" not in answer.body
