"""``make bench``: measure, print the table, write ``bench/out/latest.json``."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from bench.harness import Row, table, write

PARTS = ("control_plane", "postgres", "package", "review", "recording")
OUT = Path(__file__).resolve().parent / "out" / "latest.json"


def main() -> int:
    """Return 0 whether goals are met or not: a figure of a shared machine is read by people, not by a gate."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure against peers, in one run.")
    parser.add_argument("--only", choices=PARTS, help="one part alone")
    chosen = parser.parse_args().only
    rows: list[Row] = []
    for part in (chosen,) if chosen else PARTS:
        rows += importlib.import_module(f"bench.{part}").rows()
    print(table(rows))
    write(rows, OUT)
    print(f"\nwritten to {OUT}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
