"""asciinema-player, which plays terminals in the page that `replay --html` writes: read from its npm package, pinned.

Rules: it is somebody else's program and none of it is in this repository; a package that has another hash than the one
pinned here is not read, wherever it comes from, so that a page of evidence runs no code that nobody looked at. It is
looked for beside the code, where a wheel has it (ADR 0019), or where the caller says. Without it a page shows terminals
as text. Source: npm's ``dist.integrity`` of the version; Apache-2.0, whose text travels with it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from countersign.failures import Exit, Failure

PACKAGE: Final = "asciinema-player"
VERSION: Final = "3.18.0"
INTEGRITY: Final = "5gpt2ipFcy4NKmgkv+c/QXnJ9zMicxqWROCOuJqgwwtiYKM8Qe9hnDOvfqke5bW6M2DW/seO3uQYkQ0xeUUVtw=="  # SHA-512
FILE: Final = f"{PACKAGE}-{VERSION}.tgz"
PACKAGED: Final = Path(__file__).resolve().parent / "player" / FILE
_MOST: Final = 4 << 20  # bytes: the package has half a megabyte
_SCRIPT: Final = "package/dist/bundle/asciinema-player.min.js"
_STYLE: Final = "package/dist/bundle/asciinema-player.css"
_LICENCE: Final = "package/LICENSE"


@dataclass(frozen=True, kw_only=True, slots=True)
class WebPlayer:
    """The player's code, its style, and the licence that both are under."""

    script: str
    style: str
    licence: str


def read_player(path: Path | None = None) -> WebPlayer | None:
    """Return the player in the package at ``path``, or beside the code; None where it is not there.

    Raises Failure (usage) where a package was named and cannot be read, and where one is not the pinned one.
    """
    try:
        with (path or PACKAGED).open("rb") as file:
            stored = file.read(_MOST + 1)
    except OSError as error:
        if path is None:
            return None
        raise Failure(Exit.USAGE, f"the player's package cannot be read: {error.strerror}", hint=str(path)) from error
    if base64.b64encode(hashlib.sha512(stored).digest()).decode() != INTEGRITY:
        hint = f"npm pack {PACKAGE}@{VERSION} fetches it; without it terminals are shown as text."
        raise Failure(Exit.USAGE, f"the player's package is not {PACKAGE} {VERSION} as it is pinned", hint=hint)
    with tarfile.open(fileobj=io.BytesIO(stored), mode="r:gz") as package:
        return WebPlayer(script=_text(package, _SCRIPT), style=_text(package, _STYLE), licence=_text(package, _LICENCE))


def _text(package: tarfile.TarFile, name: str) -> str:
    member = package.extractfile(name)
    if member is None:
        raise Failure(Exit.USAGE, f"the player's package has no {name}")
    return member.read().decode("utf-8")
