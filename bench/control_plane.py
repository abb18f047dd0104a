"""A warm ``POST /v1/token`` and ``POST /v1/sessions``: CPU a call, and how often a call goes to a table or function.

The app, its services, policy and signatures are the real ones in one process; the stores are memory's, so that what is
measured is what we add and not an emulator. CPU is of the whole process. Each call of a store is one request in AWS;
KMS signatures are not among them (one for each token, one more for the first of a run).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from bench.harness import Row, bounded, compare
from chalicelib.domain.verifier import new_session_secret, verifier_of
from tests.fakes.control_plane import PUBLIC_URL, ControlPlane, issuer_key
from tests.fakes.keys import Key

CALLS = 60  # in one run: some tenths of a second, so that one garbage collection does not decide it
TOKEN_RATIO = 5.0  # the peer is bare cryptography; the rest is HTTP, the issuer's rules, the hop and its signature
SESSION_RATIO = 4.0  # the rest is HTTP, the chain, policy by Cedar and the session itself
TOKEN_CALLS = 8.0  # one invocation, three claims, the chain: each is a round trip of milliseconds before the answer
SESSION_CALLS = 8.0


def _cpu_ms(call: Callable[[], None]) -> float:
    started = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - started) * 1000 / CALLS


def _calls(plane: ControlPlane, call: Callable[[], None]) -> float:
    before = plane.stores.calls
    call()
    return float(plane.stores.calls - before)


def rows() -> list[Row]:
    """Return the two CPU rows and the two counts."""
    plane, key = ControlPlane(), Key()
    signing = ec.generate_private_key(ec.SECP256R1())
    signature = signing.sign(b"x" * 1000, ec.ECDSA(hashes.SHA256()))
    public = issuer_key().public_key()

    def token() -> None:
        plane.token(key=key)

    def proof() -> None:  # the caller makes one for each call, and the service verifies it
        signing.sign(b"x" * 1000, ec.ECDSA(hashes.SHA256()))
        signing.public_key().verify(signature, b"x" * 1000, ec.ECDSA(hashes.SHA256()))

    def cryptography() -> None:
        jwt.decode(plane.ci_token(), public, algorithms=["RS256"], audience=PUBLIC_URL, options={"verify_exp": False})
        proof()
        signing.sign(b"x" * 1000, ec.ECDSA(hashes.SHA256()))

    def session() -> None:
        answer = plane.ask(access, "orders-dev", by=key)
        if answer.status_code != 201:
            raise RuntimeError(f"POST /v1/sessions answered {answer.status_code}")

    def bare_session() -> None:
        proof()
        for _ in range(2):  # the caller's token, and the hop that it names
            signing.public_key().verify(signature, b"x" * 1000, ec.ECDSA(hashes.SHA256()))
        verifier_of(new_session_secret())

    token()
    access = plane.token(key=key)
    session()
    return [
        compare(
            "POST /v1/token, warm",
            "ms CPU",
            lambda: _cpu_ms(token),
            "make, verify RS256, prove a key and sign ES256",
            lambda: _cpu_ms(cryptography),
            f"at most {TOKEN_RATIO:g} x bare cryptography",
            TOKEN_RATIO,
        ),
        bounded("POST /v1/token, table and function calls", "calls", _calls(plane, token), "limit", TOKEN_CALLS),
        compare(
            "POST /v1/sessions, warm, granted",
            "ms CPU",
            lambda: _cpu_ms(session),
            "prove a key, verify ES256 twice, make a SCRAM verifier",
            lambda: _cpu_ms(bare_session),
            f"at most {SESSION_RATIO:g} x bare cryptography",
            SESSION_RATIO,
        ),
        bounded("POST /v1/sessions, table and function calls", "calls", _calls(plane, session), "limit", SESSION_CALLS),
    ]
