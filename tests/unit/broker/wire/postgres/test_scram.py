"""SCRAM-SHA-256, both roles, against each other and against RFC 7677's own example."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.wire.postgres import scram
from broker.wire.postgres.scram import PLAIN, PLUS, ProofRefused, ScramClient, ScramKeys, ScramServer
from broker.wire.violation import RemoteViolation

SALT = b"0123456789abcdef"
NONCE = "a-nonce-of-18-bytes-or-more"


def keys(password: str, salt: bytes = SALT, iterations: int = 4096) -> ScramKeys:
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return ScramKeys(salt, iterations, stored, hmac.digest(salted, b"Server Key", "sha256"))


def exchange(client: ScramClient, server: ScramServer) -> None:
    """Run one exchange to its end."""
    client.verify(server.final(client.final(server.first(client.mechanism, client.first))))


def client(
    password: str = "secret", *, offered: tuple[str, ...] = (PLAIN,), binding: bytes | None = None
) -> ScramClient:
    return ScramClient(password, offered=offered, nonce="client-nonce-client", binding=binding)


def test_rfc_7677_example() -> None:
    """The RFC's own exchange (section 3): our server takes its client's messages and gives its server's."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    server = ScramServer(keys("pencil", salt), nonce="%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", binding=None)
    first = server.first(PLAIN, b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
    assert first == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    final = server.final(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert final == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize("binding", [None, b"hash of a certificate"])
def test_both_roles_agree(binding: bytes | None) -> None:
    """With and without channel binding."""
    server = ScramServer(keys("secret"), nonce=NONCE, binding=binding)
    asking = client(offered=server.mechanisms, binding=binding)
    assert asking.mechanism == (PLAIN if binding is None else PLUS)
    exchange(asking, server)


def test_a_wrong_secret_is_refused() -> None:
    """The proof is over the secret."""
    with pytest.raises(ProofRefused, match="proof"):
        exchange(client("wrong"), ScramServer(keys("secret"), nonce=NONCE, binding=None))


def test_a_verifier_that_nothing_matches_takes_the_same_steps() -> None:
    """A stranger must not see from the exchange that there is no such session."""
    nobody = ScramKeys(SALT, 4096, b"\1" * 32, b"\2" * 32)
    server = ScramServer(nobody, nonce=NONCE, binding=None)
    asking = client()
    answer = server.first(asking.mechanism, asking.first)
    assert answer.endswith(b",i=4096")
    with pytest.raises(ProofRefused, match="the proof is wrong"):
        server.final(asking.final(answer))


def test_a_server_that_does_not_know_the_secret_is_refused() -> None:
    """Whoever took the target's place has no server key."""
    known = keys("secret")
    fake = ScramServer(ScramKeys(SALT, 4096, known.stored_key, b"\0" * 32), nonce=NONCE, binding=None)
    with pytest.raises(ProofRefused, match="server"):
        exchange(client(), fake)


def test_a_man_in_the_middle_with_another_certificate_is_refused() -> None:
    """The client binds to the certificate that it saw."""
    server = ScramServer(keys("secret"), nonce=NONCE, binding=b"ours")
    with pytest.raises(ProofRefused, match="bound"):
        exchange(client(offered=(PLUS, PLAIN), binding=b"theirs"), server)


def test_removing_the_offer_of_channel_binding_is_noticed() -> None:
    """A client that could bind says ``y``; a server that had offered it knows that somebody took the offer away."""
    server = ScramServer(keys("secret"), nonce=NONCE, binding=b"ours")
    downgraded = client(offered=(PLAIN,), binding=b"ours")
    with pytest.raises(RemoteViolation, match="removed"):
        server.first(downgraded.mechanism, downgraded.first)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,a=admin,n=,r=abcdefghijkl",
        b"p=tls-unique,,n=,r=abcdefghijkl",
        b"x,,n=,r=abcdefghijkl",
        b"n,,r=abcdefghijkl,n=",
        b"n,,n=,r=short",
        b"\xff,,n=,r=abcdefghijkl",
    ],
)
def test_a_malformed_first_message_is_the_violation(first: bytes) -> None:
    """Nothing else may come out of a stranger's bytes."""
    with pytest.raises(RemoteViolation):
        ScramServer(keys("secret"), nonce=NONCE, binding=None).first(PLAIN, first)


@settings(deadline=None)  # a shared machine may stop a test for longer than any deadline
@given(st.binary(max_size=120))
def test_junk_for_a_final_message_is_refused(junk: bytes) -> None:
    """The one message that decides."""
    server = ScramServer(keys("secret", iterations=1), nonce=NONCE, binding=None)
    server.first(PLAIN, client().first)
    with pytest.raises((RemoteViolation, ProofRefused)):
        server.final(junk)


def test_a_replayed_final_message_is_refused() -> None:
    """Our nonce is new in each exchange, so yesterday's proof is for another one."""
    asking = client()
    first = ScramServer(keys("secret"), nonce=NONCE, binding=None)
    final = asking.final(first.first(PLAIN, asking.first))
    again = ScramServer(keys("secret"), nonce="another-nonce-of-18-bytes", binding=None)
    again.first(PLAIN, asking.first)
    with pytest.raises(RemoteViolation, match="nonce"):
        again.final(final)


@pytest.mark.parametrize(
    "server_first",
    [
        b"r=client-nonce-client,s=AAAA,i=4096",
        b"r=other,s=AAAA,i=4096",
        b"r=client-nonce-clientX,s=AAAA,i=0",
        b"r=client-nonce-clientX,s=AAAA,i=99999999",
        b"r=client-nonce-clientX,s=!,i=4096",
        b"e=other-error",
    ],
)
def test_a_malformed_server_message_is_the_violation(server_first: bytes) -> None:
    """A hostile target: a nonce that is not ours, no rounds, or a billion of them."""
    with pytest.raises(RemoteViolation):
        client().final(server_first)


def test_no_known_mechanism() -> None:
    """A target that offers only what we do not know."""
    with pytest.raises(RemoteViolation):
        client(offered=("OAUTHBEARER",))


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("plain", "plain"),
        ("\u00aa", "a"),
        ("I\u00adX", "IX"),
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),
        ("\u0007é", "\u0007é"),
    ],
)
def test_saslprep_as_postgresql_does(password: str, prepared: str) -> None:
    """RFC 4013's examples; what it refuses is used as it is, since PostgreSQL does that."""
    assert scram.saslprep(password) == prepared
