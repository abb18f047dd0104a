"""CloudTrail's log files, as `aws s3 sync` brings them: the records of each, with the place where it stands.

Rules: whoever made the folder chose what lies in it, so no link is followed, every read is bounded, and a file that is
none of CloudTrail's ends the command rather than being passed over: what it would have said is unknown. AWS's own
signatures on the files are `aws cloudtrail validate-logs`'s to check.
Source: docs.aws.amazon.com, CloudTrail user guide, "CloudTrail log file name format" (JSON, gzip, member ``Records``;
digests lie under ``CloudTrail-Digest``, insights under ``CloudTrail-Insight``).
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from countersign.failures import Exit, Failure

MAX_STORED: Final = 64 << 20  # of one file: CloudTrail begins another at a few megabytes
MAX_UNPACKED: Final = 256 << 20
MAX_FILES: Final = 100_000  # a region writes some 300 a day
_OTHERS: Final = frozenset({"CloudTrail-Digest", "CloudTrail-Insight"})
_GZIP: Final = 16 + zlib.MAX_WBITS


def trail_records(path: str) -> Iterator[tuple[str, object]]:
    """Give each record in a file, or in all files below a folder, with ``FILE#NUMBER``. Raises Failure (usage)."""
    start = Path(path)
    files = [start] if start.is_file() else sorted(_below(start)) if start.is_dir() else []
    if not files:
        raise Failure(
            Exit.USAGE, "there are no files of CloudTrail's", hint=f"{path}: *.json.gz, as the bucket has them"
        )
    for file in files:
        for number, record in enumerate(_records(file), 1):
            yield f"{file}#{number}", record


def _below(folder: Path) -> Iterator[Path]:
    count = 0
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name not in _OTHERS]
        for name in names:
            file = Path(place, name)
            if not name.endswith((".json.gz", ".json")) or file.is_symlink() or not file.is_file():
                continue
            count += 1
            if count > MAX_FILES:
                raise Failure(
                    Exit.USAGE, f"there are more than {MAX_FILES} files", hint="Give the folder of some days."
                )
            yield file


def _records(file: Path) -> list[object]:
    try:
        with file.open("rb") as opened:
            stored = opened.read(MAX_STORED + 1)
    except OSError as error:
        raise Failure(Exit.USAGE, f"a file of the trail cannot be read: {error.strerror}", hint=str(file)) from error
    text = _unpacked(stored) if stored[:2] == b"\x1f\x8b" else stored
    if text is None or len(stored) > MAX_STORED:
        raise Failure(Exit.INVALID, "a file of the trail is cut, or larger than any of CloudTrail's", hint=str(file))
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure(Exit.INVALID, "a file of the trail is not JSON", hint=str(file)) from error
    records = found.get("Records") if isinstance(found, dict) else None
    if not isinstance(records, list):
        raise Failure(Exit.INVALID, "a file is none of CloudTrail's: it has no Records", hint=str(file))
    return records


def _unpacked(stored: bytes) -> bytes | None:
    unpacking = zlib.decompressobj(_GZIP)
    try:
        text = unpacking.decompress(stored, MAX_UNPACKED)
    except zlib.error:
        return None
    return text if unpacking.eof else None
