"""Rows of a benchmark: alternating runs of us and a peer in one call, medians, a ratio and a goal.

Figures of a shared two-core machine say little and ratios of the same run say much; so each ratio comes from runs that
alternate, so that what the machine does meanwhile happens to both, and from the medians of at least ``RUNS``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RUNS = 5  # the least odd number whose median survives two disturbed runs


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table. ``ratio`` is ``value / peer_value``; ``goal`` says in words what ``met`` judges."""

    name: str
    value: float
    unit: str
    peer: str
    peer_value: float
    ratio: float
    goal: str
    met: bool


def compare(
    name: str, unit: str, ours: Callable[[], float], peer_name: str, peer: Callable[[], float], goal: str, most: float
) -> Row:
    """Measure ``ours`` and ``peer`` in turn, ``RUNS`` times each, and return the row of their medians.

    Both return one figure in ``unit``. ``met`` is whether the ratio is at most ``most``.
    """
    our_figures: list[float] = []
    peer_figures: list[float] = []
    for _ in range(RUNS):
        peer_figures.append(peer())
        our_figures.append(ours())
    value, peer_value = statistics.median(our_figures), statistics.median(peer_figures)
    ratio = value / peer_value if peer_value else float("inf")
    return Row(
        name=name,
        value=round(value, 3),
        unit=unit,
        peer=peer_name,
        peer_value=round(peer_value, 3),
        ratio=round(ratio, 3),
        goal=goal,
        met=ratio <= most,
    )


def bounded(name: str, unit: str, value: float, limit_name: str, limit: float) -> Row:
    """Return the row of a count or size that is compared with a stated limit, not with a run."""
    ratio = value / limit
    return Row(
        name=name,
        value=round(value, 3),
        unit=unit,
        peer=limit_name,
        peer_value=limit,
        ratio=round(ratio, 3),
        goal=f"at most {limit:g} {unit}",
        met=value <= limit,
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text."""
    cells = [("what", "value", "unit", "peer", "peer value", "ratio", "goal", "met")]
    cells += [
        (
            r.name,
            f"{r.value:g}",
            r.unit,
            r.peer,
            f"{r.peer_value:g}",
            f"{r.ratio:.2f}",
            r.goal,
            "yes" if r.met else "NO",
        )
        for r in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def write(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as the JSON list that ``bench/out/latest.json`` is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
