"""Writes what a command made for people into a file: a review as HTML or CSV.

Rules: the file is new, and only its owner reads it, since it holds statements and names; what was there before is never
replaced; a file that could not be written whole is removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from countersign.failures import Exit, Failure


@contextmanager
def new_file(path: str) -> Iterator[TextIO]:
    """Give a new text file (UTF-8, line ends as written). Raises Failure (usage): it is there, or cannot be made."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no path"
        raise Failure(Exit.USAGE, f"the file cannot be made: {why}", hint=path) from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise
