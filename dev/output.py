"""What ``dev`` prints: the one place with ``print``. Colour only on a terminal; text that came from elsewhere is
made harmless first, since a recording or an error may carry a terminal's escape sequences."""

from __future__ import annotations

import sys
from enum import Enum

from dev.settings import colour_wanted


class Style(Enum):
    """How a piece of text is shown on a terminal, as an SGR parameter (ECMA-48, section 8.3.117)."""

    PLAIN = ""
    BOLD = "1"
    DIM = "2"
    RED = "31"
    GREEN = "32"
    YELLOW = "33"
    CYAN = "36"


def harmless(text: str) -> str:
    """Return ``text`` with every control character but newline and tab made visible. Pure."""
    return "".join(
        char if char in "\n\t" or (char.isprintable() or char == " ") else f"\\x{ord(char):02x}" for char in text
    )


def styled(text: str, style: Style) -> str:
    """Return ``text`` in ``style`` where standard output shows colour, else as it is."""
    if style is Style.PLAIN or not colour_wanted(sys.stdout.isatty()):
        return text
    return f"\x1b[{style.value}m{text}\x1b[0m"


def say(text: str = "", style: Style = Style.PLAIN) -> None:
    """Print one line, or several, at once."""
    print(styled(harmless(text), style), flush=True)


def say_parts(*parts: tuple[str, Style]) -> None:
    """Print one line made of differently styled parts."""
    print("".join(styled(harmless(text), style) for text, style in parts), flush=True)


def complain(text: str) -> None:
    """Print one line to standard error."""
    print(harmless(text), file=sys.stderr, flush=True)
