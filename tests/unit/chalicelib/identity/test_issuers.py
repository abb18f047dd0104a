"""Tokens of other issuers: what is taken from a good one, and the table of attacks that none of them survives."""

from __future__ import annotations

import base64
import dataclasses
import hmac
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.canonical import digest
from chalicelib.domain.errors import (
    AccessError,
    ConfigurationInvalid,
    StoreUnavailable,
    TokenExpired,
    TokenInvalid,
    UnknownIssuer,
)
from chalicelib.domain.identity import Assurance
from chalicelib.domain.issuer import Issuer
from chalicelib.identity.compact import MAX_TOKEN
from chalicelib.identity.issuers import IssuerVerifier
from tests.fakes.clock import START, FakeClock
from tests.fakes.issuer import AUDIENCE, DECLARATION, ISSUED, JWKS_URI, URL, MemoryIssuer, claims, segment
from tests.fakes.signer import MemorySigner

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # SEC 2, section 2.4.2
ISSUER = MemoryIssuer()  # one RSA key for the module: making one takes most of a second


class Reports:
    """Keeps what the verifier reports."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[str, ...]]] = []

    def __call__(self, issuer: str, names: tuple[str, ...]) -> None:
        self.heard.append((issuer, names))


def verifier(
    *declarations: Issuer,
    clock: FakeClock | None = None,
    issuer: MemoryIssuer = ISSUER,
    reports: Reports | None = None,
) -> IssuerVerifier:
    return IssuerVerifier(
        declarations or (DECLARATION,), issuer.fetch, clock or FakeClock(), report=reports or Reports()
    )


def test_a_good_token_says_who_by_immutable_claims() -> None:
    """Ids name the subject; names are only shown; the evidence keeps what can be checked later."""
    reports = Reports()
    told = claims(environment="production", protected=True)
    verified = verifier(reports=reports).verify(ISSUER.token(told))
    assert (verified.identity.issuer, verified.identity.subject) == (URL, "9001:700")
    assert verified.identity.name == "acme/orders deploy"
    assert verified.run == "42:1"
    assert verified.accountable == ("gh:actor_id:123",)
    assert verified.teams == ("orders",)
    assert verified.expires_at == START + timedelta(seconds=300)
    evidence = verified.evidence
    assert (evidence.kind, evidence.token_id, evidence.assurance) == ("oidc:github", "0f1e2d3c", Assurance.ATTESTED)
    assert evidence.claims_sha256 == digest(told)
    assert evidence.attributes == (
        ("ref", "refs/heads/main"),
        ("environment", "production"),
        ("protected", "true"),
    )
    assert reports.heard == []


def header(algorithm: str) -> str:
    return segment(json.dumps({"alg": algorithm, "typ": "JWT", "kid": "key-1"}).encode())


def none_algorithm(good: str) -> str:
    _, payload, _ = good.split(".")
    return f"{header('none')}.{payload}."


def none_with_signature(good: str) -> str:
    _, payload, signature = good.split(".")
    return f"{header('none')}.{payload}.{signature}"


def hmac_with_the_public_key(good: str) -> str:
    _, payload, _ = good.split(".")
    signed = f"{header('HS256')}.{payload}"
    mac = hmac.digest(json.dumps(ISSUER.jwk()).encode(), signed.encode(), "sha256")
    return f"{signed}.{segment(mac)}"


def own_key_in_the_header(good: str) -> str:
    stranger = MemoryIssuer()
    return stranger.token(jwk=stranger.jwk())


def flipped(good: str) -> str:
    first, payload, signature = good.split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[0] ^= 1
    return f"{first}.{payload}.{segment(bytes(raw))}"


def other_payload(good: str) -> str:
    first, _, signature = good.split(".")
    return f"{first}.{segment(json.dumps(claims(repository_id='1')).encode())}.{signature}"


ATTACKS: dict[str, Callable[[str], str]] = {
    "alg none": none_algorithm,
    "alg none with a signature": none_with_signature,
    "HS256 with the public key": hmac_with_the_public_key,
    "an allowed algorithm that this issuer does not use": lambda _: ISSUER.token(alg="RS512"),
    "a key of the attacker's in the header": own_key_in_the_header,
    "jku": lambda _: ISSUER.token(jku="https://evil.example/jwks"),
    "x5u": lambda _: ISSUER.token(x5u="https://evil.example/cert"),
    "x5c": lambda _: ISSUER.token(x5c=["MII"]),
    "crit": lambda _: ISSUER.token(crit=["b64"], b64=False),
    "kid traversal": lambda _: ISSUER.token(kid="../../../../dev/null"),
    "kid of an injection": lambda _: ISSUER.token(kid="key-1' OR '1'='1"),
    "kid that is no text": lambda _: ISSUER.token(kid=["key-1"]),
    "no kid": lambda _: ISSUER.token(kid=None),
    "typ swap: an access token of ours": lambda _: ISSUER.token(typ="at+jwt"),
    "typ swap: a logout token": lambda _: ISSUER.token(typ="logout+jwt"),
    "another key's signature": lambda _: MemoryIssuer().token(),
    "a flipped bit": flipped,
    "another payload": other_payload,
    "aud of another service": lambda _: ISSUER.token(claims(aud="https://other.example.com")),
    "aud of several": lambda _: ISSUER.token(claims(aud=[AUDIENCE, "https://other.example.com"])),
    "aud with ours as a part": lambda _: ISSUER.token(claims(aud=f"{AUDIENCE}.evil.example")),
    "no aud": lambda _: ISSUER.token(claims(aud=None)),
    "no aud in a list": lambda _: ISSUER.token(claims(aud=[])),
    "another tenant": lambda _: ISSUER.token(claims(repository_owner_id="666")),
    "no tenant": lambda _: ISSUER.token(claims(repository_owner_id=None)),
    "many tenants at once": lambda _: ISSUER.token(claims(repository_owner_id=["666", "9001"])),
    "a pull request": lambda _: ISSUER.token(claims(event_name="pull_request")),
    "a pull request in a list": lambda _: ISSUER.token(claims(event_name=["push", "pull_request"])),
    "no exp": lambda _: ISSUER.token(claims(exp=None)),
    "exp of text": lambda _: ISSUER.token(claims(exp=str(ISSUED + 300))),
    "exp of a truth": lambda _: ISSUER.token(claims(exp=True)),
    "exp of a fraction": lambda _: ISSUER.token(claims(exp=ISSUED + 300.5)),
    "exp beyond the calendar": lambda _: ISSUER.token(claims(iat=2**60, exp=2**60 + 1)),
    "no iat": lambda _: ISSUER.token(claims(iat=None)),
    "a token that lives for a day": lambda _: ISSUER.token(claims(exp=ISSUED + 86_400)),
    "a token of tomorrow": lambda _: ISSUER.token(claims(iat=ISSUED + 86_400, exp=ISSUED + 86_500)),
    "not before tomorrow": lambda _: ISSUER.token(claims(nbf=ISSUED + 86_400)),
    "no subject": lambda _: ISSUER.token(claims(repository_id=None)),
    "an empty subject": lambda _: ISSUER.token(claims(repository_id="")),
    "a subject that is a list": lambda _: ISSUER.token(claims(repository_id=["700"])),
    "a subject with a terminal's escapes": lambda _: ISSUER.token(claims(repository_id="700\x1b[2J")),
    "a subject without end": lambda _: ISSUER.token(claims(repository_id="7" * 600)),
    "no run": lambda _: ISSUER.token(claims(run_id=None)),
    "a kept claim with a newline": lambda _: ISSUER.token(claims(ref="main\napproved by: everybody")),
    "an accountable person with a newline": lambda _: ISSUER.token(claims(actor_id="1\n2")),
    "a claim named twice": lambda _: ISSUER.raw(json.dumps(claims()).encode()[:-1] + b',"repository_id":"1"}'),
    "a claim named twice further in": lambda _: ISSUER.raw(json.dumps(claims()).encode()[:-1] + b',"x":{"a":1,"a":2}}'),
    "not a number": lambda _: ISSUER.raw(json.dumps(claims(x=float("nan"))).encode()),
    "not an object": lambda _: ISSUER.raw(b'["iss"]'),
    "not UTF-8": lambda _: ISSUER.raw(b'{"iss":"\xff"}'),
    "a number of 5,000 digits": lambda _: ISSUER.raw(b'{"iss":' + b"9" * 5000 + b"}"),
    "objects 2,000 deep": lambda _: ISSUER.raw(b'{"a":' * 2000 + b"1" + b"}" * 2000),
    "larger than any token": lambda _: ISSUER.token(claims(x="x" * MAX_TOKEN)),
    "encrypted": lambda good: f"{good}.x.y",
    "two segments": lambda good: good.rpartition(".")[0],
    "white space": lambda good: f" {good}",
    "a newline after it": lambda good: f"{good}\n",
    "padding": lambda good: f"{good}=",
    "empty": lambda _: "",
}


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_attack_is_refused(attack: str) -> None:
    """Each of these got an identity out of somebody's verifier."""
    with pytest.raises(TokenInvalid) as refusal:
        verifier().verify(ATTACKS[attack](ISSUER.token()))
    assert refusal.value.public == "the issuer's token is not valid"  # which check it was is for our log


@pytest.mark.parametrize(
    "issuer",
    [f"{URL}/", URL.upper(), "http://token.actions.githubusercontent.com", f"{URL}.evil.example", None, 7, [URL]],
)
def test_wrong_iss_is_unknown(issuer: object) -> None:
    """Compared exactly: a prefix match once let ``...com.evil.example`` in. Its keys are not even asked for."""
    stranger = MemoryIssuer()
    with pytest.raises(UnknownIssuer):
        verifier(issuer=stranger).verify(stranger.token(claims(iss=issuer)))
    assert stranger.fetched == []


@pytest.mark.parametrize(
    ("moved_s", "expected"), [(0, None), (-60, None), (-61, TokenInvalid), (360, None), (361, TokenExpired)]
)
def test_the_times_hold_with_a_minute_of_leeway(moved_s: int, expected: type[AccessError] | None) -> None:
    """Sixty seconds between two clocks, and not one more."""
    clock = FakeClock(START + timedelta(seconds=moved_s))
    token = ISSUER.token(claims(nbf=None))
    if expected is None:
        assert verifier(clock=clock).verify(token).run == "42:1"
    else:
        with pytest.raises(expected):
            verifier(clock=clock).verify(token)


def test_developer_triggers_pipeline_and_the_token_names_them() -> None:
    """A person never equals ``gh:...:run:123``: the alias is what people are matched by."""
    assert verifier().verify(ISSUER.token()).accountable == ("gh:actor_id:123",)


@pytest.mark.parametrize(
    "changes", [{"event_name": "schedule"}, {"run_attempt": "2"}, {"actor_id": None}, {"run_attempt": 2}]
)
def test_an_unknown_trigger_names_nobody(changes: dict[str, Any]) -> None:
    """A re-run's starter is not its first actor: naming that one would let the other approve."""
    assert verifier().verify(ISSUER.token(claims(**changes))).accountable == ()


@pytest.mark.parametrize("changes", [{"ref": "refs/heads/x"}, {"ref": None}, {"repository_id": "701"}])
def test_a_team_takes_every_claim(changes: dict[str, Any]) -> None:
    """One claim of two is another repository's branch."""
    assert verifier().verify(ISSUER.token(claims(**changes))).teams == ()


def test_unknown_claims_are_reported_and_not_used() -> None:
    """A new claim may be the one that says who really started it; somebody should look."""
    reports = Reports()
    verified = verifier(reports=reports).verify(ISSUER.token(claims(triggering_actor="mallory", x=1.5)))
    assert reports.heard == [("github", ("triggering_actor", "x"))]
    assert "mallory" not in str(verified)


def test_a_list_of_one_audience_is_one_audience() -> None:
    """Kubernetes writes it so."""
    assert verifier().verify(ISSUER.token(claims(aud=[AUDIENCE])))


def test_a_list_holds_no_required_value() -> None:
    """A claim that names two tenants is not the claim of one, whichever of them is ours."""
    required = dataclasses.replace(DECLARATION, require=(*DECLARATION.require, ("ref", ("refs/heads/main",))))
    assert verifier(required).verify(ISSUER.token())
    with pytest.raises(TokenInvalid):
        verifier(required).verify(ISSUER.token(claims(ref=["refs/heads/main", "refs/heads/x"])))


def test_one_person_missing_makes_all_unknown() -> None:
    """Naming only the others would let the missing one approve, with nobody asking for a second approver."""
    both = dataclasses.replace(DECLARATION, accountable=(("gh:actor_id", "actor_id"), ("gh:owner_id", "owner_id")))
    assert verifier(both).verify(ISSUER.token()).accountable == ()
    known = verifier(both).verify(ISSUER.token(claims(owner_id="9"))).accountable
    assert known == ("gh:actor_id:123", "gh:owner_id:9")


def test_an_algorithm_is_good_where_it_is_declared() -> None:
    """The same token that the table of attacks refuses for an issuer of RS256."""
    wider = dataclasses.replace(DECLARATION, algorithms=("RS256", "RS512"))
    assert verifier(wider).verify(ISSUER.token(alg="RS512"))


def test_values_are_joined_so_that_no_tenant_can_be_another() -> None:
    """``a:b`` and ``c`` are not ``a`` and ``b:c``."""
    loose = dataclasses.replace(DECLARATION, many_tenants=False, require=())
    one = verifier(loose).verify(ISSUER.token(claims(repository_owner_id="a:b", repository_id="c")))
    two = verifier(loose).verify(ISSUER.token(claims(repository_owner_id="a", repository_id="b:c")))
    escaped = verifier(loose).verify(ISSUER.token(claims(repository_owner_id="a%3Ab", repository_id="c")))
    assert len({found.identity.subject for found in (one, two, escaped)}) == 3


@pytest.mark.parametrize("jti", [None, "", 7, "x" * 300, "a\nb", "ö"])
def test_a_token_without_a_usable_jti_is_known_by_its_hash(jti: object) -> None:
    """Each is accepted once by this id, so it must be one value for one token, and fit a table's key."""
    token_id = verifier().verify(ISSUER.token(claims(jti=jti))).evidence.token_id
    assert len(token_id) == 64
    assert token_id == verifier().verify(ISSUER.token(claims(jti=jti))).evidence.token_id
    assert token_id != verifier().verify(ISSUER.token(claims(jti=jti, run_id="43"))).evidence.token_id


def test_another_spelling_of_the_signature_is_the_same_token() -> None:
    """With (r, s) an ECDSA signature has (r, n - s) beside it: a replay must not look new by that."""
    signer = MemorySigner("key-1")
    token = signer.sign("JWT", json.dumps(claims(jti=None)).encode())
    signed, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    twin = P256_ORDER - int.from_bytes(raw[32:], "big")
    other = f"{signed}.{segment(raw[:32] + twin.to_bytes(32, 'big'))}"
    elliptic = dataclasses.replace(DECLARATION, algorithms=("ES256",))
    strict = IssuerVerifier([elliptic], {JWKS_URI: {"keys": [signer.jwk()]}}.__getitem__, FakeClock(), report=Reports())
    assert other != token
    assert strict.verify(other).evidence.token_id == strict.verify(token).evidence.token_id


def test_a_signature_with_bits_left_over_is_refused() -> None:
    """base64 leaves bits unused at the end of a segment, which would be one more spelling."""
    token = ISSUER.token()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    with pytest.raises(TokenInvalid):
        verifier().verify(token[:-1] + letters[letters.index(token[-1]) ^ 1])


@pytest.mark.parametrize(
    "changes",
    [
        {"require": ()},
        {"require": (("ref", ("refs/heads/main",)),)},
        {"algorithms": ()},
        {"algorithms": ("RS256", "none")},
        {"algorithms": ("HS256",)},
        {"subject": ()},
        {"run": ()},
    ],
)
def test_a_declaration_that_lets_strangers_in_is_refused(changes: dict[str, Any]) -> None:
    """A stolen ticket is redeemed by the attacker's own repository: the CI's issuer serves the world."""
    with pytest.raises(ConfigurationInvalid):
        verifier(dataclasses.replace(DECLARATION, **changes))


def test_a_short_key_is_no_key() -> None:
    """RFC 7518 section 3.3: 2,048 bits at least."""
    weak = MemoryIssuer(bits=1024)
    with pytest.raises(TokenInvalid):
        verifier(issuer=weak).verify(weak.token())


def test_a_key_for_another_algorithm_is_no_key() -> None:
    """An EC key under an RSA token's id, or an RSA key that says RS512, verifies nothing of RS256."""
    elliptic: Mapping[str, Any] = MemorySigner("key-1").jwk()
    for jwk in (elliptic, *(ISSUER.jwk() | wrong for wrong in ({"alg": "RS512"}, {"kty": "oct"}, {"n": "!"}))):
        listed = {"keys": [jwk]}
        strict = IssuerVerifier([DECLARATION], {JWKS_URI: listed}.__getitem__, FakeClock(), report=Reports())
        with pytest.raises(TokenInvalid):
            strict.verify(ISSUER.token())


def test_an_issuer_that_cannot_be_asked_is_an_outage_not_a_verdict() -> None:
    """Refused, and as something that may pass: the caller may try again."""
    dead = MemoryIssuer()
    dead.down = True
    with pytest.raises(StoreUnavailable):
        verifier(issuer=dead).verify(dead.token())


def test_keys_come_from_the_pinned_address() -> None:
    """Nothing in a token chooses where we look."""
    fresh = MemoryIssuer()
    verifier(issuer=fresh).verify(fresh.token())
    assert fresh.fetched == [JWKS_URI]


@given(st.text(max_size=60) | st.from_regex(r"\A[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}\Z"))
def test_garbage_is_refused_and_never_crashes(garbage: str) -> None:
    """Whatever bytes come, the answer is a refusal with a code."""
    with pytest.raises((TokenInvalid, UnknownIssuer)):
        verifier().verify(garbage)
