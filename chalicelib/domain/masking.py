"""The rules of masking, as configured: which columns and which detected values, and what stands in their place.

Every mask carries ``SENTINEL``, so that a masked value that comes back in client text is known for what it is and
refused (``mask_written_back``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

SENTINEL: Final = "#MASKED:"


class MaskMode(StrEnum):
    REDACT = "redact"  # the whole value becomes the sentinel text
    PARTIAL = "partial"  # the last four characters stay, after the sentinel text
    NULL = "null"


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnName:
    schema: str
    table: str
    column: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskRule:
    """One named mask: the columns of targets that it covers, and the detectors (built-in names, or RE2 patterns) whose
    hits it covers anywhere. ``targets`` empty means every target."""

    name: str
    mode: MaskMode
    targets: tuple[str, ...]
    columns: tuple[ColumnName, ...]
    detectors: tuple[str, ...]
    patterns: tuple[str, ...]


def mask_text(rule: str) -> str:
    """Return what stands in place of a redacted value."""
    return f"{SENTINEL}{rule}#"
