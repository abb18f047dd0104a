"""Masks on a stream of bytes without frames: what a command prints, what a terminal shows.

A stream is read as lines, each searched as one value; a line ends at a line feed or a carriage return. A private key is
the one value that spans lines: from its first line on everything is dropped, up to its last line, and the mask stands
for all of it. What comes out is the same however the bytes were cut on their way, as long as nobody calls ``idle``.

Rules: a byte is released when its line is complete, since a value may grow until then. A terminal cannot wait for that:
``idle`` releases an unfinished line, but for an end that looks like the beginning of a value (and that too after
``MAX_HELD`` calls for one line, so that nobody is kept waiting); what was released stays part of the line, so that the
rest of a value that went out in halves is still masked. Escape sequences do not hide a value: a line is searched as it
is and as a terminal draws it. Bytes that are no text pass as they are. Memory is ``WINDOW`` and what is fed at once.

What it does not do: find a value that a program prints with the cursor moved in between, over itself, in several
lines (private keys apart), or slower than ``idle`` waits; or one of more than ``OVERLAP`` bytes in a line longer than
``WINDOW``. A client may compute on what it may read and so pass any detector. Not thread-safe.

Source: ECMA-48 5.4 (control sequences), 5.6 (control strings); RFC 7468 and RFC 1421 4.6 (private keys).
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.masking import Detectors, Hit, masked_value, merged
from chalicelib.domain.masking import MaskMode, MaskRule

IDLE_S: Final = 0.2  # without more bytes before ``idle`` is called: below what a person at a terminal minds
MAX_HELD: Final = 5  # calls of ``idle``, so one second, for which an unfinished value is held back
WINDOW: Final = 64 * 1024  # of a line that is searched at once; longer ones are in no text
OVERLAP: Final = 4 * 1024  # that is kept back of a longer line: a JSON Web Token with its claims fits
_BEGUN_TAIL: Final = 256  # that is searched for the beginning of a value; longer ones are hits already
_MAX_KEY: Final = 64 * 1024  # of a private key: RSA with 16,384 bits has 12 KiB
# Lines without a long run of base64 after which a key without a last line is over (``head -1 id_rsa``, and then the
# prompt). Encrypted keys begin with two such lines.
_BARREN_LINES: Final = 3
_MAX_END: Final = 64  # bytes of a key's last line
_ONE_BY_ONE: Final = 4  # lines in which a hit may be that are not halved again
_PRIVATE_KEY: Final = "private_key"

_LINE_END: Final = re.compile(rb"[\r\n]")
_ESCAPE: Final = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[PX^_][^\x1b\r\n]*\x1b\\|[ -/]*[0-Z\\`-~])"
)
_KEY_BEGIN: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_KEY_END: Final = re.compile(rb"-----END [A-Z0-9 ]*PRIVATE KEY-----")
_KEY_BODY: Final = re.compile(rb"[A-Za-z0-9+/=]{32}")
_BEGUN: Final = {
    "email": re.compile(rb"[^\s@<>()\"',;]+@[^\s@<>()\"',;]*\Z"),
    "card_number": re.compile(rb"\d(?:[ .-]?\d){5,}[ .-]?\Z"),
    "iban": re.compile(rb"[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){4,} ?\Z"),
    "jwt": re.compile(rb"eyJ[\w.-]*\Z"),
    "aws_access_key": re.compile(rb"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]*\Z"),
    _PRIVATE_KEY: re.compile(rb"-----(?:B[A-Z0-9 ]*-*)?\Z"),
    "password": re.compile(rb"(?i)\bpassword\s*[=:]?\s*(?:E|U&)?'(?:[^'\\]|''|\\.)*\Z"),
    "connection_password": re.compile(rb"(?i)\bpassword=[^\s'\",;)$]*\Z"),
    "url_password": re.compile(rb"://[^\s/:@']*:[^\s/@']*\Z"),
}


@dataclass(kw_only=True, slots=True)
class _Key:
    """A private key that is being dropped."""

    dropped: int = 0
    barren: int = 0


class StreamMask:
    """Masks one direction of one stream. Holds the unfinished line; belongs to one thread at a time."""

    def __init__(self, rules: Sequence[MaskRule], detectors: Detectors | None = None) -> None:
        """``rules``: those that the verdict names; ``detectors``: theirs, if the caller has them compiled already."""
        self._detectors = detectors if detectors is not None else Detectors(rules)
        names = {name for rule in rules for name in rule.detectors}
        self._spans_keys = _PRIVATE_KEY in names
        self._begun = tuple(_BEGUN[name] for name in sorted(names & _BEGUN.keys()))
        self._buffer = bytearray()  # from the start of the unfinished line on
        self._shown = 0  # bytes of the buffer that ``idle`` released
        self._shown_masked = False  # whether what was released ends in a mask
        self._held = 0
        self._key: _Key | None = None
        self._dropping = False  # the rest of a value that was longer than the window
        self.passes = self._detectors.empty

    @property
    def waits(self) -> bool:
        """Whether something is held back that :meth:`idle` may release."""
        return self._key is None and not self._dropping and len(self._buffer) > self._shown

    def feed(self, data: bytes) -> bytes:
        """Return what may be sent and recorded now that ``data`` came: whole lines, mostly."""
        if self.passes:
            return data
        self._buffer += data
        parts: list[bytes] = []
        while self._step(parts):
            pass
        return b"".join(parts)

    def idle(self) -> bytes:
        """Return what may be shown of an unfinished line. Call it ``IDLE_S`` after the last byte, and again while
        ``waits``."""
        if not self.waits:
            return b""
        line = bytes(self._buffer)
        hits = self._hits(line)
        end = len(line)
        if self._held < MAX_HELD:
            self._held += 1
            end = max(self._shown, self._settled(line, hits))
        return self._released(line, hits, end, grows=True)

    def finish(self) -> bytes:
        """Return what is left, at the end of the stream; nothing may be fed after it."""
        if not self.waits:
            return b""
        line = bytes(self._buffer)
        rest = self._released(line, self._hits(line), len(line))
        self._consume(len(line))
        return rest

    def _step(self, parts: list[bytes]) -> bool:
        """Take what can be judged off the buffer's front; return whether there may be more."""
        if self._dropping:
            return self._drop_value()
        if self._key is not None:
            return self._drop_key(self._key, parts)
        window = bytes(self._buffer[:WINDOW])
        if self._shown == 0:
            end = max(window.rfind(b"\n"), window.rfind(b"\r")) + 1
        else:  # its first line alone: of that one a part is out already
            found = _LINE_END.search(window)
            end = found.end() if found is not None else 0
        if end:
            self._lines(window[:end].splitlines(keepends=True), parts)
            return True
        if len(window) < WINDOW:
            return False
        parts.append(self._long_line(window))
        return True

    def _lines(self, lines: list[bytes], parts: list[bytes]) -> None:
        """Take ``lines``, whole ones from the buffer's front, or as many as there are before a private key. By halves:
        where a hit is rare, most of them are never looked at one by one."""
        region = b"".join(lines)
        if self._shown == 0 and not self._may_hit(region):
            self._consume(len(region))
            parts.append(region)
        elif len(lines) > _ONE_BY_ONE:
            half = len(lines) // 2
            self._lines(lines[:half], parts)
            if self._key is None:
                self._lines(lines[half:], parts)
        else:
            parts.extend(self._line(line) for line in lines if self._key is None)

    def _line(self, line: bytes) -> bytes:
        text = line.rstrip(b"\r\n")
        hits = self._hits(text)
        shown = self._released(text, hits, len(text))
        self._consume(len(line))
        if hits and self._opens_key(text):
            self._key = _Key(dropped=len(text))
            return shown
        return shown + line[len(text) :]

    def _long_line(self, window: bytes) -> bytes:
        """Take the front of a line that has no end within ``window``, up to where no value can be cut in two."""
        hits = self._hits(window)
        cut = WINDOW - OVERLAP
        for hit in hits:
            if hit.start < cut < hit.end:
                cut = hit.end if hit.end < WINDOW else hit.start
        if cut == 0:  # one value fills it all: it is masked, and whatever it goes on with is dropped
            mask = self._released(window, hits, WINDOW, grows=True)
            self._consume(WINDOW)
            if self._opens_key(window):
                self._key = _Key(dropped=WINDOW)
            else:
                self._dropping = True
            return mask
        part = self._released(window, hits, max(cut, self._shown))
        del self._buffer[:cut]
        self._shown -= cut
        return part

    def _drop_value(self) -> bool:
        found = re.search(rb"\s", self._buffer)
        self._dropping = found is None
        self._consume(len(self._buffer) if found is None else found.start())
        return found is not None

    def _drop_key(self, key: _Key, parts: list[bytes]) -> bool:
        """Drop one line of a private key, or what is there of it up to its end."""
        found = _LINE_END.search(self._buffer, 0, WINDOW)
        line = bytes(self._buffer[: WINDOW if found is None else found.end()])
        drawn = _Drawn(line)
        end = _KEY_END.search(drawn.text)
        if end is not None:
            self._key = None
            self._consume(drawn.raw(end.end() - 1) + 1)
            return True
        if found is None and len(line) < WINDOW:
            return False
        taken = len(line) if found is not None else WINDOW - _MAX_END
        self._consume(taken)
        key.dropped += taken
        if _KEY_BEGIN.search(drawn.text):  # of another one: the first had no end
            key.dropped = key.barren = 0
        elif drawn.text.strip():
            key.barren = 0 if _KEY_BODY.search(drawn.text) else key.barren + 1
        if key.barren >= _BARREN_LINES or key.dropped > _MAX_KEY:
            self._key = None
            parts.append(b"" if found is None else line[found.start() :])
        return True

    def _released(self, line: bytes, hits: tuple[Hit, ...], end: int, *, grows: bool = False) -> bytes:
        """Return ``line`` from what was shown to ``end``, masked; no hit lies across ``end``. ``grows``: a value at the
        line's end may have more to it."""
        parts: list[bytes] = []
        at = self._shown
        for hit in hits:
            if hit.end <= self._shown or hit.start >= end:
                continue
            # The tail of what is not finished may be the middle of the value.
            whole = hit.start >= self._shown and not (grows and hit.end == len(line))
            mask = masked_value(line[hit.start : hit.end], hit.rule, hit.mode if whole else MaskMode.REDACT)
            if hit.start >= self._shown:
                parts += (line[at : hit.start], mask)
            elif not self._shown_masked:
                parts.append(mask)
            at = hit.end
            self._shown_masked = hit.end == end
        if at < end:
            parts.append(line[at:end])
            self._shown_masked = False
        self._shown = end
        return b"".join(parts)

    def _settled(self, line: bytes, hits: tuple[Hit, ...]) -> int:
        """Return up to where ``line`` can be shown although more may come: before a value that may grow."""
        start = max(0, len(line) - _BEGUN_TAIL)
        begun = (pattern.search(line, start) for pattern in self._begun)
        end = min((found.start() for found in begun if found is not None), default=len(line))
        for hit in hits:
            if hit.start < end <= hit.end:
                end = hit.start
        return end

    def _consume(self, count: int) -> None:
        del self._buffer[:count]
        self._shown = 0
        self._shown_masked = False
        self._held = 0

    def _may_hit(self, raw: bytes) -> bool:
        may = self._detectors.may_hit
        return may(raw) or (b"\x1b" in raw and may(_ESCAPE.sub(b"", raw)))

    def _hits(self, raw: bytes) -> tuple[Hit, ...]:
        """Return what is found in ``raw`` as it is, and as a terminal draws it."""
        hits = self._detectors.find(raw)
        if b"\x1b" not in raw:
            return hits
        drawn = _Drawn(raw)
        seen = [
            Hit(
                kind=hit.kind,
                rule=hit.rule,
                mode=hit.mode,
                start=drawn.raw(hit.start),
                end=drawn.raw(hit.end - 1) + 1,
            )
            for hit in self._detectors.find(drawn.text)
            if hit.end > hit.start
        ]
        return merged((*hits, *seen))

    def _opens_key(self, raw: bytes) -> bool:
        if not self._spans_keys:
            return False
        text = _Drawn(raw).text
        at = 0
        while (begin := _KEY_BEGIN.search(text, at)) is not None:
            end = _KEY_END.search(text, begin.end())
            if end is None:
                return True
            at = end.end()
        return False


class _Drawn:
    """What a terminal draws of some bytes, and where each drawn byte stood."""

    def __init__(self, raw: bytes) -> None:
        self.text = raw
        self._drawn_at = [0]
        self._raw_at = [0]
        if b"\x1b" not in raw:
            return
        pieces: list[bytes] = []
        at = length = 0
        for found in _ESCAPE.finditer(raw):
            pieces.append(raw[at : found.start()])
            length += found.start() - at
            at = found.end()
            self._drawn_at.append(length)
            self._raw_at.append(at)
        self.text = b"".join((*pieces, raw[at:]))

    def raw(self, offset: int) -> int:
        """Return where the drawn byte at ``offset`` stood."""
        piece = bisect.bisect_right(self._drawn_at, offset) - 1
        return self._raw_at[piece] + offset - self._drawn_at[piece]
