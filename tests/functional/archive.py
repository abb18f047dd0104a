"""The bucket as a folder: what brokers and streams really write, put into files under their own keys."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chalicelib.domain.archived_item import TABLE_KEYS, ArchivedItem, Change, item_key, key_text, state_of
from chalicelib.store.documents import to_document
from tests.fakes.clock import START
from tests.fakes.memory import MemoryObjects


def copy_bucket(objects: MemoryObjects, folder: Path) -> None:
    """Write every object as a file, as `aws s3 sync` would."""
    for key, body in objects.rows.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def archived(objects: MemoryObjects, table: str, keys: Mapping[str, str], value: Any, *, number: int = 1) -> None:
    """Put a row's change as `archive_items` does, with its own code."""
    image = {name: {"S": text} for name, text in keys.items()} | {"doc": {"S": to_document(value)}}
    state = state_of(table, TABLE_KEYS[table], image)
    assert state is not None
    item = ArchivedItem(
        table=table,
        change=Change.INSERT if number == 1 else Change.MODIFY,
        key=key_text({name: image[name] for name in keys}),
        state=state,
        before_sha256="",
        sequence=f"{number:021d}",
        at=START,
        by="",
        fault="",
    )
    key = item_key(table, f"{number}{sorted(keys.items())}", START)
    objects.put_new(key, gzip.compress(item.line(), mtime=0), content_type="application/gzip")
