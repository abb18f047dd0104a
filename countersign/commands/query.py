"""`countersign query NAME --param k=v ...`: the questions that auditors ask, on Athena, or here on DuckDB.

``--local FOLDER`` reads a copy with the bucket's layout; ``--local bucket`` fetches the objects of the days that are
asked for with the caller's own rights; without it the query runs on Athena (COUNTERSIGN_WORKGROUP and
COUNTERSIGN_DATABASE, else ``countersign`` both). The same text, the same columns, the same values.
"""

from __future__ import annotations

import argparse
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chalicelib.domain.errors import StoreUnavailable
from countersign.bucket_fetch import fetch
from countersign.commands.asking import Invocation
from countersign.failures import Exit, Failure
from countersign.named_queries import NamedQuery, Value, names, read_query
from countersign.query_results import Results, as_rows, csv_text, table

if TYPE_CHECKING:
    from collections.abc import Mapping

BUCKET: Final = "bucket"
MAX_ROWS: Final = 10_000
MAX_BYTES: Final = 10 * 1024**3  # five cents: enough for a month of a busy broker's events
MAX_DAYS: Final = 366


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", nargs="?", default="", metavar="NAME", help="which question; without it, all of them")
    parser.add_argument("--param", action="append", default=[], metavar="K=V", help="a value for the question")
    parser.add_argument(
        "--local", default="", metavar="FOLDER", help="run it here, on a copy of the bucket; 'bucket': on the bucket"
    )
    parser.add_argument("--csv", action="store_true", help="comma-separated values; no cell is a formula")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="at most so many rows (1000)")
    parser.add_argument("--max-bytes", type=int, default=MAX_BYTES, metavar="N", help="stop on Athena past so many")


def query(invocation: Invocation) -> int:
    """Return 0. Raises Failure, AccessError, and ModuleNotFoundError without the extra ``query``."""
    options, output = invocation.options, invocation.output
    if not options.query:
        return _listed(invocation)
    asked = read_query(options.query)
    values = asked.values(_given(options.param), invocation.clock.now())
    if not 1 <= options.limit <= MAX_ROWS or options.max_bytes < 1:
        raise Failure(Exit.USAGE, f"--limit is 1 to {MAX_ROWS}, --max-bytes at least 1")
    if options.csv and output.as_json:
        raise Failure(Exit.USAGE, "--csv and --json are two forms of one answer: choose one")
    results = _results(invocation, asked, values)
    _show(invocation, asked, values, results)
    return Exit.DONE


def _results(invocation: Invocation, asked: NamedQuery, values: Mapping[str, Value]) -> Results:
    options = invocation.options
    if not options.local:
        return _on_athena(invocation, asked, values)
    from countersign.query_local import run_local

    if options.local != BUCKET:
        folder = Path(options.local)
        if not folder.is_dir():
            raise Failure(Exit.USAGE, "there is no such folder", hint="--local FOLDER, or --local bucket")
        return run_local(asked, values, folder, limit=options.limit)
    with tempfile.TemporaryDirectory(prefix="countersign-query-") as made:
        _fetch(invocation, asked, values, Path(made))
        return run_local(asked, values, Path(made), limit=options.limit)


def _fetch(invocation: Invocation, asked: NamedQuery, values: Mapping[str, Value], folder: Path) -> None:
    from countersign.evidence_source import open_deployment
    from countersign.query_local import prefixes

    objects = open_deployment(invocation.settings.inherited).objects
    fetch(objects, prefixes(asked, values, _days(values)), folder)


def _days(values: Mapping[str, Value]) -> list[str]:
    if "since" not in values:
        return []
    first, last = date.fromisoformat(str(values["since"])), date.fromisoformat(str(values["until"]))
    count = (last - first).days + 1
    if not 1 <= count <= MAX_DAYS:
        raise Failure(Exit.USAGE, f"since and until are 1 to {MAX_DAYS} days", hint="until is not before since.")
    return [(first + timedelta(days=day)).isoformat() for day in range(count)]


def _on_athena(invocation: Invocation, asked: NamedQuery, values: Mapping[str, Value]) -> Results:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    from countersign.query_athena import AthenaPlace, run_athena

    environment = invocation.settings.inherited
    place = AthenaPlace(
        workgroup=environment.get("COUNTERSIGN_WORKGROUP", "countersign"),
        database=environment.get("COUNTERSIGN_DATABASE", "countersign"),
        max_bytes=invocation.options.max_bytes,
    )
    region = environment.get("AWS_DEFAULT_REGION") or environment.get("AWS_REGION")
    if not region:
        raise Failure(Exit.USAGE, "no region is named", hint="Set AWS_REGION; or read a copy: --local FOLDER.")
    try:
        athena = boto3.client("athena", region_name=region)
        return run_athena(asked, values, athena, place, invocation.clock, limit=invocation.options.limit)
    except (BotoCoreError, ClientError) as error:
        raise StoreUnavailable("Athena could not be reached", error=type(error).__name__) from error


def _given(pairs: list[str]) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found or name in given:
            raise Failure(Exit.USAGE, "--param is NAME=VALUE, each name once")
        given[name] = value
    return given


def _show(invocation: Invocation, asked: NamedQuery, values: Mapping[str, Value], results: Results) -> None:
    output = invocation.output
    if invocation.options.csv:
        output.raw(csv_text(results).removesuffix("\r\n"))
    else:
        output.result(
            {
                "query": asked.name,
                "parameters": dict(values),
                "columns": list(results.columns),
                "rows": as_rows(results),
                "truncated": results.truncated,
                "ran_on": results.ran_on,
                "scanned_bytes": results.scanned_bytes,
            }
        )
        for line in table(results):
            output.line(line)
    for note in results.notes:
        output.say(f"{results.ran_on}: {note}")
    if results.truncated:
        output.say(f"there are more than {len(results.rows)} rows: --limit gives more, fewer days give fewer")


def _listed(invocation: Invocation) -> int:
    found = [read_query(name) for name in names()]
    told = [
        {"name": one.name, "about": one.about, "parameters": [parameter.name for parameter in one.parameters]}
        for one in found
    ]
    invocation.output.result({"queries": told})
    for one in found:
        needed = " ".join(f"{p.name}=" for p in one.parameters if p.default is None)
        invocation.output.line(f"{one.name:20}  {one.about}{f'  ({needed})' if needed else ''}")
    return Exit.DONE
