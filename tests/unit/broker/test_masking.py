"""Detectors: what they find, what they leave, and that what they found is gone."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.masking import BUILT_IN_DETECTORS, CLIENT_TEXT, Detectors, carries_sentinel
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.masking import SENTINEL, MaskMode, MaskRule


def rule(
    *detectors: str, name: str = "m", mode: MaskMode = MaskMode.REDACT, patterns: tuple[str, ...] = ()
) -> MaskRule:
    return MaskRule(name=name, mode=mode, targets=(), columns=(), detectors=detectors, patterns=patterns)


FOUND = [
    ("email", "ann@example.org"),
    ("email", "o'neill+tag@mail.example.co.uk"),
    ("email", "jürgen@münchen.de"),
    ("card_number", "4111111111111111"),
    ("card_number", "4111 1111 1111 1111"),
    ("card_number", "5500-0000-0000-0004"),
    ("card_number", "378282246310005"),
    ("iban", "DE89370400440532013000"),
    ("iban", "GB82 WEST 1234 5698 7654 32"),
    ("iban", "de89370400440532013000"),
    ("jwt", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.MEUCIQ"),
    ("aws_access_key", "AKIAIOSFODNN7EXAMPLE"),
    ("private_key", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----"),
    ("private_key", "-----BEGIN PRIVATE KEY-----\nMHcCAQ and nothing more"),
]


@pytest.mark.parametrize(("kind", "secret"), FOUND)
def test_a_secret_is_found_alone_and_in_text(kind: str, secret: str) -> None:
    """Wherever it stands; the rest of the text stays as it is."""
    detectors = Detectors([rule(kind)])
    assert detectors.mask(secret) == f"{SENTINEL}m#"
    if kind == "private_key":
        return
    assert detectors.mask(f"see: {secret}, (and more)") == f"see: {SENTINEL}m#, (and more)"
    assert detectors.mask(f'{{"k":"{secret}"}}') == f'{{"k":"{SENTINEL}m#"}}'


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112",  # Luhn fails
        "1234567890123",  # milliseconds since 1970 begin with 1
        "2024-01-01 12:34:56.123456",
        "00000000000000000000000000000000",
        "ann@localhost",
        "a @ b . c",
        "DE89370400440532013001",  # the check fails
        "eyJhbGciOiJFUzI1NiJ9",
        "AKIA",
        "-----BEGIN PUBLIC KEY-----",
        "select password from users",
        "password = $1",
        "http://example.org:8080/x",
        "",
    ],
)
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    """Identifiers and times look like card numbers; masking them would make results useless."""
    assert CLIENT_TEXT.mask(text) == text


def test_two_cards_and_a_date_in_one_run_of_digits() -> None:
    """A card number hides in a longer run: every group of digits is tried as its beginning."""
    detectors = Detectors([rule("card_number")])
    assert detectors.mask("2024-01-01 4111111111111111") == f"2024-01-01 {SENTINEL}m#"
    assert detectors.mask("4111111111111111 5500000000000004") == f"{SENTINEL}m# {SENTINEL}m#"
    assert "4111" not in detectors.mask("1 2 3 4111-1111-1111-1111 4 5 6")


def test_passwords_in_client_text() -> None:
    """CREATE ROLE and connection strings carry them in clear."""
    shown, literals = CLIENT_TEXT.literals("ALTER USER joe PassWord 'it''s' VALID UNTIL 'x'")
    assert shown == "ALTER USER joe PassWord [password: 7 characters] VALID UNTIL 'x'"
    assert [(literal.kind, literal.length) for literal in literals] == [("password", 7)]
    assert "s3cret" not in CLIENT_TEXT.mask("host=x password=s3cret dbname=y")
    assert "s3cret" not in CLIENT_TEXT.mask("postgres://joe:s3cret@host/db")
    assert "s3cret" not in CLIENT_TEXT.mask("CREATE ROLE r PASSWORD E's3\\'s3cret'")


def test_modes() -> None:
    """redact hides all; partial shows four characters of what is long enough; null is NULL where there is one."""
    value = b"mail ann@example.org now"
    assert Detectors([rule("email")]).mask_bytes(value) == b"mail #MASKED:m# now"
    assert Detectors([rule("email", mode=MaskMode.PARTIAL)]).mask_bytes(value) == b"mail #MASKED:m#.org now"
    assert Detectors([rule("email", mode=MaskMode.PARTIAL)]).mask_bytes(b"a@b.cde") == b"#MASKED:m#"
    assert Detectors([rule("email", mode=MaskMode.NULL)]).mask_bytes(value) is None
    assert Detectors([rule("email", mode=MaskMode.NULL)]).mask("ann@example.org") == "#MASKED:m#"
    assert Detectors([rule("email", mode=MaskMode.NULL)]).mask_bytes(b"none") == b"none"


def test_hits_that_overlap_become_one_and_hide_the_most() -> None:
    """The tail that one rule shows may be the middle of what another hides."""
    rules = [rule("email", mode=MaskMode.PARTIAL), rule(patterns=(r"example\.org-[0-9]+",), name="n")]
    assert Detectors(rules).mask("ann@example.org-12345") == "#MASKED:m#"


def test_custom_patterns_are_bounded() -> None:
    """They come from configuration: none may hang, eat memory, or match nothing and so everything."""
    detectors = Detectors([rule(patterns=(r"\bORD-\d{6}\b", r"^secret$"))])
    assert detectors.mask("see ORD-123456.") == "see #MASKED:m#."
    assert detectors.mask("secret") == "#MASKED:m#"
    for pattern in ("(", "a*", "", "^", "x" * 1001, "(a{1,1000}){1,1000}", r"(\pL{500}){1,2}" * 60):
        with pytest.raises(ConfigurationInvalid):
            Detectors([rule(patterns=(pattern,))])
    with pytest.raises(ConfigurationInvalid, match="email"):
        Detectors([rule("no_such_detector")])


def test_hostile_text_takes_linear_time() -> None:
    """Backtracking engines take minutes for these; a client chooses what is in its rows."""
    started = time.perf_counter()
    detectors = Detectors([rule(*sorted(BUILT_IN_DETECTORS), patterns=(r"(a+)+$", r"(x|xx)+y"))])
    for text in ("a" * 200_000 + "!", "x" * 200_000, "a@" * 100_000, "4 " * 100_000, "AA00 " * 50_000, "eyJ" * 60_000):
        detectors.mask(text)
    assert time.perf_counter() - started < 20


def test_the_sentinel_is_known_in_text_and_bytes() -> None:
    """MaskWrittenBack rests on it, for statements and for binds."""
    assert carries_sentinel(b"x#MASKED:email#y")
    assert carries_sentinel("#MASKED:card#1111")
    assert not carries_sentinel(b"")
    assert not carries_sentinel(None)
    assert carries_sentinel(Detectors([rule("email")]).mask("a@b.cd"))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([secret for kind, secret in FOUND if kind != "iban"]), st.text(max_size=20), st.text(max_size=20)
)
def test_a_planted_secret_never_survives(secret: str, before: str, after: str) -> None:
    """P5, for any surroundings that do not make it another value (more digits, more letters)."""
    text = f"{before} |{secret}| {after}"
    assert secret not in CLIENT_TEXT.mask(text)
    shown, literals = CLIENT_TEXT.literals(text)
    assert secret not in shown
    assert literals


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_text_raise_nothing(raw: bytes) -> None:
    """Values may be any bytes (SQL_ASCII, bytea); a decoder's exception would end the connection."""
    masked = CLIENT_TEXT.mask_bytes(raw)
    assert masked is not None
    if not CLIENT_TEXT.may_hit(raw):
        assert masked == raw


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([secret.encode() for _, secret in FOUND] + [b"x", b"1", b" ", b"\0A", b"z9"]), max_size=6)
)
@example([b"\0\0\0A", b"DE89370400440532013000"])  # the length of a value of 65 bytes ends in a letter
def test_may_hit_never_says_no_wrongly(parts: list[bytes]) -> None:
    """It looks at a whole row: a value that would be found alone must not hide behind its neighbours' bytes."""
    row = b"".join(parts)
    for kind in BUILT_IN_DETECTORS:
        detectors = Detectors([rule(kind)])
        if any(detectors.find(part) for part in parts):
            assert detectors.may_hit(row), kind
