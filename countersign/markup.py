"""Builds HTML and SVG in which a text can only ever be text.

Rules: names of elements and attributes are this program's own words; an attribute's value is a number or of a plain
alphabet, and anything else is refused, so that no recorded text can become one; every other text is a text node, with
what a reader would not see (control characters, changes of writing direction) written out by its number. Source: HTML
Living Standard, section 13.1 (text, escaping); CSP Level 3, section 2.3.1 (hash sources).
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from countersign.printable import safe_line

_VALUE: Final = re.compile(r"[A-Za-z0-9 _.,:;=()'%#/*+-]*\Z")
_VOID: Final = frozenset({"meta", "input", "br"})


class Markup:
    """Finished markup. Only this module makes it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


Child: TypeAlias = "Markup | str | Iterable[Child]"


def tag(name: str, /, *children: Child, **attributes: str | float) -> Markup:
    """Return an element. A trailing underscore of an attribute's name goes, and other underscores become hyphens. A
    string among ``children`` is a text node. Raises ValueError on an attribute that is no plain word or number."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        text = f"{value:g}" if isinstance(value, float) else str(value)
        if not _VALUE.match(text):
            raise ValueError(f"an attribute {key} may not hold this")
        attribute = key.rstrip("_").replace("_", "-")
        parts.append(f' {attribute}="{html.escape(text)}"')
    parts.append(">")
    if name not in _VOID:
        parts += [*_texts(children), f"</{name}>"]
    return Markup("".join(parts))


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """A library that a page carries with it, pinned by whoever read it. It stands before the page's own style and
    script; it may compile WebAssembly, and still reaches nothing."""

    style: str
    script: str


def page(title: str, style: str, script: str, body: Child, carried: Carried | None = None) -> str:
    """Return a whole page that needs and reaches nothing: its styles and scripts are known to its own policy by hash.

    ``style`` and ``script`` are this program's own. Raises ValueError where a script would end its own element.
    """
    styles = [style] if carried is None else [_unix(carried.style), style]
    scripts = [script] if carried is None else [_unix(carried.script), script]
    if any(end in text.lower() for text in (*styles, *scripts) for end in ("</script", "</style", "<!--")):
        raise ValueError("a style or script may not hold what ends its element")
    wasm = "" if carried is None else " 'wasm-unsafe-eval'"
    policy = (
        f"default-src 'none'; style-src {_hashes(styles)}; script-src {_hashes(scripts)}{wasm}; "
        "base-uri 'none'; form-action 'none'"
    )
    head: list[Child] = [
        Markup('<meta charset="utf-8">'),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        [tag("style", Markup(text)) for text in styles],
    ]
    ours = [tag("script", Markup(text)) for text in scripts]
    whole = tag("html", tag("head", head), tag("body", body, ours), lang="en")
    return f"<!doctype html>\n{whole.text}\n"


def data(identifier: str, value: object) -> Markup:
    """Return ``value`` as JSON in an element that nobody sees, for a script to read: a text node, all of it ASCII, so
    that what JSON escapes stays escaped."""
    return tag("pre", Markup(html.escape(json.dumps(value, separators=(",", ":")))), id=identifier, hidden="hidden")


def safe_text(text: str, limit: int = 0) -> str:
    """Return ``text`` with its line breaks and nothing else that is not drawn; cut to ``limit`` characters if not 0,
    which is said. Pure."""
    kept = text if not limit or len(text) <= limit else text[:limit]
    lines = "\n".join(safe_line(line) for line in kept.replace("\r\n", "\n").split("\n"))
    return lines if len(kept) == len(text) else f"{lines}\n… and {len(text) - limit} characters more"


def _texts(children: Iterable[Child]) -> Iterable[str]:
    for child in children:
        if isinstance(child, Markup):
            yield child.text
        elif isinstance(child, str):
            yield html.escape(safe_text(child), quote=False)
        else:
            yield from _texts(child)


def _unix(text: str) -> str:
    """Return ``text`` with the line ends that a browser makes of it before it takes the hash."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _hashes(texts: Iterable[str]) -> str:
    return " ".join(f"'sha256-{_sha256(text)}'" for text in texts)


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
