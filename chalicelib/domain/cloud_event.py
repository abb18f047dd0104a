"""An AuditEvent as a CloudEvent, for whoever wants to be told: alarms, a SIEM, a chat. Evidence is in the bucket.

Rules: the envelope is CloudEvents 1.0; ``id`` is the uid, so that a consumer drops what came twice; what an operation's
text was does not travel (a bus is read by many, and keeps no lock), only where it is recorded; an event is at most
``MAX_BYTES``, since intermediaries need forward no more.
Pure. Source: CloudEvents 1.0.2, "Context Attributes", "Size Limits".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from chalicelib.domain.canonical import Json

MAX_BYTES: Final = 64 * 1024
TYPE_PREFIX: Final = "dev.countersign."
_BODIES: Final = ("text",)
# What an event is about and where it is found: all that is kept of one that is too large.
_POINTERS: Final = (
    *("v", "uid", "name", "at", "time_ms", "writer", "number", "class_uid", "type_uid", "status_id", "code", "txn"),
    *("session_id", "connection_id", "operation_id", "target", "frame", "segment"),
)


def cloud_event(row: Mapping[str, Json], source: str) -> Mapping[str, Json]:
    """Return the CloudEvent of an event's row. ``source`` is a URI reference that names the deployment."""
    data = {name: value for name, value in row.items() if name not in _BODIES}
    made = _enveloped(row, source, data)
    if len(json.dumps(made).encode()) <= MAX_BYTES:
        return made
    return _enveloped(row, source, {name: row[name] for name in _POINTERS if name in row})


def _enveloped(row: Mapping[str, Json], source: str, data: Mapping[str, Json]) -> Mapping[str, Json]:
    subject = row.get("session_id") or row.get("txn") or row.get("subject")
    about: Mapping[str, Json] = {"subject": subject} if subject else {}
    return {
        "specversion": "1.0",
        "id": row["uid"],
        "source": source,
        "type": f"{TYPE_PREFIX}{row['name']}.v{row['v']}",
        "time": row["at"],
        "datacontenttype": "application/json",
        **about,
        "data": data,
    }
