"""What a thief finds in the places of the story: everything that the pipeline ever held.

Rules: it is taken from where it lies (a process's environment, a folder for temporary files, an identity file), as
somebody who has the machine would; nothing is asked of the stack.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dev.demo.places import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Loot:
    """``words``: (what it is, the text) of all that could be tried as a password; ``keys``: copies of ssh keys, each
    with its certificate beside it."""

    words: tuple[tuple[str, str], ...] = field(repr=False)
    keys: tuple[Path, ...]


def gather(places: Sequence[Place], tickets: Sequence[str], tokens: Sequence[tuple[str, str]], into: Path) -> Loot:
    """Take what is in ``places``. ``tickets`` and ``tokens`` (what it is, the text) were seen on the way."""
    words = {
        **{text: "a session's secret" for place in places for text in _secrets(place)},
        **{text: f"{place.name}'s access token" for place in places for text in _access_tokens(place)},
        **dict.fromkeys(tickets, "a ticket"),
        **{text: what for what, text in tokens},
    }
    into.mkdir(mode=0o700)
    keys = [key for place in places for key in sorted((place.folder / "tmp").glob("countersign-*/key"))]
    copies: list[Path] = []
    for number, key in enumerate(keys):
        for name in ("key", "key-cert.pub"):
            shutil.copy(key.with_name(name), into / f"{number}-{name}")
        copies.append(into / f"{number}-key")
    return Loot(words=tuple((what, text) for text, what in words.items()), keys=tuple(copies))


def _secrets(place: Place) -> Iterator[str]:
    """Yield the passwords in the environments of the processes whose home is this place."""
    home = f"HOME={place.folder}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is somebody else's
            variables = (process / "environ").read_bytes().split(b"\0")
            if home in variables:
                yield from (each[11:].decode() for each in variables if each.startswith(b"PGPASSWORD="))


def _access_tokens(place: Place) -> Iterator[str]:
    for file in sorted(place.folder.rglob("*.json")):
        with suppress(ValueError):
            held = json.loads(file.read_bytes())
            if isinstance(held, dict) and held.get("token"):
                yield str(held["token"])
