"""Proofs of the caller's key, checked by another implementation of JOSE."""

from __future__ import annotations

import base64
import hashlib
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from chalicelib.domain.secret import Secret
from countersign.proofs import BoundToken, KeyAlone, OwnKey
from tests.fakes.waiting_clock import WaitingClock

TOKEN = "aaaa.bbbb.cccc"
URL = "https://countersign.example.com/api/v1/sessions/ses_1"


def opened(proof: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return header and claims of a proof, verified by PyJWT with the key that it carries."""
    header = jwt.get_unverified_header(proof)
    key = jwt.PyJWK(header["jwk"], algorithm="ES256").key
    return header, jwt.decode(proof, key, algorithms=["ES256"], options={"verify_iat": False})


def test_a_proof_is_what_rfc_9449_says() -> None:
    """Section 4.2: typ, alg, the public key alone; method, address without its query, time, the token's hash."""
    key, clock = OwnKey.new(), WaitingClock()
    headers = BoundToken(Secret(TOKEN), key, clock).headers("GET", f"{URL}?wait_s=5#x")
    header, claims = opened(headers["DPoP"])
    assert (header["typ"], header["alg"], set(header)) == ("dpop+jwt", "ES256", {"typ", "alg", "jwk"})
    assert header["jwk"] == key.jwk
    assert "d" not in key.jwk
    assert (claims["htm"], claims["htu"], claims["iat"]) == ("GET", URL, int(clock.now().timestamp()))
    digest = hashlib.sha256(TOKEN.encode()).digest()
    assert claims["ath"] == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert headers["Authorization"] == f"DPoP {TOKEN}"


def test_a_proof_for_the_token_endpoint_names_no_token() -> None:
    """There is none yet, and a hash of nothing would be refused."""
    headers = KeyAlone(OwnKey.new(), WaitingClock()).headers("POST", URL)
    assert "ath" not in opened(headers["DPoP"])[1]
    assert "Authorization" not in headers


def test_no_two_proofs_are_alike() -> None:
    """Each counts once at the service, so the same request a second time needs another."""
    key = OwnKey.new()
    proofs = {opened(key.proof("GET", URL, issued_at=1, token=None))[1]["jti"] for _ in range(50)}
    assert len(proofs) == 50


def test_the_thumbprint_is_rfc_7638s() -> None:
    """A parent writes it into a ticket, and the service computes its own: they must be the same text."""
    key = OwnKey.new()
    text = json.dumps(dict(key.jwk), sort_keys=True, separators=(",", ":")).encode()
    assert key.thumbprint == base64.urlsafe_b64encode(hashlib.sha256(text).digest()).rstrip(b"=").decode()
    assert OwnKey.from_pem(key.pem().expose()).thumbprint == key.thumbprint


@pytest.mark.parametrize("private", [ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()])
def test_another_kind_of_key_is_none(private: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    """The service takes ES256 alone: another key in the file is a fault to be said, not a request to be refused."""
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(ValueError, match="P-256"):
        OwnKey.from_pem(pem)


def test_no_thumbprint_is_read_as_an_option() -> None:
    """One key in 64 would begin with ``-``: `countersign delegate --key -x...` is a usage error, now and then."""
    assert not [key for key in (OwnKey.new() for _ in range(600)) if key.thumbprint.startswith("-")]
