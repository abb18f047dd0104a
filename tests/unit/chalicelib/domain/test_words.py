"""The small words of the domain: requirements, verifiers, identifiers, secrets, errors, sessions, verdicts."""

from __future__ import annotations

import base64
import copy
import dataclasses
import hashlib
import hmac
import json
import pickle
from datetime import timedelta

import pytest

from chalicelib.domain import errors
from chalicelib.domain.connection import ConnectionRow
from chalicelib.domain.errors import AccessError, ConfigurationInvalid, StoreUnavailable, leaf_errors, refusal, refused
from chalicelib.domain.identifiers import SESSION_ID, TXN, new_session_id, new_txn, ulid
from chalicelib.domain.operation import Block, Forward, Hold, Ruling, verdict_word
from chalicelib.domain.requirement import (
    Approval,
    Bound,
    Durable,
    MaskWith,
    RecordFull,
    Requirement,
    parse_requirement,
)
from chalicelib.domain.secret import Secret
from chalicelib.domain.signature import KeyPurpose, compact, signed_payload, signing_input
from chalicelib.domain.verifier import ITERATIONS, new_session_secret, stranger_verifier, verifier_of
from tests.fakes import samples
from tests.fakes.clock import START


@pytest.mark.parametrize(
    ("text", "requirement"),
    [
        ("approval:dba:1", Approval(group="dba", count=1)),
        ("approval:dba:1:webauthn", Approval(group="dba", count=1, webauthn=True)),
        ("approval:on-call:9", Approval(group="on-call", count=9)),
        ("mask:email", MaskWith(masks=("email",))),
        ("mask:email,card_number", MaskWith(masks=("email", "card_number"))),
        ("durable", Durable()),
        ("record:full", RecordFull()),
        ("bound", Bound()),
    ],
)
def test_a_requirement_is_read_as_it_is_written(text: str, requirement: Requirement) -> None:
    """The list is closed and versioned: a text that began to mean something else would change what is enforced."""
    assert parse_requirement(text) == requirement


@pytest.mark.parametrize(
    "text",
    [
        *("", "approval", "approval:", "approval:dba", "approval:dba:", "approval:dba:0", "approval:dba:10"),
        *("approval:dba:-1", "approval:dba:²", "approval:dba:1:2", "approval::1", "approval:DBA:1", "mask:", "mask"),
        *("approval:dba:1:", "approval:dba:1:WebAuthn", "approval:dba:1:webauthn:", "approval:dba::webauthn"),
        *("mask:email,", "mask:,", "durable:yes", "record", "record:half", "bound:1", "Durable", "approvals:dba:1"),
    ],
)
def test_an_unknown_requirement_refuses_the_bundle(text: str) -> None:
    """One that nobody knows would be one that everybody meets."""
    with pytest.raises(ConfigurationInvalid):
        parse_requirement(text)


def test_white_space_around_a_requirement_is_no_part_of_it() -> None:
    """``@requires("mask:email, card_number ")`` is how people write lists."""
    assert parse_requirement(" mask:email, card_number ") == MaskWith(masks=("email", "card_number"))


def test_a_verifier_is_that_of_rfc_7677() -> None:
    """Section 3's exchange: the client's proof checks against ours, and the server's signature is ours."""
    verifier = verifier_of(Secret("pencil"), base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = (f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r={nonce}").encode()
    stored, server = base64.b64decode(verifier.stored_key), base64.b64decode(verifier.server_key)
    proof = base64.b64decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    client = bytes(a ^ b for a, b in zip(proof, hmac.digest(stored, message, "sha256"), strict=True))
    assert hashlib.sha256(client).digest() == stored
    assert base64.b64encode(hmac.digest(server, message, "sha256")) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_a_new_secret_is_new_and_strong_and_so_is_its_salt() -> None:
    """256 bits, in characters that need no quoting."""
    one, two = new_session_secret(), new_session_secret()
    assert one.expose() != two.expose()
    assert len(base64.urlsafe_b64decode(one.expose() + "=")) == 32
    assert verifier_of(one) != verifier_of(one)
    assert verifier_of(one).iterations == ITERATIONS


def test_a_stranger_sees_the_same_exchange_each_time() -> None:
    """A salt that changed between tries would tell an unknown login from a known one."""
    one = stranger_verifier("ses_x", b"pepper")
    assert one == stranger_verifier("ses_x", b"pepper")
    assert one.salt != stranger_verifier("ses_y", b"pepper").salt
    assert one.salt != stranger_verifier("ses_x", b"other").salt
    real = verifier_of(Secret("x"))
    for name in ("salt", "stored_key", "server_key"):
        assert len(getattr(one, name)) == len(getattr(real, name))
    assert one.iterations == real.iterations


def test_identifiers_sort_by_time_and_say_what_they_name() -> None:
    """``txn`` must fit STS's SourceIdentity and application_name; the login name must be told from anything else."""
    ids = [ulid(START + timedelta(milliseconds=n)) for n in range(5)]
    assert ids == sorted(ids)
    assert len({ulid(START) for _ in range(100)}) == 100
    assert TXN.match(new_txn(START))
    assert SESSION_ID.match(new_session_id(START))
    for wrong in (
        "ses_",
        new_txn(START),
        f"{new_session_id(START)}\n",
        new_session_id(START).upper(),
        "ses_" + "8" * 26,
    ):
        assert not SESSION_ID.match(wrong)


def test_a_secret_shows_itself_nowhere() -> None:
    """Whatever way a log line or a traceback takes."""
    secret = Secret("hunter2")
    for text in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", f"{[secret]}", f"{secret:x}"):
        assert "hunter2" not in text
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            leak(secret)
    assert secret.expose() == "hunter2"
    assert secret.equals("hunter2")
    assert not secret.equals("hunter3")
    assert not hasattr(secret, "__dict__")


def test_error_codes_are_unique_and_every_error_says_what_to_do() -> None:
    """Pipelines script against the codes."""
    found = leaf_errors()
    assert len({cls.code for cls in found}) == len(found)
    assert all(cls.hint and cls.code.isidentifier() for cls in found)
    defined = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, AccessError)}
    assert defined <= set(found)


@pytest.mark.parametrize("cls", [cls for cls in leaf_errors() if cls is not AccessError])
def test_a_refusal_keeps_its_class_between_functions(cls: type[AccessError]) -> None:
    """``decide`` refuses in one function, and the edge words it in another; the detail stays where it was."""
    told = refusal(cls("Not you.", hint="Ask.", host="db-7.internal"))
    again = refused(told)
    assert type(again) is cls
    assert (again.public, again.next_step, again.detail) == ("Not you.", "Ask.", {})


@pytest.mark.parametrize("told", [{}, {"code": "made_up"}, {"code": "internal"}, {"code": 7, "public": "ok"}])
def test_an_unknown_refusal_is_no_success(told: dict[str, object]) -> None:
    """A newer function may refuse with a code that an older one does not know."""
    assert type(refused(told)) is StoreUnavailable


def test_a_session_dies_with_any_of_its_keys() -> None:
    """What can be revoked of it besides its chain."""
    session = samples.session()
    keys = {"epoch:first", f"session:{session.id}", "token:tok-1", "target:orders-prod"}
    assert session.liveness_keys() == keys
    granted = dataclasses.replace(session, grant=samples.grant(session))
    assert granted.grant is not None
    assert granted.liveness_keys() == keys | {f"grant:{granted.grant.id}"}


def test_verdicts_have_the_glossarys_words() -> None:
    """Records and reviews carry them."""
    ruling = Ruling(rules=(), policy_digest="", configuration_serial=1)
    plain = Forward(ruling=ruling, masks=(), durable=False, record_full=False)
    assert verdict_word(plain) == "forward"
    assert verdict_word(dataclasses.replace(plain, masks=("email",))) == "mask"
    assert verdict_word(Hold(ruling=ruling, needs=())) == "hold"
    assert verdict_word(Block(ruling=ruling, code="policy_denied", public="", hint="")) == "block"


def test_sealing_changes_nothing_that_the_next_row_hashed() -> None:
    """The chain of rows of one broker's boot must survive the seals."""
    row = samples.connection_row()
    sealed = {"sealed_at", "exit", "manifest_key", "manifest_sha256"}
    changed = dataclasses.replace(row, sealed_at=START, exit="x", manifest_key="x", manifest_sha256="x")
    assert changed.sha256() == row.sha256()
    for field in dataclasses.fields(ConnectionRow):
        if field.name not in sealed:
            value = START + timedelta(days=1) if field.name == "opened_at" else 2 if field.name == "number" else "x"
            assert samples.changed(row, **{field.name: value}).sha256() != row.sha256(), field.name


def test_a_signing_input_is_rfc_7515s() -> None:
    """Header and payload in base64url without padding; past what KMS takes it is refused, not hashed."""
    text = signing_input("t+jws", "k", signed_payload("ab"))
    header, payload = (json.loads(base64.urlsafe_b64decode(part + b"==")) for part in text.split(b"."))
    assert header == {"alg": "ES256", "kid": "k", "typ": "t+jws"}
    assert payload == {"sha256": "ab"}
    assert compact(text, b"\xff\xfe") == f"{text.decode()}.__4"
    with pytest.raises(ValueError, match="4096"):
        signing_input("t+jws", "k", b"x" * 4096)


def test_there_is_a_key_for_each_purpose() -> None:
    """Aliases are made from these words, and a role's right names one."""
    wanted = ["token", "answer", "record", "sweep", "signoff", "activation", "digest", "copy", "ssh-user", "ssh-target"]
    assert [purpose.value for purpose in KeyPurpose] == wanted
