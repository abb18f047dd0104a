"""Masks on a stream: the same whatever the cuts, nothing of a secret, and nobody at a terminal is kept waiting."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.masking import Detectors
from broker.stream_masking import MAX_HELD, OVERLAP, WINDOW, StreamMask
from chalicelib.domain.masking import MaskMode, MaskRule

AKIA = b"AKIAIOSFODNN7EXAMPLE"
EMAIL = b"ann@example.org"
JWT = b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.MEUCIQ"
BODY = b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
KEY = b"-----BEGIN RSA PRIVATE KEY-----\n" + (BODY + b"\n") * 3 + b"c2hvcnQ=\n-----END RSA PRIVATE KEY-----"
OPEN_KEY = b"-----BEGIN PRIVATE KEY-----\n" + (BODY + b"\n") * 2


def rule(name: str, *detectors: str, mode: MaskMode = MaskMode.REDACT, patterns: tuple[str, ...] = ()) -> MaskRule:
    return MaskRule(name=name, mode=mode, targets=(), columns=(), detectors=detectors, patterns=patterns)


RULES = (
    rule("keys", "aws_access_key", "private_key", "jwt", "url_password"),
    rule("mail", "email", mode=MaskMode.PARTIAL),
    rule("cards", "card_number", mode=MaskMode.NULL),
    rule("orders", patterns=(r"\bORD-\d{6}\b", r"^secret$")),
)
DETECTORS = Detectors(RULES)


def masked(*chunks: bytes, rules: tuple[MaskRule, ...] = RULES) -> bytes:
    stream = StreamMask(rules, DETECTORS if rules is RULES else None)
    return b"".join([*(stream.feed(chunk) for chunk in chunks), stream.finish()])


def cut(text: bytes, places: list[int]) -> list[bytes]:
    at = sorted(place % (len(text) + 1) for place in places)
    return [text[start:end] for start, end in zip([0, *at], [*at, len(text)], strict=True)]


# None of it stands in PIECES, where what is glued to it may make it no secret.
PLANTED = [
    b"AKIAZZZZZZZZZZZZ2345",
    b"eyJplanted.eyJplanted.planted",
    b"bob@planted.example",
    KEY.replace(b"VJTUt9", b"planted").replace(b"c2hvcnQ", b"planted"),
]
PIECES = [
    *(AKIA, EMAIL, JWT, KEY, OPEN_KEY, b"4111 1111 1111 1111", b"ORD-123456", b"secret", b"postgres://u:pw@h/d"),
    *(b"\n", b"\r\n", b"\r", b" ", b"x", b"7", b"-", b"\x1b[31m", b"\x1b", b"\x1b]0;t\x07", b"\xff\xc3", b"AKIA"),
    *(b"-----BEGIN ", b"PRIVATE KEY-----", b"-----END PRIVATE KEY-----", BODY, b"prompt$ "),
]
texts = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=14).map(b"".join)


@settings(max_examples=500)
@given(texts, st.lists(st.integers(min_value=0, max_value=2000), max_size=12))
@example(b"-----BEGIN PRIVATE KEY-----\r\nx\r\nx\r\nx\r\nshown\r\n", [28, 32])
def test_the_cuts_of_the_network_change_nothing(text: bytes, places: list[int]) -> None:
    """A secret in two reads is the same secret: what comes out depends on the bytes alone."""
    assert masked(*cut(text, places)) == masked(text)
    assert masked(*(bytes([byte]) for byte in text)) == masked(text)


@settings(max_examples=500)
@given(texts.filter(lambda text: b"PRIVATE" not in text and b"\x1b" not in text))
def test_each_line_is_masked_as_the_detectors_mask_a_value(text: bytes) -> None:
    """The stream finds what masking the whole finds: the reference is the detectors themselves, line by line."""
    lines = text.splitlines(keepends=True)
    ends = [line[len(line.rstrip(b"\r\n")) :] for line in lines]
    expected = [DETECTORS.redact_bytes(line.rstrip(b"\r\n")) + end for line, end in zip(lines, ends, strict=True)]
    assert masked(text) == b"".join(expected)


@settings(max_examples=300)
@given(texts, st.lists(st.integers(min_value=0, max_value=2000), max_size=6), st.sampled_from(PLANTED))
def test_a_planted_secret_never_survives_a_stream(around: bytes, places: list[int], secret: bytes) -> None:
    """P5 for a stream, whatever stands before and behind it and wherever it was cut."""
    shown = masked(*cut(around + b"\n|" + secret + b"|\n" + around, places))
    assert not any(line in shown for line in secret.splitlines() if b"PRIVATE KEY" not in line)


@settings(max_examples=300)
@given(st.binary(max_size=400), st.lists(st.integers(min_value=0, max_value=400), max_size=5))
def test_without_a_hit_every_byte_passes(raw: bytes, places: list[int]) -> None:
    """An archive or an image must arrive as it was sent."""
    stream = StreamMask((rule("keys", "aws_access_key", "private_key"),))
    assert b"".join([*(stream.feed(chunk) for chunk in cut(raw, places)), stream.finish()]) == raw


def test_no_rule_with_detectors_passes_at_once() -> None:
    """Column masks mean nothing on a stream: bytes are forwarded as they come, and nothing waits."""
    stream = StreamMask(())
    assert stream.passes
    assert stream.feed(AKIA) == AKIA
    assert not stream.waits
    assert stream.idle() == stream.finish() == b""


def test_a_private_key_is_one_mask_from_its_first_line_to_its_last() -> None:
    """It is the one value that spans lines; what stands around it stays."""
    assert masked(b"a\n" + KEY + b"\nb\n") == b"a\n#MASKED:keys#\nb\n"
    assert masked(b"a\r\n" + KEY.replace(b"\n", b"\r\n") + b"\r\nb") == b"a\r\n#MASKED:keys#\r\nb"
    assert masked(b'{"k":"' + KEY.replace(b"\n", b"\\n") + b'"}\n') == b'{"k":"#MASKED:keys#"}\n'
    assert masked(KEY + b" " + KEY + b"$ ") == b"#MASKED:keys# #MASKED:keys#$ "
    assert masked(b"> " + KEY.replace(b"\n", b"\n> ") + b"\n> b\n") == b"> #MASKED:keys#\n> b\n"


def test_a_key_without_a_last_line_does_not_take_the_rest_of_the_terminal() -> None:
    """``head -3 id_rsa``: all of the key goes, and the session goes on."""
    shown = masked(OPEN_KEY + b"root@db:~# ls\nbin\nhome\nroot@db:~# uptime\n")
    assert shown == b"#MASKED:keys#\nroot@db:~# uptime\n"
    twice = masked(OPEN_KEY + b"root@db:~# cat b\n\nkey b is\n" + KEY + b"\nroot@db:~# \n")
    assert twice == b"#MASKED:keys#\nroot@db:~# \n", "another key may begin where the first is not given up yet"
    endless = masked(b"-----BEGIN PRIVATE KEY-----\n" + (BODY + b"\n") * 3000)
    assert BODY in endless, "a key is at most 64 KiB: what goes on for longer is none"
    assert endless.count(BODY) < 2100


def test_a_key_of_one_line_without_end_is_bounded() -> None:
    """A line feed may never come: neither the memory nor what is dropped may grow without end."""
    stream = StreamMask(RULES, DETECTORS)
    shown = stream.feed(b"-----BEGIN PRIVATE KEY-----\n")
    for _ in range(64):
        shown += stream.feed(b"A" * 4096)
        assert len(stream._buffer) <= WINDOW + 4096
    assert shown.startswith(b"#MASKED:keys#")
    assert len(shown + stream.finish()) > 64 * 1024


@pytest.mark.parametrize("size", [OVERLAP, WINDOW - 20, WINDOW, WINDOW + 1, 3 * WINDOW - 7])
def test_a_line_longer_than_the_window_is_masked_and_not_held(size: int) -> None:
    """Output without a line feed (base64, an archive) flows on, and a value on a cut is found all the same."""
    stream = StreamMask(RULES, DETECTORS)
    text = b"," * size + AKIA + b"," * WINDOW * 2
    shown = b""
    for at in range(0, len(text), 1000):
        shown += stream.feed(text[at : at + 1000])
        assert len(stream._buffer) <= WINDOW + 1000
    shown += stream.finish()
    assert shown == text.replace(AKIA, b"#MASKED:keys#") == masked(text)


def test_a_value_longer_than_the_window_is_dropped_to_its_end() -> None:
    """Too much is masked before too little."""
    long = b"eyJ" + b"a" * 10 + b"." + b"b" * 10 + b"." + b"c" * WINDOW * 2
    assert masked(b"x " + long + b" y\n") == b"x #MASKED:keys# y\n"


def test_colours_do_not_hide_a_value() -> None:
    """``grep --color AKIA`` puts escape sequences into the middle of what it found."""
    found = b"key=\x1b[01;31m\x1b[KAKIA\x1b[m\x1b[KIOSFODNN7EXAMPLE;\n"
    assert masked(found) == b"key=\x1b[01;31m\x1b[K#MASKED:keys#;\n"
    assert masked(b"\x1b[1m" + AKIA + b"\x1b[0m\n") == b"\x1b[1m#MASKED:keys#\x1b[0m\n"
    coloured = KEY.replace(b"PRIVATE", b"\x1b[31mPRIVATE\x1b[m")
    assert BODY not in masked(coloured + b"\nb\n")
    assert masked(coloured + b"\nb\n").endswith(b"#\nb\n")
    # Also where no other rule has the line looked at: the bytes as they are hold no AKIA.
    apart = b"key=A\x1b[31mK\x1b[mIA" + AKIA[4:] + b"\n"
    assert masked(apart, rules=(rule("keys", "aws_access_key"),)) == b"key=#MASKED:keys#\n"
    # A title that is never ended takes no line after it along.
    assert AKIA[4:] not in masked(b"\x1b]0;\nAKIA\x1b[m" + AKIA[4:] + b"\n\x07")


def test_a_prompt_and_typing_are_shown_when_nothing_more_comes() -> None:
    """A person waits for an echo: ``idle`` gives the unfinished line, each byte once."""
    stream = StreamMask(RULES, DETECTORS)
    assert stream.feed(b"last line\nroot@db:~# ") == b"last line\n"
    assert stream.waits
    assert stream.idle() == b"root@db:~# "
    assert stream.idle() == b""
    for key in (b"l", b"s"):
        assert stream.feed(key) == b""
        assert stream.idle() == key
    assert stream.feed(b"\r\nbin\r\nroot") == b"\r\nbin\r\n"
    assert stream.finish() == b"root"


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (b"AKIAIOSF", b"ODNN7EXAMPLE"),
        (b"eyJhbGci", b"OiJFUzI1NiJ9.eyJzdWIiOiJ4In0.MEUCIQ"),
        (b"4111 1111", b" 1111 1111"),
        (b"ann@examp", b"le.org"),
        (b"ann@example.or", b"g"),
        (b"postgres://u:p", b"w@h/d"),
        (b"-----BEGIN RSA PRI", KEY[18:]),
    ],
)
def test_a_value_that_is_printed_slowly_is_held_until_it_is_whole(begin: bytes, end: bytes) -> None:
    """What looks like the beginning of a value does not go out because a program or a network took a breath."""
    stream = StreamMask(RULES, DETECTORS)
    stream.feed(b"it is " + begin)
    shown = stream.idle() + stream.idle()
    assert shown in (b"it is ", b"it is postgres")
    assert stream.waits
    rest = stream.feed(end + b" so\n")
    assert masked(b"it is " + begin + end + b" so\n") == shown + rest


def test_nobody_waits_for_long_and_the_rest_of_a_value_is_still_masked() -> None:
    """The hold is bounded; what is out cannot be taken back, and the rest does not follow it."""
    stream = StreamMask(RULES, DETECTORS)
    stream.feed(b"AKIAIOSF")
    assert [stream.idle() for _ in range(MAX_HELD + 1)] == [*[b""] * MAX_HELD, b"AKIAIOSF"]
    assert stream.feed(b"ODNN7EXAMPLE\n") == b"#MASKED:keys#\n"


def test_a_value_that_grows_after_its_mask_is_one_mask() -> None:
    """``ann@example.or`` is a value, and so is what it grows to: neither a second mask nor the tail of the first."""
    stream = StreamMask(RULES, DETECTORS)
    stream.feed(b"ann@example.or")
    assert b"".join(stream.idle() for _ in range(MAX_HELD + 1)) == b"#MASKED:mail#"
    assert stream.feed(b"g") == b""
    assert stream.idle() == b""
    assert stream.feed(b" x\n") == b" x\n"


def test_modes_on_a_stream() -> None:
    """Partial shows its four characters; there is no NULL in a stream, so that null is the mask's text."""
    assert masked(b"to ann@example.org\n") == b"to #MASKED:mail#.org\n"
    assert masked(b"4111 1111 1111 1111\n") == b"#MASKED:cards#\n"


@settings(max_examples=300)
@given(
    texts,
    st.sampled_from(PLANTED),
    st.lists(st.tuples(st.integers(min_value=0, max_value=600), st.integers(0, 8)), max_size=8),
)
def test_idle_at_any_time_loses_nothing_and_shows_no_whole_value(
    around: bytes, secret: bytes, pauses: list[tuple[int, int]]
) -> None:
    """Whenever a pause falls, and however long it is: no byte is lost or sent twice, and no value goes out whole."""
    for text in (around, around + b"\n|" + secret + b"|\n"):
        stream = StreamMask(RULES, DETECTORS)
        idles = {place % (len(text) + 1): times for place, times in pauses}
        shown = b""
        for place, byte in enumerate(text):
            shown += stream.feed(bytes([byte]))
            for _ in range(idles.get(place, 0)):
                shown += stream.idle()
        shown += stream.finish()
        # What is a value until more comes (``secret``, and then an ``s``) may be masked by then.
        begun = (line[:end] for line in text.splitlines() for end in range(len(line) + 1))
        if b"\x1b" not in text and not any(DETECTORS.find(begin) for begin in begun):
            assert shown == text
        assert not any(line in shown for line in secret.splitlines() if b"PRIVATE KEY" not in line)


@pytest.mark.timeout(90)  # seconds where it is linear; what is quadratic takes minutes (its speed is a bench)
def test_hostile_output_does_not_stop_the_broker() -> None:
    """The target chooses what is printed: each of these once made some masker's work grow with its square."""
    for text in (
        b"-----BEGIN PRIVATE KEY-----" + b"\n" * 60_000,
        b"\x1b]" * 50_000 + b"\n",
        b"\x1b[" * 50_000,
        b"AA00" * 30_000 + b"!",
        b"a@" * 60_000,
        b"\n" * 200_000,
        b"-----BEGIN " * 20_000,
        b"-----BEGIN PRIVATE KEY-----" * 4000 + b"\n",
    ):
        stream = StreamMask(RULES, DETECTORS)
        for at in range(0, len(text), 8192):
            stream.feed(text[at : at + 8192])
            stream.idle()
        stream.finish()
        assert not stream.waits
