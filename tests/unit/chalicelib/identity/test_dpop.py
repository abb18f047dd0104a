"""Proofs of possession: what one proves, and every one that proves nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from chalicelib.domain.errors import KeyProofInvalid
from chalicelib.identity.dpop import Key as RealKey
from chalicelib.identity.dpop import new_key, thumbprint, token_hash, verify_proof
from tests.fakes.clock import START, FakeClock
from tests.fakes.issuer import segment
from tests.fakes.keys import PUBLIC_URL, Key

URL = f"{PUBLIC_URL}/v1/sessions"
TOKEN = "a.b.c"
CLOCK = FakeClock()
KEY = Key()


def proved(proof: str, *, method: str = "POST", url: str = URL, token: str | None = TOKEN) -> str:
    return verify_proof(proof, method=method, url=url, token=token, clock=CLOCK).thumbprint


def good(**changed: Any) -> dict[str, Any]:
    return KEY.claims(CLOCK, "POST", "/v1/sessions", TOKEN, **changed)


def test_a_good_proof_names_its_key() -> None:
    """What is bound to the key is bound to its thumbprint."""
    found = verify_proof(KEY.signed(good(jti="one")), method="POST", url=URL, token=TOKEN, clock=CLOCK)
    assert (found.thumbprint, found.jti, found.issued_at) == (KEY.thumbprint, "one", START)


def test_our_own_proofs_are_good_and_never_the_same() -> None:
    """The command line's side against ours; each proof counts once, so no two may have one id."""
    key = new_key()
    proofs = [key.proof("POST", URL, token=TOKEN, now=START) for _ in range(2)]
    assert {proved(proof) for proof in proofs} == {key.thumbprint}
    assert len(set(proofs)) == 2
    kept = RealKey(key.pem())
    assert kept.thumbprint == key.thumbprint
    assert proved(kept.proof("POST", f"{PUBLIC_URL}/v1/token", now=START), url=f"{PUBLIC_URL}/v1/token", token=None)


def test_the_example_of_rfc_9449() -> None:
    """Section 4.1's proof and the thumbprint that section 6.1 binds a token to: made by others, not by us."""
    proof = (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0Rs"
        "cEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2"
        "In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2V"
        "uIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xR"
        "ZT3Lg"
    )
    clock = FakeClock(datetime.fromtimestamp(1562262616, UTC))
    found = verify_proof(proof, method="POST", url="https://server.example.com/token", token=None, clock=clock)
    assert found.thumbprint == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
    assert token_hash("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU") == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def _hs256() -> str:
    """The public key as the secret of an HMAC: what a verifier takes that believes the header's algorithm."""
    header = {"typ": "dpop+jwt", "alg": "HS256", "jwk": KEY.jwk}
    signing = f"{segment(json.dumps(header).encode())}.{segment(json.dumps(good()).encode())}"
    secret = json.dumps(KEY.jwk, sort_keys=True).encode()
    return f"{signing}.{segment(hmac.new(secret, signing.encode(), hashlib.sha256).digest())}"


def _none() -> str:
    header = {"typ": "dpop+jwt", "alg": "none", "jwk": KEY.jwk}
    return f"{segment(json.dumps(header).encode())}.{segment(json.dumps(good()).encode())}."


def _another_spelling() -> dict[str, str]:
    """The same point, its last character with other unused bits: another thumbprint, were it taken."""
    x = KEY.jwk["x"]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = x[:-1] + alphabet[alphabet.index(x[-1]) ^ 1]
    assert base64.urlsafe_b64decode(other + "=") == base64.urlsafe_b64decode(x + "=")
    return {**KEY.jwk, "x": other}


def _not_on_the_curve() -> dict[str, str]:
    return {**KEY.jwk, "x": segment(b"\x01" * 32), "y": segment(b"\x02" * 32)}


def _signature_of_another_key() -> str:
    head = KEY.signed(good()).rpartition(".")[0]
    return f"{head}.{Key().signed(good()).rpartition('.')[2]}"


def _altered() -> str:
    head, _, signature = KEY.signed(good()).split(".")
    return f"{head}.{segment(json.dumps(good(jti='another')).encode())}.{signature}"


def _at(offset_s: float) -> int:
    return int((START + timedelta(seconds=offset_s)).timestamp())


ATTACKS: dict[str, Callable[[], str]] = {
    "for another method": lambda: KEY.signed(good(htm="GET")),
    "for another path": lambda: KEY.signed(good(htu=f"{PUBLIC_URL}/v1/token")),
    "for another service": lambda: KEY.signed(good(htu="https://evil.example.com/v1/sessions")),
    "for the address with a query": lambda: KEY.signed(good(htu=f"{URL}?take=true")),
    "for another token": lambda: KEY.signed(good(ath=token_hash("x.y.z"))),
    "for no token": lambda: KEY.signed(good(ath=None)),
    "old": lambda: KEY.signed(good(iat=_at(-61))),
    "of the future": lambda: KEY.signed(good(iat=_at(61))),
    "without a time": lambda: KEY.signed(good(iat=None)),
    "with a time that is text": lambda: KEY.signed(good(iat=str(_at(0)))),
    "with a time that is true": lambda: KEY.signed(good(iat=True)),
    "without an id": lambda: KEY.signed(good(jti=None)),
    "with an endless id": lambda: KEY.signed(good(jti="x" * 129)),
    "with an id of another script": lambda: KEY.signed(good(jti="ü")),
    "with an id that is a number": lambda: KEY.signed(good(jti=7)),
    "with a private jwk": lambda: KEY.signed(good(), jwk=KEY.private_jwk()),
    "with no key": lambda: KEY.signed(good(), jwk=None),
    "with a key that is text": lambda: KEY.signed(good(), jwk="key"),
    "with a key of another curve": lambda: KEY.signed(good(), jwk={**KEY.jwk, "crv": "P-384"}),
    "with an RSA key": lambda: KEY.signed(good(), jwk={"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
    "with the key in another spelling": lambda: KEY.signed(good(), jwk=_another_spelling()),
    "with a padded key": lambda: KEY.signed(good(), jwk={**KEY.jwk, "x": KEY.jwk["x"] + "="}),
    "with a coordinate that is a number": lambda: KEY.signed(good(), jwk={**KEY.jwk, "x": 7}),
    "with a point that is not on the curve": lambda: KEY.signed(good(), jwk=_not_on_the_curve()),
    "with a member more in its key": lambda: KEY.signed(good(), jwk={**KEY.jwk, "x5c": ["AAAA"]}),
    "with a member more in its header": lambda: KEY.signed(good(), kid="k1"),
    "with a critical header": lambda: KEY.signed(good(), crit=["exp"]),
    "of another type": lambda: KEY.signed(good(), typ="JWT"),
    "of a token's type": lambda: KEY.signed(good(), typ="at+jwt"),
    "alg none": _none,
    "alg HS256": _hs256,
    "alg ES512 over ES256": lambda: KEY.signed(good(), alg="ES512"),
    "signed by another key": _signature_of_another_key,
    "altered after signing": _altered,
    "larger than any proof": lambda: KEY.signed(good(extra="x" * 5_000)),
    "no JWS": lambda: "proof",
    "nothing": lambda: "",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_dpop_proof_that_proves_nothing(name: str) -> None:
    """Attack: each is a proof made for something else, by somebody else, or so that a careless verifier takes it."""
    with pytest.raises(KeyProofInvalid):
        proved(ATTACKS[name]())


def test_a_proof_is_good_for_a_minute_either_way() -> None:
    """Clocks differ, and a call takes a while; a proof from a log an hour later is nothing."""
    for offset_s in (-60, 60):
        assert proved(KEY.signed(good(iat=_at(offset_s)))) == KEY.thumbprint


def test_a_thumbprint_is_of_the_public_members_alone() -> None:
    """RFC 7638 section 3.2: labels do not change it; a private member, or another kind of key, has none here."""
    assert thumbprint({**KEY.jwk, "alg": "ES256", "use": "sig", "kid": "k1"}) == KEY.thumbprint
    for jwk in (KEY.private_jwk(), {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {}):
        with pytest.raises(KeyProofInvalid):
            thumbprint(jwk)


def test_a_key_file_that_holds_another_key_is_refused() -> None:
    """A proof of a key that nobody takes would fail far from its cause."""
    other = ec.generate_private_key(ec.SECP384R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for pem in (other, b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(ValueError, match=r".*"):
            RealKey(pem)
