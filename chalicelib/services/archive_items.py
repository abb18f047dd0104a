"""Archives every change of every table into the locked bucket as it happens, and raises an alarm for what may not be.

Runs on the tables' streams. Rules: a batch is one object, named by its first change, put once; a batch that comes again
puts nothing twice, and one that comes in other parts puts the changes that are not there yet. A change that may not
happen (``domain.row_change``) is archived like the others, with the reason on its line, and audited. Nothing is
dropped: what cannot be put fails the batch, which Lambda delivers again for as long as the stream keeps it. What may be
archived of a row is decided in ``domain.archived_item``. Source: docs.aws.amazon.com, "Using Lambda with DynamoDB".
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from chalicelib.domain.archived_item import GONE, ArchivedItem, Change, item_key, items_of, key_text, state_of
from chalicelib.domain.audit import AuditEvent, AuditLog, AuditName
from chalicelib.domain.canonical import Json
from chalicelib.domain.errors import AlreadyExists, BadRequest, StoreUnavailable
from chalicelib.domain.row_change import change_fault
from chalicelib.domain.store import Objects

_CONTENT: Final = "application/gzip"
_MOST_FAULT: Final = 400  # characters: it names fields, and those an administrator may have named
_MOST_TRIES: Final = 64  # objects of one batch, each of which another delivery put in part: Lambda splits one in halves


class ArchiveItems:
    """Archives. Thread-safe where the store is; idempotent."""

    def __init__(self, *, objects: Objects, audit: AuditLog) -> None:
        self._objects = objects
        self._audit = audit

    def __call__(self, items: Sequence[ArchivedItem]) -> int:
        """Put ``items``, in order of the stream, and return how many were not there yet.

        Raises StoreUnavailable, and whatever the audit log raises: then the whole batch must come again.
        """
        tables: dict[str, list[ArchivedItem]] = {}
        for item in items:
            tables.setdefault(item.table, []).append(item)
        new = sum(self._put(batch) for batch in tables.values())
        for item in items:
            if item.table == "activations" and item.change is Change.INSERT:
                self._audit.record(_activated(item))
            if item.fault:
                self._audit.record(
                    AuditEvent(
                        name=AuditName.ROW_TAMPERED,
                        at=item.at,
                        code=item.change.value,
                        subject=item.name(),
                        why=item.fault,
                    )
                )
        return new

    def _put(self, batch: list[ArchivedItem]) -> int:
        new = 0
        for _ in range(_MOST_TRIES):
            if not batch:
                return new
            key = item_key(batch[0].table, batch[0].sequence, batch[0].at)
            body = gzip.compress(b"".join(item.line() for item in batch), mtime=0)  # one batch, one text
            try:
                self._objects.put_new(key, body, content_type=_CONTENT)
            except AlreadyExists:
                batch = self._not_in(key, batch)
            else:
                return new + len(batch)
        raise StoreUnavailable("a batch of changes could not be archived", store="objects")

    def _not_in(self, key: str, batch: Sequence[ArchivedItem]) -> list[ArchivedItem]:
        """Return the changes that an earlier delivery did not put under ``key``. Raises StoreUnavailable where the
        object there is not one of these changes: somebody took the key."""
        held, _ = items_of(self._objects.get(key))
        lines = {item.line() for item in held}
        left = [item for item in batch if item.line() not in lines]
        if len(left) == len(batch):
            raise StoreUnavailable("an object of changes is not the one that its key names", store="objects", key=key)
        return left


def _activated(item: ArchivedItem) -> AuditEvent:
    """Return the event that a configuration was made the active one. Its row is not believed here: whoever reads it
    verifies its signature."""
    told = item.state.document()
    serial = told.get("serial")
    return AuditEvent(
        name=AuditName.ACTIVATION_PUT,
        at=item.at,
        subject=item.name(),
        configuration_serial=serial if isinstance(serial, int) and 0 <= serial < 1 << 53 else 0,
        why=f"bundle {told.get('bundle_digest', '')} by {told.get('author', '')}",
    )


def stream_changes(event: Mapping[str, Json], prefix: str) -> list[ArchivedItem]:
    """Return the changes that a DynamoDB stream event tells, of the tables whose names begin with ``prefix`` and ``-``;
    those that may not be archived are left out.

    Raises BadRequest where a record is not one that we know: it must not pass unarchived.
    """
    records = event.get("Records")
    listed = records if isinstance(records, list | tuple) else []
    return [found for record in listed if (found := _change(record, prefix)) is not None]


def _change(record: Json, prefix: str) -> ArchivedItem | None:
    match record:
        case {
            "eventName": "INSERT" | "MODIFY" | "REMOVE" as name,
            "eventSourceARN": str(arn),
            "dynamodb": {"Keys": Mapping() as keys, "SequenceNumber": str(sequence), **told},
        }:
            table = arn.partition(":table/")[2].partition("/")[0].removeprefix(f"{prefix}-")
        case _:
            raise BadRequest("a stream's record is not one that we know")
    before = state_of(table, keys, _image(told.get("OldImage")))
    after = state_of(table, keys, _image(told.get("NewImage")))
    change = Change(name.lower())
    if change is Change.INSERT:
        before = GONE
    if change is Change.REMOVE:
        after = GONE
    if before is None or after is None:
        return None
    return ArchivedItem(
        table=table,
        change=change,
        key=key_text(keys),
        state=after,
        before_sha256="" if change is Change.INSERT else before.sha256(),
        sequence=sequence,
        at=_moment(told.get("ApproximateCreationDateTime")),
        by=_by(record),
        fault=change_fault(table, json.loads(key_text(keys)), change, before, after)[:_MOST_FAULT],
    )


def _image(image: object) -> Mapping[str, Any]:
    return image if isinstance(image, Mapping) else {}


def _moment(seconds: object) -> datetime:
    """Lambda tells it in seconds since 1970."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        return datetime.fromtimestamp(seconds, UTC)
    raise BadRequest("a stream's record says no time")


def _by(record: Json) -> str:
    match record:
        case {"userIdentity": {"principalId": str(principal)}}:
            return principal  # ``dynamodb.amazonaws.com``: its own removal of what expired
        case _:
            return ""
