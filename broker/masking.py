"""Detectors: secrets found by their form, in what a target answers and in what a client sends.

Everything works on UTF-8 bytes and on one linear-time engine (google-re2), since the patterns are the operators'
own and the input is hostile. A detector first looks for bytes that its hits must have (``bytes.find`` runs at 15
GB/s, the engine at 0.6), then for its pattern, then checks what a pattern cannot (Luhn, ISO 7064).

Rules: too much is masked before too little: hits that overlap become one; a custom pattern may not match nothing. A
mask carries ``SENTINEL``, so that it is known when it comes back. Values that are not UTF-8 are still searched: the
engine passes over bytes that are no text.

What it does not do: it does not decode (base64, hexadecimal, JSON escapes); ``answers`` does that per type. A
client may compute on what it may read and so pass any detector; column rules are the stronger tool.

Source: RE2 syntax, https://github.com/google/re2/wiki/Syntax; ISO/IEC 7812-1 (card numbers, Luhn); ISO 13616 and
ISO 7064 (IBAN, MOD 97-10); RFC 7519 (JWT); AWS IAM User Guide, "IAM identifiers" (AKIA, ASIA); RFC 7468 (private
keys).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import re2

from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.masking import SENTINEL, MaskMode, MaskRule, mask_text
from chalicelib.domain.operation import Literal

_MAX_PATTERN: Final = 1000  # characters of a custom pattern: the longest useful ones are a few hundred
_MAX_PROGRAM: Final = (
    8 * 1024 * 1024
)  # bytes that RE2 may use for one pattern, its own default; larger ones do not compile
_TAIL: Final = 4  # MaskMode.PARTIAL
_MIN_PARTIAL: Final = 8  # a shorter value would show half of itself

_SENTINEL_BYTES: Final = SENTINEL.encode()
Span: TypeAlias = "tuple[int, int]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A secret found: ``start`` and ``end`` are offsets in bytes of UTF-8."""

    kind: str
    rule: str
    mode: MaskMode
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Detector:
    """``may``: False only where no value inside these bytes can have a hit, wherever in them it begins and ends, so
    it knows no anchors. ``spans`` finds the hits in one value."""

    kind: str
    may: Callable[[bytes], bool]
    spans: Callable[[bytes], Iterator[Span]]


def carries_sentinel(value: bytes | str | None) -> bool:
    """Whether ``value`` holds a mask of ours: a client writes back what it was shown (MaskWrittenBack)."""
    if value is None:
        return False
    return SENTINEL in value if isinstance(value, str) else _SENTINEL_BYTES in value


class Detectors:
    """The detectors of some mask rules. Immutable and thread-safe; compile once per set of rules.

    Raises ConfigurationInvalid for an unknown built-in, and for a pattern that does not compile, is too large or
    matches the empty text.
    """

    def __init__(self, rules: Iterable[MaskRule]) -> None:
        found: list[tuple[_Detector, str, MaskMode]] = []
        for rule in rules:
            found += [(_built_in(name), rule.name, rule.mode) for name in rule.detectors]
            found += [(_custom(rule.name, pattern), rule.name, rule.mode) for pattern in rule.patterns]
        self._detectors = tuple(found)
        self.empty = not found

    def may_hit(self, raw: bytes) -> bool:
        """Whether any detector could find something in any part of ``raw``: cheap, and never wrong when it says no."""
        return any(detector.may(raw) for detector, _, _ in self._detectors)

    def find(self, raw: bytes) -> tuple[Hit, ...]:
        """Return the hits in ``raw`` in order; where they overlap the first one covers all of them."""
        hits: list[Hit] = []
        for detector, rule, mode in self._detectors:
            if detector.may(raw):
                hits += [
                    Hit(kind=detector.kind, rule=rule, mode=mode, start=start, end=end)
                    for start, end in detector.spans(raw)
                ]
        return merged(hits)

    def mask_bytes(self, raw: bytes) -> bytes | None:
        """Return ``raw`` with every hit replaced; None when a rule says that the value becomes NULL; ``raw`` itself
        when there is none."""
        hits = self.find(raw)
        if not hits:
            return raw
        if any(hit.mode is MaskMode.NULL for hit in hits):
            return None
        return _replaced(raw, hits, lambda hit: masked_value(raw[hit.start : hit.end], hit.rule, hit.mode))

    def redact_bytes(self, raw: bytes) -> bytes:
        """Return ``raw`` with every hit replaced by text, also for ``null`` rules: where there is no NULL to send."""
        hits = self.find(raw)
        return _replaced(raw, hits, lambda hit: masked_value(raw[hit.start : hit.end], hit.rule, hit.mode))

    def mask(self, text: str) -> str:
        """Return ``text`` with every hit replaced (``null`` rules: by the sentinel text; messages have no NULL)."""
        return self.redact_bytes(_encoded(text)).decode("utf-8", "replace")

    def literals(self, text: str) -> tuple[str, tuple[Literal, ...]]:
        """Return client text as it may be shown and recorded, and what was taken out of it: kinds and lengths."""
        raw = _encoded(text)
        hits = self.find(raw)
        if not hits:
            return text, ()
        found = tuple(
            Literal(kind=hit.kind, length=len(raw[hit.start : hit.end].decode("utf-8", "replace"))) for hit in hits
        )
        by_hit = dict(zip(hits, found, strict=True))
        shown = _replaced(raw, hits, lambda hit: f"[{hit.kind}: {by_hit[hit].length} characters]".encode())
        return shown.decode("utf-8", "replace"), found


def masked_value(raw: bytes, rule: str, mode: MaskMode) -> bytes:
    """Return what stands for the text value ``raw``. ``null`` has no text: callers that can, send NULL instead."""
    mask = mask_text(rule).encode()
    if mode is not MaskMode.PARTIAL:
        return mask
    text = raw.decode("utf-8", "replace")
    return mask if len(text) < _MIN_PARTIAL else mask + text[-_TAIL:].encode()


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def merged(hits: Iterable[Hit]) -> tuple[Hit, ...]:
    """Return ``hits`` in order, those that overlap as one, which hides what any of them hides. Pure."""
    found = sorted(hits, key=lambda hit: (hit.start, -hit.end))
    return tuple(_merged(found)) if found else ()


def _merged(hits: list[Hit]) -> Iterator[Hit]:
    current = hits[0]
    for hit in hits[1:]:
        if hit.start >= current.end:
            yield current
            current = hit
            continue
        modes = {current.mode, hit.mode}
        mode = next(m for m in (MaskMode.NULL, MaskMode.REDACT, MaskMode.PARTIAL) if m in modes)
        end = max(current.end, hit.end)
        if end != current.end and mode is MaskMode.PARTIAL:  # the tail of one could show the middle of another
            mode = MaskMode.REDACT
        current = Hit(kind=current.kind, rule=current.rule, mode=mode, start=current.start, end=end)
    yield current


def _replaced(raw: bytes, hits: tuple[Hit, ...], shown: Callable[[Hit], bytes]) -> bytes:
    parts: list[bytes] = []
    at = 0
    for hit in hits:
        parts += (raw[at : hit.start], shown(hit))
        at = hit.end
    parts.append(raw[at:])
    return b"".join(parts)


# The patterns


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _MAX_PROGRAM
    options.log_errors = False  # RE2 would write the pattern to stderr
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        raise ConfigurationInvalid(f"the pattern {pattern!r} is not a valid RE2 pattern: {error}") from error


def _simple(kind: str, pattern: str, *needs: bytes, group: int = 0, word: str = "") -> _Detector:
    """``needs``: bytes of which a hit has one; ``word``: a pattern without anchors that is in every hit."""
    compiled = _compiled(pattern)
    within = _compiled(word) if word else None

    def spans(raw: bytes) -> Iterator[Span]:
        for match in compiled.finditer(raw):
            yield match.span(group)

    def may(raw: bytes) -> bool:
        # Without either only the pattern can tell, and its anchors hold for a value, not for bytes around it.
        if within is not None:
            return within.search(raw) is not None
        return not needs or any(need in raw for need in needs)

    return _Detector(kind=kind, may=may, spans=spans)


def _custom(rule: str, pattern: str) -> _Detector:
    if len(pattern) > _MAX_PATTERN:
        raise ConfigurationInvalid(f"a pattern of the mask {rule} is longer than {_MAX_PATTERN} characters")
    detector = _simple(rule, pattern)
    if next(detector.spans(b""), None) is not None:
        raise ConfigurationInvalid(f"the pattern {pattern!r} of the mask {rule} matches the empty text")
    return detector


_DIGIT: Final = frozenset(b"0123456789")
_CARD_LENGTHS: Final = range(13, 20)  # ISO/IEC 7812-1; 12 and fewer are not issued
_CARD_FIRST: Final = frozenset(b"23456")  # the major industries of payment cards
_MAX_RUN: Final = 4096  # of one run of digits; windows are tried at its groups only


def _card_spans(raw: bytes) -> Iterator[Span]:
    for match in _CARD_RUN.finditer(raw):
        yield from _cards_in(raw, *match.span())


def _cards_in(raw: bytes, start: int, end: int) -> Iterator[Span]:
    """Yield the card numbers in a run of digits and separators: each begins and ends where a group of digits does."""
    digits = [at for at in range(start, min(end, start + _MAX_RUN)) if raw[at] in _DIGIT]
    index = 0
    while index + _CARD_LENGTHS.start <= len(digits):
        length = 0
        if raw[digits[index]] in _CARD_FIRST and (index == 0 or digits[index - 1] != digits[index] - 1):
            length = next((n for n in reversed(_CARD_LENGTHS) if _is_card(raw, digits, index, n)), 0)
        if length:
            yield digits[index], digits[index + length - 1] + 1
        index += length or 1


def _is_card(raw: bytes, digits: list[int], index: int, length: int) -> bool:
    last = index + length - 1
    if last >= len(digits) or (last + 1 < len(digits) and digits[last + 1] == digits[last] + 1):
        return False
    total = 0
    for place, at in enumerate(reversed(digits[index : last + 1])):
        digit = raw[at] - 48
        total += digit if place % 2 == 0 else (digit * 2 - 9 if digit > 4 else digit * 2)
    return total % 10 == 0


_IBAN_LENGTHS: Final = range(15, 35)  # ISO 13616: Norway has 15, the standard allows 34


def _iban_spans(raw: bytes) -> Iterator[Span]:
    for match in _IBAN.finditer(raw):
        start, end = match.span()
        ends = [at for at in range(end, start, -1) if raw[at - 1 : at].isalnum() and not raw[at : at + 1].isalnum()]
        for at in ends:
            compact = raw[start:at].replace(b" ", b"").upper()
            if len(compact) in _IBAN_LENGTHS and _mod_97(compact) == 1:
                yield start, at
                break


def _mod_97(compact: bytes) -> int:
    moved = compact[4:] + compact[:4]
    return int("".join(str(int(chr(c), 36)) for c in moved)) % 97


_CARD_RUN: Final = _compiled(r"\d(?:[ .\-]?\d){12,}")
_IBAN: Final = _compiled(r"\b(?:[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,34}|(?i:[A-Z]{2}\d{2}[A-Z0-9]{11,30}))\b")
_MAYBE_IBAN: Final = _compiled(r"(?i)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11}")
_BUILT_IN: Final = {
    detector.kind: detector
    for detector in (
        _simple("email", r"[\pL\pN._%+\-]+(?:'[\pL\pN._%+\-]+)*@[\pL\pN\-]+(?:\.[\pL\pN\-]+)+", b"@"),
        _Detector(kind="card_number", may=lambda raw: _CARD_RUN.search(raw) is not None, spans=_card_spans),
        _Detector(kind="iban", may=lambda raw: _MAYBE_IBAN.search(raw) is not None, spans=_iban_spans),
        _simple("jwt", r"eyJ[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]{5,}\.[A-Za-z0-9_\-]*", b"eyJ"),
        _simple("aws_access_key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b", b"AKIA", b"ASIA", b"ABIA", b"ACCA"),
        _simple(
            "private_key",
            r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)",
            b"PRIVATE KEY-----",
        ),
        # What statements carry: PASSWORD 'text' of CREATE ROLE, password=text of connection strings, user:text@host.
        _simple(
            "password",
            r"(?i)\bpassword\b\s*[=:]?\s*(?:E|U&)?('(?:[^'\\]|''|\\.)*')",
            group=1,
            word="(?i)password",
        ),
        _simple("connection_password", r"(?i)\bpassword=([^\s'\",;)$]+)", group=1, word="(?i)password="),
        _simple("url_password", r"://[^\s/:@']*:([^\s/@']+)@", b"://", group=1),
    )
}
BUILT_IN_DETECTORS: Final = frozenset(_BUILT_IN)


def _built_in(name: str) -> _Detector:
    found = _BUILT_IN.get(name)
    if found is None:
        known = ", ".join(sorted(_BUILT_IN))
        raise ConfigurationInvalid(f"there is no detector {name!r}; there are: {known}")
    return found


# Client text is shown to approvers and kept for years: it passes every detector there is, whatever the rules say.
CLIENT_TEXT: Final = Detectors(
    (
        MaskRule(
            name="client-text",
            mode=MaskMode.REDACT,
            targets=(),
            columns=(),
            detectors=tuple(sorted(_BUILT_IN)),
            patterns=(),
        ),
    )
)
