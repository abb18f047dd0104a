"""Objects of the bucket, fetched to a folder of our own with the caller's rights, for what reads files.

Rules: bounded; a key that leads out of the folder is refused. Writes nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chalicelib.domain.errors import StoreUnavailable
from countersign.failures import Exit, Failure

if TYPE_CHECKING:
    from chalicelib.domain.reading import ReadObjects

MAX_FETCHED: Final = 2 * 1024**3  # what is fetched to a disk here: past it Athena is the place


def fetch(objects: ReadObjects, prefixes: Iterable[str], folder: Path, most: int = MAX_FETCHED) -> int:
    """Fetch every object under ``prefixes`` into ``folder`` under its key; return how many bytes that was.

    Raises Failure (denied) past ``most`` bytes, StoreUnavailable."""
    fetched = 0
    for prefix in prefixes:
        for key in objects.keys(prefix):
            body = objects.get(key)
            fetched += len(body)
            if fetched > most:
                raise Failure(Exit.DENIED, "there is more than can be fetched", hint="Fewer days; or run it on Athena.")
            path = folder / key
            if not path.resolve().is_relative_to(folder.resolve()):
                raise StoreUnavailable("a key leads out of the folder", key=key[:200])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    return fetched
