"""A long answer through a real psql, the broker as a process, the masks and the bucket's emulator: recorded whole.
256 MiB in every run of the tests, 1 GiB in the soak.

The witness is what psql got: the frames of its answer, put together, are the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from dev.local_stack import Stack
from dev.postgres_binaries import find_postgres
from dev.settings import ROOT, child_environment
from tests.e2e.visitor import Visitor, another_broker, root_client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

MIB: Final = 1024 * 1024
A_ROW: Final = 64 * 1024
LINE: Final = "row %s of a recording that is whole; "  # repeated up to 64 KiB, which is what fills a frame
# The window and its copies, gzip and TLS, and what the interpreter keeps of it: whatever the recording's length.
GROWS_BY: Final = 160 * MIB


def copied(stack: Stack, session: Mapping[str, Any], port: int, size: int) -> tuple[str, int]:
    """Return the SHA-256 and the size of what psql got for an answer of about ``size`` bytes."""
    told = session["connect"]
    line = f"format('{LINE}', n)"
    statement = f"select repeat({line}, {A_ROW} / length({line})) from generate_series(1, {size // A_ROW}) n"
    binaries = find_postgres()
    environment = child_environment(
        {
            **binaries.environment(),
            "PGPASSWORD": told["secret"],
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": stack.ready["broker"]["postgres"]["ca_file"],
        }
    )
    where = ["-h", told["host"], "-p", str(port), "-U", told["user"], "-d", told["database"]]
    command = [str(binaries.psql), "-X", "-q", *where, "-c", f"copy ({statement}) to stdout"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as psql:
        assert psql.stdout is not None
        got, read = hashlib.sha256(), 0
        while piece := psql.stdout.read(MIB):
            got.update(piece)
            read += len(piece)
    assert psql.returncode == 0
    return got.hexdigest(), read


def recorded(stack: Stack, session_id: str) -> Iterator[dict[str, Any]]:
    client, bucket = root_client(stack, "s3"), stack.ready["aws"]["bucket"]
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"rec/v1/{session_id}/")
    for found in (one for page in pages for one in page["Contents"]):
        raw = gzip.decompress(client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read())
        yield from (json.loads(line) for line in raw.splitlines()[1:])


def high_water(pid: int) -> int:
    """Return the most memory that a process ever had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("mib", [256, pytest.param(1024, marks=pytest.mark.soak)])
def test_a_long_answer_through_psql_is_recorded_whole(stack: Stack, tmp_path: Path, mib: int) -> None:
    """One peer stops at 110 MiB: here memory and disk stay bounded, and every byte that the client got is there."""
    session = Visitor.of(stack).session()
    spool = tmp_path / "spool"
    with another_broker(stack, "volume", COUNTERSIGN_SPOOL=str(spool)) as broker:
        before = high_water(broker.child.pid)
        sha256, size = copied(stack, session, broker.port, mib * MIB)
        grown = high_water(broker.child.pid) - before
    assert size > 0.99 * mib * MIB
    assert grown < GROWS_BY, f"{grown / MIB:.0f} MiB"
    assert list(spool.rglob("*.ndjson")) == []
    again = hashlib.sha256()
    for number, frame in enumerate(recorded(stack, session["session_id"]), 1):
        assert frame["seq"] == number
        if frame["kind"] == "data":
            again.update(frame["text"].encode())
    assert again.hexdigest() == sha256
    environment = child_environment(stack.ready["aws"]["auditor"])
    verifying = [sys.executable, "-m", "countersign", "verify", session["session_id"], "--json"]
    done = subprocess.run(
        verifying, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert json.loads(done.stdout)["findings"] == [], done.stderr
