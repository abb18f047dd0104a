"""Who else saw it: PostgreSQL's own log, the bucket, the tables. Read directly, past everything of ours that could be
wrong.

Rules: nothing here uses the product's stores or its review; it reads what the server wrote and what the emulator
holds.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from boto3.session import Session

from dev.emulator import ROOT_KEY

# The line that dev.postgres_server asks for: time, process, the client's address, application name, what was logged.
# Whose process it is, the server says when it lets somebody in.
_LOGGED: Final = re.compile(
    r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}) UTC \[(?P<pid>\d+)\] \S* app=(?P<app>.*?) "
    r"LOG:  (?:connection authorized: user=(?P<user>\S+) .*|(?:statement|execute [^:]*): (?P<sql>.*))"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Logged:
    """A statement that PostgreSQL says it ran, by whom, and what the client called itself."""

    at: datetime
    user: str
    application: str
    sql: str


def logged_statements(log: Path, user: str) -> list[Logged]:
    """Return what ``user`` ran, in order, as the server's log has it."""
    found: list[Logged] = []
    users: dict[str, str] = {}
    for line in log.read_text(errors="replace").splitlines():
        match = _LOGGED.match(line)
        if match and match["user"]:
            users[match["pid"]] = match["user"]
        elif match and users.get(match["pid"]) == user:
            at = datetime.strptime(match["at"], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
            found.append(Logged(at=at, user=user, application=match["app"], sql=match["sql"]))
    return found


class Cloud:
    """The emulator's bucket and tables, read with its root key: an auditor's rights would show an auditor's share."""

    def __init__(self, aws: Mapping[str, Any]) -> None:
        session = Session(ROOT_KEY, ROOT_KEY, region_name=aws["region"])
        self._s3 = session.client("s3", endpoint_url=aws["endpoint"])
        self._dynamodb = session.client("dynamodb", endpoint_url=aws["endpoint"])
        self._bucket: str = aws["bucket"]

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        """Return an object, unpacked where its name says that it is packed."""
        body: bytes = self._s3.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return gzip.decompress(body) if key.endswith(".gz") else body

    def frames(self, session_id: str) -> list[dict[str, Any]]:
        """Return every frame of every recording of a session, in order; ``meta`` as an object."""
        lines = (line for key in sorted(self.keys(f"rec/v1/{session_id}/")) for line in self.read(key).splitlines())
        frames = [json.loads(line) for line in lines]
        return [{**frame, "meta": json.loads(frame["meta"])} for frame in frames if "meta" in frame]

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield (table, row as text) for every row of every table."""
        for table in self._dynamodb.list_tables()["TableNames"]:
            for page in self._dynamodb.get_paginator("scan").paginate(TableName=table):
                for item in page["Items"]:
                    yield table, json.dumps(item, default=_readable)

    def documents(self, table: str, word: str) -> list[dict[str, Any]]:
        """Return the documents in a table (named without its prefix) whose row holds ``word``."""
        rows = (row for name, row in self.rows() if name.endswith(f"-{table}") and word in row)
        return [json.loads(json.loads(row)["doc"]["S"]) for row in rows]

    def everything(self) -> Iterator[tuple[str, str]]:
        """Yield (where, text) for every object and every row."""
        for key in self.keys():
            yield f"s3://{self._bucket}/{key}", self.read(key).decode(errors="replace")
        for table, row in self.rows():
            yield f"table {table}", row


def _readable(value: object) -> str:
    return bytes(value).decode(errors="replace") if isinstance(value, bytes | bytearray) else repr(value)


def leaks(texts: Iterable[tuple[str, str]], planted: Sequence[str]) -> list[tuple[str, str]]:
    """Return (where, value) for each planted value that stands in one of ``texts``."""
    pattern = re.compile("|".join(map(re.escape, planted)))
    return [(where, found) for where, text in texts for found in pattern.findall(text)]


def table_cells(lines: Sequence[str]) -> list[list[str]]:
    """Return the cells of psql's aligned output: the lines between the rule and the row count. Pure."""
    rule = next((place for place, line in enumerate(lines) if re.fullmatch(r"[-+]+", line)), len(lines))
    rows: list[list[str]] = []
    for line in lines[rule + 1 :]:
        if re.fullmatch(r"\(\d+ rows?\)", line):
            break
        rows.append([cell.strip() for cell in line.split("|")])
    return rows


def recorded_rows(frames: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the rows that the recording says the client saw, in order; a null as the empty text that psql prints."""
    lines = (line for frame in frames if frame["kind"] == "rows" for line in frame["text"].splitlines())
    return [["" if cell is None else str(cell) for cell in json.loads(line)] for line in lines]
