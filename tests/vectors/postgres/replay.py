"""Reads the recorded sessions back: whole, by direction, and cut into frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from broker.wire.postgres.framing import FrameReader, client_reader, server_reader

SESSIONS: Final = ("psql", "psycopg", "asyncpg")
_HERE: Final = Path(__file__).parent


def pieces(name: str) -> list[tuple[str, bytes]]:
    """Return (direction, bytes) as they crossed."""
    return [(direction, bytes.fromhex(text)) for direction, text in json.loads((_HERE / f"{name}.json").read_text())]


def after_login(name: str) -> list[tuple[str, bytes]]:
    """Return what crossed after the server first said that it is ready."""
    found = pieces(name)
    for at, (direction, data) in enumerate(found):
        if direction == "s" and data.endswith(b"Z\x00\x00\x00\x05I"):
            return found[at + 1 :]
    raise ValueError("the session never became ready")


def frames(direction: str, data: bytes) -> list[tuple[int, bytes]]:
    """Return (type, body) of whole frames."""
    reader: FrameReader = client_reader() if direction == "c" else server_reader()
    cut = reader.feed(data)
    return [(kind, cut.data[start + 5 : end]) for kind, start, end in cut.spans]
