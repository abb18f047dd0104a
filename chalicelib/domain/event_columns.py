"""The columns of an event, said once: the JSON schema, the Athena table and the local reader all are made of these.

``python -m chalicelib.domain.event_columns > docs/schema/events.json`` writes the schema; a test compares what is
committed, and that ``infra/athena/tables/events.sql`` has the same columns. A column is never renamed nor given another
type: objects that were locked with it stay.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chalicelib.domain.audit import EVENT_VERSION, MAX_FIELD, MAX_LISTED, MAX_SHOWN, AuditName
from chalicelib.domain.canonical import Json

EVENTS: Final = "events/v1/"


class Kind(StrEnum):
    """A column's type, by its name in Athena's DDL."""

    TEXT = "string"
    NUMBER = "bigint"
    TEXTS = "array<string>"
    TRUTH = "boolean"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    about: str
    always: bool = False


EVENT_COLUMNS: Final = (
    Column("v", Kind.NUMBER, "version of this schema", True),
    Column("uid", Kind.TEXT, "hash of what makes it the same fact: count a uid once", True),
    Column("name", Kind.TEXT, "what happened, in the past tense", True),
    Column("at", Kind.TEXT, "when, RFC 3339 in UTC", True),
    Column("time_ms", Kind.NUMBER, "when, milliseconds since 1970 (OCSF time)", True),
    Column("writer", Kind.TEXT, "the process that told it", True),
    Column("number", Kind.NUMBER, "its place among that process's events, from 0 without holes", True),
    Column("category_uid", Kind.NUMBER, "OCSF category", True),
    Column("class_uid", Kind.NUMBER, "OCSF class; 0, Base Event, where none fits", True),
    Column("activity_id", Kind.NUMBER, "OCSF activity", True),
    Column("type_uid", Kind.NUMBER, "OCSF type: class times 100, and activity", True),
    Column("severity_id", Kind.NUMBER, "OCSF severity: 1 informational, 2 a refusal", True),
    Column("status_id", Kind.NUMBER, "OCSF status: 1 success, 2 failure", True),
    Column("code", Kind.TEXT, "the refusal's code, or how a connection ended"),
    Column("subject", Kind.TEXT, "what it is about, where no other column says it"),
    Column("txn", Kind.TEXT, "the chain's id"),
    Column("originator", Kind.TEXT, "issuer#subject of whom the whole chain acts for"),
    Column("chain", Kind.TEXTS, "issuer#subject of every identity, originator first"),
    Column("hop", Kind.TEXT, "the leaf's hop"),
    Column("assurance", Kind.TEXT, "of the leaf: attested, vouched, bearer"),
    Column("actor", Kind.TEXT, "issuer#subject of who acts now; of an answer, the person"),
    Column("session_id", Kind.TEXT, "the session"),
    Column("connection_id", Kind.TEXT, "the connection"),
    Column("operation_id", Kind.TEXT, "the operation"),
    Column("ask_ids", Kind.TEXTS, "the asks that it waited for"),
    Column("people", Kind.TEXTS, "who answered them"),
    Column("target", Kind.TEXT, "the target's name"),
    Column("principal", Kind.TEXT, "the login there"),
    Column("protocol", Kind.TEXT, "postgres, ssh"),
    Column("peer", Kind.TEXT, "the client's address"),
    Column("actions", Kind.TEXTS, "what it does, as policy names it"),
    Column("text", Kind.TEXT, "the operation as its recording has it, cut: secrets replaced, hostile all the same"),
    Column("masks", Kind.TEXTS, "what was masked in its result"),
    Column("tables", Kind.TEXTS, "the tables that it names, as schema.table"),
    Column("reads_masked", Kind.TRUTH, "it reads a column that a mask rule names"),
    Column("verdict", Kind.TEXT, "the last word: forward, mask, block"),
    Column("rules", Kind.TEXTS, "the rules that determined it"),
    Column("policy_digest", Kind.TEXT, "the policy that said it"),
    Column("configuration_serial", Kind.NUMBER, "the bundle that it is of"),
    Column("outcome", Kind.TEXT, "ok, error, refused, unknown"),
    Column("tag", Kind.TEXT, "what the target said at the end: a command tag, an exit status"),
    Column("sqlstate", Kind.TEXT, "of an error"),
    Column("row_count", Kind.NUMBER, "rows that came back or were changed"),
    Column("byte_count", Kind.NUMBER, "bytes that came back"),
    Column("duration_ms", Kind.NUMBER, "how long it ran"),
    Column("frame", Kind.NUMBER, "number of the frame that tells it, its offset in the recording"),
    Column("segment", Kind.TEXT, "key of the object with that frame, where it was known when this was written"),
    Column("why", Kind.TEXT, "a word of ours, or of the person who revoked"),
)


def _shape(column: Column) -> Mapping[str, Json]:
    if column.name == "name":
        return {"enum": [name.value for name in AuditName]}
    if column.name == "v":
        return {"const": EVENT_VERSION}
    match column.kind:
        case Kind.NUMBER:
            return {"type": "integer", "minimum": 0}
        case Kind.TEXT:
            return {"type": "string", "maxLength": MAX_SHOWN if column.name == "text" else MAX_FIELD}
        case Kind.TRUTH:
            return {"type": "boolean"}
        case Kind.TEXTS:
            item: Mapping[str, Json] = {"type": "string", "maxLength": MAX_FIELD}
            return {"type": "array", "items": item, "maxItems": MAX_LISTED + 1}


def schema() -> Mapping[str, Json]:
    """Return the JSON schema (draft 2020-12) of one line. Pure."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{EVENTS}date=YYYY-MM-DD/hour=HH/WRITER-ULID.ndjson.gz: one line",
        "type": "object",
        "properties": {column.name: {**_shape(column), "description": column.about} for column in EVENT_COLUMNS},
        "required": [column.name for column in EVENT_COLUMNS if column.always],
        "additionalProperties": False,
    }


def schema_text() -> str:
    """Return the text of ``docs/schema/events.json``. Pure."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
