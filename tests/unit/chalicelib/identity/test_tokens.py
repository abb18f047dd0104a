"""Our access tokens: what they say of a chain, and what is not one."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.domain.canonical import canonical
from chalicelib.domain.chain import Chain
from chalicelib.domain.errors import TokenExpired, TokenInvalid
from chalicelib.domain.identity import Identity
from chalicelib.domain.scope import DEFAULT_DEPTH, MAX_DEPTH
from chalicelib.identity.jws import sign_sha256
from chalicelib.identity.tokens import MAX_TTL_S, TYPE, AccessToken, TokenIssuer, jwks, verify_access_token
from tests.fakes import samples
from tests.fakes.clock import START, FakeClock
from tests.fakes.signer import MemoryKeys

URL = "https://countersign.example.com"
KEYS = MemoryKeys()


def family(depth: int) -> Chain:
    hops = [samples.origin()]
    for number in range(depth):
        actor = Identity(issuer=URL, subject=f"agent:{number}", name="")
        hops.append(dataclasses.replace(samples.child(hops[-1]), actor=actor))
    return Chain(hops=tuple(hops))


def minted(chain: Chain, *, ttl_s: int = 300, clock: FakeClock | None = None) -> str:
    return (
        TokenIssuer(KEYS.signer("token"), URL, f"{URL}/v1", clock or FakeClock())
        .mint(chain, "tok_1", ttl_s)
        .token.expose()
    )


def verified(token: str, *, clock: FakeClock | None = None, keys: MemoryKeys = KEYS) -> AccessToken:
    return verify_access_token(token, keys=keys, issuer_url=URL, audience=f"{URL}/v1", clock=clock or FakeClock())


def parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = token.split(".")
    first, second = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, payload))
    return first, second


def test_a_root_token_says_who_and_no_more() -> None:
    """RFC 9068's required claims, and ours; a root has no parent."""
    chain = family(0)
    header, claims = parts(minted(chain))
    assert header == {"alg": "ES256", "kid": "token-key-1", "typ": "at+jwt"}
    issued = int(START.timestamp())
    assert claims == {
        "iss": URL,
        "aud": f"{URL}/v1",
        "sub": chain.originator.key,
        "client_id": chain.leaf.actor.key,
        "iat": issued,
        "nbf": issued,
        "exp": issued + 300,
        "jti": "tok_1",
        "txn": chain.txn,
        "hop": chain.leaf.id,
        "scope": "orders-prod",
        "act": {"iss": samples.RUNNER.issuer, "sub": samples.RUNNER.subject},
        "anc": [],
        "del_depth": 0,
        "del_max_depth": DEFAULT_DEPTH,
    }


def test_a_childs_token_nests_its_actors_the_current_one_outermost() -> None:
    """RFC 8693 section 4.1; ``sub`` stays the originator."""
    chain = family(2)
    _, claims = parts(minted(chain))
    assert claims["act"] == {
        "iss": URL,
        "sub": "agent:1",
        "act": {
            "iss": URL,
            "sub": "agent:0",
            "act": {"iss": samples.RUNNER.issuer, "sub": samples.RUNNER.subject},
        },
    }
    assert claims["sub"] == samples.RUNNER.key
    assert claims["anc"] == [hop.id for hop in chain.hops[:-1]]
    assert (claims["del_depth"], claims["par_hash"]) == (2, chain.leaf.parent_sha256)


def test_a_key_bound_hop_binds_its_token() -> None:
    """RFC 7800: ``cnf`` names the key that the caller must show."""
    chain = family(0)
    bound = Chain(hops=(dataclasses.replace(chain.leaf, key_thumbprint="thumb"),))
    assert parts(minted(bound))[1]["cnf"] == {"jkt": "thumb"}
    assert verified(minted(bound)).key_thumbprint == "thumb"


def test_a_token_may_say_less_than_its_hop() -> None:
    """RFC 8693 section 2.1: a scope that was asked for is the token's, and the hop keeps its own."""
    chain = family(0)
    token = TokenIssuer(KEYS.signer("token"), URL, f"{URL}/v1", FakeClock()).mint(
        chain, "tok_1", 300, ("orders-prod/app",)
    )
    assert verified(token.token.expose()).scope == ("orders-prod/app",)
    assert chain.leaf.scope == ("orders-prod",)


def test_whoever_renews_reads_an_expired_token_and_no_other_bad_one() -> None:
    """A token may be renewed after it expired; everything else that makes it one of ours still holds."""
    token, clock = minted(family(0)), FakeClock(START + timedelta(hours=3))
    said = verify_access_token(token, keys=KEYS, issuer_url=URL, audience=f"{URL}/v1", clock=clock, expired_too=True)
    assert said.token_id == "tok_1"
    with pytest.raises(TokenInvalid):
        verify_access_token(
            resigned("answer"), keys=KEYS, issuer_url=URL, audience=f"{URL}/v1", clock=clock, expired_too=True
        )


def test_a_token_reads_back() -> None:
    """What the edge learns from it."""
    chain = family(1)
    assert verified(minted(chain)) == AccessToken(
        txn=chain.txn,
        hop=chain.leaf.id,
        token_id="tok_1",
        originator=samples.RUNNER.key,
        actor=chain.leaf.actor.key,
        scope=("orders-prod",),
        anc=(chain.hops[0].id,),
        key_thumbprint="",
        expires_at=START + timedelta(seconds=300),
    )


@given(ttl_s=st.integers(1, 10_000), leaf_s=st.integers(1, 3600))
def test_a_token_never_outlives_its_hop_or_fifteen_minutes(ttl_s: int, leaf_s: int) -> None:
    """Whatever is asked for."""
    chain = family(0)
    short = Chain(hops=(dataclasses.replace(chain.leaf, expires_at=START + timedelta(seconds=leaf_s)),))
    expected = min(ttl_s, leaf_s, MAX_TTL_S)
    assert verified(minted(short, ttl_s=ttl_s)).expires_at == START + timedelta(seconds=expected)


def test_an_expired_chain_gets_no_token() -> None:
    """At the very second."""
    clock = FakeClock(START + timedelta(hours=1))
    with pytest.raises(TokenExpired):
        minted(family(0), clock=clock)


def test_a_token_expires() -> None:
    """To the second, with no leeway: it was our own clock that wrote it."""
    token, clock = minted(family(0)), FakeClock()
    clock.advance(299.9)
    verified(token, clock=clock)
    clock.advance(0.1)
    with pytest.raises(TokenExpired):
        verified(token, clock=clock)


def test_a_token_of_the_future_is_none() -> None:
    """Thirty seconds between two of our clocks; past that one of them is wrong."""
    token = minted(family(0))
    verified(token, clock=FakeClock(START - timedelta(seconds=30)))
    with pytest.raises(TokenInvalid):
        verified(token, clock=FakeClock(START - timedelta(seconds=31)))


def test_a_chain_too_deep_for_a_token_is_refused() -> None:
    """KMS signs 4,096 bytes; a delegation without bound would come to that."""
    assert len(minted(family(MAX_DEPTH))) < 4200
    with pytest.raises(TokenInvalid):
        minted(family(MAX_DEPTH + 1))
    long = dataclasses.replace(family(0).leaf, scope=tuple(f"target-{n}" for n in range(400)))
    with pytest.raises(TokenInvalid):
        minted(Chain(hops=(long,)))


def resigned(purpose: str = "token", typ: str = TYPE, **changes: Any) -> str:
    _, claims = parts(minted(family(1)))
    told = {name: value for name, value in (claims | changes).items() if value is not None}
    return KEYS.signer(purpose).sign(typ, canonical(told))


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(resigned(typ="JWT"), id="another type"),
        pytest.param(resigned("answer"), id="another role's key"),
        pytest.param(resigned(cnf="thumb"), id="a binding that is none"),
        pytest.param(resigned(cnf={"jkt": 7}), id="a key that is no thumbprint"),
        pytest.param(resigned(iss="https://evil.example"), id="another issuer"),
        pytest.param(resigned(aud="https://other.example"), id="another audience"),
        pytest.param(resigned(aud=[f"{URL}/v1"]), id="a list of audiences"),
        pytest.param(resigned(exp=None), id="no end"),
        pytest.param(resigned(exp="9999999999"), id="an end of text"),
        pytest.param(resigned(hop=None), id="no hop"),
        pytest.param(resigned(hop=""), id="an empty hop"),
        pytest.param(resigned(txn=7), id="a txn that is no text"),
        pytest.param(resigned(anc="hop_1"), id="ancestors that are no list"),
        pytest.param(resigned(anc=[1]), id="ancestors that are no hops"),
        pytest.param(sign_sha256(KEYS.signer("token"), TYPE, "ab" * 32), id="a signature over a hop"),
        pytest.param(KEYS.signer("token").sign(TYPE, b"[]"), id="no object"),
        pytest.param("a.b.c", id="garbage"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_no_token_of_ours_is_refused(token: str) -> None:
    """Whatever signed it, and however well."""
    with pytest.raises(TokenInvalid):
        verified(token)


def test_a_replaced_key_ends_its_tokens() -> None:
    """Emergency rotation works at once."""
    keys = MemoryKeys()
    token = TokenIssuer(keys.signer("token"), URL, f"{URL}/v1", FakeClock()).mint(family(0), "t", 300).token.expose()
    keys.rotate("token")
    with pytest.raises(TokenInvalid):
        verified(token, keys=keys)


def test_a_minted_token_does_not_print() -> None:
    """It is a bearer's: a log line with it is a login."""
    token = TokenIssuer(KEYS.signer("token"), URL, f"{URL}/v1", FakeClock()).mint(family(0), "tok_1", 300)
    assert token.token.expose() not in repr(token)


def test_the_published_keys_are_public_and_verify() -> None:
    """RFC 7517: whoever holds one of our tokens can check it with PyJWT and this document alone."""
    import jwt

    document = jwks(KEYS)
    [key] = document["keys"]
    assert (key["use"], key["alg"], key["kid"], key["kty"], key["crv"]) == (
        "sig",
        "ES256",
        "token-key-1",
        "EC",
        "P-256",
    )
    assert "d" not in key
    token = minted(family(0))
    options: Any = {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
    claims = jwt.decode(token, jwt.PyJWK(dict(key)).key, algorithms=["ES256"], audience=f"{URL}/v1", options=options)
    assert claims["jti"] == "tok_1"
